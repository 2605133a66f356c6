"""What handlers find on a request: the service, the caller, checked path parts."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from aiohttp import web

from xloud_image.errors import BadRequest, NoSuchImage, NotFound
from xloud_image.identity.context import Context
from xloud_image.services.possible import Possible
from xloud_image.services.runtime import Runtime

RUNTIME: Final = web.AppKey("runtime", Runtime)
MINORS: Final = web.AppKey[tuple[str, ...]]("minors", tuple)  # that are announced, newest first


class Ending:
    """How far this process is on its way out; set by the one that stops it."""

    def __init__(self) -> None:
        self.last_answers = False  # every answer says that its connection ends with it
        self.unwell = False  # the health check says 503: balancers shall take another node


POSSIBLE: Final = web.AppKey("possible", Possible)  # ways of import
ENDING: Final = web.AppKey("ending", Ending)
CONTEXT: Final = web.RequestKey("context", Context)
REQUEST_ID: Final = web.RequestKey("request_id", str)

_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def runtime(request: web.Request) -> Runtime:
    """The one of this process."""
    return request.app[RUNTIME]


async def import_methods(request: web.Request, *, lately: bool = False) -> tuple[str, ...]:
    """The ways of import that can work now, or could `lately`."""
    return await request.app[POSSIBLE].methods(runtime(request), lately=lately)


def context(request: web.Request) -> Context:
    """Who asks; set before any handler of /v2 runs."""
    return request[CONTEXT]


def asked_under(request: web.Request) -> str | None:
    """The id that another service gives all requests which serve one of its own (`req-UUID`), so that a server's failed
    start is found in every log; as in oslo.middleware anything else counts as none."""
    given = request.headers.get("x-openstack-request-id", "")
    return given if given.startswith("req-") and _UUID.fullmatch(given[4:]) else None


def image_id(request: web.Request) -> str:
    """The image's id from the path; what cannot be an id is not found."""
    text = request.match_info["image_id"]
    if not _UUID.fullmatch(text):
        raise NoSuchImage(text[:80])
    return text.lower()


def store_id(request: web.Request) -> str:
    """The store's id from the path; what can be no file's name is no store's either."""
    text = request.match_info["store"]
    if not text.isprintable() or "/" in text or len(text) > 255:
        raise NotFound("There is no such store.")
    return text


def require_utf8(request: web.Request) -> None:
    """`BadRequest` when path or query are no UTF-8: they would be kept or looked for as something that nobody meant."""
    raw = f"{request.rel_url.raw_path}?{request.rel_url.raw_query_string}"
    if "%" not in raw and raw.isascii():
        return
    try:
        urllib.parse.unquote_to_bytes(raw).decode()
    except UnicodeError:
        raise BadRequest("The path and the query must be UTF-8, in percent signs as well.") from None


def require_no_body(request: web.Request) -> None:
    """`BadRequest` when a call that takes no body has one; an empty one is none, with a length or chunked."""
    if not request.body_exists or request.content_length == 0:
        return
    if not request.content.is_eof() or request.content.total_bytes:
        raise BadRequest("A body is not expected with this request.")
