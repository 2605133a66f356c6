"""The body of an upload as a stream of chunks, and what happens to the rest of it when the answer comes early."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator
from typing import ClassVar, Final

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from xloud_image.api import proxies
from xloud_image.api.connections import PIECE, Connection
from xloud_image.errors import BadRequest, ImageServiceError, TooLarge, Unavailable

LARGE: Final = 112 * 1024  # bytes; a body that is larger is looked at before it is read as JSON
HELD: Final = 96 * 1024 * 1024  # bytes of bodies that a process has taken and not read yet …
SHARE: Final = HELD // 2  # … of one project; beyond either, bodies of more than SMALL bytes are told to come again
SMALL: Final = 4 * 1024


class ClientGone(ImageServiceError):
    """The client closed the connection, or sent nothing for too long; no answer will reach it."""

    status = 400


async def chunks(request: web.Request, timeout: float) -> AsyncIterator[bytes]:
    """The body as it comes, in chunks of at most PIECE bytes; the small chunks of HTTP are gathered.

    `ClientGone` when nothing comes for `timeout` seconds (0: wait for ever).
    """
    await _invite(request)
    content = request.content
    if isinstance(request.protocol, Connection) and (missing := _missing(request)) > PIECE:
        request.protocol.receive_rest(content, missing)
    # Chunks of HTTP are small and would each take its own turn through the digests: there a copy is cheaper.
    several = functools.partial(content.read, 256 * 1024)
    read = several if request.content_length is None else functools.partial(_as_received, content)
    taken = 0
    while True:
        try:
            if content.total_bytes > taken or content.is_eof() or not timeout:
                chunk = await read()  # does not wait
            else:
                async with asyncio.timeout(timeout):
                    chunk = await read()
        except TimeoutError:
            raise ClientGone(f"No data came for {timeout:g} seconds; the upload was given up.") from None
        except web.HTTPException:
            raise
        except Exception as error:
            raise ClientGone(f"The connection broke during the upload ({type(error).__name__}).") from error
        if chunk:
            taken += len(chunk)
            yield chunk
        elif content.at_eof():
            return


def _missing(request: web.Request) -> int:
    """Bytes of the body that have not come yet; 0 when that is not known, or not only the body may follow."""
    if hdrs.TRANSFER_ENCODING in request.headers or hdrs.UPGRADE in request.headers:
        return 0
    return (request.content_length or 0) - request.content.total_bytes


async def whole(request: web.Request, timeout: float, limit: int) -> bytes:
    """A body that is no data of an image, in memory: at most `limit` bytes. `ClientGone` when it is not there after
    `timeout` seconds (0: wait for ever), `TooLarge`, `Unavailable` when too many large ones are on their way.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    await _invite(request)
    held = _Held(request)
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(timeout or None):
            while chunk := await request.content.readany():
                if held.add(len(chunk)) > limit:
                    raise _too_large(limit)
                parts.append(chunk)
        return b"".join(parts)
    except TimeoutError:
        raise ClientGone(f"The body did not come within {timeout:g} seconds.") from None
    finally:
        held.release()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body has more than {limit} bytes; the operator can allow more by [oslo_middleware] max_request_body_size."
    )


class _Held:
    """The bytes of one body in memory, counted with those of all others in this process, and of the same project."""

    all_of_them = 0
    by_whom: ClassVar[Counter[str]] = Counter()

    def __init__(self, request: web.Request) -> None:
        self._whose = proxies.whose(request)
        self._bytes = 0

    def add(self, count: int) -> int:
        """So many more; how many there are now."""
        self._bytes += count
        _Held.all_of_them += count
        _Held.by_whom[self._whose] += count
        many = _Held.all_of_them > HELD or _Held.by_whom[self._whose] > SHARE
        if many and self._bytes > SMALL:
            raise Unavailable("Too many bodies are on their way now; try again.", headers={"Retry-After": "1"})
        return self._bytes

    def release(self) -> None:
        """They are the caller's now, or gone."""
        _Held.all_of_them -= self._bytes
        _Held.by_whom[self._whose] -= self._bytes
        if not _Held.by_whom[self._whose]:
            del _Held.by_whom[self._whose]
        self._bytes = 0


async def _as_received(content: StreamReader) -> bytes:
    chunk, _ = await content.readchunk()
    return chunk


async def no_continue(_request: web.Request) -> None:
    """Do not invite the body before the request has been looked at; `chunks` and `whole` do."""


async def _invite(request: web.Request) -> None:
    # a client of HTTP/1.0 does not know the answer that is none yet
    if hdrs.EXPECT in request.headers and request.version >= HttpVersion11:
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0  # the answer itself has not begun


async def linger(request: web.Request, *, short: bool) -> None:
    """After an answer that came before the body's end: let the client read it, whatever it still sends."""
    protocol = request.protocol
    if isinstance(protocol, Connection):
        await protocol.end_in_stages(short=short)


def declared_size(request: web.Request) -> int | None:
    """Announced bytes: `x-openstack-image-size`, else Content-Length; 0 in the former means unknown."""
    text = request.headers.get("x-openstack-image-size")
    length = request.content_length
    if text is None:
        return length
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest("'x-openstack-image-size' is a number of bytes.")
    size = int(text) or None
    if size is not None and length is not None and size != length:
        raise BadRequest(f"'x-openstack-image-size' announces {size} bytes, Content-Length {length}.")
    return size if size is not None else (length or None)
