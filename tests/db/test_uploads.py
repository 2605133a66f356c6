"""Uploads in several requests on each of the databases: whose turn it is, that late parts change nothing, the end."""

import asyncio
import dataclasses
import uuid

import pytest

from xloud_image.db import claims, sql, uploads
from xloud_image.db.engine import Database
from xloud_image.errors import Duplicate
from xloud_image.model import Claim, Part, Upload

HOUR = 3600


@pytest.fixture(autouse=True)
async def _no_others(db: Database) -> None:
    for table in ("xloud_uploads", "xloud_upload_parts"):
        await db.write(lambda conn, table=table: sql.fetch(conn, f"DELETE FROM {table}"))  # type: ignore[misc]


async def _added(db: Database, **fields: object) -> Upload:
    made = dataclasses.replace(Upload(str(uuid.uuid4()), str(uuid.uuid4()), "file", "p"), **fields)  # type: ignore[arg-type]
    await db.write(lambda conn: uploads.add(conn, made, seconds=HOUR))
    return await _now(db, made)


async def _now(db: Database, upload: Upload) -> Upload:
    found = await db.read(lambda conn: uploads.get(conn, upload.id))
    assert found is not None
    return found


def _part(begins: int, size: int = 10) -> Part:
    return Part(begins, size, "staging", f"file:///ü/{begins}")


async def test_it_is_there_as_it_was_given(db: Database) -> None:
    given = {"size": 1 << 45, "digest": "sha512:" + "f" * 128, "store": "ü", "owner": None, "holder": "me"}
    made = await _added(db, **given)
    assert {name: getattr(made, name) for name in given} == given
    assert (made.state, made.received, made.parts, made.epoch) == ("open", 0, 0, 0)
    assert HOUR - 60 < made.lives <= HOUR
    with pytest.raises(Duplicate):
        await _added(db, image_id=made.image_id)
    assert await db.read(lambda conn: uploads.list_all(conn, made.image_id)) == [await _now(db, made)]


async def test_of_many_who_want_it_one_goes_on(db: Database, other_db: Database) -> None:
    made = await _added(db)
    wanted = [
        one.write(lambda conn, number=number: uploads.take(conn, made, f"w{number}", size=7))  # type: ignore[misc]
        for number, one in enumerate([db, other_db] * 4)
    ]
    (got,) = [one for one in await asyncio.gather(*wanted) if one is not None]
    assert (got.epoch, got.size) == (1, 7)
    assert (await _now(db, made)).holder == got.holder


async def test_who_was_overtaken_changes_nothing(db: Database) -> None:
    made = await _added(db)
    first = await db.write(lambda conn: uploads.take(conn, made, "a"))
    assert first is not None
    assert await db.write(lambda conn: uploads.append(conn, first, _part(0)))
    assert not await db.write(lambda conn: uploads.append(conn, first, _part(0)))
    seen = await _now(db, made)
    second = await db.write(lambda conn: uploads.take(conn, seen, None))
    assert second is not None
    assert not await db.write(lambda conn: uploads.append(conn, first, _part(10)))
    assert not await db.write(lambda conn: uploads.finish(conn, first))
    await db.write(lambda conn: uploads.leave(conn, first))
    assert await db.write(lambda conn: uploads.append(conn, second, _part(10, 5)))
    assert await db.read(lambda conn: uploads.parts(conn, made.id)) == [_part(0), _part(10, 5)]
    assert await db.read(uploads.parts_by_store) == {"staging": 2}
    assert ((await _now(db, made)).received, (await _now(db, made)).parts) == (15, 2)


async def test_its_ways_to_the_end(db: Database) -> None:
    made = await _added(db, kind="stage")
    assert not await db.write(lambda conn: uploads.close(conn, made.id, "staged"))
    assert await db.write(lambda conn: uploads.finish(conn, made))
    assert (await _now(db, made)).size == 0
    assert not await db.write(lambda conn: uploads.append(conn, made, _part(0)))
    assert await db.write(lambda conn: uploads.reopen(conn, made.image_id))  # it could not be finished
    again = await _now(db, made)
    assert again.state == "open"
    assert await db.write(lambda conn: uploads.finish(conn, again))
    assert await db.write(lambda conn: uploads.close(conn, made.id, "staged"))
    assert await db.write(lambda conn: uploads.reopen(conn, made.image_id))  # its data is there, and stays as it is
    assert (await _now(db, made)).state == "staged"
    assert await db.read(lambda conn: uploads.count(conn, "p")) == 1
    other = await _added(db, image_id=made.image_id)  # the slot is free
    await db.write(lambda conn: uploads.used(conn, made.image_id))
    assert ((await _now(db, made)).state, (await _now(db, other)).state) == ("over", "open")
    assert await db.read(lambda conn: uploads.count(conn, "p")) == 1
    assert not await db.write(lambda conn: uploads.remove(conn, dataclasses.replace(other, state="over")))
    assert await db.write(lambda conn: uploads.remove(conn, other))


async def test_what_has_expired(db: Database) -> None:
    made = [await _added(db) for _ in range(3)]
    assert await db.read(uploads.expired) == []
    await db.write(lambda conn: uploads.finish(conn, made[2]))
    later = "UPDATE xloud_uploads SET expires_at = begun_at"
    await db.write(lambda conn: sql.fetch(conn, later))
    found = await db.read(uploads.expired)
    assert {upload.id for upload in found} == {made[0].id, made[1].id}
    assert {upload.lives for upload in found} == {0}


async def test_thousands_of_parts_are_claimed_at_once(db: Database) -> None:
    made = await _added(db)
    several = [
        Claim(str(uuid.uuid4()), "delete", made.image_id, "staging", url=f"file:///x/{number}", holder="me")
        for number in range(4000)
    ]
    await db.write(lambda conn: claims.begin_all(conn, several, lease=60))
    await db.write(lambda conn: claims.begin_all(conn, [], lease=60))
    found = await db.read(lambda conn: claims.list_all(conn, image_id=made.image_id, limit=5000))
    assert {claim.url for claim in found} == {claim.url for claim in several}
    assert {claim.holder for claim in found} == {"me"}
    assert all(claim.lease_until is not None for claim in found)
