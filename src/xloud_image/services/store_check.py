"""Trying the stores for an operator: reachable, writable, what their backends lack, (deep) an object there and back.

Touches no image. Without `deep` nothing is written: one of the objects that lie there may be read. The object of a deep
check goes the way of a large image (`Store.sample`), and is read whole and by ranges.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from xloud_image.config.masking import mask
from xloud_image.errors import (
    BadRequest,
    BlobError,
    BlobNotFound,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
    Unavailable,
    WriteDenied,
)
from xloud_image.stores.base import Can

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set

    from xloud_image.services.runtime import Runtime
    from xloud_image.stores.base import Health, Store

_CHUNK: Final = 1 << 18
# the ranges that a deep check reads, as (offset from the start or the end, length): none begins or ends at a chunk
_RANGES: Final = ((300_001, 400_003), (-700_001, 600_003))
_CLEAN_UP: Final = 10.0  # seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came out for one store. `free`: bytes, None where the store cannot tell. `timings`: step → seconds; `check`
    is the store's latency. `reachable`, `authorised`, `writable`: None where it could not be found out; a store that
    never takes data is not writable and `ok` all the same. `reserved`: the service's own. `facts`: what is there.
    `lacks`: promises that its backend cannot keep, a sentence each; the store is usable without."""

    store: str
    type: str
    ok: bool
    detail: str
    reachable: bool | None = None
    authorised: bool | None = None
    writable: bool | None = None
    reserved: bool = False
    free: int | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return dataclasses.asdict(self)


async def check_all(runtime: Runtime, *, deep: bool, timeout: float, exclude: Set[str] = frozenset()) -> list[Result]:
    """Every configured store but those in `exclude`, also the reserved ones, all at once; each gets `timeout` seconds.
    None is started yet. Never raises for a store that is sick. ConfigError: the service would not start with these."""
    asked = [each for each in runtime.settings.stores if each.id not in exclude]
    stores = runtime.stores
    found = await asyncio.gather(
        *(
            check_one(stores[each.id], each.id, each.type, deep=deep and not each.read_only, timeout=timeout)
            for each in asked
        )
    )
    return [
        dataclasses.replace(result, reserved=each.reserved, writable=result.writable and not each.read_only)
        for result, each in zip(found, asked, strict=True)
    ]


async def keys(runtime: Runtime, store_id: str, *, limit: int, timeout: float) -> list[str]:
    """The first `limit` keys that lie in a store that is not yet started, in its own order. `BadRequest`: no such
    store; `Unsupported`: it cannot tell; whatever the store raises."""
    stores = runtime.stores
    if store_id not in stores:
        raise BadRequest(f"there is no store '{store_id}'; the stores are {', '.join(stores)}")
    try:
        async with asyncio.timeout(timeout):
            await stores[store_id].start()
            return list(await stores[store_id].keys(limit))
    except TimeoutError:
        raise StoreUnavailable(f"store {store_id}: no answer within {timeout:g} s") from None


async def check_one(store: Store, name: str, kind: str, *, deep: bool, timeout: float) -> Result:
    """One store that is not yet started; see `check_all`."""
    timings: dict[str, float] = {}
    writes = Can.WRITE in store.can
    found = functools.partial(Result, name, kind, timings=timings)
    health: Health | None = None
    states: tuple[bool | None, bool | None, bool | None] = (False, None, None)
    try:
        async with asyncio.timeout(timeout):
            with _timed(timings, "start"):
                await store.start()
            with _timed(timings, "check"):
                health = await store.check()
            detail = health.detail
            lacks = await store.examine()
            if deep and writes:
                await _there_and_back(store, timings)
                lacks = await _examine(store)
                detail = f"{detail}; written, read whole and with ranges, deleted"
            elif deep:
                detail = f"{detail}; takes no data, so nothing was written"
            return found(True, detail, True, True, writes, free=health.free, facts=health.facts, lacks=tuple(lacks))
    except TimeoutError:
        detail = f"no answer within {timeout:g} s"
    except ImageServiceError as error:
        detail, states = error.cure or error.message, _states(error)
    except Exception as error:  # noqa: BLE001 - a mistake in one backend must not hide what the others say
        detail, states = f"unexpected: {type(error).__name__}: {mask(str(error))}", (None, None, None)
    if health is None:
        return found(False, detail, *states)
    return found(False, detail, True, True, False, free=health.free, facts=health.facts)


def _states(error: ImageServiceError) -> tuple[bool, bool | None, bool | None]:
    """Whether the store could be reached, let us in and takes data, as far as its error tells."""
    if isinstance(error, WriteDenied):
        return True, None, False
    if isinstance(error, Unavailable):
        return (False, None, None) if error.temporary else (True, False, False)
    return True, isinstance(error, (BlobNotFound, StoreFull)) or None, False


async def _there_and_back(store: Store, timings: dict[str, float]) -> None:
    """Write, read all of it and parts, delete. Leaves nothing, also when a step fails. Raises what the store raises."""
    key, size = str(uuid.uuid4()), store.sample
    block = os.urandom(_CHUNK - 1)  # comes again and again; no two chunks or parts begin alike

    def data(offset: int, length: int) -> bytes:
        first = offset % len(block)
        return (block * (2 + length // len(block)))[first : first + length]

    async def source() -> AsyncIterator[bytes]:
        for at in range(0, size, _CHUNK):
            yield data(at, min(_CHUNK, size - at))

    async def read(url: str, offset: int, length: int) -> None:
        at = offset
        async with store.open(url, offset=offset, length=length) as reader:
            async for chunk in reader.chunks:
                if chunk != data(at, len(chunk)):
                    raise BlobError("the store gave back other bytes than were written to it")
                at += len(chunk)
        if at != offset + length:
            raise BlobError(f"the store gave back {at - offset} bytes instead of {length}")

    async with _leaving_nothing(store, key):
        with _timed(timings, "write"):
            blob = await store.write(key, source(), size=size)
        with _timed(timings, "read"):
            await read(blob.url, 0, size)
            for offset, length in _RANGES:
                await read(blob.url, offset % size, length)
        with _timed(timings, "delete"):
            await store.delete(blob.url)
        with contextlib.suppress(BlobNotFound):
            await store.stat(blob.url)
            raise BlobError("the store still has an object that it deleted")


async def _examine(store: Store) -> Sequence[str]:
    key = str(uuid.uuid4())
    async with _leaving_nothing(store, key):
        return await store.examine(key)


@contextlib.asynccontextmanager
async def _leaving_nothing(store: Store, key: str) -> AsyncIterator[None]:
    try:
        yield
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
