"""VHDX: its metadata say whether it has a parent, and where. Source: Microsoft's [MS-VHDX]."""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID

from xloud_image.inspection.reading import Parser, Span, dangerous, unknown

MAGIC: Final = b"vhdxfile"
NAME: Final = "vhdx"

_BLOCK: Final = 64 << 10  # the unit of the first part of the file
_HEADERS: Final = (_BLOCK, 2 * _BLOCK)
_HEADER_LENGTH: Final = 4096
_TABLES: Final = 3 * _BLOCK
_FARTHEST: Final = (1 << 20) - 8  # where an item may be behind the beginning of the metadata
_BLOCK_SIZES: Final = range(1 << 20, (256 << 20) + 1)
_MOST: Final = 2047  # entries of a table
_METADATA: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_BAT: Final = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE: Final = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PARENT: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_OTHERS: Final = {
    UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le,  # page 83
    UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le,  # logical sector size
    UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le,  # physical sector size
}
_VERSIONS: Final = slice(64, 68)  # of a header: those of its log and of the format, two bytes each …
_KNOWN: Final = b"\0\0\1\0"  # … 0 and 1
_HAS_PARENT: Final = 2
_REQUIRED: Final = 4  # of a metadata item: who does not know it must not read the file


def parse(head: bytes) -> Parser:
    """Judge the VHDX that begins with `head`."""
    del head
    first = yield Span(_HEADERS[0], _HEADER_LENGTH)
    second = yield Span(_HEADERS[1], _HEADER_LENGTH)
    _judge_log([header for header in (first, second) if _valid(header)])
    tables = yield Span(_TABLES, 2 * _BLOCK)
    if tables[:_BLOCK] != tables[_BLOCK:]:
        raise unknown(NAME, "its two region tables differ")
    base = _metadata_at(tables)
    items = _items((yield Span(base, _BLOCK)))
    size = 0
    for at, item in sorted((place, name) for name, place in items.items()):
        value = yield Span(base + at, 8)
        if item == _SIZE:
            (size,) = struct.unpack("<Q", value)
            continue
        block, flags = struct.unpack("<II", value)
        if flags & _HAS_PARENT:
            raise dangerous(NAME, "it is a differencing disk, which has a parent")
        if block not in _BLOCK_SIZES:
            raise unknown(NAME, f"blocks of {block} bytes; is it whole?")
    return size


def _judge_log(headers: list[bytes]) -> None:
    """A log that is not empty is written over the file when it is opened, so that nobody knows what it will be."""
    if not headers:
        raise unknown(NAME, "it has no valid header")
    newest = max(int(struct.unpack_from("<Q", header, 8)[0]) for header in headers)
    for header in headers:
        if struct.unpack_from("<Q", header, 8)[0] == newest and any(header[48:64]):
            raise unknown(NAME, "it was not closed: changes wait in its log")


def _metadata_at(table: bytes) -> int:
    signature, _, count = struct.unpack_from("<4sII", table)
    if signature != b"regi" or count > _MOST:
        raise unknown(NAME, "its region table cannot be read")
    places: dict[bytes, int] = {}
    for number in range(count):
        name, place, _, required = struct.unpack_from("<16sQII", table, 16 + 32 * number)
        if name in places or (required & 1 and name not in (_METADATA, _BAT)):
            raise unknown(NAME, "it has a region that is not known or there twice")
        places[name] = place
    if _METADATA not in places:
        raise unknown(NAME, "it has no metadata")
    return places[_METADATA]


def _items(table: bytes) -> dict[bytes, int]:
    """Where the parameters and the size are: bytes behind the beginning of the metadata."""
    signature, count = struct.unpack_from("<8s2xH", table)
    if signature != b"metadata" or count > _MOST:
        raise unknown(NAME, "its metadata cannot be read")
    places: dict[bytes, int] = {}
    for number in range(count):
        name, place, length, flags = struct.unpack_from("<16sIII", table, 32 + 32 * number)
        if name == _PARENT:
            raise dangerous(NAME, "it names a parent")
        if name in places or (flags & _REQUIRED and name not in (_PARAMETERS, _SIZE, *_OTHERS)):
            raise unknown(NAME, "it has an item of metadata that is not known or there twice")
        if name in (_PARAMETERS, _SIZE) and (length != 8 or not _BLOCK <= place < _FARTHEST):
            raise unknown(NAME, "its size or its parameters are of an odd length or place")
        places[name] = place
    if _PARAMETERS not in places or _SIZE not in places:
        raise unknown(NAME, "its metadata lack its size or its parameters")
    return {name: places[name] for name in (_PARAMETERS, _SIZE)}


def _valid(header: bytes) -> bool:
    (told,) = struct.unpack_from("<I", header, 4)
    if not header.startswith(b"head") or told != _crc32c(header[:4] + bytes(4) + header[8:]):
        return False
    if header[_VERSIONS] != _KNOWN:
        # readers pass it over and take the other one, which may say something else
        raise unknown(NAME, "one of its headers is of a version that is not known")
    return True


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE: Final = _make_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
