"""Handlers of namespaces."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api import proxies
from xloud_image.api.metadefs import wire
from xloud_image.api.state import context, runtime
from xloud_image.api.wire import answer, body_object
from xloud_image.db.metadefs import SORT_KEYS
from xloud_image.errors import BadRequest
from xloud_image.metadefs import documents, schemas
from xloud_image.services import metadefs

_TYPES = 100  # resource types in one question


async def find(request: web.Request) -> web.Response:
    """GET /v2/metadefs/namespaces → 200."""
    key, direction, limit = wire.page(request, SORT_KEYS)
    types = request.query.get("resource_types")
    asked = [one for one in types.split(",") if one] if types is not None else None
    if asked and len(asked) > _TYPES:
        raise BadRequest(f"'resource_types' names {_TYPES} types at most.")
    found, more = await metadefs.find(
        runtime(request),
        context(request),
        visibility=wire.one_of(request, "visibility", schemas.VISIBILITIES),
        resource_types=asked,
        sort_key=key,
        direction=direction,
        marker=request.query.get("marker"),
        limit=limit,
    )
    kept = [(name, text) for name, text in request.query.items() if name != "marker"]
    return answer(wire.namespaces(found, kept, found[-1].name if more else None))


async def create(request: web.Request) -> web.Response:
    """POST /v2/metadefs/namespaces → 201."""
    body = await body_object(request)
    schemas.NEW_NAMESPACE.require(body)
    new = documents.namespace(body, context(request).project or "")
    found = await metadefs.create(runtime(request), context(request), new)
    location = f"{proxies.way(request).base}{wire.path(found.name)}"
    return answer(wire.namespace(found), 201, {"Location": location})


async def show(request: web.Request) -> web.Response:
    """GET /v2/metadefs/namespaces/{namespace} → 200."""
    found = wire.namespace(await metadefs.get(runtime(request), context(request), _name(request)))
    resource_type = request.query.get("resource_type")
    return answer(wire.prefixed(found, resource_type) if resource_type else found)


async def change(request: web.Request) -> web.Response:
    """PUT /v2/metadefs/namespaces/{namespace} → 200; what it holds is not changed by it."""
    body = await body_object(request)
    schemas.NEW_NAMESPACE.require(body)
    fields = {name: value for name, value in body.items() if name not in _HELD}
    new = documents.namespace(fields, "")
    return answer(wire.namespace(await metadefs.change(runtime(request), context(request), _name(request), new)))


_HELD = ("resource_type_associations", "properties", "objects", "tags")


async def delete(request: web.Request) -> web.Response:
    """DELETE /v2/metadefs/namespaces/{namespace} → 204."""
    await metadefs.delete(runtime(request), context(request), _name(request))
    return web.Response(status=204)


def _name(request: web.Request) -> str:
    return request.match_info["namespace"]
