"""Locations by their URL, across images. The locations of one image are read and written in `image_children`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import ciphers, sql
from xloud_image.db.claims import slot_of
from xloud_image.db.image_children import WITHOUT_DATA, metadata
from xloud_image.model import Location

# of an image that is there, or can be had back
_THERE: Final = "((NOT l.deleted AND NOT i.deleted) OR (l.status = 'pending_delete' AND i.status = 'pending_delete'))"


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """An image that is not deleted, or whose deletion is delayed (`pending`), and one of its locations; None: it has
    none, or none was asked for."""

    image_id: str
    owner: str | None
    location: Location | None
    pending: bool = False


async def holders(conn: AsyncConnection, urls: Sequence[str], ids: Sequence[str] = ()) -> list[Holder]:
    """The images that are not deleted and have a location with exactly one of these URLs, by an index of ours; and the
    images with these ids, with all their locations.

    Exactly: MySQL compares text without regard to case and ending blanks, stores do not.
    """
    text = sql.Text(sql.engine_of(conn))
    key = ciphers.of(conn)
    rows = await sql.fetch(
        conn,
        "SELECT i.id, i.owner, l.id, l.value, l.meta_data, l.status"  # noqa: S608 - constants
        " FROM image_locations l JOIN images i ON i.id = l.image_id"
        f" WHERE {text.any_of('l.value', urls if key is None else key.forms(urls))} AND {_THERE}",
        text.values,
    )
    found = [row for row in rows if _url(key, row[3]) in urls]
    if ids:
        text = sql.Text(sql.engine_of(conn))
        found += await sql.fetch(
            conn,
            "SELECT i.id, i.owner, l.id, l.value, l.meta_data, l.status"  # noqa: S608 - constants
            f" FROM images i LEFT JOIN image_locations l ON l.image_id = i.id AND {_THERE}"
            f" WHERE {text.any_of('i.id', ids)} AND (NOT i.deleted OR i.status = 'pending_delete')",
            text.values,
        )
    by_row = {(row[0], row[2]): row for row in found}
    return [
        Holder(
            image_id,
            owner,
            None if number is None else Location(_url(key, value), metadata(extra), status, number),
            status == "pending_delete",
        )
        for image_id, owner, number, value, extra, status in by_row.values()
    ]


async def leaving(conn: AsyncConnection, urls: Sequence[str], ids: Sequence[str] = ()) -> list[Location]:
    """What is about to be removed under one of these URLs, or was of an image with one of these ids: claims say so."""
    text = sql.Text(sql.engine_of(conn))
    slots = [slot_of("delete", url) for url in urls]
    rows = await sql.fetch(
        conn,
        f"SELECT url, store FROM xloud_claims WHERE {text.any_of('slot', slots)} AND kind = 'delete'",  # noqa: S608
        text.values,
    )
    if ids:
        text = sql.Text(sql.engine_of(conn))
        rows = [
            *rows,
            *await sql.fetch(
                conn,
                f"SELECT url, store FROM xloud_claims WHERE {text.any_of('image_id', ids)} AND kind = 'delete'",  # noqa: S608
                text.values,
            ),
        ]
    key = ciphers.of(conn)
    return [Location(_url(key, url), {"store": store}) for url, store in rows]


async def after(conn: AsyncConnection, number: int, limit: int) -> Sequence[Location]:
    """At most `limit` locations of images that are not deleted, or can be had back, by number, the first above
    `number`; those whose data is not there yet left out."""
    text = sql.Text(sql.engine_of(conn))
    without_data = ", ".join([f"'{status}'" for status in WITHOUT_DATA])
    rows = await sql.fetch(
        conn,
        "SELECT l.id, l.value, l.meta_data, l.status FROM image_locations l JOIN images i ON i.id = l.image_id"  # noqa: S608 - constants
        f" WHERE l.id > {text.bind(number)} AND {_THERE} AND l.status NOT IN ({without_data})"
        f" ORDER BY l.id LIMIT {text.bind(limit)}",
        text.values,
    )
    key = ciphers.of(conn)
    return [Location(_url(key, value), metadata(extra), status, number) for number, value, extra, status in rows]


def _url(key: ciphers.Urls | None, value: str) -> str:
    return value if key is None else key.opened(value)
