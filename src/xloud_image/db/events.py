"""The outboxes: events (`events.Event`) that are not sent yet, in the order of their numbers; and whose turn it is to
send them. What sends them is `services.relay`.

CHANGES holds what was committed with its change: two changes of one image come one after the other, because each holds
the image, and so do their numbers. AUDIT holds what calls were made: so many that they have a box and a sender of their
own, and nobody who counts bytes waits behind them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.engine import Database
from xloud_image.db.leases import Leases, free, now
from xloud_image.db.tables import audit, events, turns
from xloud_image.events import Event, Level, Payload

_SOME: Final = 1000  # rows that are dropped in one transaction


@dataclasses.dataclass(frozen=True, slots=True)
class Unsent:
    """An event as it is sent, and its row's number."""

    number: int
    id: str
    type: str
    level: Level
    payload: Payload = dataclasses.field(repr=False)
    made_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Who sends, or did so last; `free`: anybody may now."""

    holder: str | None
    free: bool


def _unsent(row: Sequence[Any]) -> Unsent:
    made = sql.instant(row[5])
    assert made is not None
    return Unsent(int(row[0]), row[1], row[2], row[3], orjson.loads(row[4]), made)


class Outbox:
    """One of them. `table`: its events; `turn`: the row of `turns` that says who sends them; `what`: what they are."""

    def __init__(self, table: sa.Table, turn: str, what: str) -> None:
        self._table, self._turn, self.what = table, turn, what
        self._leases = Leases(turns)

    @property
    def table(self) -> str:
        """The table's name."""
        return self._table.name

    async def store(self, conn: AsyncConnection, told: Sequence[Event]) -> None:
        """Store events, by one statement."""
        await sql.insert(conn, self._table.name, [event.row for event in told])

    async def take_turn(self, conn: AsyncConnection, holder: str, *, lease: float, was: str | None = None) -> bool:
        """Whether it is this process that sends, for `lease` seconds from now. `was`: a holder known to be dead."""
        if await self._leases.renew(conn, self._turn, holder, lease=lease):
            return True
        return await self._leases.take(conn, self._turn, holder, lease=lease, was=was)

    async def whose_turn(self, conn: AsyncConnection) -> Turn:
        """Whose turn it is to send."""
        is_free = free(sql.engine_of(conn))
        text = f"SELECT holder, CASE WHEN {is_free} THEN 1 ELSE 0 END FROM {turns.name} WHERE id = '{self._turn}'"  # noqa: S608
        rows = await sql.fetch(conn, text)
        return Turn(rows[0][0], bool(rows[0][1])) if rows else Turn(None, free=False)

    async def give_turn(self, conn: AsyncConnection, holder: str) -> None:
        """Another may send at once."""
        await self._leases.give_back(conn, self._turn, holder)

    async def first(self, conn: AsyncConnection, limit: int) -> list[Unsent]:
        """The next ones to be sent."""
        rows = await sql.fetch(
            conn,
            f"SELECT number, id, type, level, payload, made_at FROM {self._table.name}"  # noqa: S608 - constants
            f" WHERE held_for IS NULL ORDER BY number LIMIT {int(limit)}",
        )
        return [_unsent(row) for row in rows]

    async def remove(self, conn: AsyncConnection, numbers: Collection[int]) -> None:
        """These were sent."""
        some = ", ".join(str(int(number)) for number in numbers)  # as text it costs a quarter
        await sql.fetch(conn, f"DELETE FROM {self._table.name} WHERE number IN ({some or 'NULL'})")  # noqa: S608

    async def waiting(self, conn: AsyncConnection) -> tuple[int, float]:
        """How many wait, and for how many seconds the first one does."""
        rows = await sql.fetch(conn, f"SELECT count(*), min(made_at) FROM {self._table.name}")  # noqa: S608 - constants
        oldest = sql.instant(rows[0][1])
        if oldest is None:
            return 0, 0.0
        [[at]] = await sql.fetch(conn, f"SELECT {now(sql.engine_of(conn))}")
        here = sql.instant(at)
        assert here is not None
        return int(rows[0][0]), max(0.0, (here - oldest).total_seconds())

    async def drop(self, db: Database, *, most: int, hours: float) -> int:
        """Drop the oldest ones: those beyond so many, and those older than that. How many."""

        async def beyond(conn: AsyncConnection) -> int:
            counted = await sql.fetch(
                conn,
                f"SELECT number FROM {self._table.name} ORDER BY number DESC LIMIT 1 OFFSET {int(most)}",  # noqa: S608
            )
            aged = await sql.fetch(
                conn,
                f"SELECT max(number) FROM {self._table.name} WHERE made_at < {now(sql.engine_of(conn), -3600 * hours)}",  # noqa: S608
            )
            return max([int(row[0]) for row in (*counted, *aged) if row[0] is not None], default=0)

        last = await db.read(beyond)
        dropped = 0
        while last:

            async def some(conn: AsyncConnection) -> int:
                rows = await sql.fetch(
                    conn,
                    f"SELECT number FROM {self._table.name} WHERE number <= {last} ORDER BY number LIMIT {_SOME}",  # noqa: S608
                )
                await self.remove(conn, [int(row[0]) for row in rows])
                return len(rows)

            found = await db.write(some)
            dropped += found
            if found < _SOME:
                break
        return dropped


CHANGES: Final = Outbox(events, "events", "notifications")
AUDIT: Final = Outbox(audit, "audit", "audit events")


async def release(conn: AsyncConnection, image_id: str) -> None:
    """What was held for an image is certain now: it may be sent. May be repeated."""
    await conn.execute(events.update().where(events.c.held_for == image_id).values(held_for=None))


async def forget(conn: AsyncConnection, image_id: str) -> None:
    """What was held for an image was undone: it never happened."""
    await conn.execute(events.delete().where(events.c.held_for == image_id))
