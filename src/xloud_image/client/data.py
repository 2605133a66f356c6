"""The bytes of images on their way from one place to another, for as long as it takes: what breaks goes on where it
was, and nothing counts as done before its digest is right. A mebibyte or two of each transfer is held.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from xloud_image.client.cloud import Answered, Broken, Cloud, Image
from xloud_image.errors import ConfigError, Unverified

if TYPE_CHECKING:
    import requests

CHUNK: Final = 1 << 20
ATTEMPTS: Final = 8  # that bring no byte, one after the other
_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_PASSING: Final = frozenset({429, 500, 502, 503, 504})

Moved = Callable[[int], object]  # is told how many bytes of all are there


class Stopped(Exception):
    """Somebody wants it to end; what is there stays for the next time."""


class Source(Protocol):
    """Where bytes come from. `size`: how many, None unknown. `again`: whether `chunks` may be called more than once."""

    size: int | None
    again: bool

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """From byte `start` on, to the end."""
        ...


class File:
    """A file of this machine, which must not change meanwhile. `ConfigError` when it does, or cannot be read."""

    again = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._found = path.stat()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        if not path.is_file():
            raise ConfigError(f"{path} is no file")
        self.size: int | None = self._found.st_size

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (self._found.st_size, self._found.st_mtime_ns):
                    raise ConfigError(f"{self.path} was changed meanwhile")
                file.seek(start)
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from None


class Stream:
    """Standard input and its like: read once, of unknown length."""

    again = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size: int | None = None

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        assert start == 0
        while chunk := self._file.read(CHUNK):
            yield chunk


class Stored:
    """The data of an image. Where a connection breaks, the rest is asked for. `Broken` when it does not go on,
    `Answered`, `Unverified` when the data was changed or the answer is not what was asked for."""

    again = True

    def __init__(self, cloud: Cloud, image: Image) -> None:
        self._cloud, self._image = cloud, image
        size = image.get("size")
        self.size = size if isinstance(size, int) else None
        self._tag: str | None = None

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        at, failed = start, 0
        while at != self.size:
            before = at
            try:
                for chunk in self._part(at):
                    at += len(chunk)
                    yield chunk
                if self.size is None:
                    return
                if at > self.size:
                    raise Unverified(f"more bytes came than the {self.size} that the image has")
                if at < self.size:
                    raise Broken("the data ended early")
            except (Broken, Answered) as error:
                if isinstance(error, Answered) and error.answered not in _PASSING:
                    raise
                failed = 1 if at > before else failed + 1
                if failed >= ATTEMPTS or (self.size is None and at):
                    raise
                time.sleep(min(30.0, 0.25 * 2**failed))

    def _part(self, at: int) -> Iterator[bytes]:
        from requests.exceptions import RequestException

        passed = at  # bytes that the answer begins with and that are there already
        with self._asked(at) as answer:
            if answer.status_code == 204 and self.size:
                raise Unverified("the service gives no data for this image")
            tag = answer.headers.get("ETag")
            if answer.status_code == 206:
                match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != at or self.size not in (None, int(match[3])):
                    raise Unverified("the service answers with other bytes than were asked for")
                passed = 0
            elif at and self._tag and tag != self._tag:
                raise Unverified("the data of the image was changed meanwhile")
            self._tag = tag if tag and not tag.startswith("W/") else None
            try:
                for chunk in answer.iter_content(CHUNK):
                    if passed < len(chunk):
                        yield chunk[passed:] if passed else chunk
                    passed = max(0, passed - len(chunk))
            except RequestException as error:
                raise Broken(f"the connection broke: {type(error).__name__}") from None

    def _asked(self, at: int) -> requests.Response:
        path = f"/images/{self._image['id']}/file"
        whole = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if not at:
            return self._cloud.ask("GET", path, headers=whole)
        since = {"If-Range": self._tag} if self._tag else {}
        try:
            return self._cloud.ask("GET", path, headers={**whole, "Range": f"bytes={at}-", **since})
        except Answered as error:
            if error.answered not in (400, 501):  # Glance: its store knows no ranges
                raise
            return self._cloud.ask("GET", path, headers=whole)


class Digests:
    """Of bytes as they come, compared with what they should be (algorithm → hexadecimal digest); sha512 in any case.
    `at`: how many have been looked at; what comes a second time is not counted again."""

    def __init__(self, expected: Mapping[str, str], size: int | None) -> None:
        self._expected, self._size = dict(expected), size
        self._made = {name: _digest(name) for name in {"sha512", *expected}}
        self.at = 0

    def eat(self, chunk: bytes, start: int) -> None:
        """`chunk` begins at byte `start`, which is not beyond `at`."""
        assert start <= self.at
        new = chunk[self.at - start :] if start < self.at else chunk
        if new:
            for digest in self._made.values():
                digest.update(new)
            self.at += len(new)

    def require(self) -> dict[str, str]:
        """All digests. `Unverified`: they, or the number of bytes, are not what was expected."""
        if self._size is not None and self.at != self._size:
            raise Unverified(f"{self.at} bytes came, expected were {self._size}")
        found = {name: digest.hexdigest() for name, digest in self._made.items()}
        for name, wanted in self._expected.items():
            if found[name] != wanted.lower():
                raise Unverified(
                    f"the data is not what it should be: its {name} is {found[name]}, expected was {wanted}"
                )
        return found


def _digest(name: str) -> Any:
    try:
        return hashlib.new(name, usedforsecurity=False)
    except ValueError:
        raise ConfigError(f"digests of the kind {name!r} cannot be made here") from None


def digests_of(image: Image) -> dict[str, str]:
    """The best digest that a service tells of an image's data: algorithm → digest; empty: none."""
    name, value = image.get("os_hash_algo"), image.get("os_hash_value")
    if isinstance(name, str) and isinstance(value, str) and name in hashlib.algorithms_available:
        return {name: value}
    checksum = image.get("checksum")
    return {"md5": checksum} if isinstance(checksum, str) and checksum else {}


class Verified:
    """A source whose last bytes are held back until the digest of all is right, so that nobody who waits for them
    counts wrong data as done. `Stopped` as soon as `stop` is set."""

    def __init__(self, source: Source, expected: Mapping[str, str], moved: Moved, stop: threading.Event) -> None:
        self._source, self._moved, self._stop = source, moved, stop
        self.size, self.again = source.size, source.again
        self.expected = dict(expected)
        self.digests = Digests(expected, source.size)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        at = self.digests.at
        if at < start:  # an upload goes on that an earlier process began
            for chunk in self._source.chunks(at):
                self._look(chunk[: start - at], at)
                at += len(chunk)
                if at >= start:
                    break
        held, at = b"", start
        for chunk in self._source.chunks(start):
            if held:
                yield held
                self._moved(at)
            self._look(chunk, at)
            held, at = chunk, at + len(chunk)
        self.digests.require()
        if held:
            yield held
            self._moved(at)

    def _look(self, chunk: bytes, at: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self.digests.eat(chunk, at)


def download(
    cloud: Cloud, image: Image, target: Path, moved: Moved, stop: threading.Event, *, overwrite: bool = False
) -> dict[str, str]:
    """The data of an image as the file `target`; its digests. It grows as `target.part`, which a later call goes on
    with, and gets its name when its digest is right and it is durable.

    `Unverified`, `Broken`, `Answered`; `Stopped`: what is there stays.
    """
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists already; name another file, or say --overwrite")
    part = target.with_name(f"{target.name}.part")
    expected = digests_of(image)
    try:
        number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(number, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another process is writing {part}") from None
            before = os.fstat(number).st_size
            try:
                found = _fill(file, Stored(cloud, image), expected, moved, stop)
            except Unverified:
                file.truncate(0)  # nobody goes on with it
                if not before:
                    raise
                # it began with something else
                found = _fill(file, Stored(cloud, image), expected, moved, stop)
            file.flush()
            os.fsync(number)
            part.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"{part} cannot be written: {error.strerror}") from None
    return found


def _fill(
    file: BinaryIO, source: Stored, expected: Mapping[str, str], moved: Moved, stop: threading.Event
) -> dict[str, str]:
    """Go on with what is in the file, to the end; the digests of all."""
    if source.size is not None and os.fstat(file.fileno()).st_size > source.size:
        file.truncate(0)
    digests = Digests(expected, source.size)
    file.seek(0)
    while chunk := file.read(CHUNK):
        digests.eat(chunk, digests.at)
    moved(digests.at)
    if source.size is None and digests.at:  # where it ends nobody knows: from the beginning
        file.truncate(0)
        digests = Digests(expected, None)
    for chunk in source.chunks(digests.at):
        if stop.is_set():
            file.flush()
            raise Stopped
        file.write(chunk)
        digests.eat(chunk, digests.at)
        moved(digests.at)
    return digests.require()


__all__ = ["ATTEMPTS", "CHUNK", "Digests", "File", "Moved", "Source", "Stopped", "Stored", "Stream", "Verified",
           "digests_of", "download"]  # fmt: skip
