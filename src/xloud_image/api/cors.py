"""Cross-origin requests of browsers ([cors]); off without an allowed origin."""

from __future__ import annotations

from aiohttp import hdrs, web

from xloud_image.config.settings import CorsSettings

_EXPOSED = (
    "Content-MD5", "X-Image-Meta-Checksum", "X-Auth-Token", "X-Subject-Token", "X-Service-Token",
    "X-Openstack-Request-Id",
)  # fmt: skip
# What a page needs that goes on with an upload.
_GOING_ON = ("Location", "Upload-Complete", "Upload-Length", "Upload-Limit", "Upload-Offset", "Repr-Digest")
# Allowed whatever the operator lists: bodies have media types that a browser asks about first.
_ALWAYS = (
    "Accept", "Accept-Language", "Content-Type", "Cache-Control", "Content-Language", "Expires", "Last-Modified",
    "Pragma",
    "Upload-Complete", "Upload-Length", "Upload-Offset", "Upload-Draft-Interop-Version",
    "Content-Digest", "Repr-Digest",
)  # fmt: skip


def expose(request: web.Request, response: web.StreamResponse, settings: CorsSettings) -> bool:
    """Let an allowed origin read the answer; whether it is allowed."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not settings.allowed_origin or not origin.isascii():
        return False
    anyone = "*" in settings.allowed_origin
    if not anyone and origin not in settings.allowed_origin:
        return False
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    # A browser must not send credentials of its own accord to a service that allows every origin.
    if settings.allow_credentials and not anyone:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    exposed = (*(settings.expose_headers or _EXPOSED), *_GOING_ON)
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(exposed)
    return True


def preflight(request: web.Request, response: web.StreamResponse, settings: CorsSettings) -> None:
    """Answer a browser that asks before it sends."""
    method = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    method = "GET" if method == "HEAD" else method  # a page that may read may ask for the headers alone
    if method is None or method not in settings.allow_methods or not settings.allowed_origin:
        return
    allowed = {name.lower() for name in (*_ALWAYS, *settings.allow_headers)}
    asked = ",".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ()))
    names = [name for name in (part.strip() for part in asked.split(",")) if name]
    if any(name.lower() not in allowed for name in names):
        return  # the browser asks its page to do without; a part of what was asked is of no use
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(settings.allow_methods)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join(names or [*_ALWAYS, *settings.allow_headers])
    response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(settings.max_age)
