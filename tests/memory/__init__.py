"""A store in the memory of the process, and its type, which the service does not know: the contract at its shortest.
Nothing outlives the process. Tests add the type to the table for their own process, or for one that they start."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.servers.place import ROOT
from xloud_image.errors import StoreFull, Unsupported
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, plain_key, span
from xloud_image.stores.kit.chunks import Exactly
from xloud_image.stores.kit.sentences import key_taken, no_data, was_discarded
from xloud_image.stores.store_type import StoreType

MEMORY: Final = StoreType(name="memory", store="tests.memory:MemoryStore", schemes=("memory",))
# what a Python process has to find at its start to know the type
PYTHONPATH: Final = f"{Path(__file__).parent / 'start'}:{ROOT}"
_CHUNK = 1 << 20


class MemoryStore(Store):
    """URLs are `memory://<store>/<key>`. `capacity`: bytes; `writable` False makes a read-only store."""

    TYPE = MEMORY

    def __init__(
        self, name: str, options: Mapping[str, Any], *, capacity: int = 1 << 30, writable: bool = True
    ) -> None:
        self.name = name
        self.can = Can.WRITE if writable else Can(0)
        self.facts = {}
        self.blobs: dict[str, bytes] = {}
        self.running: dict[object, str] = {}  # writes under way and their keys
        self._capacity = capacity

    @property
    def free(self) -> int:
        """Bytes left."""
        return self._capacity - sum(map(len, self.blobs.values()))

    async def check(self) -> Health:
        return Health(free=self.free)

    async def keys(self, limit: int) -> list[str]:
        return list(self.blobs)[:limit]

    def owns(self, url: str) -> bool:
        return url.startswith(f"memory://{self.name}/")

    def key(self, url: str) -> str | None:
        return url.removeprefix(f"memory://{self.name}/")

    def _key(self, url: str) -> str:
        key = url.removeprefix(f"memory://{self.name}/")
        if key not in self.blobs:
            raise no_data()
        return key

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        return Blob(url, len(self.blobs[self._key(url)]))

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        data = self.blobs[self._key(url)]
        offset, length = span(len(data), offset, length)
        yield Reader(len(data), _chunks(memoryview(data)[offset : offset + length]))

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        self._require_write()
        plain_key(key)
        if key in self.blobs:
            raise key_taken()
        me = object()
        self.running[me] = key
        try:
            parts: list[bytes] = []
            exactly = Exactly(source, size)
            async for chunk in exactly:
                if exactly.total > self.free:
                    raise StoreFull("it has no room for this data")
                parts.append(chunk)
            if me not in self.running:
                raise was_discarded()
            if key in self.blobs:
                raise key_taken()
            self.blobs[key] = b"".join(parts)
        finally:
            self.running.pop(me, None)
        return Blob(f"memory://{self.name}/{key}", exactly.total)

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        self._require_write()
        plain_key(key)
        for writer in [writer for writer, its in self.running.items() if its == key]:
            del self.running[writer]
        self.blobs.pop(key, None)

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        self._require_write()
        del self.blobs[self._key(url)]

    def _require_write(self) -> None:
        if Can.WRITE not in self.can:
            raise Unsupported("it takes and deletes no data")


async def _chunks(data: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield bytes(data[start : start + _CHUNK])
