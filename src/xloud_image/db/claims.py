"""Claims: our durable rows for bytes that no location shows (model.Claim), each under a lease. No store is touched.

Times come from the database's clock, in the statement itself: the nodes' clocks may differ, and a lease that one
node gave must not look expired to another. SQLite has one node; its clock is that node's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.tables import claims
from xloud_image.errors import Duplicate
from xloud_image.model import Claim

_ROW: Final = "id, kind, image_id, store, url, scope, holder, lease_until, begun_at, attempts, error"


def _now(engine: sql.Engine, seconds: float = 0) -> str:
    """The database's time in UTC, so many seconds from now, to be compared with our columns."""
    ahead = float(seconds)
    match engine:
        case "sqlite":
            # three digits are what it has; six are what the columns have
            return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{ahead:+f} seconds') || '000'"
        case "postgresql":
            return f"(timezone('utc', clock_timestamp()) + interval '{ahead:f} seconds')"
        case _:
            return f"(utc_timestamp(6) + interval {ahead:f} second)"


def _after(conn: AsyncConnection, seconds: float = 0) -> sa.ColumnElement[Any]:
    return sa.literal_column(_now(sql.engine_of(conn), seconds))


def _claim(row: Sequence[Any]) -> Claim:
    begun = sql.instant(row[8])
    assert begun is not None
    return Claim(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], sql.instant(row[7]), begun, row[9], row[10]
    )  # fmt: skip


def slot_of(kind: str, url: str | None) -> str:
    """What the rows of a kind for a URL have in their indexed column `slot`."""
    return hashlib.sha256(f"{kind} {url}".encode()).hexdigest()


async def begin(conn: AsyncConnection, claim: Claim, *, lease: float) -> None:
    """Store a claim, held by `claim.holder` for `lease` seconds; 0, or no holder: anyone may take it at once.

    Duplicate: a write of this image to this store has a claim already, or a delete of this URL.
    """
    slot = "write" if claim.kind == "write" else slot_of(claim.kind, claim.url)
    try:
        await conn.execute(
            claims.insert().values(
                id=claim.id,
                kind=claim.kind,
                image_id=claim.image_id,
                store=claim.store,
                slot=slot,
                url=claim.url,
                scope=claim.scope,
                holder=claim.holder,
                lease_until=_after(conn, lease) if claim.holder is not None and lease else None,
                begun_at=_after(conn),
                attempts=claim.attempts,
                error=claim.error,
            )
        )
    except sa.exc.IntegrityError as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(
            f"The data of image {claim.image_id} in store {claim.store} is being written or removed already."
        ) from error


async def renew(conn: AsyncConnection, claim_id: str, holder: str, *, lease: float) -> bool:
    """Hold on for `lease` more seconds from now. False: it is not ours (any more), stop working on it."""
    return await _update(conn, (claims.c.id == claim_id, claims.c.holder == holder), lease_until=_after(conn, lease))


async def renew_all(conn: AsyncConnection, holder: str, claim_ids: Collection[str], *, lease: float) -> None:
    """Hold on to those of these claims that are still ours for `lease` more seconds from now."""
    await _update(conn, (claims.c.holder == holder, claims.c.id.in_(claim_ids)), lease_until=_after(conn, lease))


async def take(
    conn: AsyncConnection, claim_id: str, holder: str, *, lease: float, was: str | None = None, idle: bool = False
) -> Claim | None:
    """Take an expired claim, or one that `was` (a holder known to be dead) holds, atomically.

    `idle`: also one that waits for its next attempt. None when it is held by another, or was taken by another first,
    or is gone.
    """
    free = sa.or_(claims.c.lease_until.is_(None), claims.c.lease_until < _after(conn))
    if idle:
        free = sa.or_(free, claims.c.holder.is_(None))
    if was is not None:
        free = sa.or_(free, claims.c.holder == was)
    taken = await _update(
        conn,
        (claims.c.id == claim_id, free),
        holder=holder,
        lease_until=_after(conn, lease),
    )
    return await get(conn, claim_id) if taken else None


async def postpone(
    conn: AsyncConnection, claim_id: str, holder: str, *, seconds: float, error: str, failed: bool = True
) -> bool:
    """It did not work: nobody takes it for so long; the error stays visible, and unless it was nobody's fault the
    attempt is counted. What was cut off by the end of a process is no attempt. False: it is not ours."""
    return await _update(
        conn,
        (claims.c.id == claim_id, claims.c.holder == holder),
        holder=None,
        lease_until=_after(conn, seconds),
        error=error[:1000],
        attempts=claims.c.attempts + int(failed),
    )


async def give_back(conn: AsyncConnection, claim_id: str, holder: str, *, last: bool = False) -> bool:
    """Anyone may take it at once; `last`: after all that wait already. False: `holder` does not hold it."""
    end = {"begun_at": _after(conn)} if last else {}
    held = (claims.c.id == claim_id, claims.c.holder == holder)
    return await _update(conn, held, holder=None, lease_until=None, **end)


async def end(conn: AsyncConnection, claim_id: str, holder: str | None = None) -> bool:
    """Remove a claim; with `holder` only if it still holds it. False: it was not there, or not ours."""
    where = [claims.c.id == claim_id] + ([claims.c.holder == holder] if holder is not None else [])
    done = await conn.execute(claims.delete().where(*where))
    return bool(done.rowcount)


async def end_all(conn: AsyncConnection, image_id: str, kind: str) -> None:
    """Remove the claims of this kind of an image, whoever holds them."""
    await conn.execute(claims.delete().where(claims.c.image_id == image_id, claims.c.kind == kind))


async def get(conn: AsyncConnection, claim_id: str) -> Claim | None:
    """One claim."""
    text = sql.Text(sql.engine_of(conn))
    return await _first(conn, f"WHERE id = {text.bind(claim_id)}", text)


async def of_write(conn: AsyncConnection, image_id: str, store: str) -> Claim | None:
    """The claim of a write of this image to this store."""
    text = sql.Text(sql.engine_of(conn))
    return await _first(
        conn,
        f"WHERE image_id = {text.bind(image_id)} AND store = {text.bind(store)} AND slot = 'write'",
        text,
    )


async def expired(conn: AsyncConnection, *, but: str = "", limit: int = 100) -> list[Claim]:
    """Claims, of all kinds `but` one, that nobody holds now by the database's clock, longest expired first."""
    text = sql.Text(sql.engine_of(conn))
    return await _all(
        conn,
        f"WHERE kind <> {text.bind(but)} AND (lease_until IS NULL OR lease_until < {_now(text.engine)})"
        f" ORDER BY lease_until, id LIMIT {int(limit)}",
        text,
    )


async def held(conn: AsyncConnection, *, limit: int = 1000) -> list[Claim]:
    """Claims with a holder, whether he lives or not, by the time they began."""
    text = sql.Text(sql.engine_of(conn))
    return await _all(conn, f"WHERE holder IS NOT NULL ORDER BY begun_at, id LIMIT {int(limit)}", text)


async def waiting(conn: AsyncConnection, kind: str, *, each: int, limit: int = 100) -> list[tuple[Claim, str | None]]:
    """Claims of this kind that nobody holds now, with the owners of their images: of each owner the `each` that began
    first, all owners' first ones before all second ones, so that nobody's many keep another's few waiting."""
    engine = sql.engine_of(conn)
    text = sql.Text(engine)
    columns = ", ".join(f"c.{name}" for name in _ROW.split(", "))
    rows = await sql.fetch(
        conn,
        f"SELECT {_ROW}, owner FROM (SELECT {columns}, i.owner,"  # noqa: S608 - constants
        " row_number() OVER (PARTITION BY i.owner ORDER BY c.begun_at, c.id) AS turn"
        f" FROM {claims.name} c LEFT JOIN images i ON i.id = c.image_id WHERE c.kind = {text.bind(kind)}"
        f" AND (c.lease_until IS NULL OR c.lease_until < {_now(engine)})) AS queue"
        f" WHERE turn <= {int(each)} ORDER BY turn, begun_at, id LIMIT {int(limit)}",
        text.values,
    )
    return [(_claim(row), row[11]) for row in rows]


async def count(conn: AsyncConnection, kind: str, owner: str | None) -> int:
    """How many claims of this kind there are for the images of one project."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT count(*) FROM {claims.name} c JOIN images i ON i.id = c.image_id"  # noqa: S608 - constants
        f" WHERE c.kind = {text.bind(kind)} AND i.owner = {text.bind(owner)}",
        text.values,
    )
    return int(rows[0][0])


async def list_all(
    conn: AsyncConnection, *, image_id: str | None = None, kind: str | None = None, limit: int = 1000
) -> list[Claim]:
    """Claims by the time they began; of one image or kind if named."""
    text = sql.Text(sql.engine_of(conn))
    where = [f"image_id = {text.bind(image_id)}"] if image_id is not None else []
    where += [f"kind = {text.bind(kind)}"] if kind is not None else []
    words = f"WHERE {' AND '.join(where)}" if where else ""
    return await _all(conn, f"{words} ORDER BY begun_at, id LIMIT {int(limit)}", text)


async def _all(conn: AsyncConnection, words: str, text: sql.Text) -> list[Claim]:
    rows = await sql.fetch(conn, f"SELECT {_ROW} FROM {claims.name} {words}", text.values)  # noqa: S608 - constants
    return [_claim(row) for row in rows]


async def _first(conn: AsyncConnection, words: str, text: sql.Text) -> Claim | None:
    found = await _all(conn, words, text)
    return found[0] if found else None


async def _update(conn: AsyncConnection, where: Sequence[sa.ColumnElement[bool]], **values: Any) -> bool:
    done = await conn.execute(claims.update().where(*where).values(**values))
    return bool(done.rowcount)
