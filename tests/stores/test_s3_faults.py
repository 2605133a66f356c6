"""The s3 store when things go wrong: lost requests, killed writers, a gateway that stands still, is full or busy."""

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.ceph import Ceph
from tests.servers.place import ROOT
from tests.servers.rgw import Rgw
from tests.stores.buckets import Impatient, S3Hooks, boto, new_bucket, s3_options
from tests.stores.meddler import Meddler
from xloud_image.errors import BlobError, BlobNotFound, Gone, StoreFull, StoreUnavailable
from xloud_image.stores.base import Blob
from xloud_image.stores.s3 import upload
from xloud_image.stores.s3.listing import unfinished
from xloud_image.stores.s3.store import S3Store
from xloud_image.stores.suite import MIB, collect, feed, noise

PARTS = {"large_object_size": 0, "large_object_chunk_size": 5, "thread_pools": 3}


class Behind(S3Hooks):
    """What a bucket holds, for tests of their own."""

    __test__ = False

    def __init__(self, rgw: Rgw) -> None:
        self.rgw = rgw
        self.boto = boto(rgw, tls=True)
        self.bucket = new_bucket(rgw, tls=True)


@pytest.fixture
def behind(rgw: Rgw) -> Behind:
    return Behind(rgw)


@pytest.fixture
async def meddler(rgw: Rgw) -> AsyncIterator[Meddler]:
    async with Meddler(rgw.port) as one:
        yield one


@pytest.fixture
async def stores() -> AsyncIterator[list[S3Store]]:
    """Whatever is put in here is closed."""
    made: list[S3Store] = []
    yield made
    for store in made:
        await store.aclose()


def through(meddler: Meddler, behind: Behind, stores: list[S3Store], **given: Any) -> S3Store:
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket, host=meddler.url, **given))
    stores.append(store)
    return store


@pytest.mark.parametrize("fate", ["refuse", "lose"])
@pytest.mark.parametrize("parts", [False, True], ids=["one put", "parts"])
async def test_any_request_of_a_write_may_get_lost(
    fate: str, parts: bool, meddler: Meddler, behind: Behind, stores: list[S3Store]
) -> None:
    """Every single one in turn: the write ends well, with the right bytes and nothing besides."""
    store = through(meddler, behind, stores, **(PARTS if parts else {}))
    data = noise(7 * MIB) if parts else noise(100_000)
    await store.write("first", feed(data), size=None)  # also learns how the gateway compares tags
    meddler.lines.clear()
    await store.write("count", feed(data), size=None)
    requests = len(meddler.lines)
    assert requests >= (8 if parts else 3)
    for lost in range(1, requests + 1):
        meddler.lines.clear()
        meddler.fate = lambda number, line: fate if number == lost else "pass"
        blob = await store.write(f"key-{lost}", feed(data), size=(None, len(data))[lost % 2])
        assert len(meddler.lines) > requests or parts
        assert blob.size == len(data)
        assert await behind.peek(f"key-{lost}") == data
        assert not await behind.leftovers()


async def test_a_part_that_keeps_failing_ends_the_write_and_leaves_nothing(
    meddler: Meddler, behind: Behind, stores: list[S3Store]
) -> None:
    store = through(meddler, behind, stores, **PARTS)
    meddler.fate = lambda number, line: "refuse" if "partNumber=2" in line else "pass"
    with pytest.raises(StoreUnavailable):
        await store.write("key", feed(noise(11 * MIB)), size=None)
    assert sum("partNumber=2" in line for line in meddler.lines) > 3
    assert await behind.peek("key") is None
    assert not await behind.leftovers()


@pytest.mark.parametrize("parts", [False, True], ids=["one put", "parts"])
async def test_bytes_damaged_on_the_way_are_noticed_and_sent_again(
    parts: bool, meddler: Meddler, behind: Behind, stores: list[S3Store]
) -> None:
    store = through(meddler, behind, stores, **(PARTS if parts else {}))
    data = noise(7 * MIB)
    damaged: list[str] = []

    def fate(number: int, line: str) -> str:
        wanted = "partNumber=1" in line if parts else line.startswith("PUT") and number > 2
        if wanted and len(damaged) < 2:
            damaged.append(line)
            return "damage"
        return "pass"

    meddler.fate = fate
    await store.write("key", feed(data), size=len(data))
    assert len(damaged) == 2
    assert await behind.peek("key") == data


async def test_a_read_that_breaks_off_goes_on_where_it_was(
    meddler: Meddler, behind: Behind, stores: list[S3Store]
) -> None:
    store = through(meddler, behind, stores)
    data = noise(40 * MIB)
    await behind.put_behind("key", data)
    url = store.address.location("key")
    meddler.fate = lambda number, line: "break:3000000" if number in (1, 3, 4) else "pass"
    async with store.open(url, offset=5) as reader:
        assert await collect(reader) == data[5:]
    assert len(meddler.lines) == 3 + 3


async def test_an_object_that_changes_while_it_is_read_is_noticed(
    meddler: Meddler, behind: Behind, stores: list[S3Store]
) -> None:
    store = through(meddler, behind, stores)
    data = noise(20 * MIB)
    await behind.put_behind("key", data)
    meddler.fate = lambda number, line: "break:1000000" if number == 1 else "pass"
    async with store.open(store.address.location("key")) as reader:
        assert await anext(reader.chunks)
        await behind.put_behind("key", noise(20 * MIB, 1))
        with pytest.raises(BlobError, match="changed"):
            await collect(reader)


async def test_a_read_that_stands_still_ends(meddler: Meddler, behind: Behind, stores: list[S3Store]) -> None:
    store = through(meddler, behind, stores)
    await behind.put_behind("key", noise(MIB))
    meddler.fate = lambda number, line: "stall"
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        async with store.open(store.address.location("key")) as reader:
            await collect(reader)
    assert time.monotonic() - begun < quiet(2 * store.PATIENCE)


async def test_a_part_that_meets_silence_is_sent_once_more(
    meddler: Meddler, behind: Behind, stores: list[S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(meddler, behind, stores, **PARTS)
    store._client.patience = 1.5
    once: list[str] = []

    def fate(number: int, line: str) -> str:
        if "partNumber=1" in line and not once:
            once.append(line)
            return "stall"
        return "pass"

    meddler.fate = fate
    await store.write("key", feed(noise(7 * MIB)), size=None)
    assert once
    assert await behind.peek("key") == noise(7 * MIB)


WRITER = """
    import asyncio, json, sys
    from xloud_image.stores.s3.store import S3Store

    async def source(count, pause_after):
        chunk = bytes(range(256)) * 1024
        for number in range(count):
            if number == pause_after:
                print("half", flush=True)
                await asyncio.sleep(600)
            yield chunk

    async def main(options, key, count, pause_after):
        store = S3Store("cold", options)
        before = memory()
        blob = await store.write(key, source(count, pause_after), size=None)
        print(json.dumps({"size": blob.size, "grown": memory() - before}), flush=True)
        await store.aclose()

    def memory():
        text = open("/proc/self/status").read()
        return int(text.partition("VmHWM:")[2].split()[0]) * 1024

    asyncio.run(main(*json.loads(sys.argv[1])))
"""


def writer(*words: Any) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(WRITER), json.dumps(words)]


async def test_a_killed_writer_leaves_what_discard_finds_by_the_key(behind: Behind, stores: list[S3Store]) -> None:
    options = s3_options(behind.rgw, behind.bucket, large_object_chunk_size=5)
    with subprocess.Popen(writer(options, "key", 200, 100), stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    left = await behind.leftovers()
    assert left == ["upload of key", "claim of key"]
    store = Impatient("cold", options)
    stores.append(store)
    await store.discard("key")
    assert not await behind.leftovers()
    assert await behind.peek("key") is None
    assert (await store.write("key", feed(b"again"), size=5)).size == 5


def test_memory_is_bounded_for_a_gibibyte_of_unknown_size(behind: Behind) -> None:
    """Four parts of 8 MiB in flight and one gathered; a third more for what Python and the sockets need."""
    options = s3_options(behind.rgw, behind.bucket, large_object_chunk_size=8, thread_pools=4)
    done = subprocess.run(
        writer(options, "key", 4096, -1), capture_output=True, text=True, check=True, cwd=ROOT, timeout=150
    )
    seen = json.loads(done.stdout)
    assert seen["size"] == 1 << 30
    assert seen["grown"] < 5 * 8 * MIB * 4 / 3
    head = behind.boto.head_object(Bucket=behind.bucket, Key="key")
    assert head["ContentLength"] == 1 << 30
    behind.boto.delete_object(Bucket=behind.bucket, Key="key")


async def test_discard_wins_against_a_writer_in_parts(behind: Behind, stores: list[S3Store]) -> None:
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket, **PARTS))
    stores.append(store)
    go, here = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield noise(6 * MIB)
        here.set()
        await go.wait()
        yield noise(6 * MIB)

    running = asyncio.ensure_future(store.write("key", source(), size=None))
    await here.wait()
    while "upload of key" not in await behind.leftovers():
        await asyncio.sleep(0.05)
    await store.discard("key")
    go.set()
    with pytest.raises(Gone):
        await running
    assert not await behind.leftovers()
    assert await behind.peek("key") is None


async def test_uploads_are_found_beyond_the_first_page(behind: Behind, stores: list[S3Store]) -> None:
    for key in ("ke", "key", "key", "key", "key", "key", "key.x", "key2"):
        behind.boto.create_multipart_upload(Bucket=behind.bucket, Key=key)
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket))
    stores.append(store)
    for page in (1, 2, 5, 1000):
        assert len(set(await unfinished(store._client, "key", page=page))) == 5
    await store.discard("key")
    assert sorted(await behind.leftovers()) == ["upload of ke", "upload of key.x", "upload of key2"]


async def test_what_lies_in_the_bucket(behind: Behind, stores: list[S3Store]) -> None:
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket))
    stores.append(store)
    await behind.leave_behind("claimed")
    for key in ("d", "b", "a"):
        await behind.put_behind(key, key.encode() * 32)
    assert await store.keys(100) == ["a", "b", "d"]
    assert await store.keys(2) == ["a", "b"]


async def test_a_gateway_that_stands_still_in_the_middle(behind: Behind, stores: list[S3Store]) -> None:
    """The write and the read end in time; thawed, all is as it was before, without a new start."""
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket, **PARTS))
    stores.append(store)
    store._client.patience = 1.0
    await behind.put_behind("old", noise(40 * MIB))
    frozen = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal frozen
        yield noise(6 * MIB)
        while "upload of key" not in await behind.leftovers():
            await asyncio.sleep(0.05)
        behind.rgw.freeze()
        frozen = True
        yield noise(30 * MIB)

    try:
        async with store.open(store.address.location("old")) as reader:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.write("key", source(), size=None)
            with pytest.raises(StoreUnavailable):
                await collect(reader)
            assert frozen
            assert time.monotonic() - begun < quiet(15)
    finally:
        behind.rgw.thaw()
    store._client.patience = 10.0
    await store.discard("key")
    assert not await behind.leftovers()
    blob = await store.write("key", feed(noise(6 * MIB)), size=None)
    assert await behind.peek("key") == noise(6 * MIB)
    await store.delete(blob.url)


async def test_a_full_bucket(behind: Behind, stores: list[S3Store]) -> None:
    behind.rgw.set_quota(behind.bucket, 10 * MIB)
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket, large_object_chunk_size=5, thread_pools=1))
    stores.append(store)
    await store.write("fits", feed(noise(MIB)), size=MIB)
    for size in (40 * MIB, None):  # the gateway counts what is finished, so a part or two too many may pass
        with pytest.raises(StoreFull):
            await store.write("large", feed(noise(40 * MIB)), size=size)
        assert not await behind.leftovers()
    with pytest.raises(BlobNotFound):
        await store.stat(store.address.location("large"))
    assert (await store.check()).free in range(10 * MIB)


class TestItsOwnGateway:
    """What cannot be done to a gateway that others use."""

    @pytest.fixture
    def own(self, ceph: Ceph) -> Iterator[Rgw]:
        # few requests at a time, so that more are told to slow down
        gateway = Rgw(ceph, extra="rgw_max_concurrent_requests = 2")
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.close()

    async def test_slow_down_stop_and_return(self, own: Rgw, stores: list[S3Store]) -> None:
        behind = Behind(own)
        store = Impatient("cold", s3_options(own, behind.bucket, **(PARTS | {"thread_pools": 12})))
        stores.append(store)
        # told to slow down, it does
        busy = asyncio.Event()
        asked = store._client.ask

        async def ask(*words: Any, **how: Any) -> Any:
            answer = await asked(*words, **how)
            if answer.code == "SlowDown":
                busy.set()
            return answer

        store._client.ask = ask  # type: ignore[method-assign]
        for _ in range(10):  # where the processor is busy with others, too few requests may be under way at once
            blob = await store.write("key", feed(noise(60 * MIB)), size=None)
            if busy.is_set():
                break
            await store.delete(blob.url)
        assert busy.is_set()
        assert await behind.peek("key") == noise(60 * MIB)
        # gone and back
        own.stop()
        begun = time.monotonic()
        for call in (store.check(), store.stat(blob.url), store.discard("no"), store.delete(blob.url)):
            with pytest.raises(StoreUnavailable):
                await call
        assert time.monotonic() - begun < quiet(2)
        own.start()
        async with store.open(blob.url) as reader:
            assert await collect(reader) == noise(60 * MIB)
        await store.delete(blob.url)
        assert not await behind.leftovers()


async def test_a_copy_goes_in_parts_and_what_the_server_refuses_is_read(
    behind: S3Hooks, stores: list[S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "COPIED", 5 * MIB)
    store = Impatient("cold", s3_options(behind.rgw, behind.bucket, **PARTS))
    stores.append(store)
    data = noise(12 * MIB + 5)
    url = await behind.put_behind("old", data)
    copy = await store.copy("new", store, url, size=len(data))
    assert copy is not None
    assert await behind.peek("new") == data
    assert (copy.version or "").endswith("-3"), "three parts"
    gone = store.address.location("gone")
    with pytest.raises(BlobNotFound):
        await store.copy("other", store, gone, size=5)
    elsewhere = Impatient("far", s3_options(behind.rgw, "no-such-bucket", **PARTS))
    stores.append(elsewhere)
    monkeypatch.setattr(type(elsewhere), "stat", lambda *_, **__: asyncio.sleep(0, Blob("x", 5)))
    assert await store.copy("other", elsewhere, elsewhere.address.location("old"), size=5) is None
    assert await behind.peek("other") is None
    assert not await behind.leftovers()
