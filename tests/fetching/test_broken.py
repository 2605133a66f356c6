"""Servers that break off, change their mind between two ranges, or say and send what is not so."""

import asyncio
import contextlib
import random
import resource as system
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.fetching.conftest import Make, fetched
from tests.fetching.flawed import Flawed
from tests.servers.odd_web import OddWeb
from tests.servers.place import private_address
from xloud_image.errors import (
    ImageServiceError,
    SourceChanged,
    SourceRefused,
    SourceSilent,
    SourceUnavailable,
    TooLarge,
    UrlRefused,
)
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.resource import _Window
from xloud_image.stores.suite import noise

DATA = noise(2_500_000)
WINDOW = 256 << 10
SLACK = 512 << 10  # bytes of a connection that were sent and had not been read when it broke


@pytest.fixture
def server() -> Iterator[Flawed]:
    made = Flawed(DATA)
    yield made
    made.close()


async def test_four_windows_side_by_side(make: Make, server: Flawed) -> None:
    assert await fetched(make(), server.url) == DATA
    assert server.sent == len(DATA) + 1, "each byte once, and one to see that there are ranges"
    spans = sorted(span for span in server.seen[1:] if span is not None)
    assert [first for first, _ in spans] == list(range(0, len(DATA), WINDOW))
    assert server.most <= 4


@pytest.mark.parametrize("cut", [0, 1, 100_000])
async def test_what_breaks_is_taken_up_where_it_broke(make: Make, server: Flawed, cut: int) -> None:
    server.cut, server.cuts = cut, 10
    assert await fetched(make(window=1 << 20, connections=2, retries=10), server.url) == DATA
    assert server.cuts == 0
    assert server.sent <= len(DATA) + 10 * min(SLACK, cut) + 1
    ahead = [span[0] for span in server.seen[1:] if span is not None]
    assert cut < 2 or len(set(ahead)) > 3, "not at the beginning of the window"


async def test_random_access_is_taken_up_too(make: Make, server: Flawed) -> None:
    server.cut, server.cuts = 100_000, 3
    async with make().open(server.url, trusted=True) as found:
        assert await found.read(500_000, 1_000_000) == DATA[500_000:1_500_000]
    assert server.cuts == 0


async def test_attempts_are_bounded(make: Make, server: Flawed) -> None:
    async with make(retries=3, connections=1).open(server.url, trusted=True) as found:
        server.cut, server.cuts = 0, 1000
        before = len(server.seen)
        with pytest.raises(SourceUnavailable, match="broke off") as caught:
            await found.read(0, 1000)
        assert len(server.seen) - before == 4
        assert caught.value.temporary


async def test_ranges_without_their_bytes_are_no_loop(make: Make, server: Flawed) -> None:
    server.how = lambda number, span: "none" if number else ""
    async with asyncio.timeout(60):
        with pytest.raises(SourceUnavailable, match="ended too early"):
            await fetched(make(retries=2, connections=1), server.url)
    assert len(server.seen) == 4


async def test_one_stream_is_not_taken_up(make: Make, server: Flawed) -> None:
    server.how = lambda number, span: "whole"
    server.cut, server.cuts = 1_000_000, 1
    with pytest.raises(SourceUnavailable, match="broke off"):
        await fetched(make(), server.url)
    assert len(server.seen) == 1


async def test_memory_is_bounded_when_nobody_reads(make: Make, server: Flawed) -> None:
    server.data = noise(4 << 20) * 8
    async with make(window=1 << 20).open(server.url, trusted=True) as found:
        chunks = found.chunks()
        got = len(await anext(chunks))
        before = -1
        while server.sent != before:
            before = server.sent
            await asyncio.sleep(0.5)
        assert got < 2 << 20
        assert before <= (4 << 20) + 1, "four windows and no more"
        async for chunk in chunks:
            got += len(chunk)
        assert got == len(server.data)


async def test_a_byte_at_a_time_takes_no_more_memory() -> None:
    """Windows that wait for their turn are held as few pieces."""
    window = _Window()
    for number in range(300_000):
        window.give(DATA[number : number + 1])
    window.end(None)
    pieces = [piece async for piece in window.branch]
    assert b"".join(pieces) == DATA[:300_000]
    assert len(pieces) <= 5


@pytest.mark.parametrize("width", [1, 2])
async def test_a_server_that_takes_few_at_once(make: Make, server: Flawed, width: int) -> None:
    """Windows that are refused wait for their turn: no more attempts are needed than for one connection."""
    server.data = DATA[:1_200_000]
    server.width = width
    server.how = lambda number, span: "late" if number else ""
    assert await fetched(make(pause=0.05, retries=2), server.url) == server.data
    assert len(server.seen) <= 1 + 5 + 5, "once it has refused, it is asked for no more than it takes"


async def test_whoever_still_reads_when_the_file_is_closed_hears_of_it(make: Make, server: Flawed) -> None:
    server.how = lambda number, span: "hang" if number else ""
    async with make().open(server.url, trusted=True) as found:

        async def read() -> None:
            async for _ in found.chunks():
                pass

        reading = asyncio.create_task(read())
        while len(server.seen) < 3:
            await asyncio.sleep(0.01)
    with pytest.raises(SourceUnavailable, match="was closed"):
        async with asyncio.timeout(20):
            await reading


# ranges that are none


@pytest.mark.parametrize("how", ["whole", "wrong", "416", "multipart", "more", "400", "403", "501"])
async def test_ranges_that_are_none_from_the_first(make: Make, server: Flawed, how: str) -> None:
    server.how = lambda number, span: "" if span is None else how
    async with make().open(server.url, trusted=True) as found:
        if how != "more":
            assert not found.ranges
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA


@pytest.mark.parametrize("how", ["whole", "wrong", "416", "multipart", "more", "bare", "400", "403", "501"])
@pytest.mark.parametrize("begin", [1, 5])
async def test_ranges_that_are_none_later(make: Make, server: Flawed, how: str, begin: int) -> None:
    """What was handed on stays, the rest comes in one piece."""
    server.condition = how != "bare"
    server.how = lambda number, span: how if span is not None and number >= begin else ""
    async with make(connections=2).open(server.url, trusted=True) as found:
        assert found.ranges
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA
        assert not found.ranges
    assert server.seen.count(None) == 1
    if how not in ("whole", "bare"):  # what is sent into the void then is up to the buffers of both sides
        assert server.sent < 2 * len(DATA) + 8 * WINDOW


async def test_a_part_without_a_validator_is_believed_with_a_condition(make: Make, server: Flawed) -> None:
    """Answers to `If-Range` may leave out what the client has."""
    server.how = lambda number, span: "bare" if number else ""
    async with make().open(server.url, trusted=True) as found:
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA
        assert found.ranges


async def test_a_server_that_takes_the_condition_amiss(make: Make, server: Flawed) -> None:
    server.condition = False
    async with make().open(server.url, trusted=True) as found:
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA
        assert found.ranges


async def test_without_a_validator_there_is_one_stream(make: Make, server: Flawed) -> None:
    """Nobody could say that two ranges are of one file."""
    server.tag, server.date = (lambda number: 'W/"one"'), None
    async with make().open(server.url, trusted=True) as found:
        assert (found.ranges, found.validator, found.size) == (False, None, len(DATA))
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA


# changes


async def test_a_change_between_two_ranges(make: Make, server: Flawed) -> None:
    server.tag = lambda number: '"one"' if number < 6 else '"two"'
    with pytest.raises(SourceChanged, match="begin anew") as caught:
        await fetched(make(connections=2), server.url)
    assert (caught.value.temporary, caught.value.status) == (False, 502)
    assert await fetched(make(), server.url, plain=True) == DATA, "and in one piece"


async def test_a_change_before_the_first_byte_is_none(make: Make, server: Flawed) -> None:
    """Mirrors behind one name that have tags of their own."""
    server.tag = lambda number: f'"{number}"'
    async with make().open(server.url, trusted=True) as found:
        assert b"".join([chunk async for chunk in found.chunks()]) == DATA
        assert not found.ranges


async def test_a_change_of_the_size_is_seen_under_the_same_tag(make: Make, server: Flawed) -> None:
    async with make().open(server.url, trusted=True) as found:
        assert await found.read(0, 10) == DATA[:10]
        server.data = DATA + b"more"
        with pytest.raises(SourceChanged):
            await found.read(0, 10)


async def test_a_change_of_the_size_is_always_one(make: Make, server: Flawed) -> None:
    async with make().open(server.url, trusted=True) as found:
        server.data, server.tag = DATA[:-1], lambda number: '"two"'
        with pytest.raises(SourceChanged):
            await anext(found.chunks())
        assert found.size == len(DATA)


async def test_one_stream_of_another_file_goes_on_with_nothing(make: Make, server: Flawed) -> None:
    """Ranges end and the file changes at once."""
    server.how = lambda number, span: "416" if span is not None and number >= 4 else ""
    server.tag = lambda number: '"one"' if number < 6 else '"two"'
    with pytest.raises(SourceChanged):
        await fetched(make(connections=1), server.url)


@pytest.mark.parametrize("seed", range(40))
async def test_any_mixture(make: Make, server: Flawed, seed: int) -> None:
    """The bytes of one file in order, or an error of ours: never those of two, and never a loop."""
    chance = random.Random(seed)
    ways = [chance.choice((*WAYS, *[""] * 20)) for _ in range(500)]
    changes = sorted(chance.choices(range(1, 60), k=chance.choice((0, 0, 1, 2))))
    server.other = {'"new"': DATA[::-1]}
    server.tag = lambda number: ('"one"', '"new"')[sum(number >= change for change in changes) % 2]
    server.how = lambda number, span: ways[number] if span is not None or ways[number] == "503" else ""
    server.cut, server.cuts = chance.randrange(WINDOW), chance.choice((0, 3, 30))
    server.width = chance.choice((0, 0, 1, 2))
    server.condition = chance.random() < 0.8
    got = bytearray()
    fetcher = make(silence=1.0, connections=chance.choice((1, 2, 4)))
    whole = False
    with contextlib.suppress(SourceChanged, SourceUnavailable):
        async with fetcher.open(server.url, trusted=True) as found:
            async for chunk in found.chunks():
                got += chunk
            whole = True
    assert len(server.seen) < len(ways)
    assert any(data == got if whole else data.startswith(got) for data in (DATA, DATA[::-1]))


WAYS = ("whole", "wrong", "416", "multipart", "more", "503", "500", "400")


# slow and silent ones


async def test_a_drip_is_cut(make: Make, server: Flawed) -> None:
    server.how = lambda number, span: "drip" if number else ""
    with pytest.raises(SourceSilent, match="too slowly: fewer than 1000 bytes a second"):
        await fetched(make(rate=1000, rate_seconds=0.5, retries=1), server.url)


async def test_a_drip_is_taken_where_any_rate_is(make: Make, server: Flawed) -> None:
    server.data = DATA[:30]
    server.how = lambda number, span: "drip"
    assert await fetched(make(rate=0, rate_seconds=0.01), server.url) == DATA[:30]


async def test_silence_in_the_middle(make: Make, server: Flawed) -> None:
    server.how = lambda number, span: "hang" if number == 2 else ""
    fetcher = make(silence=1.0)
    assert await fetched(fetcher, server.url) == DATA, "asked again"
    server.how = lambda number, span: "hang"
    with pytest.raises(SourceSilent, match="no answer in time") as caught:
        await fetched(make(silence=0.5, retries=1), server.url)
    assert caught.value.temporary


async def test_a_server_that_never_answers(make: Make) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(nothing, private_address(), 0)
    url = f"http://{private_address()}:{listener.sockets[0].getsockname()[1]}/"
    for limits in ({"silence": 0.5}, {"first_byte": 0.3, "connect": 0.1}):
        with pytest.raises(SourceSilent, match="does not answer"):
            await fetched(make(retries=0, **limits), url)
    listener.close()


# what web servers out there do


@pytest.fixture(scope="module")
def odd() -> Iterator[OddWeb]:
    made = OddWeb(DATA[:50_000])
    yield made
    made.close()


# mode: whether there are ranges, None: not looked at
READ = {
    **dict.fromkeys(("good", "head403", "head404", "head500", "headcut", "longtag", "chain", "toblank"), True),
    **dict.fromkeys(("r206none", "r200part", "r416", "r416told", "r501", "rangeignored", "multipart"), False),
    **dict.fromkeys(("weak", "tag"), True),
    **dict.fromkeys(("wrongstart", "changed", "chunked", "http10"), False),
    "changing": True,
}
REFUSED: dict[str, tuple[type[ImageServiceError], str]] = {
    "parts": (SourceRefused, "it answers 206"),
    "packed": (SourceRefused, "sends the file packed"),
    "page": (SourceRefused, "web page"),
    "nothing": (SourceRefused, "it answers 204"),
    "loop": (UrlRefused, "more than 5 times"),
    "cookies": (UrlRefused, "more than 5 times"),
    "tofile": (UrlRefused, "redirects to something"),
    "tonode": (UrlRefused, "own node"),
    "tometadata": (UrlRefused, "own node"),
    "slowheaders": (SourceSilent, "does not answer within"),
    "slowbody": (SourceSilent, "too slowly"),
    "cut": (SourceUnavailable, "closed the connection"),
    "notext": (SourceRefused, "no proper HTTP"),
    "twolengths": (SourceRefused, "no proper HTTP"),
    "less": (SourceUnavailable, "ended too early"),
    "huge": (SourceUnavailable, "ended too early"),
    "astronomic": (SourceRefused, "no proper HTTP"),
    "endlessheaders": (SourceRefused, "no proper HTTP"),
    "endlessline": (SourceRefused, "no proper HTTP"),
    "endlessstatus": (SourceRefused, "no proper HTTP"),
    "endlesshints": (SourceRefused, "no proper HTTP"),
}


@pytest.mark.parametrize("mode", READ)
async def test_an_odd_server_is_read_right(make: Make, odd: OddWeb, mode: str) -> None:
    async with make(window=16 << 10).open(odd.url(mode), trusted=True) as found:
        assert found.ranges is READ[mode]
        assert b"".join([chunk async for chunk in found.chunks()]) == odd.data


@pytest.mark.parametrize("mode", REFUSED)
async def test_an_odd_server_is_refused_in_true_words(make: Make, odd: OddWeb, mode: str) -> None:
    kind, words = REFUSED[mode]
    patience = {"first_byte": 1.0, "connect": 1.0} if mode == "slowheaders" else {}
    if mode == "slowbody":
        patience = {"rate": 1000, "rate_seconds": 0.5}
    before = system.getrusage(system.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind, match=words) as caught:
        await fetched(make(retries=1, **patience), odd.url(mode))
    assert str(odd.port) not in caught.value.message
    assert system.getrusage(system.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


async def test_chunks_without_end_meet_the_cap(fetcher: Fetcher) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    listener = await asyncio.start_server(endless, private_address(), 0)
    url = f"http://{private_address()}:{listener.sockets[0].getsockname()[1]}/"
    got = 0

    async def read(chunks: AsyncIterator[bytes]) -> None:
        nonlocal got
        async for chunk in chunks:
            got += len(chunk)

    async with fetcher.open(url, trusted=True, most=10 << 20) as found:
        assert found.size is None
        with pytest.raises(TooLarge, match=f"more than the {10 << 20} bytes"):
            await read(found.chunks())
    assert got <= 10 << 20
    listener.close()


# mirrors and signed URLs


async def test_mirrors_are_asked_for_once(make: Make, server: Flawed, odd: OddWeb) -> None:
    """A site that sends each request to another mirror is asked where, and no more until one breaks."""
    other = Flawed(DATA)
    other.tag = lambda number: '"of the other"'
    asked = 0

    async def sends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        place = (server, other)[asked % 2].url
        asked += 1
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    site = await asyncio.start_server(sends, private_address(), 0)
    url = f"http://{private_address()}:{site.sockets[0].getsockname()[1]}/"
    assert await fetched(make(), url) == DATA
    assert (asked, len(other.seen)) == (1, 0)
    # a signed URL ends in the middle: where it leads is asked anew
    asked = 0
    server.seen.clear()
    other.tag = server.tag
    server.how = lambda number, span: "403" if number > 4 else ""
    assert await fetched(make(connections=2), url) == DATA
    assert asked >= 2
    assert len(other.seen) > 0
    site.close()
    other.close()
