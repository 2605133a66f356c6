"""A memory store that falls ill as told. For tests of what the service does then, never of what a store does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.memory import MemoryStore
from xloud_image.errors import InUse, StillNeeded, StoreUnavailable
from xloud_image.stores.base import Caller, Can, Reader

CHUNK = 64 * 1024


class IllStore(MemoryStore):
    """`ill`: where reading fails: "open", "hangs", "first chunk", "first chunk hangs", "second chunk", "too short",
    "too long", "empty chunks"; or "deleting hangs". `needed`: deleting is refused, a clone needs the bytes;
    `in_use`: for good."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        self.can = Can.WRITE
        self.ill = ""
        self.needed = self.in_use = False
        self.opened = 0
        self.deleted: list[str] = []
        self.deleting = self.most_deleting = 0  # at once

    def advice(self, disk_format: str) -> str | None:
        return f'it likes "raw" — not {disk_format}' if disk_format != "raw" else None

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        if self.in_use:
            raise InUse("a volume is a clone of the data")
        if self.needed:
            raise StillNeeded("the volumes a and b are clones of the data")
        self.deleting += 1
        self.most_deleting = max(self.most_deleting, self.deleting)
        try:
            if self.ill == "deleting hangs":
                await asyncio.Event().wait()
            await super().delete(url, caller=caller)
        finally:
            self.deleting -= 1
        self.deleted.append(url)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        self.opened += 1
        if self.ill == "open":
            raise StoreUnavailable("refused")
        if self.ill == "hangs":
            await asyncio.sleep(60)
        async with super().open(url, offset=offset, length=length, caller=caller) as reader:
            data = b"".join([chunk async for chunk in reader.chunks])
            yield Reader(reader.size, self._chunks(data))

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        if self.ill == "first chunk":
            raise StoreUnavailable("lost")
        if self.ill == "first chunk hangs":
            await asyncio.sleep(60)
        if self.ill == "empty chunks":
            yield b""
        if self.ill == "too short":
            data = data[:-1]
        if self.ill == "too long":
            data += b"!"
        for start in range(0, len(data), CHUNK):
            if start and self.ill == "second chunk":
                raise StoreUnavailable("lost")
            yield data[start : start + CHUNK]
