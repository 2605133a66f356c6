"""A file being read: in threads by `read`, or by sendfile as far as it is in memory. Only `resident` never blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.file.syscalls import BATCH, directory, in_memory, is_link

_STEP: Final = 1 << 16  # distance of the bytes at which presence in memory is tested


class OpenFile:
    """A file open for reading; threads may still be in it when it is closed: the last one out closes."""

    def __init__(self, path: str, name: str) -> None:
        with directory(path) as handle:
            # O_NONBLOCK: a pipe under this name must not hold us up; plain files ignore it
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                self.fd = os.open(name, flags, dir_fd=handle)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise is_link(name, handle) from None
                if error.errno == errno.ENXIO:
                    raise FileNotFoundError(errno.ENOENT, "not a regular file", name) from None
                raise
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        try:
            found = os.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
            self.size = found.st_size
            self._in_memory = in_memory(self.fd)
            self.sendable = self._in_memory or self._tells_presence()
        except BaseException:
            os.close(self.fd)
            raise

    def _tells_presence(self) -> bool:
        """Whether a read here can say «not without blocking»; NFS and FUSE cannot, so they go through threads."""
        try:
            os.preadv(self.fd, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def resident(self, offset: int, length: int) -> bool:
        """Whether these bytes seem to be in memory; never blocks."""
        if self._in_memory or length <= 0:
            return True
        probe = [bytearray(1)]
        last = offset + length - 1
        try:
            for at in range(offset, last, _STEP):
                os.preadv(self.fd, probe, at, os.RWF_NOWAIT)
            os.preadv(self.fd, probe, last, os.RWF_NOWAIT)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _using(self) -> Iterator[int]:
        with self._lock:
            if self._closing:
                raise OSError(errno.EBADF, "closed")
            self._users += 1
        try:
            yield self.fd
        finally:
            if self._left():
                os.close(self.fd)

    def _left(self) -> bool:
        """A thread leaves; True when it is the last one and has to close."""
        with self._lock:
            self._users -= 1
            return self._closing and not self._users

    def read(self, offset: int, length: int) -> bytes:
        """These bytes. `StoreUnavailable` when the file ends before."""
        with self._using() as fd:
            data = os.pread(fd, length, offset)
        if len(data) < length:
            raise StoreUnavailable("a file of the store became shorter while it was read")
        return data

    def warm(self, offset: int, length: int) -> None:
        """Read these bytes into memory."""
        with self._using() as fd:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)
            scratch = _scratch()
            while length > 0:
                done = os.preadv(fd, [scratch[: min(length, BATCH)]], offset)
                if not done:
                    break
                offset, length = offset + done, length - done

    def close(self) -> None:
        """Close now, or when the last thread leaves."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            now = not self._users
        if now:
            os.close(self.fd)


_local: Final = threading.local()


def _scratch() -> memoryview:
    """Where `warm` reads to: one MiB of each thread, never looked at."""
    if not hasattr(_local, "scratch"):
        _local.scratch = memoryview(bytearray(BATCH))
    scratch: memoryview = _local.scratch
    return scratch
