"""Handlers of this node's image cache, in both families of calls. Source: Image API reference, section "Cache"."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from xloud_image.api import wire
from xloud_image.api.state import context, image_id, runtime
from xloud_image.cache.directory import Entry
from xloud_image.errors import BadRequest, NotFound
from xloud_image.services import cache_keeping
from xloud_image.services.cache_keeping import Listing
from xloud_image.services.lookup import load

_TARGET: Final = "x-image-cache-clear-target"
_OLD: Final = "manage_image_cache"  # the one rule of the older family


def _require(request: web.Request, rule: str) -> None:
    runtime(request).policy.require(context(request), rule)
    cache_keeping.require(runtime(request))


async def _listing(request: web.Request, rule: str) -> Listing:
    _require(request, rule)
    return await cache_keeping.listing(runtime(request))


def _cached(entries: list[Entry]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": entry.image_id,
            "hits": entry.hits,
            "last_accessed": entry.last_accessed,
            "last_modified": entry.last_modified,
            "size": entry.size,
        }
        for entry in entries
    ]


async def find(request: web.Request) -> web.Response:
    """GET /v2/cache → 200."""
    found = await _listing(request, "cache_list")
    return wire.answer({"cached_images": _cached(found.cached), "queued_images": found.queued})


async def queue(request: web.Request) -> web.Response:
    """PUT /v2/cache/{id} → 202."""
    await _queue(request, "cache_image")
    return web.Response(status=202)


async def _queue(request: web.Request, rule: str) -> None:
    _require(request, rule)
    await cache_keeping.queue(runtime(request), context(request), image_id(request))


async def delete(request: web.Request) -> web.Response:
    """DELETE /v2/cache/{id} → 204; 404 when there is no such image, cached or not."""
    _require(request, "cache_delete")
    if not await cache_keeping.delete(runtime(request), image_id(request)):
        await load(runtime(request), context(request), image_id(request))
    return web.Response(status=204)


async def clear(request: web.Request) -> web.Response:
    """DELETE /v2/cache → 204."""
    _require(request, "cache_delete")
    target = request.headers.get(_TARGET, "").strip().lower()
    if target not in ("", "both", "cache", "queue"):
        raise BadRequest(f"{_TARGET} is cache, queue or both.")
    await cache_keeping.clear(runtime(request), cached=target != "queue", queued=target != "cache")
    return web.Response(status=204)


async def nodes(request: web.Request) -> web.Response:
    """GET /v2/cache/nodes/{id} → 200, 409 where nodes do not tell."""
    _require(request, "list_cached_nodes")
    return wire.answer(await cache_keeping.nodes(runtime(request), context(request), image_id(request)))


async def clean(request: web.Request) -> web.Response:
    """POST /v2/cache/clean → 200."""
    _require(request, "cache_clean")
    await cache_keeping.clean(runtime(request))
    return web.Response()


async def prune(request: web.Request) -> web.Response:
    """POST /v2/cache/prune → 200."""
    _require(request, "cache_prune")
    files, size = await cache_keeping.prune(runtime(request))
    return wire.answer({"total_files_pruned": files, "total_bytes_pruned": size})


# the older family


async def find_cached(request: web.Request) -> web.Response:
    """GET /v2/cached_images → 200."""
    return wire.answer({"cached_images": _cached((await _listing(request, _OLD)).cached)})


async def delete_cached(request: web.Request) -> web.Response:
    """DELETE /v2/cached_images/{id} → 200."""
    _require(request, _OLD)
    await cache_keeping.delete(runtime(request), image_id(request), queued=False)
    return web.Response()


async def clear_cached(request: web.Request) -> web.Response:
    """DELETE /v2/cached_images → 200."""
    _require(request, _OLD)
    return wire.answer({"num_deleted": await cache_keeping.clear(runtime(request), queued=False)})


async def find_queued(request: web.Request) -> web.Response:
    """GET /v2/queued_images → 200."""
    return wire.answer({"queued_images": (await _listing(request, _OLD)).queued})


async def queue_older(request: web.Request) -> web.Response:
    """PUT /v2/queued_images/{id} → 200."""
    await _queue(request, _OLD)
    return web.Response()


async def delete_queued(request: web.Request) -> web.Response:
    """DELETE /v2/queued_images/{id} → 200, 404 when it is not queued."""
    _require(request, _OLD)
    if not await cache_keeping.delete(runtime(request), image_id(request), cached=False):
        raise NotFound("This image is not queued for the image cache.")
    return web.Response()


async def clear_queued(request: web.Request) -> web.Response:
    """DELETE /v2/queued_images → 200."""
    _require(request, _OLD)
    return wire.answer({"num_deleted": await cache_keeping.clear(runtime(request), cached=False)})
