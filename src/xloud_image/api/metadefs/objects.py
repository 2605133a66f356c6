"""Handlers of the objects of a namespace."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api.metadefs import wire
from xloud_image.api.state import context, runtime
from xloud_image.api.wire import answer, body_object
from xloud_image.metadefs import documents, schemas
from xloud_image.services import metadefs


async def find(request: web.Request) -> web.Response:
    """GET …/objects → 200."""
    found = await metadefs.held(runtime(request), context(request), request.match_info["namespace"], "objects")
    return answer(wire.objects(found))


async def add(request: web.Request) -> web.Response:
    """POST …/objects → 201."""
    namespace, body = request.match_info["namespace"], await body_object(request)
    schemas.NEW_OBJECT.require(body)
    new = documents.object_(body)
    found = await metadefs.add(runtime(request), context(request), namespace, "objects", new.name, new)
    return answer(wire.object_(namespace, found), 201)


async def show(request: web.Request) -> web.Response:
    """GET …/objects/{object} → 200."""
    namespace, name = request.match_info["namespace"], request.match_info["object"]
    _, found = await metadefs.get_held(runtime(request), context(request), namespace, "objects", name)
    return answer(wire.object_(namespace, found))


async def change(request: web.Request) -> web.Response:
    """PUT …/objects/{object} → 200."""
    namespace, name = request.match_info["namespace"], request.match_info["object"]
    body = await body_object(request)
    schemas.NEW_OBJECT.require(body)
    new = documents.object_(body)
    found = await metadefs.change_held(runtime(request), context(request), namespace, "objects", name, new.name, new)
    return answer(wire.object_(namespace, found))


async def remove(request: web.Request) -> web.Response:
    """DELETE …/objects/{object} → 204."""
    namespace, name = request.match_info["namespace"], request.match_info["object"]
    await metadefs.remove_held(runtime(request), context(request), namespace, "objects", name)
    return web.Response(status=204)


async def empty(request: web.Request) -> web.Response:
    """DELETE …/objects → 204."""
    await metadefs.empty(runtime(request), context(request), request.match_info["namespace"], "objects")
    return web.Response(status=204)
