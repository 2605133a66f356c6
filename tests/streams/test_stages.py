"""A stream behind stages: unchanged, counted, judged, digested; memory is bounded, errors come through."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from xloud_image.errors import BadRequest, FormatRefused, TooLarge
from xloud_image.inspection import Inspection
from xloud_image.streams.digest import BACKLOG, BATCH, Digest
from xloud_image.streams.stages import Inspect, Limit, Stage, through

MIB = 1 << 20


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


async def pieces(data: bytes, size: int, error: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
    if error is not None:
        raise error


async def drained(source: AsyncIterator[bytes], *stages: Stage) -> bytes:
    return b"".join([chunk async for chunk in through(source, stages)])


def raw() -> Inspection:
    return Inspection("raw", vmdk_types=(), match=True)


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 5 * MIB + 7])
@pytest.mark.parametrize("piece", [1000, 65536, 3 * MIB])
@pytest.mark.parametrize("known", [True, False])
async def test_bytes_and_findings(pool: ThreadPoolExecutor, size: int, piece: int, known: bool) -> None:
    data = os.urandom(size)
    names = ("md5", "sha1", "sha256", "sha512", "md5")
    limit, inspect, digest = Limit(size if known else None, 1 << 40), Inspect(raw()), Digest(names, pool)
    assert await drained(pieces(data, piece), limit, inspect, digest) == data
    assert (limit.size, inspect.virtual_size) == (size, size)
    assert await digest.hexes() == {name: hashlib.new(name, data).hexdigest() for name in names}


async def test_chunks_are_handed_on_as_they_came(pool: ThreadPoolExecutor) -> None:
    chunks = [os.urandom(100_000) for _ in range(20)]

    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    stages = Limit(None, 1 << 40), Inspect(raw()), Digest(("md5",), pool)
    passed = [chunk async for chunk in through(source(), stages)]
    assert all(mine is its for mine, its in zip(passed, chunks, strict=True))


async def test_stages_see_the_stream_in_their_order(pool: ThreadPoolExecutor) -> None:
    """Whatever changes the bytes on the way is seen by the stages behind it, and by no other."""

    async def upper(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            yield chunk.upper() * 2

    before, after, size = Digest(("md5",), pool), Digest(("md5",), pool), Limit(6, 6)
    assert await drained(pieces(b"abc", 3), before, upper, after, size) == b"ABCABC"
    assert (await before.hexes(), await after.hexes()) == (
        {"md5": hashlib.md5(b"abc").hexdigest()},
        {"md5": hashlib.md5(b"ABCABC").hexdigest()},
    )


async def test_there_are_no_digests_of_a_part(pool: ThreadPoolExecutor) -> None:
    digest = Digest(("md5",), pool)
    with pytest.raises(OSError, match="cut"):
        await drained(pieces(bytes(2 * MIB), MIB, OSError("cut")), digest)
    with pytest.raises(RuntimeError):
        await digest.hexes()


async def test_many_at_once(pool: ThreadPoolExecutor) -> None:
    """More streams than threads, and every digest is that of its own stream."""
    data = [os.urandom(MIB + number) for number in range(20)]

    async def one(number: int) -> str:
        digest = Digest(("md5", "sha512"), pool)
        await drained(pieces(data[number], 70_000), digest)
        return (await digest.hexes())["sha512"]

    assert await asyncio.gather(*map(one, range(20))) == [hashlib.sha512(each).hexdigest() for each in data]


async def test_a_slow_digest_holds_the_stream_up() -> None:
    """The stated bound: one stream holds no more than BACKLOG and one batch that its digests have not seen."""
    gate = threading.Event()
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(64):
            given += 65536
            yield bytes(65536)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)
        digest = Digest(("md5", "sha512"), pool)
        task = asyncio.ensure_future(drained(endless(), digest))
        await asyncio.sleep(0.3)
        assert not task.done()
        assert BACKLOG <= given <= BACKLOG + BATCH
        gate.set()
        assert len(await task) == 64 * 65536
        assert (await digest.hexes())["md5"] == hashlib.md5(bytes(64 * 65536)).hexdigest()


@pytest.mark.parametrize(
    ("size", "declared", "cap", "error"),
    [
        (100, 99, 1 << 40, BadRequest),
        (100, 101, 1 << 40, BadRequest),
        (0, 1, 1 << 40, BadRequest),
        (100, None, 99, TooLarge),
        (2 * MIB, 1 << 30, 1 << 40, BadRequest),
    ],
)
async def test_too_much_and_too_little(size: int, declared: int | None, cap: int, error: Any) -> None:
    with pytest.raises(error):
        await drained(pieces(bytes(size), 10_000), Limit(declared, cap))


class Endless:
    """Zeros without end, so many bytes at a time. `taken`: how many were asked for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.taken = 0

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> bytes:
        self.taken += self._size
        return bytes(self._size)


async def test_exactly_as_much_as_allowed() -> None:
    assert len(await drained(pieces(bytes(100), 10), Limit(100, 100))) == 100


async def test_too_much_is_noticed_at_once() -> None:
    source = Endless(1000)
    with pytest.raises(TooLarge):
        await drained(source, Limit(None, 10_500))
    assert source.taken == 11_000


async def test_an_error_of_the_source_passes_through(pool: ThreadPoolExecutor) -> None:
    error = RuntimeError("the client is gone")
    with pytest.raises(RuntimeError) as caught:
        await drained(pieces(bytes(MIB), 1000, error), Limit(None, 1 << 40), Inspect(raw()), Digest(("md5",), pool))
    assert caught.value is error


async def test_dangerous_content_stops_it() -> None:
    source = Endless(65536)
    inspection = Inspection("qcow2", vmdk_types=(), match=True)
    with pytest.raises(FormatRefused):
        await drained(source, Inspect(inspection))
    assert source.taken <= MIB


async def test_what_is_too_short_to_be_judged_is_judged_at_its_end() -> None:
    with pytest.raises(FormatRefused):
        await drained(pieces(b"QFI", 1), Inspect(Inspection("qcow2", vmdk_types=(), match=True)))


async def test_a_digest_that_fails_does_not_hang(pool: ThreadPoolExecutor) -> None:
    async def no_bytes() -> AsyncIterator[Any]:
        for _ in range(100):
            yield "x" * 65536

    with pytest.raises(TypeError):
        await drained(no_bytes(), Digest(("md5", "sha512"), pool))
