"""Finding locations by URL, on each engine: exactly, by the index, whatever their length."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.db.test_plans import postgresql_rows
from xloud_image.db import claims, images, locations, sql, tables
from xloud_image.db.engine import Database
from xloud_image.model import Claim, Image, Location

LONG = "http://h/" + "long/" * 2000  # 10 kB: more than a B-tree of PostgreSQL takes
URLS = ("rbd://fsid/pool/one/snap", "file:///images/One", "http://h/%41?a='b'&c=\\", LONG)


async def new(db: Database, *urls: str) -> Image:
    image = Image(id=str(uuid.uuid4()), status="active", locations=tuple(Location(url) for url in urls))
    return await db.write(lambda conn: images.create(conn, image))


async def named(db: Database, url: str) -> bool:
    return bool(await db.read(lambda conn: locations.holders(conn, [url])))


@pytest.mark.parametrize("url", URLS, ids=lambda url: url[:20])
async def test_a_url_is_named_as_long_as_an_image_has_it(db: Database, url: str) -> None:
    assert not await named(db, url)
    first, second = await new(db, url, "file:///elsewhere"), await new(db, url)
    assert await named(db, url)
    await db.write(lambda conn: images.hide(conn, first.id))
    assert await named(db, url), "the other one"
    removed = second.locations[0]
    await db.write(lambda conn: images.change(conn, second.id, lambda now: now.replace(locations=())))
    assert not await named(db, url), "the first is deleted, though its rows are there until its bytes are gone"
    await db.write(lambda conn: images.revive(conn, first.id, "active"))
    assert await named(db, url)
    await db.write(lambda conn: images.hide(conn, first.id))
    await db.write(lambda conn: images.finish_delete(conn, first.id))
    assert not await named(db, url)
    assert removed.url == url


@pytest.mark.parametrize("other", ["file:///images/one", "file:///images/One ", "file:///images/Öne", "file:///images"])
async def test_only_the_very_same_url_counts(db: Database, other: str) -> None:
    await new(db, "file:///images/One")
    assert not await named(db, other)
    assert await named(db, "file:///images/One")


async def test_a_long_url_counts_to_its_end(db: Database) -> None:
    await new(db, LONG)
    assert not await named(db, f"{LONG[:-1]}x")


async def test_images_by_their_ids_beside_urls(db: Database) -> None:
    first, second, bare = await new(db, URLS[0], URLS[1]), await new(db, URLS[0]), await new(db)
    found = await db.read(lambda conn: locations.holders(conn, [URLS[0]], [first.id, bare.id, str(uuid.uuid4())]))
    assert {(one.image_id, one.location.url if one.location else None) for one in found} == {
        (first.id, URLS[0]), (first.id, URLS[1]), (second.id, URLS[0]), (bare.id, None)
    }  # fmt: skip
    assert len(found) == 4
    await db.write(lambda conn: images.hide(conn, first.id))
    found = await db.read(lambda conn: locations.holders(conn, [URLS[1]], [first.id]))
    assert found == []


async def test_bytes_on_their_way_out(db: Database) -> None:
    url = URLS[0]
    image = await new(db, url)

    async def leaving() -> bool:
        found = await db.read(lambda conn: locations.leaving(conn, ["file:///other", url]))
        by_id = await db.read(lambda conn: locations.leaving(conn, ["file:///other"], [image.id]))
        assert found == by_id
        return [(location.url, location.store) for location in found] == [(url, "s")]

    assert not await leaving()
    for kind, expected in (("hash", False), ("delete", True)):
        claim = Claim(id=str(uuid.uuid4()), kind=kind, image_id=image.id, store="s", url=url)
        await db.write(lambda conn, claim=claim: claims.begin(conn, claim, lease=5))  # type: ignore[misc]
        assert await leaving() is expected
    await db.write(lambda conn: claims.end(conn, claim.id))
    assert not await leaving()


async def test_the_index_finds_it(db: Database, engine: str) -> None:
    """Among thousands of URLs that begin alike."""
    image = await new(db)
    stamp = {"created_at": dt.datetime(2026, 1, 1), "deleted": False, "status": "active", "meta_data": "{}"}
    urls = [f"rbd://4f5bd9a0-0000-0000-0000-000000000000/images/{uuid.UUID(int=n)}/snap" for n in range(3000)]

    async def fill(conn: AsyncConnection) -> None:
        await conn.execute(
            tables.image_locations.insert(), [{"image_id": image.id, "value": url, **stamp} for url in urls]
        )

    await db.write(fill)
    if engine != "sqlite":
        words = "ANALYZE image_locations" if engine == "postgresql" else "ANALYZE TABLE image_locations"
        await db.read(lambda conn: sql.fetch(conn, words))
    assert await named(db, urls[1234])
    assert await _rows_read(db, engine, urls[1234]) <= 6


async def _rows_read(db: Database, engine: str, url: str) -> int:
    if engine == "mariadb":

        async def counted(conn: AsyncConnection) -> int:
            await sql.fetch(conn, "FLUSH STATUS")
            await locations.holders(conn, [url])
            found = await sql.fetch(conn, "SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in found)

        return await db.read(counted)
    seen = 0
    real = sql.fetch

    async def explained(conn: AsyncConnection, text: str, values: Any = ()) -> sql.Rows:
        nonlocal seen
        if engine == "postgresql":
            [[plan]] = await real(conn, f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", values)
            seen += postgresql_rows(plan[0]["Plan"])
        else:
            plans = [words for *_, words in await real(conn, f"EXPLAIN QUERY PLAN {text}", values)]
            assert all(words.startswith("SEARCH") for words in plans), plans
            assert "xloud_ix_locations_value" in plans[0]
        return await real(conn, text, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql, "fetch", explained)
        await db.read(lambda conn: locations.holders(conn, [url]))
    return seen
