"""Handlers of the locations API (2.17) and of single stores of an image (2.10)."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api import wire
from xloud_image.api.state import context, image_id, service
from xloud_image.errors import BadRequest
from xloud_image.services import locations


async def add(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/locations → 202."""
    body = await wire.body_object(request)
    url, validation = body.get("url"), body.get("validation_data") or {}
    if not isinstance(url, str) or not 0 < len(url) <= 65535:
        raise BadRequest("'url' names the place of the data.")
    if not isinstance(validation, dict):
        raise BadRequest("'validation_data' is an object with os_hash_algo and os_hash_value.")
    await locations.register(service(request), context(request), image_id(request), url, validation)
    return web.Response(status=202)


async def find(request: web.Request) -> web.Response:
    """GET /v2/images/{id}/locations → 200."""
    found = await locations.find(service(request), context(request), image_id(request))
    return wire.answer([wire.location(item) for item in found])


async def delete_from_store(request: web.Request) -> web.Response:
    """DELETE /v2/stores/{store}/{id} → 204."""
    store = request.match_info["store"]
    await locations.delete_from_store(service(request), context(request), store, image_id(request))
    return web.Response(status=204)
