"""One stream for several readers, each at its own pace. The readers share the chunks; the slowest sets the pace.

Memory: the chunks that the slowest reader has not taken yet, less than the window and one chunk more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

WINDOW: Final = 8 * 1024 * 1024  # bytes that the slowest reader may lag behind the stream


class Branch:
    """What one reader gets: all chunks of the stream, or the error of its source, at once and as it is."""

    def __init__(self, room: asyncio.Event) -> None:
        self.behind = 0  # bytes that came and were not taken
        self._chunks: deque[bytes] = deque()
        self._room = room
        self._news = asyncio.Event()
        self._dropped = self._ended = False
        self._error: BaseException | None = None

    def __aiter__(self) -> Branch:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._chunks:
            raise StopAsyncIteration
        chunk = self._chunks.popleft()
        self.behind -= len(chunk)
        self._room.set()
        return chunk

    def give(self, chunk: bytes) -> None:
        """The next chunk of the stream."""
        if not self._dropped:
            self._chunks.append(chunk)
            self.behind += len(chunk)
            self._news.set()

    def end(self, error: BaseException | None) -> None:
        """The stream has ended, well or in an error."""
        self._ended, self._error = True, error
        self._news.set()

    def drop(self) -> None:
        """Nobody reads here any more; the others are not held up for it."""
        self._dropped = True
        self._chunks.clear()
        self.behind = 0
        self._room.set()


class Tee:
    """`branches` of one source, to be read beside each other while a task of its own does `feed`."""

    def __init__(self, source: AsyncIterator[bytes], branches: int, *, window: int = WINDOW) -> None:
        self._source = source
        self._window = window
        self._room = asyncio.Event()
        self.branches = tuple(Branch(self._room) for _ in range(branches))

    async def feed(self) -> None:
        """Give the branches what the source brings, until it ends; its error is theirs and not raised here."""
        error: BaseException | None = None
        try:
            async for chunk in self._source:
                for branch in self.branches:
                    branch.give(chunk)
                while max(branch.behind for branch in self.branches) >= self._window:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as failure:  # noqa: BLE001 - handed to the readers, which must not wait for ever
            error = failure
        for branch in self.branches:
            branch.end(error)
