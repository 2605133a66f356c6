"""One image in the database: stored, read, changed, hidden, brought back."""

import datetime as dt
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import images, members, sql, tables
from xloud_image.db.engine import Database
from xloud_image.errors import BadRequest, Conflict, Duplicate, Forbidden, NotFound
from xloud_image.model import Image, Location


def an_image(**values: object) -> Image:
    return Image(id=str(uuid.uuid4()), **values)  # type: ignore[arg-type]


FULL = {
    "name": "näme",
    "owner": "p1",
    "status": "active",
    "visibility": "community",
    "protected": True,
    "os_hidden": True,
    "container_format": "bare",
    "disk_format": "qcow2",
    "min_disk": 2**31 - 1,
    "min_ram": 5,
    "size": 2**62,
    "virtual_size": 2**62 + 1,
    "checksum": "c" * 32,
    "os_hash_algo": "sha512",
    "os_hash_value": "d" * 128,
    "properties": {"a": "1", "empty": "", "none": None, "long": "x" * 5000},
    "tags": ("one", "two"),
    "locations": (Location("file:///a", {"store": "s"}), Location("rbd://b", {"store": "t", "more": {"x": [1]}})),
}


async def get(db: Database, image_id: str, **how: object) -> Image | None:
    return await db.read(lambda conn: images.get(conn, image_id, **how))  # type: ignore[arg-type]


async def test_what_is_stored_is_read(db: Database) -> None:
    image = an_image(**FULL)
    stored = await db.write(lambda conn: images.create(conn, image))
    assert stored == await get(db, image.id)
    assert [location.id for location in stored.locations] == sorted(location.id or 0 for location in stored.locations)
    same = stored.replace(
        created_at=image.created_at,
        updated_at=image.updated_at,
        locations=tuple(Location(x.url, x.metadata) for x in stored.locations),
    )
    assert same == image
    assert abs(stored.created_at - image.created_at) < dt.timedelta(seconds=1)
    assert stored.updated_at == stored.created_at


async def test_microseconds_are_kept_where_the_column_can(db: Database, engine: str) -> None:
    image = an_image(created_at=dt.datetime(2031, 2, 3, 4, 5, 6, 999999))
    stored = await db.write(lambda conn: images.create(conn, image))
    # MySQL would round it up by itself
    assert stored.created_at == image.created_at.replace(microsecond=0 if engine == "mariadb" else 999999)
    assert await get(db, image.id) == stored


async def test_get_is_one_statement(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    image = an_image(**FULL)
    await db.write(lambda conn: images.create(conn, image))
    asked = []
    real = sql.fetch

    async def counting(conn: AsyncConnection, text: str, values: tuple[object, ...] = ()) -> sql.Rows:
        asked.append(text)
        return await real(conn, text, values)

    monkeypatch.setattr(sql, "fetch", counting)
    assert await get(db, image.id, project="p1") is not None
    assert len(asked) == 1


async def test_an_unknown_id_is_none(db: Database) -> None:
    assert await get(db, str(uuid.uuid4())) is None
    assert await get(db, "x" * 400) is None


async def test_membership_is_that_of_the_project(db: Database) -> None:
    image = an_image(owner="p1")
    await db.write(lambda conn: images.create(conn, image))
    await db.write(lambda conn: members.add(conn, image.id, "p2"))
    found = [await get(db, image.id, project=project) for project in ("p1", "p2", None)]
    assert [one.membership for one in found if one] == [None, "pending", None]


async def test_an_id_is_never_used_twice(db: Database) -> None:
    image = an_image(name="first")
    await db.write(lambda conn: images.create(conn, image))
    with pytest.raises(Duplicate):
        await db.write(lambda conn: images.create(conn, image.replace(name="second")))
    await db.write(lambda conn: images.hide(conn, image.id))
    await db.write(lambda conn: images.finish_delete(conn, image.id))
    with pytest.raises(Duplicate):
        await db.write(lambda conn: images.create(conn, image.replace(name="third")))
    assert await get(db, image.id) is None


async def test_change_stores_the_difference_and_nothing_else(db: Database) -> None:
    image = an_image(**FULL)
    old = await db.write(lambda conn: images.create(conn, image))
    wanted = old.replace(
        name=None,
        size=None,
        status="deactivated",
        properties={"a": "2", "empty": "", "new": "n"},
        tags=("two", "three"),
        locations=(old.locations[1], Location("s3://c", {"store": "u"})),
    )
    new = await db.write(lambda conn: images.change(conn, image.id, lambda _: wanted))
    assert new == await get(db, image.id)
    assert new.properties == wanted.properties
    assert new.tags == ("three", "two")
    assert new.locations[0] == old.locations[1]
    assert (new.locations[1].url, new.locations[1].store) == ("s3://c", "u")
    assert new.updated_at >= old.updated_at
    assert new.replace(
        updated_at=old.updated_at, properties=old.properties, tags=old.tags, locations=old.locations
    ) == old.replace(name=None, size=None, status="deactivated")


async def test_no_difference_no_change(db: Database) -> None:
    image = an_image(**FULL, created_at=dt.datetime(2020, 1, 1))
    old = await db.write(lambda conn: images.create(conn, image))
    assert await db.write(lambda conn: images.change(conn, image.id, lambda found: found)) == old
    found = await get(db, image.id)
    assert found is not None
    assert found.updated_at == dt.datetime(2020, 1, 1)


async def test_a_removed_property_comes_back_in_its_old_row(db: Database) -> None:
    image = an_image(properties={"k": "1", "stays": "s"})
    await db.write(lambda conn: images.create(conn, image))
    for properties in ({"stays": "s"}, {"stays": "s", "k": "2"}, {}, {"k": None}):
        changed = await db.write(
            lambda conn, p=properties: images.change(conn, image.id, lambda found: found.replace(properties=p))  # type: ignore[misc]
        )
        assert changed.properties == properties
    count = sa.select(sa.func.count()).select_from(tables.image_properties)
    count = count.where(tables.image_properties.c.image_id == image.id)
    assert await db.read(lambda conn: conn.scalar(count)) == 2


async def test_names_that_differ_only_in_case(db: Database, engine: str) -> None:
    image = an_image(properties={"k": "1"})
    await db.write(lambda conn: images.create(conn, image))

    async def put(properties: dict[str, str]) -> Image:
        return await db.write(
            lambda conn: images.change(conn, image.id, lambda found: found.replace(properties=properties))
        )

    if engine == "mariadb":
        # its unique key does not tell them apart; the old value must not be lost silently
        with pytest.raises(Conflict, match="case"):
            await put({"k": "1", "K": "2"})
        found = await get(db, image.id)
        assert found is not None
        assert found.properties == {"k": "1"}
    else:
        assert (await put({"k": "1", "K": "2"})).properties == {"k": "1", "K": "2"}
    # one instead of the other is fine everywhere
    assert (await put({"K": "3"})).properties == {"K": "3"}


async def test_locations_change_in_place_and_keep_their_order(db: Database) -> None:
    image = an_image(**FULL)
    old = await db.write(lambda conn: images.create(conn, image))
    first = Location("file:///moved", {"store": "z"}, "pending_delete", old.locations[0].id)
    new = await db.write(
        lambda conn: images.change(conn, image.id, lambda found: found.replace(locations=(found.locations[1], first)))
    )
    assert new.locations == (first, old.locations[1])


async def test_a_step_that_refuses_changes_nothing(db: Database) -> None:
    image = an_image(name="a")
    await db.write(lambda conn: images.create(conn, image))

    def refuse(_: Image) -> Image:
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await db.write(lambda conn: images.change(conn, image.id, refuse))
    with pytest.raises(Forbidden):
        await db.write(lambda conn: images.hide(conn, image.id, refuse))
    with pytest.raises(NotFound):
        await db.write(lambda conn: images.change(conn, str(uuid.uuid4()), lambda found: found))
    found = await get(db, image.id)
    assert found is not None
    assert found.name == "a"


async def test_hide_revive_and_finish(db: Database) -> None:
    image = an_image(**FULL)
    stored = await db.write(lambda conn: images.create(conn, image))
    await db.write(lambda conn: members.add(conn, image.id, "p2"))
    assert await db.write(lambda conn: images.hide(conn, image.id)) == stored
    assert await get(db, image.id) is None
    with pytest.raises(NotFound):
        await db.write(lambda conn: images.hide(conn, image.id))
    hidden = await get(db, image.id, hidden=True)
    assert hidden is not None
    assert (hidden.status, hidden.locations) == ("deleted", stored.locations)
    await db.write(lambda conn: images.revive(conn, image.id, "active"))
    with pytest.raises(NotFound):
        await db.write(lambda conn: images.revive(conn, image.id, "active"))
    back = await get(db, image.id)
    assert back is not None
    assert back.replace(updated_at=stored.updated_at) == stored
    await db.write(lambda conn: images.hide(conn, image.id))
    for _ in range(2):
        await db.write(lambda conn: images.finish_delete(conn, image.id))
    empty = await get(db, image.id, hidden=True, project="p2")
    assert empty is not None
    assert (empty.properties, empty.tags, empty.locations, empty.membership) == ({}, (), (), None)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "smile 😀"},
        {"properties": {"k": "😀"}},
        {"properties": {"😀": "v"}},
        {"tags": ("😀",)},
        {"name": "a\0b"},
        {"properties": {"k": "a\0b"}},
        {"name": "half \ud83d"},
        {"tags": ("half \ud83d",)},
        {"name": "x" * 256},
        {"min_ram": 2**40},
        {"size": 2**70},
    ],
    ids=repr,
)
async def test_what_a_column_cannot_hold_is_a_bad_request_or_is_kept(db: Database, values: dict[str, object]) -> None:
    image = an_image()
    await db.write(lambda conn: images.create(conn, image))
    said = ""
    try:
        await db.write(lambda conn: images.change(conn, image.id, lambda found: found.replace(**values)))
    except BadRequest as error:
        said = error.message
    assert not said or "outside of what the database" in said or "the database holds" in said
    expected = {} if said else values
    found = await get(db, image.id)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected
    if not expected:
        assert (found.name, found.properties, found.tags) == (None, {}, ())


async def test_which_texts_each_engine_refuses(db: Database, engine: str) -> None:
    refused = []
    for text in ("smile 😀", "a\0b", "half \ud83d"):
        image = an_image(name=text)
        try:
            await db.write(lambda conn, image=image: images.create(conn, image))  # type: ignore[misc]
        except BadRequest:
            refused.append(text)
    assert (
        refused
        == {
            "sqlite": ["half \ud83d"],
            "postgresql": ["a\0b", "half \ud83d"],
            "mariadb": ["smile 😀", "half \ud83d"],
        }[engine]
    )
