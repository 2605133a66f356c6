"""What a driver's error means: lost connection, run again, unfit value, or the database's own trouble.

The one place that knows error numbers. Sentences here are for clients: no SQL, no address, no value.
"""

from __future__ import annotations

import enum
import sqlite3
from typing import Any, Final

import sqlalchemy as sa

from xloud_image.errors import BadRequest, DatabaseFull, DatabaseUnavailable


class Meaning(enum.Enum):
    """What to do about it."""

    LOST = enum.auto()  # the connection is gone; nothing says that the statement ran
    AGAIN = enum.auto()  # the database gave up this transaction whole; run it again
    UNFIT = enum.auto()  # a value that the column cannot hold
    TAKEN = enum.auto()  # a unique key
    ABSENT = enum.auto()  # a table, column or index is not there
    FULL = enum.auto()  # no room on the database's disk; the statement did nothing
    READ_ONLY = enum.auto()  # it takes no changes: a replica, a file that may not be written
    CROWDED = enum.auto()  # it has as many connections as it takes
    REFUSED = enum.auto()  # it does not let us in, or not do this
    DAMAGED = enum.auto()  # its file is no sound database
    SLOW = enum.auto()  # a statement was given up for its time
    OTHER = enum.auto()
    FOREIGN = enum.auto()  # no error of a database: a fault of ours, or an answer like NotFound


_PG_AGAIN: Final = {"40001", "40P01", "55P03"}  # serialization, deadlock, lock not available in time
_PG_LOST: Final = {"57P01", "57P02", "57P03"}  # shut down, crashed, starting
_PG_OTHERS: Final = {
    "53100": Meaning.FULL,
    "25006": Meaning.READ_ONLY,  # a replica after failover
    "53300": Meaning.CROWDED,
    "28000": Meaning.REFUSED,
    "28P01": Meaning.REFUSED,
    "42501": Meaning.REFUSED,
    "XX001": Meaning.DAMAGED,
    "XX002": Meaning.DAMAGED,
    "23505": Meaning.TAKEN,
    "57014": Meaning.SLOW,
    "42P01": Meaning.ABSENT,
    "42703": Meaning.ABSENT,
    "3D000": Meaning.ABSENT,
}
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
    2002,
    2003,
    2006,
    2013,
    2014,
    2055,
    4031,
    1927,
}
_MY_OTHERS: Final = {
    1021: Meaning.FULL,
    1114: Meaning.FULL,  # of a table: its disk, or its greatest size
    28: Meaning.FULL,
    135: Meaning.FULL,
    1290: Meaning.READ_ONLY,
    1792: Meaning.READ_ONLY,
    1836: Meaning.READ_ONLY,
    1036: Meaning.READ_ONLY,
    1040: Meaning.CROWDED,
    1203: Meaning.CROWDED,
    1226: Meaning.CROWDED,
    1969: Meaning.SLOW,
    3024: Meaning.SLOW,
    1044: Meaning.REFUSED,
    1045: Meaning.REFUSED,
    1142: Meaning.REFUSED,
    1143: Meaning.REFUSED,
    1227: Meaning.REFUSED,
    1370: Meaning.REFUSED,
    1698: Meaning.REFUSED,
    1034: Meaning.DAMAGED,
    1194: Meaning.DAMAGED,
    1062: Meaning.TAKEN,
    1146: Meaning.ABSENT,
    1054: Meaning.ABSENT,
    1049: Meaning.ABSENT,
    1176: Meaning.ABSENT,
}
_LITE_OTHERS: Final = {
    sqlite3.SQLITE_BUSY: Meaning.AGAIN,
    sqlite3.SQLITE_LOCKED: Meaning.AGAIN,
    sqlite3.SQLITE_TOOBIG: Meaning.UNFIT,
    sqlite3.SQLITE_MISMATCH: Meaning.UNFIT,
    sqlite3.SQLITE_INTERRUPT: Meaning.SLOW,
    sqlite3.SQLITE_FULL: Meaning.FULL,
    sqlite3.SQLITE_READONLY: Meaning.READ_ONLY,
    sqlite3.SQLITE_PERM: Meaning.REFUSED,
    sqlite3.SQLITE_AUTH: Meaning.REFUSED,
    sqlite3.SQLITE_CANTOPEN: Meaning.REFUSED,
    sqlite3.SQLITE_CORRUPT: Meaning.DAMAGED,
    sqlite3.SQLITE_NOTADB: Meaning.DAMAGED,
}
# where SQLite finds no room for what it writes beside the data: its log's index grows, a file is extended
_LITE_NO_ROOM: Final = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE}
# `Got error 28 "No space left on device" from storage engine`: the number of the system stands in the text
_MY_SYSTEM: Final = frozenset({1026, 1030, 1180, 3, 20})
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
        return _of_mysql(number, str(error))
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
    if code in _LITE_NO_ROOM:
        return Meaning.FULL
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        return Meaning.TAKEN
    if str(error).startswith(("no such table", "no such column")):
        return Meaning.ABSENT
    return _LITE_OTHERS.get(code & 0xFF, Meaning.OTHER)


def _of_postgresql(state: str) -> Meaning:
    if state in _PG_AGAIN:
        return Meaning.AGAIN
    if state in _PG_UNFIT:
        return Meaning.UNFIT
    if state in _PG_LOST or state.startswith("08"):
        return Meaning.LOST
    return _PG_OTHERS.get(state, Meaning.OTHER)


def _of_asyncpg(error: BaseException) -> Meaning:
    # errors of asyncpg itself, without a server's code
    name = type(error).__name__
    if name == "DataError":
        return Meaning.UNFIT
    if name in ("ConnectionDoesNotExistError", "InterfaceError", "InternalClientError"):
        return Meaning.LOST
    return Meaning.OTHER


def _of_mysql(number: int, text: str) -> Meaning:
    if number in _MY_AGAIN:
        return Meaning.AGAIN
    if number in _MY_UNFIT:
        return Meaning.UNFIT
    if number in _MY_LOST or number == 0:
        return Meaning.LOST
    if number in _MY_SYSTEM and ("No space left" in text or "error 28" in text or "rrcode: 28" in text):
        return Meaning.FULL
    return _MY_OTHERS.get(number, Meaning.OTHER)


def translate(error: Exception) -> Exception:
    """The error for the client; what is FOREIGN stays itself. The driver's own goes along as the cause, for the log."""
    match meaning(error):
        case Meaning.FOREIGN:
            return error
        case Meaning.ABSENT:
            return DatabaseUnavailable(
                "The database is not set up for this service; its operator runs: xloud-image db upgrade (with the"
                " --config-dir, or XLOUD_IMAGE_STATE, of the service)"
            )
        case Meaning.UNFIT:
            return BadRequest(
                "A value is outside of what the database in use can hold: a character outside its character set "
                "(such as an emoji, or NUL), a text that is too long, or a number that is too large."
            )
        case Meaning.FULL:
            return DatabaseFull(
                "The disk of the database is full, so nothing was stored; its operator has to make room there."
            )
        case Meaning.READ_ONLY:
            return DatabaseUnavailable("The database takes no changes now: it is read-only; its operator knows why.")
        case Meaning.CROWDED:
            return DatabaseUnavailable("The database has as many connections as it takes; try again later.")
        case Meaning.REFUSED:
            return DatabaseUnavailable(
                "The database does not let the service in; its operator looks at login and rights."
            )
        case Meaning.DAMAGED:
            return DatabaseUnavailable("The database is damaged; its operator has to restore it.")
        case Meaning.SLOW:
            return DatabaseUnavailable("The database does not answer in time; try again later.")
        case Meaning.AGAIN:
            return DatabaseUnavailable("The database is busy with other changes; try again.")
        case _:
            return DatabaseUnavailable("The database does not answer properly now; try again later.")
