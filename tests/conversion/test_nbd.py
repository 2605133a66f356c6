"""The NBD server, asked by the clients that there are, and by one that lies."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conversion import disks
from tests.conversion.disks import MIB, Memory
from tests.servers.place import new_directory, program
from xloud_image.conversion import nbd
from xloud_image.conversion.nbd import Server
from xloud_image.conversion.source import ReadAhead, Source
from xloud_image.errors import FormatRefused, StoreUnavailable


@pytest.fixture
async def served() -> AsyncIterator[Any]:
    """Serves a source on a Unix socket, each client by a server of its own; gives the URL."""
    tasks: list[asyncio.Task[None]] = []
    listeners: list[socket.socket] = []

    def begin(source: Source) -> str:
        path = new_directory("nbd") / "socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(8)
        listener.setblocking(False)
        listeners.append(listener)

        async def accept() -> None:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
                tasks.append(asyncio.create_task(Server(source, client).serve()))

        tasks.append(asyncio.create_task(accept()))
        return f"nbd+unix:///?socket={path}"

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for listener in listeners:
        listener.close()


async def said(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, words = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, words.decode()
    return out.decode()


# real clients


async def test_nbdinfo(served: Any) -> None:
    nbdinfo = program("nbdinfo", "libnbd-bin")
    with disks.opened(disks.made("raw")) as source:
        url = served(source)
        told = json.loads(await said(nbdinfo, "--json", url))
        assert (told["protocol"], told["structured"]) == ("newstyle-fixed", True)
        (export,) = told["exports"]
        assert (export["export-size"], export["is_read_only"]) == (source.size, True)
        assert export["contexts"] == ["base:allocation"]
        assert (export["block_size_minimum"], export["block_size_maximum"]) == (1, nbd.MOST)
        assert await said(nbdinfo, "--list", url)
        mapped = json.loads(await said(nbdinfo, "--map", "--json", url))
        assert sum(run["length"] for run in mapped) == source.size
        for run in mapped:
            part = disks.content()[run["offset"] : run["offset"] + run["length"]]
            assert run["type"] == (3 if not part.strip(b"\0") else 0)
        assert any(run["type"] == 3 for run in mapped)


async def test_a_source_without_holes(served: Any) -> None:
    nbdinfo = program("nbdinfo", "libnbd-bin")
    told = json.loads(await said(nbdinfo, "--json", served(Memory(bytes(1000)))))
    (export,) = told["exports"]
    assert (export["export-size"], export.get("contexts", [])) == (1000, [])


@pytest.mark.parametrize("size", [0, 1, 511, 513, MIB, 9 * MIB + 1])
async def test_nbdcopy(served: Any, size: int) -> None:
    data = (disks.content() * 1)[:size]
    copy = new_directory("nbd") / "copy"
    await said(program("nbdcopy", "libnbd-bin"), served(Memory(data)), copy)
    assert copy.read_bytes() == data


async def test_qemu_img(served: Any) -> None:
    qemu_img = program("qemu-img", "qemu-utils")
    with disks.opened(disks.made("raw")) as source:
        assert "identical" in await said(
            qemu_img, "compare", "-f", "raw", "-F", "raw", served(source), disks.made("raw")
        )
    with disks.opened(disks.made("qcow2")) as source:
        assert "identical" in await said(
            qemu_img, "compare", "-f", "qcow2", "-F", "raw", served(source), disks.made("raw")
        )


# a client that lies


class Client:
    """Speaks the protocol as it is told to."""

    def __init__(self, source: Source, **how: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.socket, self.server = ours, Server(source, theirs, **how)
        self.task = asyncio.create_task(self.server.serve())

    async def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            came = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, count - len(data)), 20)
            if not came:
                raise EOFError
            data += came
        return data

    async def give(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def greet(self, flags: int = 3) -> None:
        assert await self.take(18) == b"NBDMAGICIHAVEOPT\0\3"
        await self.give(struct.pack(">I", flags))

    async def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        await self.give(nbd.OPTION.pack(nbd.HAVE_OPTION, number, len(data)) + data)
        told = []
        while not told or not (told[-1][0] == nbd.REP_ACK or told[-1][0] & 1 << 31):
            magic, about, kind, length = nbd.OPTION_REPLY.unpack(await self.take(nbd.OPTION_REPLY.size))
            assert (magic, about) == (nbd.OPTION_MAGIC, number)
            told.append((kind, await self.take(length)))
        return told

    async def request(self, kind: int, offset: int, length: int, cookie: int = 7, magic: int = 0x25609513) -> None:
        await self.give(nbd.REQUEST.pack(magic, 0, kind, cookie, offset, length))

    async def simple(self) -> tuple[int, int]:
        magic, error, cookie = struct.unpack(">IIQ", await self.take(16))
        assert magic == nbd.REPLY_MAGIC
        return error, cookie

    async def left(self) -> bool:
        """Whether the server has hung up."""
        await asyncio.wait_for(self.task, 20)
        self.socket.close()
        return True


async def ready(source: Source, **how: Any) -> Client:
    client = Client(source, **how)
    await client.greet()
    assert (await client.option(nbd.GO, bytes(6)))[-1][0] == nbd.REP_ACK
    return client


async def test_the_oldest_clients() -> None:
    for flags, zeros in ((1, 124), (3, 0)):
        client = Client(Memory(b"12345"))
        await client.greet(flags)
        await client.give(nbd.OPTION.pack(nbd.HAVE_OPTION, nbd.EXPORT_NAME, 0))
        size, _ = struct.unpack(">QH", await client.take(10))
        assert (size, await client.take(zeros) if zeros else b"") == (5, bytes(zeros))
        await client.request(nbd.READ, 1, 3)
        assert (await client.simple(), await client.take(3)) == ((0, 7), b"234")
        await client.request(nbd.DISCONNECT, 0, 0)
        assert await client.left()


async def test_options() -> None:
    client = Client(Memory(b"12345"))
    await client.greet()
    named = struct.pack(">I4sH", 4, b"name", 0)
    assert await client.option(nbd.GO, named) == [(nbd.REP_UNKNOWN, b"")]
    for number, data in (
        (nbd.GO, b""), (nbd.GO, b"\xff" * 6), (nbd.LIST, b"x"), (nbd.STRUCTURED_REPLY, b"x"),
        (nbd.SET_CONTEXT, struct.pack(">II", 0, 0)),  # before structured replies
    ):  # fmt: skip
        assert await client.option(number, data) == [(nbd.REP_INVALID, b"")], number
    assert await client.option(nbd.STRUCTURED_REPLY) == [(nbd.REP_ACK, b"")]
    for queries in (struct.pack(">II", 0, 1 << 31), struct.pack(">III", 0, 1, 1 << 31)):
        assert await client.option(nbd.SET_CONTEXT, queries) == [(nbd.REP_INVALID, b"")]
    assert await client.option(5) == [(nbd.REP_UNSUPPORTED, b"")]  # STARTTLS
    assert await client.option(nbd.LIST) == [(nbd.REP_SERVER, bytes(4)), (nbd.REP_ACK, b"")]
    assert await client.option(nbd.ABORT) == [(nbd.REP_ACK, b"")]
    assert await client.left()


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 3) + nbd.OPTION.pack(b"IHAVENOT", nbd.LIST, 0),
        struct.pack(">I", 3) + nbd.OPTION.pack(nbd.HAVE_OPTION, nbd.LIST, 1 << 31),
        struct.pack(">I", 3) + nbd.OPTION.pack(nbd.HAVE_OPTION, nbd.EXPORT_NAME, 1) + b"x",
        struct.pack(">I", 3) + nbd.OPTION.pack(nbd.HAVE_OPTION, nbd.LIST, 0) * 1000,
        b"",
    ],
)
async def test_what_is_no_handshake(words: bytes) -> None:
    client = Client(Memory(b"12345"))
    await client.take(18)
    await client.give(words)
    client.socket.shutdown(socket.SHUT_WR)
    assert await client.left()
    assert client.server.failure is None


async def test_reads_have_bounds() -> None:
    source = Memory(disks.content())
    client = await ready(source)
    wrong = [(0, 0), (source.size, 1), (source.size - 1, 2), (1 << 63, 1), ((1 << 64) - 1, 1), (0, nbd.MOST + 1)]
    for offset, length in wrong:
        await client.request(nbd.READ, offset, length)
        assert await client.simple() == (22, 7)
    for kind in (3, 4, 5, 6, nbd.BLOCK_STATUS, 999):
        await client.request(kind, 0, 1)
        assert await client.simple() == (22, 7)
    assert source.reads == []
    await client.request(nbd.READ, source.size - 1, 1)
    assert (await client.simple(), await client.take(1)) == ((0, 7), source.data[-1:])
    await client.request(nbd.WRITE, 0, 1 << 30)
    assert await client.left()


async def test_what_is_no_request() -> None:
    client = await ready(Memory(b"12345"))
    await client.request(nbd.READ, 0, 1, magic=1)
    assert await client.left()


async def test_requests_in_flight_and_no_more() -> None:
    gate = asyncio.Event()
    source = Memory(disks.content() * 6)
    source.before = lambda offset, _: gate.wait() if offset else None
    client = await ready(source)
    for cookie in range(1, 41):
        await client.request(nbd.READ, cookie * 3_000_000, 1, cookie)
    await client.request(nbd.READ, 0, 1, 99)
    async with asyncio.timeout(20):
        while len(source.reads) < 16:
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (len(source.reads), client.server.asked) == (16, 16)
    gate.set()
    answers = {}
    for _ in range(41):
        error, cookie = await client.simple()
        answers[cookie] = (error, await client.take(1))
    places = {99: 0} | {cookie: cookie * 3_000_000 for cookie in range(1, 41)}
    assert answers == {cookie: (0, source.data[at : at + 1]) for cookie, at in places.items()}
    client.socket.close()
    assert await client.left()


async def test_a_client_that_leaves_ends_the_reads() -> None:
    ended = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    source = Memory(disks.content())
    source.before = lambda *_: hang()
    client = await ready(source)
    await client.request(nbd.READ, 0, 1)
    async with asyncio.timeout(20):
        while not source.reads:
            await asyncio.sleep(0)
    client.socket.close()
    assert await client.left()
    assert ended == [True]


async def test_an_error_of_the_source_is_told_and_kept() -> None:
    source = Memory(disks.content())
    wrong = StoreUnavailable("the store is away")

    def fail(*_: int) -> None:
        raise wrong

    source.before = fail
    client = await ready(source)
    await client.request(nbd.READ, 0, 10)
    assert await client.simple() == (5, 7)
    assert client.server.failure is wrong
    client.socket.close()
    assert await client.left()


async def test_a_source_that_gives_too_little() -> None:
    source = Memory(b"12345")
    source.size = 10
    client = await ready(source)
    await client.request(nbd.READ, 0, 10)
    assert await client.simple() == (5, 7)
    assert isinstance(client.server.failure, OSError)
    client.socket.close()
    assert await client.left()


async def test_reads_past_the_end() -> None:
    """A disk whose format does not tell the length of its file may lack a part of its last cluster, and no more."""
    source = Memory(b"x" * 1000)
    client = await ready(source, over=512)
    await client.request(nbd.READ, 900, 611)
    assert (await client.simple(), await client.take(611)) == ((0, 7), b"x" * 100 + bytes(511))
    await client.request(nbd.READ, 900, 612)
    assert await client.simple() == (5, 7)
    assert isinstance(client.server.failure, FormatRefused)
    client.server.failure = None
    await client.request(nbd.READ, 1000, 1)
    assert await client.simple() == (5, 7)
    assert isinstance(client.server.failure, FormatRefused)
    client.socket.close()
    assert await client.left()


# reading ahead


async def test_reads_in_order_become_few_large_ones() -> None:
    source = Memory(disks.content())
    ahead = ReadAhead(source)
    data = bytearray()
    for at in range(0, source.size, 65536):
        for view in await ahead.read(at, 65536):
            data += view
        await asyncio.sleep(0)
    assert data == source.data
    assert sum(length for _, length in source.reads) == source.size, "nothing is read twice"
    assert len(source.reads) <= 10
    assert max(length for _, length in source.reads) == 8 * MIB
    await ahead.aclose()


async def test_what_follows_is_read_before_it_is_asked_for() -> None:
    source = Memory(disks.content())
    ahead = ReadAhead(source)
    upto = 0
    while upto < 6 * MIB:
        await ahead.read(upto, 65536)
        upto += 65536
    for _ in range(3):
        await asyncio.sleep(0)
    assert max(offset + length for offset, length in source.reads) >= upto + 4 * MIB
    await ahead.aclose()


async def test_small_reads_here_and_there_stay_small() -> None:
    source = Memory(bytes(256 * MIB))
    ahead = ReadAhead(source)
    places = [(number * 7919 % 250) * MIB for number in range(100)]
    for at in places * 3:
        await ahead.read(at, 4096)
    assert len(source.reads) == len(places), "what was read lately is kept"
    assert max(length for _, length in source.reads) <= 256 << 10
    await ahead.aclose()


async def test_what_is_kept_is_bounded() -> None:
    source = Memory(bytes(128 * MIB))
    ahead = ReadAhead(source)
    for at in range(0, source.size, MIB):
        await ahead.read(at, MIB)
        held = sum(piece.length for piece in ahead._pieces.values())
        assert (held, held <= 40 * MIB) == (ahead._held, True)
    await ahead.aclose()


async def test_a_failed_read_is_asked_for_again() -> None:
    source = Memory(disks.content())
    errors = [OSError("once")]

    def fail(*_: int) -> None:
        if errors:
            raise errors.pop()

    source.before = fail
    ahead = ReadAhead(source)
    with pytest.raises(OSError, match="once"):
        await ahead.read(0, 10)
    assert bytes((await ahead.read(0, 10))[0]) == source.data[:10]
    await ahead.aclose()
