"""What each layer adds: time limits, retries, a limit of calls at once, measuring."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.load import quiet
from tests.memory import MemoryStore
from xloud_image.errors import BlobNotFound, StoreUnavailable
from xloud_image.stores.base import Blob, Caller, Health, Reader
from xloud_image.stores.layers import LayerSettings, Limited, Measured, Retrying, Timed, wrap
from xloud_image.stores.suite import collect, feed

URL = "memory://ram/key"


class Moody(MemoryStore):
    """Fails the next calls as told, and counts them. `late`: seconds before each answer."""

    def __init__(self, *failures: Exception, late: float = 0) -> None:
        super().__init__("ram", {})
        self.blobs["key"] = b"data"
        self.failures = list(failures)
        self.late = late
        self.asked = 0
        self.at_once = 0
        self.most = 0

    async def _mood(self) -> None:
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.late)
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.at_once -= 1

    async def check(self) -> Health:
        await self._mood()
        return await super().check()

    async def stat(self, url: str, *, caller: Any = None) -> Blob:
        await self._mood()
        return await super().stat(url)

    async def delete(self, url: str, *, caller: Any = None) -> None:
        await self._mood()
        await super().delete(url)

    async def discard(self, key: str, *, caller: Any = None) -> None:
        await self._mood()
        await super().discard(key)

    async def share(self, url: str, *, readers: Any, public: bool = False, caller: Any = None) -> None:
        await self._mood()

    async def keys(self, limit: int) -> list[str]:
        await self._mood()
        return [*self.blobs][:limit]

    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        await self._mood()
        return await super().write(key, source, size=size)

    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        await self._mood()
        async with super().open(url, offset=offset, length=length) as reader:
            yield reader


class LateFirstByte(Moody):
    """Opens, then fails or waits before the first chunk."""

    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        async def chunks() -> AsyncIterator[bytes]:
            await self._mood()
            yield b"da"
            yield b"ta"

        yield Reader(4, chunks())


QUICK = LayerSettings(retry_pause=0.01)


async def read(store: Any) -> bytes:
    async with store.open(URL) as reader:
        return await collect(reader)


CALLS = {
    "check": lambda store: store.check(),
    "stat": lambda store: store.stat(URL),
    "open": read,
    "delete": lambda store: store.delete(URL),
    "discard": lambda store: store.discard("key"),
    "share": lambda store: store.share(URL, readers=["p"]),
    "keys": lambda store: store.keys(5),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_temporary_error_is_tried_again(call: str) -> None:
    inner = Moody(StoreUnavailable("1"), StoreUnavailable("2"))
    await CALLS[call](Retrying(inner, QUICK))
    assert inner.asked == 3


@pytest.mark.parametrize("call", CALLS)
async def test_but_not_for_ever_and_not_another_error(call: str) -> None:
    inner = Moody(*(StoreUnavailable(str(number)) for number in range(9)))
    with pytest.raises(StoreUnavailable, match="2"):
        await CALLS[call](Retrying(inner, QUICK))
    inner = Moody(BlobNotFound("gone"))
    with pytest.raises(BlobNotFound):
        await CALLS[call](Retrying(inner, QUICK))
    assert inner.asked == 1


async def test_a_write_is_never_tried_again() -> None:
    inner = Moody(StoreUnavailable("1"))
    with pytest.raises(StoreUnavailable):
        await Retrying(inner, QUICK).write("new", feed(b"x"), size=1)
    assert inner.asked == 1


async def test_a_store_that_takes_long_to_fail_is_not_asked_again() -> None:
    inner = Moody(StoreUnavailable("1"), late=0.2)
    with pytest.raises(StoreUnavailable):
        await Retrying(inner, LayerSettings(retry_pause=0.01, retry_window=0.1)).stat(URL)
    assert inner.asked == 1


async def test_a_first_byte_that_fails_is_tried_again_and_no_later_one() -> None:
    inner = LateFirstByte(StoreUnavailable("1"))
    assert await read(Retrying(inner, QUICK)) == b"data"
    assert inner.asked == 2


async def test_a_delete_whose_answer_was_lost_has_been_done() -> None:
    class Lost(Moody):
        async def delete(self, url: str, *, caller: Any = None) -> None:
            await MemoryStore.delete(self, url)
            raise StoreUnavailable("the connection broke")

    inner = Lost()
    await Retrying(inner, QUICK).delete(URL)
    assert inner.blobs == {}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Moody, LateFirstByte])
async def test_the_time_limit(call: str, kind: type[Moody]) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"0\.1 seconds"):
        await CALLS[call](Timed(kind(late=5), LayerSettings(store_timeout=0.1)))
    assert time.monotonic() - begun < quiet(1)


async def test_after_the_first_byte_a_reader_may_take_its_time() -> None:
    async with Timed(LateFirstByte(), LayerSettings(store_timeout=0.05)).open(URL) as reader:
        parts = []
        async for chunk in reader.chunks:
            parts.append(chunk)
            await asyncio.sleep(0.1)
    assert parts == [b"da", b"ta"]


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"check", "delete"}))
async def test_at_most_so_many_at_once(call: str) -> None:
    inner = Moody(late=0.01)
    store = Limited(inner, LayerSettings(at_once=3))
    await asyncio.gather(*(CALLS[call](store) for _ in range(12)))
    assert (inner.asked, inner.most) == (12, 3)


async def test_an_open_blob_counts_until_it_is_left() -> None:
    store = wrap(Moody(), LayerSettings(at_once=1, store_timeout=0.1))
    async with store.open(URL):
        for call in (read(store), store.write("new", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable):
                await call
        await store.check()
        assert (await store.stat(URL)).size == 4, "short calls never wait behind transfers"
    assert await read(store) == b"data"


async def test_one_project_does_not_take_all() -> None:
    store = wrap(Moody(), LayerSettings(at_once=4, store_timeout=0.2))
    hostile, other = Caller(project="a"), Caller(project="b")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(store.open(URL, caller=hostile))
        for call in (stack.enter_async_context(store.open(URL, caller=hostile)),
                     store.write("new", feed(b"x"), size=1, caller=hostile)):  # fmt: skip
            with pytest.raises(StoreUnavailable):
                await call
        await store.write("new", feed(b"x"), size=1, caller=other)
        await stack.enter_async_context(store.open(URL, caller=other))
    async with store.open(URL, caller=hostile):
        pass


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_measured(call: str) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"xloud_image_store_{name}", {"store": "ram", **labels}) or 0

    store = Measured(Moody(StoreUnavailable("1")))
    failed = value("failures_total", operation=call, error="StoreUnavailable")
    counted = value("seconds_count", operation=call)
    with pytest.raises(StoreUnavailable):
        await CALLS[call](store)
    await CALLS[call](store)
    assert value("failures_total", operation=call, error="StoreUnavailable") == failed + 1
    assert value("seconds_count", operation=call) == counted + 2
