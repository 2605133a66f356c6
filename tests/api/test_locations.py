"""Locations by PATCH, by the locations API (2.17), and taking the data out of one store. Locations that
administrators and services may register lie in the memory store here; what members may is in `test_registered`."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, Final

import pytest

from tests.api.cloud import Cloud
from tests.crash.points import wait_until

DATA = b"data in memory"
SHA512 = hashlib.sha512(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture
def url(cloud: Cloud) -> str:
    """Where data lies, put there as an image of its own."""
    return f"memory://mem/{cloud.nova.new(DATA, store='mem')}"


def location(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "metadata": {}, **more}


def add(value: Any, path: str = "/locations/-") -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def validation(**more: Any) -> dict[str, Any]:
    return {"os_hash_algo": "sha512", "os_hash_value": SHA512, **more}


def test_a_first_location_makes_the_image_active(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new()
    answer = cloud.admin.patch(image_id, add(location(url)))
    assert answer.status == 200
    image = answer.json()
    assert (image["status"], image["size"], image["stores"]) == ("active", len(DATA), "mem")
    assert image["locations"] == [{"url": url, "metadata": {"store": "mem"}}]
    assert cloud.ann.download(image_id).body == DATA


def test_a_second_location(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new(DATA)
    wrong = validation(os_hash_value="0" * 128)
    assert cloud.admin.patch(image_id, add(location(url, validation_data=wrong))).status == 409
    shorter = f"memory://mem/{cloud.nova.new(b'x', store='mem')}"
    assert cloud.admin.patch(image_id, add(location(shorter))).status == 409, "another size"
    assert cloud.admin.patch(image_id, add(location(url, validation_data=validation()))).status == 200
    assert set(cloud.ann.show(image_id)["stores"].split(",")) == {"fast", "mem"}
    assert cloud.admin.patch(image_id, add(location(url))).status == 400, "twice the same"


@pytest.mark.parametrize(
    "bad",
    [
        "file:///etc/passwd", "filesystem:///etc/passwd", "swift+config://ref/container/object", "http://host/image",
        "memory://other/key", "memory://mem/missing", "nothing", "ftp://host/x", "",
    ],
)  # fmt: skip
def test_urls_that_are_no_locations_here(cloud: Cloud, bad: str) -> None:
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, add(location(bad))).status == 400
    answer = cloud.nova.ask("POST", f"/v2/images/{cloud.nova.new()}/locations", json={"url": bad})
    assert answer.status == 400, answer.body
    assert cloud.ann.show(image_id)["status"] == "queued"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("x", 400),
        ({"url": "memory://mem/x"}, 400),
        ({"url": 1, "metadata": {}}, 400),
        ({"url": "memory://mem/x", "metadata": {}, "more": 1}, 400),
        ({"url": "memory://mem/x", "metadata": {"store": "nowhere"}}, 400),
    ],
)
def test_malformed_locations(cloud: Cloud, value: Any, status: int) -> None:
    assert cloud.admin.patch(cloud.ann.new(), add(value)).status == status


def test_changing_and_removing_locations(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new(DATA)
    first = cloud.ann.show(image_id)["locations"][0]
    replace = {"op": "replace", "path": "/locations"}
    assert cloud.ann.patch(image_id, {**replace, "value": []}).status == 403
    assert cloud.ann.patch(image_id, {**replace, "value": [location(url)]}).status == 400, "another URL"
    changed = {"url": first["url"], "metadata": {"region": "north"}}
    assert cloud.ann.patch(image_id, {**replace, "value": [changed]}).status == 200
    assert cloud.ann.show(image_id)["locations"] == [{**changed, "metadata": {"region": "north", "store": "fast"}}]
    assert cloud.admin.patch(image_id, {"op": "remove", "path": "/locations/0"}).status == 403, "the last one"
    assert cloud.admin.patch(image_id, add(location(url), "/locations/0")).status == 200
    for place, status in (("/locations/7", 400), ("/locations/x", 400), ("/locations/-1", 400)):
        assert cloud.admin.patch(image_id, {"op": "remove", "path": place}).status == status
    assert cloud.ann.patch(image_id, {"op": "remove", "path": "/locations/0"}).status == 403, "no administrator"
    rename = {"op": "replace", "path": "/name", "value": "x"}
    both = cloud.admin.patch(image_id, {"op": "remove", "path": "/locations/0"}, rename)
    assert (both.status, len(cloud.ann.show(image_id)["locations"])) == (400, 2)
    assert cloud.admin.patch(image_id, {"op": "remove", "path": "/locations/1"}).status == 200
    assert image_id not in cloud.files("fast"), "the bytes go with the location"
    assert cloud.ann.download(image_id).body == DATA


def test_ten_locations(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    statuses = []
    for _ in range(11):
        place = f"memory://mem/{cloud.nova.new(DATA, store='mem')}"
        statuses.append(cloud.admin.patch(image_id, add(location(place))).status)
    assert statuses == [200] * 10 + [413]


def test_states_in_which_locations_can_be_added(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new(DATA)
    assert cloud.ann.ask("POST", f"/v2/images/{image_id}/actions/deactivate").status == 204
    assert cloud.admin.patch(image_id, add(location(url))).status == 409
    assert cloud.admin.patch(cloud.ann.create().json()["id"], add(location(url))).status == 400, "formats are missing"


# the locations API


def register(cloud: Cloud, who: str, image_id: str, url: str, **more: Any) -> int:
    body = {"url": url, **more}
    status: int = getattr(cloud, who).ask("POST", f"/v2/images/{image_id}/locations", json=body).status
    return status


@pytest.mark.parametrize("data", [None, {}])
def test_registering_without_digests(cloud: Cloud, url: str, data: Any) -> None:
    """Active at once; the digests follow."""
    image_id = cloud.nova.new()
    assert register(cloud, "nova", image_id, url, **({} if data is None else {"validation_data": data})) == 202
    image = cloud.nova.show(image_id)
    assert (image["status"], image["size"]) == ("active", len(DATA))
    assert wait_until(lambda: cloud.nova.show(image_id)["os_hash_value"])
    image = cloud.nova.show(image_id)
    assert (image["os_hash_algo"], image["os_hash_value"], image["checksum"]) == ("sha512", SHA512, MD5)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_registering_with_digests(cloud: Cloud, url: str, algorithm: str) -> None:
    image_id = cloud.nova.new()
    right = {"os_hash_algo": algorithm, "os_hash_value": hashlib.new(algorithm, DATA).hexdigest()}
    assert register(cloud, "nova", image_id, url, validation_data=right) == 202
    assert wait_until(lambda: cloud.nova.show(image_id)["status"] == "active")
    assert cloud.nova.show(image_id)["os_hash_value"] == right["os_hash_value"]
    refused = cloud.nova.new()
    wrong = {**right, "os_hash_value": "0" * len(right["os_hash_value"])}
    assert register(cloud, "nova", refused, url, validation_data=wrong) == 202
    assert wait_until(lambda: cloud.nova.show(refused)["status"] == "queued")
    image = cloud.nova.show(refused)
    assert (image["size"], image["os_hash_value"], image["locations"]) == (None, None, [])
    assert cloud.nova.download(image_id).body == DATA, "the data of others is not removed with it"


@pytest.mark.parametrize(
    "data",
    [
        {"os_hash_algo": "sha512"},
        {"os_hash_value": SHA512},
        {"os_hash_algo": "crc32", "os_hash_value": "00000000"},
        {"os_hash_algo": "sha512", "os_hash_value": "00"},
        "sha512",
    ],
)
def test_bad_digests(cloud: Cloud, url: str, data: Any) -> None:
    assert register(cloud, "nova", cloud.nova.new(), url, validation_data=data) == 400


def test_who_registers_and_reads_locations(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new(visibility="community")
    assert register(cloud, "ann", image_id, url) == 403, "no service: only http and https URLs"
    assert register(cloud, "bob", image_id, url) == 403
    assert register(cloud, "rita", image_id, url) == 403
    assert register(cloud, "nova", image_id, url) == 202
    assert register(cloud, "nova", image_id, url) == 409, "it is active"
    path = f"/v2/images/{image_id}/locations"
    found = {name: getattr(cloud, name).ask("GET", path).status for name in ("nova", "admin", "ann", "bob", "rita")}
    assert found == {"nova": 200, "admin": 200, "ann": 403, "bob": 403, "rita": 403}
    assert cloud.nova.ask("GET", path).json() == [{"url": url, "metadata": {"store": "mem"}}]


# the data in one store


def test_taking_data_out_of_one_store(cloud: Cloud, url: str) -> None:
    image_id = cloud.ann.new(DATA)
    path = f"/v2/stores/fast/{image_id}"
    assert cloud.admin.ask("DELETE", path).status == 403, "the last store"
    assert cloud.admin.patch(image_id, add(location(url))).status == 200
    assert cloud.ann.ask("DELETE", path).status == 403, "no administrator"
    assert cloud.admin.ask("DELETE", f"/v2/stores/nowhere/{image_id}").status == 409
    assert cloud.admin.ask("DELETE", f"/v2/stores/slow/{image_id}").status == 404, "not there"
    assert cloud.admin.ask("DELETE", path).status == 204
    assert image_id not in cloud.files("fast")
    assert cloud.ann.show(image_id)["stores"] == "mem"
    assert cloud.ann.download(image_id).body == DATA
    assert cloud.admin.ask("DELETE", f"/v2/stores/fast/{cloud.ann.new()}").status == 409, "not active"


def test_locations_are_closed_by_default(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, options={"show_multiple_locations": None})
    cloud.service.start()
    try:
        image_id = cloud.ann.new(DATA)
        url = f"memory://mem/{cloud.nova.new(DATA, store='mem')}"
        assert cloud.admin.patch(image_id, add(location(url))).status == 403
        image = cloud.admin.show(image_id)
        assert "locations" not in image
        assert "direct_url" not in image
    finally:
        assert cloud.service.stop() == 0


@pytest.mark.parametrize(
    "bad",
    [
        "s3://KEY:SECRET@host/bucket/ID",
        "s3+https://KEY:SE/CR@T@host:80/bucket/ID",
        "swift://account%3Auser:secret@auth.host/container/ID",
        "swift+https://user:secret@auth.host/v1/container/ID",
        "https://user:secret@host/image",
        "https://user@host/image",
        "memory://user:secret@mem/ID",
        "cinder://user:secret@store/ID",
    ],
)
def test_no_logins_in_any_url(cloud: Cloud, bad: str) -> None:
    image_id = cloud.admin.new()
    by_patch = cloud.admin.patch(image_id, add(location(bad)))
    by_post = cloud.admin.ask("POST", f"/v2/images/{image_id}/locations", json={"url": bad})
    for answer in (by_patch, by_post):
        assert answer.status == 400
        assert b"user name or password" in answer.body
        assert b"SECRET" not in answer.body


def test_long_metadata(cloud: Cloud, url: str) -> None:
    image_id = cloud.admin.new()
    for size, status in ((60 * 1024, 400), (60_000, 200)):
        change = {"url": url, "metadata": {"x": "y" * size}}
        assert cloud.admin.patch(image_id, add(change)).status == status
    for value, status in (("z" * 60 * 1024, 400), ("\u20ac" * 21_000, 400), ("z" * 60_000, 200)):
        change = {"op": "replace", "path": "/locations", "value": [{"url": url, "metadata": {"x": value}}]}
        assert cloud.admin.patch(image_id, change).status == status


_JSON = {"Content-Type": "application/json"}
_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
_OCTETS = {"Content-Type": "application/octet-stream"}
_PLACE: Final = {"url": "memory://mem/x", "metadata": {}}
_CALLS: Final[list[tuple[str, str, dict[str, str], str]]] = [
    ("PATCH", "/v2/images/ID", _PATCH, json.dumps(operations))
    for operations in (
        [add(_PLACE)],
        [add(_PLACE), add("x", "/name")],
        [add("x", "/name"), {"op": "remove", "path": "/locations/0"}],
        [{"op": "remove", "path": "/locations/7"}],
        [{"op": "replace", "path": "/locations", "value": []}],
        [{"op": "replace", "path": "/locations", "value": "x"}],
        [add("no location")],
        [add("x", "/status")],
        [add("nobody", "/owner")],
        [add("public", "/visibility")],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "remove", "path": "/id"}],
    )
]
_CALLS += [
    ("GET", "/v2/images/ID", {}, ""),
    ("DELETE", "/v2/images/ID", {}, ""),
    ("GET", "/v2/images/ID/file", {}, ""),
    ("GET", "/v2/images/ID/file", {"Range": "bytes=9999-"}, ""),
    ("GET", "/v2/images/ID/file?prefer=mem", {}, ""),
    ("PUT", "/v2/images/ID/file", _OCTETS, "data"),
    ("PUT", "/v2/images/ID/file", {**_OCTETS, "x-image-meta-store": "mem"}, "data"),
    ("PUT", "/v2/images/ID/file", {**_OCTETS, "x-image-meta-store": "nowhere"}, "data"),
    ("PUT", "/v2/images/ID/stage", _OCTETS, "data"),
    ("POST", "/v2/images/ID/import", _JSON, '{"method": {"name": "glance-direct"}}'),
    ("GET", "/v2/images/ID/locations", {}, ""),
    ("POST", "/v2/images/ID/locations", _JSON, '{"url": "memory://mem/x"}'),
    ("POST", "/v2/images/ID/locations", _JSON, '{"url": "x", "validation_data": {"os_hash_algo": "x"}}'),
    ("POST", "/v2/images/ID/actions/deactivate", {}, ""),
    ("POST", "/v2/images/ID/actions/reactivate", {}, ""),
    ("DELETE", "/v2/stores/mem/ID", {}, ""),
    ("DELETE", "/v2/stores/nowhere/ID", {}, ""),
    ("PUT", "/v2/images/ID/tags/x", {}, ""),
    ("DELETE", "/v2/images/ID/tags/x", {}, ""),
    ("GET", "/v2/images/ID/members", {}, ""),
    ("POST", "/v2/images/ID/members", _JSON, '{"member": "beta"}'),
    ("GET", "/v2/images/ID/members/beta", {}, ""),
    ("PUT", "/v2/images/ID/members/beta", _JSON, '{"status": "accepted"}'),
    ("DELETE", "/v2/images/ID/members/beta", {}, ""),
    ("GET", "/v2/images/ID/tasks", {}, ""),
]


@pytest.mark.parametrize("shown", [None, "true"])
def test_an_image_of_others_answers_like_none(tmp_path: Path, shown: str | None) -> None:
    """Whatever is asked, and whatever is wrong with what is asked."""
    cloud = Cloud(tmp_path, options={"show_multiple_locations": shown})
    cloud.service.start()
    try:
        images = [cloud.ann.new(visibility="private"), cloud.ann.new(DATA, visibility="private")]
        for method, path, headers, body in _CALLS:
            how = {"headers": dict(headers), "body": body.encode()} if body else {"headers": dict(headers)}

            def answer(image_id: str, method: str = method, path: str = path, how: Any = how) -> tuple[int, bytes]:
                found = cloud.bob.ask(method, path.replace("ID", image_id), **how)
                return found.status, found.body.replace(image_id.encode(), b"ID")

            expected = answer(str(uuid.uuid4()))
            assert expected[0] >= 400
            for image_id in images:
                assert answer(image_id) == expected, (method, path, body)
    finally:
        assert cloud.service.stop() == 0
