"""Formats that are judged by their first sector.

Among them are those that are never taken: they name other files, and no image may claim to be one of them.
"""

from __future__ import annotations

import struct
from typing import Final

from xloud_image.inspection.reading import Parser, dangerous, unknown

VDI_MAGIC: Final = b"\x7f\x10\xda\xbe"
VDI_MAGIC_AT: Final = 0x40
LUKS_MAGIC: Final = b"LUKS\xba\xbe"
QED_MAGIC: Final = b"QED\0"
# of User-mode Linux, in either order of bytes
COW_MAGICS: Final = (b"OOOM", b"MOOO")
BOCHS_MAGIC: Final = b"Bochs Virtual HD Image\0"

_VDI_VERSION: Final = 0x00010001
_VDI_WHOLE: Final = (1, 2)  # dynamic, fixed; behind them undo and differencing disks
_VDI_DEPENDENT: Final = (3, 4)


def parse_vdi(head: bytes) -> Parser:
    """VirtualBox's. Source: its VDICore.h, qemu's block/vdi.c."""
    version, _, kind = struct.unpack_from("<III", head, VDI_MAGIC_AT + 4)
    if version != _VDI_VERSION:
        raise unknown("vdi", f"version {version >> 16}.{version & 0xFFFF}; 1.1 is known")
    if kind in _VDI_DEPENDENT or any(head[0x1A8:0x1C8]):
        raise dangerous("vdi", "it is a differencing disk, which has a parent")
    if kind not in _VDI_WHOLE:
        raise unknown("vdi", f"a disk of kind {kind}")
    yield from ()
    return int(struct.unpack_from("<Q", head, 0x170)[0])


def parse_luks(head: bytes) -> Parser:
    """An encrypted disk. Source: LUKS On-Disk Format Specification 1.2."""
    (version,) = struct.unpack_from(">H", head, len(LUKS_MAGIC))
    if version != 1:
        raise unknown("luks", f"version {version}; 1 is known")
    if struct.unpack_from(">I", head, 104) == (0,):
        raise dangerous("luks", "it is a header whose data lies elsewhere")
    yield from ()
    return None


def parse_qed(head: bytes) -> Parser:
    """Qemu's former format."""
    yield from _never("qed", head)
    return None


def parse_cow(head: bytes) -> Parser:
    """What differs from a backing file that it names."""
    yield from _never("cow", head)
    return None


def _never(name: str, head: bytes) -> Parser:
    if head:
        raise dangerous(name, "that format is not allowed")
    yield from ()
    return None


def parse_bochs(head: bytes) -> Parser:
    """Growing disks stand alone; undoable and volatile ones are what differs from another."""
    if head[48:64].split(b"\0")[0] != b"Growing":
        raise dangerous("bochs", "it is a differencing disk, which has a parent")
    yield from ()
    return None
