"""Connections and transactions: how the service reads from and writes to whichever engine. No table is named here.

All connections are in the driver's autocommit mode: a read is one round trip per statement, without BEGIN and
ROLLBACK around it. A write sends its own BEGIN (SQLite: BEGIN IMMEDIATE) and COMMIT.
State: the pool is per process, opened by `start` after the fork; nothing is shared but the database itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import arguments, connect, connection_errors, sql
from xloud_image.db.dialect_errors import Meaning, meaning, translate
from xloud_image.errors import DatabaseUnavailable
from xloud_image.events import Event

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
Change = Callable[["Tx"], Awaitable[T]]

READ_TIME: Final = 15.0  # seconds for a whole read, waiting for a connection and the second try included
WRITE_TIME: Final = 25.0  # seconds for a whole write, with all its runs; more than the engines' lock waits
RUNS: Final = 8  # of one write, when the database gives it up because of others

# a new connection may lead to another server: the one that takes changes now
_OTHER_SERVER: Final = (Meaning.LOST, Meaning.READ_ONLY)
_BEGIN: Final = {
    "sqlite": "BEGIN IMMEDIATE",  # the write lock first: a read that turns into a write could only fail
    "postgresql": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "mysql": "START TRANSACTION",
}


class Tx(AsyncConnection):
    """The connection of one run of a transaction. What is emitted is stored with the change by one more statement, or
    with it not at all; a run that is repeated is another Tx, so nothing is told twice.
    """

    __slots__ = ("_events", "_wanted")

    def __init__(self, engine: AsyncEngine, wanted: Callable[[str], bool]) -> None:
        super().__init__(engine)
        self._wanted = wanted
        self._events: list[Event] = []

    def wants(self, kind: str) -> bool:
        """Whether events of this type are told at all."""
        return self._wanted(kind)

    def emit(self, event: Event) -> None:
        """Tell this of the change, once it is committed. Nobody hears what the operator does not want."""
        if self._wanted(event.type):
            self._events.append(event)

    def tell(self, kind: str, payload: Callable[..., Mapping[str, Any]], *of: Any, **more: Any) -> None:
        """Emit an event of this type; its payload is made of the rest, and only when somebody wants it."""
        if self._wanted(kind):
            self._events.append(Event(kind, payload(*of, **more)))

    async def store_events(self) -> bool:
        """Store what was emitted; whether there was any."""
        if self._events:
            await sql.insert(self, "xloud_events", [event.row for event in self._events])
        return bool(self._events)


def tell(conn: AsyncConnection, kind: str, payload: Callable[..., Mapping[str, Any]], *of: Any, **more: Any) -> None:
    """`Tx.tell`, for the modules of tables: outside of a transaction nothing is told."""
    if isinstance(conn, Tx):
        conn.tell(kind, payload, *of, **more)


class Database:
    """One database. `read` and `write` raise only `errors.*` for anything that the database does.

    wanted: which types of events are stored. `told` is called when some were committed; set by the process that knows
    who sends them.
    """

    def __init__(self, settings: DatabaseSettings, wanted: Callable[[str], bool] = lambda _: False) -> None:
        self._settings = settings
        self._wanted = wanted
        self.told: Callable[[], None] = lambda: None
        self._engine: AsyncEngine | None = None
        self._writer: asyncio.Lock | None = None
        self._lost_at = 0.0

    @property
    def engine(self) -> AsyncEngine:
        """The pool; only between `start` and `aclose`."""
        if self._engine is None:
            raise DatabaseUnavailable("The database is not started.")
        return self._engine

    async def start(self) -> None:
        """Open the pool and the first connection, with the retries of the settings. Call it after the fork.

        DatabaseUnavailable after the last retry; ConfigError for a connection URL that cannot be served.
        """
        self._engine = connect.engine(self._settings)
        if self._engine.dialect.name == "sqlite":
            # in the process writers queue fairly; between processes SQLite's own lock with its busy time decides
            self._writer = asyncio.Lock()
        sa.event.listen(self._engine.sync_engine, "checkout", self._on_checkout)
        tries = self._settings.max_retries
        while True:
            try:
                await self.check()
                return
            except DatabaseUnavailable as error:
                if reason := connection_errors.explain(error, arguments.read(self._settings)):
                    _LOG.warning("%s", reason.message)
                if tries == 0:
                    await self.aclose()
                    raise
            tries -= 1
            await asyncio.sleep(self._settings.retry_interval)

    async def aclose(self) -> None:
        """Close all connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def check(self) -> None:
        """One round trip; DatabaseUnavailable when there is no answer in time."""
        await self.read(lambda conn: sql.fetch(conn, "SELECT 1"))

    async def read(self, work: Work[T]) -> T:
        """Run `work` with a connection outside of a transaction. A lost connection is tried once more."""
        try:
            async with asyncio.timeout(READ_TIME):
                try:
                    return await self._run(work)
                except Exception as error:
                    if meaning(error) not in (*_OTHER_SERVER, Meaning.AGAIN):
                        raise
                    self._lost(error)
                return await self._run(work)
        except Exception as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    async def write(self, work: Change[T]) -> T:
        """Run `work` in one transaction and commit it.

        `work` is run again, from its start, when the database gives the transaction up because of others (deadlock,
        serialization), or once when the connection is lost before COMMIT was sent. So it must have no effect but in
        the database. An answer lost after COMMIT was sent is DatabaseUnavailable: nobody can know the outcome.
        """
        try:
            async with asyncio.timeout(WRITE_TIME):
                lost = 0
                for run in range(RUNS):
                    try:
                        if self._writer is None:
                            return await self._change(work)
                        async with self._writer:
                            return await self._change(work)
                    except _Uncertain:
                        raise
                    except Exception as error:
                        found = meaning(error)
                        lost += found in _OTHER_SERVER
                        self._lost(error)
                        if found not in (*_OTHER_SERVER, Meaning.AGAIN) or lost > 1 or run == RUNS - 1:
                            raise
                    await asyncio.sleep(random.uniform(0, 0.01 * 2**run))  # noqa: S311 - no secret, it spreads runs
            raise AssertionError("unreachable")
        except _Uncertain as error:
            full = error.__cause__ is not None and meaning(error.__cause__) is Meaning.FULL
            why = "The disk of the database became full" if full else "The database went away"
            raise DatabaseUnavailable(f"{why} while it stored the change; it may or may not be stored.") from error
        except Exception as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    async def _run(self, work: Work[T]) -> T:
        async with self.engine.connect() as conn:
            return await work(conn)

    async def _change(self, work: Change[T]) -> T:
        tx = Tx(self.engine, self._wanted)
        async with tx:
            engine = sql.engine_of(tx)
            try:
                await sql.fetch(tx, _BEGIN[engine])
                result = await work(tx)
                told = await tx.store_events()
            except BaseException as error:
                await _undo(tx, error)
                raise
            try:
                await sql.fetch(tx, "COMMIT")
            except BaseException as error:
                await _undo(tx, error)
                # without room it is rolled back; of MariaDB that cannot be told from one that had begun to store it
                known = (Meaning.AGAIN,) if engine == "mysql" else (Meaning.AGAIN, Meaning.FULL)
                if isinstance(error, Exception) and meaning(error) not in known:
                    raise _Uncertain from error
                raise
        if told:
            self.told()
        return result

    def _lost(self, error: BaseException) -> None:
        # the others in the pool were opened to the same server: none of them is used again unseen
        if meaning(error) in _OTHER_SERVER:
            self._lost_at = time.monotonic()

    def _on_checkout(self, _dbapi: Any, record: Any, _proxy: Any) -> None:
        if record.info["opened"] <= self._lost_at:
            raise sa.exc.InvalidatePoolError("the server went away after this connection was opened")

    @staticmethod
    def _told(error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            return DatabaseUnavailable("The database does not answer in time; try again later.")
        return translate(error)


class _Uncertain(Exception):
    """COMMIT was sent and not answered."""


async def _undo(conn: AsyncConnection, error: BaseException) -> None:
    """Roll back, or drop a connection whose state is unknown; either way nothing of the transaction stays."""
    if isinstance(error, Exception) and meaning(error) not in _OTHER_SERVER and not conn.invalidated:
        try:
            await sql.fetch(conn, "ROLLBACK")
            return
        except Exception:  # noqa: BLE001, S110 - the connection is dropped below
            pass
    if not conn.invalidated:
        await conn.invalidate()
