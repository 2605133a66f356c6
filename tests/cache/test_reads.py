"""Reads of images where there is a cache: one read of the store for all, ranges, eviction, a limit that holds."""

import socket
import threading
import time

import pytest

from tests.cache.conftest import LIMIT, MIB, Place, Reader
from tests.load import quiet


def test_the_second_read_asks_no_store(place: Place) -> None:
    image, data = place.image(3 * MIB + 7)
    assert place.read(image) == data
    place.wait(lambda: image in place.cached())
    assert place.read(image) == data
    assert place.reads(image) == 1
    place.origin.down = True
    assert place.read(image) == data
    assert place.read(image, "5-1048580") == data[5:1048581]
    assert place.read(image, "-3") == data[-3:]
    (entry,) = place.service.request("GET", "/v2/cache").json()["cached_images"]
    assert (entry["image_id"], entry["size"], entry["hits"]) == (image, len(data), 4)
    assert 0 <= time.time() - entry["last_accessed"] < quiet(60)
    assert entry["last_modified"] <= entry["last_accessed"] + 1


def test_many_first_readers_are_one_read_of_the_store(place: Place) -> None:
    image, data = place.image(6 * MIB)
    place.origin.allow(2 * MIB)
    readers = [Reader(place, image) for _ in range(40)]
    # all of them have what came so far, before the rest does
    place.wait(lambda: all(reader.got >= MIB for reader in readers))
    place.origin.allow()
    assert all(reader.has_all_of(data) for reader in readers)
    assert place.reads(image) == 1
    place.wait(lambda: image in place.cached())


def test_a_range_does_not_fetch_all(place: Place) -> None:
    image, data = place.image()
    assert place.read(image, "10-19") == data[10:20]
    assert place.reads(image) == 0
    assert image not in place.cached()


def test_the_limit_holds_while_many_are_read_at_once(place: Place) -> None:
    images = [place.image(3 * MIB + 1000 * number) for number in range(14)]
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            most[0] = max(most[0], place.size())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        readers = [(Reader(place, image), data) for image, data in images for _ in range(2)]
        assert all(reader.has_all_of(data) for reader, data in readers)
    finally:
        over.set()
        watcher.join()
    assert 0 < most[0] <= LIMIT
    place.wait(lambda: not list((place.cache / "incomplete").iterdir()))
    assert 5 <= len(place.cached()) <= 7


def test_what_was_read_longest_ago_goes_first(place: Place) -> None:
    images = [place.image(7 * MIB)[0] for _ in range(3)]
    for image in images:
        place.read(image)
        place.wait(lambda image=image: image in place.cached())  # type: ignore[misc]
    place.read(images[0])
    newest, _ = place.image(7 * MIB)
    place.read(newest)
    place.wait(lambda: newest in place.cached())
    assert place.cached() == {images[0], images[2], newest}


def test_what_is_larger_than_the_cache_is_read_past_it(place: Place) -> None:
    small, _ = place.image()
    place.read(small)
    place.wait(lambda: small in place.cached())
    image, data = place.image(LIMIT + 1)
    assert place.read(image) == data
    assert place.cached() == {small}


def test_what_is_read_is_not_evicted(place: Place) -> None:
    held, data = place.image(20 * MIB)
    place.read(held)
    place.wait(lambda: held in place.cached())
    with socket.create_connection(("127.0.0.1", place.service.port)) as client:
        client.sendall(f"GET /v2/images/{held}/file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        client.settimeout(quiet(30))
        got = client.recv(4096)
        other, others = place.image(10 * MIB)
        assert place.read(other) == others
        assert held in place.cached()
        assert other not in place.cached()
        while chunk := client.recv(1 << 20):
            got += chunk
    assert got.endswith(data)
    assert place.read(other) == others
    place.wait(lambda: other in place.cached())
    assert held not in place.cached()


def test_a_file_store_of_the_node_is_not_cached_by_reads(place: Place) -> None:
    made = place.service.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"})
    image, data = made.json()["id"], b"x" * MIB
    headers = {"Content-Type": "application/octet-stream"}
    assert place.service.request("PUT", f"/v2/images/{image}/file", body=data, headers=headers).status == 204
    for _ in range(6):
        assert place.read(image) == data
    assert place.cached() == set()
    # asked for by name it is
    assert place.service.request("PUT", f"/v2/cache/{image}").status == 202
    place.wait(lambda: image in place.cached())
    assert place.read(image) == data


@pytest.mark.parametrize("how", ["deactivated", "deleted"])
def test_rights_are_asked_for_what_is_cached(place: Place, how: str) -> None:
    image, data = place.image()
    place.read(image)
    place.wait(lambda: image in place.cached())
    if how == "deactivated":
        assert place.service.request("POST", f"/v2/images/{image}/actions/deactivate").status == 204
        assert place.read(image) == data  # by an administrator, as without a cache
    else:
        assert place.service.request("DELETE", f"/v2/images/{image}").status == 204
        assert place.service.request("GET", f"/v2/images/{image}/file").status == 404
        assert image not in place.cached()
