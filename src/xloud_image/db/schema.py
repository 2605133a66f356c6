"""The state of the database: upgrade it, say its version, check it, take out what is ours. No image is read here.

Any number of nodes may start `upgrade` at once: one works, the others wait and find nothing left to do. The lock is
the database's own (an advisory lock, GET_LOCK, or SQLite's write lock), so it ends with its holder.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import arguments, collations, connect, connection_errors, glance, indexes, tables
from xloud_image.db.dialect_errors import Meaning, meaning, translate
from xloud_image.errors import ConfigError, DatabaseUnavailable

T = TypeVar("T")

LOCK_PATIENCE: Final = 600.0  # seconds; indexes on a large database take their time
_LOCK: Final = "xloud_image_schema"
_LOCK_NUMBER: Final = 0x786C6F7564  # the same for PostgreSQL, which takes a number


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """Migration heads: what the database has of ours and of Glance's (None: nothing), and what this release wants."""

    ours: str | None
    glance: str | None
    wanted: str

    @property
    def current(self) -> bool:
        """Whether this release can serve."""
        return self.ours == self.wanted and self.glance is not None


async def upgrade(settings: DatabaseSettings) -> Version:
    """Bring the database to this release's state; on an empty one, make Glance's tables as well. May be repeated.

    ConfigError: it is another service's, its Glance is older than 2023.1, some of its tables or columns are missing, or
    our part is newer than this release; or the account may not do it. DatabaseUnavailable.
    """
    async with _connection(settings, changing=True) as conn, _alone(conn):
        await conn.run_sync(_upgrade)
        return await conn.run_sync(_version)


async def downgrade(settings: DatabaseSettings) -> None:
    """Drop our tables and indexes. What Glance needs stays, also where we made it.

    Cut off anywhere it goes on when it is called again. What says our version goes first: from then on no process of
    ours starts, and an upgrade would make all of it anew.
    """
    async with _connection(settings, changing=True) as conn, _alone(conn):
        await conn.run_sync(_downgrade)


async def version(settings: DatabaseSettings) -> Version:
    """What the database has and what is wanted."""
    async with _connection(settings) as conn:
        return await conn.run_sync(_version)


async def check(settings: DatabaseSettings) -> list[str]:
    """What is missing or differs from what this release needs, one sentence each; empty: nothing."""
    async with _connection(settings) as conn:
        return await conn.run_sync(_check)


async def of_glance(settings: DatabaseSettings) -> glance.Found:
    """What a Glance, or another service, has made of this database."""
    async with _connection(settings) as conn:
        return await conn.run_sync(glance.look)


async def remains(settings: DatabaseSettings) -> set[str]:
    """The names of our tables and indexes that are there."""
    async with _connection(settings) as conn:
        return await conn.run_sync(_remains)


@contextlib.asynccontextmanager
async def _connection(settings: DatabaseSettings, *, changing: bool = False) -> AsyncIterator[AsyncConnection]:
    engine = connect.engine(settings, poolclass=sa.NullPool)
    opened = False
    try:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(connect.patience(settings)):
                conn = await stack.enter_async_context(engine.connect())
            opened = True
            if conn.dialect.name == "postgresql":
                await conn.exec_driver_sql("SET lock_timeout = 0")  # building an index beside writers waits for them
            yield conn
    except Exception as error:
        told = (None if opened else connection_errors.explain(error, arguments.read(settings))) or translate(error)
        if opened and changing and engine.dialect.name != "sqlite" and meaning(error) is Meaning.REFUSED:
            told = _not_allowed(error, settings)
        if told is error:
            raise
        raise told from error
    finally:
        await engine.dispose()


def _not_allowed(error: Exception, settings: DatabaseSettings) -> ConfigError:
    """The server's words for an operator: they name the right that is missing."""
    cause: BaseException = error
    while isinstance(cause, sa.exc.DBAPIError) and cause.orig is not None:
        cause = cause.orig
    words = str(cause.args[-1] if cause.args else cause).rpartition(">: ")[2]
    user = arguments.read(settings).url.username
    return ConfigError(
        f"[database] connection: the account '{user}' may not change the tables: {words}. It needs the right to make,"
        " alter and drop tables and indexes there: that of their owner, or GRANT ALL PRIVILEGES ON the database"
    )


@contextlib.asynccontextmanager
async def _alone(conn: AsyncConnection) -> AsyncIterator[None]:
    take, give = {
        # trying again, not waiting in the server: a session that waits there would hold up CREATE INDEX CONCURRENTLY
        "postgresql": (f"SELECT pg_try_advisory_lock({_LOCK_NUMBER})", f"SELECT pg_advisory_unlock({_LOCK_NUMBER})"),
        "sqlite": ("BEGIN IMMEDIATE", "COMMIT"),
    }.get(
        conn.dialect.name,
        (
            f"SELECT get_lock(concat('{_LOCK}.', md5(database())), 5)",
            f"SELECT release_lock(concat('{_LOCK}.', md5(database())))",
        ),
    )
    until = time.monotonic() + LOCK_PATIENCE
    while not await _try(conn, take):
        if time.monotonic() > until:
            raise DatabaseUnavailable("Another node has been upgrading the database for too long.")
        await asyncio.sleep(0.2)
    try:
        yield
    except BaseException:
        if conn.dialect.name == "sqlite":
            give = "ROLLBACK"
        with contextlib.suppress(sa.exc.DBAPIError):
            await conn.exec_driver_sql(give)
        raise
    await conn.exec_driver_sql(give)


async def _try(conn: AsyncConnection, take: str) -> bool:
    try:
        result = await conn.exec_driver_sql(take)
    except sa.exc.DBAPIError as error:
        if meaning(error) is Meaning.AGAIN:  # SQLite: another holds the write lock for longer than the busy time
            return False
        raise
    return not result.returns_rows or bool(result.scalar())


def _config(bind: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = bind
    return config


def _wanted() -> str:
    head = ScriptDirectory(str(Path(__file__).parent / "migrations")).get_current_head()
    assert head is not None
    return head


def _version(bind: sa.Connection) -> Version:
    ours = MigrationContext.configure(bind, opts={"version_table": tables.VERSION_TABLE}).get_current_revision()
    return Version(ours=ours, glance=tables.glance_version(bind), wanted=_wanted())


def _upgrade(bind: sa.Connection) -> None:
    _known(_version(bind))
    found = glance.look(bind)
    if found.obstacles:
        raise ConfigError("; ".join(f"{one.sentence} ({one.cure})" for one in found.obstacles))
    glance.finish(bind, found)
    command.upgrade(_config(bind), "head")
    # of a database that is called current something may be gone
    collations.create(bind)
    collations.convert(bind)
    tables.make_turns(bind, *tables.TURNS)
    indexes.create(bind, indexes.ALL)


def _remains(bind: sa.Connection) -> set[str]:
    ours = {table.name for table in tables.own.sorted_tables} | {tables.VERSION_TABLE}
    return ours.intersection(sa.inspect(bind).get_table_names()) | indexes.existing(bind)


def _downgrade(bind: sa.Connection) -> None:
    _known(_version(bind))
    if sa.inspect(bind).has_table(tables.VERSION_TABLE):
        bind.exec_driver_sql(f"DELETE FROM {tables.VERSION_TABLE}")  # noqa: S608 - a constant
    names = set(sa.inspect(bind).get_table_names())
    indexes.drop(bind, [one for one in indexes.ALL if one.table in names])
    tables.own.drop_all(bind)
    sa.Table(tables.VERSION_TABLE, sa.MetaData()).drop(bind, checkfirst=True)


def _known(found: Version) -> None:
    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    if found.ours is not None and found.ours not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigError(
            f"The database was upgraded by a newer release (to {found.ours}); this one knows up to {found.wanted}"
        )


def _check(bind: sa.Connection) -> list[str]:
    found = _version(bind)
    there = glance.look(bind)
    said = (
        []
        if found.glance is not None or there.obstacles
        else ["There are no image tables; run: xloud-image db upgrade"]
    )
    said += [f"{one.sentence}; do: {one.cure}" for one in there.obstacles]
    said += there.differences
    if found.ours != found.wanted:
        said.append(f"Our part is at {found.ours or 'nothing'}, wanted is {found.wanted}; run: xloud-image db upgrade")
    said += [f"{one}; run: xloud-image db upgrade" for one in glance.missing(bind, tables.own.sorted_tables)]
    said += [
        f"Texts of table {name} cannot be compared with those of other tables; run: xloud-image db upgrade"
        for name in collations.odd(bind)
    ]
    missing = {index.name for index in indexes.ALL} - indexes.existing(bind)
    said += [f"Index {name} is missing; lists will be slow" for name in sorted(missing)]
    return said
