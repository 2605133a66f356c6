"""Decoders of compressed streams as steps that a thread takes: no event loop, no pool, no format's own container here.

Steps are a generator. It gives pieces of output, at most PIECE bytes each, and None when it has to be sent more input;
b"" sent to it is the end of the stream. What it does for each byte sent is bounded, whatever the bytes are.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, cast

from isal import igzip_lib, isal_zlib

from xloud_image.errors import BadRequest, FormatRefused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_T = TypeVar("_T")
Steps = Generator[bytes | None, bytes, _T]

PIECE: Final = 1024 * 1024  # most bytes of output at once
WINDOW_LOG: Final = 27  # the largest window is 128 MiB: all that xz -9 and zstd without --long=28 or more ask for
_XZ_MEMORY: Final = (1 << WINDOW_LOG) + 2 * 1024 * 1024  # what liblzma counts: the window and its own state
# Bytes that a member gets at first and then; what it leaves of them is copied, so that small members get few.
_FIRST: Final = 4096
_NEXT: Final = 64 * 1024
# Each member costs its decoder. bgzip's hold 64 KiB, so that honest files stay far below it.
_MEMBERS: Final = 1024
_MEMBER_BYTES: Final = 4096


HEAD: Final = 10  # bytes by which formats are told
_ZIP_RECORDS: Final = (b"\3\4", b"\5\6", b"\7\x08")  # a file, the end of an empty archive, a part of a split one
_BLOCKS: Final = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))  # bzip2: a block, the end


def recognised(head: bytes) -> str | None:
    """The name of the compression that data with these HEAD bytes in front have; None: none that is known."""
    if head[:3] == b"\x1f\x8b\x08" and len(head) > 3 and not head[3] & 0xE0:
        return "gzip"
    if head[:2] == b"PK" and head[2:4] in _ZIP_RECORDS:
        return "zip"
    if head[:6] == b"\xfd7zXZ\0":
        return "xz"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"  # a frame, or one to be skipped, with which pzstd begins
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:] in _BLOCKS:
        return "bzip2"
    if head[2:5] in (b"-lh", b"-lz") and head[6:7] == b"-":
        return "lha"
    return None


class Decoder(Protocol):
    """The way of the standard library: no more bytes come out of a call than its second argument says."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, _most: int, /) -> bytes: ...


@dataclass(frozen=True)
class Kind:
    """How a format's members are read. errors: what its decoder raises for wrong data."""

    name: str
    make: Callable[[], Decoder]
    errors: tuple[type[Exception], ...]
    padding: int = 0  # zeros that may stand behind a member come in such numbers; 0: none may


class Input:
    """What was sent and is not used yet. read: bytes that were used; made: bytes of output that became of them.

    crc: CRC-32 of the output, when it is set to 0 before there is any.
    """

    def __init__(self, name: str) -> None:
        self.made = 0
        self.crc: int | None = None
        self._name = name
        self._chunk = b""
        self._at = 0
        self._before = 0  # bytes of earlier chunks
        self._ended = False

    @property
    def read(self) -> int:
        return self._before + self._at

    def upto(self, count: int) -> Steps[bytes]:
        """The next bytes, which stay unused; fewer than `count` at the end of the stream only."""
        while len(self._chunk) - self._at < count and not self._ended:
            yield from self._more()
        return self._chunk[self._at : self._at + count]

    def skip(self, count: int) -> None:
        """Use what `upto` showed."""
        self._at += count

    def exactly(self, count: int) -> Steps[bytes]:
        """The next bytes, used."""
        data = yield from self.upto(count)
        if len(data) < count:
            raise self.truncated()
        self._at += count
        return data

    def some(self, count: int) -> Steps[memoryview]:
        """At least one byte and at most `count`, used."""
        if self._at == len(self._chunk):
            yield from self._more()
            if self._ended:
                raise self.truncated()
        data = memoryview(self._chunk)[self._at : self._at + count]
        self._at += len(data)
        return data

    def back(self, data: bytes) -> None:
        """The last bytes used were not needed."""
        if len(data) <= self._at:
            self._at -= len(data)
        else:  # a decoder gave back what it had held since an earlier chunk
            self._before -= len(data) - self._at
            self._chunk, self._at = data + self._chunk[self._at :], 0

    def makes(self, piece: bytes) -> bytes:
        """Count a piece of output."""
        self.made += len(piece)
        if self.crc is not None:
            self.crc = isal_zlib.crc32(piece, self.crc)
        return piece

    def truncated(self) -> BadRequest:
        return BadRequest(f"the {self._name} data ends too early, after {self.read} bytes: a part is missing")

    def _more(self) -> Steps[None]:
        chunk = yield None
        self._ended = not chunk
        self._before += self._at
        self._chunk, self._at = self._chunk[self._at :] + chunk, 0


def member(source: Input, kind: Kind, decoder: Decoder) -> Steps[None]:
    """What one decoder makes of the input, until its end; what follows stays unused."""
    count = _FIRST
    while not decoder.eof:
        data: bytes | memoryview = b""
        if decoder.needs_input:
            data = yield from source.some(count)
            count = _NEXT
        try:
            piece = decoder.decompress(data, PIECE)
        except kind.errors as error:
            raise _refusal(kind, source, error) from None
        if piece:
            yield source.makes(piece)
        elif not data and not decoder.needs_input and not decoder.eof:
            raise BadRequest(f"the {kind.name} data is damaged near byte {source.read}")
    source.back(decoder.unused_data)


def members(source: Input, kind: Kind) -> Steps[None]:
    """Members one behind the other until the end of the stream, as the tools of these formats take them."""
    count = 0
    while True:
        decoder = kind.make()
        yield from member(source, kind, decoder)
        if isinstance(decoder, lzma.LZMADecompressor) and not lzma.is_check_supported(decoder.check):
            raise FormatRefused(f"the xz data has checksums of the unknown kind {decoder.check}; use one of CRC64")
        count += 1
        if count > _MEMBERS + (source.read + source.made) // _MEMBER_BYTES:
            raise FormatRefused(f"the {kind.name} data consists of too many small pieces ({count}); compress it anew")
        padding = 0
        while kind.padding and (zeros := (yield from source.upto(_FIRST))).startswith(b"\0"):
            zeros = zeros[: len(zeros) - len(zeros.lstrip(b"\0"))]
            source.skip(len(zeros))
            padding += len(zeros)
        head = yield from source.upto(HEAD)
        if (padding and padding % kind.padding) or (head and recognised(head) != kind.name):
            raise BadRequest(f"something that is not {kind.name} stands behind the {kind.name} data, at {source.read}")
        if not head:
            return


def _refusal(kind: Kind, source: Input, error: Exception) -> BadRequest | FormatRefused:
    if "memory" in str(error).lower():
        return FormatRefused(
            f"unpacking the {kind.name} data takes more memory than a window of 128 MiB; compress it with a smaller one"
        )
    return BadRequest(f"the {kind.name} data is damaged near byte {source.read}: {error}")


_ISAL: Final = (cast("type[Exception]", igzip_lib.error), EOFError)
GZIP: Final = Kind("gzip", lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP), _ISAL, padding=1)
DEFLATE: Final = Kind("zip", lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE), _ISAL)
XZ: Final = Kind("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), (lzma.LZMAError, EOFError), padding=4)
ZSTD: Final = Kind(
    "zstd",
    lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG}),
    (zstd.ZstdError, EOFError),
)
BZIP2: Final = Kind("bzip2", bz2.BZ2Decompressor, (OSError, ValueError, EOFError))
