"""What all stores have in common, as stores around a store: time limits, retries, a limit of calls, measuring, and
whose sentence an error is.

A wrapped store keeps the whole contract. `wrap` is the only place where layers are put together. No backend here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakValueDictionary

from prometheus_client import Counter, Gauge, Histogram

from xloud_image.errors import BadRange, BadRequest, BlobNotFound, ImageServiceError, StoreUnavailable
from xloud_image.stores.base import Blob, Caller, Health, Reader, Store

T = TypeVar("T")

_log = logging.getLogger(__name__)

_TRANSFERS: Final = ("write", "copy")  # calls that take as long as their bytes

_SECONDS: Final = Histogram(
    "xloud_image_store_seconds",
    "Duration of store calls in seconds; 'open' until the store has answered, 'write' and 'copy' the whole transfer.",
    ("store", "operation"),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2, 10, 60, 300, 1800),
)
_FAILURES: Final = Counter(
    "xloud_image_store_failures_total",
    "Store calls that ended in an error, by the error's name; 'cancelled' when the caller went away.",
    ("store", "operation", "error"),
)
_BYTES: Final = Counter("xloud_image_store_written_bytes_total", "Bytes that were stored whole.", ("store",))
_UNDER_WAY: Final = Gauge(
    "xloud_image_store_transfers", "Transfers under way.", ("store", "operation"), multiprocess_mode="livesum"
)


@dataclasses.dataclass(frozen=True, slots=True)
class LayerSettings:
    """Seconds and counts, per store and process.

    store_timeout: for each call that asks the backend but write and copy, for open until its first byte; waiting and
    retries are in it. retries: further attempts after a temporary error, as long as all took less than `retry_window`
    together: a store that refuses is asked again, one that hangs is not. at_once: transfers under way, and as many
    other calls, three quarters of them of one project; more wait.
    """

    store_timeout: float = 60.0
    retries: int = 2
    retry_pause: float = 0.2
    retry_window: float = 2.0
    at_once: int = 512


def wrap(store: Store, settings: LayerSettings | None = None) -> Store:
    """The store as the service uses it. From the inside: retries happen under one slot, the slot is waited for under
    the time limit, what is measured is what the caller sees, and whatever any of them says gets the store's name."""
    settings = settings or LayerSettings()
    store.store_timeout = settings.store_timeout
    return Named(Measured(Timed(Limited(Retrying(store, settings), settings), settings)))


def backend_of(store: Store) -> Store:
    """The store itself, without what is around it."""
    while isinstance(store, Layer):
        store = store.inner
    return store


class Layer(Store):
    """A store that hands everything on. `inner` is the next one.

    Whatever asks the backend goes through `_call`, which a layer overrides; what answers out of memory does not. Three
    are as long as they take: `start` and `examine`, whose callers bound them, and `ready`, which asks once at most.
    """

    BEGINS: ClassVar[bool] = False  # whether the first chunk of a read comes through `_call` as well

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name, self.can, self.places, self.sample = inner.name, inner.can, inner.places, inner.sample
        self.TYPE, self.SUMS = inner.TYPE, inner.SUMS  # type: ignore[misc]

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        """Do `call(number)`, which counts how often it was done before. `operation`: the method's name."""
        return await call(0)

    @property
    def facts(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Not copied: a store may learn facts when it starts."""
        return self.inner.facts

    async def start(self) -> None:
        await self.inner.start()

    async def check(self) -> Health:
        return await self._call("check", lambda _: self.inner.check())

    async def examine(self, key: str | None = None) -> Sequence[str]:
        return await self.inner.examine(key)

    async def ready(self) -> None:
        await self.inner.ready()

    def owns(self, url: str) -> bool:
        return self.inner.owns(url)

    def key(self, url: str) -> str | None:
        return self.inner.key(url)

    def forms(self, url: str) -> Sequence[str]:
        return self.inner.forms(url)

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        return await self._call("stat", lambda _: self.inner.stat(url, caller=caller), caller)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        async with contextlib.AsyncExitStack() as stack:

            async def enter(_: int) -> Reader:
                opened = self.inner.open(url, offset=offset, length=length, caller=caller)
                return await stack.enter_async_context(opened)

            async def begin(number: int) -> tuple[AsyncIterator[bytes], bytes | None]:
                chunks = (await enter(number)).chunks if number else reader.chunks
                return chunks, await anext(chunks, None)

            reader = await self._call("open", enter, caller)
            if self.BEGINS:
                yield dataclasses.replace(reader, chunks=_Begun(lambda: self._call("open", begin, caller)))
            else:
                yield reader

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        return await self._call("write", lambda _: self.inner.write(key, source, size=size, caller=caller), caller)

    async def copy(self, key: str, origin: Store, url: str, *, size: int, caller: Caller | None = None) -> Blob | None:
        return await self._call(
            "copy", lambda _: self.inner.copy(key, backend_of(origin), url, size=size, caller=caller), caller
        )

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        await self._call("discard", lambda _: self.inner.discard(key, caller=caller), caller)

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        async def attempt(number: int) -> None:
            try:
                await self.inner.delete(url, caller=caller)
            except BlobNotFound:
                if not number:  # later: the attempt before may have done it although its answer was lost
                    raise

        await self._call("delete", attempt, caller)

    async def share(
        self, url: str, *, readers: Sequence[str], public: bool = False, caller: Caller | None = None
    ) -> None:
        await self._call(
            "share", lambda _: self.inner.share(url, readers=readers, public=public, caller=caller), caller
        )

    async def keys(self, limit: int) -> Sequence[str]:
        return await self._call("keys", lambda _: self.inner.keys(limit))

    def notes(self) -> list[str]:
        return self.inner.notes()

    def advice(self, disk_format: str) -> str | None:
        return self.inner.advice(disk_format)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Begun:
    """Chunks whose first one comes by `begin`, which also says where the others come from."""

    def __init__(self, begin: Callable[[], Awaitable[tuple[AsyncIterator[bytes], bytes | None]]]) -> None:
        self._begin = begin
        self.rest: AsyncIterator[bytes] | None = None  # once the first one is there

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> bytes:
        if self.rest is not None:
            return await anext(self.rest)
        chunks, first = await self._begin()
        # those of another layer have done their part
        self.rest = chunks.rest if isinstance(chunks, _Begun) and chunks.rest is not None else chunks
        if first is None:
            raise StopAsyncIteration
        return first


class Retrying(Layer):
    """Asks again after a temporary error, in reads before the first byte. Never a write: a source cannot be rewound."""

    BEGINS: ClassVar[bool] = True

    def __init__(self, inner: Store, settings: LayerSettings) -> None:
        super().__init__(inner)
        self._settings = settings

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        """Until it ends well, or in an error that is not temporary, or the retries are used up."""
        if operation in _TRANSFERS:
            return await call(0)
        end = time.monotonic() + self._settings.retry_window
        attempt = 0
        while True:
            try:
                return await call(attempt)
            except ImageServiceError as error:
                attempt += 1
                pause = self._settings.retry_pause * attempt
                if not error.temporary or attempt > self._settings.retries or time.monotonic() + pause > end:
                    raise
            await asyncio.sleep(pause)


class _Slots:
    """At most `size` at a time, three quarters of them of one project: whoever takes many and does nothing with them
    keeps the others from nothing. Work without a project is the service's own and has no share."""

    def __init__(self, size: int) -> None:
        self._all = asyncio.Semaphore(size)
        self._share = max(1, size * 3 // 4)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def one(self, caller: Caller | None) -> AsyncIterator[None]:
        """Hold one until the block is left; waits for it."""
        if caller is None or caller.project is None:
            async with self._all:
                yield
            return
        own = self._of.get(caller.project)
        if own is None:
            own = self._of[caller.project] = asyncio.Semaphore(self._share)
        async with own, self._all:
            yield


class Limited(Layer):
    """At most `at_once` transfers at a time, and as many short calls, which never wait behind transfers; an open blob
    and a running write count until they end. A check never waits: it tells whether the store works."""

    def __init__(self, inner: Store, settings: LayerSettings) -> None:
        super().__init__(inner)
        self._transfers, self._calls = _Slots(settings.at_once), _Slots(settings.at_once)
        self._patience = settings.store_timeout

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        if operation == "check":
            return await call(0)
        if operation not in _TRANSFERS:  # has its limit of time already
            async with self._calls.one(caller):
                return await call(0)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience):
                    await stack.enter_async_context(self._transfers.one(caller))
            except TimeoutError:
                raise StoreUnavailable("it is busy: too many transfers are under way") from None
            return await call(0)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        async with (
            self._transfers.one(caller),
            self.inner.open(url, offset=offset, length=length, caller=caller) as reader,
        ):
            yield reader


class Timed(Layer):
    """Answers within `store_timeout`, whatever the store does. What a store does after the first byte of a read, and
    during a write, it bounds itself."""

    BEGINS: ClassVar[bool] = True

    def __init__(self, inner: Store, settings: LayerSettings) -> None:
        super().__init__(inner)
        self._limit = settings.store_timeout

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        if operation in _TRANSFERS:
            return await call(0)
        limit = asyncio.timeout(self._limit)
        try:
            async with limit:
                return await call(0)
        except TimeoutError:
            if not limit.expired():
                raise
            raise StoreUnavailable(f"it does not answer: nothing within {self._limit:g} seconds") from None


class Measured(Layer):
    """Counts what callers see: durations and failures by store and operation."""

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        begun = time.perf_counter()
        try:
            return await call(0)
        except BaseException as error:
            kind = "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
            _FAILURES.labels(self.name, operation, kind).inc()
            raise
        finally:
            _SECONDS.labels(self.name, operation).observe(time.perf_counter() - begun)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        with _UNDER_WAY.labels(self.name, "read").track_inprogress():
            async with super().open(url, offset=offset, length=length, caller=caller) as reader:
                yield reader

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        with _UNDER_WAY.labels(self.name, "write").track_inprogress():
            blob = await super().write(key, source, size=size, caller=caller)
        _BYTES.labels(self.name).inc(blob.size)
        return blob


class Named(Layer):
    """Puts the store's name before what its errors say, once, also when chunks of an open blob raise them; their cures,
    which no client sees, go to the log with it. What is wrong with the request (`BadRequest`, `BadRange`), and what the
    source of a write raises, is said by no store and passes as it is."""

    def _stamp(self, error: ImageServiceError) -> None:
        if error.store is not None or isinstance(error, (BadRequest, BadRange)):
            return
        error.store = self.name
        error.message = f"store {self.name}: {error.message}"
        error.args = (error.message,)
        if error.cure is not None:
            error.cure = f"store {self.name}: {error.cure}"
            _log.error("%s", error.cure)

    @contextlib.contextmanager
    def _named(self, others: list[ImageServiceError] | None = None) -> Iterator[None]:
        """`others`: errors that are not the store's, forgotten at the end: an error must not hold what holds it."""
        try:
            yield
        except ImageServiceError as error:
            if error not in (others or ()):
                self._stamp(error)
            raise
        finally:
            if others is not None:
                others.clear()

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        with self._named():
            return await call(0)

    async def examine(self, key: str | None = None) -> Sequence[str]:
        with self._named():
            return await self.inner.examine(key)

    async def ready(self) -> None:
        with self._named():
            await self.inner.ready()

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        async def warm(at: int, count: int) -> None:
            assert reader.file is not None
            with self._named():
                await reader.file.warm(at, count)

        others: list[ImageServiceError] = []
        with self._named(others):
            async with self.inner.open(url, offset=offset, length=length, caller=caller) as reader:
                file = reader.file and dataclasses.replace(reader.file, warm=warm)
                try:
                    yield dataclasses.replace(reader, chunks=_Watched(reader.chunks, self._stamp), file=file)
                except ImageServiceError as error:
                    others.append(error)
                    raise

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        others: list[ImageServiceError] = []
        with self._named(others):
            return await self.inner.write(key, _Watched(source, others.append), size=size, caller=caller)

    def forms(self, url: str) -> Sequence[str]:
        with self._named():
            return self.inner.forms(url)

    def notes(self) -> list[str]:
        return [f"store {self.name}: {note}" for note in self.inner.notes()]

    def advice(self, disk_format: str) -> str | None:
        advice = self.inner.advice(disk_format)
        return advice and f"store {self.name}: {advice}"


class _Watched:
    """Chunks; `seen` is told of an error of theirs before it goes on."""

    def __init__(self, chunks: AsyncIterator[bytes], seen: Callable[[ImageServiceError], None]) -> None:
        self._chunks, self._seen = chunks, seen

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except ImageServiceError as error:
            self._seen(error)
            raise
