"""A real Cinder makes volumes from images in the rbd store: clones of the image's snapshot, no copies."""

import json
import time

import pytest

from tests.conftest import ServiceFactory
from tests.crash.points import wait_until
from tests.servers.cinder import Cinder
from tests.servers.http import request
from tests.servers.keystone import Keystone
from tests.together.everything import Everything
from xloud_image.stores.suite import noise

pytestmark = pytest.mark.timeout(600)

MIB = 1 << 20


def test_cinder_clones_without_copying(
    everything: Everything, keystone: Keystone, cinder: Cinder, service: ServiceFactory
) -> None:
    """With nothing exposed to users: Cinder asks the locations API as a service (its own [glance] section)."""
    sections = {name: dict(options) for name, options in everything.sections.items()}
    sections["DEFAULT"] |= {"show_multiple_locations": False, "show_image_direct_url": False}
    one = service({**sections, **keystone.sections()})
    cinder.use_images_at(one.url)
    demo = {"X-Auth-Token": keystone.token("demo")}
    took = {}
    for size in (8 * MIB, 512 * MIB):
        body = {"name": "to clone", "disk_format": "raw", "container_format": "bare"}
        made = request("POST", f"{one.url}/v2/images", json=body, headers=demo)
        assert made.status == 201, made.body
        image = made.json()
        assert "locations" not in image
        piece = noise(MIB)
        done = request(
            "PUT",
            f"{one.url}/v2/images/{image['id']}/file",
            body=(piece for _ in range(size // MIB)),
            headers={**demo, "Content-Type": "application/octet-stream", "X-Image-Meta-Store": "rbd"},
            seconds=300,
        )
        assert done.status == 204, done.body
        assert "direct_url" not in request("GET", f"{one.url}/v2/images/{image['id']}", headers=demo).json()

        begun = time.monotonic()
        wish = {"size": 1, "volume_type": "image-store", "imageRef": image["id"], "name": "cloned"}
        volume = cinder.call("POST", "/volumes", {"volume": wish}, token=demo["X-Auth-Token"])["volume"]["id"]
        cinder.await_status(volume, "available", seconds=240)
        took[size] = time.monotonic() - begun
        snapshot = f"{everything.pool}/{image['id']}@snap"
        children = everything.ceph.admin("rbd", "children", snapshot).split()
        assert children == [f"volumes/volume-{volume}"], children
        info = json.loads(everything.ceph.admin("rbd", "info", f"volumes/volume-{volume}", "--format", "json"))
        assert (info["parent"]["image"], info["parent"]["snapshot"]) == (image["id"], "snap")
        used = json.loads(everything.ceph.admin("rbd", "du", f"volumes/volume-{volume}", "--format", "json"))
        assert used["images"][0]["used_size"] < 32 * MIB, used

        refused = request("DELETE", f"{one.url}/v2/images/{image['id']}", headers=demo, seconds=120)
        assert refused.status == 409, refused
        cinder.call("DELETE", f"/volumes/{volume}", token=demo["X-Auth-Token"])
        cinder.await_status(volume, "gone", seconds=120)
        assert wait_until(
            lambda i=image["id"]: request("DELETE", f"{one.url}/v2/images/{i}", headers=demo).status == 204,  # type: ignore[misc]
            60,
        )
    # a copy of half a GiB takes much longer than the other seconds of both
    assert took[512 * MIB] < took[8 * MIB] + 5, took
    assert everything.behind()["rbd"] == []
