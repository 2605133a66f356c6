"""One read from a web server that honours ranges, or does not: a range, taken up again where it broke. Whose it is, and
how it is asked for, is the backend's business."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import aiohttp

from xloud_image.errors import BadRange, ImageServiceError, StoreUnavailable
from xloud_image.stores.base import span
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.answers import content_range
from xloud_image.stores.kit.web import Web


class Download:
    """The bytes from `offset`, `length` (at least 1) of them or all. Enter it: `size` is that of the whole, `version`
    its ETag. A download that breaks off is taken up again `retries` times, if it is still the same object.

    `get`: a GET with these headers; `size_of`: the size of the whole in bytes by another request, None when it is not
    told; `failure`: what a status means that is none of success.
    """

    def __init__(
        self,
        web: Web,
        get: Callable[[dict[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]],
        size_of: Callable[[], Awaitable[int | None]],
        failure: Callable[[int], ImageServiceError],
        offset: int,
        length: int | None,
        *,
        retries: int = 0,
    ) -> None:
        self._web, self._ask, self._size_of, self._failure = web, get, size_of, failure
        self._at, self._length, self._retries = offset, length, retries
        self._end = offset
        self._held = b""
        self._stack = contextlib.AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None
        self.size = 0
        self.version: str | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _begin(self) -> None:
        """`BlobNotFound`, `BadRange`, `StoreUnavailable`."""
        headers = {}
        if self._at or self._length is not None:
            last = "" if self._length is None else str(self._at + self._length - 1)
            headers["Range"] = f"bytes={self._at}-{last}"
        response = await self._get(headers)
        first = await self._first(response, asked=bool(headers))
        silent = response.status == 416 and answers.total_of_416(response.headers) is None
        if first is None and headers and (response.status in (200, 206) or silent):
            await self._stack.aclose()  # a part, and not the one wanted, or nobody knows
            response = await self._get({})
            first = await self._first(response, asked=False)
        if response.status == 416:
            self.size = answers.total_of_416(response.headers) or 0
            if self._at or self.size:
                raise BadRange(f"the range begins at byte {self._at}, the data has {self.size} bytes")
            return
        if response.status not in (200, 206):
            raise self._failure(response.status)
        if first is None:
            raise StoreUnavailable("its server gives a part of the data to a plain request")
        part = content_range(response.headers)
        told = part[2] if part else answers.length(response.headers)
        if told is None:
            raise StoreUnavailable("its server does not say how long the data is")
        self.size = told
        self.version = answers.tag(response.headers) or None
        start, count = span(self.size, self._at, self._length)
        self._end = start + count
        self._chunks = self._web.chunks(response)
        await self._skip(start - first)

    async def _first(self, response: aiohttp.ClientResponse, *, asked: bool) -> int | None:
        """Where the bytes of a good answer begin, at `self._at` or before; None when that is not sure. Content-Range
        decides, not the status. `asked`: for a range; what then looks like the whole has to be as long as it."""
        if "Content-Range" in response.headers:
            part = content_range(response.headers)
            fits = part is not None and part[2] is not None and part[0] <= self._at <= part[1]
            return part[0] if fits and part else None
        if response.status != 200:
            return None
        if asked and answers.length(response.headers) is not None:
            size = await self._size_of()
            if size is not None and size != answers.length(response.headers):
                return None
        return 0

    async def _skip(self, count: int) -> None:
        """What comes before the bytes that are wanted, where a range was not looked at."""
        assert self._chunks is not None
        while count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise StoreUnavailable("it broke off: the data ended too early")
            self._held, count = chunk[count:], max(0, count - len(chunk))

    async def _get(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        return await self._stack.enter_async_context(self._ask(headers))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self._at < self._end:
            assert self._chunks is not None
            try:
                chunk: bytes | None = self._held
                if chunk:
                    self._held = b""
                else:
                    chunk = await anext(self._chunks, None)
                if chunk is None:
                    raise StoreUnavailable("it broke off: the data ended too early")
            except StoreUnavailable:
                if not self._retries:
                    raise
                self._retries -= 1
                await self._again()
                continue
            if chunk:
                chunk = chunk[: self._end - self._at]
                self._at += len(chunk)
                return chunk
        raise StopAsyncIteration

    async def _again(self) -> None:
        await self._stack.aclose()
        self._held = b""
        headers = {"Range": f"bytes={self._at}-{self._end - 1}"}
        if self.version and self.version.isascii():
            headers["If-Match"] = f'"{self.version}"'
        response = await self._get(headers)
        if response.status in (404, 412):
            raise StoreUnavailable("the data was changed while it was read")
        if response.status not in (200, 206):
            raise self._failure(response.status)
        first, part = await self._first(response, asked=True), content_range(response.headers)
        if first is None or (part[2] if part else answers.length(response.headers)) not in (self.size, None):
            raise StoreUnavailable("its server gives another part of the data than was asked for")
        self._chunks = self._web.chunks(response)
        await self._skip(self._at - first)
