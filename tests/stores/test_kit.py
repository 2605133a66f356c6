"""What several types of stores need, by itself: counted sources, batches, holes, asking again, drafts and steps.
That the stores keep their promises with it is proved by their suites."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xloud_image.errors import BadRequest, StoreRefused, StoreUnavailable
from xloud_image.stores.kit.chunks import Exactly, Piece, in_batches, nothing, runs
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.kit.transfers import Discarded, Draft, Reading, Steps
from xloud_image.stores.suite import feed, noise


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("size", [None, 0, 10])
async def test_a_source_brings_what_was_announced(size: int | None) -> None:
    exactly = Exactly(feed(noise(size or 0), 4), size)
    assert await joined(exactly) == noise(size or 0)
    assert exactly.total == (size or 0)


async def test_too_much_is_refused_before_it_is_handed_on() -> None:
    exactly = Exactly(feed(noise(12), 4), 10)
    assert await anext(exactly) + await anext(exactly) == noise(12)[:8]
    with pytest.raises(BadRequest, match="more data came than the 10 bytes announced"):
        await anext(exactly)


@pytest.mark.parametrize("source", [feed(noise(8), 4), nothing()])
async def test_an_end_that_comes_too_early_is_refused(source: AsyncIterator[bytes]) -> None:
    with pytest.raises(BadRequest, match="bytes came, 10 were announced"):
        await joined(Exactly(source, 10))


@given(sizes=st.lists(st.integers(0, 5000), max_size=20), batch=st.integers(512, 6000), cut=st.booleans())
async def test_batches_are_the_source(sizes: list[int], batch: int, cut: bool) -> None:
    got: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        for number, size in enumerate(sizes):
            yield noise(size, number)

    async def put(pieces: list[Piece]) -> None:
        assert len(pieces) < 1024  # what one call of the system takes
        got.append(b"".join(pieces))

    await in_batches(source(), batch, put, cut=cut)
    assert b"".join(got) == b"".join(noise(size, number) for number, size in enumerate(sizes))
    assert all(len(one) == batch if cut else len(one) >= batch for one in got[:-1])
    assert all(got)


BLOCK = 1 << 16


@given(
    blocks=st.lists(st.tuples(st.booleans(), st.integers(1, 2 * BLOCK)), max_size=6),
    at=st.integers(0, 2 * BLOCK),
    views=st.booleans(),
)
def test_what_is_left_out_is_zero(blocks: list[tuple[bool, int]], at: int, views: bool) -> None:
    pieces: list[Piece] = [bytes(size) if zero else noise(size) for zero, size in blocks]
    whole, made = b"".join(pieces), bytearray(sum(map(len, pieces)))
    written, end = 0, at
    for start, buffers in runs(map(memoryview, pieces) if views else pieces, at, least=4096):
        assert start >= end
        data = b"".join(buffers)
        made[start - at : start - at + len(data)] = data
        end, written = start + len(data), written + len(data)
    assert made == whole
    if all(zero for zero, _ in blocks) and all(size >= 4096 for _, size in blocks):
        assert written < len(blocks) * 2 * 4096 + 1  # the ends of pieces, at most


async def test_asking_again_ends_with_what_helps() -> None:
    asked: list[int] = []

    async def third() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise StoreUnavailable("not now")
        return "there"

    assert await retry(third, (0, 0, 0)) == "there"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("error", "again", "times"),
    [
        (StoreUnavailable("x"), True, 3),
        (StoreUnavailable("x"), False, 1),
        (StoreRefused("x"), True, 1),
        (OSError(), True, 1),
    ],
)
async def test_asking_again_ends_where_it_cannot_help(error: Exception, again: bool, times: int) -> None:
    asked: list[int] = []

    async def never() -> None:
        asked.append(1)
        raise error

    with pytest.raises(type(error)):
        await retry(never, (0, 0), again=lambda _: again)
    assert len(asked) == times


class Slow(Draft):
    """Is written as long as `go` is not set."""

    def __init__(self) -> None:
        super().__init__("key")
        self.go = threading.Event()
        self.entered = threading.Event()

    def create(self) -> None:
        with self._working():
            self.removed = False
            self.entered.set()
            self.go.wait(30)

    def remove(self) -> None:
        self.removed = True


@contextlib.contextmanager
def as_they_are() -> Iterator[None]:
    yield


async def test_whoever_hangs_in_an_abandoned_draft_removes_it() -> None:
    threads, draft = Threads("fast", 2, limit=30), Slow()
    steps = Steps(threads, draft, as_they_are)
    await steps.begin(draft.create)
    await threads.run(draft.entered.wait, 30)
    assert not await steps.abandon(threads, 0.01)
    draft.go.set()
    await steps.begin(draft.create)
    with pytest.raises(Discarded):  # nobody works on it any more
        await steps.end()
    assert draft.removed
    await threads.aclose()


async def test_an_idle_draft_is_removed_at_once() -> None:
    threads, draft = Threads("fast", 2, limit=30), Slow()
    draft.go.set()
    steps = Steps(threads, draft, as_they_are)
    await steps.begin(draft.create)
    await steps.end()
    assert not draft.removed
    assert await steps.abandon(threads, 30)
    await threads.aclose()


@pytest.mark.parametrize("ahead", [True, False])
async def test_batches_of_a_read_end_at_their_multiples(ahead: bool) -> None:
    threads, asked = Threads("fast", 2, limit=30), []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return noise(100)[offset : offset + length]

    reading = Reading(threads, read, (5, 20), batch=8, errors=as_they_are, ahead=ahead)
    first = await anext(reading)
    await reading.ended()
    assert asked == [(5, 3), (8, 8)] if ahead else [(5, 3)]
    assert first + await joined(reading) == noise(100)[5:25]
    assert asked == [(5, 3), (8, 8), (16, 8), (24, 1)]
    await threads.aclose()
