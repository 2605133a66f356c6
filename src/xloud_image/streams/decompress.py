"""The stage that decompresses gzip, zip, xz, zstd and bzip2, told by the first bytes of a stream and never by a name.

What the tool of each format unpacks is unpacked, and compared with the checksums in it; truncated and damaged data are
refused, and whatever follows behind the end. One layer: what was compressed twice comes out compressed.

Memory of a stream: a batch of input (BATCH and a chunk), less than two PIECE of output, the decoder and its window
(32 KiB of gzip and zip, 4 MiB of bzip2, what xz and zstd ask for up to 128 MiB). Output is made as it is taken, so that
a `Limit` behind this stage is the wall against bombs; FREE and RATIO only keep small data from costing hours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Final

from xloud_image.errors import FormatRefused, TooLarge
from xloud_image.streams.decoders import BZIP2, GZIP, HEAD, PIECE, XZ, ZSTD, Input, Steps, members, recognised
from xloud_image.streams.unzip import unzip

BATCH: Final = 256 * 1024  # bytes of input for one turn of a thread
# Honest raw disks are mostly zeros: 1 TiB with 300 MiB of packed data in it is 3500 to 1, an empty one of tens of GiB
# is some KiB. So much comes out whatever came in, and beyond that so many times what came in.
FREE: Final = 64 << 30
RATIO: Final = 4096

_KINDS: Final = {kind.name: kind for kind in (GZIP, XZ, ZSTD, BZIP2)}


class Decompress:
    """The data inside, or the data as they came when they are not compressed. The pool's threads decode.

    `BadRequest` for damaged or truncated data and for something behind their end, `FormatRefused` for what is not
    supported (lha, several or encrypted files in a zip, windows over 128 MiB), `TooLarge` for bombs.

    Found: `format`, None when it was not compressed; `inner`, the format of what came out if that is compressed again;
    `read` and `written`, bytes in and out.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self.format: str | None = None
        self.inner: str | None = None
        self.read = self.written = 0

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        first: list[bytes] = []
        head = b""
        async for chunk in source:
            first.append(chunk)
            head += chunk[: HEAD - len(head)]
            if len(head) == HEAD:
                break
        self.format, head = recognised(head), b""
        if self.format == "lha":
            raise FormatRefused("lha archives are not supported; use gzip, zip, xz, zstd or bzip2")
        chunks = self._counted(first, source)
        async for piece in chunks if self.format is None else self._decoded(self.format, chunks):
            self.written += len(piece)
            if self.written > FREE + RATIO * self.read:
                raise TooLarge(f"{self.read} bytes of {self.format} data became {self.written}, which is too many")
            if self.format is not None and len(head) < HEAD:
                head += piece[: HEAD - len(head)]
            yield piece
        self.inner = recognised(head)

    async def _counted(self, first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        for chunk in first:
            self.read += len(chunk)
            yield chunk
        async for chunk in rest:
            self.read += len(chunk)
            yield chunk

    async def _decoded(self, name: str, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        data = Input(name)
        turn = _Turns(unzip(data) if name == "zip" else members(data, _KINDS[name]))
        while True:
            batch = await _batch(source) if turn.hungry else None
            pieces = await loop.run_in_executor(self._pool, turn, batch)
            for piece in pieces:
                yield piece
            if turn.ended:
                return


class _Turns:
    """Steps, taken by one thread after another."""

    def __init__(self, steps: Steps[None]) -> None:
        self._steps = steps
        self.hungry = self.ended = False

    def __call__(self, batch: bytes | None) -> list[bytes]:
        """Output, less than two PIECE, until more input is needed (`hungry`) or all is done (`ended`)."""
        pieces: list[bytes] = []
        size = 0
        try:
            piece = next(self._steps) if batch is None else self._steps.send(batch)
            while piece is not None:
                pieces.append(piece)
                size += len(piece)
                if size >= PIECE:
                    break
                piece = next(self._steps)
            self.hungry = piece is None
        except StopIteration:
            self.ended = True
        return pieces


async def _batch(source: AsyncIterator[bytes]) -> bytes:
    """At least BATCH bytes, fewer at the end of the source, none behind it."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in source:
        chunks.append(chunk)
        size += len(chunk)
        if size >= BATCH:
            break
    return b"".join(chunks)
