"""What was deleted long ago goes for good; what is younger, alive, or still to be done stays."""

import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from xloud_image.db import claims, images, members, purge, tables, tasks
from xloud_image.db.engine import Database
from xloud_image.model import Claim, Image, Location, Task, utcnow


async def _image(db: Database, *, days: int | None, status: str = "deleted") -> str:
    """An image with one of everything, deleted so many days ago (None: alive)."""
    image_id = str(uuid.uuid4())
    image = Image(id=image_id, owner="p1", visibility="shared", properties={"a": "b"}, tags=("t",))
    place = Location(f"file:///x/{image_id}", {"store": "files"})

    async def make(conn: Any) -> None:
        await images.create(conn, image)
        await images.change(conn, image_id, lambda now: now.replace(locations=(place,), status="active", size=1))
        await members.add(conn, image_id, "p2")
        if days is not None:
            await images.hide(conn, image_id)
            await images.finish_delete(conn, image_id)
            then = {"deleted_at": utcnow().replace(microsecond=0) - dt.timedelta(days=days)}
            for table in (tables.image_properties, tables.image_tags, tables.image_locations, tables.image_members):
                await conn.execute(table.update().where(table.c.image_id == image_id).values(**then))
            which = tables.images.c.id == image_id
            await conn.execute(tables.images.update().where(which).values(**then, status=status))

    await db.write(make)
    return image_id


async def _left(db: Database, image_id: str) -> int:
    """Rows of an image in all tables."""

    async def count(conn: Any) -> int:
        found = 0
        for table in (tables.images, *purge._CHILDREN):
            column = table.c.id if table is tables.images else table.c.image_id
            found += (await conn.execute(sa.select(sa.func.count()).where(column == image_id))).scalar_one()
        return found

    return await db.read(count)


async def test_what_is_old_goes(db: Database) -> None:
    old, young, alive = [await _image(db, days=days) for days in (40, 10, None)]
    waiting, scrubbed = await _image(db, days=40), await _image(db, days=40, status="pending_delete")
    claim = Claim(id=str(uuid.uuid4()), kind="delete", image_id=waiting, store="files", url="file:///x", scope="image",
                  holder="me")  # fmt: skip
    await db.write(lambda conn: claims.begin(conn, claim, lease=60))
    task = Task(id=str(uuid.uuid4()), type="api_image_import", owner="p1", image_id=old)
    await db.write(lambda conn: tasks.add(conn, task))
    past = utcnow().replace(microsecond=0) - dt.timedelta(days=40)
    await db.write(lambda conn: conn.execute(tables.tasks.update().values(deleted=True, deleted_at=past)))

    assert sum(one.rows for one in await purge.images(db, days=30, most=None)) == 0, "its details are there"
    done = {one.table: one.rows for one in await purge.details(db, days=30, most=None)}
    assert done == {"image_properties": 1, "image_tags": 1, "image_locations": 1, "image_members": 1, "tasks": 1}
    assert [await _left(db, one) for one in (old, young, alive, waiting, scrubbed)] == [1, 5, 5, 5, 5]
    info = await db.read(lambda conn: conn.execute(sa.select(sa.func.count()).select_from(tables.task_info)))
    assert info.scalar_one() == 0
    assert [one.rows for one in await purge.images(db, days=30, most=None)] == [1]
    assert [await _left(db, one) for one in (old, young, alive, waiting, scrubbed)] == [0, 5, 5, 5, 5]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_no_more_than_was_said(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "BATCH", 2)
    found = [await _image(db, days=40) for _ in range(5)]
    assert sum(one.rows for one in await purge.details(db, days=30, most=7)) == 7
    assert sum([await _left(db, one) for one in found]) == 25 - 7
    assert sum(one.rows for one in await purge.details(db, days=30, most=None)) == 20 - 7
    assert [one.rows for one in await purge.images(db, days=30, most=3)] == [3]
