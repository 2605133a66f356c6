"""The OpenAPI document: every route of the table with the schemas that the service enforces. Answers no other call.

`api.routes` says in words what each call does, `parameters` what can be asked, `answers` what comes back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from xloud_image import __version__
from xloud_image.api.openapi import answers, bodies, parameters
from xloud_image.api.route import Route
from xloud_image.config.settings import Settings
from xloud_image.services.runtime import Runtime

Json = dict[str, Any]


class Document:
    """The bytes of the document, made when they are first asked for; one per process."""

    def __init__(self, make: Callable[[], Json]) -> None:
        self._make = make

    @functools.cached_property
    def body(self) -> bytes:
        return orjson.dumps(self._make())


DOCUMENT: Final = web.AppKey("openapi", Document)
TAGS: Final = {
    "service": "What this service is and can do.",
    "images": "Images and their fields.",
    "data": "The bytes of images.",
    "tags": "Words to find images by.",
    "members": "Projects with which an image is shared.",
    "locations": "Where the bytes lie.",
    "tasks": "Long work, and how far it is.",
    "metadefs": "What metadata of images, flavors and other resources may say, for dashboards.",
    "cache": "The image cache of the node that answers; for administrators.",
}
_SECURITY: Final = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Auth-Token",
        "description": "A token of the identity service (Keystone v3).",
    },
    "basic": {"type": "http", "scheme": "basic", "description": "A user of this service's own file."},
}


async def show(request: web.Request) -> web.Response:
    """GET /openapi.json → 200."""
    return web.Response(body=request.app[DOCUMENT].body, content_type="application/json")


def provide(app: web.Application, runtime: Runtime, routes: Sequence[Route]) -> None:
    """Have the application's document made from `routes` when it is first asked for."""
    app[DOCUMENT] = Document(lambda: document(runtime, routes))


def document(runtime: Runtime, routes: Sequence[Route]) -> Json:
    """The document of this deployment: its formats, stores, declared properties and way of login."""
    settings = runtime.settings
    paths: dict[str, Json] = {}
    security = _security(settings)
    linked = [route.name for route in routes if "{image_id}" in route.path]
    for route in routes:
        item = paths.setdefault(route.path, {})
        item[route.method.lower()] = _operation(route, security, linked)
        if route.method == "GET":
            item["head"] = _operation(route, security, linked, head=True)
    server = settings.server.public_endpoint
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Xloud Image Service",
            "version": __version__,
            "summary": "The OpenStack Image API, version 2.",
            "description": "Which minor versions are served tells GET /versions; every path of /v2 is also reachable "
            "under the prefix of a minor, such as /v2.7.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server.rstrip("/") if server else "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**answers.all_of(runtime.schema), **bodies.all_of(runtime.schema)},
            "parameters": parameters.all_of(runtime),
            "headers": answers.HEADERS,
            "responses": answers.responses(),
            "securitySchemes": {name: one for name, one in _SECURITY.items() if {name: []} in security},
        },
    }


def _security(settings: Settings) -> list[Json]:
    auth = settings.auth
    ways: list[Json] = {"keystone": [{"token": []}], "http_basic": [{"basic": []}]}.get(auth.method, [])
    return [*ways, {}] if auth.allow_anonymous_access or not ways else ways


def _operation(call: Route, security: list[Json], linked: Sequence[str], *, head: bool = False) -> Json:
    in_path = [part[1:-1] for part in call.path.split("/") if part.startswith("{")]
    operation: Json = {
        "operationId": f"{call.name}Head" if head else call.name,
        "tags": [call.tag],
        "summary": call.summary,
        "parameters": [parameters.reference(name) for name in (*in_path, *call.parameters, *parameters.ALWAYS)],
        "responses": answers.of(call, linked, head=head),
        "security": [{}] if call.open else security,
    }
    if head:
        operation["description"] = "The headers of the GET of the same path, without its body."
    elif call.description:
        operation["description"] = call.description
    if call.body:
        operation["requestBody"] = bodies.of(call.body)
    return operation
