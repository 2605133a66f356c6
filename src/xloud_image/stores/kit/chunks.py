"""Chunks of bytes on their way into a store: counted, gathered, without their zeros. Only a source is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final

from xloud_image.errors import BadRequest

Piece = bytes | memoryview

_ZERO_BLOCK: Final = 1 << 16  # the most that is looked at in one piece
_ZEROS: Final = bytes(_ZERO_BLOCK)


class Exactly:
    """The chunks of a source that has to bring `size` bytes (None: any number). `total`: what came so far.

    `BadRequest` in place of the first chunk that is too much, or of an end that came too early.
    """

    def __init__(self, source: AsyncIterator[bytes], size: int | None) -> None:
        self._source, self._size = source, size
        self.total = 0

    def __aiter__(self) -> Exactly:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._source)
        except StopAsyncIteration:
            if self._size is not None and self.total != self._size:
                raise BadRequest(f"{self.total} bytes came, {self._size} were announced") from None
            raise
        self.total += len(chunk)
        if self._size is not None and self.total > self._size:
            raise BadRequest(f"more data came than the {self._size} bytes announced")
        return chunk


class Pace:
    """Whether a body comes too slowly: fewer than `least` bytes in `seconds` of waiting for it. What else whoever reads
    does in between does not count."""

    def __init__(self, least: float, seconds: float) -> None:
        self._least, self._seconds = least, seconds
        self._waited, self._brought = 0.0, 0

    def is_slow(self, waited: float, size: int) -> bool:
        """After a chunk of `size` bytes that was waited for so many seconds."""
        self._waited += waited
        self._brought += size
        if self._brought >= self._least:
            self._waited, self._brought = 0.0, 0
        return self._waited > self._seconds


class Gathered:
    """Chunks on their way into a piece of some `size` bytes, `held` bytes of them. They are kept as they came; those
    smaller than a 512th of it are joined, so that there are few."""

    def __init__(self, size: int) -> None:
        self.held = 0
        self._small = max(1, size // 512)
        self._pieces: list[Piece] = []
        self._loose: list[bytes] = []
        self._loose_bytes = 0

    def add(self, chunk: bytes) -> None:
        """One more chunk; an empty one means nothing."""
        size = len(chunk)
        self.held += size
        if size >= self._small and not self._loose:
            self._pieces.append(chunk)
            return
        self._loose.append(chunk)
        self._loose_bytes += size
        if self._loose_bytes >= self._small:
            self._join()

    def take(self, size: int) -> list[Piece]:
        """The first `size` bytes, or all there are."""
        self._join()
        if size >= self.held:
            every, self._pieces, self.held = self._pieces, [], 0
            return every
        taken: list[Piece] = []
        while size:
            piece = self._pieces[0]
            if len(piece) > size:
                view = memoryview(piece)
                taken.append(view[:size])
                self._pieces[0] = view[size:]
                self.held -= size
                break
            taken.append(self._pieces.pop(0))
            size -= len(piece)
            self.held -= len(piece)
        return taken

    def _join(self) -> None:
        if self._loose:
            self._pieces.append(b"".join(self._loose))
            self._loose, self._loose_bytes = [], 0


async def in_batches(
    source: AsyncIterator[bytes], batch: int, put: Callable[[list[Piece]], Awaitable[None]], *, cut: bool = True
) -> None:
    """`put` all of `source`, `batch` bytes at a time, the rest last. Without `cut` a batch ends where a chunk does."""
    gathered = Gathered(batch)
    async for chunk in source:
        gathered.add(chunk)
        while gathered.held >= batch:
            await put(gathered.take(batch if cut else gathered.held))
    if gathered.held:
        await put(gathered.take(batch))


def runs(pieces: Iterable[Piece], at: int, *, least: int = 1) -> Iterator[tuple[int, list[Piece]]]:
    """What of `pieces`, which begin at byte `at` of the file, is not zero: (offset, buffers), in order.

    Compared by memcmp in C without copies. Looked at in blocks of the file; of a block that spans two pieces each
    part is judged by itself, and fewer zeros than `least` are written.
    """
    run: list[Piece] = []
    start = at
    for piece in pieces:
        view, size, here, kept = memoryview(piece), len(piece), 0, 0
        while here < size:
            step = min(_ZERO_BLOCK - (at + here) % _ZERO_BLOCK, size - here)
            if step >= least and _ZEROS.startswith(view[here : here + step]):
                if here > kept:
                    run.append(view[kept:here])
                if run:
                    yield start, run
                    run = []
                kept = here + step
                start = at + kept
            here += step
        if size > kept:
            run.append(view[kept:] if kept else piece)
        at += size
    if run:
        yield start, run


async def nothing() -> AsyncIterator[bytes]:
    """No chunk."""
    for chunk in list[bytes]():
        yield chunk
