"""Handlers of members: the projects with which an image is shared."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from xloud_image import schemas
from xloud_image.api import wire
from xloud_image.api.state import context, image_id, runtime
from xloud_image.services import members

_NEW: Final = schemas.Shape(schemas.NEW_MEMBER)
_ANSWER: Final = schemas.Shape(schemas.MEMBER_ANSWER)


async def find(request: web.Request) -> web.Response:
    """GET /v2/images/{id}/members → 200."""
    found = await members.find(runtime(request), context(request), image_id(request))
    return wire.answer({"members": [wire.member(item) for item in found], "schema": "/v2/schemas/members"})


async def show(request: web.Request) -> web.Response:
    """GET /v2/images/{id}/members/{member} → 200."""
    found = await members.get(runtime(request), context(request), image_id(request), request.match_info["member"])
    return wire.answer(wire.member(found))


async def add(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/members → 200."""
    body = await wire.body_object(request)
    _NEW.require(body)
    project = body["member"]
    return wire.answer(wire.member(await members.add(runtime(request), context(request), image_id(request), project)))


async def answer(request: web.Request) -> web.Response:
    """PUT /v2/images/{id}/members/{member} → 200."""
    body = await wire.body_object(request)
    _ANSWER.require(body)
    project = request.match_info["member"]
    found = await members.answer(runtime(request), context(request), image_id(request), project, body["status"])
    return wire.answer(wire.member(found))


async def remove(request: web.Request) -> web.Response:
    """DELETE /v2/images/{id}/members/{member} → 204."""
    await members.remove(runtime(request), context(request), image_id(request), request.match_info["member"])
    return web.Response(status=204)
