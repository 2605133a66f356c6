"""Members: the projects with which an image is shared, and their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import images
from xloud_image.db import members as rows
from xloud_image.errors import BadRequest, Forbidden
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import MEMBER_STATUSES, Image, Member
from xloud_image.policy import images as rights
from xloud_image.services import acls
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime

T = TypeVar("T")


async def find(runtime: Runtime, ctx: Context, image_id: str) -> list[Member]:
    """The owner sees all rows, a member its own."""
    image = await load(runtime, ctx, image_id)
    rights.require_members(runtime.policy, ctx, "get_members", image)
    members = await runtime.db.read(lambda conn: rows.list_all(conn, image_id))
    return [member for member in members if rights.may_see_member(runtime.policy, ctx, image, member)]


async def get(runtime: Runtime, ctx: Context, image_id: str, project: str) -> Member:
    """One membership; `NotFound` also for those that the caller cannot see, and where the image is not shared."""
    image = await load(runtime, ctx, image_id)
    member = await runtime.db.read(lambda conn: rows.get(conn, image_id, project))
    try:
        return rights.require_member_seen(runtime.policy, ctx, image, project, member)
    except Forbidden:
        raise rights.no_such_member(image_id, project) from None


async def add(runtime: Runtime, ctx: Context, image_id: str, project: str) -> Member:
    """Share with one more project. `Duplicate`, `QuotaExceeded`, `Forbidden` unless the image is shared."""
    quota = runtime.settings.limits.image_member_quota

    async def added(conn: AsyncConnection, image: Image) -> Member:
        rights.require_members(runtime.policy, ctx, "add_member", image)
        return await rows.add(conn, image_id, project, quota=quota)

    image, member = await _stored(runtime, ctx, image_id, added)
    await acls.follow(runtime, ctx, image)
    return member


async def answer(runtime: Runtime, ctx: Context, image_id: str, project: str, status: str) -> Member:
    """The member project accepts, rejects or leaves open."""
    if status not in MEMBER_STATUSES:
        raise BadRequest(f"'status' must be one of {', '.join(MEMBER_STATUSES)}.")

    async def answered(conn: AsyncConnection, image: Image) -> Member:
        member = await rows.get(conn, image_id, project)
        rights.require_answer(runtime.policy, ctx, image, project, member)
        return await rows.set_status(conn, image_id, project, status)

    return (await _stored(runtime, ctx, image_id, answered))[1]


async def remove(runtime: Runtime, ctx: Context, image_id: str, project: str) -> None:
    """Share no longer."""

    async def removed(conn: AsyncConnection, image: Image) -> None:
        rights.require_members(runtime.policy, ctx, "delete_member", image)
        rights.require_member_seen(runtime.policy, ctx, image, project, await rows.get(conn, image_id, project))
        await rows.remove(conn, image_id, project)

    image, _ = await _stored(runtime, ctx, image_id, removed)
    await acls.follow(runtime, ctx, image)


async def _stored(
    runtime: Runtime, ctx: Context, image_id: str, work: Callable[[AsyncConnection, Image], Awaitable[T]]
) -> tuple[Image, T]:
    """Do `work` in one transaction that holds the image: what it looks at cannot change before it is stored."""

    async def locked(conn: AsyncConnection) -> tuple[Image, T]:
        image = await images.locked(conn, image_id, project=ctx.project)
        return image, await work(conn, image)

    await reach("member.begin")
    result = await runtime.db.write(locked)
    await reach("member.stored")
    return result
