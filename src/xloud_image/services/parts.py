"""Data that lies in a store as several objects, read as one: what a client staged, or sent in several requests."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence

from xloud_image.config.stores import STAGING
from xloud_image.errors import BlobChanged, BlobNotFound, StoreUnavailable
from xloud_image.model import Part
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Caller, Store


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """The parts in their order, one behind the other from byte 0 on. `caller`: on whose behalf they are read."""

    runtime: Runtime
    parts: Sequence[Part]
    caller: Caller | None = None

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(part.size for part in self.parts)

    async def chunks(self, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, `length` of them or all. `BlobNotFound`, `BlobChanged` (a part has not the bytes
        that it had), and what the store raises. Whoever does not read to the end closes it."""
        end = self.size if length is None else min(self.size, offset + length)
        for part in self.parts:
            first, last = max(offset, part.begins), min(end, part.begins + part.size)
            if first >= last:
                continue
            missing = last - first
            store = place_of(self.runtime, part.store)
            async with store.open(part.url, offset=first - part.begins, length=missing, caller=self.caller) as reader:
                async for chunk in reader.chunks:
                    missing -= len(chunk)
                    yield chunk
            if missing:
                raise BlobChanged(f"The store {part.store} has not the bytes any more that it was given.")

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes."""
        return b"".join([chunk async for chunk in self.chunks(offset, length)])


def waiting_place(runtime: Runtime) -> Store | None:
    """The store for data that waits: the one that the operator names, else the service's own. None: there is none."""
    named = runtime.settings.imports.staging_store
    return runtime.stores.get(named) if named else runtime.stores.reserved(STAGING)


def place_of(runtime: Runtime, store_id: str) -> Store:
    """The store of a part, one of the service's own or one for images. `StoreUnavailable` when it is not configured."""
    store = runtime.stores.reserved(store_id) or runtime.stores.get(store_id)
    if store is None:
        raise StoreUnavailable(f"The store '{store_id}', where the data lies, is not configured now.")
    return store


LOST = (BlobNotFound, BlobChanged)  # what a part that is not there any more raises
