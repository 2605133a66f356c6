"""What nodes have cached, as the database tells it."""

import asyncio
import datetime as dt
import uuid

from xloud_image.db import cached_images, images, sql
from xloud_image.db.cached_images import Row
from xloud_image.db.engine import Database
from xloud_image.model import Image, utcnow

ONE, TWO = "http://node1:9292", "http://node2:9292"
NOW = dt.datetime(2030, 1, 2, 3, 4, 5)
ROW = Row(2**40, 0, NOW, NOW)


async def put(db: Database, url: str, found: dict[str, Row]) -> None:
    await db.write(lambda conn: cached_images.store(conn, url, found))


async def nodes(db: Database, image: str) -> list[str]:
    return await db.read(lambda conn: cached_images.nodes(conn, image))


async def test_nodes_tell_what_they_have(db: Database) -> None:
    ids = [str(uuid.uuid4()) for _ in range(120)]
    await put(db, ONE, dict.fromkeys(ids, ROW))
    await put(db, TWO, {ids[0]: ROW})
    assert await nodes(db, ids[0]) == [ONE, TWO]
    assert await nodes(db, ids[1]) == [ONE]
    later = Row(2**40, 3_000_000_000, NOW + dt.timedelta(hours=1), NOW)
    await put(db, ONE, {ids[0]: later})
    await put(db, ONE, {ids[0]: later})
    assert await nodes(db, ids[1]) == []
    asked = f"SELECT size, hits, last_accessed FROM cached_images WHERE image_id = '{ids[0]}' ORDER BY hits"
    rows = await db.read(lambda conn: sql.fetch(conn, asked))
    assert [(row[0], row[1], sql.instant(row[2])) for row in rows] == [
        (2**40, 0, NOW),
        (2**40, 2**31 - 1, NOW + dt.timedelta(hours=1)),
    ]
    await put(db, ONE, {})
    assert await nodes(db, ids[0]) == [TWO]


async def test_two_that_begin_at_once(db: Database) -> None:
    """As a command and the service may."""
    image = str(uuid.uuid4())
    done = await asyncio.gather(*(put(db, ONE, {image: ROW}) for _ in range(2)), return_exceptions=True)
    assert None in done
    assert await nodes(db, image) == [ONE]


async def test_which_images_have_data(db: Database) -> None:
    made = []
    for status in ("active", "deactivated", "queued", "active"):
        image = Image(id=str(uuid.uuid4()), status=status, owner="p", created_at=utcnow(), updated_at=utcnow())
        made.append((await db.write(lambda conn, image=image: images.create(conn, image))).id)  # type: ignore[misc]
    await db.write(lambda conn: images.hide(conn, made[3], lambda image: None, project="p"))
    unknown = [str(uuid.uuid4()) for _ in range(600)]
    found = await db.read(lambda conn: cached_images.with_data(conn, [*unknown, *made]))
    assert found == set(made[:2])
    assert await db.read(lambda conn: cached_images.with_data(conn, [])) == set()
