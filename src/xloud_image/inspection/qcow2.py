"""QCOW2: a disk that may name a backing file, and another file that holds its data.

Source: qemu's docs/interop/qcow2.
"""

from __future__ import annotations

import struct
from typing import Final

from xloud_image.inspection.reading import Parser, Span, dangerous, unknown

MAGIC: Final = b"QFI\xfb"
NAME: Final = "qcow2"

# magic, version, backing file's place and length, size of a cluster as a power of two, size of the disk, encryption
_HEADER: Final = struct.Struct(">4sIQIIQI")
_VERSION_2_LENGTH: Final = 72
_FEATURES_AT: Final = 72
_LENGTH_AT: Final = 100
_DATA_FILE: Final = 1 << 2
# dirty, corrupt, compression type, extended L2 entries: they change how the file itself is read
_KNOWN: Final = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
_END: Final = 0
_DATA_FILE_NAME: Final = 0x44415441
_MOST: Final = 256  # header extensions; qemu writes up to five


def parse(head: bytes) -> Parser:
    """Judge the QCOW2 that begins with `head` (512 bytes)."""
    _, version, backing, backing_length, cluster_bits, size, encryption = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise unknown(NAME, f"version {version}; 2 and 3 are known")
    if backing or backing_length:
        raise dangerous(NAME, "it has a backing file")
    if not 9 <= cluster_bits <= 21 or encryption > 2:
        raise unknown(NAME, "clusters or encryption that qemu does not know")
    length = _VERSION_2_LENGTH
    if version == 3:
        (features,) = struct.unpack_from(">Q", head, _FEATURES_AT)
        (length,) = struct.unpack_from(">I", head, _LENGTH_AT)
        if features & _DATA_FILE:
            raise dangerous(NAME, "its data is in another file")
        if features & ~_KNOWN:
            raise unknown(NAME, f"features {features & ~_KNOWN:#x}")
        if length % 8 or not 104 <= length <= 1 << cluster_bits:
            raise unknown(NAME, f"a header of {length} bytes")
    yield from _extensions(length, 1 << cluster_bits)
    return int(size)


def _extensions(at: int, end: int) -> Parser:
    """They fill the first cluster from the header on, until one says that it is the last."""
    for _ in range(_MOST):
        if at + 8 > end:
            return None
        kind, length = struct.unpack(">II", (yield Span(at, 8)))
        if kind == _END:
            return None
        if kind == _DATA_FILE_NAME:
            raise dangerous(NAME, "it names another file for its data")
        at += 8 + (length + 7 & ~7)
    raise unknown(NAME, "more header extensions than any tool writes")
