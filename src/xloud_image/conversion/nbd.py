"""A source as an NBD export, for one client on a socket: read-only, and no number of the client's is believed.

Of the protocol's newstyle handshake: EXPORT_NAME, GO, INFO, LIST, ABORT, STRUCTURED_REPLY, the metadata context
base:allocation (where the source knows its holes). Then READ and BLOCK_STATUS, several at once, and DISC.
Source: the NBD project's doc/proto.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

from xloud_image.conversion.source import Buffer, ReadAhead, Source, Sparse
from xloud_image.errors import FormatRefused

# the words of the protocol
GREETING: Final = struct.Struct(">8s8sH")
OPTION: Final = struct.Struct(">8sII")
OPTION_REPLY: Final = struct.Struct(">QIII")
REQUEST: Final = struct.Struct(">IHHQQI")
CHUNK: Final = struct.Struct(">IHHQI")
EXPORT: Final = struct.Struct(">HQH")
PASSWORD, HAVE_OPTION, OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
REQUEST_MAGIC, CHUNK_MAGIC, REPLY_MAGIC = 0x25609513, 0x668E33EF, 0x67446698
FIXED, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY, LIST_CONTEXT, SET_CONTEXT = 1, 2, 3, 6, 7, 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_CONTEXT = 1, 2, 3, 4
REP_UNSUPPORTED, REP_INVALID, REP_UNKNOWN = (1 << 31 | number for number in (1, 3, 6))
READ, WRITE, DISCONNECT, BLOCK_STATUS = 0, 1, 2, 7
DONE, NO_DATA, OFFSET_DATA, OFFSET_HOLE, STATUS, ERROR = 1, 0, 1, 2, 5, 1 << 15
LONGEST_TEXT: Final = 1 << 16  # bytes behind a header that are no data

_INFO_EXPORT: Final = 0
_INFO_BLOCK_SIZE: Final = 3
_FLAGS: Final = 1 | 1 << 1 | 1 << 7 | 1 << 8  # it has flags, is read-only, knows DF, and may have several clients
_CONTEXT: Final = b"base:allocation"
_CONTEXT_ID: Final = 1
_REQ_ONE: Final = 1 << 3
_HOLE: Final = 3  # it is one, and reads as zeros
_OPTIONS: Final = 64  # that a client may ask for
_ENDLESS: Final = (1 << 63) - (1 << 30)  # the largest that qemu knows
_SMALL: Final = 64 << 10  # bytes that are sent with their header, in one call
MOST: Final = 4 << 20  # bytes of one read
_AT_ONCE: Final = 16  # requests; qemu has no more


class _Left(Exception):
    """The client is gone, or speaks another language."""


class Server:
    """One client of one source. `failure`: the first error of the source that the client was told of. `moved`: when
    bytes were last sent (time.monotonic); `asked`: requests that wait for the source.

    over: the export seems endless. A read may pass the end of the source by less than so many bytes, which are zeros;
    one that passes it by more is a failure, `FormatRefused`. None: the export ends where the source does.
    """

    def __init__(self, source: Source, sock: socket.socket, *, over: int | None = None) -> None:
        self.failure: Exception | None = None
        self.moved = time.monotonic()
        self.asked = 0
        self._source, self._ahead, self._over = source, ReadAhead(source), over
        self._size = source.size if over is None else _ENDLESS
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()
        self._turn = asyncio.Lock()  # a reply is sent as a whole
        self._structured = self._context = False

    async def serve(self) -> None:
        """Until the client leaves; then the socket is closed. Raises nothing of the client's or the source's."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST)
        try:
            with contextlib.suppress(_Left, OSError, struct.error):
                if await self._agree():
                    await self._answer_all()
        finally:
            await self._ahead.aclose()
            self._socket.close()

    async def _take(self, count: int) -> bytes:
        """The next bytes of the client's."""
        while len(self._came) < count:
            came = await self._loop.sock_recv(self._socket, LONGEST_TEXT)
            if not came:
                raise _Left
            self._came += came
        taken = bytes(self._came[:count])
        del self._came[:count]
        return taken

    async def _send(self, head: bytes, *data: Buffer) -> None:
        async with self._turn:
            if sum(map(len, data)) <= _SMALL:
                head, data = head + b"".join(data), ()
            for part in (head, *data):
                await self._loop.sock_sendall(self._socket, part)
                self.moved = time.monotonic()

    # the handshake

    async def _agree(self) -> bool:
        """Whether the client goes on to read."""
        await self._send(GREETING.pack(PASSWORD, HAVE_OPTION, FIXED | NO_ZEROES))
        flags = int.from_bytes(await self._take(4), "big")
        if flags & ~(FIXED | NO_ZEROES):
            return False
        for _ in range(_OPTIONS):
            magic, option, length = OPTION.unpack(await self._take(OPTION.size))
            if magic != HAVE_OPTION or length > LONGEST_TEXT:
                return False
            data = await self._take(length)
            if option == EXPORT_NAME:  # there is no way to refuse but to leave
                if not data:
                    zeros = b"" if flags & NO_ZEROES else bytes(124)
                    await self._send(EXPORT.pack(_INFO_EXPORT, self._size, _FLAGS)[2:] + zeros)
                return not data
            try:
                kind = await self._option(option, data)
            except (struct.error, ValueError):
                kind = REP_INVALID
            await self._reply(option, kind)
            if option == ABORT or (option == GO and kind == REP_ACK):
                return bool(option == GO)
        return False

    async def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        await self._send(OPTION_REPLY.pack(OPTION_MAGIC, option, kind, len(data)) + data)

    async def _option(self, option: int, data: bytes) -> int:
        """How its answer ends. Raises `ValueError` when it makes no sense."""
        if option in (ABORT, LIST, STRUCTURED_REPLY):
            if data and option != ABORT:
                raise ValueError
            if option == LIST:
                await self._reply(option, REP_SERVER, bytes(4))
            self._structured |= option == STRUCTURED_REPLY
            return REP_ACK
        if option not in (INFO, GO, LIST_CONTEXT, SET_CONTEXT):
            return REP_UNSUPPORTED
        (length,) = struct.unpack_from(">I", data)
        if len(data) < 4 + length:
            raise ValueError
        name, rest = data[4 : 4 + length], data[4 + length :]
        if name:
            return REP_UNKNOWN
        if option in (INFO, GO):
            await self._reply(option, REP_INFO, EXPORT.pack(_INFO_EXPORT, self._size, _FLAGS))
            await self._reply(option, REP_INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, 65536, MOST))
            return REP_ACK
        if not self._structured:
            raise ValueError
        asked = list(_texts(rest))
        found = (
            isinstance(self._source, Sparse)
            and self._over is None
            and (_CONTEXT in asked or (option == LIST_CONTEXT and (not asked or b"base:" in asked)))
        )
        if found:
            number = _CONTEXT_ID if option == SET_CONTEXT else 0
            await self._reply(option, REP_CONTEXT, struct.pack(">I", number) + _CONTEXT)
        if option == SET_CONTEXT:
            self._context = found
        return REP_ACK

    # what it reads

    async def _answer_all(self) -> None:
        places = asyncio.Semaphore(_AT_ONCE)
        answers: set[asyncio.Task[None]] = set()
        try:
            while True:
                magic, flags, kind, cookie, offset, length = REQUEST.unpack(await self._take(REQUEST.size))
                if magic != REQUEST_MAGIC or kind in (DISCONNECT, WRITE):  # behind a write lie its data
                    return
                await places.acquire()
                answer = asyncio.create_task(self._answer(flags, kind, cookie, offset, length))
                answers.add(answer)
                answer.add_done_callback(answers.discard)
                answer.add_done_callback(lambda _: places.release())
        finally:
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    async def _answer(self, flags: int, kind: int, cookie: int, offset: int, length: int) -> None:
        self.asked += 1
        try:
            if kind not in (READ, BLOCK_STATUS) or (kind == BLOCK_STATUS and not self._context):
                number, parts = errno.EINVAL, list[Buffer]()
            elif not 0 < length <= (MOST if kind == READ else 1 << 32) or offset + length > self._size:
                number, parts = errno.EINVAL, []
            elif kind == READ:
                number, parts = 0, await self._read(offset, length)
            else:
                number, parts = 0, [await self._status(offset, length, one=bool(flags & _REQ_ONE))]
        except Exception as error:  # noqa: BLE001 - whatever a source raises is told to whoever began the conversion
            self.failure = self.failure or error
            number, parts = errno.EIO, list[Buffer]()
        finally:
            self.asked -= 1
        with contextlib.suppress(OSError):  # the client left; who reads its requests notices
            await self._send(self._head(kind, cookie, number, offset, parts), *parts)

    async def _read(self, offset: int, length: int) -> list[Buffer]:
        behind = max(0, offset + length - self._source.size)
        if behind and (behind >= length or behind >= (self._over or 0)):
            raise FormatRefused(
                f"the data ends at byte {self._source.size} and the disk goes on behind it: is it whole?"
            )
        return [*await self._ahead.read(offset, length - behind), bytes(behind)]

    def _head(self, kind: int, cookie: int, number: int, offset: int, parts: Sequence[Buffer]) -> bytes:
        if not self._structured:
            return struct.pack(">IIQ", REPLY_MAGIC, number, cookie)
        if number:
            return CHUNK.pack(CHUNK_MAGIC, DONE, ERROR | 1, cookie, 6) + struct.pack(">IH", number, 0)
        before = struct.pack(">Q", offset) if kind == READ else struct.pack(">I", _CONTEXT_ID)
        length = len(before) + sum(map(len, parts))
        return CHUNK.pack(CHUNK_MAGIC, DONE, OFFSET_DATA if kind == READ else STATUS, cookie, length) + before

    async def _status(self, offset: int, length: int, *, one: bool) -> bytes:
        assert isinstance(self._source, Sparse)
        extents = await self._source.extents(offset, length)
        return b"".join(struct.pack(">II", run, _HOLE if hole else 0) for run, hole in extents[: 1 if one else None])


def _texts(data: bytes) -> list[bytes]:
    """The queries for metadata contexts: a count, then length and text of each."""
    (count,) = struct.unpack_from(">I", data)
    found, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
        if at > len(data):
            raise ValueError
    return found
