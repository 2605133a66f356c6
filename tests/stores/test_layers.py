"""What each layer adds: time limits, retries, a limit of calls at once, measuring."""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.load import quiet
from tests.memory import MemoryStore
from xloud_image.errors import BadRange, BadRequest, BlobNotFound, FormatRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.base import Blob, Caller, FileRange, Health, Reader
from xloud_image.stores.layers import LayerSettings, Limited, Measured, Named, Retrying, Timed, wrap
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


SAID = {
    **CALLS,
    "write": lambda store: store.write("new", feed(b"x"), size=1),
    "forms": lambda store: asyncio.sleep(0, store.forms(URL)),
    "examine": lambda store: store.examine(),
    "ready": lambda store: store.ready(),
}


class Plain(Moody):
    """Says how it feels at each call."""

    def forms(self, url: str) -> list[str]:
        if self.failures:
            raise self.failures.pop(0)
        return [url]

    async def ready(self) -> None:
        await self._mood()

    async def examine(self, key: str | None = None) -> list[str]:
        await self._mood()
        return []


@pytest.mark.parametrize("call", SAID)
async def test_the_name_stands_before_what_a_store_says_once(call: str) -> None:
    failure = WriteDenied("it does not let us in")
    for _ in range(2):  # a store may keep an error and raise it again
        with pytest.raises(WriteDenied) as caught:
            await SAID[call](wrap(Named(Plain(failure)), QUICK))
        assert caught.value is failure
        assert failure.message == str(failure) == "store ram: it does not let us in"


async def test_a_layer_of_the_service_has_no_name_of_its_own() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await wrap(Moody(late=1), LayerSettings(store_timeout=0.01)).check()
    assert caught.value.message == "store ram: it does not answer: nothing within 0.01 seconds"


class Breaking(Moody):
    """Gives a chunk, then fails; and its file cannot be read. `closing`: what its end says."""

    closing: Exception | None = None

    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"da"
            await self._mood()

        async def warm(_at: int, _count: int) -> None:
            await self._mood()

        yield Reader(4, chunks(), FileRange(0, 0, 4, lambda _at, _count: False, warm))
        if self.closing is not None:
            raise self.closing


async def test_what_comes_out_of_an_open_blob_has_the_name() -> None:
    store = wrap(Breaking(StoreUnavailable("it broke off"), StoreUnavailable("it hangs")), QUICK)
    async with store.open(URL) as reader:
        assert await anext(reader.chunks) == b"da"
        with pytest.raises(StoreUnavailable, match=r"^store ram: it broke off$"):
            await anext(reader.chunks)
    async with store.open(URL) as reader:
        assert reader.file is not None
        with pytest.raises(StoreUnavailable, match=r"^store ram: it hangs$"):
            await reader.file.warm(0, 4)


async def test_so_has_the_end_of_it_but_not_what_its_reader_raises() -> None:
    inner = Breaking()
    with pytest.raises(StoreUnavailable, match=r"^the client is slow$"):
        async with wrap(inner, QUICK).open(URL):
            raise StoreUnavailable("the client is slow")
    inner.closing = StoreUnavailable("it hangs")
    with pytest.raises(StoreUnavailable, match=r"^store ram: it hangs$"):
        async with wrap(inner, QUICK).open(URL):
            pass


async def test_the_source_and_the_request_are_no_store() -> None:
    store = wrap(Moody(), QUICK)

    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        raise FormatRefused("this is no qcow2")

    with pytest.raises(FormatRefused) as refused:
        await store.write("new", source(), size=None)
    assert (refused.value.message, refused.value.store) == ("this is no qcow2", None)
    with pytest.raises(BadRequest, match=r"^1 bytes came, 2 were announced$"):
        await store.write("new", feed(b"x"), size=2)
    with pytest.raises(BadRange, match=r"^the range begins"):
        async with store.open(URL, offset=9):
            pass


async def test_a_source_that_failed_is_let_go_at_once() -> None:
    """What it holds does not wait for the collector of circles."""
    held = bytearray(1)

    async def source(_held: Any) -> AsyncIterator[bytes]:
        yield b"x"
        raise FormatRefused("this is no qcow2")

    before = sys.getrefcount(held)
    gc.disable()
    try:
        with contextlib.suppress(FormatRefused):
            await wrap(Moody(), QUICK).write("new", source(held), size=None)
        assert sys.getrefcount(held) == before
    finally:
        gc.enable()


async def test_data_of_another_store_keep_its_name() -> None:
    other, store = wrap(Breaking(StoreUnavailable("it broke off")), QUICK), MemoryStore("second", {})
    async with other.open(URL) as reader:
        with pytest.raises(StoreUnavailable, match=r"^store ram: it broke off$"):
            await wrap(store, QUICK).write("copy", reader.chunks, size=None)


async def test_a_cure_goes_to_the_log_with_the_name_and_not_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    failure = StoreUnavailable("it does not work now")
    failure.cure = "/srv does not work: see 'ls /srv'"
    with pytest.raises(StoreUnavailable) as caught:
        await wrap(Moody(failure, failure, failure), QUICK).check()
    assert caught.value.message == "store ram: it does not work now"
    assert [record.message for record in caplog.records] == [caught.value.cure]
    assert caught.value.cure == "store ram: /srv does not work: see 'ls /srv'"
