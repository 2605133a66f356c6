"""Leases on the rows of a table of ours: who works on a row, and until when nobody else may. What a row means is told
by the modules that own tables.

Times come from the database's clock, in the statement itself: the nodes' clocks may differ, and a lease that one
node gave must not look expired to another. SQLite has one node; its clock is that node's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql


def now(engine: sql.Engine, seconds: float = 0) -> str:
    """The database's time in UTC, so many seconds from now, as SQL to be compared with our columns."""
    ahead = float(seconds)
    match engine:
        case "sqlite":
            # three digits are what it has; six are what the columns have
            return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{ahead:+f} seconds') || '000'"
        case "postgresql":
            return f"(timezone('utc', statement_timestamp()) + interval '{ahead:f} seconds')"
        case _:
            return f"(utc_timestamp(6) + interval {ahead:f} second)"


def after(conn: AsyncConnection, seconds: float = 0) -> sa.ColumnElement[Any]:
    """The same as a value for a column."""
    return sa.literal_column(now(sql.engine_of(conn), seconds))


def free(engine: sql.Engine, prefix: str = "") -> str:
    """The condition, as SQL, that nobody holds a row now. `prefix`: of its columns, with the dot."""
    return f"({prefix}lease_until IS NULL OR {prefix}lease_until < {now(engine)})"


class Leases:
    """The leases of one table. Its columns: `id`, `holder`, `lease_until`, `begun_at` (who waits longest), `attempts`
    and `error` (of the last one that failed).

    A row with a holder is worked on; without one it waits until `lease_until` for its next attempt.
    """

    def __init__(self, table: sa.Table) -> None:
        self._table = table

    @staticmethod
    def begun(conn: AsyncConnection, holder: str | None, lease: float) -> dict[str, Any]:
        """Values of a new row, held for `lease` seconds; 0, or no holder: anyone may take it at once."""
        until = after(conn, lease) if holder is not None and lease else None
        return {"holder": holder, "lease_until": until, "begun_at": after(conn)}

    async def renew(self, conn: AsyncConnection, row_id: str, holder: str, *, lease: float) -> bool:
        """Hold on for `lease` more seconds from now. False: it is not ours (any more), stop working on it."""
        return await self._update(conn, *self._held(row_id, holder), lease_until=after(conn, lease))

    async def renew_all(self, conn: AsyncConnection, holder: str, row_ids: Collection[str], *, lease: float) -> None:
        """Hold on to those of these rows that are still ours for `lease` more seconds from now."""
        columns = self._table.c
        await self._update(conn, columns.holder == holder, columns.id.in_(row_ids), lease_until=after(conn, lease))

    async def take(
        self,
        conn: AsyncConnection,
        row_id: str,
        holder: str,
        *,
        lease: float,
        was: str | None = None,
        idle: bool = False,
    ) -> bool:
        """Take an expired row, or one that `was` (a holder known to be dead) holds, atomically.

        `idle`: also one that waits for its next attempt. False when it is held by another, or was taken by another
        first, or is gone.
        """
        columns = self._table.c
        may = sa.or_(columns.lease_until.is_(None), columns.lease_until < after(conn))
        if idle:
            may = sa.or_(may, columns.holder.is_(None))
        if was is not None:
            may = sa.or_(may, columns.holder == was)
        return await self._update(conn, columns.id == row_id, may, holder=holder, lease_until=after(conn, lease))

    async def postpone(
        self, conn: AsyncConnection, row_id: str, holder: str, *, seconds: float, error: str, failed: bool = True
    ) -> bool:
        """It did not work: nobody takes it for so long; the error stays visible, and unless it was nobody's fault the
        attempt is counted. What was cut off by the end of a process is no attempt. False: it is not ours."""
        return await self._update(
            conn,
            *self._held(row_id, holder),
            holder=None,
            lease_until=after(conn, seconds),
            error=error[:1000],
            attempts=self._table.c.attempts + int(failed),
        )

    async def give_back(self, conn: AsyncConnection, row_id: str, holder: str, *, last: bool = False) -> bool:
        """Anyone may take it at once; `last`: after all that wait already. False: `holder` does not hold it."""
        end = {"begun_at": after(conn)} if last else {}
        return await self._update(conn, *self._held(row_id, holder), holder=None, lease_until=None, **end)

    async def end(self, conn: AsyncConnection, row_id: str, holder: str | None = None) -> bool:
        """Remove a row; with `holder` only if it still holds it. False: it was not there, or not ours."""
        where = self._held(row_id, holder) if holder is not None else (self._table.c.id == row_id,)
        done = await conn.execute(self._table.delete().where(*where))
        return bool(done.rowcount)

    def _held(self, row_id: str, holder: str) -> tuple[sa.ColumnElement[bool], ...]:
        return self._table.c.id == row_id, self._table.c.holder == holder

    async def _update(self, conn: AsyncConnection, *where: sa.ColumnElement[bool], **values: Any) -> bool:
        done = await conn.execute(self._table.update().where(*where).values(**values))
        return bool(done.rowcount)
