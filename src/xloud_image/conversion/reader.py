"""The bytes of an NBD export in order: several reads at once on a socket, in a thread of their own. Knows no disk.

Whoever is at the other end may have been taken over by what he reads: no number of his is believed.
Source: the NBD project's doc/proto.md.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Final

from xloud_image.conversion import nbd

BLOCK: Final = 1 << 20
ZEROS: Final = bytes(BLOCK)  # every hole is given as (parts of) this one
_AT_ONCE: Final = 8  # reads under way
_HOLES: Final = 64  # blocks of zeros that are given together


class ReadFailed(Exception):
    """The other end says that it cannot read."""


class Closed(Exception):
    """The other end is gone, or speaks another language."""


class Silent(Exception):
    """Nothing came for as long as it may take."""


class _Read:
    """One read under way."""

    def __init__(self, cookie: int, offset: int, length: int) -> None:
        self.cookie, self.offset, self.end = cookie, offset, offset + length
        self.chunks: list[bytes] = []
        self.done = False


class Reader:
    """`begin`, then `chunks`; `aclose` in any case. silence: seconds that the other end may say nothing."""

    def __init__(self, sock: socket.socket, silence: float) -> None:
        self.size = 0
        self._socket = sock
        # the kernel's own limits, so that one call takes a whole block
        time = struct.pack("ll", int(silence), int(silence % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, time)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "conversion")
        self._call: asyncio.Future[Any] | None = None
        self._reads: deque[_Read] = deque()
        self._asked = 0  # bytes, from the first one

    async def begin(self) -> int:
        """The export's size. Raises `Closed`, `Silent`, `ReadFailed`."""
        self._call = asyncio.get_running_loop().run_in_executor(self._thread, self._agree)
        await asyncio.shield(self._call)
        return self.size

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of it in order; holes as parts of `ZEROS`. Raises as `begin`, and `ReadFailed`."""
        loop = asyncio.get_running_loop()
        given = 0
        while given < self.size:
            self._call = loop.run_in_executor(self._thread, self._next)
            for chunk in await asyncio.shield(self._call):
                given += len(chunk)
                yield chunk

    async def aclose(self) -> None:
        """The other end is left; a call under way ends at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._call is not None:
            await asyncio.wait((self._call,))
            if not self._call.cancelled():
                self._call.exception()
        self._thread.shutdown(wait=False)
        self._socket.close()

    # in the thread

    def _take(self, count: int) -> bytes:
        try:
            came = self._socket.recv(count, socket.MSG_WAITALL)
        except BlockingIOError:
            raise Silent from None
        except OSError as error:
            raise Closed(str(error)) from None
        if len(came) < count:
            # what came before the time was over, or before the end
            raise Silent if came and self._open() else Closed("it left")
        return came

    def _open(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return True

    def _give(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def _agree(self) -> None:
        password, magic, flags = nbd.GREETING.unpack(self._take(nbd.GREETING.size))
        if (password, magic) != (nbd.PASSWORD, nbd.HAVE_OPTION) or not flags & nbd.FIXED:
            raise Closed("it is no NBD server")
        self._give(struct.pack(">I", flags & (nbd.FIXED | nbd.NO_ZEROES)))
        self._option(nbd.STRUCTURED_REPLY, b"")
        told = self._option(nbd.GO, bytes(6))
        sizes = [nbd.EXPORT.unpack(text)[1] for text in told if len(text) == nbd.EXPORT.size and text[:2] == bytes(2)]
        if len(sizes) != 1:
            raise Closed("it does not say the size")
        (self.size,) = sizes

    def _option(self, option: int, data: bytes) -> list[bytes]:
        """What it tells before it agrees."""
        self._give(nbd.OPTION.pack(nbd.HAVE_OPTION, option, len(data)) + data)
        told: list[bytes] = []
        while True:
            magic, about, kind, length = nbd.OPTION_REPLY.unpack(self._take(nbd.OPTION_REPLY.size))
            if (magic, about) != (nbd.OPTION_MAGIC, option) or length > nbd.LONGEST_TEXT or len(told) > 64:
                raise Closed("it answers something else")
            text = self._take(length) if length else b""
            if kind == nbd.REP_ACK:
                return told
            if kind != nbd.REP_INFO:
                raise Closed(f"it refuses option {option}")
            told.append(text)

    def _next(self) -> list[bytes]:
        """The chunks of the next read; of several, as long as they are but holes."""
        chunks = self._read_one()
        while chunks[-1] is ZEROS and len(chunks) < _HOLES and self._reads:
            chunks += self._read_one()
        return chunks

    def _read_one(self) -> list[bytes]:
        asked = b""
        while len(self._reads) < _AT_ONCE and self._asked < self.size:
            read = _Read(self._asked // BLOCK, self._asked, min(BLOCK, self.size - self._asked))
            self._reads.append(read)
            self._asked = read.end
            asked += nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.READ, read.cookie, read.offset, read.end - read.offset)
        if asked:
            self._give(asked)
        while not self._reads[0].done:
            self._chunk()
        return self._reads.popleft().chunks

    def _chunk(self) -> None:
        """Some of the bytes of one read: they come in order."""
        magic, flags, kind, cookie, length = nbd.CHUNK.unpack(self._take(nbd.CHUNK.size))
        first = self._reads[0].cookie
        if magic != nbd.CHUNK_MAGIC or not first <= cookie < first + len(self._reads):
            raise Closed("it answers what was not asked")
        read = self._reads[cookie - first]
        if kind & nbd.ERROR:
            self._take(min(length, nbd.LONGEST_TEXT))
            raise ReadFailed
        if read.done or kind not in (nbd.NO_DATA, nbd.OFFSET_DATA, nbd.OFFSET_HOLE):
            raise Closed("it answers something else")
        if kind != nbd.NO_DATA:
            hole = kind == nbd.OFFSET_HOLE
            told = struct.unpack(">QI", self._take(12)) if hole else (*struct.unpack(">Q", self._take(8)), length - 8)
            offset, count = told
            if offset != read.offset or not 0 < count <= read.end - offset or (hole and length != 12):
                raise Closed("it answers other bytes")
            read.chunks.append(_zeros(count) if hole else self._take(count))
            read.offset += count
        if flags & nbd.DONE:
            if read.offset != read.end:
                raise Closed("it answers too few bytes")
            read.done = True


def _zeros(count: int) -> bytes:
    return ZEROS if count == BLOCK else ZEROS[:count]
