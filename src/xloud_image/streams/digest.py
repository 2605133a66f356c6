"""Digests of a stream, computed in threads beside it. The stage hands chunks on and shares them with the digests.

Memory: a digest lags at most BACKLOG bytes, and a batch is gathered for all of them: for a stream BACKLOG + BATCH and a
chunk, which is never cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

BATCH: Final = 512 * 1024  # bytes per hand-over to a digest: one thread hop
BACKLOG: Final = 2 * 1024 * 1024  # bytes that a digest may lag behind the stream
_TURN: Final = 16 * 1024 * 1024  # bytes after which a digest lets others have the thread


class Digest:
    """A stage: digests of all that passes. names: algorithms; one that comes twice is computed once.

    Found: `hexes`.
    """

    def __init__(self, names: Iterable[str], pool: Executor) -> None:
        self._hashes = {name: _Hash(name, pool) for name in dict.fromkeys(names)}
        self._ended = False

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        batch: list[bytes] = []
        size = 0
        async for chunk in source:
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH:
                for each in self._hashes.values():
                    each.feed(batch, size)
                batch, size = [], 0
                for each in self._hashes.values():
                    await each.at_most(BACKLOG)
            yield chunk
        if batch:
            for each in self._hashes.values():
                each.feed(batch, size)
        self._ended = True

    async def hexes(self) -> dict[str, str]:
        """The digests in hex by algorithm; waits for them. Only when the stream has ended well."""
        if not self._ended:
            raise RuntimeError("digests were asked for before the end of the data")
        for each in self._hashes.values():
            await each.at_most(0)
        return {name: each.hexdigest() for name, each in self._hashes.items()}


class Expectation(Protocol):
    """A digest that data has to have."""

    def require(self, found: Mapping[str, str]) -> None:
        """Raises unless it is among the digests that were found, in hex by algorithm."""


class Checked:
    """A stage behind a `Digest`, the last one: what came must be what was expected, before a store takes the end of it
    for the end."""

    def __init__(self, came: Digest, expected: Sequence[Expectation]) -> None:
        self._came, self._expected = came, expected

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            yield chunk
        found = await self._came.hexes() if self._expected else {}
        for one in self._expected:
            one.require(found)


class _Hash:
    """One hash over a stream, computed in a pool: in order, one thread at a time, at most BACKLOG behind."""

    def __init__(self, algorithm: str, pool: Executor) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._batches: deque[list[bytes]] = deque()
        self._behind = 0
        self._running = False
        self._waiter: asyncio.Future[None] | None = None
        self._threshold = 0
        self._error: BaseException | None = None

    def feed(self, batch: list[bytes], size: int) -> None:
        with self._lock:
            self._batches.append(batch)
            self._behind += size
            start = not self._running
            self._running = True
        if start:
            self._pool.submit(self._run)

    async def at_most(self, behind: int) -> None:
        """Return when no more than `behind` bytes wait."""
        with self._lock:
            if self._behind <= behind:
                self._raise()
                return
            self._threshold = behind
            waiter = self._waiter = self._loop.create_future()
        await waiter
        self._raise()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        turn = 0
        while True:
            with self._lock:
                if not self._batches:
                    self._running = False
                    return
                batch = self._batches.popleft()
            size = 0
            try:
                for chunk in batch:
                    self._hash.update(chunk)
                    size += len(chunk)
            except BaseException as error:  # noqa: BLE001 - handed to the stream, which must not wait for ever
                self._error = error
            del batch, chunk
            waiter = None
            with self._lock:
                self._behind -= size
                if self._waiter is not None and (self._behind <= self._threshold or self._error):
                    waiter, self._waiter = self._waiter, None
            if waiter is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(_wake, waiter)
            turn += size
            if turn >= _TURN:
                self._pool.submit(self._run)
                return


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
