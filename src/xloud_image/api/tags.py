"""Handlers of tags, one at a time: those of a whole image are a field of it."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api.state import context, image_id, runtime
from xloud_image.services import tags


async def add(request: web.Request) -> web.Response:
    """PUT /v2/images/{id}/tags/{tag} → 204."""
    await tags.add(runtime(request), context(request), image_id(request), request.match_info["tag"])
    return web.Response(status=204)


async def remove(request: web.Request) -> web.Response:
    """DELETE /v2/images/{id}/tags/{tag} → 204."""
    await tags.remove(runtime(request), context(request), image_id(request), request.match_info["tag"])
    return web.Response(status=204)
