"""What the service says, and how soon, when the database stops, hangs, drops connections or is not set up."""

import asyncio
import time
import uuid
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.db.conftest import MakeEmpty
from tests.load import quiet
from tests.servers.mariadb import MariaDB
from tests.servers.place import free_port
from tests.servers.postgresql import PostgreSQL
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import connect, images, schema, sql
from xloud_image.db import engine as engines
from xloud_image.db.engine import Database
from xloud_image.errors import BadRequest, ConfigError, DatabaseUnavailable
from xloud_image.model import Image

SCHEMES = {"postgresql": "postgresql", "mariadb": "mysql+pymysql"}


async def drop_connections(db: Database, engine: str) -> None:
    """End all sessions but our own on the server."""
    if engine == "postgresql":
        words = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        words += " AND datname = current_database()"
        await db.read(lambda conn: sql.fetch(conn, words))
        return

    async def kill(conn: AsyncConnection) -> None:
        found = await sql.fetch(
            conn,
            "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = database()",
        )
        for (number,) in found:
            await sql.fetch(conn, f"KILL {int(number)}")

    await db.read(kill)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_dropped_connections_are_not_noticed(db: Database, other_db: Database, engine: str) -> None:
    async def hold(conn: AsyncConnection) -> None:
        await sql.fetch(conn, "SELECT 1")
        await asyncio.sleep(0.2)

    for _ in range(3):
        await asyncio.gather(*(db.read(hold) for _ in range(4)))  # four connections wait in the pool
        await drop_connections(other_db, engine)
        image = Image(id=str(uuid.uuid4()))
        await db.write(lambda conn, image=image: images.create(conn, image))  # type: ignore[misc]
        await drop_connections(other_db, engine)
        found = await asyncio.gather(*(db.read(lambda conn: images.get(conn, image.id)) for _ in range(8)))
        assert all(one is not None for one in found)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_a_connection_lost_in_the_middle_of_a_write(db: Database, other_db: Database, engine: str) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()))))
    runs = 0

    async def work(conn: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        await images.change(conn, image.id, lambda found: found.replace(min_ram=found.min_ram + 1))
        if runs == 1:
            await drop_connections(other_db, engine)
        await images.change(conn, image.id, lambda found: found.replace(min_disk=found.min_disk + 1))

    await db.write(work)
    found = await db.read(lambda conn: images.get(conn, image.id))
    assert found is not None
    assert (runs, found.min_ram, found.min_disk) == (2, 1, 1)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_an_answer_lost_after_commit_is_not_run_again(db: Database, other_db: Database, engine: str) -> None:
    runs = 0

    async def work(conn: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        await images.create(conn, Image(id=str(uuid.uuid4())))
        await drop_connections(other_db, engine)

    with pytest.raises(DatabaseUnavailable, match="may or may not"):
        await db.write(work)
    assert runs == 1


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
async def test_a_server_that_stops_and_comes_back(kind: Any) -> None:
    server = kind()
    server.start()
    try:
        made = DatabaseSettings(connection=server.create_database(), max_retries=0)
        await schema.upgrade(made)
        db = Database(made)
        await db.start()
        image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()))))
        server.stop()
        begun = time.monotonic()
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await db.read(lambda conn: images.get(conn, image.id))
            with pytest.raises(DatabaseUnavailable):
                await db.write(lambda conn: images.change(conn, image.id, lambda found: found.replace(min_ram=1)))
        assert time.monotonic() - begun < quiet(5)
        server.start()
        assert await db.read(lambda conn: images.get(conn, image.id)) == image
        await db.write(lambda conn: images.change(conn, image.id, lambda found: found.replace(min_ram=1)))
        await db.aclose()
    finally:
        server.close()


@pytest.mark.parametrize("scheme", SCHEMES.values())
async def test_a_server_that_never_answers(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "READ_TIME", 1.0)
    monkeypatch.setattr(engines, "WRITE_TIME", 1.0)
    waiting: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        await asyncio.sleep(30)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    db = Database(DatabaseSettings(connection=f"{scheme}://u:hidden@127.0.0.1:{port}/n", max_retries=0))
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as caught:
        await db.start()
    assert time.monotonic() - begun < quiet(5)
    assert "hidden" not in str(caught.value)
    server.close()
    for writer in waiting:
        writer.close()


@pytest.mark.parametrize("scheme", SCHEMES.values())
async def test_start_tries_as_often_as_it_was_told(scheme: str) -> None:
    url = f"{scheme}://u:p@127.0.0.1:{free_port()}/n"
    db = Database(DatabaseSettings(connection=url, max_retries=2, retry_interval=1))
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await db.start()
    assert 2 <= time.monotonic() - begun < quiet(5)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_a_cancelled_read_spoils_no_other(db: Database, engine: str) -> None:
    slow = "SELECT 41 FROM pg_sleep(5)" if engine == "postgresql" else "SELECT 41 FROM (SELECT sleep(5)) s"
    for _ in range(3):
        task = asyncio.create_task(db.read(lambda conn: sql.fetch(conn, slow)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = await asyncio.gather(*(db.read(lambda conn, n=n: sql.fetch(conn, f"SELECT {n}")) for n in range(6)))  # type: ignore[misc]
        assert [rows[0][0] for rows in found] == list(range(6))


async def test_a_held_lock_ends_in_503_in_time(
    db: Database, other_db: Database, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()))))
    held = asyncio.Event()
    done = asyncio.Event()

    async def holder(conn: AsyncConnection) -> None:
        await images.change(conn, image.id, lambda found: found.replace(min_ram=1))
        held.set()
        await done.wait()

    task = asyncio.create_task(other_db.write(holder))
    await held.wait()
    monkeypatch.setattr(engines, "WRITE_TIME", 1.5)
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await db.write(lambda conn: images.change(conn, image.id, lambda found: found.replace(min_ram=2)))
    # SQLite waits in a thread, which ends by its own busy time
    assert time.monotonic() - begun < quiet(connect.LOCK_TIME + 4 if engine == "sqlite" else 4)
    # reads go on all the while
    assert await db.read(lambda conn: images.get(conn, image.id)) is not None
    done.set()
    await task
    found = await db.read(lambda conn: images.get(conn, image.id))
    assert found is not None
    assert found.min_ram == 1


async def test_a_database_that_is_not_set_up(empty: MakeEmpty) -> None:
    db = Database(empty())
    await db.start()
    with pytest.raises(DatabaseUnavailable, match="xloud-image db upgrade"):
        await db.read(lambda conn: images.get(conn, "x"))
    with pytest.raises(DatabaseUnavailable, match="xloud-image db upgrade"):
        await db.write(lambda conn: images.create(conn, Image(id="x")))
    await db.aclose()


async def test_a_fault_of_ours_stays_itself(db: Database) -> None:
    async def wrong(_: AsyncConnection) -> None:
        raise KeyError("x")

    for run in (db.read, db.write):
        with pytest.raises(KeyError):
            await run(wrong)
    assert await db.read(lambda conn: sql.fetch(conn, "SELECT 1"))


async def test_text_errors_do_not_break_the_connection(db: Database) -> None:
    for _ in range(10):
        with pytest.raises(BadRequest):
            await db.read(lambda conn: images.get(conn, "half \ud83d"))
    assert await db.read(lambda conn: images.get(conn, "x")) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "no database URL"),
        ("oracle://u:p@h/d", "not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:////does/not/exist/x.sqlite", "does not exist"),
        ("mysql+pymysql://u:secret@h/d?ssl_cafile=x", "ssl_cafile"),
        ("postgresql://u:secret@h/d?sslmode=sometimes", "sslmode"),
        ("postgresql://u:secret@h/d?sslmode=verify-full&sslrootcert=/none.pem", "cannot be read"),
    ],
)
async def test_connections_that_cannot_be_served(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        await Database(DatabaseSettings(connection=url, max_retries=0)).start()
    assert "secret" not in str(caught.value)


async def test_sessions_are_set_up(db: Database, engine: str) -> None:
    async def ask(words: str) -> Any:
        rows = await db.read(lambda conn: sql.fetch(conn, words))
        return rows[0][0]

    if engine == "sqlite":
        assert await ask("PRAGMA journal_mode") == "wal"
        assert await ask("PRAGMA synchronous") == 2
        assert await ask("PRAGMA foreign_keys") == 1
    elif engine == "postgresql":
        assert await ask("SHOW timezone") == "UTC"
        assert await ask("SHOW lock_timeout") == "10s"
    else:
        assert await ask("SELECT @@session.time_zone") == "+00:00"
        assert await ask("SELECT @@session.tx_isolation") == "READ-COMMITTED"
        assert "STRICT_ALL_TABLES" in await ask("SELECT @@session.sql_mode")
        assert await ask("SELECT @@session.autocommit") == 1
