"""Reading a range of an object in windows, several requests ahead of the reader. One object for each reader.

The windows behind the current one are asked for ahead and wait in the connection: at most 256 KiB each in this process,
besides what the kernel takes (its socket buffers). A reader who is slower than 16 MiB in two seconds has one request
ahead, a fast one up to three. A window that breaks off is asked for again from where it stopped; all but the first
carry the ETag, so an object that was changed meanwhile is noticed (`BlobError`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from xloud_image.errors import BlobError, ImageServiceError, StoreUnavailable
from xloud_image.stores.bucket.client import Client, Hung

WINDOW: Final = 16 << 20
AHEAD: Final = 3
_FAST: Final = 2.0  # seconds for one window
_AGAIN: Final = 3  # attempts to go on after a break, without a byte between them
_PAUSE: Final = 0.3


class Open:
    """An answer with bytes `first` to `last` (of the object) in it, closed by `aclose`."""

    def __init__(self, client: Client, key: str, first: int, last: int, tag: str) -> None:
        self._client, self._key, self._tag = client, key, tag
        self.at, self.last = first, last
        self._stack = contextlib.AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None

    async def ask(self) -> aiohttp.ClientResponse:
        """Ask; the answer, whatever its status."""
        headers = {"range": f"bytes={self.at}-{self.last}"}
        if self._tag:
            headers["if-match"] = self._tag
        response = await self._stack.enter_async_context(self._client.asking("GET", self._key, headers=headers))
        if response.status == 206:
            self._chunks = self._client.chunks(response)
        return response

    async def refused(self, response: aiohttp.ClientResponse) -> ImageServiceError:
        """Why there are no bytes."""
        answer = await self._client.answer(response)
        if answer.status == 412:
            return BlobError(f"store {self._client.name}: the data was changed while it was being read")
        if answer.good:
            return BlobError(f"store {self._client.name}: its server does not honour ranges")
        return self._client.refusal(answer)

    async def next(self) -> bytes:
        """The next bytes; `StoreUnavailable` when they do not come."""
        assert self._chunks is not None
        try:
            async with asyncio.timeout(self._client.patience):
                chunk = await anext(self._chunks, b"")
        except TimeoutError:
            raise Hung(f"store {self._client.name} stopped in the middle of the data") from None
        if not chunk:
            raise StoreUnavailable(f"store {self._client.name} broke off in the middle of the data")
        self.at += len(chunk)
        return chunk

    async def aclose(self) -> None:
        await self._stack.aclose()


class Windows:
    """The bytes from `current` on up to `end` (of the object). A class: a dropped generator would end only when
    collected. `aclose` ends all requests."""

    def __init__(self, client: Client, key: str, tag: str, current: Open, end: int) -> None:
        self._client, self._key, self._tag = client, key, tag
        self._current: Open | None = current
        self._next, self._end = current.last + 1, end
        self._ahead: deque[asyncio.Task[Open]] = deque()
        self._room = 1
        self._since = time.monotonic()

    def __aiter__(self) -> Windows:
        return self

    async def __anext__(self) -> bytes:
        if self._current is None:
            raise StopAsyncIteration
        self._ask_ahead()
        chunk = await self._bytes(self._current)
        if self._current.at > self._current.last:
            await self._turn()
        return chunk

    def _ask_ahead(self) -> None:
        while self._next < self._end and len(self._ahead) < self._room:
            last = min(self._next + WINDOW, self._end) - 1
            self._ahead.append(asyncio.ensure_future(self._opened(self._next, last)))
            self._next = last + 1

    async def _turn(self) -> None:
        """On to the next window."""
        now = time.monotonic()
        self._room = min(AHEAD, self._room + 1) if now - self._since < _FAST else 1
        self._since = now
        done, self._current = self._current, None
        if done is not None:
            await done.aclose()
        self._ask_ahead()
        if self._ahead:
            await asyncio.wait((self._ahead[0],))  # stays ours to close when we are cancelled here
            self._current = self._ahead.popleft().result()

    async def _bytes(self, window: Open) -> bytes:
        for attempt in range(_AGAIN + 1):
            try:
                return await window.next()
            except StoreUnavailable as error:
                if attempt == _AGAIN or isinstance(error, Hung):
                    raise
            await asyncio.sleep(_PAUSE * attempt)
            await window.aclose()
            self._current = window = await self._opened(window.at, window.last)
        raise AssertionError("unreachable")

    async def _opened(self, first: int, last: int) -> Open:
        async def once() -> Open:
            window = Open(self._client, self._key, first, last, self._tag)
            try:
                response = await window.ask()
                if response.status != 206:
                    raise await window.refused(response)
            except BaseException:
                await window.aclose()
                raise
            return window

        return await self._client.again(once)

    async def aclose(self) -> None:
        """End all requests, also those ahead."""
        for task in self._ahead:
            task.cancel()
        for found in await asyncio.gather(*self._ahead, return_exceptions=True):
            if isinstance(found, Open):
                await found.aclose()
        self._ahead.clear()
        if self._current is not None:
            await self._current.aclose()
        await asyncio.sleep(0)  # the event loop closes the sockets one turn later
