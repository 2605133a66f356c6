"""Locations by their URL, across images. The locations of one image are read and written in `image_children`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import ciphers, sql
from xloud_image.db.claims import slot_of
from xloud_image.db.image_children import metadata
from xloud_image.model import Location

# of an image that is there, or can be had back
_THERE: Final = "((NOT l.deleted AND NOT i.deleted) OR (l.status = 'pending_delete' AND i.status = 'pending_delete'))"


LONG: Final = 4096  # characters; a longer text is read by itself
_LONGEST: Final = 1 << 20


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


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands. `location`: of an image that is there, or can be had back; else None. `missing`: there is no
    such image at all. `broken`: its metadata is no JSON object, and taken for an empty one."""

    number: int
    image_id: str
    location: Location | None
    missing: bool
    broken: bool


async def page(conn: AsyncConnection, number: int, limit: int) -> list[Row]:
    """At most `limit` rows by number, the first above `number`, deleted ones included. A text longer than LONG
    characters is read to its _LONGEST at the most."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT l.id, l.image_id, CASE WHEN {_THERE} THEN 1 ELSE 0 END, l.status, i.id,"  # noqa: S608 - constants
        f" substr(l.value, 1, {LONG + 1}), substr(l.meta_data, 1, {LONG + 1})"
        " FROM image_locations l LEFT JOIN images i ON i.id = l.image_id"
        f" WHERE l.id > {text.bind(number)} ORDER BY l.id LIMIT {text.bind(limit)}",
        text.values,
    )
    key = ciphers.of(conn)
    found = []
    for at, image_id, there, status, image, value, extra in rows:
        if not there:
            found.append(Row(at, image_id, None, image is None, broken=False))
            continue
        if len(value or "") > LONG or len(extra or "") > LONG:
            value, extra = await _long(conn, at)  # noqa: PLW2901 - the whole of it
        location = Location(_url(key, value or ""), metadata(extra), status, at)
        broken = not location.metadata and (extra or "{}").strip() not in ("{}", "null")
        found.append(Row(at, image_id, location, missing=False, broken=broken))
    return found


async def _long(conn: AsyncConnection, number: int) -> Sequence[str | None]:
    words = f"SELECT substr(value, 1, {_LONGEST}), substr(meta_data, 1, {_LONGEST}) FROM image_locations"  # noqa: S608
    return (await sql.fetch(conn, f"{words} WHERE id = {int(number)}"))[0]


def _url(key: ciphers.Urls | None, value: str) -> str:
    return value if key is None else key.opened(value)
