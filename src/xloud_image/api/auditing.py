"""Calls as an audit has them: told when their caller is known, and when they have ended."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from xloud_image.api import proxies
from xloud_image.api.state import CONTEXT, REQUEST_ID, RUNTIME
from xloud_image.audit import Call, Caller

_CALL: Final = web.RequestKey("audit", Call)


async def begin(request: web.Request) -> None:
    """The caller is known; before anything is done for him."""
    journal = request.app[RUNTIME].journal
    if journal is None:
        return
    ctx = request[CONTEXT]
    caller = Caller(
        user=ctx.user,
        name=ctx.user_name or ctx.user,
        project=ctx.project,
        address=proxies.client(request),
        agent=request.headers.get(hdrs.USER_AGENT),
        request_id=request[REQUEST_ID],
        global_request_id=request.headers.get("x-openstack-request-id"),
    )
    url = request.rel_url
    call = await journal.begin(request.method, url.raw_path, url.raw_query_string, caller)
    if call is not None:
        request[_CALL] = call


def end(request: web.Request, status: int | None) -> None:
    """It has ended, with this answer; None: without one."""
    call = request.get(_CALL)
    journal = request.app[RUNTIME].journal
    if call is not None and journal is not None:
        journal.end(call, status)
