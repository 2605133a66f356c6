"""Image data on its way out: which location gives it, and that it does so before the client is answered.

A store that fails before its first byte costs nothing but time: the next location is tried. Uploads: `data`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from xloud_image.errors import (
    BadRange,
    BadRequest,
    BlobChanged,
    BlobNotFound,
    Forbidden,
    FormatRefused,
    ImageServiceError,
    NotFound,
    StoreRefused,
    StoreUnavailable,
)
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location
from xloud_image.policy import images as rights
from xloud_image.services import external
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Can, Reader, Store

log = structlog.get_logger(__name__)

_FIRST: Final = 4 * 1024 * 1024  # bytes of a file that are in memory before the answer begins: one window of sendfile


@dataclasses.dataclass(frozen=True, slots=True)
class Download:
    """An open download: `start` and `length` in bytes of the range asked for, `size` of the whole.

    `rest`: what comes after so many bytes of it, from elsewhere, when the reader's file gives no more; None: nothing.
    """

    image: Image
    reader: Reader
    start: int
    length: int
    size: int
    rest: Callable[[int], AsyncGenerator[bytes]] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A byte range as asked: `first` to `last` inclusive (None: to the end), or the `suffix` last bytes."""

    first: int = 0
    last: int | None = None
    suffix: int | None = None

    def resolve(self, size: int) -> tuple[int, int]:
        """(start, length) within `size` bytes. `BadRange` when it lies outside."""
        if self.suffix is not None:
            start, end = max(0, size - self.suffix), size
        else:
            start = self.first
            end = size if self.last is None else min(self.last + 1, size)
        if start >= size or end <= start:
            raise BadRange(
                f"The range lies outside the {size} bytes of the image.", headers={"Content-Range": f"bytes */{size}"}
            )
        return start, end - start


async def downloadable(runtime: Runtime, ctx: Context, image_id: str, *, prefer: Sequence[str] = ()) -> Image:
    """The image, when the caller may have its data; `prefer` names stores, each of which must exist."""
    for name in prefer:
        if runtime.stores.get(name) is None:
            raise BadRequest(f"There is no store '{name[:80]}' here; the stores are {', '.join(runtime.stores.names)}.")
    image = await load(runtime, ctx, image_id)
    rights.require_download(runtime.policy, ctx, image, chosen_store=bool(prefer))
    return image


def in_order(runtime: Runtime, image: Image, prefer: Sequence[str] = ()) -> list[tuple[Store, Location]]:
    """The readable locations that count: preferred stores first, then by weight, heaviest first; those known to have
    other data come last."""
    found = []
    for location in image.locations:
        if not external.counts(location):
            continue
        store = runtime.stores.of(location)
        if store is None:
            log.warning("a location belongs to no configured store", image=image.id, store=location.store)
        else:
            found.append((store, location))

    def rank(item: tuple[Store, Location]) -> tuple[bool, int, int]:
        name = item[0].name
        preferred = prefer.index(name) if name in prefer else len(prefer)
        return external.is_wrong(item[1]), preferred, -runtime.stores.weight(name)

    return sorted(found, key=rank)


@asynccontextmanager
async def download(
    runtime: Runtime, ctx: Context, image: Image, *, span: Span | None = None, prefer: Sequence[str] = ()
) -> AsyncIterator[Download]:
    """Open the data in the first store that gives its first byte.

    `BadRange`; `NotFound` when no store has the data any more; `BlobChanged` when what is left is not the image's data;
    `StoreUnavailable` when a store that should have it does not answer.
    """
    failures: list[ImageServiceError] = []
    for store, location in in_order(runtime, image, prefer):
        async with AsyncExitStack() as stack:
            try:
                opened = await _open(runtime, ctx, image, store, location, span, stack)
            except BadRange:
                raise
            except ImageServiceError as error:
                failures.append(error)
                log.warning("a store could not give the data", image=image.id, store=store.name, error=error.message)
                continue
            yield opened
            return
    if all(isinstance(error, BlobNotFound) for error in failures):
        raise NotFound(f"The data of the image {image.id} is in none of its stores; ask the operator.")
    refused = next((error for error in failures if isinstance(error, FormatRefused)), None)
    if refused is not None and not any(error.temporary for error in failures):
        raise Forbidden(f"The data of the image {image.id} lies elsewhere and is not given out: {refused.message}.")
    if not any(error.temporary for error in failures) and any(isinstance(error, BlobChanged) for error in failures):
        raise external.none_left(image)
    if failures and not any(error.temporary for error in failures):
        said = dict.fromkeys(error.message for error in failures if isinstance(error, StoreRefused))
        why = "; ".join(said) or "its operator finds the reason in the service's log"
        raise StoreRefused(
            f"No store can give the data of the image {image.id}, and asking again does not help: {why}."
        )
    raise StoreUnavailable(f"No store can give the data of the image {image.id} now; try again later.")


async def _open(
    runtime: Runtime,
    ctx: Context,
    image: Image,
    store: Store,
    location: Location,
    span: Span | None,
    stack: AsyncExitStack,
) -> Download:
    """The data at one location, with its first byte there. `BadRange` only when the range lies outside the image."""
    if (why := external.refusal(location)) is not None:
        raise FormatRefused(why)
    if external.is_wrong(location):
        raise BlobChanged("a full read showed other data than the image has")
    caller = external.caller(ctx, location)
    size = image.size
    if size is None:
        size = (await store.stat(location.url, caller=caller)).size
    start, length = span.resolve(size) if span is not None else (0, size)
    whole = length == size
    try:
        # a whole read asks for no range: there are servers that know none
        wanted: dict[str, int] = {} if whole else {"offset": start, "length": length}
        reader = await stack.enter_async_context(store.open(location.url, **wanted, caller=caller))
    except BadRange as error:
        raise external.other_size(store, size, error.message) from error
    external.require_unchanged(store, location, reader, size)
    if Can.CHANGE in store.can and whole and length:
        chunks = external.verified(runtime, image, location, reader.chunks, size)
        reader = dataclasses.replace(reader, chunks=chunks, file=None)
    if reader.file is not None:
        count = min(reader.file.length, _FIRST)
        if count and not reader.file.resident(reader.file.offset, count):
            await reader.file.warm(reader.file.offset, count)
    elif length:
        reader = dataclasses.replace(reader, chunks=await _Begun.begin(reader.chunks, length))
    return Download(image, reader, start, length, size)


class _Begun:
    """Chunks whose first one is there already. `StoreUnavailable` when they are not `length` bytes in all: an answer
    that was announced longer than it is would leave its client waiting."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], length: int) -> None:
        self._first: bytes | None = first
        self._rest = rest
        self._left = length

    @classmethod
    async def begin(cls, chunks: AsyncIterator[bytes], length: int) -> _Begun:
        async for first in chunks:
            if len(first) > length:
                raise StoreUnavailable("the store gave more bytes than it has")
            if first:
                return cls(first, chunks, length)
        raise StoreUnavailable("the store gave no data")

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            chunk, self._first = self._first, None
        else:
            try:
                chunk = await anext(self._rest)
            except StopAsyncIteration:
                if self._left:
                    raise StoreUnavailable(f"the store gave {self._left} bytes less than it has") from None
                raise
        self._left -= len(chunk)
        if self._left < 0:
            raise StoreUnavailable("the store gave more bytes than it has")
        return chunk
