"""The calls of Nova, Cinder, Octavia and Heat, by the client library that they use: of 2023.1, and the newest.

`callers` says what is asked; here is what it is asked of, and what the service has of it afterwards.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import OCTETS, V21
from tests.clients.place import Place
from tests.clients.test_glance import releases
from tests.load import quiet
from tests.servers.client import call
from tests.servers.place import HOST, free_port

pytestmark = pytest.mark.timeout(600)

Asked = dict[str, Any]
RAW = {"disk_format": "raw", "container_format": "bare"}


def new(place: Place, user: str, content: bytes | None = None, **fields: Any) -> str:
    answer = place.ask(user, "POST", "/v2/images", json={**RAW, **fields})
    assert answer.status == 201, answer
    image: str = answer.json()["id"]
    if content is not None:
        headers = {"Content-Type": OCTETS}
        assert place.ask(user, "PUT", f"/v2/images/{image}/file", body=content, headers=headers).status == 204
    return image


@pytest.fixture
def asked(place: Place, data: bytes, file: Path) -> Iterator[Asked]:
    """Images and tokens. `place`: a URL of the same data; `dead`: an address where nobody listens."""
    assert place.web.files is not None
    (place.web.files / "placed.raw").write_bytes(data)
    image = new(place, "demo", data, name=f"boot-{uuid.uuid4().hex}", hw_disk_bus="scsi")
    protected = new(place, "demo", protected=True)
    shared = new(place, "demo", visibility="shared")
    yield {
        "url": place.service.url,
        "dead": f"http://{HOST}:{free_port()}",
        "token": place.token("demo"),
        "service_token": place.token("glance"),
        "admin_token": place.token("admin"),
        "other_project": place.keystone.project_id("alt"),
        "owner": place.keystone.project_id("service"),
        "request_id": f"req-{uuid.uuid4()}",
        "image": image,
        "protected": protected,
        "shared": shared,
        "file": str(file),
        "place": f"{place.web.url}/placed.raw",
        "seconds": quiet(60),
    }
    unprotect = [{"op": "replace", "path": "/protected", "value": False}]
    place.ask("demo", "PATCH", f"/v2/images/{protected}", json=unprotect, headers={"Content-Type": V21})
    for one in (image, protected, shared):
        assert place.ask("demo", "DELETE", f"/v2/images/{one}").status == 204
    # registered by a user's call, so that it is not the service's to remove
    assert (place.web.files / "placed.raw").read_bytes() == data


@releases
@pytest.mark.parametrize("who", ["nova", "cinder", "heat"])
def test_calls(who: str, release: str, place: Place, asked: Asked) -> None:
    left = call("callers", who, release=release, asked=asked)
    assert left
    for image in left:
        assert place.ask("admin", "GET", f"/v2/images/{image}").status == 404
    assert f"global_request={asked['request_id']}" in place.service.log


def test_a_part_of_the_data(place: Place, asked: Asked, data: bytes) -> None:
    """As those ask who go on with a download that broke off; glanceclient cannot: it quotes the value of the header."""
    for header, first, after in (("bytes=1000-1999", 1000, 2000), ("bytes=-7", len(data) - 7, len(data))):
        answer = place.ask("demo", "GET", f"/v2/images/{asked['image']}/file", headers={"Range": header})
        assert (answer.status, answer.body) == (206, data[first:after])


@releases
def test_octavia(release: str, place: Place, asked: Asked, data: bytes) -> None:
    made = [new(place, "glance", data[:1000], name=name, tags=["amphora"]) for name in ("older", "newer")]
    other = new(place, "glance", name="queued", tags=["amphora"])
    assert call("callers", "octavia", release=release, asked=asked) == made[::-1]
    for image in (*made, other):
        assert place.ask("glance", "DELETE", f"/v2/images/{image}").status == 204
