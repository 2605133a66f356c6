"""Rows that are only marked as deleted, by us or by Glance, and are old: they go for good. What is still to be done for
a deletion (a claim, a pending deletion of Glance's) keeps all rows of its image.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import tables
from xloud_image.db.engine import Database
from xloud_image.db.image_children import kept
from xloud_image.model import utcnow

BATCH: Final = 500  # rows of one transaction
_PENDING: Final = ("pending_delete",)  # statuses of images and locations that a scrubber still needs
_CHILDREN: Final = (tables.image_properties, tables.image_tags, tables.image_locations, tables.image_members)


@dataclasses.dataclass(frozen=True, slots=True)
class Purged:
    """Rows of a table that went."""

    table: str
    rows: int


async def details(db: Database, *, days: int, most: int | None) -> list[Purged]:
    """What belonged to images, and tasks, deleted more than `days` days ago; images keep their row, so that their ids
    are not used again. most: rows at most, None all."""
    found = []
    for table in (*_CHILDREN, tables.tasks):
        done = await _purge(db, table, days=days, most=most)
        most = None if most is None else most - done.rows
        found.append(done)
    return found


async def images(db: Database, *, days: int, most: int | None) -> list[Purged]:
    """The rows of images that were deleted more than `days` days ago, of which nothing else is left. Their ids may be
    used again, by anybody. most: rows at most, None all."""
    return [await _purge(db, tables.images, days=days, most=most)]


async def _purge(db: Database, table: sa.Table, *, days: int, most: int | None) -> Purged:
    before = utcnow() - dt.timedelta(days=days)
    done, last = 0, None
    while most is None or done < most:
        size = BATCH if most is None else min(BATCH, most - done)

        async def some(conn: AsyncConnection, last: Any = last, size: int = size) -> list[Any]:
            found = list((await conn.execute(_old(table, kept(conn, before), last).limit(size))).scalars())
            if found and table is tables.tasks:
                await conn.execute(tables.task_info.delete().where(tables.task_info.c.task_id.in_(found)))
            if found:
                await conn.execute(table.delete().where(table.c.id.in_(found), table.c.deleted == sa.true()))
            return found

        found = await db.write(some)
        done += len(found)
        if len(found) < size:
            break
        last = found[-1]
    return Purged(table.name, done)


def _old(table: sa.Table, before: dt.datetime, last: Any) -> sa.Select[Any]:
    """Ids of rows to go, in their order, behind `last`."""
    columns = table.c
    which = [columns.deleted == sa.true(), columns.deleted_at < before]
    if last is not None:
        which.append(columns.id > last)
    if "status" in columns and table is not tables.tasks:
        which.append(columns.status.not_in(_PENDING))
    if table is not tables.tasks:
        image_id = columns.id if table is tables.images else columns.image_id
        which.append(~sa.exists().where(tables.claims.c.image_id == image_id))
        if table is tables.images:
            which += [~sa.exists().where(child.c.image_id == image_id) for child in _CHILDREN]
        else:
            # what Glance deletes later keeps its image and all that belongs to it
            pending = sa.exists().where(tables.images.c.id == image_id, tables.images.c.status.in_(_PENDING))
            which.append(~pending)
    return sa.select(columns.id).where(*which).order_by(columns.id)


__all__ = ["Purged", "details", "images"]
