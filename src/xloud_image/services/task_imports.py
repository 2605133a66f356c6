"""Imports as the tasks API asks for them (POST /v2/tasks): the image is made with the import, and goes when that fails.

Deprecated by its own reference, and for administrators; the work is that of an import from a URL (`imports`). What a
Glance judges when it is asked is refused here (400); all that it finds later ends the task as a failure.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from xloud_image import schemas
from xloud_image.db import tasks
from xloud_image.db.engine import Tx
from xloud_image.errors import BadRequest, ImageServiceError
from xloud_image.identity.context import Context
from xloud_image.model import Task, shown_url
from xloud_image.policy import images as rights
from xloud_image.services import fetching, image_patch, imports
from xloud_image.services.runtime import Runtime

_SHAPE: Final = schemas.Shape(schemas.new_task())
_LONGEST: Final = 20_000  # characters of the input as JSON; the column of Glance has 64 KiB, three bytes a character
_CALLS: Final[Mapping[str, str]] = {
    "api_image_import": "POST /v2/images/ID/import",
    "location_import": "POST /v2/images/ID/locations",
}


async def create(runtime: Runtime, ctx: Context, body: Mapping[str, Any], *, request_id: str | None) -> Task:
    """The task as it was stored; `BadRequest` for a body that is none, and for a URL that may not be asked."""
    runtime.policy.require(ctx, "add_task")
    _SHAPE.require(body)
    kind, given = body["type"], body["input"]
    if given is None and kind in _CALLS:
        raise BadRequest("'input' is empty.")
    given = given or {}
    if kind in _CALLS:
        _require_short(given)
        return await _failed(runtime, ctx, kind, given, request_id, f"Such a task is made by {_CALLS[kind]} only.")
    url = given.get("import_from")
    if not isinstance(url, str) or not url:
        raise BadRequest("The input needs 'import_from', a URL.")
    asked = {**given, "import_from": shown_url(url)}
    _require_short(asked)
    await fetching.require_reachable(runtime, url, trusted=runtime.policy.allows(ctx, "register_private_address", {}))
    try:
        for name, shape in (("import_from_format", str), ("image_properties", dict)):
            if not isinstance(given.get(name), shape):
                raise BadRequest(f"The input does not have '{name}' as it should.")
        return await _begun(runtime, ctx, url, given["image_properties"], asked, request_id)
    except ImageServiceError as error:
        if error.temporary:
            raise
        return await _failed(runtime, ctx, kind, asked, request_id, error.message)


async def _begun(
    runtime: Runtime,
    ctx: Context,
    url: str,
    fields: Mapping[str, Any],
    asked: Mapping[str, Any],
    request_id: str | None,
) -> Task:
    may = rights.may_do(runtime.policy, ctx)
    limits = runtime.settings.limits
    image = image_patch.new_image(fields, owner=ctx.project, schema=runtime.schema, limits=limits, may=may)
    rights.require_create(runtime.policy, ctx, image)
    return await imports.begin_new(runtime, ctx, image, url, asked, request_id=request_id)


def _require_short(given: Mapping[str, Any]) -> None:
    if len(json.dumps(given)) > _LONGEST:
        raise BadRequest(f"The input may have {_LONGEST} characters as JSON.")


async def _failed(
    runtime: Runtime, ctx: Context, kind: str, given: Mapping[str, Any], request_id: str | None, why: str
) -> Task:
    """A task that has failed already."""
    task = Task(str(uuid.uuid4()), kind, ctx.project or "", request_id=request_id, user_id=ctx.user, input=given)
    kept_for = runtime.settings.imports.task_time_to_live * 3600.0

    async def ended(tx: Tx) -> Task:
        await tasks.add(tx, task)
        await tasks.change(tx, task.id, "failure", message=why[:1000], kept_for=kept_for)
        return await tasks.get(tx, task.id) or task

    return await runtime.db.write(ended)
