"""VMDK: the one form that names no other file, a single file of the kind streamOptimized or monolithicSparse.

A VMDK has a descriptor, a text that says which files hold the data. Its readers do not agree on how to read it: some by
lines, some by searching words in all of the text, some by scanning for fields over any white space, and each ends
elsewhere. So this is no parser that finds out what a descriptor means, but a grammar of what the known tools write
(qemu, VMware, VirtualBox); whatever else is in it is refused. Source: VMware's Virtual Disk Format 5.0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from typing import Final

from xloud_image.errors import FormatRefused
from xloud_image.inspection.reading import SECTOR, Parser, Span, Tail, dangerous, unknown

MAGIC: Final = b"KDMV"
# the older magic of VMware's servers, for parts of a disk only
PART: Final = b"COWD"
NAME: Final = "vmdk"

# magic, version, flags, capacity, grain, descriptor's sector and sectors, entries of a table, spare directory,
# directory, overhead, unclean, end-of-line check, compression; counts are in sectors
_HEADER: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
_LINES: Final = b"\n \r\n"
_AT_END: Final = (1 << 64) - 1
_FOOTER: Final = 3  # kind of marker
_MOST: Final = 128  # sectors of a descriptor; the tools take 20
_LONGEST_TEXT: Final = 1 << 20  # bytes of a descriptor that is a file of its own, as qemu reads it
_KINDS: Final = {"monolithicSparse", "streamOptimized"}

_PLAIN: Final = re.compile(rb"[ -~]*")
_FIELDS: Final = {
    b"version": re.compile(rb"[1-3]"),
    b"encoding": re.compile(rb'"[A-Za-z0-9_-]{1,32}"'),
    b"CID": re.compile(rb"[0-9A-Fa-f]{1,8}"),
    b"parentCID": re.compile(rb"[Ff]{8}"),
    b"isNativeSnapshot": re.compile(rb'"no"'),
    b"createType": re.compile(rb'"[A-Za-z0-9]{1,32}"'),
}
_NEEDED: Final = {b"version", b"CID", b"parentCID", b"createType"}
_FIELD: Final = re.compile(rb"([A-Za-z]+)=(.+)")
_EXTENT: Final = re.compile(rb'(?:RW|RDONLY) [1-9][0-9]{0,15} SPARSE "([^"/\\:]{1,255})"')
_DATABASE: Final = re.compile(rb'ddb\.([A-Za-z0-9_.-]{1,64}) ?= ?"([^"]*)"')
# the disk database may name files and parents as well
_ELSEWHERE: Final = re.compile(rb"parent|sidecar|filter|file|path|uri|url", re.IGNORECASE)
_NOTHING: Final = re.compile(rb"[0Ff -]*")
# words that readers search in all of the text, whatever their case
_ONCE: Final = (b"createtype", b"parentcid")
_NEVER: Final = (b"parentfilenamehint", b"changetrackpath")
# qemu writes a shorter CID over a longer one (it has up to eight digits, as few as it needs) and leaves the last bytes
# of the text once more behind its end
_LEFT: Final = 7


def parse(head: bytes, kinds: Collection[str]) -> Parser:
    """Judge the VMDK that begins with `head` (512 bytes). kinds: allowed values of createType, lower case."""
    header = _HEADER.unpack_from(head)
    magic, version, _, capacity, _, sector, sectors, _, _, directory, _, _, lines, compression = header
    if magic == PART:
        raise dangerous(NAME, "it is a part of a disk of several files")
    if not 1 <= version <= 3 or lines != _LINES or compression > 1:
        raise unknown(NAME, "its header is of an unknown version or damaged")
    if capacity == 0:
        raise dangerous(NAME, "its header has no capacity, so that its data would be looked for in other files")
    if sector != 1 or not 1 <= sectors <= _MOST:
        raise dangerous(NAME, f"its descriptor is not of 1 to {_MOST} sectors behind the header")
    _judge_descriptor((yield Span(SECTOR, sectors * SECTOR)), kinds)
    if directory == _AT_END:
        _judge_footer(header, (yield Tail(3 * SECTOR)))
    return int(capacity) * SECTOR


def parse_hidden() -> Parser:
    """Judge what claims to be a VMDK, in a container, and does not begin as one.

    Who unpacks no containers and believes the claim takes the text before the first zero for a descriptor, if it
    names a type.
    """
    at, before = 0, b""
    while at < _LONGEST_TEXT:
        piece = yield Span(at, 4096)
        text, end, _ = piece.partition(b"\0")
        if b"createtype" in (before + text).lower():
            raise dangerous(NAME, "it begins with the text of a descriptor, which names files outside of it")
        if end:
            break
        at, before = at + len(piece), piece[-16:]
    return None


def _judge_footer(header: tuple[object, ...], tail: bytes) -> None:
    """The footer counts instead of the header: it may only say more exactly where the directories are."""
    footer = _HEADER.unpack_from(tail, SECTOR)
    _, size, kind = struct.unpack_from("<QII", tail)
    if (size, kind) != (0, _FOOTER) or any(tail[16:SECTOR]) or any(tail[2 * SECTOR :]):
        raise unknown(NAME, "it does not end in a footer as its header says; is it whole?")
    fixed = (*range(8), 12, 13)
    if any(footer[part] != header[part] for part in fixed) or footer[9] == _AT_END:
        raise dangerous(NAME, "its footer differs from its header")


def _judge_descriptor(text: bytes, kinds: Collection[str]) -> None:
    text, end, rest = text.partition(b"\0")
    if not end:
        raise dangerous(NAME, "its descriptor does not end within its sectors")
    left = rest.rstrip(b"\0")
    if len(left) > _LEFT or not text.endswith(left):
        raise dangerous(NAME, "something lies behind the end of its descriptor")
    lower = text.lower()
    if any(lower.count(word) != 1 for word in _ONCE) or any(word in lower for word in _NEVER):
        raise dangerous(NAME, "its descriptor names a parent or another file, or its type or parent not exactly once")
    fields: dict[bytes, bytes] = {}
    extents = 0
    for ended in text.split(b"\n"):
        line = ended.removesuffix(b"\r")
        if not _PLAIN.fullmatch(line):
            raise _bad_line(line)
        if not line.strip(b" ") or line.startswith(b"#"):
            continue
        if extent := _EXTENT.fullmatch(line):
            if not extent[1].strip(b". "):
                raise _bad_line(line)
            extents += 1
        elif (field := _FIELD.fullmatch(line)) and field[1] in _FIELDS:
            if field[1] in fields or not _FIELDS[field[1]].fullmatch(field[2]):
                raise _bad_line(line)
            fields[field[1]] = field[2]
        elif entry := _DATABASE.fullmatch(line):
            if _ELSEWHERE.search(entry[1]) and not _NOTHING.fullmatch(entry[2]):
                raise _bad_line(line)
        else:
            raise _bad_line(line)
    if extents != 1 or not fields.keys() >= _NEEDED:
        raise dangerous(NAME, "its descriptor does not name exactly one extent, this file, and what it is")
    _judge_kind(fields[b"createType"].strip(b'"').decode("ascii"), kinds)


def _judge_kind(kind: str, kinds: Collection[str]) -> None:
    if kind not in _KINDS or kind.lower() not in kinds:
        allowed = ", ".join(sorted(name for name in _KINDS if name.lower() in kinds)) or "none"
        raise FormatRefused(f"VMDK of type {kind} is not allowed here; allowed: {allowed}")


def _bad_line(line: bytes) -> FormatRefused:
    return dangerous(NAME, f"its descriptor has the line {line[:80].decode('ascii', 'backslashreplace')!r}")
