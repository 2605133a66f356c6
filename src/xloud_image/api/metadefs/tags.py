"""Handlers of the tags of a namespace."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from xloud_image.api.metadefs import wire
from xloud_image.api.state import context, runtime
from xloud_image.api.wire import answer, body_object
from xloud_image.db.metadef_parts import TAG_SORT_KEYS
from xloud_image.metadefs import schemas
from xloud_image.model import MetadefTag
from xloud_image.services import metadefs

APPEND: Final = "X-Openstack-Append"
_YES: Final = frozenset({"1", "t", "true", "on", "y", "yes"})


async def find(request: web.Request) -> web.Response:
    """GET …/tags → 200; all of them unless the query limits them."""
    key, direction, limit = wire.page(request, TAG_SORT_KEYS)
    if not request.query.get("limit"):
        limit = runtime(request).settings.limits.api_limit_max
    found = await metadefs.tags(
        runtime(request),
        context(request),
        request.match_info["namespace"],
        sort_key=key,
        direction=direction,
        marker=request.query.get("marker") or None,
        limit=limit,
    )
    return answer({"tags": [{"name": one.name} for one in found]})


async def add_several(request: web.Request) -> web.Response:
    """POST …/tags → 201: instead of those that are there, or besides them."""
    body = await body_object(request)
    schemas.NEW_TAGS.require(body)
    new = [MetadefTag(one["name"]) for one in body["tags"]]
    append = request.headers.get(APPEND, "").strip().lower() in _YES
    await metadefs.add_tags(runtime(request), context(request), request.match_info["namespace"], new, append=append)
    return answer({"tags": [{"name": one.name} for one in new]}, 201)


async def add(request: web.Request) -> web.Response:
    """POST …/tags/{metadef_tag} → 201."""
    namespace, name = request.match_info["namespace"], request.match_info["metadef_tag"]
    schemas.NEW_TAG.require({"name": name})
    return answer(wire.tag(await metadefs.add(runtime(request), context(request), namespace, "tags", name)), 201)


async def show(request: web.Request) -> web.Response:
    """GET …/tags/{metadef_tag} → 200."""
    namespace, name = request.match_info["namespace"], request.match_info["metadef_tag"]
    return answer(wire.tag((await metadefs.get_held(runtime(request), context(request), namespace, "tags", name))[1]))


async def change(request: web.Request) -> web.Response:
    """PUT …/tags/{metadef_tag} → 200: another name."""
    namespace, name = request.match_info["namespace"], request.match_info["metadef_tag"]
    body = await body_object(request)
    schemas.NEW_TAG.require(body)
    found = await metadefs.change_held(runtime(request), context(request), namespace, "tags", name, body["name"])
    return answer(wire.tag(found))


async def remove(request: web.Request) -> web.Response:
    """DELETE …/tags/{metadef_tag} → 204."""
    namespace, name = request.match_info["namespace"], request.match_info["metadef_tag"]
    await metadefs.remove_held(runtime(request), context(request), namespace, "tags", name)
    return web.Response(status=204)


async def empty(request: web.Request) -> web.Response:
    """DELETE …/tags → 204."""
    await metadefs.empty(runtime(request), context(request), request.match_info["namespace"], "tags")
    return web.Response(status=204)
