"""From an operator's connection URL to a pool on the right driver. Neither statements nor tables.

Drivers: aiosqlite, asyncpg, asyncmy. asyncmy and not aiomysql: 0.18 against 0.29 ms of CPU for a query of one row
measured side by side (its protocol code is compiled), and more releases in the last year.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from xloud_image.config.settings import DatabaseSettings
from xloud_image.errors import ConfigError

LOCK_TIME: Final = 10  # seconds that a statement waits for another's lock
CONNECT_TIME: Final = 5  # seconds

_MYSQL_ARGUMENTS: Final = frozenset(
    {
        "charset",
        "unix_socket",
        "ssl_ca",
        "ssl_capath",
        "ssl_cert",
        "ssl_key",
        "ssl_cipher",
        "ssl_check_hostname",
    }
)
_IGNORED: Final = frozenset({"connect_timeout", "read_timeout", "write_timeout", "plugin", "timeout"})
_PG_ARGUMENTS: Final = frozenset(
    {"sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "application_name", "host", "port"}
)


logging.getLogger("asyncmy").setLevel(logging.ERROR)  # it logs each note of the server as a warning


def url(settings: DatabaseSettings) -> sa.URL:
    """The URL with our driver in it. ConfigError for what is no URL, no known engine, or an unknown argument."""
    try:
        given = sa.make_url(settings.connection)
    except (sa.exc.ArgumentError, ValueError):
        # the text itself may hold a password
        raise ConfigError(
            "[database] connection is no database URL, such as mysql+pymysql://user:password@host/name"
        ) from None
    match given.get_backend_name():
        case "sqlite":
            if given.database in (None, "", ":memory:"):
                raise ConfigError("[database] connection: SQLite needs a file here; every worker opens it by itself")
            return given.set(drivername="sqlite+aiosqlite", query={})
        case "postgresql" | "postgres":
            return _known(given, _PG_ARGUMENTS).set(drivername="postgresql+asyncpg")
        case "mysql" | "mariadb":
            found = _known(given, _MYSQL_ARGUMENTS)
            return found.set(drivername="mysql+asyncmy").update_query_dict(
                {} if "charset" in found.query else {"charset": "utf8mb4"}
            )
        case other:
            raise ConfigError(f"[database] connection: {other} is not supported; use sqlite, postgresql or mysql")


def _known(given: sa.URL, names: frozenset[str]) -> sa.URL:
    unknown = set(given.query) - names - _IGNORED
    if unknown:
        raise ConfigError(
            f"[database] connection: unknown argument {', '.join(sorted(unknown))};"
            f" known are {', '.join(sorted(names))}"
        )
    return given.difference_update_query(_IGNORED)


def engine(settings: DatabaseSettings, **options: Any) -> AsyncEngine:
    """A pool that opens connections when they are first needed, each set up once for its life."""
    target = url(settings)
    backend = target.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        directory = Path(target.database or ".").absolute().parent
        if not directory.is_dir():
            raise ConfigError(f"[database] connection: the directory {directory} does not exist; create it")
        arguments = {"timeout": LOCK_TIME, "isolation_level": None}
    elif backend == "postgresql":
        target, tls = _postgresql_tls(target)
        arguments = {
            "timeout": CONNECT_TIME,
            "ssl": tls,
            "server_settings": {
                "application_name": str(target.query.get("application_name", "xloud-image")),
                "timezone": "UTC",
                "jit": "off",  # compiling a page query takes longer than running it
                # it would rather walk all images by age, sorting as it goes, than take the index made for the list
                "enable_incremental_sort": "off",
                "lock_timeout": f"{LOCK_TIME}s",
                "idle_in_transaction_session_timeout": "60s",  # a node that froze lets go of its locks
            },
        }
        target = target.difference_update_query(["application_name"])
    else:
        arguments = {"connect_timeout": CONNECT_TIME}
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
    }
    made = create_async_engine(target, connect_args=arguments, hide_parameters=True, **(pool | options))
    setup = {
        "sqlite": _SQLITE,
        "mysql": [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            # crossing several indexes of few values each reads far more than the one index made for the list
            "SET SESSION optimizer_switch = 'index_merge_intersection=off'",
            f"SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_TIME}",
            # estimates from the statistics, not by looking up each id of a page in each index beforehand
            "SET SESSION eq_range_index_dive_limit = 2",
            *([f"SET SESSION sql_mode = {_quoted(settings.mysql_sql_mode)}"] if settings.mysql_sql_mode else []),
        ],
    }.get(backend, [])

    def on_connect(dbapi: Any, record: Any) -> None:
        record.info["opened"] = time.monotonic()
        if not setup:
            return
        cursor = dbapi.cursor()
        for statement in setup:
            cursor.execute(statement)
        cursor.close()

    sa.event.listen(made.sync_engine, "connect", on_connect)
    return made


# An acknowledged change survives a power cut: with WAL, only FULL syncs the log at each commit.
_SQLITE: Final = [
    f"PRAGMA busy_timeout = {LOCK_TIME * 1000}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
]


def _quoted(mode: str) -> str:
    if not all(c.isalnum() or c in "_," for c in mode):
        raise ConfigError("[database] mysql_sql_mode: only names of modes, with commas between them")
    return f"'{mode}'"


def _postgresql_tls(given: sa.URL) -> tuple[sa.URL, ssl.SSLContext | str | bool]:
    """libpq's words for TLS as asyncpg takes them. verify-ca and verify-full need sslrootcert or the system's CAs."""
    query = {name: str(value) for name, value in given.query.items()}
    bare = given.difference_update_query(["ssl", "sslmode", "sslrootcert", "sslcert", "sslkey"])
    mode = query.get("sslmode") or query.get("ssl") or ("verify-full" if "sslrootcert" in query else "prefer")
    if mode in ("disable", "allow", "prefer") or (mode == "require" and "sslrootcert" not in query):
        if "sslcert" not in query:
            return bare, mode
    elif mode not in ("require", "verify-ca", "verify-full"):
        raise ConfigError(f"[database] connection: sslmode={mode} is unknown")
    try:
        context = ssl.create_default_context(cafile=query.get("sslrootcert"))
        context.check_hostname = mode == "verify-full"
        # as libpq: "require" verifies only when it is told by which CA
        if mode in ("disable", "allow", "prefer") or (mode == "require" and "sslrootcert" not in query):
            context.verify_mode = ssl.CERT_NONE
        if "sslcert" in query:
            context.load_cert_chain(query["sslcert"], query.get("sslkey"))
    except OSError as error:
        raise ConfigError(f"[database] connection: a TLS file cannot be used: {error}") from error
    return bare, context
