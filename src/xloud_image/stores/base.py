"""The Store contract: what a backend promises. Backends only move bytes: no hash, no quota, no database, no rights.

Promises, each proved by `stores.suite` against every backend:

1. After any failure or cancellation of `write`, nothing is left. An error of the source passes through unchanged.
2. A taken key raises `AlreadyExists`; the old bytes stay. What `write` returned is durable and readable at once.
3. Unknown size (None), empty (0), big then small, and several at once all work. More or fewer bytes than `size`
   announces raise `BadRequest`.
4. `open` honours every range; past the end is `BadRange`; missing is `BlobNotFound`, both at entry.
5. Leaving `open` early closes the handle before the next line runs.
6. Deleting what is missing is `BlobNotFound`; what is in use is `InUse`, and nothing was harmed.
7. `discard` of a key leaves nothing of any unfinished or finished write of it, also of another process's, and may be
   called any number of times; a writer of that key which still runs fails and leaves nothing.
8. Flag and method agree, both ways. No URL that we write holds a credential.
9. Every answer is bounded in time: a store that hangs raises `StoreUnavailable`.
10. What `copy` took has all bytes of its origin; all that `write` promises of the key holds. Where it cannot, nothing
    is left, and the bytes can be read and written instead.

An error says what happened («it has no room for this data») and does not name the store: `layers.Named` does, once.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import enum
import importlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, TypeVar

from xloud_image.errors import BadRange, BadRequest, ConfigError, Unsupported
from xloud_image.stores.store_type import StoreType

T = TypeVar("T")

_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Can(enum.Flag):
    """What a store, as configured, can do."""

    WRITE = enum.auto()  # write, discard and delete
    SHARE = enum.auto()  # share: the backend has rights of its own that follow those of the image
    CHANGE = enum.auto()  # the bytes may change behind our back: a full read is compared with the image's digest


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """For whom the work is done; stores that use the caller's own account need it. Never logged.

    For stores that fetch URLs: `trusted` False: the URL was given by somebody who may not reach the private addresses
    that the service can reach. `older`: its row was there before this service, and is followed wherever it leads.
    """

    user: str | None = None
    project: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    trusted: bool = True
    older: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Data in a store: its URL (without credentials), its size in bytes, metadata for the location row, and `version`,
    a text that changes when the bytes do (an ETag), None where the backend has none. `made_for`: the image whose data
    they are, where the backend notes that beside them and not in their name."""

    url: str
    size: int
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str | None = None
    made_for: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class FileRange:
    """A part of an open file that the API may send by sendfile. `fd` stays open until `Store.open` is left.

    `offset` and `length` (bytes) are those of the range within the file. The way to send a window of it:
    `if not resident(at, n): await warm(at, n)`, then sendfile; `at` counts from the start of the file.
    Promises: `resident` never blocks and takes microseconds, so it may be asked in the event loop; it looks at
    one byte of each 64 KiB, hence True is near certain, not certain. `warm` reads the window into memory in
    the store's own threads within the store's time limit, or raises `StoreUnavailable`.

    `grows` is there for a file that somebody still writes, which no store gives: it waits until there are bytes behind
    `at` and tells how many, 0 when no more will come; ask it before anything else.
    """

    fd: int
    offset: int
    length: int
    resident: Callable[[int, int], bool]
    warm: Callable[[int, int], Awaitable[None]]
    grows: Callable[[int], Awaitable[int]] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """An open range. `size` is that of the whole blob in bytes (None: the backend cannot tell), `chunks` the bytes of
    the range. `file` is set when the range can also be sent from a file; use one of the two, once. `version`: as in
    `Blob`, of what is being read."""

    size: int | None
    chunks: AsyncIterator[bytes]
    file: FileRange | None = None
    version: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """What `check` found. `free` is bytes, None where the store cannot tell; `detail` is one sentence."""

    detail: str = "ok"
    free: int | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def span(size: int, offset: int, length: int | None) -> tuple[int, int]:
    """The part of a blob of `size` bytes that `open(offset, length)` means, as (offset, length).

    `BadRange` when it begins past the end; the first byte of an empty blob is its end and is allowed.
    """
    if offset < 0 or (length is not None and length < 0) or (offset and offset >= size):
        raise BadRange(f"the range begins at byte {offset}, the data has {size} bytes")
    left = size - offset
    return offset, left if length is None else min(left, length)


def library(module: str, *, install: str) -> Any:
    """The imported client library of a backend, `module` by its dotted name. Libraries are optional.

    `ConfigError` naming `install`, what to install, where it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"install {install}, which its type needs: missing here ({error})") from error


def plain_key(key: str) -> str:
    """`key` when it can name a blob in any store: letters, digits, `_`, `-`, `.` (not first), at most 200.

    `BadRequest` otherwise: no key can leave the place that a store was given.
    """
    if not _KEY.fullmatch(key):
        raise BadRequest("a key of a store is made of letters, digits, '-', '_' and '.', and is at most 200 long")
    return key


async def finish(work: Awaitable[T]) -> T:
    """Do `work` to its end although we are being cancelled; the cancellation is raised afterwards.

    For what must not stay half done: closing, removing what a failed write left, a request whose answer must be known.
    Returns what `work` returns, raises what it raises.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen
        raise cancelled
    return task.result()


class Store(abc.ABC):
    """One configured store. Made in the process that uses it, after the fork; `start` opens connections.

    A backend's constructor is `Backend(name, options)`: the operator's id, and the values of its type's options.
    It raises `ConfigError` for options that contradict each other (whoever makes it puts the store's name before the
    sentence), and does no I/O.
    """

    TYPE: ClassVar[StoreType]
    SUMS: ClassVar[bool] = False  # the backend notices by itself when bytes that it keeps have changed

    name: str
    can: Can
    facts: Mapping[str, Any]  # not secret; `properties` of info/stores/detail
    store_timeout: float = 60.0  # seconds that a call gets (layers); what a backend waits for ends before, and says why
    sample: int = 1 << 20  # bytes of an object that goes the way of a large image, for a deep check
    places: tuple[str, ...] = ()  # what no other configured store may share with this one, such as a directory

    async def start(self) -> None:
        """Open what is needed; a failure is told by `check` and by each call, it never stops the service."""

    @abc.abstractmethod
    async def check(self) -> Health:
        """Usable now? Raises what a call would raise, with a sentence that says what to do."""

    async def examine(self, key: str | None = None) -> Sequence[str]:
        """For an operator who looks beyond `check`: what the backend was found to lack, a sentence each, nothing that
        keeps images from being stored or read. Reads only; with `key` also writes under it, and nothing of that stays.

        Raises what keeps images from being stored or, once stored, from being read.
        """
        return ()

    async def ready(self) -> None:
        """Know the backend well enough for what `owns` and `forms` say to be right. No I/O once it is known.
        `StoreUnavailable`."""
        return

    @abc.abstractmethod
    def owns(self, url: str) -> bool:
        """Whether this store, as configured, holds this URL. No I/O. The paths in it are not trusted."""

    def key(self, url: str) -> str | None:
        """The key under which the data of a URL that it owns lie here. None where the backend names them (volumes), or
        where others do (web servers). No I/O."""
        return None

    def forms(self, url: str) -> Sequence[str]:
        """The URLs without credentials that rows may have for the data of a URL that it owns. The first is the same for
        all of them, whatever the spelling, the login or the snapshot: two that differ there are two data. No I/O."""
        return (url,)

    @abc.abstractmethod
    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        """What is there under this URL, without its bytes. `BlobNotFound`, `StoreUnavailable`."""

    @abc.abstractmethod
    def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AbstractAsyncContextManager[Reader]:
        """The bytes from `offset`, `length` of them or all. A `length` past the end is cut there."""

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        """All of `source` under `key`, or nothing. Returns when it is durable.

        `AlreadyExists`, `StoreFull`, `WriteDenied`, `StoreUnavailable`, `BadRequest` (size), the source's errors.
        """
        raise Unsupported("it takes no data")

    async def copy(self, key: str, origin: Store, url: str, *, size: int, caller: Caller | None = None) -> Blob | None:
        """As `write`, of the `size` bytes that `origin`, another store, has under `url`, without their passing through
        here. None: between these two that is not possible (any more), or not for these bytes.

        That the copy is what the origin has is the backend's word; the size is compared. Whether the origin still has
        what it was given is proved where the backend keeps checksums (`SUMS`), and by reading the copy elsewhere.
        """
        return None

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        """Remove whatever writes of `key` left. The caller has made sure that no location names it."""
        raise Unsupported("it takes no data")

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        """Remove the bytes of this URL. `BlobNotFound`, `InUse`, `StoreUnavailable`, `StillNeeded`."""
        raise Unsupported("it deletes no data")

    async def share(
        self, url: str, *, readers: Sequence[str], public: bool = False, caller: Caller | None = None
    ) -> None:
        """Let these projects (`public`: everyone), and no others but the owner, read the bytes in the backend itself.

        Only with `Can.SHARE`. `BlobNotFound`, `StoreUnavailable`.
        """
        raise Unsupported("it has no rights of its own")

    async def keys(self, limit: int) -> Sequence[str]:
        """The keys of at most `limit` finished blobs that lie here, whoever wrote them, the first in the backend's own
        order: for an operator who wants to see what is there. `StoreUnavailable`."""
        raise Unsupported("it cannot tell what lies in it")

    def notes(self) -> list[str]:
        """What an operator should know of this store before the service starts, a sentence each: what the files tell
        that its options name. Nobody is asked over the network. Blocks."""
        return []

    def advice(self, disk_format: str) -> str | None:
        """One sentence for whoever stores an image of this disk format here and would be better off with another."""
        return None

    async def aclose(self) -> None:
        """Close what `start` opened, within seconds also when the store hangs."""
