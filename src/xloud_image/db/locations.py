"""Locations by their URL, across images. The locations of one image are read and written in `details`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.details import metadata
from xloud_image.model import Location


async def is_named(conn: AsyncConnection, url: str) -> bool:
    """Whether an image that is not deleted has a location with exactly this URL; one look-up in an index of ours.

    Exactly: MySQL compares text without regard to case and ending blanks, stores do not.
    """
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        "SELECT l.value FROM image_locations l JOIN images i ON i.id = l.image_id"  # noqa: S608 - constants
        f" WHERE l.value = {text.bind(url)} AND NOT l.deleted AND NOT i.deleted",
        text.values,
    )
    return any(row[0] == url for row in rows)


async def is_leaving(conn: AsyncConnection, url: str) -> bool:
    """Whether bytes of this URL are about to be removed: a claim says so."""
    text = sql.Text(sql.engine_of(conn))
    # by the claims' own index there is nothing to find; there are few of them
    rows = await sql.fetch(
        conn,
        f"SELECT url FROM xloud_claims WHERE kind = 'delete' AND url = {text.bind(url)}",  # noqa: S608 - constants
        text.values,
    )
    return any(row[0] == url for row in rows)


async def after(conn: AsyncConnection, number: int, limit: int) -> Sequence[Location]:
    """At most `limit` locations of images that are not deleted, by number, the first above `number`."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        "SELECT l.id, l.value, l.meta_data, l.status FROM image_locations l JOIN images i ON i.id = l.image_id"  # noqa: S608 - constants
        f" WHERE l.id > {text.bind(number)} AND NOT l.deleted AND NOT i.deleted"
        f" ORDER BY l.id LIMIT {text.bind(limit)}",
        text.values,
    )
    return [Location(value, metadata(extra), status, number) for number, value, extra, status in rows]
