"""A stream on its way: unchanged, counted, digested; memory is bounded, errors come through."""

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
from xloud_image.streams import BACKLOG, BATCH, Flow

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


def flow(source: AsyncIterator[bytes], pool: ThreadPoolExecutor, **how: Any) -> Flow:
    options: dict[str, Any] = {"declared": None, "cap": 1 << 40, "digests": ("md5", "sha512"), "inspection": None}
    return Flow(source, pool=pool, **{**options, **how})


async def drained(one: Flow) -> bytes:
    return b"".join([chunk async for chunk in one])


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 5 * MIB + 7])
@pytest.mark.parametrize("piece", [1000, 65536, 3 * MIB])
@pytest.mark.parametrize("known", [True, False])
async def test_bytes_and_digests(pool: ThreadPoolExecutor, size: int, piece: int, known: bool) -> None:
    data = os.urandom(size)
    names = ("md5", "sha1", "sha256", "sha512")
    one = flow(pieces(data, piece), pool, declared=size if known else None, digests=names)
    assert await drained(one) == data
    summary = await one.result()
    assert (summary.size, summary.virtual_size) == (size, None)
    assert summary.digests == {name: hashlib.new(name, data).hexdigest() for name in names}


async def test_many_at_once(pool: ThreadPoolExecutor) -> None:
    """More streams than threads, and every digest is that of its own stream."""
    data = [os.urandom(MIB + number) for number in range(20)]

    async def one(number: int) -> str:
        stream = flow(pieces(data[number], 70_000), pool)
        await drained(stream)
        return (await stream.result()).digests["sha512"]

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
        one = flow(endless(), pool)
        task = asyncio.ensure_future(drained(one))
        await asyncio.sleep(0.3)
        assert not task.done()
        assert BACKLOG <= given <= BACKLOG + BATCH
        gate.set()
        assert len(await task) == 64 * 65536
        assert (await one.result()).digests["md5"] == hashlib.md5(bytes(64 * 65536)).hexdigest()


@pytest.mark.parametrize(
    ("size", "how", "error"),
    [
        (100, {"declared": 99}, BadRequest),
        (100, {"declared": 101}, BadRequest),
        (0, {"declared": 1}, BadRequest),
        (100, {"cap": 99}, TooLarge),
        (2 * MIB, {"declared": 1 << 30}, BadRequest),
    ],
)
async def test_too_much_and_too_little(pool: ThreadPoolExecutor, size: int, how: dict[str, int], error: Any) -> None:
    with pytest.raises(error):
        await drained(flow(pieces(bytes(size), 10_000), pool, **how))


async def test_exactly_as_much_as_allowed(pool: ThreadPoolExecutor) -> None:
    assert len(await drained(flow(pieces(bytes(100), 10), pool, cap=100, declared=100))) == 100


async def test_too_much_is_noticed_at_once(pool: ThreadPoolExecutor) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield bytes(1000)

    with pytest.raises(TooLarge):
        await drained(flow(endless(), pool, cap=10_500))
    assert taken == 11_000


async def test_an_error_of_the_source_passes_through(pool: ThreadPoolExecutor) -> None:
    error = RuntimeError("the client is gone")
    with pytest.raises(RuntimeError) as caught:
        await drained(flow(pieces(bytes(MIB), 1000, error), pool))
    assert caught.value is error


async def test_dangerous_content_stops_it(pool: ThreadPoolExecutor) -> None:
    taken = 0

    async def zeros() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 65536
            yield bytes(65536)

    inspection = Inspection("qcow2", vmdk_types=(), match=True)
    with pytest.raises(FormatRefused):
        await drained(flow(zeros(), pool, inspection=inspection))
    assert taken <= MIB


async def test_a_digest_that_fails_does_not_hang(pool: ThreadPoolExecutor) -> None:
    async def no_bytes() -> AsyncIterator[Any]:
        for _ in range(100):
            yield "x" * 65536

    with pytest.raises(TypeError):
        await drained(flow(no_bytes(), pool))


async def test_the_size_that_a_guest_sees(pool: ThreadPoolExecutor) -> None:
    one = flow(pieces(bytes(MIB), 65536), pool, inspection=Inspection("raw", vmdk_types=(), match=True))
    await drained(one)
    assert (await one.result()).virtual_size == MIB
