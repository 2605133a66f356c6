"""Directories and system calls that the drafts and open files of the file store share. Blocks; no event loop here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import heapq
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xloud_image.failpoints import reach_in_thread

BATCH: Final = 1 << 20  # bytes of one write or read, at least

_TMPFS: Final = frozenset({0x01021994, 0x858458F6})  # statfs types of tmpfs and ramfs: always in memory
_SYNC_BEGIN: Final = 2  # SYNC_FILE_RANGE_WRITE
_SYNC_WAIT: Final = 1 | 2 | 4  # … with waiting before and after
_RENAME_NOREPLACE: Final = 1
_FICLONE: Final = 0x40049409

# What file systems answer that cannot do a thing at all.
CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOTTY})
CANNOT_COPY: Final = CANNOT | {errno.EXDEV, errno.ETXTBSY}

_libc: Final = ctypes.CDLL(None, use_errno=True)
_off: Final = ctypes.c_int64
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, _off, _off)
_libc.sync_file_range.argtypes = (ctypes.c_int, _off, _off, ctypes.c_uint)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def allocate(fd: int, offset: int, length: int) -> bool:
    """Room for these bytes, which become part of the file. False: there is none, or the file system cannot do it.

    Not `os.posix_fallocate`: where the file system cannot, that writes a byte into every block instead.
    """
    return not _libc.fallocate(fd, 0, offset, length)


def rename_exclusively(directory: int, old: str, new: str) -> None:
    """Rename within a directory; FileExistsError instead of replacing."""
    names = os.fsencode(old), os.fsencode(new)
    _checked(_libc.renameat2(directory, names[0], directory, names[1], _RENAME_NOREPLACE))


def clone(source: int, target: int) -> bool:
    """Give the empty file `target` all of `source`: both have the same blocks until one is changed. False: the file
    system cannot, or these are two."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in CANNOT_COPY:
            raise
        return False
    return True


def begin_writeback(fd: int, offset: int, length: int) -> None:
    """The kernel begins to write these bytes to the disk. Errors come up at the next fsync."""
    _libc.sync_file_range(fd, offset, length, _SYNC_BEGIN)


def await_writeback(fd: int, offset: int, length: int) -> None:
    """Return when these bytes are not dirty any more."""
    _libc.sync_file_range(fd, offset, length, _SYNC_WAIT)


def in_memory(fd: int) -> bool:
    """Whether the file system has no disk behind it."""
    answer = (ctypes.c_long * 32)()
    return not _libc.fstatfs(fd, answer) and answer[0] in _TMPFS


@contextlib.contextmanager
def directory(path: str) -> Iterator[int]:
    """A descriptor of the directory, so that nothing between two steps can put another one under its name."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


class IsLink(OSError):
    """A name that is a symbolic link: it is not followed. `filename`: the name, `filename2`: where it leads."""


def is_link(name: str, dir_fd: int) -> IsLink:
    """The error for a link in that directory."""
    target = ""
    with contextlib.suppress(OSError):
        target = os.readlink(name, dir_fd=dir_fd)
    return IsLink(errno.ELOOP, os.strerror(errno.ELOOP), name, None, target)


def regular(name: str, dir_fd: int) -> os.stat_result:
    """The stat of a file in that directory. `IsLink` for a link; what else is no plain file is not found."""
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise is_link(name, dir_fd)
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
    return found


def remove(path: str, name: str) -> str | None:
    """Unlink a regular file, durably; or a link alone: then where it led."""
    target = None
    with directory(path) as handle:
        try:
            regular(name, handle)
        except IsLink as error:
            target = str(error.filename2)
        os.unlink(name, dir_fd=handle)
        reach_in_thread("file.unlinked")
        os.fsync(handle)
    return target


def discard(path: str, key: str) -> None:
    """Remove every draft of `key`, then the finished file. In this order: a writer that has not linked yet loses its
    name and fails; one that has linked is caught by the second step."""
    with directory(path) as handle:
        prefix, gone = f".{key}.", False
        for name in os.listdir(handle):
            if name.startswith(prefix) and name.endswith(".part") and name.count(".") == key.count(".") + 3:
                gone |= unlinked(name, handle)
        gone |= unlinked(key, handle)
        reach_in_thread("file.unlinked")
        if gone:
            os.fsync(handle)


def unlinked(name: str, dir_fd: int) -> bool:
    """Unlink; False when there was nothing."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def size(path: str, name: str) -> int:
    """Bytes of a regular file."""
    with directory(path) as handle:
        return regular(name, handle).st_size


def names(path: str, limit: int) -> list[str]:
    """The first plain files of a directory by name; drafts are none."""
    with os.scandir(path) as entries:
        found = (entry.name for entry in entries if entry.name[0] != "." and entry.is_file(follow_symlinks=False))
        return heapq.nsmallest(limit, found)


def usable(path: str) -> tuple[int, int]:
    """(file system, free bytes) of a directory that takes data; OSError says why it does not."""
    with directory(path) as handle:
        room = os.fstatvfs(handle)
        if room.f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        if not room.f_bavail or (room.f_files and not room.f_favail):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return os.fstat(handle).st_dev, room.f_bavail * room.f_frsize


def make_directory(path: str) -> None:
    """With its parents; there already is fine."""
    Path(path).mkdir(parents=True, exist_ok=True)
