"""What web servers answer, and which of them may be asked."""

import json
from typing import Any

from tests.faults.files import new
from tests.faults.rows import Site, row
from tests.servers.service import Service

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def by_post(service: Service, url: str) -> tuple[int, str]:
    """(status, id) of registering a URL by the locations API."""
    image = new(service)
    return service.request("POST", f"/v2/images/{image}/locations", json={"url": url}).status, image


def by_patch(service: Service, url: str) -> tuple[int, str]:
    """(status, id) of registering a URL by PATCH."""
    image = new(service)
    change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
    body = json.dumps(change).encode()
    return service.request("PATCH", f"/v2/images/{image}", body=body, headers=PATCH).status, image


def with_web(**more: Any) -> dict[str, dict[str, Any]]:
    """Sections of a service with a file store and the http store."""
    return {
        "DEFAULT": {"enabled_backends": "files:file, web:http", "show_multiple_locations": "true"},
        "web": {"https_insecure": "false"},
        **more,
    }


@row("the operator's lists of URLs hold for locations", "400 400; 400 400; 400 400")
def lists(site: Site) -> str:
    lists = {"disallowed_hosts": "[127.0.0.1]", "allowed_ports": "[80,443]"}
    service = site.service(with_web(import_filtering_opts=lists))
    urls = ("http://127.0.0.1:27599/image.raw", "http://127.0.0.1/image.raw", "http://images.example:8080/image.raw")
    return "; ".join(f"{by_post(service, url)[0]} {by_patch(service, url)[0]}" for url in urls)


@row("the node's own addresses are refused to everybody", "400 400; 400 400; 400 400; 400 400; 400 400")
def own_node(site: Site) -> str:
    service = site.service(with_web())
    hosts = ("127.0.0.1:27599", "localhost:27599", "169.254.169.254", "[::ffff:127.0.0.1]:27599", "2130706433:27599")
    return "; ".join(
        f"{by_post(service, f'http://{host}/x')[0]} {by_patch(service, f'http://{host}/x')[0]}" for host in hosts
    )
