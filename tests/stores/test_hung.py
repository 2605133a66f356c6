"""A file system that hangs (a stopped FUSE server) holds up nothing but its own calls, and those not for long."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.place import ROOT
from tests.stores.drivers import file_options
from tests.stores.mounts import Hangable
from xloud_image.config.settings import StoreSettings
from xloud_image.errors import StoreUnavailable
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.layers import LayerSettings
from xloud_image.stores.registry import Stores
from xloud_image.stores.suite import MIB, collect, feed, noise

LIMIT = 1  # filesystem_store_timeout


@pytest.fixture
async def make(hangable: Hangable) -> AsyncIterator[Callable[..., Any]]:
    """Stores on the mount, and anywhere else."""
    made: list[FileStore] = []

    async def one(directory: Path = hangable.target, **given: Any) -> FileStore:
        made.append(FileStore("slow", file_options(directory, **{"store_timeout": LIMIT, **given})))
        await made[-1].start()
        return made[-1]

    yield one
    hangable.go_on()
    for store in made:
        await store.aclose()


async def seconds_until_unavailable(call: Any) -> float:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    return time.monotonic() - begun


async def all_back(store: FileStore) -> None:
    while store._threads.busy:
        await asyncio.sleep(0.01)


async def test_the_loop_and_other_stores_go_on(make: Any, hangable: Hangable, tmp_path: Path) -> None:
    slow, good = await make(), await make(tmp_path / "good")
    url = (await slow.write("key", feed(noise(MIB)), size=MIB)).url
    hangable.stop()
    gaps = [0.0]

    async def tick() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - begun)

    ticking = asyncio.ensure_future(tick())
    hung = [asyncio.ensure_future(seconds_until_unavailable(slow.stat(url))) for _ in range(5)]
    begun, turns = time.monotonic(), 0
    while time.monotonic() - begun < LIMIT / 2:
        blob = await good.write("key", feed(noise(MIB)), size=MIB)
        await good.delete(blob.url)
        turns += 1
    for took in await asyncio.gather(*hung):
        assert LIMIT * 0.9 < took < LIMIT + 1
    ticking.cancel()
    assert turns > 3
    assert max(gaps) < 0.5
    assert [file.name for file in (tmp_path / "good").iterdir()] == []


async def test_a_download_that_gets_stuck(make: Any, hangable: Hangable) -> None:
    store = await make()
    url = (await store.write("key", feed(noise(16 * MIB)), size=16 * MIB)).url
    with open(hangable.target / "key", "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = len(os.listdir("/proc/self/fd"))

    async def download() -> None:
        async with store.open(url) as reader:
            assert reader.file is None  # the loop would hang in sendfile
            await anext(reader.chunks)
            hangable.stop()
            await collect(reader)

    assert await seconds_until_unavailable(download()) < 3 * LIMIT + 1
    hangable.go_on()
    await all_back(store)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("after", [0, 1, 8])
async def test_an_upload_that_gets_stuck_is_cleaned_when_the_server_is_back(
    make: Any, hangable: Hangable, after: int
) -> None:
    store = await make()

    async def source() -> AsyncIterator[bytes]:
        for number in range(64):
            if number == after:
                hangable.stop()
            yield noise(262144, number)

    if after:
        assert await seconds_until_unavailable(store.write("key", source(), size=None)) < 3 * LIMIT + 1
    else:
        hangable.stop()
        assert await seconds_until_unavailable(store.write("key", feed(b"x"), size=1)) < 3 * LIMIT + 1
    hangable.go_on()
    await all_back(store)
    assert list(hangable.target.iterdir()) == []
    await store.write("key", feed(b"x"), size=1)


async def test_when_all_threads_are_stuck_the_answer_comes_at_once(make: Any, hangable: Hangable) -> None:
    store = await make(store_thread_pool_size=2)
    url = (await store.write("key", feed(b"x"), size=1)).url
    hangable.stop()
    await asyncio.gather(*(seconds_until_unavailable(store.stat(url)) for _ in range(2)))
    assert await seconds_until_unavailable(store.stat(url)) < 0.1
    assert await seconds_until_unavailable(store.write("other", feed(b"x"), size=1)) < 0.1
    hangable.go_on()
    await all_back(store)
    assert (await store.stat(url)).size == 1


async def test_busy_threads_are_told(make: Any, hangable: Hangable, caplog: pytest.LogCaptureFixture) -> None:
    store = await make(store_thread_pool_size=4, store_threadpool_threshold=50)
    hangable.stop()
    await asyncio.gather(*(seconds_until_unavailable(store.stat(f"file://{hangable.target}/x")) for _ in range(4)))
    await seconds_until_unavailable(store.stat(f"file://{hangable.target}/x"))
    await seconds_until_unavailable(store.stat(f"file://{hangable.target}/x"))
    told = [record.message for record in caplog.records if "threads are busy" in record.message]
    assert len(told) == 1  # not once for each call


async def test_closing_a_hung_store(make: Any, hangable: Hangable) -> None:
    store = await make()
    hangable.stop()
    await seconds_until_unavailable(store.check())
    begun = time.monotonic()
    await store.aclose()
    assert time.monotonic() - begun < quiet(4)


async def test_without_a_limit_of_the_operator_the_layers_answer(hangable: Hangable, tmp_path: Path) -> None:
    settings = [
        StoreSettings("slow", "file", options=file_options(hangable.target)),
        StoreSettings("good", "file", options=file_options(tmp_path / "good")),
    ]
    stores = Stores(settings, "good", layers=LayerSettings(store_timeout=0.5))
    await stores.start()
    url = (await stores["slow"].write("key", feed(b"x"), size=1)).url
    hangable.stop()
    assert await seconds_until_unavailable(stores["slow"].stat(url)) < 1

    async def first_byte() -> None:
        async with stores["slow"].open(url) as reader:
            await collect(reader)

    assert await seconds_until_unavailable(first_byte()) < 1
    begun = time.monotonic()
    found = await stores.sick(timeout=0.5)
    assert time.monotonic() - begun < quiet(1)
    assert found.keys() == {"slow"}
    assert "0.5 seconds" in found["slow"]
    await stores["good"].write("key", feed(b"x"), size=1)
    hangable.go_on()
    await stores.aclose()


HANG_AND_EXIT = """
import asyncio, sys
from tests.stores.drivers import file_options
from xloud_image.errors import StoreUnavailable
from xloud_image.stores.file.store import FileStore

async def main():
    store = FileStore("slow", file_options(sys.argv[1], store_timeout=1))
    try:
        await store.check()
    except StoreUnavailable as error:
        print(error.message)
    await store.aclose()

asyncio.run(main())
"""


def test_the_process_ends_although_a_thread_hangs(hangable: Hangable) -> None:
    hangable.stop()
    done = subprocess.run(
        [sys.executable, "-c", HANG_AND_EXIT, hangable.target],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "does not answer" in done.stdout
