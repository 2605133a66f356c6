"""Handlers of the locations API (2.17) and of single stores of an image (2.10)."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from xloud_image import schemas
from xloud_image.api import wire
from xloud_image.api.state import context, image_id, runtime, store_id
from xloud_image.services import hints, locations

_NEW_LOCATION: Final = schemas.Shape(schemas.new_location())


async def add(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/locations → 202."""
    body = await wire.body_object(request)
    _NEW_LOCATION.require(body)
    validation = body.get("validation_data") or {}
    image = await locations.register(runtime(request), context(request), image_id(request), body["url"], validation)
    return web.Response(status=202, headers=wire.warning(hints.of(runtime(request), image)))


async def find(request: web.Request) -> web.Response:
    """GET /v2/images/{id}/locations → 200."""
    found = await locations.find(runtime(request), context(request), image_id(request))
    return wire.answer([wire.location(item) for item in found])


async def delete_from_store(request: web.Request) -> web.Response:
    """DELETE /v2/stores/{store}/{id} → 204."""
    await locations.delete_from_store(runtime(request), context(request), store_id(request), image_id(request))
    return web.Response(status=204)
