"""Trying the stores for an operator: reachable, writable, (deep) a small object there and back. Touches no image."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from xloud_image.config.masking import mask
from xloud_image.errors import BlobError, BlobNotFound, ImageServiceError
from xloud_image.stores import Stores
from xloud_image.stores.base import Can

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from xloud_image.config.settings import Settings
    from xloud_image.stores.base import Store

_SIZE: Final = 1 << 20  # bytes of the object that a deep check writes
_CHUNK: Final = 1 << 18
_OFFSET, _LENGTH = 300_001, 400_003  # the range that it reads: neither begins nor ends at a chunk
_CLEAN_UP: Final = 10.0  # seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came out for one store. `free`: bytes, None where the store cannot tell. `timings`: step → seconds."""

    store: str
    type: str
    ok: bool
    detail: str
    free: int | None = None
    timings: dict[str, float] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return dataclasses.asdict(self)


async def check_all(settings: Settings, *, deep: bool, timeout: float) -> list[Result]:
    """Every configured store, also the reserved ones, all at once; each gets `timeout` seconds. Never raises for a
    store that is sick. ConfigError: the options of a store contradict each other."""
    stores = Stores(settings.stores, settings.default_store)
    await stores.start()
    try:
        return await asyncio.gather(
            *(check_one(stores[each.id], each.id, each.type, deep=deep, timeout=timeout) for each in settings.stores)
        )
    finally:
        await stores.aclose()


async def check_one(store: Store, name: str, kind: str, *, deep: bool, timeout: float) -> Result:
    """One started store; see `check_all`."""
    timings: dict[str, float] = {}
    free: int | None = None
    try:
        async with asyncio.timeout(timeout):
            with _timed(timings, "check"):
                health = await store.check()
            free, detail = health.free, health.detail
            if deep and Can.WRITE in store.can:
                await _there_and_back(store, timings)
                detail = f"{detail}; written, read with a range, deleted"
            elif deep:
                detail = f"{detail}; takes no data, so nothing was written"
    except TimeoutError:
        return Result(name, kind, False, f"no answer within {timeout:g} s", free, timings)
    except ImageServiceError as error:
        return Result(name, kind, False, error.message, free, timings)
    except Exception as error:  # noqa: BLE001 - a mistake in one backend must not hide what the others say
        return Result(name, kind, False, f"unexpected: {type(error).__name__}: {mask(str(error))}", free, timings)
    return Result(name, kind, True, detail, free, timings)


async def _there_and_back(store: Store, timings: dict[str, float]) -> None:
    """Write, read a part, delete. Leaves nothing, also when a step fails. Raises what the store raises."""
    key = str(uuid.uuid4())
    data = os.urandom(_SIZE)

    async def source() -> AsyncIterator[bytes]:
        for at in range(0, _SIZE, _CHUNK):
            yield data[at : at + _CHUNK]

    try:
        with _timed(timings, "write"):
            blob = await store.write(key, source(), size=_SIZE)
        with _timed(timings, "read"):
            async with store.open(blob.url, offset=_OFFSET, length=_LENGTH) as reader:
                got = b"".join([chunk async for chunk in reader.chunks])
        if got != data[_OFFSET : _OFFSET + _LENGTH]:
            raise BlobError("the store gave back other bytes than were written to it")
        with _timed(timings, "delete"):
            await store.delete(blob.url)
        with contextlib.suppress(BlobNotFound):
            await store.size(blob.url)
            raise BlobError("the store still has an object that it deleted")
    except BaseException:
        with contextlib.suppress(ImageServiceError, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP):
                await store.discard(key)
        raise


@contextlib.contextmanager
def _timed(timings: dict[str, float], step: str) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        timings[step] = round(time.monotonic() - begun, 4)
