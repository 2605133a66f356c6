"""Uploading and downloading: every announced size, every range on every kind of store, and who wins a race."""

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.cloud import OCTETS, Cloud
from tests.servers.http import Answer

DATA = bytes(range(256)) * 5000  # 1.28 MB


def pieces(data: bytes, size: int = 50_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("store", ["fast", "slow", "mem"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("length", {}),
        ("chunked", {}),
        ("length", {"x_openstack_image_size": str(len(DATA))}),
        ("chunked", {"x_openstack_image_size": str(len(DATA))}),
        ("chunked", {"x_openstack_image_size": "0"}),
    ],
)
def test_uploading(cloud: Cloud, store: str, body: str, headers: dict[str, str]) -> None:
    image_id = cloud.ann.new()
    answer = cloud.ann.upload(image_id, DATA if body == "length" else pieces(DATA), store=store, **headers)
    assert (answer.status, answer.headers["x-image-meta-store"]) == (204, store)
    image = cloud.ann.show(image_id)
    expected = {
        "status": "active", "size": len(DATA), "virtual_size": len(DATA), "checksum": hashlib.md5(DATA).hexdigest(),
        "os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest(), "stores": store,
    }  # fmt: skip
    assert {name: image[name] for name in expected} == expected
    answer = cloud.ann.download(image_id)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-md5"] == expected["checksum"]
    assert answer.headers["content-type"] == OCTETS
    assert answer.headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("store", ["fast", "mem"])
def test_the_smallest_images(cloud: Cloud, store: str, size: int) -> None:
    image_id = cloud.ann.new(b"x" * size, store=store)
    answer = cloud.ann.download(image_id)
    assert (answer.status, answer.body) == (200, b"x" * size)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"x_openstack_image_size": "5"}, b"four", 400),
        ({"x_openstack_image_size": "3"}, b"four", 400),
        ({"x_openstack_image_size": "5"}, "chunked", 400),
        ({"x_openstack_image_size": "3"}, "chunked", 400),
        ({"x_openstack_image_size": "four"}, b"four", 400),
        ({"x_openstack_image_size": "-4"}, b"four", 400),
        ({"X_Image_Meta_Store": "nowhere"}, b"four", 400),
        ({"Content_Type": "text/plain"}, b"four", 415),
        ({"Content_Type": "application/octet-stream; charset=binary"}, b"four", 204),
        ({"Content_Encoding": "gzip"}, b"four", 415),
    ],
)
def test_refused_uploads_leave_a_queued_image(cloud: Cloud, headers: dict[str, str], body: Any, status: int) -> None:
    image_id = cloud.ann.new()
    answer = cloud.ann.upload(image_id, pieces(b"four", 2) if body == "chunked" else body, **headers)
    assert answer.status == status, answer.body
    if status != 204:
        shown = cloud.ann.show(image_id)
        assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
        assert image_id not in cloud.files("fast")
        assert cloud.ann.upload(image_id, b"at last").status == 204
    assert cloud.ann.show(image_id)["status"] == "active"


def test_what_an_upload_needs(cloud: Cloud) -> None:
    without = cloud.ann.create(disk_format="raw").json()["id"]
    refused = cloud.ann.upload(without, b"data")
    assert refused.status == 400
    assert b"container_format" in refused.body
    image_id = cloud.ann.new(visibility="community")
    assert cloud.rita.upload(image_id, b"data").status == 403
    assert cloud.bob.upload(image_id, b"data").status == 403
    assert cloud.ann.upload(image_id, b"data").status == 204
    again = cloud.ann.upload(image_id, b"other")
    assert again.status == 409
    assert cloud.ann.download(image_id).body == b"data"


def test_of_many_uploads_one_wins(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    answers: dict[int, Answer] = {}
    barrier = threading.Barrier(6)

    def upload(number: int) -> None:
        barrier.wait()
        answers[number] = cloud.ann.upload(image_id, pieces(bytes([number]) * 2_000_000))

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers.values()) == [204, *[409] * 5]
    (winner,) = (number for number, answer in answers.items() if answer.status == 204)
    assert cloud.ann.download(image_id).body == bytes([winner]) * 2_000_000
    assert [name for name in cloud.files("fast") if image_id in name] == [image_id]


# range header, status, slice
RANGES: list[tuple[dict[str, str], int, slice]] = [
    ({"Range": "bytes=0-0"}, 206, slice(0, 1)),
    ({"Range": "bytes=0-9"}, 206, slice(0, 10)),
    ({"Range": "bytes=1000000-1000009"}, 206, slice(1_000_000, 1_000_010)),
    ({"Range": "bytes=100-"}, 206, slice(100, None)),
    ({"Range": "bytes=-1"}, 206, slice(-1, None)),
    ({"Range": "bytes=-100"}, 206, slice(-100, None)),
    ({"Range": "bytes=-99999999"}, 206, slice(None)),
    ({"Range": f"bytes=10-{len(DATA) + 5}"}, 206, slice(10, None)),
    ({"Range": f"bytes={len(DATA) - 1}-"}, 206, slice(-1, None)),
    ({"Content-Range": "bytes 5-9/*"}, 206, slice(5, 10)),
    ({"Range": f"bytes={len(DATA)}-"}, 416, slice(0)),
    ({"Range": "bytes=-0"}, 416, slice(0)),
    ({"Range": "bytes=9-5"}, 416, slice(0)),
    ({"Range": "bytes=a-b"}, 416, slice(0)),
    ({"Range": "bytes=-"}, 416, slice(0)),
    ({"Range": "lines=1-2"}, 200, slice(0)),
    ({"Range": "bytes=0-1,4-5"}, 400, slice(0)),
    ({"Content-Range": "bytes 9-5/*"}, 416, slice(0)),
    ({"Content-Range": "five"}, 416, slice(0)),
]


@pytest.fixture(scope="module", params=["fast", "mem"])
def image(cloud: Cloud, request: pytest.FixtureRequest) -> str:
    return cloud.ann.new(DATA, store=request.param)


@pytest.mark.parametrize(("headers", "status", "part"), RANGES, ids=lambda value: str(value)[:40])
def test_ranges(cloud: Cloud, image: str, headers: dict[str, str], status: int, part: slice) -> None:
    answer = cloud.ann.ask("GET", f"/v2/images/{image}/file", headers=headers)
    assert answer.status == status, answer.body[:200]
    if status != 206:
        return
    start, stop, _ = part.indices(len(DATA))
    assert answer.body == DATA[part]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert "content-md5" not in answer.headers, "of the whole, not of the part"
    alone = cloud.ann.ask("HEAD", f"/v2/images/{image}/file", headers=headers)
    assert (alone.status, alone.body) == (200, b""), "only GET knows ranges"
    assert alone.headers["content-length"] == str(len(DATA))
    assert "content-range" not in alone.headers


def test_knowing_the_data_already(cloud: Cloud, image: str) -> None:
    path = f"/v2/images/{image}/file"
    head = cloud.ann.ask("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(DATA)), b"")
    tag = head.headers["etag"]
    assert hashlib.sha512(DATA).hexdigest() in tag
    for condition, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200)):
        answer = cloud.ann.ask("GET", path, headers={"If-None-Match": condition})
        assert (answer.status, len(answer.body)) == (status, 0 if status == 304 else len(DATA)), condition
    for condition, status in ((tag, 206), ('"x"', 200)):
        answer = cloud.ann.ask("GET", path, headers={"If-Range": condition, "Range": "bytes=0-1"})
        assert answer.status == status, condition


def test_no_data_yet(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    for method in ("GET", "HEAD"):
        answer = cloud.ann.ask(method, f"/v2/images/{image_id}/file")
        assert (answer.status, answer.body) == (204, b"")


def in_two_stores(cloud: Cloud) -> str:
    """An image in `fast`, and in `mem`, which weighs more; afterwards the file gets other bytes of the same length."""
    other = cloud.nova.new(b"from mem", store="mem", visibility="private")
    image_id = cloud.ann.new(b"from mem")
    location = {"url": f"memory://mem/{other}", "metadata": {"store": "mem"}}
    assert cloud.admin.patch(image_id, {"op": "add", "path": "/locations/-", "value": location}).status == 200
    (cloud.folder / "fast" / image_id).write_bytes(b"fromfast")
    return image_id


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("", 200, b"from mem"),
        ("?prefer=fast", 200, b"fromfast"),
        ("?prefer=mem,fast", 200, b"from mem"),
        ("?prefer=slow,fast", 200, b"fromfast"),
        ("?prefer=slow", 200, b"from mem"),
        ("?prefer=nowhere", 400, None),
        ("?prefer=", 400, None),
        ("?prefer=fast,,mem", 400, None),
    ],
)
def test_which_store_gives_the_data(cloud: Cloud, query: str, status: int, body: bytes | None) -> None:
    image_id = in_two_stores(cloud)
    answer = cloud.ann.download(image_id, query)
    assert answer.status == status
    if body is not None:
        assert answer.body == body
        part = cloud.ann.download(image_id, query, Range="bytes=-4")
        assert (part.status, part.body) == (206, body[-4:])


def test_the_next_store_when_data_is_missing(cloud: Cloud) -> None:
    image_id = in_two_stores(cloud)
    (cloud.folder / "fast" / image_id).write_bytes(b"short")
    assert cloud.ann.download(image_id, "?prefer=fast").body == b"from mem", "another size than the image's"
    (cloud.folder / "fast" / image_id).unlink()
    assert cloud.ann.download(image_id, "?prefer=fast").body == b"from mem"
    lost = cloud.ann.new(b"data")
    (cloud.folder / "fast" / lost).unlink()
    for headers in ({}, {"Range": "bytes=1-2"}):
        answer = cloud.ann.ask("GET", f"/v2/images/{lost}/file", headers=headers)
        assert answer.status == 404
        assert b"none of its stores" in answer.body


def test_a_store_that_is_away(cloud: Cloud) -> None:
    """Its directory is not there: that is no reason to call the data lost."""
    image_id = cloud.ann.new(b"data", store="slow")
    away = (cloud.folder / "slow").rename(cloud.folder / "away")
    try:
        assert cloud.ann.download(image_id).status == 503
    finally:
        away.rename(cloud.folder / "slow")
    assert cloud.ann.download(image_id).body == b"data"


def test_who_may_download(cloud: Cloud) -> None:
    """A reader sees the image and does not get its data, as upstream's rules have it."""
    image_id = cloud.ann.new(b"data", visibility="private")
    found = {name: getattr(cloud, name).download(image_id).status for name in ("admin", "ann", "rita", "bob", "nobody")}
    assert found == {"admin": 200, "ann": 200, "rita": 403, "bob": 404, "nobody": 401}


def test_the_data_ends_early(cloud: Cloud) -> None:
    """A file that becomes shorter while it is sent ends the connection; no error text is sent as data."""
    size = 32_000_000
    image_id = cloud.ann.new(bytes(size))
    connection = http.client.HTTPConnection("127.0.0.1", cloud.service.port, timeout=20)
    connection.request("GET", f"/v2/images/{image_id}/file", headers=cloud.ann.headers)
    answer = connection.getresponse()
    begun = answer.read(100_000)
    time.sleep(0.3)
    with (cloud.folder / "fast" / image_id).open("r+b") as file:
        file.truncate(20_000_000)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as caught:
        begun += answer.read()
    if isinstance(caught.value, http.client.IncompleteRead):
        begun += caught.value.partial
    assert not begun.strip(b"\0")
    assert len(begun) < size
    connection.close()
