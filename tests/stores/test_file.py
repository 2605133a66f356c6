"""What is the file store's own: its options, its directories, its URLs, full and forbidden disks."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers import Missing
from tests.servers.place import ROOT
from tests.stores import mounts
from tests.stores.drivers import file_options
from xloud_image.errors import (
    AlreadyExists,
    BlobNotFound,
    ConfigError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.base import Store
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.layers import wrap
from xloud_image.stores.suite import MIB, collect, feed, noise, patches


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Any]]:
    """Makes started stores; `datadirs` are (path, priority)."""
    made: list[Store] = []

    async def one(directory: Path | str, *, datadirs: list[tuple[Path, int]] | None = None, **given: Any) -> Store:
        options = file_options(directory, **given)
        if datadirs:
            options["filesystem_store_datadirs"] = [f"{path}:{priority}" for path, priority in datadirs]
        made.append(FileStore("fast", options))
        await made[-1].start()
        return made[-1]

    yield one
    for store in made:
        await store.aclose()


async def read(store: Store, url: str) -> bytes:
    async with store.open(url) as reader:
        return await collect(reader)


async def test_the_url_is_the_one_that_other_services_write_and_old_ones_are_read(make: Any, tmp_path: Path) -> None:
    store = await make(f"{tmp_path}/with space//100%/")
    blob = await store.write("key", feed(b"x"), size=1)
    assert blob.url == f"file://{tmp_path}/with space/100%/key"
    for url in (blob.url, f"filesystem://{tmp_path}/with space/100%/key", blob.url.replace("100%/", "100%//./")):
        assert store.owns(url)
        assert await read(store, url) == b"x"


async def test_no_url_leads_out_of_the_directories(make: Any, tmp_path: Path) -> None:
    store = await make(tmp_path / "images")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    inside = tmp_path / "images"
    (inside / "link").symlink_to(secret)
    (inside / "below").mkdir()
    (inside / "below" / "key").write_bytes(b"x")
    os.mkfifo(inside / "pipe")
    (inside / ".key.0123456789abcdef.part").write_bytes(b"draft")
    for path in (
        secret, "/etc/passwd", inside / ".." / "secret", f"{inside}/below/../../secret", inside / "below" / "key",
        inside / "pipe", inside / "below", inside / ".key.0123456789abcdef.part", inside, "",
        f"{inside}/", f"{inside}/key\0", f"localhost{inside}/link", f"{inside}-other/key",
    ):  # fmt: skip
        for call in (store.stat(f"file://{path}"), read(store, f"file://{path}"), store.delete(f"file://{path}")):
            with pytest.raises(BlobNotFound):
                await call
    for call in (store.stat(f"file://{inside}/link"), read(store, f"file://{inside}/link")):
        with pytest.raises(StoreRefused, match="is a link"):
            await call
    assert secret.read_bytes() == b"secret"
    (inside / ".key.0123456789abcdef.part").unlink()


@pytest.mark.parametrize("configured", ["real", "link"])
@pytest.mark.parametrize("as_the_row_says", ["real", "link", "second mount"])
async def test_a_directory_under_another_name(
    make: Any, tmp_path: Path, enter: Callable[[Any], Path], configured: str, as_the_row_says: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "key").write_bytes(b"another's")
    (tmp_path / "other").symlink_to("elsewhere")
    enter(mounts.bind(tmp_path / "real", tmp_path / "second mount"))
    store = await make(tmp_path / configured)
    await store.write("key", feed(b"x"), size=1)
    for scheme in ("file", "filesystem"):
        url = f"{scheme}://{tmp_path}/{as_the_row_says}/key"
        assert store.owns(url)
        assert (await store.stat(url)).size == 1
        assert await read(store, url) == b"x"
    for place in ("elsewhere/key", "other/key", "real/../elsewhere/key", "absent/key", "real/key/key"):
        url = f"file://{tmp_path}/{place}"
        assert not store.owns(url)
        with pytest.raises(BlobNotFound, match="outside its directories"):
            await read(store, url)
    await store.delete(f"file://{tmp_path}/{as_the_row_says}/key")
    assert not (tmp_path / "real" / "key").exists()


async def test_a_link_to_a_single_file(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it leads is told to the administrator, not to the client."""
    store = wrap(await make(tmp_path / "images"))
    (tmp_path / "large disk").write_bytes(b"moved")
    (tmp_path / "images" / "key").symlink_to(tmp_path / "large disk")
    url = f"file://{tmp_path}/images/key"
    for call in (store.stat(url), read(store, url)):
        with pytest.raises(StoreRefused, match="is a link to another place") as caught:
            await call
        assert str(tmp_path) not in caught.value.message
    assert f"{tmp_path}/images/key is a link to {tmp_path}/large disk" in caplog.text
    await store.delete(url)
    assert not (tmp_path / "images" / "key").is_symlink()
    assert f"{tmp_path}/images/key is removed; what it led to stays: {tmp_path}/large disk" in caplog.text
    assert (tmp_path / "large disk").read_bytes() == b"moved"


async def test_a_name_that_hangs_holds_up_nobody(make: Any, tmp_path: Path, enter: Callable[[Any], Any]) -> None:
    store = await make(tmp_path / "images")
    await store.write("key", feed(b"x"), size=1)
    hung = enter(contextlib.closing(mounts.Hangable(tmp_path / "source", tmp_path / "hung")))
    hung.stop()
    begun = time.monotonic()
    for number in range(50):
        url = f"file://{hung.target}/below/key-{number}"
        assert store.owns(url), "it may be"
        assert store.key(url) == f"key-{number}"
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.forms(url)
        for call in (store.stat(url), read(store, url), store.delete(url)):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await call
    assert time.monotonic() - begun < quiet(5), "one wait for all of them"
    assert await read(store, f"file://{tmp_path}/images/key") == b"x"
    assert not store.owns(f"http://{tmp_path}/images/key"), "what the text alone says is known"


async def test_many_names_that_hang_make_no_other_one_absent(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not known is not «no such data»: it is asked again later, and known then."""
    from xloud_image.stores.file import directories as places

    store = await make(tmp_path / "images")
    await store.write("key", feed(b"x"), size=1)
    (tmp_path / "alias").symlink_to("images")
    gate, real = threading.Event(), places.os.stat

    def slow(name: Any, *more: Any, **how: Any) -> Any:
        if str(name).startswith(str(tmp_path / "hung")):
            gate.wait(30)
        return real(name, *more, **how)

    monkeypatch.setattr(places.os, "stat", slow)
    for number in range(10):
        with pytest.raises(StoreUnavailable):
            await store.stat(f"file://{tmp_path}/hung-{number}/key")
    url = f"file://{tmp_path}/alias/key"
    with pytest.raises(StoreUnavailable):
        await store.stat(url)
    gate.set()
    while True:
        try:
            assert (await store.stat(url)).size == 1
            break
        except StoreUnavailable:
            await asyncio.sleep(0.01)
    with pytest.raises(BlobNotFound):
        await store.stat(f"file://{tmp_path}/absent/key")


async def test_a_directory_that_cannot_be_looked_at_is_not_absent(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xloud_image.stores.file import directories as places

    store = await make(tmp_path / "images")
    real, numbers = places.os.stat, [errno.EIO, errno.ESTALE, errno.ENOTCONN]

    def sick(name: Any, *more: Any, **how: Any) -> Any:
        if str(name) == str(tmp_path / "other"):
            raise OSError(numbers[0], "sick") if numbers else FileNotFoundError(errno.ENOENT, "none")
        return real(name, *more, **how)

    monkeypatch.setattr(places.os, "stat", sick)
    url = f"file://{tmp_path}/other/key"
    while numbers:
        with pytest.raises(StoreUnavailable):
            await store.stat(url)
        numbers.pop(0)
    with pytest.raises(BlobNotFound):
        await store.stat(url)


async def test_the_directory_is_made_and_has_the_mode_of_the_umask(make: Any, tmp_path: Path) -> None:
    await make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(("perm", "mode"), [(0, None), (640, 0o640), (604, 0o604), (400, 0o400)])
async def test_file_perm(make: Any, tmp_path: Path, perm: int, mode: int | None) -> None:
    store = await make(tmp_path / "images", store_file_perm=perm)
    await store.write("key", feed(b"x"), size=1)
    umask = os.umask(0)
    os.umask(umask)
    found = stat.S_IMODE((tmp_path / "images" / "key").stat().st_mode)
    assert found == (mode if mode is not None else 0o666 & ~umask)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"store_file_perm": 689}, "octal"),
        ({"store_datadir": ""}, "empty"),
        ({"store_datadirs": ["/a:high"]}, "/a:high"),
        ({"store_datadir": "file:///srv/images"}, "is a URL; a directory is written as it is: /srv/images"),
        ({"store_datadir": "file:/srv/images"}, "is a URL"),
        ({"store_datadirs": ["file:///srv/images:100"]}, "is a URL"),
        ({"store_datadirs": ["/a:1", "filesystem:///b"]}, "is a URL"),
        ({"store_datadirs": ["/a:1", "/b:2", "/a/:3"]}, "/a twice"),
    ],
)
def test_options_that_mean_nothing(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FileStore("fast", file_options("/x", **given))


async def test_a_relative_directory_is_said_with_its_place(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    detail = (await (await make("images")).check()).detail
    assert f"images is relative to where the service is started; now it is {tmp_path}/images" in detail
    assert (await (await make(tmp_path / "images")).check()).detail == "ok"


async def test_the_highest_priority_with_room_wins(make: Any, tmp_path: Path, enter: Callable[[Any], Path]) -> None:
    small, large = enter(mounts.tmpfs(tmp_path / "small", "2m")), enter(mounts.tmpfs(tmp_path / "large", "64m"))
    last = tmp_path / "last"
    store = await make("/nowhere", datadirs=[(last, 1), (large, 5), (small, 10)])
    assert store.facts["data_dir"] == [str(small), str(large), str(last)]

    async def place(key: str, size: int, announced: int | None) -> Path:
        blob = await store.write(key, feed(noise(size)), size=announced)
        return Path(blob.url.removeprefix("file://")).parent

    assert await place("fits", MIB, MIB) == small
    assert await place("does-not-fit", 4 * MIB, 4 * MIB) == large
    assert await place("unknown", 4 * MIB, None) == last  # only here it may be as large as it wants
    # a key that is taken in one directory is taken in all
    with pytest.raises(AlreadyExists):
        await store.write("fits", feed(noise(9 * MIB)), size=9 * MIB)
    # a broken directory is passed over, and told
    (large / "does-not-fit").unlink()
    with mounts.read_only(small):
        assert await place("passed", 10, 10) == large
        found = await store.check()
        assert "mount -o remount,rw" in found.detail
    await store.discard("passed")
    assert not (large / "passed").exists()
    assert (await store.check()).detail == "ok"
    with pytest.raises(StoreFull):
        await store.write("huge", feed(b""), size=1 << 50)


async def test_old_data_stays_readable_in_a_directory_of_low_priority(make: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    url = (await (await make(old)).write("key", feed(b"old"), size=3)).url
    store = await make("/nowhere", datadirs=[(new, 10), (old, 0)])
    assert await read(store, url) == b"old"
    assert (await store.write("other", feed(b"new"), size=3)).url == f"file://{new}/other"


METADATA = {"id": "b9d69795", "mountpoint": "/mnt"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (METADATA, METADATA),
        (METADATA | {"share": "nfs"}, METADATA | {"share": "nfs"}),
        ([{"id": "root", "mountpoint": "/"}, {"id": "near", "mountpoint": "@"}], {"id": "near", "mountpoint": "@"}),
        ([METADATA], "mountpoint above"),
        ({"id": "x"}, '"mountpoint"'),
        ([1], '"mountpoint"'),
        ("no json", "metadata_file"),
        (None, "metadata_file"),
    ],
)
async def test_metadata_for_direct_consumers(make: Any, tmp_path: Path, content: Any, expected: Any) -> None:
    def placed(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("@", str(tmp_path)))

    file = tmp_path / "metadata.json"
    if content is not None:
        file.write_text("{" if content == "no json" else json.dumps(placed(content)))
    store = await make(tmp_path / "images", store_metadata_file=str(file))
    if isinstance(expected, dict):
        blob = await store.write("key", feed(b"x"), size=1)
        assert blob.metadata == placed(expected)
        return
    with pytest.raises(WriteDenied, match=expected):
        await store.check()
    with pytest.raises(WriteDenied):
        await store.write("key", feed(b"x"), size=1)


@pytest.mark.parametrize("chunk", [4096, 70001, 262144, 3 * MIB])
async def test_thin_files_have_holes(make: Any, tmp_path: Path, chunk: int) -> None:
    store = await make(tmp_path / "images", thin_provisioning=True)
    data = noise(MIB) + bytes(20 * MIB) + noise(MIB) + bytes(10 * MIB)
    blob = await store.write("key", feed(data, chunk), size=len(data))
    found = (tmp_path / "images" / "key").stat()
    assert (found.st_size, found.st_blocks * 512 < 3 * MIB) == (len(data), True)
    assert await read(store, blob.url) == data
    # what is not zero is written, wherever it stands
    for number in range(4):
        data = patches(5 * MIB + 17, number)
        blob = await store.write(f"key-{number}", feed(data, chunk + number), size=None)
        assert await read(store, blob.url) == data


async def test_room_is_taken_for_what_came_and_as_much_again(make: Any, tmp_path: Path) -> None:
    place = tmp_path / "images"
    store = await make(place)
    seen: list[tuple[int, int]] = []

    async def source() -> AsyncIterator[bytes]:
        for number in range(24):
            seen.extend((number * MIB, file.stat().st_blocks * 512) for file in place.iterdir())
            yield noise(MIB)

    blob = await store.write("key", source(), size=24 * MIB)
    assert all(held <= 2 * came + MIB for came, held in seen), "the announced size counts for nothing"
    assert any(held > came for came, held in seen), "room is there before the bytes, so that a file lies in one piece"
    assert (place / "key").stat().st_size == blob.size == 24 * MIB
    assert (place / "key").stat().st_blocks * 512 <= 25 * MIB


@pytest.mark.parametrize("announced", [200 * MIB, None])
async def test_what_is_announced_takes_no_room_from_others(
    make: Any, tmp_path: Path, enter: Callable[[Any], Path], announced: int | None
) -> None:
    store = await make(enter(mounts.tmpfs(tmp_path / "images", "256m")))
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x"
        await go_on.wait()
        raise StoreUnavailable("the client went away")

    strangers = [asyncio.create_task(store.write(f"slow-{n}", slowly(), size=announced)) for n in range(20)]
    while len(list((tmp_path / "images").iterdir())) < len(strangers):
        await asyncio.sleep(0.01)
    await store.write("key", feed(noise(100 * MIB)), size=100 * MIB)
    go_on.set()
    await asyncio.gather(*strangers, return_exceptions=True)
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["key"]


async def test_of_two_that_fit_alone_one_hears_that_the_disk_is_full(
    make: Any, tmp_path: Path, enter: Callable[[Any], Path]
) -> None:
    store = await make(enter(mounts.tmpfs(tmp_path / "images", "48m")))
    both = await asyncio.gather(
        *(store.write(f"key-{n}", feed(noise(30 * MIB)), size=30 * MIB) for n in range(2)), return_exceptions=True
    )
    refused = [one for one in both if isinstance(one, BaseException)]
    assert 1 <= len(refused) <= 2
    assert all(isinstance(one, StoreFull) and "is full" in one.message for one in refused)
    assert not [file for file in (tmp_path / "images").iterdir() if file.name.startswith(".")]
    await store.write("after", feed(noise(10 * MIB)), size=10 * MIB)


async def test_a_full_disk(make: Any, tmp_path: Path, enter: Callable[[Any], Path]) -> None:
    place = enter(mounts.tmpfs(tmp_path / "images", "4m"))
    store = await make(place)
    for size, announced in ((8 * MIB, 8 * MIB), (8 * MIB, None)):
        with pytest.raises(StoreFull) as raised:
            await store.write("key", feed(noise(size)), size=announced)
        assert raised.value.status == 413
        assert str(tmp_path) not in raised.value.message
        assert list(place.iterdir()) == []
    asked: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        asked.append(1)
        yield noise(MIB)

    with pytest.raises(StoreFull):
        await store.write("key", source(), size=8 * MIB)
    assert asked == []  # refused before a byte was taken
    (place / "filler").write_bytes(bytes((await store.check()).free or 0))
    with pytest.raises(StoreFull, match=f"df -h {place}"):
        await store.check()
    (place / "filler").unlink()
    await store.write("key", feed(noise(MIB)), size=MIB)


async def told(store: Store, caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Writing is denied without a path, and the log and the check say the same cure."""
    store = wrap(store)
    with pytest.raises(WriteDenied) as raised:
        await store.write("key", feed(b"x"), size=1)
    assert raised.value.status == 503
    assert "/" not in raised.value.message
    assert words in str(raised.value.cure), "what `stores check --deep` shows"
    with pytest.raises(WriteDenied) as checked:
        await store.check()
    assert words in checked.value.message
    assert any(words in record.message for record in caplog.records if record.levelno >= logging.WARNING)


async def test_a_directory_that_is_missing(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await make(tmp_path / "images")
    blob = await store.write("kept", feed(b"x"), size=1)
    (tmp_path / "images").rename(tmp_path / "away")
    await told(store, caplog, f"install -d -o {os.geteuid()} -g {os.getegid()} -m 750 {tmp_path}/images")
    # the data is not gone, it is away: nobody may take that for a deletion
    for call in (store.stat(blob.url), read(store, blob.url), store.delete(blob.url), store.discard("kept")):
        with pytest.raises((StoreUnavailable, WriteDenied)):
            await call
    (tmp_path / "away").rename(tmp_path / "images")
    assert await read(store, blob.url) == b"x"


async def test_a_directory_that_is_none(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").write_text("a file")
    await told(await make(tmp_path / "images"), caplog, "is not a directory")


async def test_a_read_only_mount(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, enter: Callable[[Any], Path]
) -> None:
    store = await make(tmp_path / "images")
    blob = await store.write("kept", feed(b"x"), size=1)
    enter(mounts.read_only(tmp_path / "images"))
    await told(store, caplog, "mount -o remount,rw")
    assert await read(store, blob.url) == b"x"
    with pytest.raises(WriteDenied):
        await store.delete(blob.url)


AS_NOBODY = """
import asyncio, os, sys
from tests.stores.drivers import file_options
from xloud_image.errors import ImageServiceError
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.layers import wrap
from xloud_image.stores.suite import feed

async def main():
    os.setgid(65534)
    os.setuid(65534)
    store = wrap(FileStore("fast", file_options(sys.argv[1])))
    await store.start()
    for call in (store.write("key", feed(b"x"), size=1), store.check()):
        try:
            await call
        except ImageServiceError as error:
            print(type(error).__name__, error.message)

asyncio.run(main())
"""


def test_a_directory_of_another_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        raise Missing("becoming another user needs root")
    (tmp_path / "images").mkdir(mode=0o755)
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o001:
            above.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, tmp_path / "images"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    written, checked = done.stdout.splitlines()
    assert written.startswith("WriteDenied store fast: it takes no data now (permission denied)")
    assert checked == (
        f"WriteDenied store fast: user 65534 may not write in {tmp_path}/images: hand it over with"
        f" 'chown -R 65534:65534 {tmp_path}/images' (and see that each directory above it may be entered)"
    )


async def test_check_tells_the_free_space(make: Any, tmp_path: Path, enter: Callable[[Any], Path]) -> None:
    place = enter(mounts.tmpfs(tmp_path / "images", "16m"))
    assert (await (await make(place)).check()).free == 16 * MIB
    both = await make("/nowhere", datadirs=[(place / "a", 1), (place / "b", 2)])
    assert (await both.check()).free == 16 * MIB  # one file system is counted once


async def test_a_cold_file_is_told_from_a_warm_one(make: Any, tmp_path: Path) -> None:
    store = await make(tmp_path / "images")
    url = (await store.write("key", feed(noise(8 * MIB)), size=8 * MIB)).url
    async with store.open(url) as reader:
        assert reader.file is not None
        assert reader.file.resident(0, 8 * MIB)
        os.posix_fadvise(reader.file.fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(reader.file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert not reader.file.resident(0, MIB)
        await reader.file.warm(0, MIB)
        assert reader.file.resident(0, MIB)
        assert not reader.file.resident(6 * MIB, MIB)


async def test_a_file_that_shrinks_while_it_is_read(make: Any, tmp_path: Path) -> None:
    store = await make(tmp_path / "images")
    url = (await store.write("key", feed(noise(8 * MIB)), size=8 * MIB)).url
    async with store.open(url) as reader:
        await anext(reader.chunks)
        os.truncate(tmp_path / "images" / "key", 3 * MIB)
        with pytest.raises(StoreUnavailable, match="shorter"):
            await collect(reader)


async def test_one_write_needs_two_batches_of_memory(make: Any, tmp_path: Path) -> None:
    store = await make(tmp_path / "images")
    alive = 0
    most = 0

    class Chunk(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def source() -> AsyncIterator[bytes]:
        nonlocal alive, most
        for _ in range(200):
            alive += 1
            most = max(most, alive)
            yield Chunk(262144)

    await store.write("key", source(), size=None)
    assert most <= 2 * 4 + 1  # of 256 KiB each: one batch being written, one being received, the newest chunk


async def test_a_copy_shares_the_blocks_where_the_file_system_can(make: Any, tmp_path: Path, enter: Any) -> None:
    place = enter(mounts.xfs(tmp_path / "images"))
    first, second = await make(place / "first"), await make(place / "second")
    data = noise(32 * MIB)
    blob = await first.write("key", feed(data), size=len(data))
    before = os.statvfs(place)
    copy = await wrap(second).copy("key", wrap(first), blob.url, size=len(data))
    assert copy is not None
    after = os.statvfs(place)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < 4 * MIB
    assert await read(second, copy.url) == data
    await first.delete(blob.url)
    assert await read(second, copy.url) == data


async def test_between_two_file_systems_nothing_is_copied_without_reading(
    make: Any, tmp_path: Path, enter: Any
) -> None:
    first, second = await make(tmp_path / "first"), await make(enter(mounts.tmpfs(tmp_path / "second", "64m")))
    blob = await first.write("key", feed(noise(MIB)), size=MIB)
    assert await second.copy("key", first, blob.url, size=MIB) is None
    assert not list((tmp_path / "second").iterdir())
    with pytest.raises(BlobNotFound):
        await second.copy("key", first, blob.url + "x", size=MIB)


@pytest.mark.parametrize("thin", [False, True])
async def test_a_copy_by_the_kernel_keeps_holes_where_the_store_is_thin(make: Any, tmp_path: Path, thin: bool) -> None:
    first = await make(tmp_path / "first", thin_provisioning=True)
    second = await make(tmp_path / "second", thin_provisioning=thin)
    data = bytes(8 * MIB) + noise(MIB) + bytes(8 * MIB) + noise(1000) + bytes(3 * MIB)
    blob = await first.write("key", feed(data), size=len(data))
    copy = await second.copy("key", first, blob.url, size=len(data))
    assert copy is not None
    assert (tmp_path / "second" / "key").read_bytes() == data
    used = (tmp_path / "second" / "key").stat().st_blocks * 512
    assert used < 2 * MIB if thin else used >= len(data)
