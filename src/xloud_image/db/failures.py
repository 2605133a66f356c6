"""What a driver's error means: lost connection, run again, unfit value, or the database's own trouble.

The one place that knows error numbers. Sentences here are for clients: no SQL, no address, no value.
"""

from __future__ import annotations

import enum
import sqlite3
from typing import Any, Final

import sqlalchemy as sa

from xloud_image.errors import BadRequest, DatabaseUnavailable


class Meaning(enum.Enum):
    """What to do about it."""

    LOST = enum.auto()  # the connection is gone; nothing says that the statement ran
    AGAIN = enum.auto()  # the database gave up this transaction whole; run it again
    UNFIT = enum.auto()  # a value that the column cannot hold
    TAKEN = enum.auto()  # a unique key
    ABSENT = enum.auto()  # a table, column or index is not there
    OTHER = enum.auto()
    FOREIGN = enum.auto()  # no error of a database: a fault of ours, or an answer like NotFound


_PG_AGAIN: Final = {"40001", "40P01", "55P03"}  # serialization, deadlock, lock not available in time
_PG_LOST: Final = {
    "57P01",
    "57P02",
    "57P03",
    "25006",
}  # shut down, crashed, starting, a replica after failover
_PG_UNFIT: Final = {"22021", "22P05", "22P02", "22001", "22003", "22007", "22008", "22000"}
_MY_AGAIN: Final = {1205, 1213, 1020, 3572}
_MY_LOST: Final = {
    1053,
    1077,
    1079,
    1152,
    1159,
    1161,
    1184,
    1290,
    1836,
    2002,
    2003,
    2006,
    2013,
    2014,
    2055,
    4031,
    1927,
}
_MY_UNFIT: Final = {1366, 1406, 1264, 1292, 1267, 1270, 1271, 1300, 3854, 1048}


def meaning(error: BaseException) -> Meaning:
    """Classify an error of SQLAlchemy or of a driver."""
    if isinstance(error, sa.exc.DBAPIError):
        if error.connection_invalidated:
            return Meaning.LOST
        if error.orig is not None:
            return meaning(error.orig)
    if isinstance(error, UnicodeError | OverflowError):
        return Meaning.UNFIT
    if isinstance(error, OSError | EOFError):
        return Meaning.LOST
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    module = type(error).__module__.partition(".")[0]
    number = error.args[0] if error.args else None
    if module == "asyncmy" and isinstance(number, int):
        return _of_mysql(number)
    if module in ("asyncpg", "sqlalchemy"):
        state: Any = getattr(error, "sqlstate", None)
        if isinstance(state, str):
            return _of_postgresql(state)
    if module == "asyncpg":
        return _of_asyncpg(error)
    if module in ("asyncmy", "sqlalchemy"):
        # adapters wrap the driver's error once
        return meaning(error.__cause__) if isinstance(error.__cause__, Exception) else Meaning.OTHER
    return Meaning.FOREIGN


def _of_sqlite(error: sqlite3.Error) -> Meaning:
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Meaning.AGAIN
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        return Meaning.TAKEN
    if code & 0xFF in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
        return Meaning.UNFIT
    return Meaning.ABSENT if str(error).startswith(("no such table", "no such column")) else Meaning.OTHER


def _of_postgresql(state: str) -> Meaning:
    if state in _PG_AGAIN:
        return Meaning.AGAIN
    if state in _PG_UNFIT:
        return Meaning.UNFIT
    if state == "23505":
        return Meaning.TAKEN
    if state in ("42P01", "42703", "3D000"):
        return Meaning.ABSENT
    return Meaning.LOST if state in _PG_LOST or state.startswith("08") else Meaning.OTHER


def _of_asyncpg(error: BaseException) -> Meaning:
    # errors of asyncpg itself, without a server's code
    name = type(error).__name__
    if name == "DataError":
        return Meaning.UNFIT
    if name in ("ConnectionDoesNotExistError", "InterfaceError", "InternalClientError"):
        return Meaning.LOST
    return Meaning.OTHER


def _of_mysql(number: int) -> Meaning:
    if number in _MY_AGAIN:
        return Meaning.AGAIN
    if number in _MY_UNFIT:
        return Meaning.UNFIT
    if number in _MY_LOST or number == 0:
        return Meaning.LOST
    if number in (1146, 1054, 1049, 1176):
        return Meaning.ABSENT
    return Meaning.TAKEN if number == 1062 else Meaning.OTHER


def translate(error: Exception) -> Exception:
    """The error for the client; what is FOREIGN stays itself. The driver's own goes along as the cause, for the log."""
    match meaning(error):
        case Meaning.FOREIGN:
            return error
        case Meaning.ABSENT:
            return DatabaseUnavailable(
                "The database is not set up for this service; its operator runs: xloud-image db upgrade"
            )
        case Meaning.UNFIT:
            return BadRequest(
                "A value is outside of what the database in use can hold: a character outside its character set "
                "(such as an emoji, or NUL), a text that is too long, or a number that is too large."
            )
        case Meaning.AGAIN:
            return DatabaseUnavailable("The database is busy with other changes; try again.")
        case _:
            return DatabaseUnavailable("The database does not answer properly now; try again later.")
