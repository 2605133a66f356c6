"""Images whose deletion is delayed: deleted for all readers, with their data, until somebody scrubs or restores them.

The rows are those that a Glance with delayed_delete writes and that its scrubber reads: image and locations have the
status pending_delete, and all rows are marked deleted, at the image's time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import ciphers, image_children, sql
from xloud_image.db.image_children import Details, metadata
from xloud_image.db.images import ROW, image_of, locked
from xloud_image.errors import NoSuchImage
from xloud_image.model import Image, Location, utcnow

STATUS: Final = "pending_delete"
_CHILDREN: Final = ("image_properties", "image_tags", "image_members")


async def begin(conn: AsyncConnection, image_id: str, locations: Sequence[Location]) -> None:
    """Delete an image that this transaction has locked, but for its data. `locations`: as they shall be kept."""
    now = await _time(conn, image_id)
    gone = {"deleted": True, "deleted_at": now, "updated_at": now}
    await sql.update(conn, "images", {"status": STATUS, **gone}, id=image_id)
    for location in locations:
        kept = {"status": STATUS, "meta_data": orjson.dumps(dict(location.metadata)).decode()}
        await sql.update(conn, "image_locations", {**kept, **gone}, id=location.id)
    for table in _CHILDREN:
        await sql.update(conn, table, gone, image_id=image_id, deleted=False)


async def _time(conn: AsyncConnection, image_id: str) -> dt.datetime:
    """When the image is deleted: later than anything that was taken from it before, which shall not come back with it;
    MySQL keeps whole seconds."""
    now = image_children.kept(conn, utcnow())
    text = sql.Text(sql.engine_of(conn))
    parts = [
        f"(SELECT max(deleted_at) FROM {table} WHERE image_id = {text.bind(image_id)} AND deleted = true)"  # noqa: S608
        for table in _CHILDREN
    ]
    [row] = await sql.fetch(conn, f"SELECT {', '.join(parts)}", text.values)
    last = max([moment for one in row if (moment := sql.instant(one)) is not None], default=None)
    return now if last is None or last < now else last.replace(microsecond=0) + dt.timedelta(seconds=1)


async def lock(conn: AsyncConnection, image_id: str) -> Image:
    """An image whose deletion is delayed, with its locations, locked until the transaction ends. `NoSuchImage`."""
    text = sql.Text(sql.engine_of(conn))
    words = f"SELECT {', '.join(ROW)} FROM images WHERE id = {text.bind(image_id)} AND deleted = true"  # noqa: S608
    end = "" if text.engine == "sqlite" else " FOR UPDATE"
    rows = await sql.fetch(conn, f"{words} AND status = '{STATUS}'{end}", text.values)
    if not rows:
        raise NoSuchImage(image_id)
    text = sql.Text(sql.engine_of(conn))
    found = await sql.fetch(
        conn,
        "SELECT value, meta_data, status, id FROM image_locations"  # noqa: S608 - constants
        f" WHERE image_id = {text.bind(image_id)} AND status = '{STATUS}' ORDER BY id",
        text.values,
    )
    image = image_of(rows[0], Details())
    urls = ciphers.of(conn)
    locations = [Location(url, metadata(extra), status, number) for url, extra, status, number in found]
    return image.replace(locations=tuple(ciphers.opened(urls, one) for one in locations))


async def due(conn: AsyncConnection, seconds: float, limit: int) -> list[str]:
    """Images that have waited so long, those that wait longest first."""
    text = sql.Text(sql.engine_of(conn))
    until = image_children.kept(conn, utcnow() - dt.timedelta(seconds=seconds))
    rows = await sql.fetch(
        conn,
        f"SELECT id FROM images WHERE status = '{STATUS}' AND deleted = true"  # noqa: S608 - constants
        f" AND deleted_at <= {text.bind(until)} ORDER BY deleted_at, id LIMIT {int(limit)}",
        text.values,
    )
    return [row[0] for row in rows]


async def scrub(conn: AsyncConnection, image_id: str) -> None:
    """An image that `lock` gave is deleted like any other: its data may go."""
    now = image_children.kept(conn, utcnow())
    await sql.update(conn, "images", {"status": "deleted", "updated_at": now}, id=image_id)
    gone = {"status": "deleted", "deleted": True, "deleted_at": now, "updated_at": now}
    await sql.update(conn, "image_locations", gone, image_id=image_id, status=STATUS)


async def restore(conn: AsyncConnection, image_id: str, status: str, locations: Sequence[Location]) -> Image:
    """An image that `lock` gave is there again, with all that went with it. `locations`: as they shall be."""
    now = image_children.kept(conn, utcnow())
    for table in _CHILDREN:
        text = sql.Text(sql.engine_of(conn))
        await sql.fetch(
            conn,
            f"UPDATE {table} SET deleted = false, deleted_at = NULL, updated_at = {text.bind(now)}"  # noqa: S608
            f" WHERE image_id = {text.bind(image_id)} AND deleted = true"
            f" AND deleted_at = (SELECT i.deleted_at FROM images i WHERE i.id = {text.bind(image_id)})",
            text.values,
        )
    back: dict[str, Any] = {"deleted": False, "deleted_at": None, "updated_at": now}
    for location in locations:
        kept = {"status": "active", "meta_data": orjson.dumps(dict(location.metadata)).decode()}
        await sql.update(conn, "image_locations", {**kept, **back}, id=location.id)
    await sql.update(conn, "images", {"status": status, **back}, id=image_id)
    return await locked(conn, image_id)
