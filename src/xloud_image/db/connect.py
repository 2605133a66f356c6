"""A pool on the right driver for an operator's connection URL, which `arguments` reads. Neither statements nor tables.

Drivers: aiosqlite, asyncpg, asyncmy. asyncmy and not aiomysql: 0.18 against 0.29 ms of CPU for a query of one row
measured side by side (its protocol code is compiled), and more releases in the last year.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import arguments, ciphers
from xloud_image.errors import ConfigError

LOCK_TIME: Final = 10  # seconds that a statement waits for another's lock

logging.getLogger("asyncmy").setLevel(logging.ERROR)  # it logs each note of the server as a warning


def patience(settings: DatabaseSettings) -> float:
    """Seconds for a connection to come about, login included: the drivers' own limits end with the network's part."""
    given = arguments.read(settings).arguments
    return float(given.get("connect_timeout") or given.get("timeout") or LOCK_TIME) + 1


def engine(settings: DatabaseSettings, **options: Any) -> AsyncEngine:
    """A pool that opens connections when they are first needed, each set up once for its life.

    ConfigError: the URL cannot be served, or a file that it names cannot be used.
    """
    told = arguments.read(settings)
    target = told.url
    backend = target.get_backend_name()
    given = dict(told.arguments)
    if backend == "sqlite":
        directory = Path(target.database or ".").absolute().parent
        if not directory.is_dir():
            raise ConfigError(f"[database] connection: the directory {directory} does not exist; create it")
        given = {"timeout": LOCK_TIME, "isolation_level": None}
    elif backend == "postgresql":
        given["server_settings"] = {
            "timezone": "UTC",
            "jit": "off",  # compiling a page query takes longer than running it
            # it would rather walk all images by age, sorting as it goes, than take the index made for the list
            "enable_incremental_sort": "off",
            "lock_timeout": f"{LOCK_TIME}s",
            "idle_in_transaction_session_timeout": "60s",  # a node that froze lets go of its locks
            **given["server_settings"],
        }
    pool: dict[str, Any] = (
        {}
        if "poolclass" in options
        else {
            "pool_size": max(0, settings.max_pool_size),
            "max_overflow": settings.max_overflow,
            "pool_recycle": settings.connection_recycle_time,
            "pool_timeout": 10,
        }
    ) | {
        "pool_reset_on_return": None,  # nothing is ever left open; see engine.Database
        "isolation_level": "AUTOCOMMIT",
        "skip_autocommit_rollback": True,
        "execution_options": ciphers.options(settings.metadata_encryption_key),
    }
    made = create_async_engine(target, connect_args=given, hide_parameters=True, **(pool | options))
    setup = {
        "sqlite": _SQLITE,
        "mysql": [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            # crossing several indexes of few values each reads far more than the one index made for the list
            "SET SESSION optimizer_switch = 'index_merge_intersection=off'",
            f"SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_TIME}",
            # estimates from the statistics, not by looking up each id of a page in each index beforehand
            "SET SESSION eq_range_index_dive_limit = 2",
            *([f"SET SESSION sql_mode = {mode}"] if (mode := session_mode(settings)) else []),
        ],
    }.get(backend, [])

    def on_connect(dbapi: Any, record: Any) -> None:
        record.info["opened"] = time.monotonic()
        if backend == "postgresql":
            dbapi.run_async(_read_times)
        if not setup:
            return
        cursor = dbapi.cursor()
        for statement in setup:
            cursor.execute(statement)
        cursor.close()

    sa.event.listen(made.sync_engine, "connect", on_connect)
    return made


_BEGIN: Final = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - where PostgreSQL counts microseconds from


async def _read_times(driver: Any) -> None:
    """PostgreSQL has times that Python has not (infinity, the year 20000): in the driver one of them is an error of the
    whole statement, and would take the list from everybody."""
    await driver.set_type_codec(
        "timestamp", schema="pg_catalog", format="tuple", encoder=_written_time, decoder=_read_time
    )


class _Beyond:
    """A time that is none here, as the database has it: the page of a list may begin after it."""

    __slots__ = ("microseconds",)

    def __init__(self, microseconds: int) -> None:
        self.microseconds = microseconds


def _written_time(value: dt.datetime | _Beyond) -> tuple[int]:
    if isinstance(value, _Beyond):
        return (value.microseconds,)
    return ((value - _BEGIN) // dt.timedelta(microseconds=1),)


def _read_time(value: tuple[int]) -> dt.datetime | _Beyond:
    try:
        return _BEGIN + dt.timedelta(microseconds=value[0])
    except OverflowError:
        return _Beyond(value[0])


# An acknowledged change survives a power cut: with WAL, only FULL syncs the log at each commit.
_SQLITE: Final = [
    f"PRAGMA busy_timeout = {LOCK_TIME * 1000}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
]


def session_mode(settings: DatabaseSettings) -> str:
    """[database] mysql_sql_mode as a literal; "": that of the server. ConfigError: it is no list of names."""
    mode = settings.mysql_sql_mode
    if not all(c.isalnum() or c in "_," for c in mode):
        raise ConfigError("[database] mysql_sql_mode: only names of modes, with commas between them")
    return f"'{mode}'" if mode else ""
