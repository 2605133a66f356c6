"""Memberships of projects in images. Rights and the visibility rule are elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import sql
from xloud_image.db.engine import tell
from xloud_image.db.image_children import kept
from xloud_image.db.tables import image_members, images
from xloud_image.errors import Duplicate, NoSuchImage, NotFound, QuotaExceeded
from xloud_image.model import Member, utcnow

_SECOND: Final = dt.timedelta(seconds=1)
_ROW: Final = "image_id, member, status, created_at, updated_at"


def _member(row: Sequence[Any]) -> Member:
    created = sql.made(row[3])
    return Member(row[0], row[1], row[2], created, sql.instant(row[4]) or created)


async def list_all(conn: AsyncConnection, image_id: str) -> list[Member]:
    """All members of an image, oldest first."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT {_ROW} FROM image_members"  # noqa: S608 - constants
        f" WHERE image_id = {text.bind(image_id)} AND deleted = false ORDER BY id",
        text.values,
    )
    return [_member(row) for row in rows]


async def get(conn: AsyncConnection, image_id: str, member: str) -> Member | None:
    """One membership, None when there is none."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT {_ROW} FROM image_members"  # noqa: S608 - constants
        f" WHERE image_id = {text.bind(image_id)} AND member = {text.bind(member)} AND deleted = false ORDER BY id",
        text.values,
    )
    return _member(rows[0]) if rows else None


async def add(conn: AsyncConnection, image_id: str, member: str, *, status: str = "pending", quota: int = -1) -> Member:
    """A new membership. Duplicate when there is one; NotFound when the image is gone; QuotaExceeded when there are as
    many as `quota` already (negative: no limit).

    The unique key has deleted_at in it, so NULLs escape it: the lock on the image's row is what keeps two apart.
    """
    await _lock(conn, image_id)
    if await get(conn, image_id, member) is not None:
        raise Duplicate(f"Project {member} is already a member of image {image_id}")
    if quota >= 0 and await _count(conn, image_id) >= quota:
        raise QuotaExceeded(f"An image may have {quota} members here.")
    now = kept(conn, utcnow())
    await conn.execute(
        image_members.insert(),
        {
            "image_id": image_id,
            "member": member,
            "can_share": False,
            "status": status,
            "created_at": now,
            "updated_at": now,
            "deleted": False,
        },
    )
    added = Member(image_id, member, status, now, now)
    tell(conn, "image.member.create", events.of_member, added)
    return added


async def _count(conn: AsyncConnection, image_id: str) -> int:
    text = sql.Text(sql.engine_of(conn))
    [[number]] = await sql.fetch(
        conn,
        f"SELECT count(*) FROM image_members WHERE image_id = {text.bind(image_id)} AND deleted = false",  # noqa: S608
        text.values,
    )
    return int(number)


async def set_status(conn: AsyncConnection, image_id: str, member: str, status: str) -> Member:
    """The project's answer. NotFound when it is no member."""
    await _lock(conn, image_id)
    done = await conn.execute(_live(image_id, member).values(status=status, updated_at=kept(conn, utcnow())))
    found = await get(conn, image_id, member) if done.rowcount else None
    if found is None:
        raise NotFound(f"Project {member} is no member of image {image_id}")
    tell(conn, "image.member.update", events.of_member, found)
    return found


async def remove(conn: AsyncConnection, image_id: str, member: str) -> None:
    """End a membership. NotFound when there is none."""
    await _lock(conn, image_id)
    found = await get(conn, image_id, member)
    if found is None:
        raise NotFound(f"Project {member} is no member of image {image_id}")
    now = kept(conn, utcnow())
    # two removals within one second must not meet in the unique key, which has whole seconds on MySQL
    text = sql.Text(sql.engine_of(conn))
    last = await sql.fetch(
        conn,
        "SELECT max(deleted_at) FROM image_members"  # noqa: S608 - constants
        f" WHERE image_id = {text.bind(image_id)} AND member = {text.bind(member)} AND deleted = true",
        text.values,
    )
    before = sql.instant(last[0][0])
    ended = now if before is None or before < now else before.replace(microsecond=0) + _SECOND
    await conn.execute(_live(image_id, member).values(deleted=True, deleted_at=ended, updated_at=now))
    tell(conn, "image.member.delete", events.of_member, found, deleted_at=now)


async def _lock(conn: AsyncConnection, image_id: str) -> None:
    lock = "" if conn.dialect.name == "sqlite" else " FOR UPDATE"
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT 1 FROM {images.name} WHERE id = {text.bind(image_id)} AND deleted = false{lock}",  # noqa: S608
        text.values,
    )
    if not rows:
        raise NoSuchImage(image_id)


def _live(image_id: str, member: str) -> sa.Update:
    return image_members.update().where(
        image_members.c.image_id == image_id,
        image_members.c.member == member,
        image_members.c.deleted == sa.false(),
    )
