"""A zip archive with one file in it, in one pass: from its local header to its end record, which have to agree.

What stands behind the data (sizes, checksum, directory, also of zip64) is compared with what came out. Refused are
archives of several files, encrypted ones, methods but stored and deflate, a stored file whose size stands behind it.
The name of the file says nothing. Layout: APPNOTE.TXT of PKWARE, 6.3.10.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import Final

from xloud_image.errors import BadRequest, FormatRefused
from xloud_image.streams.decoders import DEFLATE, PIECE, Input, Steps, member

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_FILE, _ENTRY, _DESCRIPTOR, _RECORD64 = b"PK\3\4", b"PK\1\2", b"PK\7\x08", b"PK\6\6"
_ONES16, _ONES32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_BEHIND: Final = 1 << 3
_STORED, _DEFLATED = 0, 8
_UNIX: Final = 3


@dataclass(frozen=True)
class _File:
    """What the local header says, and what came of it: begun, packed, size are places and lengths in bytes."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int


def unzip(source: Input) -> Steps[None]:
    """The bytes of the file."""
    if (yield from source.upto(4)) != _FILE:
        raise FormatRefused("the zip archive holds no file, or is a part of a split one")
    _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(
        (yield from source.exactly(_LOCAL.size))
    )
    name = yield from source.exactly(names)
    size, packed, _ = _wide((yield from source.exactly(extras)), size, packed, 0)
    behind = bool(flags & _SIZES_BEHIND)
    if flags & _ENCRYPTED:
        raise FormatRefused("the zip archive is encrypted")
    if method not in (_STORED, _DEFLATED):
        raise FormatRefused(f"the zip archive is packed by method {method}; stored (0) and deflate (8) are supported")
    if name.endswith((b"/", b"\\")):
        raise FormatRefused("the zip archive holds a folder; it must hold one file and nothing else")
    if behind and method == _STORED:
        raise FormatRefused("the zip archive stores a file uncompressed with its size behind it; compress it (deflate)")
    begin, source.crc = source.read, 0
    if method == _STORED:
        yield from _stored(source, packed)
    else:
        yield from member(source, DEFLATE, DEFLATE.make())
    file = _File(name, flags, method, source.crc, source.read - begin, source.made)
    if behind:
        yield from _descriptor(source, file)
    elif (crc, packed, size) != (file.crc, file.packed, file.size):
        raise _wrong("what stands in front of the file")
    directory = source.read
    yield from _directory(source, file)
    yield from _end(source, directory)


def _stored(source: Input, count: int) -> Steps[None]:
    while count:
        piece = bytes((yield from source.some(min(count, PIECE))))
        count -= len(piece)
        yield source.makes(piece)


def _descriptor(source: Input, file: _File) -> Steps[None]:
    """Checksum and sizes behind the data, with or without a signature, in four or eight bytes: whichever fits."""
    there = yield from source.upto(28)
    for signature in (_DESCRIPTOR, b""):
        for form in ("<IQQ", "<III"):
            if form == "<III" and max(file.packed, file.size) > _ONES32:
                continue
            said = signature + struct.pack(form, file.crc, file.packed, file.size)
            if there.startswith(said) and there[len(said) :].startswith(b"PK"):
                return source.skip(len(said))
    if len(there) < 28:
        raise source.truncated()
    raise _wrong("what stands behind the file")


def _directory(source: Input, file: _File) -> Steps[None]:
    """One entry, of this file."""
    signature = yield from source.upto(4)
    if signature == _FILE:
        raise _several()
    entry = _CENTRAL.unpack((yield from source.exactly(_CENTRAL.size)))
    _, made, _, flags, method, _, _, crc, packed, size, names, extras, comment, _, _, mode, offset = entry
    name = yield from source.exactly(names)
    size, packed, offset = _wide((yield from source.exactly(extras)), size, packed, offset)
    yield from source.exactly(comment)
    if signature != _ENTRY or offset or _File(name, flags, method, crc, packed, size) != file:
        raise _wrong("its directory")
    if made >> 8 == _UNIX and stat.S_ISLNK(mode >> 16):
        raise FormatRefused("the zip archive holds a link; it must hold one file and nothing else")


def _end(source: Input, directory: int) -> Steps[None]:
    """The end record, with the one of zip64 in front if there is one, and nothing behind it."""
    place = source.read
    truth = (1, 1, place - directory, directory)
    signature = yield from source.upto(4)
    if signature == _ENTRY:
        raise _several()
    wide = signature == _RECORD64
    if wide:
        record = _END64.unpack((yield from source.exactly(_END64.size)))
        locator = _LOCATOR.unpack((yield from source.exactly(_LOCATOR.size)))
        if (record[1], *record[4:]) != (_END64.size - 12, 0, 0, *truth) or locator != (b"PK\6\7", 0, place, 1):
            raise _wrong("the end record of zip64")
    signature, *disks, here, entries, size, offset, comment = _END.unpack((yield from source.exactly(_END.size)))
    said = zip((here, entries, size, offset), truth, (_ONES16, _ONES16, _ONES32, _ONES32), strict=True)
    if signature != b"PK\5\6" or not all(value == true or (wide and value == ones) for value, true, ones in said):
        raise _wrong("the end record")
    if any(disk and not (wide and disk == _ONES16) for disk in disks):
        raise FormatRefused("the zip archive is a part of a split one")
    yield from source.exactly(comment)
    if (yield from source.upto(1)):
        raise BadRequest(f"something stands behind the end of the zip archive, at {source.read}")


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Size, packed size and offset with what the zip64 extra field says for those that are all ones."""
    values = [size, packed, offset]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1:
            for number, value in enumerate(values):
                if value == _ONES32 and len(field) >= 8:
                    values[number], field = int.from_bytes(field[:8], "little"), field[8:]
            break
    return values[0], values[1], values[2]


def _wrong(what: str) -> BadRequest:
    return BadRequest(f"the zip archive is damaged: {what} does not agree with what is in it")


def _several() -> FormatRefused:
    return FormatRefused("the zip archive holds more than one file; an image is one")
