"""Bodies of known length, which are received beside the parser (`kit.body`): they are what was sent, however it comes,
and the connection is good for the next request afterwards, or ended."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.servers.certificates import authority
from tests.servers.place import HOST
from xloud_image.errors import StoreUnavailable
from xloud_image.stores.kit.web import Web
from xloud_image.stores.suite import MIB, noise

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request by `send` behind headers that announce `size` bytes; `connections` so far, and how many are
    `open`."""

    def __init__(self, size: int, send: Send, *, tls: bool = False) -> None:
        self.size, self.send, self.tls = size, send, tls
        self.connections = self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
                await self.send(writer)
        self.open -= 1
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(size: int, send: Send, *, tls: bool = False, idle: float = 60.0) -> AsyncIterator[tuple[Server, Web]]:
    server, context = Server(size, send, tls=tls), None
    if tls:
        pair = authority().issue("localhost", HOST)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
    web = Web("web", ca_file=str(authority().ca) if tls else None, idle=idle)
    async with await asyncio.start_server(server.serve, HOST, 0, ssl=context) as listening:
        server.url = f"{'https' if tls else 'http'}://{HOST}:{listening.sockets[0].getsockname()[1]}/"
        yield server, web
        await web.aclose()
        while server.open:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def reading(server: Server, web: Web) -> AsyncIterator[AsyncIterator[bytes]]:
    async with web.answer("GET", server.url) as response:
        yield web.chunks(response)


async def read(chunks: AsyncIterator[bytes], into: bytearray) -> None:
    async for chunk in chunks:
        into += chunk


async def whole(server: Server, web: Web) -> list[bytes]:
    async with reading(server, web) as chunks:
        return [chunk async for chunk in chunks]


def sends(*pieces: bytes) -> Send:
    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return send


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("size", [MIB - 1, MIB, 3 * MIB + 17, 24 * MIB])
async def test_it_is_what_was_sent_and_the_connection_is_used_again(tls: bool, size: int) -> None:
    data = noise(size)
    async with serving(size, sends(data), tls=tls) as (server, web):
        for _ in range(3):
            assert b"".join(await whole(server, web)) == data
        assert server.connections == 1


async def test_what_comes_fast_comes_in_large_chunks() -> None:
    async with serving(64 * MIB, sends(*[bytes(MIB)] * 64)) as (server, web):
        sizes = [len(chunk) for chunk in await whole(server, web)]
    assert sum(sizes) == 64 * MIB
    assert 256 * 1024 < max(sizes) <= MIB


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("piece", [100, 100_000])
async def test_what_comes_slowly_is_not_waited_for(tls: bool, piece: int) -> None:
    """Each piece is sent when the one before has been read."""
    size, read = 2 * MIB, asyncio.Event()
    data = noise(size)

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data[: size - 20 * piece])
        for start in range(size - 20 * piece, size, piece):
            await read.wait()
            read.clear()
            writer.write(data[start : start + piece])

    async with serving(size, send, tls=tls) as (server, web), reading(server, web) as chunks:
        got = bytearray()
        async for chunk in chunks:
            got += chunk
            if (len(got) - size) % piece == 0 and len(got) >= size - 20 * piece:
                read.set()
    assert got == data


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_that_ends_early(tls: bool) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        await sends(bytes(3 * MIB))(writer)
        writer.close()
        await writer.wait_closed()

    async with serving(4 * MIB, send, tls=tls) as (server, web):
        got = bytearray()
        async with reading(server, web) as chunks:
            with pytest.raises(StoreUnavailable, match="broke off: the data ended too early"):
                await read(chunks, got)
        assert len(got) == 3 * MIB
        server.send = sends(bytes(4 * MIB))
        assert sum(map(len, await whole(server, web))) == 4 * MIB


@pytest.mark.parametrize("sent", [1000, 3 * MIB + 1000])
async def test_silence_ends_it(sent: int) -> None:
    async with serving(4 * MIB, sends(bytes(sent)), idle=0.5) as (server, web), reading(server, web) as chunks:
        got = bytearray()
        with pytest.raises(StoreUnavailable, match="broke off: no answer in time"):
            await read(chunks, got)
        assert len(got) == sent


async def test_more_than_was_announced_ends_the_connection() -> None:
    data = noise(2 * MIB)
    async with serving(2 * MIB, sends(data, b"and more")) as (server, web):
        for _ in range(3):
            assert b"".join(await whole(server, web)) == data
        assert server.connections == 3


async def test_a_slow_reader_holds_little() -> None:
    """What he does not take stays with the server, and in the kernel."""
    sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(1024):
            writer.write(bytes(MIB))
            await writer.drain()
            sent += MIB

    async with serving(1024 * MIB, send) as (server, web), reading(server, web) as chunks:
        await anext(chunks)
        known = -1
        while known != sent:
            known = sent
            await asyncio.sleep(0.5)
        assert sent < 64 * MIB
        for _ in range(100):
            assert await anext(chunks)


@pytest.mark.parametrize("tls", [False, True])
async def test_whoever_leaves_early_ends_the_connection(tls: bool) -> None:
    async with serving(64 * MIB, sends(bytes(64 * MIB)), tls=tls) as (server, web):
        async with reading(server, web) as chunks:
            await anext(chunks)
        while server.open:
            await asyncio.sleep(0.01)
        assert sum(map(len, await whole(server, web))) == 64 * MIB
        assert server.connections == 2
