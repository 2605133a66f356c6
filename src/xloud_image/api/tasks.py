"""Handlers of tasks. Source: Image API reference, section "Tasks"."""

from __future__ import annotations

from typing import Any, Final, Literal

from aiohttp import web
from multidict import MultiMapping
from yarl import URL

from xloud_image.api import proxies, wire
from xloud_image.api.state import REQUEST_ID, context, image_id, runtime
from xloud_image.db.tasks import SORT_KEYS
from xloud_image.errors import BadRequest
from xloud_image.model import TASK_STATUSES, TASK_TYPES, Task
from xloud_image.services import task_imports, tasks

_FILTERS: Final = {"type": TASK_TYPES, "status": TASK_STATUSES}


async def find(request: web.Request) -> web.Response:
    """GET /v2/tasks → 200."""
    runtime(request).policy.require(context(request), "tasks_api_access")
    query, limits = request.query, runtime(request).settings.limits
    limit = min(_limit(query, limits.limit_param_default), limits.api_limit_max)
    found = await tasks.find(
        runtime(request),
        context(request),
        equals=_filters(query),
        sort=[(_one_of(query, "sort_key", SORT_KEYS, "created_at"), _direction(query))],
        marker=query.get("marker"),
        limit=limit,
    )
    kept = [(name, text) for name, text in query.items() if name != "marker"]
    body: dict[str, Any] = {
        "tasks": [_stub(task) for task in found],
        "first": _link(kept),
        "schema": "/v2/schemas/tasks",
    }
    if found and len(found) == limit:
        body["next"] = _link([*kept, ("marker", found[-1].id)])
    return wire.answer(body)


def _limit(query: MultiMapping[str], default: int) -> int:
    text = query.get("limit")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest("'limit' is a number from 0 on.")
    return int(text)


def _filters(query: MultiMapping[str]) -> dict[str, str]:
    return {name: _one_of(query, name, values, "") for name, values in _FILTERS.items() if name in query}


def _direction(query: MultiMapping[str]) -> Literal["asc", "desc"]:
    return "asc" if _one_of(query, "sort_dir", ("asc", "desc"), "desc") == "asc" else "desc"


def _one_of(query: MultiMapping[str], name: str, values: tuple[str, ...], default: str) -> str:
    text = query.get(name, default)
    if text not in values:
        raise BadRequest(f"'{name}' is one of {', '.join(values)}.")
    return text


def _link(query: list[tuple[str, str]]) -> str:
    return str(URL("/v2/tasks").with_query(query)) if query else "/v2/tasks"


async def create(request: web.Request) -> web.Response:
    """POST /v2/tasks → 201."""
    runtime(request).policy.require(context(request), "tasks_api_access")
    task = await task_imports.create(
        runtime(request), context(request), await wire.body_object(request), request_id=request[REQUEST_ID]
    )
    return wire.answer(_whole(task), 201, {"Location": f"{proxies.way(request).base}/v2/tasks/{task.id}"})


async def show(request: web.Request) -> web.Response:
    """GET /v2/tasks/{id} → 200."""
    runtime(request).policy.require(context(request), "tasks_api_access")
    return wire.answer(_whole(await tasks.get(runtime(request), context(request), request.match_info["task_id"])))


async def of_image(request: web.Request) -> web.Response:
    """GET /v2/images/{id}/tasks → 200."""
    found = await tasks.of_image(runtime(request), context(request), image_id(request))
    more = {"deleted": False, "deleted_at": None}
    return wire.answer({"tasks": [{**_fields(task), **_details(task), **more} for task in found]})


async def cancel(request: web.Request) -> web.Response:
    """POST /v2/tasks/{id}/actions/cancel → 202. Ours: the reference has no such call."""
    await tasks.cancel(runtime(request), context(request), request.match_info["task_id"])
    return web.Response(status=202)


def _fields(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "expires_at": None if task.expires_at is None else wire.moment(task.expires_at),
        "created_at": wire.moment(task.created_at),
        "updated_at": wire.moment(task.updated_at),
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
    }


def _details(task: Task) -> dict[str, Any]:
    return {
        "input": dict(task.input),
        "result": dict(task.result) if task.result is not None else None,
        "message": task.message,
    }


def _stub(task: Task) -> dict[str, Any]:
    return {**_fields(task), "self": f"/v2/tasks/{task.id}", "schema": "/v2/schemas/task"}


def _whole(task: Task) -> dict[str, Any]:
    return {**_stub(task), **_details(task)}
