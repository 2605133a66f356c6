"""A file being written: a temporary name, and the final one when every byte is on the disk. Blocks; for threads."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Sequence
from typing import Final

from xloud_image.failpoints import reach_in_thread
from xloud_image.stores.file.syscalls import (
    CANNOT,
    CANNOT_COPY,
    allocate,
    await_writeback,
    begin_writeback,
    clone,
    directory,
    rename_exclusively,
    unlinked,
)
from xloud_image.stores.kit import transfers
from xloud_image.stores.kit.chunks import Piece, runs
from xloud_image.stores.kit.transfers import Discarded

_PAGE: Final = 4096  # thin: fewer zeros than this would free nothing
_FLUSH: Final = 16 << 20  # bytes after which writing back to the disk is begun
_AHEAD: Final = 64 << 20  # bytes at most for which there is room before they come


class CannotCopy(Exception):
    """The kernel copies nothing between these two files."""


class Draft(transfers.Draft):
    """A file under a temporary name in the directory of its final name."""

    def __init__(self, path: str, key: str, *, mode: int, thin: bool, others: Sequence[str]) -> None:
        """Does nothing yet. `others`: the further directories of the store; `thin`: leave holes for zeros."""
        super().__init__(key)
        self.path = path
        self._mode, self._thin, self._others = mode, thin, others
        self._name = f".{key}.{secrets.token_hex(8)}.part"
        self._removing = False
        self._fd = -1
        self._final: int | None = None  # inode of the final name once it is ours
        self._flushed = 0
        self._size: int | None = None  # as announced; None: nothing is reserved
        self._reserved = 0

    def create(self, size: int | None, room: int) -> None:
        """Make the temporary file. FileExistsError when the key is taken; ENOSPC, before the first byte comes, when
        fewer than `room` bytes are free (thin: than one, for it may shrink). Takes none of them: `size` is only what
        somebody said. Two that fit one by one may begin at once; the one that finds no more room is refused then."""
        with self._working(), directory(self.path) as handle:
            self._absent(handle)
            free = os.fstatvfs(handle)
            if free.f_bavail * free.f_frsize < (min(room, 1) if self._thin else room):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._name, flags, 0o666, dir_fd=handle)
            self.removed = False
            reach_in_thread("file.created")
            if self._mode:
                os.fchmod(self._fd, self._mode)
            self._size = None if self._thin else size

    def _absent(self, handle: int) -> None:
        """FileExistsError when a finished blob of the key is here or in another directory of the store."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(self.key, dir_fd=handle, follow_symlinks=False)
            raise FileExistsError(self.key)
        if any(os.path.lexists(f"{other}/{self.key}") for other in self._others):
            raise FileExistsError(self.key)

    def write(self, pieces: list[Piece]) -> None:
        """Append. The pieces are written as they are, gathered by the kernel."""
        with self._working():
            if self._thin:
                for offset, buffers in runs(pieces, self.written, least=_PAGE):
                    self._put(buffers, offset)
                self.written += sum(map(len, pieces))
            else:
                self._reserve(self.written + sum(map(len, pieces)))
                self.written += self._put(pieces, self.written)
            while self.written - self._flushed >= _FLUSH:
                self._flush()

    def clone(self, source: int, size: int) -> None:
        """Take all of another file, of `size` bytes, without copying, where the file system can: `written` tells."""
        with self._working():
            if clone(source, self._fd):
                self.written = size

    def copy(self, source: int, length: int) -> None:
        """Append so many bytes of another file, from where this one ends: the kernel copies them. `CannotCopy`: not
        between these two. Holes become zeros, or stay holes where the store is thin."""
        with self._working():
            end = self.written + length
            if not self._thin:
                self._reserve(end)
            while self.written < end:
                at, until = self._data(source, end) if self._thin else (self.written, end)
                try:
                    done = os.copy_file_range(source, self._fd, until - at, at, at) if at < until else 0
                except OSError as error:
                    if error.errno in CANNOT_COPY:
                        raise CannotCopy from error
                    raise
                if at < until and not done:
                    raise OSError(errno.EIO, "the file became shorter")
                self.written = at + done
            while self.written - self._flushed >= _FLUSH:
                self._flush()

    def _data(self, source: int, end: int) -> tuple[int, int]:
        """From where to where another file has data next, from the end of what is written on; at most to `end`."""
        try:
            at = min(end, os.lseek(source, self.written, os.SEEK_DATA))
            return at, min(end, os.lseek(source, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                return end, end
            if error.errno in CANNOT_COPY:
                return self.written, end
            raise

    def _reserve(self, end: int) -> None:
        """Room for the bytes up to `end`, which are here, and for as many more as came before, at most _AHEAD: files
        lie in one piece, and nobody holds room with bytes that he does not send. Whether the disk is full is said by
        the write itself, which may need less than was tried here."""
        if self._size is None or end <= self._reserved:
            return
        upto = min(self._size, end + min(self.written, _AHEAD))
        if allocate(self._fd, self._reserved, upto - self._reserved):
            self._reserved = upto
        else:
            self._size = None

    def _put(self, buffers: Sequence[Piece], offset: int) -> int:
        total = sum(map(len, buffers))
        done = os.pwritev(self._fd, buffers, offset) if total else 0
        while done < total:  # a signal, or the disk is nearly full: the next call tells
            rest = memoryview(b"".join(buffers))[done:]
            done += os.pwrite(self._fd, rest, offset + done)
        return total

    def _flush(self) -> None:
        """Begin to write a stretch back and wait for the one before: at most two stretches of dirty memory, and the
        last fsync has little left to do. Errors come up at that fsync."""
        begin_writeback(self._fd, self._flushed, _FLUSH)
        if self._flushed:
            await_writeback(self._fd, self._flushed - _FLUSH, _FLUSH)
        self._flushed += _FLUSH

    def sync(self) -> None:
        """The bytes are on the disk, trailing zeros included."""
        with self._working():
            if os.fstat(self._fd).st_size != self.written:
                os.ftruncate(self._fd, self.written)
            os.fsync(self._fd)
            reach_in_thread("file.synced")

    def publish(self) -> None:
        """Give it its final name, durably. FileExistsError: another writer was first; Discarded: see there.

        A hard link is the one step that never replaces a file, on NFS too, and fails when `discard` took the draft.
        """
        with self._working(), directory(self.path) as handle:
            try:
                linked = self._link(handle)
                self._final = os.stat(self.key, dir_fd=handle, follow_symlinks=False).st_ino
                reach_in_thread("file.linked")
                self._only(linked)
                if linked:
                    os.unlink(self._name, dir_fd=handle)
                os.fsync(handle)
                if os.stat(self.key, dir_fd=handle, follow_symlinks=False).st_ino != self._final:
                    raise Discarded
            except FileNotFoundError:
                raise Discarded from None
            self._close()

    def _link(self, handle: int) -> bool:
        """Take the final name. False: the draft's own name became the final one."""
        try:
            os.link(self._name, self.key, src_dir_fd=handle, dst_dir_fd=handle, follow_symlinks=False)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost; then it is our own link that is in the way
            ours, its = (os.stat(name, dir_fd=handle, follow_symlinks=False) for name in (self._name, self.key))
            if not os.path.samestat(ours, its):
                raise
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            self._rename(handle)
            return False
        return True

    def _rename(self, handle: int) -> None:
        """Where there are no hard links. An exclusive empty file holds the final name where even the exclusive
        rename is missing; nobody reads it, since no location names it before `write` returns."""
        try:
            rename_exclusively(handle, self._name, self.key)
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            os.close(os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=handle))
            try:
                os.rename(self._name, self.key, src_dir_fd=handle, dst_dir_fd=handle)
            except BaseException:
                os.unlink(self.key, dir_fd=handle)
                raise

    def _only(self, linked: bool) -> None:
        """One key, one file over all directories of the store. A finished file has one link, one that is being
        finished has two; of two that finish at once the one whose directory's path sorts first stays, so exactly
        one wins. (Each links, then looks: a finished one had looked before this one linked.)"""
        for other in self._others:
            try:
                found = os.stat(f"{other}/{self.key}", follow_symlinks=False)
            except OSError:
                continue
            if not (linked and found.st_nlink > 1 and self.path < other):
                raise FileExistsError(self.key)

    def remove(self) -> None:
        """Take away both names and close. Twice is once."""
        with self._lock:
            if self._removing or self.removed:
                return
            self._removing = True
        try:
            with directory(self.path) as handle:
                unlinked(self._name, handle)
                if self._final is not None:
                    with contextlib.suppress(FileNotFoundError):
                        if os.stat(self.key, dir_fd=handle, follow_symlinks=False).st_ino == self._final:
                            os.unlink(self.key, dir_fd=handle)
                os.fsync(handle)
            self.removed = True
        finally:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
