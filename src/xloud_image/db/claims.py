"""Claims: our durable rows for bytes that no location shows (model.Claim), each under a lease (`db.leases`). No store
is touched."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import ciphers, sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.leases import Leases, free
from xloud_image.db.tables import claims
from xloud_image.errors import Duplicate
from xloud_image.model import Claim

_leases: Final = Leases(claims)
renew, renew_all = _leases.renew, _leases.renew_all
postpone, give_back, end = _leases.postpone, _leases.give_back, _leases.end

_ROW: Final = "id, kind, image_id, store, url, scope, holder, lease_until, begun_at, attempts, error"


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
                url=_sealed(conn, claim),
                scope=claim.scope,
                attempts=claim.attempts,
                error=claim.error,
                **_leases.begun(conn, claim.holder, lease),
            )
        )
    except sa.exc.IntegrityError as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(
            f"The data of image {claim.image_id} in store {claim.store} is being written or removed already."
        ) from error


async def begin_all(conn: AsyncConnection, several: Sequence[Claim], *, lease: float) -> None:
    """As `begin`, of claims of one holder, none of which is there or a write."""
    if not several:
        return
    values = [
        {
            "id": claim.id,
            "kind": claim.kind,
            "image_id": claim.image_id,
            "store": claim.store,
            "slot": slot_of(claim.kind, claim.url),
            "url": claim.url,
            "scope": claim.scope,
            "attempts": claim.attempts,
        }
        for claim in several
    ]
    await conn.execute(claims.insert().values(**_leases.begun(conn, several[0].holder, lease)), values)


async def take(
    conn: AsyncConnection, claim_id: str, holder: str, *, lease: float, was: str | None = None, idle: bool = False
) -> Claim | None:
    """`Leases.take`, and the claim that was taken."""
    taken = await _leases.take(conn, claim_id, holder, lease=lease, was=was, idle=idle)
    return await get(conn, claim_id) if taken else None


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


async def expired(conn: AsyncConnection, kinds: Sequence[str], *, each: int = 100) -> list[Claim]:
    """Claims of these kinds that nobody holds now by the database's clock: of each store the `each` that are
    expired longest, so that the many of one store keep no other's from sight."""
    text = sql.Text(sql.engine_of(conn))
    queue = (
        f"(SELECT {_ROW}, row_number() OVER (PARTITION BY store ORDER BY lease_until, id) AS turn"  # noqa: S608 - constants
        f" FROM {claims.name} WHERE {text.any_of('kind', kinds)} AND {free(text.engine)}) AS queue"
    )
    return await _all(conn, f"WHERE turn <= {int(each)} ORDER BY turn, store", text, queue)


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
        f" AND {free(engine, 'c.')}) AS queue"
        f" WHERE turn <= {int(each)} ORDER BY turn, begun_at, id LIMIT {int(limit)}",
        text.values,
    )
    return [(_opened(conn, _claim(row)), row[11]) for row in rows]


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


async def _all(conn: AsyncConnection, words: str, text: sql.Text, rows: str = claims.name) -> list[Claim]:
    found = await sql.fetch(conn, f"SELECT {_ROW} FROM {rows} {words}", text.values)  # noqa: S608 - constants
    return [_opened(conn, _claim(row)) for row in found]


def _sealed(conn: AsyncConnection, claim: Claim) -> str | None:
    """The URL as the database keeps it; the key of a write is none."""
    urls = ciphers.of(conn)
    return claim.url if urls is None or claim.url is None or claim.kind == "write" else urls.sealed(claim.url)


def _opened(conn: AsyncConnection, claim: Claim) -> Claim:
    urls = ciphers.of(conn)
    if urls is None or claim.url is None or claim.kind == "write":
        return claim
    return dataclasses.replace(claim, url=urls.opened(claim.url))


async def _first(conn: AsyncConnection, words: str, text: sql.Text) -> Claim | None:
    found = await _all(conn, words, text)
    return found[0] if found else None
