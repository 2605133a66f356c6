"""Threads of one store for calls that block, so that a hung server holds up its own store only. No store logic here.

Promises: at most `size` threads; a call that takes longer than `limit` seconds raises `StoreUnavailable` to whoever
waits, its thread goes on alone and is used again when the call returns; when all threads are stuck, the next call is
refused at once. The threads are daemons: a call that never returns does not hold up the end of the process
(`concurrent.futures` would wait for it at exit).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from xloud_image.errors import StoreUnavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)
_WARN_EVERY: Final = 60.0  # seconds between two warnings of one pool
_CLOSE: Final = 2.0  # seconds that closing waits for calls under way


class Job(Generic[T]):
    """One call in a thread. Wait for `result` as often as needed; leaving the wait does not stop the call."""

    def __init__(
        self, threads: Threads, call: Callable[[], T], *, lost: Callable[[T], object] | None, must: bool
    ) -> None:
        self._threads = threads
        self._lost = lost
        self._call: Callable[[], T] | None = call
        self.must = must
        self.dropped = False
        self.late = False  # somebody waited for it as long as the limit allows
        self.loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self.loop.create_future()

    @property
    def done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._future.done()

    def perform(self) -> T:
        """The call itself, in a thread, once. It is forgotten before anybody hears of its end: the bytes that it
        holds must not outlive it."""
        call, self._call = self._call, None
        assert call is not None
        return call()

    async def result(self) -> T:
        """What the call returns or raises; `StoreUnavailable` after the limit. When the wait ends early the call
        counts as dropped: not begun unless it must, and its result goes to `lost`."""
        try:
            if await self.ended(self._threads.limit):
                return self._future.result()
        except asyncio.CancelledError:
            self._drop()
            raise
        self.late = True
        self._drop()
        raise StoreUnavailable(f"it does not answer: no result within {self._threads.limit:g} seconds")

    async def ended(self, limit: float) -> bool:
        """Wait until the call has returned or raised, at most `limit` seconds."""
        if not self._future.done():
            await asyncio.wait((self._future,), timeout=limit)
        return self._future.done()

    def _drop(self) -> None:
        self.dropped = True
        if self._future.done():
            self._hand_over()

    def _hand_over(self) -> None:
        """The result that nobody waits for goes to `lost`, in a thread."""
        if self._future.exception() is None and self._lost is not None:
            lost, result = self._lost, self._future.result()
            try:
                self._threads.submit(lambda: lost(result), must=True)
            except StoreUnavailable:  # the store was closed in between
                threading.Thread(target=lost, args=(result,), name=f"store {self._threads.name}", daemon=True).start()

    def deliver(self, result: T | None, error: BaseException | None) -> None:
        """Called in the thread, once."""
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:  # the loop is closed: nobody can wait
            if error is None and self._lost is not None:
                self._lost(result)  # type: ignore[arg-type]

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        if error is not None:
            self._future.set_exception(error)
            self._future.exception()  # seen; a dropped job has no other reader
        else:
            self._future.set_result(result)  # type: ignore[arg-type]
        if self.dropped:
            self._hand_over()


class Threads:
    """`size` threads, made when first needed. `limit`: seconds for one call, its waiting for a thread included.
    `threshold`: per cent of busy threads from which a warning is logged that names `option`, which sets their number;
    None: no warning."""

    def __init__(self, name: str, size: int, *, limit: float, threshold: int | None = None, option: str = "") -> None:
        self.name = name
        self.size = size
        self.limit = limit
        self._threshold, self._option = threshold, option
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._calls: dict[threading.Thread, tuple[Job[Any], float]] = {}  # of busy threads, and when it began
        self._waiting = 0
        self._closed = False
        self._warned = 0.0

    @property
    def busy(self) -> int:
        """Threads that are in a call now."""
        return len(self._calls)

    async def run(self, call: Callable[..., T], *args: Any, lost: Callable[[T], object] | None = None) -> T:
        """`call(*args)` in a thread. `lost` gets a result for which nobody waits any more (to close it)."""
        return await self.submit(lambda: call(*args), lost=lost).result()

    async def close(self, call: Callable[[], object]) -> None:
        """`call` in a thread, whoever waits, for at most the limit; here where the store was closed in between."""
        try:
            await self.submit(call, must=True).ended(self.limit)
        except StoreUnavailable:
            call()

    def submit(self, call: Callable[[], T], *, lost: Callable[[T], object] | None = None, must: bool = False) -> Job[T]:
        """Begin `call`. `must`: do it also when nobody waits any more (cleaning). `StoreUnavailable` at once when
        every thread is stuck, or after `aclose`."""
        job = Job(self, call, lost=lost, must=must)
        with self._lock:
            if self._closed:
                raise StoreUnavailable("it is being closed")
            stuck = not must and self._stuck()
            if not stuck:
                self._waiting += 1
                self._jobs.put(job)
                if len(self._calls) + self._waiting > len(self._threads) < self.size:
                    thread = threading.Thread(target=self._work, name=f"store {self.name}", daemon=True)
                    self._threads.add(thread)
                    thread.start()
            busy = min(self.size, len(self._calls) + self._waiting)
        if self._threshold is not None and busy > 1 and 100 * busy >= self._threshold * self.size:
            self._warn(busy)
        if stuck:
            raise StoreUnavailable(f"it does not answer: all its {self.size} threads wait for it")
        return job

    def _stuck(self) -> bool:
        if len(self._calls) < self.size:
            return False
        before = time.monotonic() - self.limit
        return all(job.late or began < before for job, began in self._calls.values())

    def _warn(self, busy: int) -> None:
        now = time.monotonic()
        if not self._warned or now - self._warned > _WARN_EVERY:
            self._warned = now
            _log.warning(
                "store %s: %d of %d threads are busy; %s sets their number",
                self.name,
                busy,
                self.size,
                self._option,
            )

    def _work(self) -> None:
        me = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._waiting -= 1
                self._calls[me] = (job, time.monotonic())
            result, error = None, None  # type: Any, BaseException | None
            try:
                if job.must or not job.dropped:
                    result = job.perform()
                else:
                    error = StoreUnavailable("it was too busy")
            except BaseException as failure:  # noqa: BLE001 - raised where the result is waited for
                error = failure
            with self._lock:
                del self._calls[me]
            with contextlib.suppress(Exception):  # `lost` of a closed loop; a thread never dies of a job
                job.deliver(result, error)
            del job, result, error
        with self._lock:
            self._threads.discard(me)

    async def aclose(self) -> None:
        """Refuse new calls, let those under way end, at most two seconds; stuck threads are left alone."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)
        end = time.monotonic() + _CLOSE
        while self._threads and time.monotonic() < end:  # noqa: ASYNC110 - the threads end in milliseconds or not at all
            await asyncio.sleep(0.005)
