"""Fixtures of the tests of the database: the same three engines for each test, all real."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import schema, tables
from xloud_image.db.engine import Database

ENGINES = ("sqlite", "postgresql", "mariadb")
MakeEmpty = Callable[[], DatabaseSettings]

DUMPS = Path(__file__).parent / "glance33"


def tables_of_glance(engine: str) -> list[str]:
    """The statements by which a real Glance 33 made its tables."""
    text = (DUMPS / f"{'mysql' if engine == 'mariadb' else engine}.sql").read_text()
    words = re.sub(r"^--.*$", "", text, flags=re.MULTILINE)
    return [one for one in re.split(r";\s*$", words, flags=re.MULTILINE) if one.strip()]


# one prepared database per engine and session; each test begins with it emptied
_prepared: dict[str, DatabaseSettings] = {}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine of this run of the test."""
    name: str = request.param
    return name


@pytest.fixture
def empty(engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeEmpty:
    """Makes settings of a new database without a table; on MariaDB with the character set that a Glance has."""

    def make() -> DatabaseSettings:
        if engine == "sqlite":
            place: Path = tmp_path_factory.mktemp("sqlite") / "image.sqlite"
            return DatabaseSettings(connection=f"sqlite:///{place}", max_retries=0)
        if engine == "postgresql":
            postgresql: PostgreSQL = request.getfixturevalue("postgresql")
            return DatabaseSettings(connection=postgresql.create_database(), max_retries=0)
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        url = mariadb.create_database(charset="utf8").replace("charset=utf8", "charset=utf8mb4")
        return DatabaseSettings(connection=url, max_retries=0)

    return make


@pytest.fixture
async def settings(engine: str, empty: MakeEmpty) -> DatabaseSettings:
    """A database that is ready and empty."""
    if engine not in _prepared:
        made = empty()
        await schema.upgrade(made)
        _prepared[engine] = made
    database = Database(_prepared[engine])
    await database.start()
    try:
        await wipe(database)
    finally:
        await database.aclose()
    return _prepared[engine]


@pytest.fixture
async def db(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The started database."""
    database = Database(settings)
    await database.start()
    yield database
    await database.aclose()


@pytest.fixture
async def other_db(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The same database as another process has it: with connections of its own."""
    database = Database(settings)
    await database.start()
    yield database
    await database.aclose()


async def wipe(database: Database) -> None:
    """Remove every image and claim."""

    async def work(conn: sa.ext.asyncio.AsyncConnection) -> None:
        for table in (
            tables.task_info,
            tables.tasks,
            tables.image_members,
            tables.image_locations,
            tables.image_tags,
            tables.image_properties,
            tables.images,
            tables.claims,
        ):
            await conn.execute(table.delete())

    await database.write(work)
