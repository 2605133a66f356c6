"""The one way every request goes, and the one place where errors become answers.

Each request: an id → the version prefix taken off → CORS and OPTIONS → who asks → the handler → errors as answers →
the rest of an unread body. Handlers of /v2 run only with a context.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from xloud_image.api import (
    auditing,
    connections,
    cors,
    giving,
    info,
    messages,
    metrics,
    openapi,
    proxies,
    receiving,
    uploads,
)
from xloud_image.api.receiving import ClientGone
from xloud_image.api.routes import HEALTH, OFF, ROUTES, minors
from xloud_image.api.state import (
    CONTEXT,
    ENDING,
    MINORS,
    POSSIBLE,
    REQUEST_ID,
    RUNTIME,
    Ending,
    asked_under,
    require_no_body,
    require_utf8,
)
from xloud_image.config.masking import clipped
from xloud_image.errors import HeaderTooLarge, ImageServiceError, MethodNotAllowed, NotFound
from xloud_image.services.possible import Possible
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)
access = structlog.get_logger("xloud_image.access")

_TAKE_BODY: Final = frozenset(route.handler for route in ROUTES if route.body)
_OPEN: Final = frozenset(route.handler for route in ROUTES if route.open)
_PREFIX: Final = re.compile(r"/v2\.[0-9]{1,3}(?=/|\Z)")
_ACCEPT: Final = re.compile(r"application/vnd\.openstack\.images-v2\.[0-9]{1,3}")
_VERSION: Final = re.compile(r"/v[0-9][^/]*(/.*)?")


def build(runtime: Runtime) -> web.Application:
    """The application of one process; all of `runtime` is started and closed by the caller."""
    app = web.Application(middlewares=[_way], logger=_quiet())
    app[RUNTIME] = runtime
    app[ENDING] = Ending()
    app[POSSIBLE] = Possible()
    app.on_response_prepare.append(_sign)
    app[MINORS] = minors(several_stores=runtime.settings.multi_store, cache=runtime.cache is not None)
    health = runtime.settings.health.path
    served = [dataclasses.replace(route, path=health) if route.path == HEALTH else route for route in ROUTES]
    # last, so that the path that an operator chose hides none of the API's
    for route in sorted(served, key=lambda route: route.handler == info.health):
        resource = app.router.add_resource(_routed(route.path))
        resource.add_route(route.method, route.handler, expect_handler=receiving.no_continue)
        if route.method == "GET":
            resource.add_route("HEAD", route.handler)
    if runtime.settings.server.metrics:
        app.router.add_get(metrics.PATH, metrics.show)
    openapi.provide(app, runtime, served)
    return app


def _routed(path: str) -> str:
    """The path as the router takes it: a variable at its end is none of the words that stand in its place elsewhere, as
    `clean` beside `{image_id}`, so that those have their own methods only."""
    head, _, last = path.rpartition("/")
    beside = {word for before, _, word in (route.path.rpartition("/") for route in ROUTES) if before == head}
    words = sorted(word for word in beside if word and "{" not in word)
    if not last.startswith("{") or not words:
        return path
    return f"{head}/{{{last[1:-1]}:(?!(?:{'|'.join(words)})$)[^{{}}/]+}}"


def _quiet() -> logging.Logger:
    """aiohttp's own application log says nothing: our one error handler has said it already."""
    quiet = logging.getLogger("aiohttp.quiet")
    quiet.disabled = True
    return quiet


@web.middleware
async def _way(request: web.Request, handler: Handler) -> web.StreamResponse:
    begun = time.monotonic()
    response = await _answer(request, handler)
    if request.path != request.app[RUNTIME].settings.health.path:
        ctx = request.get(CONTEXT)
        theirs = asked_under(request)
        access.info(
            "request",
            method=request.method,
            path=clipped(request.path),
            status=response.status,
            seconds=round(time.monotonic() - begun, 4),
            project=ctx.project if ctx else None,
            user=ctx.user if ctx else None,
            request=request[REQUEST_ID],
            client=proxies.client(request),
            **({"global_request": theirs} if theirs else {}),
        )
        if request.app[RUNTIME].settings.server.counts:
            metrics.count(request, response.status, time.monotonic() - begun)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[REQUEST_ID] = request_id = f"req-{uuid.uuid4()}"
    response: web.StreamResponse
    try:
        request, handler = await _without_prefix(request, handler)
        response = await _handle(request, handler)
        if isinstance(response, web.Response) and giving.is_large(request, response):
            response = await giving.give(request, response, proxies.whose(request))
    except ClientGone as error:
        log.info("a client left", request=request_id, path=clipped(request.path), reason=error.message)
        response = _error(request, error.status, error.message, {})
        response.force_close()
        connections.let_go(error)
    except ImageServiceError as error:
        if error.status >= 500:
            log.warning("not possible now", request=request_id, path=clipped(request.path), reason=error.message)
        response = _error(request, error.status, error.message, error.headers, error.problem)
    except web.HTTPException as error:
        response = _error(request, error.status, error.text or error.reason, {})
    except (ConnectionError, asyncio.CancelledError):
        auditing.end(request, None)
        raise
    except Exception:
        log.exception("a request failed", request=request_id, method=request.method, path=clipped(request.path))
        message = f"The service failed; the log says more under {request_id}."
        response = _error(request, 500, message, {})
    auditing.end(request, response.status)
    return await _finish(request, response)


async def _handle(request: web.Request, handler: Handler) -> web.StreamResponse:
    settings = request.app[RUNTIME].settings
    messages.require_sense(request)
    given = request.headers.get("x-openstack-request-id", "")
    if len(given) > settings.server.max_request_id_length:
        raise HeaderTooLarge(f"x-openstack-request-id has more than {settings.server.max_request_id_length} characters")
    if request.path == settings.health.path:
        return await _health(request)
    if request.method == "OPTIONS":
        return _options(request)
    require_utf8(request)
    known = request.match_info.http_exception
    if known is None and request.match_info.handler in _OPEN:
        require_no_body(request)
        return await handler(request)
    if known is not None and not request.path.startswith("/v2/"):
        return await _elsewhere(request, known)
    request[CONTEXT] = await request.app[RUNTIME].identity.authenticate(
        request.headers, method=request.method, path=request.path, address=proxies.client(request)
    )
    await auditing.begin(request)
    if known is not None:
        _refuse(request, known)
    if request.match_info.handler not in _TAKE_BODY:
        require_no_body(request)
    return await handler(request)


async def _without_prefix(request: web.Request, handler: Handler) -> tuple[web.Request, Handler]:
    """`/v2.N/…`, and paths without version under `Accept: …images-v2.N`, are `/v2/…`: the minor only announces."""
    if request.match_info.http_exception is None:
        return request, handler
    path = request.rel_url.raw_path
    plain = _PREFIX.sub("/v2", path, count=1)
    if plain == path and _ACCEPT.search(request.headers.get(hdrs.ACCEPT, "")) and not _VERSION.fullmatch(path):
        plain = f"/v2{path}"
    if len(plain) > 1 and plain.endswith("/") and plain != "/v2/images/":  # that is an image without an id
        plain = plain.rstrip("/") or "/"
    if plain == path:
        return request, handler
    query = request.rel_url.raw_query_string
    target = request.rel_url.join(type(request.rel_url)(plain + (f"?{query}" if query else ""), encoded=True))
    again = request.clone(rel_url=target)
    again[REQUEST_ID] = request[REQUEST_ID]
    match = await request.app.router.resolve(again)
    match.add_app(request.app)
    match.freeze()
    again._match_info = match  # noqa: SLF001  # the only way to hand a request to another route within the application
    return again, match.handler


async def _elsewhere(request: web.Request, known: web.HTTPException) -> web.StreamResponse:
    """Unknown versions get the list of those that exist (300); other paths outside of /v2 are not found."""
    if isinstance(known, web.HTTPMethodNotAllowed):
        _refuse(request, known)
    if _VERSION.fullmatch(request.path):
        return await info.versions(request)
    raise NotFound("There is nothing here; the API begins at /v2/, and GET /versions tells what it can do.")


def _refuse(request: web.Request, known: web.HTTPException) -> None:
    if isinstance(known, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(known.allowed_methods | {"OPTIONS"}))
        raise MethodNotAllowed(f"{request.method} is not possible here, only {allowed}.", headers={"Allow": allowed})
    parts = request.path.split("/")
    if len(parts) > 2 and parts[2] in OFF:
        raise info.not_offered(parts[2])
    raise NotFound("There is nothing under this path.")


async def _health(request: web.Request) -> web.StreamResponse:
    """Balancers ask by the method that they like; what they are told does not depend on it."""
    response = await info.health(request)
    if request.method == "OPTIONS":
        response.headers["Allow"] = "GET, HEAD, OPTIONS"
        cors.preflight(request, response, request.app[RUNTIME].settings.cors)
    return response


def _options(request: web.Request) -> web.Response:
    known = request.match_info.http_exception
    if request.path == "*":
        return web.Response(status=204, headers={"Allow": ", ".join(sorted(messages.METHODS))})
    if known is not None and not isinstance(known, web.HTTPMethodNotAllowed):
        raise NotFound("There is nothing under this path.")
    allowed = known.allowed_methods if isinstance(known, web.HTTPMethodNotAllowed) else {request.method}
    response = web.Response(status=204, headers={"Allow": ", ".join(sorted(set(allowed) | {"OPTIONS"}))})
    response.headers.update(uploads.offered(request))
    cors.preflight(request, response, request.app[RUNTIME].settings.cors)
    return response


def _error(
    request: web.Request,
    status: int,
    message: str,
    headers: dict[str, str],
    problem: dict[str, str | int] | None = None,
) -> web.Response:
    """The sentence in a form that clients show: JSON where that was asked for by name, text where text was. Who did not
    say what it wants gets an object within an object, the one form in which all of OpenStack's clients find it.
    """
    title = HTTPStatus(status).phrase
    # A sentence may quote the request: no control characters of a client reach another's terminal.
    message = "".join(char if char.isprintable() else "\ufffd" for char in message)
    accept = request.headers.get(hdrs.ACCEPT, "*/*")
    named = "json" in accept or not accept
    if named or "text/" not in accept:
        content: dict[str, object] = {"message": message, "code": f"{status} {title}", "title": title}
        if problem:
            return web.Response(
                body=orjson.dumps({**content, **problem, "status": status, "detail": message}),
                status=status,
                headers={hdrs.CONTENT_TYPE: "application/problem+json", **headers},
            )
        if not named:
            # glanceclient shows this sentence and nothing else
            content = {"error": {**content, "message": f"{status} {title}: {message}"}}
        return web.Response(
            body=orjson.dumps(content), status=status, headers={hdrs.CONTENT_TYPE: "application/json", **headers}
        )
    return web.Response(text=f"{status} {title}: {message}\n", status=status, headers=headers)


async def _finish(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if not response.prepared and request.body_exists and not request.content.is_eof():
        await _answer_early(request, response)
    return response


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries, also one that is streamed."""
    response.headers["x-openstack-request-id"] = request.get(REQUEST_ID) or f"req-{uuid.uuid4()}"
    response.headers[hdrs.SERVER] = "xloud-image"
    cors.expose(request, response, request.app[RUNTIME].settings.cors)
    # No protocol is changed to; but what follows such a request on its connection is not read as one.
    if request.app[ENDING].last_answers or hdrs.UPGRADE in request.headers:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"


async def _answer_early(request: web.Request, response: web.StreamResponse) -> None:
    """The answer is ready before the body is: send it, close after it."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    await receiving.linger(request, short=request.app[ENDING].last_answers)
