"""How the engines find a page: by our indexes, reading no more rows for a late page or a large database.

Rows that an engine reads are counted by the engine itself: EXPLAIN ANALYZE, or the handler counters of MariaDB. SQLite
tells only its plan, in which a walk over a whole table has a word of its own.
"""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.db.conftest import MakeEmpty
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import listing, schema, sql, tables
from xloud_image.db.engine import Database
from xloud_image.db.query import Query

IMAGES = 4000
BEGUN = dt.datetime(2026, 1, 1)
VISIBILITIES = ("public", "private", "shared", "community")

_filled: dict[str, DatabaseSettings] = {}


@pytest.fixture
async def full(engine: str, empty: MakeEmpty) -> AsyncIterator[Database]:
    """A database with IMAGES images; statistics as the engine gathers them by itself sooner or later."""
    there = engine in _filled
    if not there:
        _filled[engine] = empty()
        await schema.upgrade(_filled[engine])
    db = Database(_filled[engine])
    await db.start()
    if not there:
        await fill(db, engine)
    yield db
    await db.aclose()


async def fill(db: Database, engine: str) -> None:
    async def work(conn: AsyncConnection) -> None:
        ids = [str(uuid.UUID(int=n * 2**64 + n)) for n in range(IMAGES)]
        stamp = {"created_at": BEGUN, "deleted": False}
        await conn.execute(
            tables.images.insert(),
            [
                {
                    "id": ids[n],
                    "name": f"name {n // 4}",
                    "owner": f"p{n % 5}",
                    "visibility": VISIBILITIES[n // 5 % 4],
                    "status": "queued" if n % 400 == 0 else "active",
                    "deleted": False,
                    "os_hidden": False,
                    "protected": False,
                    "min_disk": 0,
                    "min_ram": 0,
                    "os_hash_value": f"hash {n}",
                    "created_at": BEGUN + dt.timedelta(seconds=n // 3),
                    "updated_at": BEGUN + dt.timedelta(seconds=n),
                }
                for n in range(IMAGES)
            ],
        )
        for name, value in (("rare", "v{}"), ("common", "linux")):
            await conn.execute(
                tables.image_properties.insert(),
                [{"image_id": one, "name": name, "value": value.format(n // 5), **stamp} for n, one in enumerate(ids)],
            )
        for tag in ("t{}", "common"):
            await conn.execute(
                tables.image_tags.insert(),
                [{"image_id": one, "value": tag.format(n // 5), **stamp} for n, one in enumerate(ids)],
            )
        member = {"status": "accepted", "can_share": False, **stamp}
        await conn.execute(
            tables.image_members.insert(),
            [
                {"image_id": one, "member": "p1", **member}
                for n, one in enumerate(ids)
                if VISIBILITIES[n // 5 % 4] == "shared" and n % 100 == 12
            ]
            # enough of others that reading them all is no way
            + [{"image_id": one, "member": f"other {n % 3}", **member} for n in range(3) for one in ids],
        )

    await db.write(work)
    for table in ("images", "image_properties", "image_tags", "image_members"):
        if engine != "sqlite":
            words = f"ANALYZE {table}" if engine == "postgresql" else f"ANALYZE TABLE {table}"
            await db.read(lambda conn, words=words: sql.fetch(conn, words))  # type: ignore[misc]


async def late(db: Database, asked: Query, pages: int = 20) -> Query:
    """The same question for a late page."""
    marker = asked.marker
    for _ in range(pages):
        found = await db.read(
            lambda conn: listing.find(
                conn, Query(project=asked.project, is_admin=asked.is_admin, marker=marker, limit=25)
            )
        )
        marker = found[-1].id
    return Query(project=asked.project, is_admin=asked.is_admin, marker=marker)


async def rows_read(db: Database, engine: str, asked: Query) -> int:
    """How many rows of tables and indexes the engine reads for `find`."""
    return await rows_read_by(db, engine, lambda conn: listing.find(conn, asked))


async def rows_read_by(db: Database, engine: str, work: Callable[[AsyncConnection], Awaitable[object]]) -> int:
    """The same for any work that reads."""
    if engine == "mariadb":

        async def counted(conn: AsyncConnection) -> int:
            await sql.fetch(conn, "FLUSH STATUS")
            await work(conn)
            found = await sql.fetch(conn, "SHOW SESSION STATUS LIKE 'Handler_read%'")
            # the merged pages are read once more from a temporary table: that is not the walk
            return sum(int(value) for name, value in found if name != "Handler_read_rnd_next")

        return await db.read(counted)
    read = 0
    real = sql.fetch

    async def explained(conn: AsyncConnection, text: str, values: Any = ()) -> sql.Rows:
        nonlocal read
        if engine == "postgresql":
            [[plan]] = await real(conn, f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", values)
            read += postgresql_rows(plan[0]["Plan"])
        else:
            for *_, words in await real(conn, f"EXPLAIN QUERY PLAN {text}", values):
                # a scan of a part's own page (p0, c) or of a sub-query's values is no walk over a table
                assert not words.startswith(("SCAN i", "SCAN x", "SCAN t", "SCAN q", "SCAN m")), (words, text)
        return await real(conn, text, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql, "fetch", explained)
        await db.read(work)
    return read


def postgresql_rows(plan: dict[str, Any]) -> int:
    own = 0
    if "Scan" in plan["Node Type"]:
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return int(own) + sum(postgresql_rows(one) for one in plan.get("Plans", ()))


PAGE = 25
# per part one page, and its details (7 rows an image, each in an index and its table), look-ups, and some for the
# engine's own steps
BOUND = 5 * PAGE + 7 * 2 * PAGE + 150


@pytest.mark.parametrize(
    "who", [{"project": "p1", "is_admin": True}, {"project": "p1"}, {"project": "nobody"}, {}], ids=str
)
async def test_a_late_page_reads_no_more_than_the_first(full: Database, engine: str, who: dict[str, Any]) -> None:
    first = await rows_read(full, engine, Query(**who))
    after = await rows_read(full, engine, await late(full, Query(**who)))
    assert first < BOUND
    assert after < BOUND


@pytest.mark.parametrize("visibility", ["public", "private", "shared", "community", "all"])
async def test_each_visibility_is_walked_in_order(full: Database, engine: str, visibility: str) -> None:
    for is_admin in (True, False):
        asked = Query(project="p1", is_admin=is_admin, visibility=visibility)
        assert await rows_read(full, engine, asked) < BOUND


@pytest.mark.parametrize(
    "narrow",
    [
        {"equals": {"name": "name 77"}},
        {"one_of": {"name": ("name 77", "name 78")}},
        {"equals": {"status": "queued"}},
        {"equals": {"os_hash_value": "hash 76"}},
        {"equals": {"id": str(uuid.UUID(int=76 * 2**64 + 76))}},
        {"one_of": {"id": (str(uuid.UUID(int=76 * 2**64 + 76)), "x")}},
        {"tags": ("t77",)},
        {"tags": ("common", "t77")},
        {"properties": {"rare": "v77"}},
        {"properties": {"rare": "v77", "common": "linux"}},
        {"times": (("updated_at", "gte", BEGUN + dt.timedelta(seconds=IMAGES - 20)),)},
        {"equals": {"owner": "p1"}},
    ],
    ids=str,
)
async def test_a_filter_with_few_matches_reads_few_rows(
    full: Database, engine: str, narrow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FEW", 100)  # what is common here is common
    for is_admin in (True, False):
        asked = Query(project="p1", is_admin=is_admin, **narrow)
        assert await full.read(lambda conn: listing.find(conn, asked)), "it must find something"
        assert await rows_read(full, engine, asked) < BOUND + 450


@pytest.mark.parametrize("common", [{"tags": ("common",)}, {"properties": {"common": "linux"}}], ids=str)
async def test_a_filter_that_most_pass_is_a_test_on_the_walk(
    full: Database, engine: str, common: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FEW", 100)
    for is_admin in (True, False):
        asked = Query(project="p1", is_admin=is_admin, **common)
        assert await rows_read(full, engine, asked) < BOUND + 450


async def test_many_memberships_are_not_read_one_by_one(
    full: Database, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MEMBERSHIPS", 10)

    async def share_all(conn: AsyncConnection) -> None:
        await sql.fetch(
            conn,
            "INSERT INTO image_members (image_id, member, status, can_share, created_at, deleted)"
            " SELECT id, 'p2', 'accepted', false, created_at, false FROM images WHERE visibility = 'shared'",
        )

    await full.write(share_all)
    asked = Query(project="p2", visibility="shared")
    found = await full.read(lambda conn: listing.find(conn, asked))
    assert len(found) == PAGE
    assert {image.membership for image in found if image.owner != "p2"} == {"accepted"}
    assert await rows_read(full, engine, asked) < BOUND
