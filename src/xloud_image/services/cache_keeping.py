"""What operators do with the image cache of this node, and the keeper, who fetches what is queued and cleans.

The queue lies in the directory of the cache and one process of the node, the keeper, works it off: an image is fetched
by the node that was asked, whichever other nodes there are, and what is queued ends with the cache that it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
import random
import time
from collections.abc import Collection
from typing import Final

import structlog

from xloud_image.cache.directory import Directory, Entry
from xloud_image.cache.node import Cache
from xloud_image.db import cached_images, images
from xloud_image.errors import BadRequest, Conflict, ImageServiceError, NotFound
from xloud_image.identity.context import Context
from xloud_image.services import caching
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

_LOOK: Final = 2.0  # seconds between two looks of the keeper at the queue, and of others whether there is one
_CLEAN: Final = 60.0  # seconds between two times that it cleans
_LATER: Final = 60.0  # seconds until an image that could not be fetched is tried again


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What is in the cache, and in its queue (ids)."""

    cached: list[Entry]
    queued: list[str]


def require(runtime: Runtime) -> Cache:
    """The cache of this node. `NotFound` when there is none."""
    if runtime.cache is None:
        raise NotFound("There is no image cache here (image_cache_dir is not set, or flavor names no cache).")
    return runtime.cache


async def listing(runtime: Runtime) -> Listing:
    """What this node has cached, and is to fetch, in the order of ids and of the queue."""
    cache = require(runtime)
    entries = await cache.act(Directory.entries)
    return Listing(sorted(entries, key=lambda entry: entry.image_id), await cache.act(Directory.queued))


async def queue(runtime: Runtime, ctx: Context, image_id: str) -> None:
    """Have this node fetch an image. `NotFound`; `BadRequest` for one without data."""
    cache = require(runtime)
    image = await load(runtime, ctx, image_id)
    if image.status != "active":
        raise BadRequest(f"Only an active image can be cached; {image_id} is {image.status}.")
    await cache.act(Directory.queue, image_id)


async def delete(runtime: Runtime, image_id: str, *, cached: bool = True, queued: bool = True) -> bool:
    """Out of cache and queue with it; whether it was in there."""
    cache = require(runtime)
    was_queued = await cache.act(Directory.unqueue, image_id) if queued else False
    return (await cache.act(Directory.remove, image_id) if cached else False) or was_queued


async def clear(runtime: Runtime, *, cached: bool = True, queued: bool = True) -> int:
    """Empty cache and queue; how many images went out of both."""
    cache, count = require(runtime), 0
    if queued:
        for image_id in await cache.act(Directory.queued):
            count += await cache.act(Directory.unqueue, image_id)
    return count + (await cache.act(Directory.clear) if cached else 0)


async def prune(runtime: Runtime) -> tuple[int, int]:
    """Come down to the limit: images that went, and their bytes."""
    return await require(runtime).act(Directory.prune)


async def clean(runtime: Runtime) -> None:
    """Away with what is nobody's, and with images that are gone."""
    cache = require(runtime)
    await cache.act(Directory.clean)
    entries = await cache.act(Directory.entries)
    ids = {entry.image_id for entry in entries}
    there = await runtime.db.read(lambda conn: cached_images.with_data(conn, ids))
    for image_id in ids - there:
        await cache.act(Directory.remove, image_id)
    await _tell(runtime, [entry for entry in entries if entry.image_id in there])


async def forget(runtime: Runtime, image_id: str) -> None:
    """The image was deleted. Never raises: what stays is cleaned away."""
    if runtime.cache is not None:
        with contextlib.suppress(ImageServiceError):
            await delete(runtime, image_id)


async def nodes(runtime: Runtime, ctx: Context, image_id: str) -> list[str]:
    """URLs of the nodes that have cached an image. `NotFound`; `Conflict` where nodes do not tell."""
    require(runtime)
    if not _tells(runtime):
        raise Conflict(
            "The nodes do not tell what they have cached: image_cache_driver = centralized_db and "
            "worker_self_reference_url would have them."
        )
    await load(runtime, ctx, image_id)
    return await runtime.db.read(lambda conn: cached_images.nodes(conn, image_id))


def _tells(runtime: Runtime) -> bool:
    settings = runtime.settings.cache
    return settings.image_cache_driver == "centralized_db" and settings.worker_self_reference_url is not None


async def _tell(runtime: Runtime, entries: Collection[Entry]) -> None:
    """Write into the database what this node has."""
    url = runtime.settings.cache.worker_self_reference_url
    if not _tells(runtime) or url is None:
        return
    found = {
        entry.image_id: cached_images.Row(
            entry.size, entry.hits, _instant(entry.last_accessed), _instant(entry.last_modified)
        )
        for entry in entries
    }
    await runtime.db.write(lambda conn: cached_images.store(conn, url, found))


def _instant(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None)


# -- fetching what is queued, cleaning


async def fetch(runtime: Runtime, image_id: str) -> bool:
    """Fetch an image of the queue; whether it is in the cache now, or never will be, and so out of the queue.

    Errors of the stores and of the database pass: it stays in the queue.
    """
    cache = require(runtime)
    image = await runtime.db.read(lambda conn: images.get(conn, image_id))
    if image is None or image.status != "active":
        return await _unqueued(cache, image_id, "it is not there any more, or has no data")
    key = caching.key_of(image)
    if key is None:
        return await _unqueued(cache, image_id, "it is empty, or has no digest")
    found = await cache.act(Directory.enter, key, begin=True, read=False)
    if found is None:
        if key.size > cache.directory.limit:
            return await _unqueued(cache, image_id, "it is larger than image_cache_max_size")
        return False
    try:
        if found.growing and found.draft is None:
            return False
        if (draft := found.draft) is not None:
            found.draft = None
            if not await caching.fill(runtime, cache, Context(is_admin=True), image, draft, (), ask=True):
                return False
    finally:
        await cache.moving.close(found.close)
    return await _unqueued(cache, image_id)


async def _unqueued(cache: Cache, image_id: str, reason: str | None = None) -> bool:
    if reason is not None:
        log.warning("a queued image is not cached", image=image_id, reason=reason)
    await cache.act(Directory.unqueue, image_id)
    return True


async def keep(runtime: Runtime) -> None:
    """Until cancelled: be the keeper of this node's cache, or wait to become it. Survives whatever it meets."""
    cache = require(runtime)
    role: int | None = None
    working: asyncio.Task[None] | None = None
    cleaned, version, later = 0.0, 0, dict[str, float]()
    try:
        while True:
            try:
                if role is not None and not await cache.act(Directory.is_keeper, role):
                    os.close(role)
                    role = None
                if role is None:
                    role = await cache.act(Directory.keeper)
                if role is not None:
                    if time.monotonic() - cleaned >= _CLEAN:
                        cleaned = time.monotonic()
                        await clean(runtime)
                    version, was = await cache.act(Directory.version), version
                    if version != was:
                        await _tell(runtime, await cache.act(Directory.entries))
                    if working is None or working.done():
                        working = runtime.spawn(_work_off(runtime, cache, later), "fetch queued images")
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log.warning("the image cache could not be kept", reason=str(error))
            await asyncio.sleep(_LOOK * random.uniform(1, 1.5))  # noqa: S311 - no secret, it spreads the looks
    finally:
        if working is not None:
            working.cancel()
        if role is not None:
            os.close(role)


async def _work_off(runtime: Runtime, cache: Cache, later: dict[str, float]) -> None:
    queued = await cache.act(Directory.queued)
    for image_id in set(later) - set(queued):
        del later[image_id]
    for image_id in queued:
        if later.get(image_id, 0.0) > time.monotonic() or not await cache.act(Directory.is_queued, image_id):
            continue
        try:
            if await fetch(runtime, image_id):
                continue
            reason = "it is being cached, or there is no room now"
        except ImageServiceError as error:
            reason = error.message
        log.info("a queued image is fetched later", image=image_id, reason=reason)
        later[image_id] = time.monotonic() + _LATER


async def fetch_all(runtime: Runtime) -> tuple[int, dict[str, str]]:
    """For a command: fetch what is queued, once; how many images are out of the queue, and why others are not."""
    cache = require(runtime)
    done, failed = 0, dict[str, str]()
    for image_id in await cache.act(Directory.queued):
        try:
            if await fetch(runtime, image_id):
                done += 1
            else:
                failed[image_id] = "it is being cached, or there is no room now"
        except ImageServiceError as error:
            failed[image_id] = error.message
    return done, failed
