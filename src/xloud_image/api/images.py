"""Handlers of images and their actions: read the request, ask one service function, write the answer."""

from __future__ import annotations

from aiohttp import web

from xloud_image import patch
from xloud_image.api import listing, proxies, wire
from xloud_image.api.state import context, image_id, import_methods, runtime
from xloud_image.errors import WrongMediaType
from xloud_image.services import hints, images, lookup, scrubbing


async def create(request: web.Request) -> web.Response:
    """POST /v2/images → 201."""
    image = await images.create(runtime(request), context(request), await wire.body_object(request))
    headers = {"Location": f"{proxies.way(request).base}/v2/images/{image.id}"}
    settings = runtime(request).settings
    if methods := await import_methods(request, lately=True):
        headers["OpenStack-image-import-methods"] = ",".join(methods)
    if settings.multi_store:
        names = [store.name for store in runtime(request).stores.public]
        headers["OpenStack-image-store-ids"] = ",".join(names)
    return wire.answer(wire.image(runtime(request), context(request), image), 201, headers)


async def find(request: web.Request) -> web.Response:
    """GET /v2/images → 200."""
    query = listing.parse(request.query, context(request), runtime(request).settings.limits)
    found = await images.find(runtime(request), context(request), query)
    return wire.answer(wire.page(runtime(request), context(request), found, request.query))


async def show(request: web.Request) -> web.Response:
    """GET /v2/images/{id} → 200."""
    image = await lookup.get(runtime(request), context(request), image_id(request))
    return wire.answer(wire.image(runtime(request), context(request), image))


async def change(request: web.Request) -> web.Response:
    """PATCH /v2/images/{id} → 200."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in patch.MEDIA_TYPES:
        raise WrongMediaType(
            f"A PATCH has the media type {patch.V21}.", headers={"Accept-Patch": ", ".join(patch.MEDIA_TYPES)}
        )
    changes = patch.parse(await wire.body(request), kind)
    image = await images.change(runtime(request), context(request), image_id(request), changes)
    placed = any(item.path[0] == "locations" and item.op != "remove" for item in changes)
    headers = wire.warning(hints.of(runtime(request), image)) if placed else None
    return wire.answer(wire.image(runtime(request), context(request), image), headers=headers)


async def delete(request: web.Request) -> web.Response:
    """DELETE /v2/images/{id} → 204."""
    await images.delete(runtime(request), context(request), image_id(request))
    return web.Response(status=204)


async def deactivate(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/actions/deactivate → 204."""
    await images.deactivate(runtime(request), context(request), image_id(request))
    return web.Response(status=204)


async def restore(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/actions/restore → 200."""
    image = await scrubbing.restore(runtime(request), context(request), image_id(request))
    return wire.answer(wire.image(runtime(request), context(request), image))


async def reactivate(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/actions/reactivate → 204."""
    await images.reactivate(runtime(request), context(request), image_id(request))
    return web.Response(status=204)
