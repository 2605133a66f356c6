"""What the tables hold, counted: for an operator's numbers. Each statement reads a whole table: none is
for requests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.leases import now
from xloud_image.db.tables import claims, jobs

# A property that a tenant sets becomes one of these words: no caller decides how many numbers there are.
_KINDS: Final = ("snapshot", "backup")


async def images(conn: AsyncConnection) -> Sequence[tuple[str, str, str, int, int]]:
    """(status, visibility, type, images, bytes); type: image, snapshot or backup, as Nova and Cinder mark them."""
    words = ", ".join(f"'{kind}'" for kind in _KINDS)
    kind = f"CASE WHEN p.value IN ({words}) THEN p.value ELSE 'image' END"
    rows = await sql.fetch(
        conn,
        f"SELECT i.status, i.visibility, {kind}, count(*), sum(COALESCE(i.size, 0)) FROM images i"  # noqa: S608
        " LEFT JOIN image_properties p ON p.image_id = i.id AND p.name = 'image_type' AND NOT p.deleted"
        f" WHERE NOT i.deleted GROUP BY i.status, i.visibility, {kind}",
    )
    return [(row[0], row[1], row[2], int(row[3]), int(row[4])) for row in rows]


async def claimed(conn: AsyncConnection) -> Sequence[tuple[str, str, int, float]]:
    """(kind, store, how many, age of the oldest in seconds) of claims: uploads, pending deletions."""
    rows = await _aged(conn, f"SELECT kind, store, count(*), min(begun_at) FROM {claims.name} GROUP BY kind, store")  # noqa: S608
    return [(str(row[0]), str(row[1]), count, age) for row, count, age in rows]


async def working(conn: AsyncConnection) -> Sequence[tuple[str, str, int, float]]:
    """(kind, state, how many, age of the oldest in seconds) of unfinished jobs; state: waiting or under way."""
    state = "CASE WHEN holder IS NULL THEN 'waiting' ELSE 'under way' END"
    words = f"SELECT kind, {state}, count(*), min(begun_at) FROM {jobs.name} GROUP BY kind, {state}"  # noqa: S608
    return [(str(row[0]), str(row[1]), count, age) for row, count, age in await _aged(conn, words)]


async def _aged(conn: AsyncConnection, words: str) -> list[tuple[Sequence[object], int, float]]:
    clock = await sql.fetch(conn, f"SELECT {now(sql.engine_of(conn))}")
    present = sql.instant(clock[0][0])
    assert present is not None
    found = []
    for row in await sql.fetch(conn, words):
        begun = sql.instant(row[3]) or present
        found.append((row, int(row[2]), max(0.0, (_plain(present) - _plain(begun)).total_seconds())))
    return found


def _plain(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=None)


async def each_image(
    conn: AsyncConnection, *, limit: int
) -> Sequence[tuple[str, str, str, str, int, float, str, bool, str]]:
    """(id, name, owner, type, bytes, created in seconds since 1970, visibility, hidden, status), the newest first."""
    rows = await sql.fetch(
        conn,
        "SELECT i.id, i.name, i.owner, p.value, i.size, i.created_at, i.visibility, i.os_hidden, i.status FROM images i"  # noqa: S608
        " LEFT JOIN image_properties p ON p.image_id = i.id AND p.name = 'image_type' AND NOT p.deleted"
        f" WHERE NOT i.deleted ORDER BY i.created_at DESC, i.id LIMIT {int(limit)}",
    )
    found = []
    for row in rows:
        created = sql.instant(row[5])
        seconds = created.replace(tzinfo=dt.UTC).timestamp() if created else 0.0
        kind = row[3] if row[3] in _KINDS else "image"
        owner, name, size = row[2] or "", row[1] or "", int(row[4] or 0)
        found.append((row[0], name, owner, kind, size, seconds, row[6], bool(row[7]), row[8]))
    return found
