"""Handlers that tell about the service: versions, schemas, stores, import methods, usage, health."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Final

from aiohttp import web

from xloud_image import schemas
from xloud_image.api import proxies, state, wire
from xloud_image.api.state import ENDING, MINORS, context, runtime
from xloud_image.errors import NotFound
from xloud_image.services import quotas

_PROXIED: Final = ("Forwarded", *(f"X-Forwarded{part}" for part in ("", "-Proto", "-Host", "-For", "-Prefix")))


async def versions(request: web.Request) -> web.Response:
    """GET /versions → 200; GET / → 300."""
    announced: tuple[str, ...] = request.app[MINORS]
    link = {"rel": "self", "href": f"{proxies.way(request).base}/v2/"}
    found = [
        {"id": f"v{minor}", "status": "SUPPORTED" if number else "CURRENT", "links": [link]}
        for number, minor in enumerate(announced)
    ]
    status = 200 if request.path.rstrip("/") == "/versions" else 300
    return wire.answer({"versions": found}, status, {"Vary": "X-Auth-Token"})


async def schema(request: web.Request) -> web.Response:
    """GET /v2/schemas/{name} → 200."""
    name = request.match_info["name"]
    own = runtime(request).schema
    known = {
        "image": lambda: own.image,
        "images": lambda: own.images,
        "member": schemas.member,
        "members": schemas.members,
        "task": schemas.task,
        "tasks": schemas.tasks,
    }
    if name not in known:
        raise NotFound(f"There is no schema '{name[:80]}' here.")
    return wire.answer(known[name]())


async def stores(request: web.Request) -> web.Response:
    """GET /v2/info/stores → 200; 404 with a single store."""
    _require_several(request)
    return wire.answer({"stores": runtime(request).stores.describe()})


async def stores_detail(request: web.Request) -> web.Response:
    """GET /v2/info/stores/detail → 200, for administrators and services."""
    runtime(request).policy.require(context(request), "stores_info_detail")
    _require_several(request)
    return wire.answer({"stores": runtime(request).stores.describe(detail=True)})


def _require_several(request: web.Request) -> None:
    if not runtime(request).settings.multi_store:
        raise NotFound("This service has a single store (enabled_backends is not set).")


async def import_methods(request: web.Request) -> web.Response:
    """GET /v2/info/import → 200."""
    methods = list(await state.import_methods(request))
    return wire.answer(
        {"import-methods": {"description": "Import methods available.", "type": "array", "value": methods}}
    )


async def usage(request: web.Request) -> web.Response:
    """GET /v2/info/usage → 200; {} where there are no quotas."""
    return wire.answer({"usage": await quotas.told(runtime(request), context(request))})


def may_ask_health(request: web.Request) -> bool:
    """Whether there is a health check for this one: by the address of the connection, whatever its headers say."""
    settings = runtime(request).settings.health
    if settings.ignore_proxied_requests and any(name in request.headers for name in _PROXIED):
        return False
    if not settings.allowed_source_ranges:
        return True
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in ipaddress.ip_network(one) for one in settings.allowed_source_ranges)


async def health(request: web.Request) -> web.Response:
    """GET of the health path → 200 `OK`, or 503 while the operator's disable file exists, or the node is to stop.

    No token needed.
    """
    if request.app[ENDING].unwell:
        return web.Response(status=503, text="STOPPING")
    file = runtime(request).settings.health.disable_by_file_path
    disabled = await asyncio.to_thread(Path(file).exists) if file else False
    if disabled:
        return web.Response(status=503, text="DISABLED BY FILE")
    return web.Response(text="OK")


def not_offered(what: str) -> NotFound:
    """For calls of the Image API that this release has not: said plainly, with the code that clients know."""
    return NotFound(
        f"The {what.replace('_', ' ')} calls of the Image API are not offered by this release (see GET /versions)."
    )
