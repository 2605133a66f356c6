"""A file of the cache on its way in, and what an open one is for. Blocks; for threads."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Final

from xloud_image.cache import locks
from xloud_image.failpoints import reach_in_thread
from xloud_image.stores.file.download import OpenFile
from xloud_image.stores.file.syscalls import await_writeback, begin_writeback

_FLUSH: Final = 16 << 20  # bytes after which writing back to the disk is begun


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What a file of the cache holds: the data of an image, its bytes, and 32 hex digits of its digest."""

    image_id: str
    size: int
    digest: str

    @property
    def name(self) -> str:
        return f"{self.image_id}.{self.digest}"


@dataclasses.dataclass(slots=True)
class Found:
    """An open file of the cache. `growing`: somebody fills it. `draft`: we are to fill it, and nobody else will."""

    opened: OpenFile
    growing: bool = False
    draft: Draft | None = None

    def close(self) -> None:
        self.opened.close()
        if self.draft is not None:
            self.draft.drop()


class Draft:
    """A file being filled, by us alone. Its bytes can be read as they come. One thread at a time."""

    def __init__(self, path: str, fd: int, publish: Callable[[], bool]) -> None:
        self.written = 0
        self._path, self._fd, self._publish = path, fd, publish
        self._flushed = 0

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append. OSError: there is no room on the disk, or it is broken."""
        total = sum(map(len, pieces))
        done = os.pwritev(self._fd, pieces[:1024], self.written) if total else 0
        while done < total:  # a signal, many pieces, or the disk is nearly full: the next call tells
            done += os.pwrite(self._fd, memoryview(b"".join(pieces))[done:], self.written + done)
        self.written += total
        while self.written - self._flushed >= _FLUSH:
            begin_writeback(self._fd, self._flushed, _FLUSH)
            if self._flushed:
                await_writeback(self._fd, self._flushed - _FLUSH, _FLUSH)
            self._flushed += _FLUSH
        reach_in_thread("cache.written")

    def is_wanted(self, *, readers: bool) -> bool:
        """Whether it is still in the directory; `readers`: and somebody reads it."""
        return self._is_there() and (not readers or locks.is_held(self._fd, locks.READING))

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def publish(self) -> bool:
        """It is whole and right: it becomes the cached image. False when it was removed meanwhile."""
        reach_in_thread("cache.filled")
        done = self._publish()
        self._close()
        return done

    def spoil(self) -> None:
        """Its bytes are wrong: whoever reads them gets no more."""
        os.ftruncate(self._fd, 0)

    def drop(self) -> None:
        """It goes, unless it was published. Again is the same."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if self._is_there():
                    os.unlink(self._path)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
