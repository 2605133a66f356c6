"""What the service says when the database has no room, takes no changes, or no more connections: the true reason."""

import contextlib
import pwd
import secrets
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.mariadb import MariaDB
from tests.servers.place import program
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import run
from tests.stores import mounts
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import images, schema
from xloud_image.db.engine import Database
from xloud_image.errors import BadRequest, DatabaseFull, DatabaseUnavailable
from xloud_image.model import Image


def large() -> Image:
    """An image of two megabytes that no database makes smaller."""
    return Image(id=str(uuid.uuid4()), properties={f"k{n}": secrets.token_hex(30_000) for n in range(32)})


def as_root(mariadb: MariaDB, *statements: str) -> None:
    """Run statements as the one who may do everything; the users of the tests may not pass rights on."""
    assert mariadb._directory is not None
    words = [program("mariadb", "mariadb-client"), "--no-defaults", "-u", "root", "-e", "; ".join(statements)]
    run([*words, "--socket", mariadb._directory / "data" / "mariadb.sock"])


@contextlib.contextmanager
def small_database(engine: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The address of an empty database on a file system of some megabytes."""
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            place = stack.enter_context(mounts.tmpfs(folder / "small", "4m"))
            yield f"sqlite:///{place / 'image.sqlite'}"
        elif engine == "postgresql":
            postgresql: PostgreSQL = request.getfixturevalue("postgresql")
            outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xloud-image-small-")))
            outside.chmod(0o755)
            place = stack.enter_context(mounts.tmpfs(outside / "small", "24m"))
            with contextlib.suppress(KeyError):
                shutil.chown(place, pwd.getpwnam("postgres").pw_name)
            name = f"small_{uuid.uuid4().hex[:8]}"
            postgresql.sql(f"create tablespace {name} location '{place}'")
            postgresql.sql(f"create database {name} tablespace {name}")
            yield postgresql.url(name)
            postgresql.drop_database(postgresql.url(name))
            postgresql.sql(f"drop tablespace {name}")
        else:
            mariadb = MariaDB()
            stack.callback(mariadb.close)
            mariadb.start()
            url = mariadb.create_database("small")
            assert mariadb._directory is not None
            data = mariadb._directory / "data" / "small"
            options = (data / "db.opt").read_bytes()
            shutil.rmtree(data)
            place = stack.enter_context(mounts.tmpfs(folder / "small", "24m"))
            (place / "db.opt").write_bytes(options)
            data.symlink_to(place)
            yield url
            mariadb.stop()


async def test_a_full_disk_is_called_so(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with small_database(engine, request, tmp_path) as url:
        settings = DatabaseSettings(connection=url, max_retries=0)
        await schema.upgrade(settings)
        db = Database(settings)
        await db.start()
        try:
            first = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), name="first")))
            stored = []

            async def fill() -> None:
                for _ in range(40):
                    image = large()
                    await db.write(lambda conn: images.create(conn, image))
                    stored.append(image.id)

            with pytest.raises(DatabaseFull, match="disk of the database is full") as caught:
                await fill()
            assert caught.value.status == 503
            # what was answered is there, what was refused is not, and reading goes on
            assert await db.read(lambda conn: images.get(conn, first.id)) == first
            for image_id in stored:
                assert await db.read(lambda conn, image_id=image_id: images.get(conn, image_id)) is not None
        finally:
            await db.aclose()


async def test_a_database_that_may_not_be_written(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "place", "4m") as place:
        settings = DatabaseSettings(connection=f"sqlite:///{place / 'image.sqlite'}", max_retries=0)
        await schema.upgrade(settings)
        with contextlib.closing(sqlite3.connect(place / "image.sqlite")) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        with mounts.read_only(place), pytest.raises(DatabaseUnavailable, match="read-only"):
            await Database(settings).start()


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_a_server_that_takes_no_changes(
    engine: str, settings: DatabaseSettings, request: pytest.FixtureRequest
) -> None:
    if engine == "postgresql":
        server: PostgreSQL | MariaDB = request.getfixturevalue("postgresql")
        name = settings.connection.rpartition("/")[2]
        on, off = (f'alter database "{name}" set default_transaction_read_only = {word}' for word in ("on", "off"))
    else:
        server = request.getfixturevalue("mariadb")
        on, off = "set global read_only = 1", "set global read_only = 0"
        name = settings.connection.rpartition("/")[2].partition("?")[0]
        made = "create user if not exists plain@'%' identified by 'plain'"
        as_root(server, made, f"grant select, insert, update on `{name}`.* to plain@'%'")
        rest = settings.connection.partition("@")[2]
        settings = DatabaseSettings(connection=f"mysql+pymysql://plain:plain@{rest}", max_retries=0)
    server.sql(on)
    try:
        db = Database(settings)
        await db.start()
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()))))
        await db.aclose()
    finally:
        server.sql(off)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"], indirect=True)
async def test_a_server_with_all_its_connections(
    engine: str, settings: DatabaseSettings, request: pytest.FixtureRequest
) -> None:
    name = settings.connection.rpartition("/")[2].partition("?")[0]
    rest = settings.connection.partition("@")[2]
    if engine == "postgresql":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        postgresql.sql("create role few login password 'few' connection limit 0")
        few = f"postgresql://few:few@{rest}"
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        made = "create user few@'%' identified by 'few' with max_user_connections 1"
        as_root(mariadb, made, f"grant all on `{name}`.* to few@'%'")
        few = f"mysql+pymysql://few:few@{rest}"
    one, other = (Database(DatabaseSettings(connection=few, max_retries=0)) for _ in range(2))

    async def start() -> None:
        await one.start()
        await other.start()

    try:
        with pytest.raises(DatabaseUnavailable, match="as many connections as it takes"):
            await start()
    finally:
        await one.aclose()
        await other.aclose()


async def test_a_wrong_password(engine: str, settings: DatabaseSettings, tmp_path: Path) -> None:
    if engine == "sqlite":
        broken = tmp_path / "no database"
        broken.write_bytes(b"this is some other file" * 100)
        wrong, words = f"sqlite:///{broken}", "damaged"
    else:
        begin, _, rest = settings.connection.partition("@")
        wrong, words = f"{begin}x@{rest}", "does not let the service in"
    db = Database(DatabaseSettings(connection=wrong, max_retries=0))
    with pytest.raises(DatabaseUnavailable, match=words):
        await db.start()


@pytest.mark.parametrize(
    ("field", "number"), [("size", 2**63), ("virtual_size", 2**70), ("min_disk", 2**31), ("min_ram", -1), ("size", -1)]
)
async def test_numbers_that_no_column_holds(db: Database, field: str, number: int) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()))))
    with pytest.raises(BadRequest, match=f"'{field}' is {number}; the database holds whole numbers from 0 to"):
        await db.write(lambda conn: images.change(conn, image.id, lambda one: one.replace(**{field: number})))
    with pytest.raises(BadRequest, match=f"'{field}'"):
        await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), **{field: number})))
