"""Locks on an open file that belong to this opening of it: the kernel ends them with it, however its process ends.

Two meanings, each a byte: FILLING, held by whoever writes the file; READING, shared by those who read it. Locks of
readers and of the one who fills do not meet. Nothing here waits.
"""

from __future__ import annotations

import fcntl
import struct
from typing import Final

FILLING, READING = 0, 1
_FLOCK: Final = "hhqqi4x"  # type, whence, start, length, process


def share(fd: int, byte: int) -> bool:
    """Hold it together with others; False while somebody has it alone."""
    return _set(fd, fcntl.F_RDLCK, byte)


def take(fd: int, byte: int) -> bool:
    """Hold it alone; False while somebody else has it. The file has to be open for writing."""
    return _set(fd, fcntl.F_WRLCK, byte)


def is_held(fd: int, byte: int) -> bool:
    """Whether another opening of the file has it, alone or shared."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, byte, 1, 0)
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _set(fd: int, kind: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, 0, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True
