"""Bodies of JSON: malformed, huge, deep, of the wrong type, or where none belongs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api import raw
from tests.api.bad_input import CLOSE, new
from tests.servers.service import Service

PATCH = "application/openstack-images-v2.1-json-patch"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"7", 400),
        (b"{", 400),
        (b'{"name": NaN}', 400),
        (b'{"name": "\xff\xfe"}', 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": "a\\u0000b"}', 201),
        ('{"name": "\U0001f4bf"}'.encode(), 201),
        ('{"\U0001f4bf": "\U0001f4bf", "tags": ["\U0001f4bf"]}'.encode(), 201),
        (b'{"name": "' + b"x" * 256 + b'"}', 400),
        (b'{"' + b"x" * 256 + b'": "y"}', 400),
        (b'{"": "y"}', 400),
        (b'{"min_disk": 1e400}', 400),
        (b'{"min_disk": 1.5}', 400),
        (b'{"min_disk": ' + b"9" * 5000 + b"}", 400),
        (b'{"min_ram": true}', 400),
        (b'{"a": {"b": "c"}}', 400),
        (b'{"a": 5}', 400),
        (b'{"a": null}', 400),
        (b'{"id": "../../etc/passwd"}', 400),
        (b'{"id": "' + b"0" * 36 + b'"}', 400),
        (b'{"tags": "a"}', 400),
        (b'{"tags": [1]}', 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
        (b"[" * 50000 + b"]" * 50000, 400),
    ],
    ids=lambda value: str(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_bodies_of_a_new_image(service: Service, body: bytes, status: int) -> None:
    answer = service.request("POST", "/v2/images", body=body, headers={"accept": "application/json"})
    assert answer.status == status, answer
    if status == 400:
        assert answer.json()["message"]
    else:
        given, made = json.loads(body), answer.json()
        assert {name: made[name] for name in given} == given
        assert service.request("GET", f"/v2/images/{made['id']}").json()["name"] == given.get("name")


def test_a_huge_body(service: Service) -> None:
    length = 100 << 20
    for sized in (True, False):
        headers = [f"Content-Length: {length}"] if sized else ["Transfer-Encoding: chunked"]
        first = raw.head("POST", "/v2/images", "Content-Type: application/json", *headers)
        got = raw.talk(service.port, _zeros(first, length) if sized else raw.endless(first))
        assert got.status == 413, got
        assert got.closed is not None
        assert got.closed < 3
        assert got.sent < length


def _zeros(first: bytes, length: int) -> Iterator[bytes]:
    yield first
    for _ in range(length >> 16):
        yield b" " * (1 << 16)


@pytest.mark.parametrize(
    "body",
    [
        {"op": "add", "path": "/a", "value": "b"},
        ["add"],
        [{"op": "move", "from": "/a", "path": "/b"}],
        [{"op": "add", "path": "a", "value": "b"}],
        [{"op": "add", "path": "/", "value": "b"}],
        [{"op": "add", "path": "/a/b", "value": "c"}],
        [{"op": "add", "path": "/~2", "value": "c"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "path": "/" + "x" * 256, "value": "c"}],
        [{"op": "add", "path": "/tags/-", "value": "c"}],
        [{"op": "replace", "path": "/min_disk", "value": "many"}],
        [{"op": "replace", "path": "/visibility", "value": "secret"}],
        [{"op": "add", "path": "/a", "value": "b"}] * 10001,
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_patches(service: Service, body: Any) -> None:
    image = new(service)
    answer = service.request(
        "PATCH", f"/v2/images/{image}", body=json.dumps(body).encode(), headers={"content-type": PATCH}
    )
    assert answer.status in {400, 413}, answer
    assert answer.body
    assert service.request("GET", f"/v2/images/{image}").json().get("a") is None


def test_a_patch_of_another_media_type(service: Service) -> None:
    image = new(service)
    answer = service.request("PATCH", f"/v2/images/{image}", json=[])
    assert answer.status == 415
    assert PATCH in answer.headers["accept-patch"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/images"),
        ("GET", "/v2/images/{id}"),
        ("DELETE", "/v2/images/{id}"),
        ("POST", "/v2/images/{id}/actions/deactivate"),
        ("PUT", "/v2/images/{id}/tags/a"),
        ("GET", "/v2/schemas/image"),
        ("GET", "/v2/info/stores"),
        ("GET", "/versions"),
    ],
)
def test_a_body_where_none_belongs(service: Service, method: str, path: str) -> None:
    image = new(service)
    target = path.replace("{id}", image)
    assert service.request(method, target, body=b"{}").status == 400
    assert service.request(method, target, body=iter([b"{}"])).status == 400
    assert service.request("GET", f"/v2/images/{image}").status == 200
    # an empty body is none
    assert raw.say(service.port, raw.head("GET", "/versions", "Content-Length: 0", CLOSE)).status == 200
