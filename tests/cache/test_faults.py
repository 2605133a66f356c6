"""What goes wrong: processes that die, stores that break off or lie, a directory that others remove, damage or fill."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cache.conftest import LIMIT, MIB, Place, Reader
from tests.cache.origin import name_of
from tests.load import quiet
from tests.stores import mounts


def filling(place: Place, size: int = 6 * MIB, readers: int = 16) -> tuple[str, bytes, list[Reader]]:
    """An image of which many readers have the beginning."""
    image, data = place.image(size)
    place.origin.allow(2 * MIB)
    found = [Reader(place, image) for _ in range(readers)]
    place.wait(lambda: all(reader.got >= MIB for reader in found))
    return image, data, found


def parts(place: Place) -> list[Path]:
    return list((place.cache / "incomplete").iterdir())


def test_kill_9_of_the_process_that_fills(place: Place) -> None:
    image, data, readers = filling(place)
    (filler,) = (pid for pid, fills in place.workers().items() if fills)
    os.kill(filler, signal.SIGKILL)
    place.origin.allow()
    whole = [reader.has_all_of(data) for reader in readers]
    # its own readers are cut, and know it; those of the other process go on from the store
    assert all(done or reader.error is not None for done, reader in zip(whole, readers, strict=True))
    assert all(reader.got < len(data) for done, reader in zip(whole, readers, strict=True) if not done)
    assert len([read for read in place.origin.reads if read == (name_of(place.service, image), 0)]) == 1
    place.wait(lambda: len(place.workers()) == 2)
    assert image not in place.cached()
    assert place.service.request("POST", "/v2/cache/clean").status == 200
    assert not parts(place)
    assert place.read(image) == data
    place.wait(lambda: image in place.cached())


def test_kill_9_of_a_process_that_reads(place: Place) -> None:
    image, data, readers = filling(place)
    (other,) = (pid for pid, fills in place.workers().items() if not fills)
    os.kill(other, signal.SIGKILL)
    place.origin.allow()
    for reader in readers:
        assert reader.has_all_of(data) or (reader.error is not None and reader.got < len(data))
    place.wait(lambda: image in place.cached())
    place.wait(lambda: len(place.workers()) == 2)
    assert place.reads(image) == 1
    assert place.read(image) == data
    assert place.reads(image) == 1


def test_all_die_and_start_again(place: Place) -> None:
    kept, data = place.image()
    place.read(kept)
    place.wait(lambda: kept in place.cached())
    image, others, _ = filling(place, readers=2)
    place.service.kill()
    place.origin.allow()
    place.service.start()
    assert place.cached() == {kept}
    assert place.read(kept) == data
    assert place.reads(kept) == 1
    assert place.read(image) == others
    place.wait(lambda: image in place.cached() and not parts(place))


def test_a_store_that_breaks_off(place: Place) -> None:
    image, data = place.image(6 * MIB)
    place.origin.cut = 3 * MIB
    readers = [Reader(place, image) for _ in range(6)]
    # they go on by ranges, each from where he is
    assert all(reader.has_all_of(data) for reader in readers)
    assert image not in place.cached()
    assert not parts(place)
    place.origin.cut = 1 << 60
    assert place.read(image) == data
    place.wait(lambda: image in place.cached())


def test_a_store_that_is_gone_in_the_middle(place: Place) -> None:
    image, data, readers = filling(place, readers=4)
    place.origin.down = True
    place.origin.allow(-1)
    for reader in readers:
        assert not reader.has_all_of(data)
        assert reader.error is not None
        assert reader.got < len(data)
    assert image not in place.cached()


def test_readers_that_leave_end_the_filling(place: Place) -> None:
    image, _, readers = filling(place, readers=3)
    for reader in readers:
        reader.leave()

    def is_ended() -> bool:
        place.origin.allow(place.origin.give + 1000)
        return not parts(place)

    place.wait(is_ended, 60)
    assert image not in place.cached()


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_wrong_data_of_others_is_never_cached(place: Place, size: int) -> None:
    image, data = place.image(size)
    place.origin.wrong.add(name_of(place.service, image))
    readers = [Reader(place, image) for _ in range(3)]
    for reader in readers:
        reader.join(quiet(60))
        assert reader.status != 200 or reader.error is not None
        assert reader.got < len(data) or reader.status == 503
    assert image not in place.cached()
    assert not parts(place)


def test_a_damaged_file_store_is_found_when_an_image_is_fetched(place: Place) -> None:
    made = place.service.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"})
    image = made.json()["id"]
    headers = {"Content-Type": "application/octet-stream"}
    place.service.request("PUT", f"/v2/images/{image}/file", body=b"x" * 3 * MIB, headers=headers)
    with (place.service.images / image).open("r+b") as file:
        file.write(b"y")
    done = place.service.request("PUT", f"/v2/cache/{image}")
    assert done.status == 202
    place.wait(lambda: "an image was not cached" in place.service.log)
    assert image not in place.cached()
    assert place.service.request("GET", "/v2/cache").json()["queued_images"] == [image]


@pytest.mark.parametrize("how", ["a byte", "cut", "longer", "a link"])
def test_a_damaged_file_of_the_cache_is_not_given(place: Place, how: str) -> None:
    image, data = place.image(2 * MIB)
    place.read(image)
    place.wait(lambda: image in place.cached())
    path = place.file(image)
    if how == "a byte":
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(bytes([data[MIB] ^ 1]))
    elif how == "cut":
        os.truncate(path, MIB)
    elif how == "longer":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        path.unlink()
        path.symlink_to("/etc/hostname")
    assert place.read(image) == data
    assert place.reads(image) == 2
    if how == "a link":
        path.unlink()
    place.read(image)
    place.wait(lambda: image in place.cached())
    assert place.read(image) == data


def test_the_directory_is_removed_under_us(place: Place) -> None:
    cached, first = place.image()
    place.read(cached)
    place.wait(lambda: cached in place.cached())
    image, data, readers = filling(place, readers=4)
    shutil.rmtree(place.cache)
    place.origin.allow()
    assert all(reader.has_all_of(data) for reader in readers)
    assert place.read(cached) == first
    place.wait(lambda: cached in place.cached())
    assert place.read(image) == data
    place.wait(lambda: image in place.cached())


def test_the_directory_is_read_only(place: Place) -> None:
    cached, first = place.image()
    other, data = place.image()
    place.read(cached)
    place.wait(lambda: cached in place.cached())
    with mounts.read_only(place.cache):
        for _ in range(2):
            assert place.read(cached) == first
            assert place.read(other) == data
        assert place.reads(cached) == 1
        assert place.reads(other) == 2
        assert place.service.request("PUT", f"/v2/cache/{other}").status == 503
        assert place.service.request("DELETE", "/v2/cache").status == 503
        assert [one["image_id"] for one in place.service.request("GET", "/v2/cache").json()["cached_images"]] == [
            cached
        ]
    assert "the image cache cannot be used" in place.service.log
    assert place.read(other) == data
    place.wait(lambda: other in place.cached())


def test_no_directory_can_be_made(place: Place) -> None:
    image, data = place.image()
    shutil.rmtree(place.cache)
    place.cache.write_text("a file")
    try:
        assert place.read(image) == data
        assert place.read(image, "0-9") == data[:10]
        assert place.service.request("GET", "/v2/cache").status == 503
        assert place.service.request("GET", "/metrics").status == 200
    finally:
        place.cache.unlink()
    assert place.read(image) == data
    place.wait(lambda: image in place.cached())


def test_the_disk_is_full(place: Place) -> None:
    with mounts.tmpfs(place.cache, "8m"):
        small, first = place.image(3 * MIB)
        place.read(small)
        place.wait(lambda: small in place.cached())
        image, data = place.image(7 * MIB)  # there is room when the other goes
        place.origin.allow(2 * MIB)
        readers = [Reader(place, image) for _ in range(4)]
        place.wait(lambda: all(reader.got >= MIB for reader in readers))
        with (place.cache / "other").open("wb") as other:
            free = os.statvfs(place.cache)
            os.posix_fallocate(other.fileno(), 0, free.f_bavail * free.f_frsize)
            place.origin.allow()
            assert all(reader.has_all_of(data) for reader in readers)
        assert image not in place.cached()
        assert not parts(place)
        assert place.read(small) == first
        large, much = place.image(9 * MIB)
        assert place.read(large) == much


def test_stop_leaves_nothing_unfinished(place: Place) -> None:
    image, data, readers = filling(place, readers=2)
    os.kill(place.service.pid, signal.SIGHUP)  # other processes take over; these let their readers finish
    place.origin.allow()
    assert all(reader.has_all_of(data) for reader in readers)
    place.wait(lambda: image in place.cached() and not parts(place))
    assert place.size() <= LIMIT
