"""One call of the API: what is needed to route it, to let it in, to read its body and to describe it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A call. `name`: its operation in the OpenAPI document, `tag` and `summary` as well.

    `body` and `parameters` name entries of `openapi.bodies` and `openapi.parameters`; a call without `body` takes none.
    The path's own parameters and those of every call need no mention. `gives`: status → name of a schema or of a media
    type, or None for an empty answer; `headers`: status → names of `openapi.answers.HEADERS`. `fails`: status → when,
    beyond what can befall every call. `open`: needs no login. `links`: the answer leads on to the calls that take the
    id of an image. `off`: it is known and does nothing yet.
    """

    method: str
    path: str
    handler: Handle
    name: str
    tag: str
    summary: str
    gives: Mapping[int, str | None]
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: str | None = None
    headers: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    fails: Mapping[int, str] = dataclasses.field(default_factory=dict)
    open: bool = False
    links: bool = False
    off: bool = False
