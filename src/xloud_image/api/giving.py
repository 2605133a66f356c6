"""Large answers out of memory: bounded for all clients of a process, and given as they are taken.

An image with its properties may have eight megabytes of JSON, and so may a page of a list. A client that asks for many
and takes none would make the process hold them all. Data of images is not meant: `sending` holds none of it.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from aiohttp import web

from xloud_image.config.masking import clipped
from xloud_image.errors import Unavailable

log = structlog.get_logger(__name__)

LARGE: Final = 256 * 1024  # bytes; answers up to here are not counted
HELD: Final = 96 * 1024 * 1024  # bytes of large answers that a process holds
SHARE: Final = HELD // 2  # of these one project may have so many
# Where there is no room, answers are cut of which fewer than LARGE bytes were taken in so many seconds.
SLOW: Final = 10.0
_PIECE: Final = 64 * 1024  # bytes that are given to the connection at once


class _Held:
    """One answer, counted with all others from its making until its last piece is the connection's."""

    every: Final[set[_Held]] = set()

    def __init__(self, request: web.Request, size: int, whose: str) -> None:
        self.size = size
        self.whose = whose
        self._path = clipped(request.path)
        self._transport = request.transport
        self._taken = 0
        self._since = asyncio.get_running_loop().time()

    def take(self) -> bool:
        """Whether there was room; who takes too slowly makes it."""
        if not self._has_room():
            now = asyncio.get_running_loop().time()
            for other in [one for one in _Held.every if now - one._since >= SLOW]:  # noqa: SLF001
                other.cut()
            if not self._has_room():
                return False
        _Held.every.add(self)
        return True

    def _has_room(self) -> bool:
        own = sum(other.size for other in _Held.every if other.whose == self.whose)
        return own + self.size <= SHARE and sum(other.size for other in _Held.every) + self.size <= HELD

    def given(self, count: int) -> None:
        """So many more bytes are the connection's."""
        self._taken += count
        if self._taken >= LARGE:
            self._taken, self._since = 0, asyncio.get_running_loop().time()

    def cut(self) -> None:
        """End the connection; whoever writes to it fails."""
        log.info("a client was cut: it took too little of a large answer", seconds=SLOW, path=self._path)
        self.release()
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """It is held no more. Again is the same."""
        _Held.every.discard(self)


def is_large(request: web.Request, response: web.Response) -> bool:
    """Whether the answer is one to be counted."""
    body = response.body
    return isinstance(body, bytes) and len(body) > LARGE and request.method != "HEAD"


async def give(request: web.Request, response: web.Response, whose: str) -> web.StreamResponse:
    """The answer, sent. `whose`: the project that asked, or its address. `Unavailable` when too many are on their way;
    ConnectionError when the client is gone."""
    body = response.body
    assert isinstance(body, bytes)
    held = _Held(request, len(body), whose)
    if not held.take():
        done = "" if request.method == "GET" else "It was done; only the answer is missing. "
        raise Unavailable(
            f"{done}Too many large answers are on their way now, and wait for clients that read them; try again.",
            headers={"Retry-After": "1"},
        )
    try:
        stream = web.StreamResponse(status=response.status, headers=response.headers)
        stream.content_length = len(body)
        if response.keep_alive is False:
            stream.force_close()
        await stream.prepare(request)
        pieces = memoryview(body)
        for at in range(0, len(body), _PIECE):
            piece = pieces[at : at + _PIECE]
            await stream.write(piece)
            held.given(len(piece))
        await stream.write_eof()
    finally:
        held.release()
    return stream
