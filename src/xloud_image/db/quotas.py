"""What a project has, and what it has reserved: counted and changed by one transaction after the other. What it may
have is for the services.

Images count as in Glance: data once for each location; deleted, killed and pending_delete images do not. What is under
way is reserved by its claim (a row here beside one in `claims`): it counts as long as the claim is there, and ends in
the transaction that ends the claim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.tables import claims, quotas, reservations, uploads

Kind = Literal["size", "stage"]

NAMES: Final = ("size", "stage", "count", "uploading")
_GONE: Final = "('killed', 'deleted', 'pending_delete')"
_UNDER_WAY: Final = "('saving', 'uploading', 'importing')"
_TURN: Final[Mapping[sql.Engine, str]] = {
    "postgresql": f"ON CONFLICT (owner) DO UPDATE SET turn = {quotas.name}.turn + 1",
    "mysql": "ON DUPLICATE KEY UPDATE turn = turn + 1",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What a project has: bytes of data and of staged data, images, and images whose data is under way."""

    size: int = 0
    stage: int = 0
    count: int = 0
    uploading: int = 0


async def lock(conn: AsyncConnection, owner: str) -> None:
    """Nobody else counts what this project has until the transaction ends. It is the transaction's first statement, so
    that no other lock is held while it waits."""
    engine = sql.engine_of(conn)
    if engine != "sqlite":  # there the transaction holds the lock of the whole database
        await sql.insert(conn, quotas.name, [{"owner": owner, "turn": 0}], _TURN[engine])


async def usage(conn: AsyncConnection, owner: str, names: Collection[str] = NAMES) -> Usage:
    """What the project has now; one statement, which counts what is named and nothing else. What is decided by it needs
    `lock`."""
    text = sql.Text(sql.engine_of(conn))
    copies = (
        "(SELECT 1 FROM image_properties p WHERE p.image_id = i.id AND p.name = 'os_glance_importing_to_stores'"
        " AND NOT p.deleted AND p.value <> '' LIMIT 1) IS NOT NULL"
    )

    def images(what: str, words: str, more: str = "") -> str:
        return (
            f"(SELECT {what} FROM images i{more} WHERE i.owner = {text.bind(owner)} AND i.deleted = false"  # noqa: S608
            f" AND {words})"
        )

    def reserved(kind: Kind) -> str:
        return (
            f"(SELECT coalesce(sum(r.bytes), 0) FROM {reservations.name} r JOIN {claims.name} c ON c.id = r.claim_id"  # noqa: S608
            f" WHERE r.owner = {text.bind(owner)} AND r.kind = {text.bind(kind)})"
        )

    def coming(kind: str, states: str) -> str:
        """Of uploads in several requests: what was announced, or has come."""
        return (
            "(SELECT coalesce(sum(CASE WHEN u.size IS NULL OR u.size < u.received THEN u.received ELSE u.size END), 0)"  # noqa: S608
            f" FROM {uploads.name} u WHERE u.owner = {text.bind(owner)} AND u.kind = '{kind}' AND u.state IN {states})"
        )

    located = " JOIN image_locations l ON l.image_id = i.id AND NOT l.deleted AND l.status <> 'deleted'"
    bytes_ = "coalesce(sum(i.size), 0)"
    # made when asked for: their values are bound in the order of the text
    parts: dict[str, Callable[[], tuple[str, ...]]] = {
        "size": lambda: (
            images(bytes_, f"i.status NOT IN {_GONE}", located),
            reserved("size"),
            coming("file", "('open', 'finishing')"),
        ),
        "stage": lambda: (
            images(bytes_, "i.status IN ('uploading', 'importing')"),
            reserved("stage"),
            coming("stage", "('open', 'finishing', 'staged')"),
        ),
        "count": lambda: (images("count(*)", f"i.status NOT IN {_GONE}"),),
        "uploading": lambda: (images("count(*)", f"(i.status IN {_UNDER_WAY} OR (i.status = 'active' AND {copies}))"),),
    }
    asked = [name for name in NAMES if name in names]
    [row] = await sql.fetch(conn, f"SELECT {', '.join(' + '.join(parts[name]()) for name in asked)}", text.values)
    return Usage(**{name: int(number) for name, number in zip(asked, row, strict=True)})


async def reserve(conn: AsyncConnection, claim_id: str, owner: str, kind: Kind, size: int) -> None:
    """The claim may bring so many bytes. Rows whose claims have ended go."""
    text = sql.Text(sql.engine_of(conn))
    ended = await sql.fetch(
        conn,
        f"SELECT r.claim_id FROM {reservations.name} r LEFT JOIN {claims.name} c ON c.id = r.claim_id"  # noqa: S608
        f" WHERE r.owner = {text.bind(owner)} AND c.id IS NULL LIMIT 100",
        text.values,
    )
    if ended:
        text = sql.Text(sql.engine_of(conn))
        words = text.any_of("claim_id", [row[0] for row in ended])
        await sql.fetch(conn, f"DELETE FROM {reservations.name} WHERE {words}", text.values)  # noqa: S608 - constants
    row: dict[str, Any] = {"claim_id": claim_id, "owner": owner, "kind": kind, "bytes": size}
    await sql.insert(conn, reservations.name, [row])


async def enlarge(conn: AsyncConnection, claim_ids: Sequence[str], size: int) -> None:
    """Each of these claims may bring so many bytes now."""
    text = sql.Text(sql.engine_of(conn))
    number = text.bind(size)
    words = f"UPDATE {reservations.name} SET bytes = {number} WHERE {text.any_of('claim_id', claim_ids)}"  # noqa: S608
    await sql.fetch(conn, words, text.values)


async def staged(conn: AsyncConnection, image_id: str) -> int:
    """Bytes of the staged data of an image."""
    text = sql.Text(sql.engine_of(conn))
    [parts] = await sql.fetch(
        conn,
        f"SELECT coalesce(sum(received), 0) FROM {uploads.name}"  # noqa: S608 - constants
        f" WHERE image_id = {text.bind(image_id)} AND state = 'staged'",
        text.values,
    )
    text = sql.Text(sql.engine_of(conn))
    [row] = await sql.fetch(
        conn,
        f"SELECT coalesce(sum(r.bytes), 0) FROM {reservations.name} r JOIN {claims.name} c ON c.id = r.claim_id"  # noqa: S608
        f" WHERE c.image_id = {text.bind(image_id)} AND c.kind = 'stage'",
        text.values,
    )
    return int(row[0]) + int(parts[0])
