"""POST /v2/tasks: images by the tasks API, which old clients of administrators use. What the answers are was seen of a
Glance 33 (whose imports then fail, by its bug 2030527)."""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud
from tests.fetching.flawed import Flawed
from tests.formats.build import qcow2
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.nginx import Nginx

DATA = random.Random(30).randbytes(2_000_000)
PROPERTIES = {"name": "by a task", "disk_format": "raw", "container_format": "bare"}


@pytest.fixture
def url(web: Nginx) -> Iterator[str]:
    assert web.files is not None
    path = Path(web.files) / "task.img"
    path.write_bytes(DATA)
    yield f"{web.url}/task.img"
    path.unlink()


def asked(url: Any, **properties: Any) -> dict[str, Any]:
    given = {"import_from": url, "import_from_format": "raw", "image_properties": {**PROPERTIES, **properties}}
    return {"type": "import", "input": given}


def post(caller: Caller, body: Any) -> Answer:
    return caller.ask("POST", "/v2/tasks", json=body)


def ended(cloud: Cloud, answer: Answer, seconds: float = 30) -> dict[str, Any]:
    assert answer.status == 201, answer.body
    identity = answer.json()["id"]
    assert answer.headers["location"] == f"{cloud.service.url}/v2/tasks/{identity}"
    begun = time.monotonic()
    while True:
        shown: dict[str, Any] = cloud.admin.ask("GET", f"/v2/tasks/{identity}").json()
        if shown["status"] in ("success", "failure"):
            return shown
        assert time.monotonic() - begun < quiet(seconds), shown
        time.sleep(0.1)


def images(cloud: Cloud) -> set[str]:
    return {image["id"] for image in cloud.admin.listed("visibility=all&limit=1000")}


def test_an_image_is_made_of_the_data(cloud: Cloud, url: str) -> None:
    body = asked(url, visibility="public", tags=["a"], os_distro="debian", min_disk=1)
    answer = post(cloud.admin, {**body, "status": "success", "message": "forged", "owner": "beta"})
    first = answer.json()
    assert (first["type"], first["status"], first["message"], first["result"]) == ("import", "pending", "", None)
    done = ended(cloud, answer)
    assert (done["type"], done["status"], done["input"]) == ("import", "success", body["input"])
    assert done["owner"] != "beta"
    assert done["expires_at"] is not None
    image = cloud.bob.show(done["result"]["image_id"])
    assert (image["status"], image["os_hash_value"]) == ("active", hashlib.sha512(DATA).hexdigest())
    found = (image["name"], image["visibility"], image["tags"], image["os_distro"], image["min_disk"])
    assert found == ("by a task", "public", ["a"], "debian", 1)
    assert cloud.admin.download(image["id"]).body == DATA
    listed = cloud.admin.ask("GET", "/v2/tasks?type=import&status=success").json()["tasks"]
    assert done["id"] in {task["id"] for task in listed}


def test_it_is_for_administrators(cloud: Cloud, url: str) -> None:
    for caller in (cloud.ann, cloud.rita, cloud.bob, cloud.nova):
        assert post(caller, asked(url)).status == 403
        assert post(caller, "nothing").status == 403, "whatever it says"
    assert cloud.nobody.ask("POST", "/v2/tasks", json=asked(url)).status == 401


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"type": "import"}, {"input": {}}, {"type": "nothing", "input": {}}, {"type": 1, "input": {}},
        {"type": "import", "input": []}, {"type": "import", "input": None}, {"type": "import", "input": {}},
        {**asked("http://host/x"), "more": 1}, {"type": "api_image_import", "input": None},
        *(asked(bad) for bad in (17, "", None, "file:///etc/passwd", "filesystem:///etc/passwd", "ftp://host/x", "x",
                                 "http://127.0.0.1/x", "http://localhost/x", "http://169.254.169.254/latest", "http://[::1]/",
                                 "http://2130706433/", "http://0x7f.1/", "http://no-such-host.invalid/x", "http://host:22/x",
                                 f"http://host/{'x' * 30_000}")),
        {"type": "import", "input": {**asked("http://93.184.215.14/x")["input"], "more": "x" * 30_000}},
        {"type": "location_import", "input": {"more": "x" * 30_000}},
    ],
)  # fmt: skip
def test_what_is_refused_at_once(cloud: Cloud, body: Any) -> None:
    before = images(cloud), len(tasks(cloud))
    assert post(cloud.admin, body).status == 400
    assert (images(cloud), len(tasks(cloud))) == before


def tasks(cloud: Cloud) -> list[Any]:
    found: list[Any] = cloud.admin.ask("GET", "/v2/tasks?limit=1000").json()["tasks"]
    return found


@pytest.mark.parametrize("kind", ["api_image_import", "location_import"])
def test_other_types_have_failed(cloud: Cloud, url: str, kind: str) -> None:
    """They are made by the calls of images, which judge what they are told: from here they change nothing."""
    image = cloud.ann.new()
    for given in (
        {},
        {"image_id": image, "import_req": {"method": {"name": "web-download", "uri": url}}, "backend": ["fast"]},
        {"image_id": image, "loc_url": url, "validation_data": {}},
    ):
        done = ended(cloud, post(cloud.admin, {"type": kind, "input": given}))
        assert (done["type"], done["status"], done["result"], done["input"]) == (kind, "failure", None, given)
        assert "/v2/images/ID/" in done["message"]
        assert done["expires_at"] is not None
    assert cloud.ann.show(image)["status"] == "queued"
    assert cloud.ann.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"] == []


def test_what_fails_leaves_no_image(cloud: Cloud, web: Nginx, url: str) -> None:
    assert web.files is not None
    hostile = Path(web.files) / "hostile.img"
    hostile.write_bytes(qcow2(backing=0x1000, backing_length=11, behind=b"/etc/passwd"))
    taken = cloud.admin.new()
    before = images(cloud)
    good = asked(url)
    without = [
        {**good, "input": {name: value for name, value in good["input"].items() if name != left}}
        for left in ("import_from_format", "image_properties")
    ]
    cases: list[tuple[Any, str]] = [
        (without[0], "import_from_format"),
        (without[1], "image_properties"),
        ({**good, "input": {**good["input"], "image_properties": {}}}, "disk_format"),
        (asked(url, disk_format="nothing"), "disk_format"),
        (asked(url, disk_format="qcow2"), "qcow2"),
        (asked(url, id=taken), "exists"),
        (asked(url, id="no id"), "id"),
        (asked(url, status="active"), "read-only"),
        (asked(url, os_glance_import_task="x"), "os_glance"),
        (asked(url, locations=[{"url": url, "metadata": {}}]), "Locations"),
        (asked(f"{web.url}/missing", protected=True), "404"),
        (asked(f"{web.url}/hostile.img", disk_format="qcow2"), "backing"),
    ]
    for body, word in cases:
        done = ended(cloud, post(cloud.admin, body))
        assert (done["status"], done["result"]) == ("failure", None), body
        assert word in done["message"], (word, done["message"])
        assert done["expires_at"] is not None
    assert images(cloud) == before
    assert cloud.admin.show(taken)["status"] == "queued"
    assert not [name for name in cloud.files("fast") if name[:36] not in before]
    hostile.unlink()


def test_a_login_in_the_url_is_not_kept(cloud: Cloud, url: str) -> None:
    done = ended(cloud, post(cloud.admin, asked(url.replace("//", "//me:secret@"))))
    assert done["status"] == "success"
    assert "secret" not in str(done)
    assert "secret" not in cloud.service.log


def test_it_is_cancelled(cloud: Cloud, flawed: Flawed) -> None:
    """And the image that was made for it goes."""
    flawed.how = lambda number, span: "hang"
    try:
        answer = post(cloud.admin, asked(flawed.url, protected=True))
        image = answer.json()["image_id"]
        assert cloud.admin.show(image)["status"] == "importing"
        assert cloud.admin.ask("POST", f"/v2/tasks/{answer.json()['id']}/actions/cancel").status == 202
        done = ended(cloud, answer)
    finally:
        flawed.how = lambda number, span: ""
    assert (done["status"], done["result"]) == ("failure", None)
    assert image not in images(cloud)
    assert cloud.admin.ask("GET", f"/v2/images/{image}").status == 404


def test_an_id_of_ones_own(cloud: Cloud, url: str) -> None:
    identity = str(uuid.uuid4())
    done = ended(cloud, post(cloud.admin, asked(url, id=identity)))
    assert done["result"] == {"image_id": identity}
