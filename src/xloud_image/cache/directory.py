"""The directory of the cache, which is its own index: what is there is told by names, sizes and times, so that it
survives a restart and kill -9. Everything here blocks; for threads.

    IMAGE.DIGEST            the data of an image, whole and compared with its digest (of which the name has 32 digits)
    incomplete/             IMAGE.DIGEST.SIZE.RANDOM: data on its way in. The size counts from the beginning
    removed/                data that was removed while somebody read it; goes when nobody does
    queue/IMAGE             images that are to be fetched
    hits/IMAGE.DIGEST       how often it was read
    .lock, .keeper          files to lock (`locks`)

Promises: all files together never have more than `limit` bytes, also while they grow; what somebody reads is not
removed; a file that is being filled has a lock of the one who fills it, and without it is nobody's. A finished file was
changed at a whole second: that is set when its digest has been compared, and whoever writes to it later changes it.
Files of other names are not touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter

from xloud_image.cache import locks
from xloud_image.cache.draft import Draft, Found, Key
from xloud_image.failpoints import reach_in_thread
from xloud_image.stores.file.download import OpenFile
from xloud_image.stores.file.syscalls import directory

log = structlog.get_logger(__name__)

EVICTED: Final = Counter("xloud_image_cache_evictions_total", "Images that left the cache to make room.")

_NAME: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.[0-9a-f]{32}")
_PART: Final = re.compile(rf"({_NAME.pattern})\.([0-9]{{1,19}})\.[0-9a-f]{{8}}")
_IMAGE: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INCOMPLETE, _REMOVED, _QUEUE, _HITS = "incomplete", "removed", "queue", "hits"
_BLOCK: Final = 4096  # bytes; each file takes whole ones, and one more for its hits
_PATIENCE: Final = 2.0  # seconds that the lock of the directory is waited for
_WHOLE: Final = 10**9  # nanoseconds


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A cached image; times in seconds since 1970, size in bytes."""

    image_id: str
    name: str
    size: int
    hits: int
    last_accessed: float
    last_modified: float


class Directory:
    """One directory. `limit`: bytes of all files; `stall`: seconds without a further byte after which `clean` takes
    away a file that somebody fills."""

    def __init__(self, path: str, limit: int, stall: int) -> None:
        self.path, self.limit, self.stall = path, limit, stall

    # -- reading and filling

    def find(self, key: Key, *, read: bool = True, alone: bool = False) -> OpenFile | None:
        """The finished file, open and safe from removal until it is closed; None when there is none. `read`: it counts
        as a read; `alone`: under the lock."""
        try:
            opened = OpenFile(self.path, key.name)
        except OSError:
            return None
        try:
            shared = locks.share(opened.fd, locks.READING)
            found = os.fstat(opened.fd)
            if shared and found.st_nlink:
                if found.st_size == key.size and not found.st_mtime_ns % _WHOLE:
                    if read:
                        self._count(key.name, opened.fd, found)
                    return opened
                log.error("a file of the image cache was changed by somebody else and is removed", file=key.name)
                opened.close()
                with contextlib.nullcontext() if alone else self._alone():
                    self._retire(key.name)
        except OSError as error:
            log.warning("a file of the image cache cannot be used", file=key.name, reason=error.strerror)
        opened.close()
        return None

    def enter(self, key: Key, *, begin: bool, read: bool = True) -> Found | None:
        """The finished file, or the one that is being filled; `begin`: or a new one, for which there is room, with a
        draft. None: none of these. OSError: the directory cannot be used."""
        if (opened := self.find(key, read=read)) is not None:
            return Found(opened)
        with self._alone():
            if (opened := self.find(key, read=read, alone=True)) is not None:
                return Found(opened)
            if (opened := self._being_filled(key)) is not None:
                return Found(opened, growing=True)
            if not begin or not self._make_room(key.size):
                return None
            return self._begin(key)

    def _being_filled(self, key: Key) -> OpenFile | None:
        for name, _ in self._files(_INCOMPLETE):
            match = _PART.fullmatch(name)
            if match is None or match[1] != key.name or int(match[3]) != key.size:
                continue
            opened = OpenFile(f"{self.path}/{_INCOMPLETE}", name)
            if locks.is_held(opened.fd, locks.FILLING) and locks.share(opened.fd, locks.READING):
                return opened
            opened.close()
            self._retire(f"{_INCOMPLETE}/{name}")
        return None

    def _begin(self, key: Key) -> Found:
        name = f"{key.name}.{key.size}.{secrets.token_hex(4)}"
        path = f"{self.path}/{_INCOMPLETE}/{name}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            self._give(path)
            if not locks.take(fd, locks.FILLING):
                raise BlockingIOError(errno.EAGAIN, "locked by somebody else", path)
            opened = OpenFile(f"{self.path}/{_INCOMPLETE}", name)
            locks.share(opened.fd, locks.READING)
        except BaseException:
            os.unlink(path)
            os.close(fd)
            raise
        reach_in_thread("cache.begun")
        return Found(opened, growing=True, draft=Draft(path, fd, lambda: self._publish(key, path, fd)))

    def _publish(self, key: Key, path: str, fd: int) -> bool:
        """Give a file its final name, durably. False when it was removed meanwhile."""
        second = int(time.time())
        os.utime(fd, ns=(second * _WHOLE, second * _WHOLE))
        os.fsync(fd)
        with self._alone():
            try:
                if not os.path.samestat(os.fstat(fd), os.stat(path)):
                    return False
                os.rename(path, f"{self.path}/{key.name}")
            except FileNotFoundError:
                return False
            with directory(self.path) as handle:
                os.fsync(handle)
        return True

    def _count(self, name: str, fd: int, found: os.stat_result) -> None:
        """One more read: for the order of eviction, and for who looks. As well as it can be done."""
        with contextlib.suppress(OSError):
            os.utime(fd, ns=(time.time_ns(), found.st_mtime_ns))
            counter = os.open(f"{self.path}/{_HITS}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                if locks.take(counter, 0):
                    os.pwrite(counter, str(_number(os.pread(counter, 20, 0)) + 1).encode(), 0)
            finally:
                os.close(counter)

    # -- room

    def _make_room(self, size: int) -> bool:
        """Whether `size` bytes more may come: what nobody reads goes, what was read longest ago first, and nothing when
        that would not do. Under the lock."""
        self._sweep()
        need = _taken(size)
        over, short = self._used() + need - self.limit, need - self._free()
        if need > self.limit:
            return False
        held: list[tuple[int, str]] = []
        try:
            for entry in sorted(self._entries(), key=lambda entry: entry.last_accessed):
                if over <= 0 and short <= 0:
                    break
                if (fd := self._unread(entry.name)) is not None:
                    held.append((fd, entry.name))
                    over, short = over - _taken(entry.size), short - _taken(entry.size)
            if over > 0 or short > 0:
                return False
            for _, name in held:
                self._unlink(name)
                EVICTED.inc()
            return True
        finally:
            for fd, _ in held:
                os.close(fd)

    def _unread(self, name: str) -> int | None:
        """The file, open, and locked against readers; None while there are some, or when it is not ours to remove."""
        try:
            fd = os.open(f"{self.path}/{name}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        if locks.take(fd, locks.READING):
            return fd
        os.close(fd)
        return None

    def _unlink(self, name: str) -> None:
        for path in (f"{self.path}/{name}", f"{self.path}/{_HITS}/{name}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _retire(self, name: str) -> None:
        """A file, finished or not, is in the cache no more; its bytes go when nobody uses them. Under the lock."""
        if (fd := self._unread(name)) is not None:
            free = locks.take(fd, locks.FILLING)
            os.close(fd)
            if free:
                self._unlink(name)
                return
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self.path}/{name}", f"{self.path}/{_REMOVED}/{os.path.basename(name)}.{secrets.token_hex(4)}")
        self._unlink(name)

    def _sweep(self) -> None:
        """What was removed while it was used, and files of those who died filling them. Under the lock."""
        for name, _ in self._files(_REMOVED):
            if _NAME.match(name) and (fd := self._unread(f"{_REMOVED}/{name}")) is not None:
                if locks.take(fd, locks.FILLING):
                    os.unlink(f"{self.path}/{_REMOVED}/{name}")
                os.close(fd)
        for name, found in self._files(_INCOMPLETE):
            if not _PART.fullmatch(name):
                continue
            fd = os.open(f"{self.path}/{_INCOMPLETE}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            left = not locks.is_held(fd, locks.FILLING)
            os.close(fd)
            if left or (self.stall and time.time() - max(found.st_mtime, found.st_ctime) > self.stall):
                self._retire(f"{_INCOMPLETE}/{name}")

    def _used(self) -> int:
        finished = sum(_taken(entry.size) for entry in self._entries())
        return finished + sum(_taken(max(promised, there)) for promised, there in self._others())

    def _others(self) -> list[tuple[int, int]]:
        """Of files that are no cached images: bytes that each will have, and has."""
        found = []
        for folder in (_INCOMPLETE, _REMOVED):
            for name, status in self._files(folder):
                if match := _PART.match(name):
                    found.append((int(match[3]), status.st_size))
                elif _NAME.match(name):
                    found.append((status.st_size, status.st_size))
        return found

    def _free(self) -> int:
        """Bytes of the file system that nobody has been promised."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize - sum(promised - there for promised, there in self._others())

    def usage(self) -> tuple[int, int]:
        """Cached images, and bytes of the disk that the cache takes or has promised. OSError."""
        return len(self._entries()), self._used()

    # -- what operators see and do

    def entries(self) -> list[Entry]:
        """Every cached image, in no order."""
        return self._entries(count=True)

    def _entries(self, *, count: bool = False) -> list[Entry]:
        found = []
        for name, status in self._files(""):
            if match := _NAME.fullmatch(name):
                hits = 0
                if count:
                    with contextlib.suppress(OSError):
                        hits = _number(Path(f"{self.path}/{_HITS}/{name}").read_bytes()[:20])
                found.append(Entry(match[1], name, status.st_size, hits, status.st_atime, status.st_mtime))
        return found

    def queued(self) -> list[str]:
        """Images that are to be fetched, in the order in which they were asked for."""
        found = [(status.st_mtime_ns, name) for name, status in self._files(_QUEUE) if _IMAGE.fullmatch(name)]
        return [name for _, name in sorted(found)]

    def is_queued(self, image_id: str) -> bool:
        """Whether it is to be fetched, still."""
        return os.path.exists(f"{self.path}/{_QUEUE}/{image_id}")

    def queue(self, image_id: str) -> None:
        """It is to be fetched; again is the same. OSError."""
        assert _IMAGE.fullmatch(image_id), image_id
        with self._alone():
            path = f"{self.path}/{_QUEUE}/{image_id}"
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
                self._give(path)

    def unqueue(self, image_id: str) -> bool:
        """False when it was not in the queue."""
        if not _IMAGE.fullmatch(image_id):
            return False
        try:
            os.unlink(f"{self.path}/{_QUEUE}/{image_id}")
        except FileNotFoundError:
            return False
        return True

    def remove(self, image_id: str) -> bool:
        """The image is not cached any more, nor being filled. Whether it was. OSError."""
        with self._alone():
            found = [entry.name for entry in self._entries() if entry.image_id == image_id]
            for name in found:
                self._retire(name)
            parts = [name for name, _ in self._files(_INCOMPLETE) if name.startswith(f"{image_id}.")]
            for name in parts:
                self._retire(f"{_INCOMPLETE}/{name}")
        return bool(found or parts)

    def clear(self) -> int:
        """Nothing is cached any more; how many images were. OSError."""
        with self._alone():
            found = self._entries()
            for entry in found:
                self._retire(entry.name)
            for name, _ in self._files(_INCOMPLETE):
                if _PART.fullmatch(name):
                    self._retire(f"{_INCOMPLETE}/{name}")
        return len(found)

    def clean(self) -> None:
        """What is nobody's goes: files of those who died filling them, counts of images that are gone, and what a
        Glance left of its own cache in this directory. OSError."""
        with self._alone():
            self._sweep()
            for name, _ in self._files(_HITS):
                if not os.path.lexists(f"{self.path}/{name}"):
                    os.unlink(f"{self.path}/{_HITS}/{name}")
            if not os.path.isdir(f"{self.path}/invalid"):
                return
            others = [name for name, _ in self._files("") if _IMAGE.fullmatch(name) or name == "cache.db"]
            others += [f"{_INCOMPLETE}/{name}" for name, _ in self._files(_INCOMPLETE) if _IMAGE.fullmatch(name)]
            others += [f"invalid/{name}" for name, _ in self._files("invalid")]
            for name in others:
                os.unlink(f"{self.path}/{name}")
            with contextlib.suppress(OSError):
                os.rmdir(f"{self.path}/invalid")
            log.info("what another image cache left was removed", files=len(others))

    def prune(self) -> tuple[int, int]:
        """Come down to the limit, which may be lower than it was: images that went, and their bytes. OSError."""
        files = size = 0
        with self._alone():
            self._sweep()
            over = self._used() - self.limit
            for entry in sorted(self._entries(), key=lambda entry: entry.last_accessed):
                if over <= 0:
                    break
                if (fd := self._unread(entry.name)) is None:
                    continue
                self._unlink(entry.name)
                os.close(fd)
                EVICTED.inc()
                files, size, over = files + 1, size + entry.size, over - _taken(entry.size)
        return files, size

    def keeper(self) -> int | None:
        """A descriptor that makes its owner the one of the node who fetches what is queued and cleans; None while
        another is. It ends with the descriptor. OSError."""
        fd = self._open(".keeper")
        if locks.take(fd, locks.FILLING):
            return fd
        os.close(fd)
        return None

    def version(self) -> int:
        """Another one when an image came or went. OSError."""
        return os.stat(self.path).st_mtime_ns

    def is_keeper(self, fd: int) -> bool:
        """Whether it still is: the file of the lock may have been removed with the directory."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(f"{self.path}/.keeper"))
        except OSError:
            return False

    # -- beneath

    def _files(self, below: str) -> list[tuple[str, os.stat_result]]:
        """Plain files of a folder; none when the folder is not there."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{self.path}/{below}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((entry.name, status))
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else of the node adds or removes until the block is left. OSError: the directory cannot be written, or
        whoever has the lock does not leave it in time."""
        end = time.monotonic() + _PATIENCE
        while True:
            fd = self._open(".lock")
            try:
                while not locks.take(fd, locks.FILLING):
                    if time.monotonic() > end:
                        raise OSError(errno.ETIMEDOUT, "another process keeps it locked", f"{self.path}/.lock")
                    time.sleep(0.002)
                if os.fstat(fd).st_nlink:  # else it was removed with the directory
                    yield
                    return
            finally:
                os.close(fd)

    def _open(self, name: str) -> int:
        """One of the files to lock, in a directory that is made when it is not there."""
        for folder in (self.path, *(f"{self.path}/{below}" for below in (_INCOMPLETE, _REMOVED, _QUEUE, _HITS))):
            if not os.path.isdir(folder):
                os.makedirs(folder, 0o750, exist_ok=True)
                self._give(folder, os.path.dirname(folder))
        path = f"{self.path}/{name}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self._give(path)
        return fd

    def _give(self, path: str, model: str | None = None) -> None:
        """What root makes, in a command, belongs to the service, as the directory, or what it lies in, does."""
        if os.geteuid() == 0:
            owner = os.stat(model or self.path)
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _taken(size: int) -> int:
    """Bytes of the disk that a file takes."""
    return (size + 2 * _BLOCK - 1) // _BLOCK * _BLOCK


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0
