"""The conformance suite of the Store contract: each promise of `stores.base` as a test. No backend here.

It needs pytest, pytest-asyncio (asyncio_mode = auto) and hypothesis; nothing else of the package imports this module.

A driver, also one outside this package, proves itself so (and once more with `make` returning `wrap(store)`):

    class TestMine(StoreSuite):
        async def make(self):                  # a new store object, not yet started; called again for a second process
            return MineStore("mine", {...})
        async def peek(self, key):             # the finished bytes under `key`, read behind the store's back, or None
            ...
        async def put_behind(self, key, data):    # put a finished blob there behind the store's back; its URL
            ...
        async def leftovers(self):             # names of all unfinished things in the backend: parts, drafts, volumes
            ...
        async def leave_behind(self, key):     # what a process killed in the middle of a write leaves; True if anything
            ...

`self.tmp` is a fresh directory of the test, `self.store` the started store. A store that takes no data derives from
`ReadOnlySuite` and needs `make` and `put_behind` only. Reading is tested against what was put there behind the store's
back, writing against what is seen there, so a fault in one cannot hide a fault in the other. Further hooks have
defaults: `hold`, `hang`, `handles`, `SHARED`, `SECRETS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xloud_image.errors import (
    AlreadyExists,
    BadRange,
    BadRequest,
    BlobNotFound,
    ImageServiceError,
    InUse,
    StoreUnavailable,
    Unsupported,
)
from xloud_image.stores.base import Blob, Can, Health, Reader, Store

MIB = 1 << 20
SIZE = 3 * MIB + 12345  # several batches and a rest
EDGES = sorted({max(0, near + step) for near in (0, 65536, MIB, 2 * MIB, SIZE) for step in (-1, 0, 1)} - {SIZE + 1})


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no two seeds share."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


def zeros(size: int, seed: int = 0) -> bytes:
    """Nothing but zeros."""
    return bytes(size)


def patches(size: int, seed: int = 0) -> bytes:
    """Stretches of zeros and of noise in turn, of many lengths and at odd places."""
    dice, parts, total = random.Random(seed), list[bytes](), 0  # noqa: S311 - no secret
    while total < size:
        length = dice.choice((1, 511, 4096, 5000, 65536, 70000, 262144))
        parts.append(bytes(length) if len(parts) % 2 else dice.randbytes(length))
        total += length
    return b"".join(parts)[:size]


async def feed(data: bytes, chunk: int = 262144, *, error: BaseException | None = None, pause: float = 0) -> Any:
    """The data in chunks; then `error` instead of the end; `pause` seconds before each chunk."""
    for start in range(0, len(data), chunk):
        await asyncio.sleep(pause)
        yield data[start : start + chunk]
    if error is not None:
        raise error


async def collect(reader: Reader) -> bytes:
    """All chunks of a reader."""
    return b"".join([chunk async for chunk in reader.chunks])


class Suite:
    """What every store promises to readers, and the hooks."""

    SHARED: ClassVar[bool] = True  # a second store object sees the same data
    SECRETS: ClassVar[Sequence[str]] = ()  # of the configuration; none may appear in a URL or in `facts`
    BOUND: ClassVar[float] = 10.0  # seconds within which a hanging store has to answer

    store: Store
    tmp: Path

    async def make(self) -> Store:
        raise NotImplementedError

    async def put_behind(self, key: str, data: bytes) -> str:
        raise NotImplementedError

    async def leftovers(self) -> list[str]:
        return []

    def hang(self) -> contextlib.AbstractAsyncContextManager[None] | None:
        """While entered the backend does not answer. None: cannot be arranged."""
        return None

    def handles(self) -> int:
        """Open handles of the store: by default the open files of the process."""
        return len(os.listdir("/proc/self/fd"))

    @pytest.fixture
    def prepared(self) -> None:
        """To be overridden where something has to be there before `make` and until after `aclose`."""

    @pytest.fixture(autouse=True)
    async def opened(self, tmp_path: Path, prepared: None) -> AsyncIterator[None]:
        self.tmp = tmp_path
        before = self.handles()
        self.store = await self.make()
        await self.store.start()
        yield
        left = await self.leftovers()
        await self.store.aclose()
        end = time.monotonic() + 2
        while (now := self.handles()) > before and time.monotonic() < end:  # noqa: ASYNC110 - a count, no event
            await asyncio.sleep(0.02)
        assert not left, f"left behind: {left}"
        assert now <= before, f"{now - before} handles are still open"

    async def read(self, url: str, **where: Any) -> bytes:
        async with self.store.open(url, **where) as reader:
            return await collect(reader)

    async def test_usable(self) -> None:
        assert isinstance(await self.store.check(), Health)
        json.dumps(dict(self.store.facts))
        assert not any(secret in json.dumps(dict(self.store.facts)) for secret in self.SECRETS)

    async def test_reads_what_is_there(self) -> None:
        for number, size in enumerate((0, 1, 65536, MIB, SIZE)):
            data = noise(size, number)
            url = await self.put_behind(f"blob-{number}", data)
            assert self.store.owns(url)
            assert await self.store.size(url) == size
            async with self.store.open(url) as reader:
                assert reader.size == size
                assert await collect(reader) == data

    async def test_owns_nothing_else(self) -> None:
        for url in ("", "nothing", "unknown://a/b", f"{self.store.SCHEMES[0]}://", "file:///etc/passwd"):
            assert not self.store.owns(url)

    async def test_missing_is_not_found_at_entry(self) -> None:
        url = (await self.put_behind("present", b"x")).replace("present", "absent")
        with pytest.raises(BlobNotFound):
            await self.store.size(url)
        with pytest.raises(BlobNotFound):
            async with self.store.open(url):
                pytest.fail("entered")

    # hypothesis runs one test object of each subclass through many examples, on purpose
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        offset=st.one_of(st.sampled_from(EDGES[:-1]), st.integers(0, SIZE - 1)),
        length=st.one_of(st.none(), st.sampled_from(EDGES), st.integers(0, 2 * SIZE)),
    )
    async def test_every_range(self, offset: int, length: int | None) -> None:
        data = noise(SIZE)
        if not hasattr(self, "_ranged"):
            self._ranged = await self.put_behind("ranged", data)
        async with self.store.open(self._ranged, offset=offset, length=length) as reader:
            assert reader.size in {SIZE, None}
            expected = data[offset:] if length is None else data[offset : offset + length]
            assert await collect(reader) == expected

    async def test_past_the_end_is_a_bad_range_at_entry(self) -> None:
        url, empty = await self.put_behind("short", b"12345"), await self.put_behind("empty", b"")
        for blob, where in ((url, 5), (url, 6), (url, 1 << 62), (url, -1), (empty, 1)):
            with pytest.raises(BadRange):
                async with self.store.open(blob, offset=where):
                    pytest.fail("entered")
        assert await self.read(empty, offset=0) == b""
        assert await self.read(url, offset=4, length=100) == b"5"

    @pytest.mark.parametrize("leave", ["at once", "after a chunk", "by an error", "cancelled"])
    async def test_leaving_early_closes(self, leave: str) -> None:
        url = await self.put_behind("blob", noise(SIZE))
        assert len(await self.read(url, length=10)) == 10  # connections that stay open are open now
        before = self.handles()
        reached = asyncio.Event()

        async def use() -> None:
            async with self.store.open(url) as reader:
                if leave != "at once":
                    await anext(reader.chunks)
                reached.set()
                if leave == "by an error":
                    raise LookupError
                if leave == "cancelled":
                    await asyncio.sleep(60)
            assert self.handles() == before

        task = asyncio.ensure_future(use())
        await asyncio.wait((task, asyncio.ensure_future(reached.wait())), return_when=asyncio.FIRST_COMPLETED)
        if leave == "cancelled":
            task.cancel()
        with contextlib.suppress(LookupError, asyncio.CancelledError):
            await task
        assert self.handles() == before

    async def test_many_readers_at_once(self) -> None:
        blobs = {await self.put_behind(f"blob-{n}", noise(MIB + n, n)): noise(MIB + n, n) for n in range(8)}
        found = await asyncio.gather(*(self.read(url) for url in blobs for _ in range(3)))
        assert found == [data for data in blobs.values() for _ in range(3)]

    async def test_a_file_can_be_sent(self) -> None:
        data = noise(SIZE)
        url = await self.put_behind("blob", data)
        async with self.store.open(url, offset=100, length=MIB) as reader:
            if reader.file is None:
                return
            file = reader.file
            assert (file.offset, file.length) == (100, MIB)
            await file.warm(file.offset, file.length)
            assert file.resident(file.offset, file.length)
            assert os.pread(file.fd, file.length, file.offset) == data[100 : 100 + MIB]

    async def test_a_hanging_store_answers_in_time(self) -> None:
        url = await self.put_behind("blob", noise(SIZE))
        hanging = self.hang()
        if hanging is None:
            pytest.skip("this backend cannot be made to hang here")
        async with hanging:
            calls = [self.store.check(), self.store.size(url), self.read(url)]
            if Can.WRITE in self.store.can:
                calls += [self.store.write("other", feed(b"x"), size=1), self.store.discard("other")]
            begun = time.monotonic()
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, StoreUnavailable)
                assert error.temporary
            assert time.monotonic() - begun < self.BOUND
        assert len(await self.read(url)) == SIZE


class ReadOnlySuite(Suite):
    """A store without `Can.WRITE` says so in each call as well."""

    async def test_takes_no_data(self) -> None:
        assert Can.WRITE not in self.store.can
        url = await self.put_behind("kept", b"x")
        for call in (
            self.store.write("key", feed(b"x"), size=1),
            self.store.discard("kept"),
            self.store.delete(url),
        ):
            with pytest.raises(Unsupported):
                await call
        assert await self.read(url) == b"x"


class StoreSuite(Suite):
    """What a store with `Can.WRITE` promises besides."""

    async def peek(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def leave_behind(self, key: str) -> bool:
        raise NotImplementedError

    def hold(self, url: str) -> contextlib.AbstractAsyncContextManager[None] | None:
        """While entered something depends on the blob (a clone, a snapshot). None: the backend has no such thing."""
        return None

    async def clean(self, key: str) -> None:
        """Nothing is there under `key`, and it can be written again."""
        assert await self.peek(key) is None
        assert not await self.leftovers()
        blob = await self.store.write(key, feed(b"again"), size=5)
        assert await self.peek(key) == b"again"
        await self.store.delete(blob.url)

    async def test_the_flag(self) -> None:
        assert Can.WRITE in self.store.can

    @pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
    async def test_writes_what_it_is_given(self, known: bool) -> None:
        cases = [(noise, size, 262144) for size in EDGES] + [(noise, 3000, 1), (noise, SIZE, 70001)]
        cases += [(patches, SIZE, chunk) for chunk in (4096, 70001, 262144, 2 * MIB)]
        cases += [(zeros, size, 262144) for size in (1, 65536, SIZE)]
        for number, (make, size, chunk) in enumerate(cases):
            data, key = make(size, number), f"blob-{number}"
            blob = await self.store.write(key, feed(data, chunk), size=size if known else None)
            assert isinstance(blob, Blob)
            assert blob.size == size
            assert await self.peek(key) == data
            assert self.store.owns(blob.url)
            assert await self.read(blob.url) == data
            await self.store.delete(blob.url)

    async def test_empty_chunks_mean_nothing(self) -> None:
        async def source() -> AsyncIterator[bytes]:
            for chunk in (b"", b"a", b"", b"b", b""):
                yield chunk

        await self.store.write("key", source(), size=2)
        assert await self.peek("key") == b"ab"

    async def test_no_secret_in_a_url(self) -> None:
        url = (await self.store.write("key", feed(b"x"), size=1)).url
        assert "@" not in urlsplit(url).netloc
        assert not any(secret in url for secret in self.SECRETS)

    async def test_outlives_the_process(self) -> None:
        url = (await self.store.write("key", feed(noise(SIZE)), size=None)).url
        if not self.SHARED:
            pytest.skip("this store is the memory of one process")
        second = await self.make()
        await second.start()
        try:
            async with second.open(url) as reader:
                assert await collect(reader) == noise(SIZE)
            await second.delete(url)
        finally:
            await second.aclose()
        assert await self.peek("key") is None

    async def test_a_taken_key_stays(self) -> None:
        await self.put_behind("old", b"old bytes")
        await self.store.write("new", feed(b"new bytes"), size=9)
        for key, data in (("old", b"old bytes"), ("new", b"new bytes")):
            for size in (5, None):
                with pytest.raises(AlreadyExists):
                    await self.store.write(key, feed(b"other"), size=size)
            assert await self.peek(key) == data
            assert not await self.leftovers()

    async def test_one_key_at_once_has_one_winner(self) -> None:
        for turn in range(10):
            key, data = f"key-{turn}", [noise(MIB + 7, n) for n in range(4)]
            ends = await asyncio.gather(
                *(self.store.write(key, feed(one), size=len(one)) for one in data), return_exceptions=True
            )
            won = [number for number, end in enumerate(ends) if isinstance(end, Blob)]
            assert len(won) == 1, ends
            assert sum(isinstance(end, AlreadyExists) for end in ends) == 3, ends
            assert await self.peek(key) == data[won[0]]
            assert not await self.leftovers()

    async def test_several_at_once_and_big_then_small(self) -> None:
        sizes = [SIZE, 10, MIB, 0, 2 * MIB + 1, 1]
        for known in (True, False):
            for size in sizes[:2]:
                blob = await self.store.write("one", feed(noise(size)), size=size if known else None)
                assert await self.peek("one") == noise(size)
                await self.store.delete(blob.url)
            writes = (
                self.store.write(f"{known}-{n}", feed(noise(size, n)), size=size if known else None)
                for n, size in enumerate(sizes)
            )
            await asyncio.gather(*writes)
            for number, size in enumerate(sizes):
                assert await self.peek(f"{known}-{number}") == noise(size, number)

    @pytest.mark.parametrize("announced", [0, 1, SIZE - 1, SIZE + 1, SIZE + MIB])
    async def test_another_size_than_announced(self, announced: int) -> None:
        with pytest.raises(BadRequest):
            await self.store.write("key", feed(noise(SIZE)), size=announced)
        await self.clean("key")

    @pytest.mark.parametrize("after", [0, 1, 262144, MIB, SIZE])
    @pytest.mark.parametrize("error", [LookupError("gone"), ConnectionResetError(104, "reset"), BadRequest("no")])
    async def test_an_error_of_the_source_passes_through(self, error: Exception, after: int) -> None:
        for size in (SIZE, None):
            with pytest.raises(type(error)) as raised:
                await self.store.write("key", feed(noise(after), error=error), size=size)
            assert raised.value is error
            await self.clean("key")

    async def test_cancelled_at_any_moment_leaves_nothing(self) -> None:
        data = noise(SIZE)
        begun = time.monotonic()
        await self.store.write("whole", feed(data), size=SIZE)
        whole = time.monotonic() - begun
        moments = [whole * step / 30 for step in range(32)]
        for number in range(64):
            key, turns = f"key-{number}", number // 2
            task = asyncio.ensure_future(self.store.write(key, feed(data), size=(None, SIZE)[number % 2]))
            if number % 4 < 2:
                await asyncio.sleep(moments[turns])
            else:
                for _ in range(turns):
                    await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                assert await self.peek(key) is None
                assert not await self.leftovers()
            else:
                assert await self.peek(key) == data
        await self.clean("another")

    async def test_discard_takes_all_and_may_be_repeated(self) -> None:
        await self.store.discard("never")
        await self.store.write("key", feed(b"x"), size=1)
        for near in ("key2", "key.x", "key-1"):
            await self.put_behind(near, b"near")
        for _ in range(2):
            await self.store.discard("key")
            assert await self.peek("key") is None
        for near in ("key2", "key.x", "key-1"):
            assert await self.peek(near) == b"near"
        await self.clean("key")

    async def test_discard_takes_what_a_killed_process_left(self) -> None:
        if not await self.leave_behind("key"):
            pytest.skip("nothing of a killed process stays in this backend")
        assert await self.leftovers()
        await self.store.discard("key")
        await self.clean("key")

    @pytest.mark.parametrize("other", [False, True], ids=["same process", "other process"])
    async def test_discard_against_a_running_writer(self, other: bool) -> None:
        if other and not self.SHARED:
            pytest.skip("this store is the memory of one process")
        store = await self.make() if other else self.store
        await store.start()
        go, here = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield noise(MIB)
            yield noise(MIB)
            here.set()
            await go.wait()
            yield noise(MIB)

        running = asyncio.ensure_future(self.store.write("key", source(), size=3 * MIB))
        near = asyncio.ensure_future(self.store.write("key.x", feed(noise(SIZE), pause=0.01), size=SIZE))
        await here.wait()
        await store.discard("key")
        go.set()
        with pytest.raises(ImageServiceError):
            await running
        await near
        assert await self.peek("key.x") == noise(SIZE)
        await self.clean("key")
        if other:
            await store.aclose()

    async def test_delete(self) -> None:
        url = (await self.store.write("key", feed(b"x"), size=1)).url
        await self.store.delete(url)
        assert await self.peek("key") is None
        with pytest.raises(BlobNotFound):
            await self.store.delete(url)
        with pytest.raises(BlobNotFound):
            await self.store.size(url)

    async def test_what_is_in_use_is_not_harmed(self) -> None:
        url = (await self.store.write("key", feed(b"data"), size=4)).url
        held = self.hold(url)
        if held is None:
            pytest.skip("nothing can depend on a blob of this backend")
        async with held:
            with pytest.raises(InUse):
                await self.store.delete(url)
            assert await self.read(url) == b"data"
        await self.store.delete(url)

    @pytest.mark.parametrize(
        "key", ["", ".", "..", "../up", "a/b", "/abs", ".hidden", "a\0b", "a\nb", "x" * 300, "%2e"]
    )
    async def test_a_key_that_is_no_name(self, key: str) -> None:
        with pytest.raises(BadRequest):
            await self.store.write(key, feed(b"x"), size=1)
        with pytest.raises(BadRequest):
            await self.store.discard(key)
