"""Metadata definitions in the database: as a Glance writes and reads them, on each engine, and by several at once."""

import asyncio
import datetime as dt
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import metadef_parts, metadefs, sql, tables
from xloud_image.db.engine import Database
from xloud_image.errors import Duplicate, NoSuchNamespace, NotFound, QuotaExceeded
from xloud_image.model import Association, MetadefObject, MetadefTag, Namespace

TEXT = {"title": "Ein Text über 🌍", "type": "string"}
WHOLE = Namespace(
    "OS::Test",
    "p1",
    display_name="Test",
    visibility="public",
    protected=True,
    associations=(Association("OS::Glance::Image", "hw_"), Association("OS::Nova::Flavor", None, "x")),
    properties={"a": TEXT, "b": {**TEXT, "enum": ["1"]}},
    objects=(MetadefObject("o", "An object", ("a", "b"), {"a": TEXT}), MetadefObject("p")),
    tags=(MetadefTag("t"),),
)


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> None:
    async def work(conn: AsyncConnection) -> None:
        for table in reversed(tables.glance.sorted_tables):
            if table.name.startswith("metadef_"):
                await conn.execute(table.delete())

    await db.write(work)


async def get(db: Database, name: str) -> Namespace:
    async def read(conn: AsyncConnection) -> Namespace:
        found = await metadefs.get(conn, name)
        assert found is not None
        return await metadefs.whole(conn, found)

    return await db.read(read)


async def find(db: Database, **how: Any) -> list[Namespace]:
    usual: dict[str, Any] = {
        "everybodys": True, "project": None, "visibility": None, "resource_types": None, "sort_key": "created_at",
        "direction": "desc", "marker": None, "limit": 100,
    }  # fmt: skip
    return await db.read(lambda conn: metadefs.find(conn, **{**usual, **how}))


def plain(one: Namespace) -> Any:
    """Without numbers and times."""
    return (
        one.name, one.owner, one.display_name, one.visibility, one.protected, dict(one.properties),
        [(each.name, each.prefix, each.properties_target) for each in one.associations],
        [(each.name, each.description, each.required, dict(each.properties)) for each in one.objects],
        [each.name for each in one.tags],
    )  # fmt: skip


async def test_the_life_of_a_namespace(db: Database) -> None:
    stored = await db.write(lambda conn: metadefs.add(conn, WHOLE))
    assert plain(stored) == plain(WHOLE)
    assert await get(db, "OS::Test") == stored
    with pytest.raises(Duplicate):
        await db.write(lambda conn: metadefs.add(conn, WHOLE))
    [listed] = await find(db, resource_types=["OS::Nova::Flavor", "x"])
    assert listed.associations == stored.associations

    async def change(conn: AsyncConnection) -> None:
        there = await metadefs.locked(conn, "OS::Test")
        await metadef_parts.change_held(conn, there, "properties", "a", "c", {"title": "C", "type": "integer"})
        await metadef_parts.change_held(conn, there, "objects", "p", "q", MetadefObject("q", properties={"x": TEXT}))
        await metadef_parts.change_held(conn, there, "tags", "t", "u", None)
        await metadef_parts.remove_association(conn, there, "OS::Nova::Flavor")
        await metadef_parts.remove_held(conn, there, "properties", "b")

    await db.write(change)
    found = await get(db, "OS::Test")
    assert list(found.properties) == ["c"]
    assert [one.name for one in found.objects] == ["o", "q"]
    assert [one.name for one in found.tags] == ["u"]
    assert [one.name for one in found.associations] == ["OS::Glance::Image"]

    async def remove(conn: AsyncConnection) -> None:
        await metadefs.remove(conn, await metadefs.locked(conn, "OS::Test"))

    await db.write(remove)
    with pytest.raises(NoSuchNamespace):
        await db.write(remove)
    assert [one.name for one in await db.read(metadef_parts.resource_types)] == [
        "OS::Glance::Image",
        "OS::Nova::Flavor",
    ]


async def test_rows_of_a_glance(db: Database) -> None:
    """With nulls where its files say nothing, and the name within the definition, as its API writes it."""
    then = dt.datetime(2020, 1, 1)

    async def write(conn: AsyncConnection) -> None:
        row: dict[str, Any] = {"namespace": "Old", "owner": "admin", "created_at": then}
        await sql.insert(conn, "metadef_namespaces", [row])
        number = (await metadefs.locked(conn, "Old")).id
        of = {"namespace_id": number, "created_at": then}
        schema = '{"name": "a", "title": "A", "type": "string"}'
        await sql.insert(conn, "metadef_properties", [{**of, "name": "a", "json_schema": schema}])
        await sql.insert(conn, "metadef_objects", [{**of, "name": "o", "json_schema": "null"}])
        await sql.insert(conn, "metadef_objects", [{**of, "name": "p", "json_schema": "{}", "required": "a,b"}])
        await sql.insert(conn, "metadef_tags", [{**of, "name": "t"}])

    await db.write(write)
    found = await get(db, "Old")
    assert (found.visibility, found.protected, found.created_at, found.updated_at) == ("private", False, then, None)
    assert found.properties == {"a": {"name": "a", "title": "A", "type": "string"}}, "as it was written"
    assert [(one.name, one.required, one.properties) for one in found.objects] == [("o", (), {}), ("p", ("a", "b"), {})]
    for key in metadefs.SORT_KEYS:
        assert [one.name for one in await find(db, sort_key=key)] == ["Old"]
        assert await find(db, sort_key=key, marker=found) == []
    assert await find(db, everybodys=False, project="p2") == []
    assert len(await find(db, everybodys=False, project="admin", visibility="private")) == 1


async def test_what_a_glance_reads(db: Database) -> None:
    """JSON in ASCII, names of required properties with commas, true and false as the engine has them."""
    await db.write(lambda conn: metadefs.add(conn, WHOLE))

    async def read(conn: AsyncConnection) -> list[Any]:
        words = ("SELECT json_schema, required FROM metadef_objects WHERE name = 'o'",
                 "SELECT json_schema, 0 FROM metadef_properties WHERE name = 'a'",
                 "SELECT protected, updated_at FROM metadef_namespaces")  # fmt: skip
        return [tuple((await sql.fetch(conn, one))[0]) for one in words]

    (schema, required), (definition, _), (protected, updated) = await db.read(read)
    assert required == "a,b"
    assert schema.isascii()
    assert definition.isascii()
    assert protected in (True, 1)
    assert updated is not None


async def test_names_are_compared_to_the_letter(db: Database) -> None:
    await db.write(lambda conn: metadefs.add(conn, WHOLE))
    for other in ("os::test", "OS::Test ", "ÖS::Test"):
        assert await db.read(lambda conn, other=other: metadefs.get(conn, other)) is None
        with pytest.raises(NoSuchNamespace):
            await db.write(lambda conn, other=other: metadefs.locked(conn, other))
    there = await get(db, "OS::Test")
    with pytest.raises(NotFound):
        await db.write(lambda conn: metadef_parts.remove_held(conn, there, "tags", "T"))
    with pytest.raises(NotFound):
        await db.write(lambda conn: metadef_parts.remove_association(conn, there, "os::glance::image"))


async def test_several_at_once(db: Database, other_db: Database) -> None:
    """A name is given once; a type of resources that all of them make is one; the room is counted under the lock."""
    types = tuple(Association(f"OS::New::{number}") for number in range(5))

    async def add(database: Database, name: str) -> str | None:
        new = Namespace(name, "p1", associations=types)
        try:
            return (await database.write(lambda conn: metadefs.add(conn, new))).name
        except Duplicate:
            return None

    names = [f"n{number % 6}" for number in range(12)]
    done = await asyncio.gather(*[add((db, other_db)[number % 2], name) for number, name in enumerate(names)])
    assert sorted(filter(None, done)) == sorted(set(names))
    assert [one.name for one in await db.read(metadef_parts.resource_types)] == [one.name for one in types]

    async def more(database: Database, first: int) -> bool:
        tags = tuple(MetadefTag(str(first + number)) for number in range(300))

        async def work(conn: AsyncConnection) -> None:
            await metadef_parts.add_held(conn, await metadefs.locked(conn, "n0"), Namespace("", "", tags=tags))

        try:
            await database.write(work)
        except QuotaExceeded:
            return False
        return True

    taken = await asyncio.gather(*[more((db, other_db)[number % 2], 1000 * number) for number in range(6)])
    assert taken.count(True) == metadef_parts.MOST // 300
    assert len((await get(db, "n0")).tags) == 300 * taken.count(True)


async def test_a_list_is_two_statements(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        one = Namespace(f"n{number}", "p1", associations=(Association("OS::Glance::Image"),), properties={"a": TEXT})
        await db.write(lambda conn, one=one: metadefs.add(conn, one))
    asked: list[str] = []
    usual = sql.fetch

    async def fetch(conn: AsyncConnection, words: str, values: Any = ()) -> Any:
        asked.append(words)
        return await usual(conn, words, values)

    monkeypatch.setattr(sql, "fetch", fetch)
    assert len(await find(db)) == 5
    assert len(asked) == 2
    await get(db, "n0")
    assert len(asked) == 4
