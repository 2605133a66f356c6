"""SQL text run straight on the driver: all reads, and the writes that every request makes. Knows placeholders and value
forms of the engines, no table.

Why not SQLAlchemy's statements here: a read costs an eighth of the CPU this way (docs/decisions/2-statements.md).
The text is put together only from constants of this package; every value goes through `bind`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

Engine = Literal["sqlite", "postgresql", "mysql"]
Rows = Sequence[Sequence[Any]]

# shown of a row that must have a time and has none that is one
NEVER: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as the columns have it


def engine_of(conn: AsyncConnection) -> Engine:
    """Which of the three engines `conn` talks to; MariaDB counts as mysql."""
    name = conn.dialect.name
    return "mysql" if name == "mariadb" else name  # type: ignore[return-value]


class Text:
    """A statement under construction: `bind` gives the placeholder for a value, in the order of the text."""

    __slots__ = ("engine", "hints", "values")

    def __init__(self, engine: Engine, *, hints: bool = True) -> None:
        self.engine: Final = engine
        self.hints: Final = hints  # whether indexes may be named
        self.values: list[Any] = []

    def bind(self, value: Any) -> str:
        """Call in the order in which the placeholders stand in the text."""
        if self.engine == "sqlite":
            # as SQLAlchemy (and so Glance) stores them: always with six digits, so that text order is time order
            if isinstance(value, dt.datetime):
                value = value.isoformat(sep=" ", timespec="microseconds")
            self.values.append(value)
            return "?"
        self.values.append(value)
        return "%s" if self.engine == "mysql" else f"${len(self.values)}"

    def any_of(self, column: str, values: Iterable[str]) -> str:
        """The condition that a text column has one of these values."""
        found = tuple(values)
        if self.engine == "postgresql":
            # one text for every count: one prepared statement
            return f"{column} = ANY({self.bind(found)}::text[])"
        return f"{column} IN ({', '.join([self.bind(v) for v in found])})" if found else "1 = 0"


async def fetch(conn: AsyncConnection, sql: str, values: Sequence[Any] = ()) -> Rows:
    """All rows of one statement. Driver errors pass; `engine.Database` translates them."""
    sync = conn.sync_connection
    assert sync is not None
    driver: Any = sync.connection.driver_connection
    try:
        match conn.dialect.name:
            case "postgresql":
                return await driver.fetch(sql, *values)  # type: ignore[no-any-return]
            case "sqlite":
                return await driver.execute_fetchall(sql, values)  # type: ignore[no-any-return]
            case _:
                async with driver.cursor() as cursor:
                    await cursor.execute(sql, values or None)  # with values, a percent sign is a placeholder
                    return await cursor.fetchall()  # type: ignore[no-any-return]
    except BaseException as error:
        if not isinstance(error, Exception):
            # cancelled in the middle of an answer: what is left on the wire must not be taken for the next one
            await conn.invalidate()
        raise


async def bounded(conn: AsyncConnection, sql: str, values: Sequence[Any], seconds: float) -> Rows:
    """All rows of one SELECT, which the server itself gives up after so long: nothing goes on there when nobody waits
    for it any more. Driver errors pass; TimeoutError."""
    sync = conn.sync_connection
    assert sync is not None
    driver: Any = sync.connection.driver_connection
    match conn.dialect.name:
        case "postgresql":
            return await driver.fetch(sql, *values, timeout=seconds)  # type: ignore[no-any-return]
        case "sqlite":
            loop = asyncio.get_running_loop()
            timer = loop.call_later(seconds, lambda: loop.create_task(driver.interrupt()))
            try:
                return await fetch(conn, sql, values)
            finally:
                timer.cancel()
        case _ if getattr(conn.dialect, "is_mariadb", False):
            return await fetch(conn, f"SET STATEMENT max_statement_time = {seconds:f} FOR {sql}", values)
        case _:
            limited = sql.replace("SELECT", f"SELECT /*+ MAX_EXECUTION_TIME({int(1000 * seconds)}) */", 1)
            return await fetch(conn, limited, values)


async def insert(conn: AsyncConnection, table: str, rows: Sequence[Mapping[str, Any]], conflict: str = "") -> None:
    """Insert rows that all have the same columns; `conflict`: what follows the values. Driver errors pass."""
    text = Text(engine_of(conn))
    places = ", ".join([f"({', '.join([text.bind(value) for value in row.values()])})" for row in rows])
    await fetch(conn, f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES {places} {conflict}", text.values)  # noqa: S608 - constants


async def update(conn: AsyncConnection, table: str, values: Mapping[str, Any], **where: Any) -> None:
    """Set these columns in the rows whose columns equal all of `where`. Driver errors pass."""
    text = Text(engine_of(conn))
    news = ", ".join([f"{name} = {text.bind(value)}" for name, value in values.items()])
    olds = " AND ".join([f"{name} = {text.bind(value)}" for name, value in where.items()])
    await fetch(conn, f"UPDATE {table} SET {news} WHERE {olds}", text.values)  # noqa: S608 - constants


def instant(value: Any) -> dt.datetime | None:
    """A time as a driver gives it: SQLite gives text, MariaDB text where it is no time ("0000-00-00 00:00:00"),
    PostgreSQL what `connect` makes of such. None is unknown, and so is what is no time: one row that somebody broke
    must not take the list from everybody."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        return None
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def made(value: Any) -> dt.datetime:
    """A time that each row has; NEVER where it is none."""
    return instant(value) or NEVER
