"""The Store contract: what a backend promises. Backends only move bytes: no hash, no quota, no database, no rights.

Promises, each proved by `stores.testing` against every backend:

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
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from oslo_config import cfg

from xloud_image.errors import Unsupported


class Can(enum.Flag):
    """What a store, as configured, can do."""

    NOTHING = 0
    WRITE = enum.auto()  # write, discard and delete


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """For whom the work is done; stores that use the caller's own account need it. Never logged."""

    user: str | None = None
    project: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """What a write made: its URL (without credentials), its size in bytes, and metadata for the location row."""

    url: str
    size: int
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class FileRange:
    """A part of an open file that the API may send by sendfile. `fd` stays open until `Store.open` is left.

    Promise: pages of it can be tested for presence without blocking (RWF_NOWAIT works), and `warm` brings
    `length` bytes from `offset` into memory in a thread, within the store's time limit, or raises
    `StoreUnavailable`.
    """

    fd: int
    offset: int
    length: int
    warm: Any  # Callable[[int, int], Awaitable[None]]: (offset, length)


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """An open range. `size` is that of the whole blob in bytes (None: the backend cannot tell), `chunks` the bytes of
    the range. `file` is set when the range can also be sent from a file; use one of the two, once."""

    size: int | None
    chunks: AsyncIterator[bytes]
    file: FileRange | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """What `check` found. `free` is bytes, None where the store cannot tell; `detail` is one sentence."""

    detail: str = "ok"
    free: int | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Store(abc.ABC):
    """One configured store. Made in the process that uses it, after the fork; `start` opens connections.

    A backend's constructor is `Backend(name, options)`: the operator's id, and the values of its OPTIONS by name.
    It raises `ConfigError` for options that contradict each other, and does no I/O.
    """

    TYPE: ClassVar[str]
    SCHEMES: ClassVar[tuple[str, ...]]  # of the URLs that it reads
    OPTIONS: ClassVar[Sequence[cfg.Opt]] = ()

    name: str
    can: Can
    facts: Mapping[str, Any]  # not secret; `properties` of info/stores/detail

    async def start(self) -> None:
        """Open what is needed; a failure is told by `check` and by each call, it never stops the service."""

    @abc.abstractmethod
    async def check(self) -> Health:
        """Usable now? Raises what a call would raise, with a sentence that says what to do."""

    @abc.abstractmethod
    def owns(self, url: str) -> bool:
        """Whether this store, as configured, holds this URL. No I/O. The paths in it are not trusted."""

    @abc.abstractmethod
    async def size(self, url: str, *, caller: Caller | None = None) -> int:
        """Bytes. `BlobNotFound`, `StoreUnavailable`."""

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
        raise Unsupported(f"store {self.name} takes no data")

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        """Remove whatever writes of `key` left. The caller has made sure that no location names it."""
        raise Unsupported(f"store {self.name} takes no data")

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        """Remove the bytes of this URL. `BlobNotFound`, `InUse`, `StoreUnavailable`."""
        raise Unsupported(f"store {self.name} deletes no data")

    async def aclose(self) -> None:
        """Close what `start` opened, within seconds also when the store hangs."""
