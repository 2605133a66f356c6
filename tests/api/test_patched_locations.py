"""Digests of what is registered by PATCH: as Glance shows them or, with `[xloud] verify_locations`, of the data."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.cloud import Cloud
from tests.crash.points import wait_until
from tests.crash.proof import claims, rows

DATA = b"data that lie in memory"
EVIL = bytes(reversed(DATA))
RIGHT = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest()}
MD5 = hashlib.md5(DATA).hexdigest()
FALSE = {"os_hash_algo": "sha512", "os_hash_value": "deadbeef" * 16, "checksum": "1" * 32}


@pytest.fixture(scope="module", params=[False, True], ids=["as Glance", "verified"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    chosen = {"auth": "http_basic", "verify_locations": True} if request.param else {"auth": "http_basic"}
    cloud = Cloud(tmp_path_factory.mktemp("patched"), xloud=chosen)
    users = {"http_basic_user_file": cloud.folder / "users", "http_basic_projects_file": cloud.folder / "projects"}
    cloud.service.configure({"xloud": users})
    try:
        cloud.service.start()
        yield cloud
        assert cloud.service.stop() == 0
        assert "Traceback" not in cloud.service.log
    finally:
        cloud.service.kill()


@pytest.fixture
def verified(cloud: Cloud) -> bool:
    return bool(cloud.service.sections["xloud"].get("verify_locations"))


def place(cloud: Cloud, data: bytes = DATA, **more: Any) -> dict[str, Any]:
    """A location of such data, put there as an image of its own."""
    return {"url": f"memory://mem/{cloud.nova.new(data, store='mem')}", "metadata": {}, **more}


def add(value: Any) -> dict[str, Any]:
    return {"op": "add", "path": "/locations/-", "value": value}


def replace(*values: Any) -> dict[str, Any]:
    return {"op": "replace", "path": "/locations", "value": list(values)}


def shown(cloud: Cloud, image_id: str) -> tuple[Any, ...]:
    image = cloud.ann.show(image_id)
    return image["status"], image["checksum"], image["os_hash_algo"], image["os_hash_value"]


def notes(cloud: Cloud, image_id: str) -> list[dict[str, Any]]:
    statement = f"SELECT meta_data FROM image_locations WHERE image_id = '{image_id}' AND NOT deleted ORDER BY id"
    return [json.loads(text).get("xloud", {}) for (text,) in rows(cloud.service, statement)]


@pytest.mark.parametrize("change", [add, replace])
def test_without_digests_none_are_shown(cloud: Cloud, change: Any) -> None:
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, change(place(cloud))).status == 200
    assert shown(cloud, image_id) == ("active", None, None, None)
    assert claims(cloud.service) == [], "our own data are not read"
    assert cloud.ann.download(image_id).body == DATA


@pytest.mark.parametrize("change", [add, replace])
def test_digests_that_are_right(cloud: Cloud, verified: bool, change: Any) -> None:
    for more in ({}, {"checksum": MD5}):
        image_id = cloud.ann.new()
        given = {**RIGHT, **more}
        assert cloud.admin.patch(image_id, change(place(cloud, validation_data=given))).status == 200
        made = MD5 if verified else more.get("checksum")
        assert shown(cloud, image_id) == ("active", made, "sha512", RIGHT["os_hash_value"])
        assert all("validation_data" not in location for location in cloud.ann.show(image_id)["locations"])


@pytest.mark.parametrize("change", [add, replace])
def test_digests_that_are_false(cloud: Cloud, verified: bool, change: Any) -> None:
    image_id = cloud.ann.new()
    answer = cloud.admin.patch(image_id, change(place(cloud, validation_data=FALSE)))
    if verified:
        assert answer.status == 409
        assert shown(cloud, image_id) == ("queued", None, None, None)
        assert cloud.ann.show(image_id)["locations"] == []
    else:
        assert answer.status == 200
        assert shown(cloud, image_id) == ("active", "1" * 32, "sha512", "deadbeef" * 16)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({**RIGHT, "os_hash_algo": "sha256"}, 409),
        ({**RIGHT, "os_hash_value": "abc"}, 400),
        ({**RIGHT, "os_hash_value": "g" * 128}, 400),
        ({**RIGHT, "checksum": "short"}, 400),
        ({"os_hash_algo": "sha512"}, 400),
        ({"checksum": MD5}, 400),
        ({**RIGHT, "extra": 1}, 400),
    ],
)
def test_digests_that_no_data_can_have(cloud: Cloud, data: dict[str, Any], status: int) -> None:
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, add(place(cloud, validation_data=data))).status == status
    assert shown(cloud, image_id) == ("queued", None, None, None)


def test_a_further_location_has_the_data_of_the_first(cloud: Cloud, verified: bool) -> None:
    """Also where no digests are shown: then ours are known to us alone."""
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, add(place(cloud))).status == 200
    assert cloud.admin.patch(image_id, add(place(cloud, EVIL))).status == 409
    assert cloud.admin.patch(image_id, add(place(cloud))).status == 200
    assert len(cloud.ann.show(image_id)["locations"]) == 2
    if verified:
        assert shown(cloud, image_id) == ("active", MD5, "sha512", RIGHT["os_hash_value"])
    else:
        assert shown(cloud, image_id) == ("active", None, None, None)
        own = {"algorithm": "sha512", "value": RIGHT["os_hash_value"]}
        assert [one["digest"] for one in notes(cloud, image_id)] == [own, own]
        assert b"xloud" not in cloud.admin.ask("GET", f"/v2/images/{image_id}").body


def test_a_further_location_where_the_digests_are_false(cloud: Cloud, verified: bool) -> None:
    """What the client said of the first one holds, and the data are compared with the data."""
    image_id = cloud.ann.new()
    given = {**RIGHT, "checksum": MD5} if verified else FALSE
    assert cloud.admin.patch(image_id, add(place(cloud, validation_data=given))).status == 200
    before = shown(cloud, image_id)
    for name, value in {"checksum": "2" * 32, "os_hash_value": "beefdead" * 16, "os_hash_algo": "sha256"}.items():
        other = {**given, name: value}
        assert cloud.admin.patch(image_id, add(place(cloud, validation_data=other))).status == 409
    assert cloud.admin.patch(image_id, add(place(cloud, EVIL))).status == 409
    assert cloud.admin.patch(image_id, add(place(cloud, validation_data=given))).status == 200
    assert shown(cloud, image_id) == before
    first, second = cloud.admin.show(image_id)["locations"]
    changed = [{**first, "metadata": {"zone": "north"}}, second]
    assert cloud.admin.patch(image_id, replace({**changed[0], "validation_data": given}, changed[1])).status == 200
    wrong = {**given, "os_hash_value": "0" * 128}
    assert cloud.admin.patch(image_id, replace({**changed[0], "validation_data": wrong}, changed[1])).status == 409
    assert cloud.admin.patch(image_id, {"op": "remove", "path": "/locations/0"}).status == 200
    assert cloud.admin.patch(image_id, add(place(cloud, EVIL))).status == 409
    assert cloud.admin.patch(image_id, add(place(cloud))).status == 200, "those of the first are still not believed"
    assert shown(cloud, image_id) == before


def test_digests_of_several_locations_at_once(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    both = place(cloud), place(cloud, validation_data={**RIGHT, "checksum": MD5})
    different = place(cloud, validation_data=RIGHT), place(cloud, validation_data=FALSE)
    assert cloud.admin.patch(image_id, replace(*different)).status == 409
    assert shown(cloud, image_id) == ("queued", None, None, None)
    assert cloud.admin.patch(image_id, replace(*both)).status == 200
    assert shown(cloud, image_id) == ("active", MD5, "sha512", RIGHT["os_hash_value"])
    assert len(cloud.admin.show(image_id)["locations"]) == 2


def test_an_image_with_data_gets_no_new_digests(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, add(place(cloud))).status == 200
    assert cloud.admin.patch(image_id, add(place(cloud, validation_data=RIGHT))).status == 409
    assert shown(cloud, image_id) == ("active", None, None, None)


def test_uploaded_data_are_compared_in_any_case(cloud: Cloud) -> None:
    image_id = cloud.ann.new(DATA)
    assert cloud.admin.patch(image_id, add(place(cloud, EVIL))).status == 409
    assert cloud.admin.patch(image_id, add(place(cloud, validation_data=RIGHT))).status == 200
    assert wait_until(lambda: claims(cloud.service) == [])
    assert len(cloud.ann.show(image_id)["locations"]) == 2
