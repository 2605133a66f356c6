"""Headers of the formats, field by field. Each builder makes a small harmless image that qemu opens, unless asked."""

from __future__ import annotations

import struct
from typing import Final

SECTOR: Final = 512
AT_END: Final = (1 << 64) - 1
DESCRIPTOR: Final = (
    b"# Disk DescriptorFile\n"
    b"version=1\n"
    b"CID=7e5b80a7\n"
    b"parentCID=ffffffff\n"
    b'createType="monolithicSparse"\n'
    b"\n"
    b"# Extent description\n"
    b'RW 2048 SPARSE "disk.vmdk"\n'
    b"\n"
    b"# The Disk Data Base\n"
    b"#DDB\n"
    b"\n"
    b'ddb.adapterType = "ide"\n'
    b'ddb.geometry.cylinders = "2"\n'
    b'ddb.virtualHWVersion = "4"\n'
)
# what every VMDK header holds, in its order
VMDK_FIELDS: Final = {
    "magic": b"KDMV", "version": 1, "flags": 3, "capacity": 2048, "grain": 128, "sector": 1, "sectors": 20,
    "entries": 512, "spare": 21, "directory": 26, "overhead": 128, "unclean": 0, "lines": b"\n \r\n", "compression": 0,
}  # fmt: skip


def vmdk_header(**fields: int | bytes) -> bytes:
    """One sector."""
    return struct.pack("<4sIIQQQQIQQQB4sH", *(VMDK_FIELDS | fields).values()).ljust(SECTOR, b"\0")


def vmdk(descriptor: bytes = DESCRIPTOR, *, footer: bytes | None = None, **fields: int | bytes) -> bytes:
    """A monolithicSparse of 1 MiB of zeros; footer: its sector, which makes it a streamOptimized one."""
    if footer is not None:
        fields = {"version": 3, "flags": 0x30003, "compression": 1, "directory": AT_END} | fields
        descriptor = descriptor.replace(b"monolithicSparse", b"streamOptimized")
    head = vmdk_header(**fields)
    room = int(fields.get("sectors", 20)) % 4096 * SECTOR
    data = (head + descriptor[:room].ljust(room, b"\0")).ljust(128 * SECTOR, b"\0")
    if footer is not None:
        marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
        data += marker + footer + bytes(SECTOR)
    return data


def stream_footer(**fields: int | bytes) -> bytes:
    """The footer's sector of a streamOptimized VMDK, as its header but for the directory."""
    return vmdk_header(**({"version": 3, "flags": 0x30003, "compression": 1, "directory": 26} | fields))
