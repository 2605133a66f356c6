"""The handler of the schemas of metadata definitions."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api.wire import answer
from xloud_image.errors import NotFound
from xloud_image.metadefs.schemas import PUBLISHED


async def show(request: web.Request) -> web.Response:
    """GET /v2/schemas/metadefs/{metadef_schema} → 200."""
    name = request.match_info["metadef_schema"]
    if name not in PUBLISHED:
        raise NotFound(f"There is no schema 'metadefs/{name[:80]}' here.")
    return answer(PUBLISHED[name])
