"""glance-download: an image of another region's image service, by its caller's token and the catalogue of Keystone."""

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.proof import rows
from tests.load import quiet
from tests.servers.keystone import Keystone
from tests.servers.place import private_address
from tests.servers.service import Service

DATA = random.Random(12).randbytes(3_000_000)
OCTETS = {"Content-Type": "application/octet-stream"}
REGION = "RegionFar"


@pytest.fixture(scope="module")
def far(keystone: Keystone) -> Iterator[Service]:
    """The other region's service, which the catalogue names."""
    service = Service({"DEFAULT": {"bind_host": "0.0.0.0"}, **keystone.sections()})
    service.start()
    admin = keystone.token()
    keystone.call("POST", "/regions", {"region": {"id": REGION}}, admin)
    listed, _ = keystone.call("GET", "/services?type=image", token=admin)
    url = f"http://{private_address()}:{service.port}/v2"
    fields = {"service_id": listed["services"][0]["id"], "interface": "public", "url": url, "region_id": REGION}
    made, _ = keystone.call("POST", "/endpoints", {"endpoint": fields}, admin)
    try:
        yield service
        assert "Traceback" not in service.log
    finally:
        keystone.call("DELETE", f"/endpoints/{made['endpoint']['id']}", token=admin)
        service.kill()


@pytest.fixture(scope="module")
def near(keystone: Keystone, far: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    staging: Path = tmp_path_factory.mktemp("staging")
    sections: dict[str, dict[str, Any]] = {
        "DEFAULT": {"enabled_import_methods": "[glance-direct,web-download,glance-download,copy-image]"},
        "os_glance_staging_store": {"filesystem_store_datadir": staging},
        "import_filtering_opts": {"allowed_ports": far.port},
        "xloud": {"job_workers": 1},
    }
    service = Service({**sections, **keystone.sections()})
    service.start()
    token = keystone.token("demo")
    begun = time.monotonic()
    while "glance-download" not in ask(service, token, "GET", "/v2/info/import").json()["import-methods"]["value"]:
        assert time.monotonic() - begun < quiet(20)
        time.sleep(0.2)
    try:
        yield service
        assert "Traceback" not in service.log
        assert token not in service.log
    finally:
        service.kill()


def ask(service: Service, token: str, method: str, path: str, **how: Any) -> Any:
    return service.request(method, path, headers={"X-Auth-Token": token, **how.pop("headers", {})}, **how)


def new(service: Service, token: str, data: bytes | None = None, **fields: Any) -> str:
    body = {"disk_format": "raw", "container_format": "bare", **fields}
    image: str = ask(service, token, "POST", "/v2/images", json=body).json()["id"]
    if data is not None:
        assert ask(service, token, "PUT", f"/v2/images/{image}/file", body=data, headers=OCTETS).status == 204
    return image


def begin(service: Service, token: str, image: str, source: str, region: str = REGION, **more: str) -> Any:
    method = {"name": "glance-download", "glance_region": region, "glance_image_id": source, **more}
    return ask(service, token, "POST", f"/v2/images/{image}/import", json={"method": method})


def ended(service: Service, token: str, image: str) -> dict[str, Any]:
    begun = time.monotonic()
    while True:
        (task,) = ask(service, token, "GET", f"/v2/images/{image}/tasks").json()["tasks"]
        if task["status"] in ("success", "failure"):
            return dict(task)
        assert time.monotonic() - begun < quiet(30), task
        time.sleep(0.1)


def test_an_image_of_another_region(keystone: Keystone, far: Service, near: Service) -> None:
    token = keystone.token("demo")
    more = {"hw_disk_bus": "scsi", "os_type": "linux", "os_distro": "ubuntu", "note": "stays there", "hw_odd": "a\nb"}
    source = new(far, token, DATA, **more)
    image = new(near, token)
    answer = begin(near, token, image, source)
    assert answer.status == 202, answer.body
    done = ended(near, token, image)
    assert done["status"] == "success", done
    shown = ask(near, token, "GET", f"/v2/images/{image}").json()
    there = ask(far, token, "GET", f"/v2/images/{source}").json()
    assert (shown["status"], shown["os_hash_value"]) == ("active", there["os_hash_value"])
    assert {name: shown.get(name) for name in more} == {**more, "note": None, "hw_odd": None}
    assert token not in str(done)
    assert not rows(near, "SELECT id FROM xloud_jobs"), "and with the job the token is gone"


def test_what_waits_does_not_show_the_token(keystone: Keystone, far: Service, near: Service) -> None:
    token = keystone.token("demo")
    image = new(near, token)
    assert begin(near, token, image, new(far, token, DATA)).status == 202
    kept = str(rows(near, "SELECT request FROM xloud_jobs"))
    assert token not in kept
    assert token[10:40] not in kept
    assert ended(near, token, image)["status"] == "success"


def test_what_the_caller_may_not_read_there_is_not_had_here(keystone: Keystone, far: Service, near: Service) -> None:
    source = new(far, keystone.token("alt"), DATA)
    token = keystone.token("demo")
    image = new(near, token)
    assert begin(near, token, image, source).status == 202
    done = ended(near, token, image)
    assert done["status"] == "failure"
    assert "404" in done["message"]
    empty = new(far, token)
    again = new(near, token)
    assert begin(near, token, again, empty).status == 202
    assert "not active" in ended(near, token, again)["message"]
    assert ask(near, token, "GET", f"/v2/images/{again}").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("region", "more", "said"),
    [
        ("Nowhere", {}, "in region Nowhere"),
        (REGION, {"glance_service_interface": "internal"}, "no internal address"),
        (REGION, {"glance_service_interface": "other"}, "is one of"),
        ("RegionOne", {}, "port"),
    ],
)
def test_a_region_that_is_none(keystone: Keystone, near: Service, region: str, more: dict[str, str], said: str) -> None:
    """The import fails, as with Glance, and the image is queued with all that it had; nobody is asked anything."""
    token = keystone.token("demo")
    image = new(near, token, os_distro="debian")
    assert begin(near, token, image, str(uuid.uuid4()), region, **more).status == 202
    done = ended(near, token, image)
    assert done["status"] == "failure"
    assert said in done["message"]
    shown = ask(near, token, "GET", f"/v2/images/{image}").json()
    assert (shown["status"], shown["os_distro"]) == ("queued", "debian")


def test_an_id_that_is_none_is_refused_at_once(keystone: Keystone, near: Service) -> None:
    token = keystone.token("demo")
    image = new(near, token)
    answer = begin(near, token, image, "no-id")
    assert answer.status == 400
    assert b"does not look like a UUID" in answer.body
    assert ask(near, token, "GET", f"/v2/images/{image}").json()["status"] == "queued"
