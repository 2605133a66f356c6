"""What two requests at once could do that neither may do alone."""

import base64
import threading
import time

from tests.faults.rows import Site, row
from tests.servers.service import Service

_OCTETS = {"Content-Type": "application/octet-stream"}
_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
# a qcow2 header whose backing file is /etc/passwd
_BACKED = base64.b64decode("UUZJ+wAAAAMAAAAAAAAAaAAAAAsAAAAQAAAAAACgAAA=") + bytes(72) + b"/etc/passwd" + bytes(400)


@row("formats change while the upload begins", "none active as bare")
def formats(site: Site) -> str:
    service = site.service()
    until = time.monotonic() + (4 if site.quick else 30)
    while time.monotonic() < until:
        fields = {"disk_format": "qcow2", "container_format": "ova"}
        image = service.request("POST", "/v2/images", json=fields).json()["id"]
        sender = threading.Thread(target=_send, args=(service, image))
        sender.start()
        time.sleep(0.003)
        service.request(
            "PATCH",
            f"/v2/images/{image}",
            headers=_PATCH,
            json=[{"op": "replace", "path": "/container_format", "value": "bare"}],
        )
        sender.join()
        found = service.request("GET", f"/v2/images/{image}").json()
        if (found["status"], found["container_format"]) == ("active", "bare"):
            return "active, bare"
    return "none active as bare"


def _send(service: Service, image: str) -> None:
    service.request("PUT", f"/v2/images/{image}/file", body=_BACKED, headers=_OCTETS)
