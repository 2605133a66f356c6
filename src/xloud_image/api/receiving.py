"""The body of an upload as a stream of chunks, and what happens to the rest of it when the answer comes early."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import StreamReader, web

from xloud_image.errors import BadRequest, ImageServiceError

_LINGER_SECONDS: Final = 0.5
_LINGER_BYTES: Final = 256 * 1024


class ClientGone(ImageServiceError):
    """The client closed the connection, or sent nothing for too long; no answer will reach it."""

    status = 400


async def chunks(request: web.Request, timeout: float) -> AsyncIterator[bytes]:
    """The body as it comes; the small chunks of HTTP are gathered, all else is uncopied.

    `ClientGone` when nothing comes for `timeout` seconds (0: wait for ever).
    """
    await _invite(request)
    content = request.content
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


async def whole(request: web.Request, timeout: float) -> bytes:
    """A small body, in memory. `ClientGone` when it is not there after `timeout` seconds (0: wait for ever)."""
    try:
        async with asyncio.timeout(timeout or None):
            return await request.read()
    except TimeoutError:
        raise ClientGone(f"The body did not come within {timeout:g} seconds.") from None


async def _as_received(content: StreamReader) -> bytes:
    chunk, _ = await content.readchunk()
    return chunk


async def no_continue(request: web.Request) -> None:
    """Do not invite the body before the request has been looked at; `chunks` does."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text=f"Unknown Expect: {request.headers.get('Expect', '')[:80]}")


async def _invite(request: web.Request) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0  # the answer itself has not begun


async def linger(request: web.Request) -> None:
    """After an answer that came before the body's end: the time to read the answer, then the connection may close.

    A short body is read to its end, because a connection that closes with unread bytes is reset. Of a long or endless
    one nothing more is read: what came until now is at most 1 MiB when its first bytes were refused.
    """
    content = request.content
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LINGER_SECONDS):
            while content.total_bytes < _LINGER_BYTES and not content.is_eof():
                await content.readany()
        if not content.is_eof():
            await asyncio.sleep(_LINGER_SECONDS)


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
