"""Where the bytes of a disk image come from: anything that reads ranges; and reading it ahead. Knows no format."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import OrderedDict
from typing import Final, Protocol, runtime_checkable

Buffer = bytes | bytearray | memoryview

# bytes of one read of a source: the first of a run, and what it grows to
_LEAST: Final = 128 << 10
_MOST: Final = 8 << 20
# a read so far behind another one goes on with its run
_GAP: Final = 1 << 20
# bytes that are kept of what was read; beside them what is being read
_KEPT: Final = 32 << 20
_PIECES: Final = 128
_EXTENTS: Final = 1024  # that are told at once


class Source(Protocol):
    """`size` bytes that do not change. `read` gives exactly `length` bytes of them, in bounded time, or raises."""

    @property
    def size(self) -> int: ...

    async def read(self, offset: int, length: int) -> Buffer: ...


@runtime_checkable
class Sparse(Protocol):
    """A source that knows where it holds nothing but zeros."""

    async def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Runs from `offset` on, in order: (bytes, whether they are a hole). At least one; less than asked will do."""


class File:
    """An open file as a source. The descriptor stays the caller's. Raises `OSError`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    async def read(self, offset: int, length: int) -> bytes:
        """In a thread: a disk may be slow."""
        data = await asyncio.to_thread(os.pread, self._descriptor, length, offset)
        if len(data) != length:
            raise OSError(errno.EIO, f"the file ends before byte {offset + length}")
        return data

    async def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """As the file system knows them."""
        return await asyncio.to_thread(self._extents, offset, offset + length)

    def _extents(self, at: int, end: int) -> list[tuple[int, bool]]:
        found: list[tuple[int, bool]] = []
        while at < end and len(found) < _EXTENTS:
            try:
                data = min(os.lseek(self._descriptor, at, os.SEEK_DATA), end)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = end
            hole = data > at
            until = data if hole else min(os.lseek(self._descriptor, at, os.SEEK_HOLE), end)
            found.append((until - at, hole))
            at = until
        return found


class _Piece:
    """Bytes of a source that were read or are being read."""

    def __init__(self, start: int, length: int, task: asyncio.Task[memoryview]) -> None:
        self.start, self.length, self.end = start, length, start + length
        self.task = task


class ReadAhead:
    """Reads of a source in any order. What follows reads in order is read before it is asked for; what was read lately
    is kept, so that small reads here and there (tables of a format) do not ask again. At most 40 MiB beside what waits.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: OrderedDict[int, _Piece] = OrderedDict()  # by where they begin, the least used first
        self._held = 0
        self._tasks: set[asyncio.Task[memoryview]] = set()

    async def read(self, offset: int, length: int) -> list[memoryview]:
        """The bytes in order, uncopied; within the source."""
        views: list[memoryview] = []
        end = offset + length
        while offset < end:
            piece = self._find(offset) or self._fetch(offset, end - offset)
            self._pieces.move_to_end(piece.start)
            upto = min(end, piece.end)
            in_order = piece.length > _LEAST and upto > piece.start + piece.length // 2
            if in_order and piece.end < self._source.size and self._find(piece.end) is None:
                self._fetch(piece.end, 1)
            # one that waits and leaves does not end the read of the others
            views.append((await asyncio.shield(piece.task))[offset - piece.start : upto - piece.start])
            offset = upto
        return views

    async def aclose(self) -> None:
        """End the reads under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pieces.clear()

    def _find(self, offset: int) -> _Piece | None:
        return next((piece for piece in reversed(self._pieces.values()) if piece.start <= offset < piece.end), None)

    def _fetch(self, offset: int, wanted: int) -> _Piece:
        before = [piece.length for piece in self._pieces.values() if 0 <= offset - piece.end <= _GAP]
        length = max(min(_MOST, 2 * max(before)) if before else _LEAST, wanted)
        following = [piece.start for piece in self._pieces.values() if piece.start > offset]
        length = min(length, self._source.size - offset, *(start - offset for start in following))
        task = asyncio.create_task(self._read(offset, length))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        piece = self._pieces[offset] = _Piece(offset, length, task)
        self._held += length
        while len(self._pieces) > 1 and (self._held > _KEPT or len(self._pieces) > _PIECES):
            self._drop(next(iter(self._pieces.values())))
        return piece

    async def _read(self, offset: int, length: int) -> memoryview:
        try:
            data = memoryview(await self._source.read(offset, length))
            if len(data) != length:
                raise OSError(errno.EIO, f"{len(data)} of {length} bytes came")
        except BaseException:
            self._drop(self._pieces.get(offset))
            raise
        return data

    def _ended(self, task: asyncio.Task[memoryview]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may wait for what is read ahead

    def _drop(self, piece: _Piece | None) -> None:
        if piece is not None and self._pieces.get(piece.start) is piece:
            del self._pieces[piece.start]
            self._held -= piece.length
