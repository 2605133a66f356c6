"""One stream for several readers: all get all of it, in bounded memory, and nobody waits for one that has gone."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from xloud_image.streams.tee import WINDOW, Branch, Tee

CHUNK = 10_000


class Counted(bytes):
    """Bytes that tell how many of them are alive."""

    alive: ClassVar[int] = 0
    most: ClassVar[int] = 0

    @classmethod
    def fresh(cls, data: bytes) -> "Counted":
        cls.alive += len(data)
        cls.most = max(cls.most, cls.alive)
        return cls(data)

    def __del__(self) -> None:
        Counted.alive -= len(self)


@pytest.fixture(autouse=True)
def count() -> None:
    Counted.alive = Counted.most = 0


async def pieces(data: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), CHUNK):
        yield Counted.fresh(data[at : at + CHUNK])
    if error is not None:
        raise error


async def collect(branch: Branch, turns: int = 0) -> bytes:
    """All of it, waiting so many turns of the loop at each chunk."""
    taken = bytearray()
    async for chunk in branch:
        taken += chunk
        del chunk
        for _ in range(turns):
            await asyncio.sleep(0)
    return bytes(taken)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 999_999])
@pytest.mark.parametrize("paces", [(0, 0), (0, 7), (7, 0), (0, 1, 2, 20)])
async def test_every_reader_gets_all_within_the_window(size: int, paces: tuple[int, ...]) -> None:
    data = random.Random(size).randbytes(size)
    window = 5 * CHUNK
    tee = Tee(pieces(data), len(paces), window=window)
    *taken, _ = await asyncio.gather(*map(collect, tee.branches, paces), tee.feed())
    assert taken == [data] * len(paces)
    assert all(branch.behind == 0 for branch in tee.branches)
    # the window, the chunk that filled it, and those that the source and the readers are at
    assert Counted.most <= window + (2 + len(paces)) * CHUNK
    assert Counted.alive == 0


async def stalled(feeding: "asyncio.Future[None]") -> None:
    """When nothing moves any more."""
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not feeding.done()


async def test_the_slowest_reader_sets_the_pace_until_it_goes() -> None:
    data = bytes(3 * WINDOW)
    tee = Tee(pieces(data), 2)
    feeding = asyncio.ensure_future(tee.feed())
    quick = asyncio.ensure_future(collect(tee.branches[0]))
    slow = tee.branches[1]
    for _ in range(3):
        await anext(slow)
    await stalled(feeding)
    assert WINDOW <= slow.behind < WINDOW + CHUNK
    assert Counted.alive <= WINDOW + 2 * CHUNK
    slow.drop()
    assert slow.behind == 0
    assert await quick == data
    await feeding
    assert Counted.most <= WINDOW + 4 * CHUNK


async def test_an_error_of_the_source_is_everybodys_at_once() -> None:
    """Also of those that have not taken yet what came before it."""
    error = OSError("the client is gone")
    tee = Tee(pieces(bytes(5 * CHUNK), error), 3)
    await tee.feed()
    for branch in tee.branches:
        with pytest.raises(OSError, match="gone") as caught:
            await anext(branch)
        assert caught.value is error


async def test_readers_of_a_feed_that_was_stopped_do_not_wait_for_ever() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(3600)
        yield b""

    tee = Tee(never(), 2)
    feeding = asyncio.ensure_future(tee.feed())
    readers = [asyncio.ensure_future(collect(branch)) for branch in tee.branches]
    await asyncio.sleep(0)
    feeding.cancel()
    await asyncio.wait(readers, timeout=10)
    assert all(reader.cancelled() for reader in readers)
