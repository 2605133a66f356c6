"""Tasks as clients see them: what became of the long work that they asked for, and how far it is. Source: Image API
reference, section "Tasks".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from xloud_image.db import jobs, tasks
from xloud_image.errors import BadRequest, Conflict, NotFound
from xloud_image.identity.context import Context
from xloud_image.model import Job, Task
from xloud_image.policy import images as rights
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime

_MIB: Final = 1 << 20


async def find(
    runtime: Runtime,
    ctx: Context,
    *,
    equals: Mapping[str, str],
    sort: Sequence[tuple[str, Literal["asc", "desc"]]],
    marker: str | None,
    limit: int,
) -> list[Task]:
    """A page of the caller's project's tasks, everybody's for administrators. `BadRequest`: there is no such marker."""
    runtime.policy.require(ctx, "get_tasks")
    after = None if marker is None else await _marker(runtime, ctx, marker)
    owner = None if ctx.is_admin else ctx.project or ""
    return await runtime.db.read(
        lambda conn: tasks.find(conn, owner=owner, equals=equals, sort=sort, marker=after, limit=limit)
    )


async def _marker(runtime: Runtime, ctx: Context, task_id: str) -> Task:
    try:
        return await get(runtime, ctx, task_id)
    except NotFound as error:
        raise BadRequest(f"The marker is no task: {error.message}") from error


async def get(runtime: Runtime, ctx: Context, task_id: str) -> Task:
    """One task, if it is the caller's project's, or for an administrator."""
    runtime.policy.require(ctx, "get_task")
    task = await runtime.db.read(lambda conn: tasks.get(conn, task_id))
    if task is None or not (ctx.is_admin or task.owner == ctx.project):
        raise NotFound(f"No task with the id {task_id} was found.")
    return _told(task, await runtime.db.read(lambda conn: jobs.get(conn, task_id)))


async def of_image(runtime: Runtime, ctx: Context, image_id: str) -> list[Task]:
    """The tasks of an image that the caller sees, the newest first: those of his project, all for administrators."""
    image = await load(runtime, ctx, image_id)
    rights.require(runtime.policy, ctx, "get_image", image)
    found = await runtime.db.read(lambda conn: tasks.of_image(conn, image_id))
    working = {job.id: job for job in await runtime.db.read(lambda conn: jobs.list_all(conn, image_id=image_id))}
    own = [task for task in found if ctx.is_admin or (ctx.project is not None and task.owner == ctx.project)]
    return [_told(task, working.get(task.id)) for task in own]


async def cancel(runtime: Runtime, ctx: Context, task_id: str) -> None:
    """The job of a task is not wanted any more; whoever works on it stops within seconds and tidies up. For whoever may
    change the image. `NotFound`; `Conflict`: it has ended, or is none that can be ended."""
    task = await runtime.db.read(lambda conn: tasks.get(conn, task_id))
    image = await load(runtime, ctx, task.image_id) if task is not None and task.image_id is not None else None
    if task is None or image is None:
        raise NotFound(f"No task with the id {task_id} was found.")
    rights.require(runtime.policy, ctx, "modify_image", image)
    if not await runtime.db.write(lambda conn: jobs.cancel_one(conn, task_id)):
        raise Conflict(
            "The task has ended already." if task.status in ("success", "failure") else "This task cannot be cancelled."
        )
    runtime.ring()


def _told(task: Task, job: Job | None) -> Task:
    """With how far it is, while it is under way."""
    if job is None or task.status not in ("pending", "processing"):
        return task
    said = [words(job), f"Waits for attempt {job.attempts + 1}: {job.error}" if job.error and not job.holder else ""]
    return dataclasses.replace(task, message=" ".join(filter(None, said)) or task.message)


def words(job: Job) -> str:
    """How far a job is, for people; empty as long as nothing has come."""
    facts: Mapping[str, Any] = job.progress
    if not facts.get("step"):
        return ""
    done, total = facts.get("bytes", 0), facts.get("total")
    of = f" of {total // _MIB} MiB ({100 * done // total} %)" if total else ""
    return f"Copied {done // _MIB} MiB{of} at {facts.get('rate', 0) / _MIB:.1f} MiB/s, {facts['step']}."
