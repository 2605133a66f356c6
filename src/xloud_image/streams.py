"""Bytes in flight: count, limit, inspect and digest a stream while a store takes it. Knows no store and no image row.

Receiving, each digest and the store's writing run side by side: chunks are handed on as they came (no copy), digests
run in threads behind the stream. Memory: a digest lags at most BACKLOG bytes, digests share the same chunks, so one
stream holds at most BACKLOG + BATCH here, and what the store holds on top (2 × BATCH for the file store).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from typing import Final

from xloud_image.errors import BadRequest, TooLarge
from xloud_image.inspection import Inspection

BATCH: Final = 512 * 1024  # bytes per hand-over to a digest: one thread hop
BACKLOG: Final = 2 * 1024 * 1024  # bytes that a digest may lag behind the stream
_TURN: Final = 16 * 1024 * 1024  # bytes after which a digest lets others have the thread


class _Digest:
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


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What passed: bytes, digests in hex by algorithm, and the size that a guest will see (None: unknown)."""

    size: int
    digests: dict[str, str]
    virtual_size: int | None


class Flow:
    """A stream on its way into a store: an async iterator of the source's own chunks.

    source: byte chunks. declared: announced size in bytes, None unknown. cap: most bytes allowed.
    digests: algorithm names, no duplicates. inspection: None when the content needs no judgement.

    Raises while iterating: `TooLarge` over the cap, `BadRequest` when more or fewer bytes come than announced,
    `FormatRefused` from the inspection, and whatever the source raises.
    """

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        declared: int | None,
        cap: int,
        digests: Sequence[str],
        inspection: Inspection | None,
        pool: Executor,
    ) -> None:
        self._source = source
        self._declared = declared
        self._cap = cap
        self._names = tuple(digests)
        self._digests = [_Digest(name, pool) for name in digests]
        self._inspection = inspection
        self._batch: list[bytes] = []
        self._batched = 0
        self._ended = False
        self.size = 0

    def __aiter__(self) -> Flow:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._source.__anext__()
        except StopAsyncIteration:
            self._end()
            raise
        size = len(chunk)
        self.size += size
        if self.size > self._cap:
            raise TooLarge(f"the data is larger than {self._cap} bytes, the most that an image may have here")
        if self._declared is not None and self.size > self._declared:
            raise BadRequest(f"more data came than the {self._declared} bytes announced")
        if self._inspection is not None and not self._inspection.decided:
            self._inspection.eat(chunk)
        self._batch.append(chunk)
        self._batched += size
        if self._batched >= BATCH:
            await self._hand_over()
        return chunk

    async def _hand_over(self) -> None:
        batch, size = self._batch, self._batched
        self._batch, self._batched = [], 0
        for digest in self._digests:
            digest.feed(batch, size)
        for digest in self._digests:
            await digest.at_most(BACKLOG)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._declared is not None and self.size != self._declared:
            raise BadRequest(f"{self.size} bytes came, {self._declared} were announced")
        if self._inspection is not None:
            self._inspection.end()
        if self._batch:
            for digest in self._digests:
                digest.feed(self._batch, self._batched)
            self._batch, self._batched = [], 0

    async def result(self) -> Summary:
        """After the stream has ended: waits for the digests."""
        for digest in self._digests:
            await digest.at_most(0)
        virtual = self._inspection.virtual_size(self.size) if self._inspection is not None else None
        hexes = {name: digest.hexdigest() for name, digest in zip(self._names, self._digests, strict=True)}
        return Summary(self.size, hexes, virtual)
