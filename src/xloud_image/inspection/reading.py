"""Pieces of a stream for the parser of one format, which asks for them one after the other. Knows no format."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Final

from xloud_image.errors import FormatRefused

SECTOR: Final = 512
# bytes of a disk; neither qemu nor the database know more
LARGEST: Final = (1 << 63) - 1
HINT: Final = (
    "set disk_format to what the file is (`qemu-img info FILE` tells), or use "
    "`xloud-image stores check --deep` if you meant to try a store"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes at `offset`; zeros where the stream is shorter, as qemu reads it. Offsets never go back."""

    offset: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tail:
    """The last `length` bytes of the stream when it is filled with zeros to whole sectors, as qemu sees its end."""

    length: int


# Asks for pieces, gets their bytes, returns the virtual size in bytes (None: unknown), or raises `FormatRefused`.
Parser = Generator[Span | Tail, bytes, int | None]


class Reader:
    """One parser and what it waits for. Holds no more than the piece asked for and one chunk."""

    def __init__(self, name: str, parser: Parser) -> None:
        self.name = name
        self.virtual_size: int | None = None
        self._parser = parser
        self._kept = bytearray()  # the bytes from _base to _received
        self._base = 0
        self._received = 0
        self._want: Span | Tail | None = None
        self._go(None)

    @property
    def done(self) -> bool:
        """It has what it needs."""
        return self._want is None

    def eat(self, chunk: bytes) -> None:
        """The next bytes of the stream; raises what the parser raises."""
        self._received += len(chunk)
        if self._want is None:
            return
        if isinstance(self._want, Tail):
            self._keep_tail(chunk)
            return
        if self._received <= self._want.offset:
            self._kept.clear()
            self._base = self._received
            return
        self._kept += chunk
        want: Span | Tail | None = self._want
        while isinstance(want, Span) and self._received >= want.offset + want.length:
            self._go(self._piece(want))
            want = self._want

    def end(self) -> None:
        """The stream has ended: what is still missing is zeros."""
        while self._want is not None:
            if isinstance(self._want, Span):
                self._go(self._piece(self._want))
            else:
                filled = bytes(self._kept) + bytes(-self._received % SECTOR)
                self._go(filled[-self._want.length :].rjust(self._want.length, b"\0"))

    def _piece(self, span: Span) -> bytes:
        at = span.offset - self._base
        return bytes(self._kept[at : at + span.length]).ljust(span.length, b"\0")

    def _keep_tail(self, chunk: bytes) -> None:
        assert isinstance(self._want, Tail)
        most = self._want.length + SECTOR
        if len(chunk) < most:
            self._kept += chunk
            if len(self._kept) > 2 * most:
                del self._kept[:-most]
        else:
            self._kept[:] = chunk[-most:]

    def _go(self, piece: bytes | None) -> None:
        try:
            self._want = next(self._parser) if piece is None else self._parser.send(piece)
        except StopIteration as stop:
            self._want = None
            self._kept.clear()
            if stop.value is not None and not 0 <= stop.value <= LARGEST:
                raise unknown(self.name, f"it claims to be a disk of {stop.value} bytes") from None
            self.virtual_size = stop.value
            return
        except FormatRefused:
            raise
        except Exception as error:
            # Parsers of hostile data may fail in any way.
            raise unknown(self.name, f"its header cannot be read ({type(error).__name__})") from error
        if isinstance(self._want, Span):
            if self._want.offset < self._base:
                raise unknown(self.name, "its parts lie in an order that no known tool writes")
            gone = min(self._want.offset - self._base, len(self._kept))
            del self._kept[:gone]
            self._base += gone


def dangerous(name: str, why: str) -> FormatRefused:
    """The refusal of data that may lead its readers to other files."""
    return FormatRefused(f"the data is {name} with dangerous content ({why}); refused")


def unknown(name: str, why: str) -> FormatRefused:
    """The refusal of data that begins as a format and then is none of the forms that are known to be harmless."""
    return FormatRefused(
        f"the data is {name} of an unknown form ({why}); refused: convert it (`qemu-img convert`) and upload the result"
    )
