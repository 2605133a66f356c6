"""Image data on its way to a client: by sendfile where a store has a file, else chunk by chunk.

Memory: nothing by sendfile, else the store's chunk and what the socket holds. A window is sent by the kernel from the
event loop only when it is in memory; otherwise the store's threads bring it there first, so that a cold disk or a hung
mount holds up this client alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import AsyncIterator
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import Counter

from xloud_image.config.masking import clipped
from xloud_image.errors import BadRange, BadRequest, ImageServiceError
from xloud_image.services.downloads import Download, Span
from xloud_image.stores.base import FileRange

log = structlog.get_logger(__name__)

WINDOW: Final = 4 * 1024 * 1024  # bytes per sendfile call: what is asked for at once from a cold disk

_SENT: Final = Counter("xloud_image_sent_bytes_total", "Bytes of image data that were given to clients.")
_RANGE: Final = re.compile(r"bytes=[ \t]*+(\d{0,19})[ \t]*+-[ \t]*+(\d{0,19})", re.ASCII | re.IGNORECASE)
_OLD_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\*|\d{1,19})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class _OldSpan(Span):
    """What `Content-Range` in a request asks for: exactly these bytes, of data that has as many as it says."""

    total: int | None = None

    def resolve(self, size: int) -> tuple[int, int]:
        """As that of `Span`, but nothing is shortened to what is there."""
        if (self.last is not None and self.last >= size) or self.total not in (None, size):
            raise BadRange(
                f"The range does not fit the {size} bytes of the image.", headers={"Content-Range": f"bytes */{size}"}
            )
        return super(_OldSpan, self).resolve(size)


def requested(request: web.Request) -> Span | None:
    """The range that a GET asks for: `Range`, or the old form, a `Content-Range` in the request. None: everything.

    `BadRequest` for several ranges, `BadRange` for text that is no range. A range in other units than bytes, and one
    with another method, count as not sent (RFC 9110, section 14.2).
    """
    if request.method != "GET":
        return None
    text = request.headers.get("Range")
    if text is None:
        old = request.headers.get("Content-Range")
        if old is None:
            return None
        match = _OLD_RANGE.fullmatch(old.strip())
        if match is None or int(match[1]) > int(match[2]):
            raise BadRange("A range in Content-Range is written 'bytes A-B/*'.")
        return _OldSpan(int(match[1]), int(match[2]), total=None if match[3] == "*" else int(match[3]))
    unit, equals, _ = text.partition("=")
    if equals and unit.strip().lower() != "bytes":
        return None
    if "," in text:
        raise BadRequest("One range at a time.")
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        raise BadRange("A range is written 'bytes=A-B', 'bytes=A-' or 'bytes=-N'.")
    if not match[1]:
        return Span(suffix=int(match[2]))
    if match[2] and int(match[2]) < int(match[1]):
        raise BadRange("The range ends before it begins.")
    return Span(int(match[1]), int(match[2]) if match[2] else None)


async def send(request: web.Request, response: web.StreamResponse, opened: Download, timeout: float) -> None:
    """Headers and bytes. A client that takes nothing for `timeout` seconds (0: never) is cut.

    Raises ConnectionError, and nothing else, once the answer has begun: whatever happens then, the connection ends
    early, because an error answer in the middle of the bytes would be taken for data.
    """
    await response.prepare(request)
    transport = request.transport
    try:
        await _send(transport, response, opened, timeout)
    except ConnectionError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError):
            log.info("a client was cut: it took no data", seconds=timeout, path=clipped(request.path))
        else:
            reason = error.message if isinstance(error, ImageServiceError) else repr(error)
            log.error("a download broke off", path=clipped(request.path), reason=reason)
        if transport is not None:
            transport.abort()
        raise ConnectionResetError("the answer was broken off") from error
    await response.write_eof()


async def _send(
    transport: asyncio.Transport | None, response: web.StreamResponse, opened: Download, timeout: float
) -> None:
    file = opened.reader.file
    if file is None or transport is None or transport.get_extra_info("sslcontext") is not None:
        await _send_chunks(response, opened.reader.chunks, timeout)
        return
    sent = await _send_file(transport, file, timeout, whole=opened.rest is None)
    if sent < file.length and opened.rest is not None:
        async with contextlib.aclosing(opened.rest(sent)) as chunks:
            await _send_chunks(response, chunks, timeout)


async def _send_chunks(response: web.StreamResponse, chunks: AsyncIterator[bytes], timeout: float) -> None:
    async for chunk in chunks:
        async with asyncio.timeout(timeout or None):
            await response.write(memoryview(chunk))  # asyncio cuts off what was sent at once: of bytes by a copy
        _SENT.inc(len(chunk))


class _Descriptor:
    """As much of a file as sendfile asks for."""

    mode = "rb"

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def seek(self, offset: int) -> int:
        return os.lseek(self._fd, offset, os.SEEK_SET)


async def _send_file(transport: asyncio.Transport, file: FileRange, timeout: float, *, whole: bool) -> int:
    """Bytes sent: all, or, unless it must be the `whole`, as many as there are."""
    loop = asyncio.get_running_loop()
    source = _Descriptor(file.fd)
    at, end = file.offset, file.offset + file.length
    while at < end:
        count = min(WINDOW, end - at)
        if file.grows is not None and not (count := min(count, await file.grows(at))):
            break
        if not file.resident(at, count):
            try:
                await file.warm(at, count)
            except (OSError, ImageServiceError):
                if whole:
                    raise
                break
        async with asyncio.timeout(timeout or None):
            sent = await loop.sendfile(transport, source, at, count, fallback=False)  # type: ignore[arg-type]
        if sent <= 0:
            raise ConnectionResetError("the file ended before the image did")
        at += sent
        _SENT.inc(sent)
    return at - file.offset
