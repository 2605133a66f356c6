"""The OpenAPI document of the service, made from the schemas that it enforces."""

from __future__ import annotations

from aiohttp import web

from xloud_image.api import wire
from xloud_image.api.state import service


async def show(request: web.Request) -> web.Response:
    """GET /openapi.json → 200."""
    return wire.answer(document(service(request).schema.image))


def document(image: dict[str, object]) -> dict[str, object]:
    """OpenAPI 3.1."""
    return {"openapi": "3.1.0", "components": {"schemas": {"image": image}}}
