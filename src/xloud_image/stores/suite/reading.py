"""The hooks of a driver, and what every store promises to readers. Promises about writing: `writing`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xloud_image.errors import (
    BadRange,
    BlobNotFound,
    StoreUnavailable,
    Unsupported,
)
from xloud_image.stores.base import Can, Health, Reader, Store

MIB = 1 << 20
SIZE = 3 * MIB + 12345  # several batches and a rest
T = TypeVar("T")
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


def cases(names: str, every: Sequence[Any], *, slow: Sequence[Any]) -> Callable[[T], T]:
    """Parameters of a test, as `pytest.mark.parametrize` has them: a store that is SLOW gets those of `slow`."""

    def mark(test: T) -> T:
        test.cases = (names, every, slow)  # type: ignore[attr-defined]
        return test

    return mark


# hypothesis runs one test object of each subclass through many examples, on purpose
def _every_range(examples: int) -> Any:
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        offset=st.one_of(st.sampled_from(EDGES[:-1]), st.integers(0, SIZE - 1)),
        length=st.one_of(st.none(), st.sampled_from(EDGES), st.integers(0, 2 * SIZE)),
    )
    async def test_every_range(self: Suite, offset: int, length: int | None) -> None:
        data = noise(SIZE)
        if not hasattr(self, "_ranged"):
            self._ranged = await self.put_behind("ranged", data)
        async with self.store.open(self._ranged, offset=offset, length=length) as reader:
            assert reader.size in {SIZE, None}
            expected = data[offset:] if length is None else data[offset : offset + length]
            assert await collect(reader) == expected

    return test_every_range


class Suite:
    """What every store promises to readers, and the hooks."""

    # one write or one read takes seconds: a promise is tried on fewer cases, still on one of each kind
    SLOW: ClassVar[bool] = False
    TIMEOUT: ClassVar[float | None] = None  # seconds for one test, by pytest-timeout; None: as the session has it
    SECRETS: ClassVar[Sequence[str]] = ()  # of the configuration; none may appear in a URL or in `facts`
    BOUND: ClassVar[float] = 10.0  # seconds within which a hanging store has to answer
    # tests that make no sense for this backend, each with the reason; they are not collected
    NOT_APPLICABLE: ClassVar[Mapping[str, str]] = {}

    store: Store
    tmp: Path
    _ranged: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.SLOW and cls.test_every_range is Suite.test_every_range:
            cls.test_every_range = _every_range(12)
        if "TIMEOUT" in vars(cls) and cls.TIMEOUT is not None:
            cls.pytestmark = [pytest.mark.timeout(cls.TIMEOUT)]  # type: ignore[attr-defined]
        for name, reason in cls.NOT_APPLICABLE.items():
            assert hasattr(cls, name), f"the suite has no {name}"
            assert reason
            setattr(cls, name, None)

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

    def pick(self, every: Sequence[T], slow: Sequence[T]) -> Sequence[T]:
        """The cases of a test: every one, or those for a store that is SLOW."""
        return slow if self.SLOW else every

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        names, *which = getattr(metafunc.function, "cases", ("",))
        if names:
            metafunc.parametrize(names, which[self.SLOW])

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
        for number, size in enumerate(self.pick((0, 1, 65536, MIB, SIZE), (0, SIZE))):
            data = noise(size, number)
            url = await self.put_behind(f"blob-{number}", data)
            assert self.store.owns(url)
            assert (await self.store.stat(url)).size == size
            async with self.store.open(url) as reader:
                assert reader.size == size
                assert await collect(reader) == data

    async def test_owns_nothing_else(self) -> None:
        for url in ("", "nothing", "unknown://a/b", f"{self.store.TYPE.schemes[0]}://", "file:///etc/passwd"):
            assert not self.store.owns(url)

    async def test_missing_is_not_found_at_entry(self) -> None:
        url = (await self.put_behind("present", b"x")).replace("present", "absent")
        with pytest.raises(BlobNotFound):
            await self.store.stat(url)
        with pytest.raises(BlobNotFound):
            async with self.store.open(url):
                pytest.fail("entered")

    test_every_range = _every_range(60)

    async def test_past_the_end_is_a_bad_range_at_entry(self) -> None:
        url, empty = await self.put_behind("short", b"12345"), await self.put_behind("empty", b"")
        for blob, where in ((url, 5), (url, 6), (url, 1 << 62), (url, -1), (empty, 1)):
            with pytest.raises(BadRange):
                async with self.store.open(blob, offset=where):
                    pytest.fail("entered")
        assert await self.read(empty, offset=0) == b""
        assert await self.read(url, offset=4, length=100) == b"5"

    async def test_leaving_early_closes(self) -> None:
        url = await self.put_behind("blob", noise(SIZE))
        assert len(await self.read(url, length=10)) == 10  # connections that stay open are open now
        before = self.handles()
        for leave in ("at once", "after a chunk", "by an error", "cancelled"):
            await self._leave(url, leave, before)

    async def _leave(self, url: str, leave: str, before: int) -> None:
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
            assert self.handles() <= before, leave  # one that was kept for the next may have been closed

        task = asyncio.ensure_future(use())
        await asyncio.wait((task, asyncio.ensure_future(reached.wait())), return_when=asyncio.FIRST_COMPLETED)
        if leave == "cancelled":
            task.cancel()
        with contextlib.suppress(LookupError, asyncio.CancelledError):
            await task
        assert self.handles() <= before, leave

    async def test_many_readers_at_once(self) -> None:
        numbers = self.pick(range(8), range(3))
        blobs = {await self.put_behind(f"blob-{n}", noise(MIB + n, n)): noise(MIB + n, n) for n in numbers}
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
        assert hanging is not None, "give the suite a way to hang the backend, or say in NOT_APPLICABLE why not"
        async with hanging:
            calls = [self.store.check(), self.store.stat(url), self.read(url)]
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
