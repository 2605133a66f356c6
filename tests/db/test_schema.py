"""The state of the database: made, upgraded beside a real Glance's tables, checked, taken back; by several at once."""

import asyncio
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.db.conftest import MakeEmpty, tables_of_glance
from tests.servers.service import command
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import connect, events, images, indexes, listing, schema, tables
from xloud_image.db.engine import Database
from xloud_image.db.query import Query
from xloud_image.errors import ConfigError
from xloud_image.model import Image

# one of our indexes is on an expression, which SQLAlchemy does not describe on SQLite
pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")

DUMPS = Path(__file__).parent / "glance33"


async def run(settings: DatabaseSettings, *statements: str) -> None:
    engine = connect.engine(settings, poolclass=sa.NullPool)
    async with engine.connect() as conn:
        for statement in statements:
            await conn.exec_driver_sql(statement)
    await engine.dispose()


async def ask(settings: DatabaseSettings, work: Any) -> Any:
    engine = connect.engine(settings, poolclass=sa.NullPool)
    async with engine.connect() as conn:
        found = await conn.run_sync(work)
    await engine.dispose()
    return found


async def make_glance(settings: DatabaseSettings, engine: str) -> None:
    """The tables as a real Glance 33 made them."""
    await run(settings, *tables_of_glance(engine))


def described(bind: sa.Connection) -> dict[str, Any]:
    """All tables but ours: columns, keys, indexes; as the engine tells them."""
    inspector = sa.inspect(bind)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names():
        if table.startswith("xloud_"):
            continue
        found[table] = {
            "columns": {
                one["name"]: (
                    str(one["type"].compile(bind.dialect)),
                    one["nullable"],
                    re.sub(r"['()]|::.*", "", str(one["default"])).lower().replace("false", "0"),
                )
                for one in inspector.get_columns(table)
            },
            "primary": inspector.get_pk_constraint(table)["constrained_columns"],
            "unique": {(one["name"], tuple(one["column_names"])) for one in inspector.get_unique_constraints(table)},
            "indexes": {
                (one["name"], tuple(one["column_names"]), one["unique"])
                for one in inspector.get_indexes(table)
                if not str(one["name"]).startswith("xloud_ix_")
            },
            "foreign": {
                (tuple(one["constrained_columns"]), one["referred_table"], tuple(one["referred_columns"]))
                for one in inspector.get_foreign_keys(table)
            },
        }
        if bind.dialect.name in ("mysql", "mariadb"):
            options = inspector.get_table_options(table)
            found[table]["options"] = {
                name: value for name, value in options.items() if name in ("mariadb_engine", "mariadb_default charset")
            }
    return found


async def test_on_an_empty_database(empty: MakeEmpty) -> None:
    settings = empty()
    before = await schema.version(settings)
    assert (before.ours, before.glance, before.current) == (None, None, False)
    assert any("db upgrade" in line for line in await schema.check(settings))
    after = await schema.upgrade(settings)
    assert after == await schema.version(settings)
    assert (after.ours, after.glance, after.current) == (after.wanted, "2024_1_contract01", True)
    assert await schema.check(settings) == []
    assert await schema.upgrade(settings) == after


async def test_our_tables_for_glance_are_those_that_glance_makes(empty: MakeEmpty, engine: str) -> None:
    ours, theirs = empty(), empty()
    await schema.upgrade(ours)
    await make_glance(theirs, engine)
    found, wanted = await ask(ours, described), await ask(theirs, described)
    assert found.keys() == wanted.keys()
    for table, facts in wanted.items():
        assert found[table] == facts, table


async def test_beside_a_glance_nothing_of_its_own_changes(empty: MakeEmpty, engine: str) -> None:
    settings = empty()
    await make_glance(settings, engine)
    before = await ask(settings, described)
    image_id = str(uuid.uuid4())
    false = "false" if engine == "postgresql" else "0"
    await run(
        settings,
        "INSERT INTO images (id, name, status, created_at, deleted, min_disk, min_ram)"
        f" VALUES ('{image_id}', 'made by glance', 'active', '2026-01-02 03:04:05', {false}, 0, 0)",
    )
    found = await schema.upgrade(settings)
    assert found.current
    assert await schema.check(settings) == []
    assert await ask(settings, described) == before
    db = Database(settings)
    await db.start()
    image = await db.read(lambda conn: images.get(conn, image_id))
    assert image is not None
    assert (image.name, image.visibility, image.created_at.isoformat()) == (
        "made by glance",
        "shared",
        "2026-01-02T03:04:05",
    )
    assert image.updated_at == image.created_at  # Glance may leave it NULL
    await db.aclose()

    await schema.downgrade(settings)
    assert await ask(settings, described) == before
    assert await ask(settings, lambda bind: [n for n in sa.inspect(bind).get_table_names() if "xloud" in n]) == []
    assert await ask(settings, indexes.existing) == set()
    # and once more, both ways
    await schema.downgrade(settings)
    assert (await schema.upgrade(settings)).current


async def test_lists_work_without_our_indexes(empty: MakeEmpty) -> None:
    settings = empty()
    await schema.upgrade(settings)
    await ask(settings, lambda bind: indexes.drop(bind, indexes.ALL))
    assert any("Index xloud_ix_images_seen is missing" in line for line in await schema.check(settings))
    db = Database(settings)
    await db.start()
    image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), owner="p1", name="n")))
    for asked in (Query(project="p1"), Query(project="p1", is_admin=True), Query(project="p1", equals={"name": "n"})):
        assert await db.read(lambda conn, asked=asked: listing.find(conn, asked)) == [image]  # type: ignore[misc]
    await db.aclose()


async def test_many_nodes_at_once(empty: MakeEmpty, engine: str, tmp_path: Path) -> None:
    """The command itself, five times."""
    for glance in (False, True):
        settings = empty()
        if glance:
            await make_glance(settings, engine)
        file = tmp_path / "x.conf"
        file.write_text(f"[database]\nconnection = {settings.connection}\nmax_retries = 0\n")
        words = [*command(), "db", "upgrade", "--config-file", file]
        nodes = [await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE) for _ in range(5)]
        ended = [(node.returncode, errors.decode()) for node, (_, errors) in
                 zip(nodes, [await node.communicate() for node in nodes], strict=True)]  # fmt: skip
        assert ended == [(0, "")] * 5
        assert await schema.check(settings) == []
        heads = await ask(
            settings, lambda bind: list(bind.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())
        )
        assert heads == [tables.GLANCE_HEAD]


async def test_cut_off_half_way_it_goes_on(empty: MakeEmpty, engine: str) -> None:
    whole = empty()
    await schema.upgrade(whole)
    for left in ("image_tags", "xloud_claims"):
        settings = empty()
        await schema.upgrade(settings)
        # as after a kill between two statements, on an engine that commits each
        await run(settings, f"DROP TABLE {left}", f"DELETE FROM {tables.VERSION_TABLE}")
        if left == "image_tags":
            await run(settings, "DELETE FROM alembic_version")
        assert (await schema.upgrade(settings)).current
        assert await schema.check(settings) == []
        assert await ask(settings, described) == await ask(whole, described)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_an_index_that_was_cut_off_is_made_anew(empty: MakeEmpty) -> None:
    settings = empty()
    await schema.upgrade(settings)
    await run(
        settings,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'xloud_ix_images_name'::regclass",
        f"DELETE FROM {tables.VERSION_TABLE}",
    )
    await schema.upgrade(settings)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'xloud_ix_images_name'::regclass"
    assert await ask(settings, lambda bind: bind.execute(sa.text(valid)).scalar()) is True


async def test_what_is_refused(empty: MakeEmpty, engine: str) -> None:
    old = empty()
    await make_glance(old, engine)
    await run(
        old,
        "DROP TABLE cached_images",
        "DROP TABLE node_reference",
        "UPDATE alembic_version SET version_num = 'zed_contract01'",
    )
    with pytest.raises(ConfigError, match=r"older than those of Glance 2023\.1 .*glance-manage db sync"):
        await schema.upgrade(old)
    newer = empty()
    await schema.upgrade(newer)
    await run(newer, f"UPDATE {tables.VERSION_TABLE} SET version_num = 'x9999'")
    for step in (schema.upgrade, schema.downgrade):
        with pytest.raises(ConfigError, match="newer release"):
            await step(newer)
    assert not (await schema.version(newer)).current


async def test_check_names_what_is_missing(empty: MakeEmpty) -> None:
    settings = empty()
    await schema.upgrade(settings)
    await run(
        settings,
        "ALTER TABLE images DROP COLUMN virtual_size",
        "DROP TABLE xloud_claims",
        "UPDATE alembic_version SET version_num = '2030_1_contract01'",
    )
    said = "\n".join(await schema.check(settings))
    for words in ("images.virtual_size is missing", "xloud_claims is missing", "2030_1_contract01"):
        assert words in said


async def test_a_table_that_was_lost_is_whole_again(empty: MakeEmpty) -> None:
    """With its rows, where there have to be some: without them nobody would send anything any more."""
    settings = empty()
    await schema.upgrade(settings)
    await run(settings, "DROP TABLE xloud_turns")
    assert "xloud_turns is missing" in "\n".join(await schema.check(settings))
    await schema.upgrade(settings)
    assert await schema.check(settings) == []
    database = Database(settings)
    await database.start()
    for box in (events.CHANGES, events.AUDIT):
        assert await database.write(lambda conn, box=box: box.take_turn(conn, "one", lease=10))
    await database.aclose()


async def test_glance_writes_on_while_indexes_are_made(empty: MakeEmpty, engine: str) -> None:
    """On PostgreSQL and MariaDB an upgrade stops no writer; SQLite has one writer at a time anyway."""
    settings = empty()
    await make_glance(settings, engine)
    db = Database(settings)
    await db.start()
    ended = asyncio.Event()
    longest = 0.0

    async def writer() -> int:
        nonlocal longest
        count = 0
        loop = asyncio.get_running_loop()
        while not ended.is_set():
            begun = loop.time()
            image = Image(id=str(uuid.uuid4()), properties={"a": "1"}, tags=("t",))
            await db.write(lambda conn, image=image: images.create(conn, image))  # type: ignore[misc]
            longest = max(longest, loop.time() - begun)
            count += 1
        return count

    async def upgrade() -> None:
        try:
            await schema.upgrade(settings)
        finally:
            ended.set()

    counts = await asyncio.gather(writer(), writer(), upgrade())
    assert await schema.check(settings) == []
    stored = sa.select(sa.func.count()).select_from(tables.images)

    async def count(conn: AsyncConnection) -> int:
        return int(await conn.scalar(stored) or 0)

    assert await db.read(count) == counts[0] + counts[1]
    assert longest < 5
    await db.aclose()
