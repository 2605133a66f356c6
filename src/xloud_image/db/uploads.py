"""Uploads in several requests (model.Upload) and their parts. What is done with them is told by the services.

Who adds data names the epoch that he was given: whoever came later has a higher one, and the earlier changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.leases import after, now
from xloud_image.db.tables import upload_parts, uploads
from xloud_image.errors import Duplicate
from xloud_image.model import Part, Upload

_ROW: Final = (
    "id, image_id, kind, owner, store, size, digest, state, received, parts, holder, epoch, expires_at"
)  # fmt: skip


def _lives(engine: sql.Engine) -> str:
    """Whole seconds until the row is given up, as SQL."""
    match engine:
        case "sqlite":
            return f"CAST((julianday(expires_at) - julianday({now(engine)})) * 86400 AS INTEGER)"
        case "postgresql":
            return f"CAST(extract(epoch FROM expires_at - {now(engine)}) AS INTEGER)"
        case _:
            return f"timestampdiff(SECOND, {now(engine)}, expires_at)"


def _upload(row: Sequence[Any]) -> Upload:
    return Upload(*[*row[:12], max(0, int(row[12]))])


async def add(conn: AsyncConnection, upload: Upload, *, seconds: float) -> None:
    """A new one, given up after so many seconds. `Duplicate`: the image has one that takes data."""
    try:
        await conn.execute(
            uploads.insert().values(
                id=upload.id,
                image_id=upload.image_id,
                kind=upload.kind,
                slot=upload.image_id,
                owner=upload.owner,
                store=upload.store,
                size=upload.size,
                digest=upload.digest,
                state="open",
                received=0,
                parts=0,
                holder=upload.holder,
                epoch=0,
                begun_at=after(conn),
                expires_at=after(conn, seconds),
            )
        )
    except sa.exc.IntegrityError as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate("An upload of this image is unfinished.") from error


async def get(conn: AsyncConnection, upload_id: str) -> Upload | None:
    """One upload."""
    text = sql.Text(sql.engine_of(conn))
    found = await _all(conn, f"WHERE id = {text.bind(upload_id)}", text)
    return found[0] if found else None


async def list_all(conn: AsyncConnection, image_id: str) -> list[Upload]:
    """Those of an image, whatever their state."""
    text = sql.Text(sql.engine_of(conn))
    return await _all(conn, f"WHERE image_id = {text.bind(image_id)} ORDER BY begun_at, id", text)


async def expired(conn: AsyncConnection, *, limit: int = 100) -> list[Upload]:
    """Those that are to be given up, or forgotten, now. Data that waits for an import is not."""
    text = sql.Text(sql.engine_of(conn))
    words = f"WHERE expires_at < {now(text.engine)} AND {text.any_of('state', ('open', 'over'))}"
    return await _all(conn, f"{words} ORDER BY expires_at, id LIMIT {int(limit)}", text)


async def count(conn: AsyncConnection, owner: str | None) -> int:
    """How many a project has that take data, are being finished, or wait for an import."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT count(*) FROM {uploads.name} WHERE owner = {text.bind(owner)} AND state <> 'over'",  # noqa: S608
        text.values,
    )
    return int(rows[0][0])


async def unfinished(conn: AsyncConnection) -> int:
    """How many there are at all that take data, are being finished, or wait for an import."""
    rows = await sql.fetch(conn, f"SELECT count(*) FROM {uploads.name} WHERE state <> 'over'")  # noqa: S608 - constants
    return int(rows[0][0])


async def take(conn: AsyncConnection, seen: Upload, holder: str | None, **values: Any) -> Upload | None:
    """The next epoch of an open one is the caller's, who was shown `seen`; `values`: columns to set. None: it changed.

    Without a holder nobody is at it: whoever was is stopped.
    """
    columns = uploads.c
    done = await conn.execute(
        uploads.update()
        .where(columns.id == seen.id, columns.epoch == seen.epoch, columns.received == seen.received, _open())
        .values(holder=holder, epoch=columns.epoch + 1, **values)
    )
    return await get(conn, seen.id) if done.rowcount else None


async def append(conn: AsyncConnection, upload: Upload, part: Part) -> bool:
    """A part more. False: another has the upload now, or it has ended; nothing was stored."""
    columns = uploads.c
    done = await conn.execute(
        uploads.update()
        .where(*_ours(upload), columns.received == part.begins)
        .values(received=columns.received + part.size, parts=columns.parts + 1)
    )
    if not done.rowcount:
        return False
    values = {"begins": part.begins, "size": part.size, "store": part.store, "url": part.url}
    await conn.execute(upload_parts.insert().values(upload_id=upload.id, **values))
    return True


async def leave(conn: AsyncConnection, upload: Upload) -> None:
    """Whoever had this epoch adds nothing more."""
    await conn.execute(uploads.update().where(*_ours(upload)).values(holder=None))


async def finish(conn: AsyncConnection, upload: Upload) -> bool:
    """All data is there and nothing more comes: it is being finished. False: it is not the caller's any more."""
    done = await conn.execute(
        uploads.update()
        .where(*_ours(upload), uploads.c.received == upload.received)
        .values(state="finishing", size=upload.received, holder=None)
    )
    return bool(done.rowcount)


async def reopen(conn: AsyncConnection, image_id: str) -> bool:
    """What was being finished was not: its data is there as before. True where the image has an unfinished upload, or
    one whose data waits for an import."""
    await conn.execute(
        uploads.update().where(uploads.c.slot == image_id, uploads.c.state == "finishing").values(state="open")
    )
    text = sql.Text(sql.engine_of(conn))
    waits = f"image_id = {text.bind(image_id)} AND (slot = image_id OR state = 'staged')"
    words = f"SELECT 1 FROM {uploads.name} WHERE {waits} LIMIT 1"  # noqa: S608 - constants
    return bool(await sql.fetch(conn, words, text.values))


async def close(conn: AsyncConnection, upload_id: str, state: str) -> bool:
    """It was being finished and is: "staged" or "over". False: somebody else ended it."""
    done = await conn.execute(
        uploads.update()
        .where(uploads.c.id == upload_id, uploads.c.state == "finishing")
        .values(state=state, slot=uploads.c.id)
    )
    return bool(done.rowcount)


async def remove(conn: AsyncConnection, upload: Upload) -> bool:
    """Forget it, as it was seen: in the same state. False: it is not so any more. Its parts are not touched."""
    done = await conn.execute(uploads.delete().where(uploads.c.id == upload.id, uploads.c.state == upload.state))
    return bool(done.rowcount)


async def used(conn: AsyncConnection, image_id: str) -> None:
    """What waited for an import of this image does so no more."""
    await conn.execute(
        uploads.update().where(uploads.c.image_id == image_id, uploads.c.state == "staged").values(state="over")
    )


async def parts(conn: AsyncConnection, upload_id: str) -> list[Part]:
    """In their order."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT begins, size, store, url FROM {upload_parts.name}"  # noqa: S608 - constants
        f" WHERE upload_id = {text.bind(upload_id)} ORDER BY begins",
        text.values,
    )
    return [Part(*row) for row in rows]


async def parts_by_store(conn: AsyncConnection) -> dict[str, int]:
    """How many parts lie in each store."""
    rows = await sql.fetch(conn, f"SELECT store, count(*) FROM {upload_parts.name} GROUP BY store")  # noqa: S608 - constants
    return {row[0]: int(row[1]) for row in rows}


async def remove_parts(conn: AsyncConnection, upload_id: str) -> None:
    """Whoever calls has claims for their bytes."""
    await conn.execute(upload_parts.delete().where(upload_parts.c.upload_id == upload_id))


def _open() -> sa.ColumnElement[bool]:
    return uploads.c.state == "open"


def _ours(upload: Upload) -> tuple[sa.ColumnElement[bool], ...]:
    return uploads.c.id == upload.id, uploads.c.epoch == upload.epoch, _open()


async def _all(conn: AsyncConnection, words: str, text: sql.Text) -> list[Upload]:
    row = _ROW.replace("expires_at", _lives(text.engine))
    return [_upload(one) for one in await sql.fetch(conn, f"SELECT {row} FROM {uploads.name} {words}", text.values)]  # noqa: S608
