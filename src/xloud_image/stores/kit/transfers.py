"""One write, or one read, of a store whose calls block: its steps in threads, and what becomes of it when a thread does
not come back. What is written and read is the backend's business."""

from __future__ import annotations

import abc
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.kit.chunks import Piece, in_batches
from xloud_image.stores.kit.threads import Job, Threads


class Discarded(Exception):
    """What was being written was removed by `discard`, here or by another process, or was abandoned."""


class Draft(abc.ABC):
    """What is being written, not yet under its key. One thread works on it at a time.

    `abandon` may be called from any thread at any time: whoever is in it then removes everything when he comes back,
    so a draft leaves nothing also when its writer has long given up on a store that hangs.
    """

    def __init__(self, key: str) -> None:
        """Does nothing yet."""
        self.key = key
        self.written = 0  # bytes
        self.removed = True  # nothing of it is there
        self._lock = threading.Lock()
        self._busy = False
        self._gone = False

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """A thread is in it. `Discarded` when it was abandoned before."""
        with self._lock:
            if self._gone:
                raise Discarded
            self._busy = True
        try:
            yield
        finally:
            if self._left():
                with contextlib.suppress(Exception):  # whoever abandoned it, or `discard` of the key, takes what stays
                    self.remove()

    def _left(self) -> bool:
        """The thread leaves; True when it has to clean up behind an abandoned write."""
        with self._lock:
            self._busy = False
            return self._gone

    def abandon(self) -> bool:
        """Never blocks. True: a thread is in it and will remove it; False: the caller has to call `remove`."""
        with self._lock:
            self._gone = True
            return self._busy

    @property
    def holds(self) -> bool:
        """Whether `remove` has anything to do."""
        return not self.removed

    @abc.abstractmethod
    def remove(self) -> None:
        """Take everything away. May be called again, by anybody; raises what the store raises."""


D = TypeVar("D", bound=Draft)


class Steps(Generic[D]):
    """The steps of one write: one after the other, in threads, the last one still running. `errors`: what they raise,
    as the contract names it."""

    def __init__(self, threads: Threads, draft: D, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self.draft = draft
        self._threads, self._errors = threads, errors
        self._job: Job[None] | None = None

    async def begin(self, call: Callable[[], None], *, threads: Threads | None = None) -> None:
        """Start `call` when the step before has ended well; in other `threads` than the rest."""
        await self.end()
        self._job = (threads or self._threads).submit(call)

    async def take(
        self, source: AsyncIterator[bytes], batch: int, write: Callable[[list[Piece]], None], *, cut: bool = True
    ) -> None:
        """`write` all of `source`: as in `in_batches`. While one batch is being written the next is being gathered."""

        async def put(pieces: list[Piece]) -> None:
            await self.begin(functools.partial(write, pieces))

        await in_batches(source, batch, put, cut=cut)

    async def end(self) -> None:
        """Wait for the running step; raises what it raised."""
        if self._job is not None:
            with self._errors():
                await self._job.result()

    async def abandon(self, threads: Threads, wait: float) -> bool:
        """Nothing of the draft stays: it is removed in one of `threads`, or by the thread that hangs in it whenever
        that comes back. Waits so many seconds for it; whether it is removed by then."""
        draft = self.draft
        with contextlib.suppress(StoreUnavailable):
            if draft.abandon() and self._job is not None:
                await self._job.ended(wait)
            elif draft.holds:
                await threads.submit(draft.remove, must=True).ended(wait)
        return draft.removed


class Reading:
    """The bytes of a range, by `read(offset, length)` in threads, at most `batch` bytes at a time; batches end at their
    multiples. `ahead`: the next one is read while whoever iterates has the last. `errors`: as in `Steps`.

    A class: a dropped generator would end only when collected.
    """

    def __init__(
        self,
        threads: Threads,
        read: Callable[[int, int], bytes],
        span: tuple[int, int],
        *,
        batch: int,
        errors: Callable[[], AbstractContextManager[None]],
        ahead: bool = True,
    ) -> None:
        self._threads, self._read, self._errors = threads, read, errors
        self._at, self._end = span[0], sum(span)
        self._batch, self._ahead = batch, ahead
        self._job: Job[bytes] | None = None

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> bytes:
        if self._job is None:
            self._begin()
        if self._job is None:
            raise StopAsyncIteration
        with self._errors():
            chunk = await self._job.result()
        self._job = None
        if self._ahead:
            self._begin()
        return chunk

    def _begin(self) -> None:
        if self._at < self._end:
            length = min(self._batch - self._at % self._batch, self._end - self._at)
            self._job = self._threads.submit(functools.partial(self._read, self._at, length))
            self._at += length

    async def ended(self) -> None:
        """Wait for what is being read: what it is read from may be closed afterwards."""
        if self._job is not None:
            await self._job.ended(self._threads.limit)
