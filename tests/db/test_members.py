"""Memberships in the database."""

import uuid

import pytest

from xloud_image.db import images, members
from xloud_image.db.engine import Database
from xloud_image.errors import Duplicate, NotFound
from xloud_image.model import Image


@pytest.fixture
async def image(db: Database) -> Image:
    return await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), owner="p1")))


async def test_add_answer_list_remove(db: Database, image: Image) -> None:
    added = await db.write(lambda conn: members.add(conn, image.id, "p2"))
    assert (added.image_id, added.member, added.status) == (image.id, "p2", "pending")
    assert await db.read(lambda conn: members.get(conn, image.id, "p2")) == added
    await db.write(lambda conn: members.add(conn, image.id, "p3"))
    answered = await db.write(lambda conn: members.set_status(conn, image.id, "p2", "accepted"))
    assert answered.status == "accepted"
    listed = await db.read(lambda conn: members.list_all(conn, image.id))
    assert [(one.member, one.status) for one in listed] == [("p2", "accepted"), ("p3", "pending")]
    await db.write(lambda conn: members.remove(conn, image.id, "p2"))
    assert await db.read(lambda conn: members.get(conn, image.id, "p2")) is None
    for step in (
        lambda conn: members.remove(conn, image.id, "p2"),
        lambda conn: members.set_status(conn, image.id, "p2", "accepted"),
        lambda conn: members.add(conn, str(uuid.uuid4()), "p2"),
    ):
        with pytest.raises(NotFound):
            await db.write(step)


async def test_twice_is_a_duplicate(db: Database, image: Image) -> None:
    await db.write(lambda conn: members.add(conn, image.id, "p2"))
    with pytest.raises(Duplicate):
        await db.write(lambda conn: members.add(conn, image.id, "p2"))


async def test_in_and_out_many_times_within_a_second(db: Database, image: Image) -> None:
    # the unique key has the time of the removal in it, in whole seconds on MariaDB
    for _ in range(5):
        await db.write(lambda conn: members.add(conn, image.id, "p2"))
        await db.write(lambda conn: members.remove(conn, image.id, "p2"))
    assert await db.read(lambda conn: members.list_all(conn, image.id)) == []
