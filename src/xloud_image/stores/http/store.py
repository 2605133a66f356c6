"""Images that lie on web servers, read only: the location is the URL. Where it may lead: `kit.guarded`.

Memory of a transfer: what aiohttp holds of it, at most 256 KiB received and one chunk sent. Time limits: CONNECT
seconds to resolve a name and again to connect, IDLE seconds without a byte, and a body that brings less than PACE_BYTES
in PACE seconds of waiting is cut. Connections are not used again: each is one file of one server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
from yarl import URL

from xloud_image.errors import BadRange, BadRequest, BlobError, BlobNotFound, StoreUnavailable, Unsupported
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, span
from xloud_image.stores.http.options import HTTP
from xloud_image.stores.kit import addresses, answers
from xloud_image.stores.kit.addresses import Filters, Reach
from xloud_image.stores.kit.chunks import Pace
from xloud_image.stores.kit.filters import UrlFilters
from xloud_image.stores.kit.guarded import Guarded
from xloud_image.stores.kit.web import reason

_log = logging.getLogger(__name__)

CONNECT: Final = 10.0
IDLE: Final = 30.0
PACE: Final = 60.0
PACE_BYTES: Final = 64 * 1024
SKIP: Final = 1 << 30  # bytes read and thrown away at most, for a range of a server that knows no ranges
_MOST: Final = (1 << 63) - 1
_HUNG_UP: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError)


class _NoAnswer(Exception):
    """A server that gives no answer to HEAD; it may give one to GET."""


class HttpStore(Store):
    """Any http or https URL. `connect`, `idle` in seconds and `lookup` (as `socket.getaddrinfo`) are for tests.

    Which addresses are reached for whom: `addresses.Reach`.
    """

    TYPE = HTTP

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        *,
        connect: float = CONNECT,
        idle: float = IDLE,
        lookup: addresses.Lookup = socket.getaddrinfo,
    ) -> None:
        self.name = name
        self.can = Can.CHANGE
        self._connect = connect
        self._filters = Filters(options.get("url_filters") or UrlFilters())
        self._guarded = Guarded(
            name,
            self._filters,
            ca_file=options["https_ca_certificates_file"],
            insecure=options["https_insecure"],
            proxies=options["http_proxy_information"],
            connect=connect,
            idle=idle,
            keep=False,
            lookup=lookup,
        )
        self.facts = {"verifies_tls": not self._guarded.downgrade, "proxy_for": sorted(self._guarded.proxies)}
        self._without_ranges: set[str] = set()  # hosts, each logged once

    async def check(self) -> Health:
        """There is no server of its own; the proxies have to take connections."""
        for scheme, proxy in self._guarded.proxies.items():
            try:
                async with asyncio.timeout(self._connect):
                    _, writer = await asyncio.open_connection(proxy.host, proxy.port)
                    writer.close()
            except (OSError, TimeoutError) as error:
                raise StoreUnavailable(
                    f"the proxy for {scheme} URLs (http_proxy_information) takes no connection: {reason(error)}"
                ) from error
        through = f", through proxies for {', '.join(sorted(self._guarded.proxies))}" if self._guarded.proxies else ""
        return Health(detail=f"reads http and https URLs{through}; each location has a server of its own")

    def owns(self, url: str) -> bool:
        return answers.parsed(url) is not None

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        """By HEAD, and where that says nothing by a GET of which only the headers are read: many servers know no HEAD,
        or give it another answer. `BadRequest`: the size is not told, or it is no file."""
        with contextlib.suppress(_NoAnswer):
            async with self._ask("HEAD", url, caller) as (response, elsewhere):
                size = answers.length(response.headers)
                if response.status == 200 and size and answers.oddity(response.headers) is None:
                    return Blob(url, size, version=answers.version(response.headers, size, elsewhere=elsewhere))
        async with self._ask("GET", url, caller) as (response, elsewhere):
            if response.status != 200:
                raise answers.failure(response.status)
            if odd := answers.oddity(response.headers):
                raise BadRequest(f"the server of the URL {odd}")
            size = answers.length(response.headers)
            if size is not None:
                return Blob(url, size, version=answers.version(response.headers, size, elsewhere=elsewhere))
        async with self._ask("GET", url, caller, (0, 1)) as (response, elsewhere):
            if response.status in (200, 206) and (found := answers.content_range(response.headers)):
                size = found[2]
            elif response.status == 416:
                size = answers.total_of_416(response.headers)
            if size is None:
                raise BadRequest("the server of the URL does not tell the size of the file (no Content-Length)")
            return Blob(url, size, version=answers.version(response.headers, size, elsewhere=elsewhere))

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        """The whole is asked for by a plain GET. So is a part where the server does not answer a range as one: what
        lies before `offset` is thrown away, at most SKIP bytes: more is `Unsupported`."""
        if offset < 0 or offset > _MOST or (length is not None and length < 0):
            raise BadRange(f"the range begins at byte {offset}")
        if offset or length is not None:
            async with self._ask("GET", url, caller, (offset, length)) as (response, elsewhere):
                reader = await self._part(response, offset, length, elsewhere=elsewhere)
                if reader is not None:
                    yield reader
                    return
        async with self._ask("GET", url, caller) as (response, elsewhere):
            if response.status == 206:
                raise BlobError("the server of the URL gives a part where the whole was asked for")
            if response.status != 200:
                raise answers.failure(response.status)
            yield await self._whole(response, offset, length, elsewhere=elsewhere)

    async def _part(
        self, response: aiohttp.ClientResponse, offset: int, length: int | None, *, elsewhere: bool
    ) -> Reader | None:
        """What an answer to a request with a range gives; None when it helps nobody and a plain GET may."""
        headers, status = response.headers, response.status
        if status == 200 and answers.is_whole(headers):
            return await self._whole(response, offset, length, elsewhere=elsewhere)
        if status in (200, 206):  # some give a part and call it 200: what it is stands in Content-Range
            if answers.content_range(headers) is None:
                self._say_no_ranges(response.url)
                return None  # several parts, or nothing about which one
            size, count = self._partial(headers, offset, length)
            chunks = self._counted(self._chunks(response), count, exact=True)
            return Reader(size, chunks, version=answers.version(headers, size, elsewhere=elsewhere))
        if status == 416:
            size = answers.total_of_416(headers)
            if size is None or size > offset:
                self._say_no_ranges(response.url)
                return None
            if offset:
                raise BadRange(f"the range begins at byte {offset}, the file has {size} bytes")
            chunks = self._counted(self._chunks(response), 0, exact=False)
            return Reader(0, chunks, version=answers.version(headers, 0, elsewhere=elsewhere))
        failure = answers.failure(status)
        if failure.temporary or isinstance(failure, BlobNotFound):
            raise failure
        return None

    async def _whole(
        self, response: aiohttp.ClientResponse, offset: int, length: int | None, *, elsewhere: bool
    ) -> Reader:
        """The part wanted of an answer that gives all."""
        headers = response.headers
        if odd := answers.oddity(headers, page=False):
            raise BlobError(f"the server of the URL {odd}")
        size, count = answers.length(headers), length
        chunks = self._chunks(response)
        if size is not None:
            _, count = span(size, offset, length)
        if offset:
            self._say_no_ranges(response.url)
            chunks = await self._after(chunks, offset, size)
        chunks = self._counted(chunks, count, exact=size is not None)
        return Reader(size, chunks, version=answers.version(headers, size, elsewhere=elsewhere))

    def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        return self._guarded.chunks(response)

    async def aclose(self) -> None:
        await self._guarded.aclose()

    @contextlib.asynccontextmanager
    async def _ask(
        self, method: str, url: str, caller: Caller | None, wanted: tuple[int, int | None] | None = None
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, bool]]:
        """The answer, and whether it comes from another host. What redirects of an older row lead to is looked at like
        an administrator's URL: the row names one server, from there on a server chooses; without a caller it is the
        operator who asks. `wanted`: offset and length of a range; of length 0 its first byte is asked for.
        `_NoAnswer`: a server was there and hung up, or spoke no HTTP, at a HEAD."""
        at = answers.parsed(url)
        if at is None:
            raise BlobNotFound("this is no http or https URL")
        older = caller is None or caller.older
        reach = Reach.ANY if older else self._filters.reach(trusted=caller is not None and caller.trusted)
        after = Reach.PRIVATE if older and caller is not None else None
        headers = {}
        if wanted is not None:
            offset, length = wanted
            last = "" if length is None else str(min(offset + max(length, 1) - 1, _MOST))
            headers["Range"] = f"bytes={offset}-{last}"
        async with contextlib.AsyncExitStack() as stack:
            try:
                asked = self._guarded.ask(method, at, reach, after=after, headers=headers)
                response, found = await stack.enter_async_context(asked)
            except StoreUnavailable as error:
                cause = error.__cause__
                cut = isinstance(cause, aiohttp.ClientOSError) and not isinstance(cause, aiohttp.ClientConnectorError)
                if method == "HEAD" and (cut or isinstance(cause, _HUNG_UP)):
                    raise _NoAnswer from error
                raise
            yield response, found.raw_host != at.raw_host

    def _partial(self, headers: Mapping[str, str], offset: int, length: int | None) -> tuple[int | None, int]:
        """Total size, and how many bytes a partial answer brings of those wanted."""
        found = answers.content_range(headers)
        if found is None:
            raise BlobError("the server of the URL answers a range without saying which")
        first, last, size = found
        expected = _MOST if length is None else offset + max(length, 1) - 1
        if size is not None:
            expected = min(expected, size - 1)
        if first != offset or (last != expected and (size is not None or last > expected)):
            raise BlobError("the server of the URL answers another range than it was asked for")
        return size, 0 if length == 0 else last - first + 1

    async def _after(self, chunks: AsyncIterator[bytes], offset: int, size: int | None) -> AsyncIterator[bytes]:
        """The chunks from `offset` on. `BadRange` when the body ends before it."""
        if offset > SKIP:
            raise Unsupported(
                "the server of the URL knows no ranges, and the one wanted begins too far behind "
                "the start; read the whole image"
            )
        left, paced = offset, self._counted(chunks, None, exact=False)
        rest = b""
        while left:
            chunk = await anext(paced, None)
            if chunk is None:
                raise BadRange(f"the range begins at byte {offset}, the file has {offset - left} bytes")
            rest, left = chunk[left:], max(0, left - len(chunk))
        if not rest and size is None and offset:
            rest = await anext(paced, b"")  # whether anything follows is only known when it comes
            if not rest:
                raise BadRange(f"the range begins at byte {offset}, where the file ends")
        return _joined(rest, paced)

    async def _counted(self, chunks: AsyncIterator[bytes], count: int | None, *, exact: bool) -> AsyncIterator[bytes]:
        """At most `count` bytes (None: all), cut when they come too slowly; `exact`: or when they end before."""
        pace, done = Pace(PACE_BYTES, PACE), 0
        while count is None or done < count:
            begun = time.monotonic()
            chunk = await anext(chunks, None)
            waited = time.monotonic() - begun
            if chunk is None:
                if exact and count is not None:
                    raise StoreUnavailable("it broke off: the data ended too early")
                return
            if pace.is_slow(waited, len(chunk)):
                raise StoreUnavailable("it broke off: the data comes too slowly")
            if count is not None:
                chunk = chunk[: count - done]
            done += len(chunk)
            yield chunk

    def _say_no_ranges(self, url: URL) -> None:
        host = url.raw_host or ""
        if host not in self._without_ranges and len(self._without_ranges) < 1000:
            self._without_ranges.add(host)
            _log.warning("store %s: %s knows no ranges; parts of its files are read from the start", self.name, host)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
