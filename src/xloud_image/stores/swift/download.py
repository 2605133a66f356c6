"""One read from Swift: a range, taken up again where it broke. Which object it is decides `store`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import aiohttp

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.base import span
from xloud_image.stores.kit.web import content_length, content_range
from xloud_image.stores.swift.accounts import Access
from xloud_image.stores.swift.client import Client

_TOTAL: Final = re.compile(r"bytes (?:\d{1,19}-\d{1,19}|[*])/(\d{1,19})", re.ASCII)


class Download:
    """The bytes from `offset`, `length` (at least 1) of them or all. Enter it: `size` is that of the object, `version`
    its ETag. A download that breaks off is taken up again `retries` times, if it is still the same object."""

    def __init__(
        self,
        client: Client,
        access: Access,
        container: str,
        name: str,
        offset: int,
        length: int | None,
        retries: int,
    ) -> None:
        self._client, self._access, self._container, self._name = client, access, container, name
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
        if first is None and headers and response.status in (200, 206):
            await self._stack.aclose()  # a part, and not the one wanted, or nobody knows
            response = await self._get({})
            first = await self._first(response, asked=False)
        if response.status == 416:
            self.size = await self._whole_size(response)
            span(self.size, self._at, self._length)  # raises, but for the end of an empty object
            return
        if response.status not in (200, 206):
            raise self._client.failure(response.status)
        if first is None:
            raise StoreUnavailable(f"store {self._client.name}: Swift gives a part of the object to a plain request")
        part = content_range(response.headers)
        told = part[2] if part else content_length(response.headers)
        if told is None:
            raise StoreUnavailable(f"store {self._client.name}: Swift does not say how long the object is")
        self.size = told
        self.version = response.headers.get("ETag", "").strip('"') or None
        start, count = span(self.size, self._at, self._length)
        self._end = start + count
        self._chunks = self._client.chunks(response)
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
        if asked and content_length(response.headers) is not None:
            found = await self._client.ask("HEAD", self._access, self._container, self._name)
            if found.ok and content_length(found.headers) != content_length(response.headers):
                return None
        return 0

    async def _skip(self, count: int) -> None:
        """What comes before the bytes that are wanted, where a range was not looked at."""
        assert self._chunks is not None
        while count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise StoreUnavailable(f"store {self._client.name} broke off: the data ended too early")
            self._held, count = chunk[count:], max(0, count - len(chunk))

    async def _get(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        return await self._stack.enter_async_context(
            self._client.answer("GET", self._access, self._container, self._name, headers=headers)
        )

    async def _whole_size(self, response: aiohttp.ClientResponse) -> int:
        total = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
        if total is not None:
            return int(total[1])
        found = await self._client.ask("HEAD", self._access, self._container, self._name)
        if not found.ok:
            raise self._client.failure(found.status)
        return int(found.headers["Content-Length"])

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
                    raise StoreUnavailable(f"store {self._client.name} broke off: the data ended too early")
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
            raise StoreUnavailable(f"store {self._client.name}: the object was changed while it was read")
        if response.status not in (200, 206):
            raise self._client.failure(response.status)
        first, part = await self._first(response, asked=True), content_range(response.headers)
        if first is None or (part[2] if part else content_length(response.headers)) not in (self.size, None):
            raise StoreUnavailable(
                f"store {self._client.name}: Swift gives another part of the object than was asked for"
            )
        self._chunks = self._client.chunks(response)
        await self._skip(self._at - first)
