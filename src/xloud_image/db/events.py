"""The outbox: events (`events.Event`) that were committed with their change and are not sent yet, in the order of their
numbers; and whose turn it is to send them. What sends them is `services.relay`.

Two changes of one image come one after the other, because each holds the image, and so do their numbers.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.engine import Database
from xloud_image.db.leases import Leases, free, now
from xloud_image.db.tables import events, turns
from xloud_image.events import Level, Payload

_TURN: Final = "events"  # the row of `turns`
_SOME: Final = 1000  # rows that are dropped in one transaction

_leases = Leases(turns)


@dataclasses.dataclass(frozen=True, slots=True)
class Unsent:
    """An event as it is sent, and its row's number."""

    number: int
    id: str
    type: str
    level: Level
    payload: Payload = dataclasses.field(repr=False)
    made_at: dt.datetime


async def take_turn(conn: AsyncConnection, holder: str, *, lease: float, was: str | None = None) -> bool:
    """Whether it is this process that sends, for `lease` seconds from now. `was`: a holder known to be dead."""
    if await _leases.renew(conn, _TURN, holder, lease=lease):
        return True
    return await _leases.take(conn, _TURN, holder, lease=lease, was=was)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Who sends, or did so last; `free`: anybody may now."""

    holder: str | None
    free: bool


async def whose_turn(conn: AsyncConnection) -> Turn:
    """Whose turn it is to send."""
    is_free = free(sql.engine_of(conn))
    text = f"SELECT holder, CASE WHEN {is_free} THEN 1 ELSE 0 END FROM {turns.name} WHERE id = '{_TURN}'"  # noqa: S608
    rows = await sql.fetch(conn, text)
    return Turn(rows[0][0], bool(rows[0][1])) if rows else Turn(None, free=False)


async def give_turn(conn: AsyncConnection, holder: str) -> None:
    """Another may send at once."""
    await _leases.give_back(conn, _TURN, holder)


async def first(conn: AsyncConnection, limit: int) -> list[Unsent]:
    """The next ones to be sent."""
    rows = await sql.fetch(
        conn,
        f"SELECT number, id, type, level, payload, made_at FROM {events.name}"  # noqa: S608 - constants
        f" WHERE held_for IS NULL ORDER BY number LIMIT {int(limit)}",
    )
    return [_unsent(row) for row in rows]


def _unsent(row: Sequence[Any]) -> Unsent:
    made = sql.instant(row[5])
    assert made is not None
    return Unsent(int(row[0]), row[1], row[2], row[3], orjson.loads(row[4]), made)


async def remove(conn: AsyncConnection, numbers: Collection[int]) -> None:
    """These were sent."""
    await conn.execute(events.delete().where(events.c.number.in_(numbers)))


async def release(conn: AsyncConnection, image_id: str) -> None:
    """What was held for an image is certain now: it may be sent. May be repeated."""
    await conn.execute(events.update().where(events.c.held_for == image_id).values(held_for=None))


async def forget(conn: AsyncConnection, image_id: str) -> None:
    """What was held for an image was undone: it never happened."""
    await conn.execute(events.delete().where(events.c.held_for == image_id))


async def waiting(conn: AsyncConnection) -> tuple[int, float]:
    """How many wait, and for how many seconds the first one does."""
    rows = await sql.fetch(conn, f"SELECT count(*), min(made_at) FROM {events.name}")  # noqa: S608 - constants
    oldest = sql.instant(rows[0][1])
    if oldest is None:
        return 0, 0.0
    [[at]] = await sql.fetch(conn, f"SELECT {now(sql.engine_of(conn))}")
    here = sql.instant(at)
    assert here is not None
    return int(rows[0][0]), max(0.0, (here - oldest).total_seconds())


async def drop(db: Database, *, most: int, hours: float) -> int:
    """Drop the oldest ones: those beyond so many, and those older than that. How many."""

    async def beyond(conn: AsyncConnection) -> int:
        counted = await sql.fetch(
            conn,
            f"SELECT number FROM {events.name} ORDER BY number DESC LIMIT 1 OFFSET {int(most)}",  # noqa: S608
        )
        aged = await sql.fetch(
            conn,
            f"SELECT max(number) FROM {events.name} WHERE made_at < {now(sql.engine_of(conn), -3600 * hours)}",  # noqa: S608
        )
        return max([int(row[0]) for row in (*counted, *aged) if row[0] is not None], default=0)

    last = await db.read(beyond)
    dropped = 0
    while last:

        async def some(conn: AsyncConnection) -> int:
            rows = await sql.fetch(
                conn,
                f"SELECT number FROM {events.name} WHERE number <= {last} ORDER BY number LIMIT {_SOME}",  # noqa: S608
            )
            await remove(conn, [int(row[0]) for row in rows])
            return len(rows)

        found = await db.write(some)
        dropped += found
        if found < _SOME:
            break
    return dropped
