"""Members: the projects with which an image is shared, and their answers."""

from __future__ import annotations

from typing import TypeVar

from xloud_image.db import members as rows
from xloud_image.db.engine import Work
from xloud_image.errors import BadRequest, QuotaExceeded
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import MEMBER_STATUSES, Image, Member
from xloud_image.policy import images as rights
from xloud_image.services import sharing
from xloud_image.services.lookup import get as get_image
from xloud_image.services.service import Service

T = TypeVar("T")


async def find(service: Service, ctx: Context, image_id: str) -> list[Member]:
    """The owner sees all rows, a member its own."""
    image = await get_image(service, ctx, image_id)
    rights.require_members(service.policy, ctx, "get_members", image)
    members = await service.db.read(lambda conn: rows.list_all(conn, image_id))
    return [member for member in members if rights.may_see_member(service.policy, ctx, image, member)]


async def get(service: Service, ctx: Context, image_id: str, project: str) -> Member:
    """One membership; `NotFound` also for those that the caller cannot see."""
    image = await get_image(service, ctx, image_id)
    return await _visible(service, ctx, image, project)


async def _visible(service: Service, ctx: Context, image: Image, project: str) -> Member:
    member = await service.db.read(lambda conn: rows.get(conn, image.id, project))
    if member is None or not rights.may_see_member(service.policy, ctx, image, member):
        raise rights.no_such_member(image.id, project)
    return member


async def add(service: Service, ctx: Context, image_id: str, project: str) -> Member:
    """Share with one more project. `Duplicate`, `QuotaExceeded`, `Forbidden` unless the image is shared."""
    image = await get_image(service, ctx, image_id)
    rights.require_members(service.policy, ctx, "add_member", image)
    quota = service.settings.limits.image_member_quota
    members = await service.db.read(lambda conn: rows.list_all(conn, image_id))
    if 0 <= quota <= len(members) and all(member.member != project for member in members):
        raise QuotaExceeded(f"An image may have {quota} members here.")
    member = await _stored(service, lambda conn: rows.add(conn, image_id, project))
    await sharing.follow(service, ctx, image)
    return member


async def answer(service: Service, ctx: Context, image_id: str, project: str, status: str) -> Member:
    """The member project accepts, rejects or leaves open."""
    if status not in MEMBER_STATUSES:
        raise BadRequest(f"'status' must be one of {', '.join(MEMBER_STATUSES)}.")
    image = await get_image(service, ctx, image_id)
    member = await _visible(service, ctx, image, project)
    rights.require_answer(service.policy, ctx, image, member)
    return await _stored(service, lambda conn: rows.set_status(conn, image_id, project, status))


async def remove(service: Service, ctx: Context, image_id: str, project: str) -> None:
    """Share no longer."""
    image = await get_image(service, ctx, image_id)
    rights.require_members(service.policy, ctx, "delete_member", image)
    await _visible(service, ctx, image, project)
    await _stored(service, lambda conn: rows.remove(conn, image_id, project))
    await sharing.follow(service, ctx, image)


async def _stored(service: Service, work: Work[T]) -> T:
    await reach("member.begin")
    result = await service.db.write(work)
    await reach("member.stored")
    return result
