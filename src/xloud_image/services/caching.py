"""The image cache of this node: reads of images from it, and what fills it.

A read of a whole image that is not there begins to fill it: one task of one process reads the stores, and everybody who
asks for the image on this node reads the file as it grows. When it stops growing they go on from the stores, each where
he is. The last bytes are written when the digest of all has been compared, so nobody gets all of a wrong image. Rights
are asked before, as for any read. What a store of this node gives as a file is not cached by reads: it would be the
same file twice. What cannot be compared with a digest is not cached at all.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

import structlog
from prometheus_client import Counter

from xloud_image.cache import growing
from xloud_image.cache.draft import Draft, Found, Key
from xloud_image.cache.node import Cache
from xloud_image.errors import BlobChanged, FormatRefused, ImageServiceError
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.services import downloads, external
from xloud_image.services.downloads import Download, Span
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import FileRange, Reader
from xloud_image.stores.kit.threads import Job, Threads
from xloud_image.streams.digest import Digest
from xloud_image.streams.stages import Limit, through

log = structlog.get_logger(__name__)

READS: Final = Counter(
    "xloud_image_cache_reads_total",
    "Reads of image data where there is a cache: hit from it, growing while it is filled, store past it.",
    ("source",),
)
BYTES: Final = Counter("xloud_image_cache_bytes_total", "Bytes of the reads that the cache took.")
FILLED: Final = Counter("xloud_image_cache_fills_total", "Images that were read into the cache, by outcome.", ("end",))

_UNREAD: Final = 5.0  # seconds for which an image is fetched on when nobody reads it
_END: Final = 1.0  # seconds in which a task ends that has given up its file
_PIECE: Final = 1 << 20
_BEHIND: Final = 4 << 20  # bytes that wait for the disk
_DIGEST: Final = re.compile("[0-9a-f]{32,}")


def key_of(image: Image) -> Key | None:
    """Under what its data are cached; None for what is not: nothing, or nothing that could be compared."""
    digest = external.digest_of(image)
    if not image.size or digest is None or not _DIGEST.fullmatch(digest[1]):
        return None
    return Key(image.id, image.size, digest[1][:32])


@asynccontextmanager
async def download(
    runtime: Runtime, ctx: Context, image: Image, *, span: Span | None = None, prefer: Sequence[str] = ()
) -> AsyncIterator[Download]:
    """As `downloads.download`, from the cache where it has the data or gets them."""
    key = None if runtime.cache is None else key_of(image)
    if runtime.cache is None or key is None:
        async with downloads.download(runtime, ctx, image, span=span, prefer=prefer) as opened:
            yield opened
        return
    start, length = span.resolve(key.size) if span is not None else (0, key.size)
    whole = length == key.size
    begin = whole and image.status == "active" and _is_worth_it(runtime, runtime.cache, image, prefer)
    async with AsyncExitStack() as stack:
        found = await runtime.cache.enter(key, begin=begin, whole=whole)
        if found is not None:
            stack.push_async_callback(runtime.cache.moving.close, found.opened.close)
            if await _has_begun(runtime, runtime.cache, ctx, image, found, prefer):
                READS.labels("growing" if found.growing else "hit").inc()
                BYTES.inc(length)
                yield await _reading(runtime, runtime.cache, ctx, image, found, (start, length), prefer, stack)
                return
        READS.labels("store").inc()
        yield await stack.enter_async_context(downloads.download(runtime, ctx, image, span=span, prefer=prefer))


def _is_worth_it(runtime: Runtime, cache: Cache, image: Image, prefer: Sequence[str]) -> bool:
    first = next(iter(downloads.in_order(runtime, image, prefer)), None)
    return first is not None and first[0].name not in cache.have_files


async def _has_begun(
    runtime: Runtime, cache: Cache, ctx: Context, image: Image, found: Found, prefer: Sequence[str]
) -> bool:
    """Whether the first byte is there; begins to fill what is ours to fill. Raises what the stores say when they have
    none: nobody need ask them again."""
    if not found.growing:
        return True
    filling: asyncio.Task[bool] | None = None
    if (draft := found.draft) is not None:
        found.draft = None
        filling = runtime.spawn(fill(runtime, cache, ctx, image, draft, prefer), f"cache image {image.id}")
    if await growing.there(found.opened.fd, 0, image.size or 0):
        return True
    if filling is not None and (await asyncio.wait((filling,), timeout=_END))[0] and not filling.cancelled():
        error = filling.exception()
        if isinstance(error, ImageServiceError):
            raise error
    return False


async def _reading(
    runtime: Runtime,
    cache: Cache,
    ctx: Context,
    image: Image,
    found: Found,
    part: tuple[int, int],
    prefer: Sequence[str],
    stack: AsyncExitStack,
) -> Download:
    """The download of an open file of the cache, that goes on from the stores where the file ends too early."""
    opened, (start, length), size = found.opened, part, image.size or 0

    async def there(at: int) -> int:
        return await growing.there(opened.fd, at, size)

    async def warm(at: int, count: int) -> None:
        await cache.moving.run(opened.warm, at, count)

    async def rest(done: int) -> AsyncGenerator[bytes]:
        log.warning("a read goes on from the stores, past the image cache", image=image.id, at=start + done)
        left = Span(start + done, start + length - 1)
        async with downloads.download(runtime, ctx, image, span=left, prefer=prefer) as stored:
            async for chunk in stored.reader.chunks:
                yield chunk

    async def chunks() -> AsyncGenerator[bytes]:
        done = 0
        while done < length:
            count = min(_PIECE, length - done)
            if found.growing and not (count := min(count, await there(start + done))):
                break
            try:
                piece = await cache.moving.run(opened.read, start + done, count)
            except (OSError, ImageServiceError) as error:
                cache.warn(error)
                break
            yield piece
            done += len(piece)
        if done < length:
            async with aclosing(rest(done)) as others:
                async for piece in others:
                    yield piece

    pieces = chunks()
    stack.push_async_callback(pieces.aclose)
    file = None
    if opened.sendable:
        file = FileRange(opened.fd, start, length, opened.resident, warm, there if found.growing else None)
    return Download(image, Reader(size, pieces, file), start, length, size, rest)


# -- filling


async def fill(
    runtime: Runtime,
    cache: Cache,
    ctx: Context,
    image: Image,
    draft: Draft,
    prefer: Sequence[str],
    *,
    ask: bool = False,
) -> bool:
    """Read the stores into a draft, and publish it; whether it was. `ask`: although nobody reads it, and wherever it
    lies. Whatever happens, the draft is gone or published then. Raises what the stores say.
    """
    end = "failed"
    try:
        async with downloads.download(runtime, ctx, image, prefer=prefer) as opened:
            if opened.reader.file is not None and not ask:
                cache.have_files.update(store.name for store, _ in downloads.in_order(runtime, image, prefer)[:1])
                end = "unneeded"
                return False
            end = await _filled(runtime, cache, image, draft, opened, ask=ask)
    except OSError as error:
        cache.warn(error)
    except (BlobChanged, FormatRefused) as error:
        log.error("an image was not cached", image=image.id, reason=error.message)
        await cache.moving.run(draft.spoil)
        raise
    finally:
        FILLED.labels(end).inc()
        # done when this returns, or whenever the disk answers
        await cache.moving.close(draft.drop)
    return end == "cached"


async def _filled(runtime: Runtime, cache: Cache, image: Image, draft: Draft, opened: Download, *, ask: bool) -> str:
    known = external.digest_of(image)
    assert known is not None
    digest = Digest([known[0]], runtime.digest_pool)
    disk = _Disk(cache.moving, draft, None if ask else _UNREAD)
    limit, last = Limit(opened.size, opened.size), b""
    try:
        async for chunk in through(opened.reader.chunks, (limit, digest)):
            if limit.size == opened.size and chunk:
                last = chunk  # comes to the disk when all are known to be right
            elif not await disk.put(chunk):
                return "unwanted"
        await disk.flush()
        if (await digest.hexes())[known[0]] != known[1]:
            raise BlobChanged(f"the {known[0]} of the data differs from that of the image")
        await disk.put(last)
        await disk.flush()
        return "cached" if await cache.moving.run(draft.publish) else "unwanted"
    finally:
        await disk.aclose()


class _Disk:
    """Writes chunks in a thread, all that came while the last ones were written at once. `unread`: seconds for which
    it goes on when nobody reads the file; None: always."""

    def __init__(self, threads: Threads, draft: Draft, unread: float | None) -> None:
        self._threads, self._draft, self._unread = threads, draft, unread
        self._waiting: list[bytes] = []
        self._size = 0
        self._job: Job[None] | None = None
        self._looked = self._read = time.monotonic()

    async def put(self, chunk: bytes) -> bool:
        """False when nobody wants the file any more. OSError."""
        self._waiting.append(chunk)
        self._size += len(chunk)
        if self._job is None or self._job.done or self._size >= _BEHIND:
            await self._begin()
        now = time.monotonic()
        if now - self._looked < 1:
            return True
        self._looked = now
        if await self._threads.run(lambda: self._draft.is_wanted(readers=self._unread is not None)):
            self._read = now
            return True
        return self._unread is not None and now - self._read < self._unread and await self._is_there()

    async def _is_there(self) -> bool:
        return await self._threads.run(lambda: self._draft.is_wanted(readers=False))

    async def _begin(self) -> None:
        await self._end()
        chunks, self._waiting, self._size = self._waiting, [], 0
        if chunks:
            self._job = self._threads.submit(lambda: self._draft.write(chunks), must=True)

    async def _end(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await job.result()

    async def flush(self) -> None:
        """All is written. OSError."""
        await self._begin()
        await self._end()

    async def aclose(self) -> None:
        """No thread writes any more, unless the disk hangs."""
        if self._job is not None:
            await self._job.ended(self._threads.limit)
