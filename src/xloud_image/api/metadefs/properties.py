"""Handlers of the properties of a namespace."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api.metadefs import wire
from xloud_image.api.state import context, runtime
from xloud_image.api.wire import answer, body_object
from xloud_image.metadefs import documents, schemas
from xloud_image.services import metadefs


async def find(request: web.Request) -> web.Response:
    """GET …/properties → 200."""
    found = await metadefs.held(runtime(request), context(request), request.match_info["namespace"], "properties")
    return answer({"properties": found.properties})


async def add(request: web.Request) -> web.Response:
    """POST …/properties → 201."""
    namespace, body = request.match_info["namespace"], await body_object(request)
    schemas.NEW_PROPERTY.require(body)
    name, new = body["name"], documents.definition(body)
    found = await metadefs.add(runtime(request), context(request), namespace, "properties", name, new)
    return answer(wire.property_(name, found), 201)


async def show(request: web.Request) -> web.Response:
    """GET …/properties/{property} → 200; resource_type: the name begins with the prefix of that type."""
    namespace, which = request.match_info["namespace"], request.match_info["property"]
    resource_type = request.query.get("resource_type") or None
    name, found = await metadefs.get_held(
        runtime(request), context(request), namespace, "properties", which, resource_type=resource_type
    )
    return answer(wire.property_(name, found))


async def change(request: web.Request) -> web.Response:
    """PUT …/properties/{property} → 200."""
    namespace, which = request.match_info["namespace"], request.match_info["property"]
    body = await body_object(request)
    schemas.NEW_PROPERTY.require(body)
    name, new = body["name"], documents.definition(body)
    found = await metadefs.change_held(runtime(request), context(request), namespace, "properties", which, name, new)
    return answer(wire.property_(name, found))


async def remove(request: web.Request) -> web.Response:
    """DELETE …/properties/{property} → 204."""
    namespace, which = request.match_info["namespace"], request.match_info["property"]
    await metadefs.remove_held(runtime(request), context(request), namespace, "properties", which)
    return web.Response(status=204)


async def empty(request: web.Request) -> web.Response:
    """DELETE …/properties → 204."""
    await metadefs.empty(runtime(request), context(request), request.match_info["namespace"], "properties")
    return web.Response(status=204)
