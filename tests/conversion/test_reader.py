"""The reader, with a server that lies: what it is told goes no further than it may."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from xloud_image.conversion import nbd
from xloud_image.conversion.nbd import CHUNK, CHUNK_MAGIC, DONE, ERROR, OFFSET_DATA, OFFSET_HOLE
from xloud_image.conversion.reader import BLOCK, ZEROS, Closed, Reader, ReadFailed, Silent

SIZE = 3 * BLOCK + 1000


def option(
    number: int, kind: int, data: bytes = b"", length: int | None = None, magic: int = nbd.OPTION_MAGIC
) -> bytes:
    return nbd.OPTION_REPLY.pack(magic, number, kind, len(data) if length is None else length) + data


GREETING = nbd.GREETING.pack(nbd.PASSWORD, nbd.HAVE_OPTION, 3)
STRUCTURED = option(nbd.STRUCTURED_REPLY, nbd.REP_ACK)
EXPORT = option(nbd.GO, nbd.REP_INFO, nbd.EXPORT.pack(0, SIZE, 3))
AGREED = GREETING + STRUCTURED + EXPORT + option(nbd.GO, nbd.REP_ACK)


def chunk(
    kind: int, cookie: int, body: bytes, *, flags: int = 0, length: int | None = None, magic: int = CHUNK_MAGIC
) -> bytes:
    return CHUNK.pack(magic, flags, kind, cookie, len(body) if length is None else length) + body


def data(offset: int, body: bytes, *, cookie: int | None = None, flags: int = 0) -> bytes:
    return chunk(
        OFFSET_DATA, offset // BLOCK if cookie is None else cookie, struct.pack(">Q", offset) + body, flags=flags
    )


def hole(offset: int, length: int, *, cookie: int | None = None, flags: int = 0) -> bytes:
    return chunk(
        OFFSET_HOLE, offset // BLOCK if cookie is None else cookie, struct.pack(">QI", offset, length), flags=flags
    )


async def read(words: bytes, *, leave: bool = True, silence: float = 20.0) -> list[bytes]:
    """What the reader makes of a server that says these words, whatever it is asked."""
    ours, theirs = socket.socketpair()
    said = threading.Thread(target=_say, args=(theirs, words, leave))
    said.start()
    reader = Reader(ours, silence)
    try:
        assert await reader.begin() == SIZE
        return [chunk async for chunk in reader.chunks()]
    finally:
        await reader.aclose()
        assert ours.fileno() == -1
        await asyncio.to_thread(said.join)
        theirs.close()


def _say(sock: socket.socket, words: bytes, leave: bool) -> None:
    try:
        sock.sendall(words)
        if leave:
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
    except OSError:
        pass


async def test_replies_in_any_order_and_in_parts() -> None:
    rest = b"r" * 1000
    words = [
        data(3 * BLOCK, rest, flags=DONE),
        hole(BLOCK, BLOCK, flags=DONE),
        data(0, b"a" * 10),
        hole(2 * BLOCK, 4096),
        data(10, b"b" * (BLOCK - 10), cookie=0),
        data(2 * BLOCK + 4096, b"c" * (BLOCK - 4096), cookie=2),
        chunk(nbd.NO_DATA, 2, b"", flags=DONE),
        chunk(nbd.NO_DATA, 0, b"", flags=DONE),
    ]
    chunks = await read(AGREED + b"".join(words))
    assert b"".join(chunks) == (
        b"a" * 10 + b"b" * (BLOCK - 10) + bytes(BLOCK) + bytes(4096) + b"c" * (BLOCK - 4096) + rest
    )
    assert chunks[2] is ZEROS


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        nbd.GREETING.pack(nbd.PASSWORD, nbd.HAVE_OPTION, 0),
        GREETING + option(nbd.STRUCTURED_REPLY, nbd.REP_UNSUPPORTED),
        GREETING + option(nbd.STRUCTURED_REPLY, nbd.REP_ACK, length=1 << 31),
        GREETING + option(nbd.STRUCTURED_REPLY, nbd.REP_ACK, magic=1),
        GREETING + option(nbd.GO, nbd.REP_ACK),
        GREETING + STRUCTURED + option(nbd.GO, nbd.REP_UNKNOWN),
        GREETING + STRUCTURED + option(nbd.GO, nbd.REP_ACK),
        GREETING + STRUCTURED + EXPORT * 2 + option(nbd.GO, nbd.REP_ACK),
        GREETING + STRUCTURED + option(nbd.GO, nbd.REP_INFO, b"xx") * 1000,
    ],
)
async def test_what_is_no_handshake(words: bytes) -> None:
    with pytest.raises(Closed):
        await read(words)


LIES: list[Callable[[], bytes]] = [
    lambda: chunk(OFFSET_DATA, 0, bytes(8 + BLOCK), flags=DONE, magic=1),
    lambda: data(0, b"x", cookie=99),
    lambda: data(0, b"x", cookie=1),
    lambda: data(1, b"x"),
    lambda: data(0, b""),
    lambda: data(0, bytes(BLOCK + 1)),
    lambda: chunk(OFFSET_DATA, 0, bytes(8), length=0xFFFFFFFF),
    lambda: chunk(OFFSET_DATA, 0, bytes(8), length=0),
    lambda: hole(0, BLOCK + 1),
    lambda: hole(0, 0xFFFFFFFF),
    lambda: hole(0, 0),
    lambda: chunk(OFFSET_HOLE, 0, struct.pack(">QI", 0, BLOCK), length=1 << 31),
    lambda: data(0, b"x", flags=DONE),
    lambda: chunk(nbd.NO_DATA, 0, b"", flags=DONE),
    lambda: hole(BLOCK, BLOCK, flags=DONE) + hole(BLOCK, BLOCK, flags=DONE),
    lambda: hole(BLOCK, BLOCK, flags=DONE) + chunk(nbd.NO_DATA, 1, b"", flags=DONE),
    lambda: data(0, b"x") * 2,
    lambda: chunk(nbd.STATUS, 0, bytes(12)),
    lambda: chunk(77, 0, b""),
    lambda: hole(3 * BLOCK, BLOCK, flags=DONE),
    lambda: data(0, bytes(BLOCK)),
]


@pytest.mark.parametrize("lie", range(len(LIES)))
async def test_lies(lie: int) -> None:
    with pytest.raises(Closed):
        await read(AGREED + LIES[lie]())


async def test_an_error() -> None:
    for body in (struct.pack(">IH", 5, 0), struct.pack(">IH", 5, 60000) + b"x" * 60000):
        with pytest.raises(ReadFailed):
            await read(AGREED + chunk(ERROR | 1, 0, body, flags=DONE))


@pytest.mark.parametrize("words", [b"", GREETING, AGREED, AGREED + data(0, bytes(BLOCK))[:-1]])
async def test_silence(words: bytes) -> None:
    with pytest.raises(Silent):
        await read(words, leave=False, silence=0.5)
