"""Handlers of types of resources, and of what namespaces are about."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api.metadefs import wire
from xloud_image.api.state import context, runtime
from xloud_image.api.wire import answer, body_object
from xloud_image.metadefs import documents, schemas
from xloud_image.services import metadefs


async def find(request: web.Request) -> web.Response:
    """GET /v2/metadefs/resource_types → 200."""
    found = await metadefs.resource_types(runtime(request), context(request))
    return answer({"resource_types": [wire.resource_type(one) for one in found]})


async def of_namespace(request: web.Request) -> web.Response:
    """GET …/resource_types → 200."""
    found = await metadefs.associations(runtime(request), context(request), request.match_info["namespace"])
    return answer({"resource_type_associations": [wire.association(one) for one in found]})


async def add(request: web.Request) -> web.Response:
    """POST …/resource_types → 201."""
    body = await body_object(request)
    schemas.NEW_ASSOCIATION.require(body)
    new = documents.association(body)
    found = await metadefs.associate(runtime(request), context(request), request.match_info["namespace"], new)
    return answer(wire.association(found), 201)


async def remove(request: web.Request) -> web.Response:
    """DELETE …/resource_types/{resource_type} → 204."""
    namespace, name = request.match_info["namespace"], request.match_info["resource_type"]
    await metadefs.dissociate(runtime(request), context(request), namespace, name)
    return web.Response(status=204)
