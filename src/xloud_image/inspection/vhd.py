"""VHD, which qemu calls vpc: a fixed disk with a footer behind the data, or a dynamic one with it in front too.

A differencing disk names its parent. Hyper-V begins to read at the end of the file, qemu at its beginning, so both
count. Source: Microsoft's Virtual Hard Disk Image Format Specification 1.0.
"""

from __future__ import annotations

import struct
from typing import Final

from xloud_image.errors import FormatRefused
from xloud_image.inspection.reading import HINT, SECTOR, Parser, Span, Tail, dangerous, unknown

MAGIC: Final = b"conectix"
NAME: Final = "vhd"

# cookie, place of the dynamic header, current size, kind
_FOOTER: Final = struct.Struct(">8s8xQ24xQ4xI")
_FIXED: Final = 2
_DYNAMIC: Final = 3
_DIFFERENCING: Final = 4
_SPARSE: Final = b"cxsparse"
_SPARSE_LENGTH: Final = 1024
# in the dynamic header: the parent's id; its name and where its locators are
_PARENT_ID: Final = slice(40, 56)
_PARENT: Final = slice(64, 768)
_FARTHEST: Final = 1 << 20  # where a dynamic header may be; the tools put it behind the first sector


def parse(head: bytes) -> Parser:
    """Judge the dynamic VHD that begins with `head` (512 bytes)."""
    _, place, size, kind = _FOOTER.unpack_from(head)
    _require(kind, _DYNAMIC)
    if not SECTOR <= place <= _FARTHEST:
        raise unknown(NAME, "its dynamic header is far away")
    dynamic = yield Span(place, _SPARSE_LENGTH)
    if not dynamic.startswith(_SPARSE):
        raise unknown(NAME, "it has no dynamic header")
    if any(dynamic[_PARENT_ID]) or any(dynamic[_PARENT]):
        raise dangerous(NAME, "it names a parent")
    end = yield Tail(2 * SECTOR)
    tail = end[SECTOR:]
    if not tail.startswith(MAGIC):
        raise unknown(NAME, "it does not end in a footer; is it whole?")
    _require_all(end, _DYNAMIC)
    if _FOOTER.unpack_from(tail) != _FOOTER.unpack_from(head):
        raise unknown(NAME, "its footer differs from its header")
    return int(size)


def parse_fixed() -> Parser:
    """Judge what claims to be a VHD and does not begin as one: a fixed disk, if its end says so."""
    end = yield Tail(2 * SECTOR)
    cookie, _, size, _ = _FOOTER.unpack_from(end, SECTOR)
    if cookie != MAGIC:
        raise FormatRefused(f"the data is not {NAME}: neither its first bytes nor its last are those of one; {HINT}")
    _require_all(end, _FIXED)
    return int(size)


def parse_end() -> Parser:
    """Judge what claims to be a VHD, where claims are not compared, and does not begin as one: if it ends as one, it is
    a fixed disk."""
    _require_all((yield Tail(2 * SECTOR)), _FIXED)
    return None


def _require_all(end: bytes, wanted: int) -> None:
    """Every footer in the last two sectors is of that kind: of data that do not fill their last sector, some readers
    take the last 512 bytes, some the last 511 and some the last sector."""
    at = end.find(MAGIC, 1)
    while 0 <= at <= len(end) - _FOOTER.size:
        _require(_FOOTER.unpack_from(end, at)[3], wanted)
        at = end.find(MAGIC, at + 1)


def _require(kind: int, wanted: int) -> None:
    if kind == _DIFFERENCING:
        raise dangerous(NAME, "it is a differencing disk, which has a parent")
    if kind != wanted:
        raise unknown(NAME, f"a disk of kind {kind}")
