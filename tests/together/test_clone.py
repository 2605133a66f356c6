"""A real Cinder makes volumes from images in the rbd store: clones of the image's snapshot, no copies."""

import hashlib
import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ServiceFactory
from tests.crash.points import wait_until
from tests.load import quiet
from tests.servers.cinder import Cinder
from tests.servers.http import request
from tests.servers.keystone import Keystone
from tests.servers.nginx import Nginx
from tests.servers.place import free_port, new_directory, private_address, program
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


def test_a_vendor_s_qcow2_from_the_web_is_cloned_as_raw(
    everything: Everything, keystone: Keystone, cinder: Cinder, service: ServiceFactory
) -> None:
    """By URL, converted into Ceph on the way; a volume of it shares its bytes, and nothing was copied."""
    folder = new_directory("vendor")
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(768 * MIB)
        for number in range(0, 768, 32):
            file.seek(number * MIB)
            file.write(random.Random(number).randbytes(MIB))
    words = [
        program("qemu-img", "qemu-utils"),
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-c",
        disk,
        folder / "vendor.qcow2",
    ]
    subprocess.run(words, check=True)
    sections = {name: dict(options) for name, options in everything.sections.items()}
    sections["DEFAULT"] |= {"show_multiple_locations": False, "show_image_direct_url": False}
    web = Nginx(files=folder, host=private_address(), port=free_port())
    more = {
        "image_import_opts": {"image_import_plugins": "[image_conversion]"},
        "image_conversion": {"output_format": "raw"},
        "import_filtering_opts": {"allowed_ports": f"[{web.port}]"},
        "xloud": {"job_workers": 1, "location_networks": f"{web.host}/32"},
        **keystone.sections(),
    }
    web.start()
    try:
        one = service({**sections, **more})
        cinder.use_images_at(one.url)
        demo = {"X-Auth-Token": keystone.token("demo")}
        body = {"name": "vendor", "disk_format": "qcow2", "container_format": "bare"}
        image = request("POST", f"{one.url}/v2/images", json=body, headers=demo).json()["id"]
        wish = {"method": {"name": "web-download", "uri": f"{web.url}/vendor.qcow2"}, "stores": ["rbd"]}
        asked = f"{one.url}/v2/images/{image}"
        assert wait_until(
            lambda: request("POST", f"{asked}/import", json=wish, headers=demo, seconds=60).status == 202, 30
        )
        assert wait_until(lambda: request("GET", asked, headers=demo).json()["status"] == "active", 240)
        shown = request("GET", asked, headers=demo).json()
        assert (shown["disk_format"], shown["size"], shown["stores"]) == ("raw", 768 * MIB, "rbd")
        with disk.open("rb") as file:
            assert shown["os_hash_value"] == hashlib.file_digest(file, "sha512").hexdigest()
        wish = {"size": 1, "volume_type": "image-store", "imageRef": image, "name": "cloned"}
        volume = cinder.call("POST", "/volumes", {"volume": wish}, token=demo["X-Auth-Token"])["volume"]["id"]
        cinder.await_status(volume, "available", seconds=240)
        (key,) = everything.behind()["rbd"]
        assert key.startswith(image)
        children = everything.ceph.admin("rbd", "children", f"{everything.pool}/{key}@snap").split()
        assert children == [f"volumes/volume-{volume}"]
        used = json.loads(everything.ceph.admin("rbd", "du", f"volumes/volume-{volume}", "--format", "json"))
        assert used["images"][0]["used_size"] == 0, used
        assert (
            first_bytes(everything, f"volumes/volume-{volume}", folder / "volume", 768 * MIB) == shown["os_hash_value"]
        )
        cinder.call("DELETE", f"/volumes/{volume}", token=demo["X-Auth-Token"])
        cinder.await_status(volume, "gone", seconds=120)
        assert wait_until(lambda: request("DELETE", asked, headers=demo).status == 204, quiet(60))
    finally:
        web.close()
    assert everything.behind()["rbd"] == []


def first_bytes(everything: Everything, volume: str, file: Path, size: int) -> str:
    """The SHA-512 of as many bytes of a volume."""
    everything.ceph.admin("rbd", "export", volume, file, seconds=240)
    with file.open("r+b") as written:
        written.truncate(size)
        return hashlib.file_digest(written, "sha512").hexdigest()
