"""Which node has cached which images, in Glance's two tables, so that a Glance tells it as well; and which of them are
still there. What is written here is a copy of what lies on the nodes, which may be a minute old.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.image_children import kept

_SOME: Final = 500  # rows of one statement
_NODES: Final = (
    "SELECT n.node_reference_url FROM cached_images c"
    " JOIN node_reference n ON n.node_reference_id = c.node_reference_id"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What is told of an image on a node; times in UTC, size in bytes."""

    size: int
    hits: int
    last_accessed: dt.datetime
    last_modified: dt.datetime


async def nodes(conn: AsyncConnection, image_id: str) -> list[str]:
    """The URLs of the nodes that have the image."""
    text = sql.Text(sql.engine_of(conn))
    there = f"WHERE c.image_id = {text.bind(image_id)} ORDER BY n.node_reference_url"
    return [row[0] for row in await sql.fetch(conn, f"{_NODES} {there}", text.values)]


async def store(conn: AsyncConnection, url: str, found: Mapping[str, Row]) -> None:
    """These images, by id, are what the node under `url` has. Run it again where it fails because of another."""
    node = await _node(conn, url)
    text = sql.Text(sql.engine_of(conn))
    words = f"SELECT image_id, size, hits FROM cached_images WHERE node_reference_id = {text.bind(node)}"  # noqa: S608
    old = {row[0]: (row[1], row[2]) for row in await sql.fetch(conn, words, text.values)}
    await _forget(conn, node, [image_id for image_id in old if image_id not in found])
    new = [
        {"image_id": image_id, "node_reference_id": node, **_values(conn, row)}
        for image_id, row in found.items()
        if image_id not in old
    ]
    for first in range(0, len(new), _SOME // 10):
        await sql.insert(conn, "cached_images", new[first : first + _SOME // 10])
    for image_id, row in found.items():
        if image_id in old and old[image_id] != (row.size, row.hits):
            await sql.update(conn, "cached_images", _values(conn, row), image_id=image_id, node_reference_id=node)


def _values(conn: AsyncConnection, row: Row) -> dict[str, object]:
    times = {"last_accessed": kept(conn, row.last_accessed), "last_modified": kept(conn, row.last_modified)}
    return {"size": row.size, "hits": min(row.hits, 2**31 - 1), **times}


async def _node(conn: AsyncConnection, url: str) -> int:
    async def look() -> int | None:
        text = sql.Text(sql.engine_of(conn))
        words = f"SELECT node_reference_id FROM node_reference WHERE node_reference_url = {text.bind(url)}"  # noqa: S608
        rows = await sql.fetch(conn, words, text.values)
        return int(rows[0][0]) if rows else None

    found = await look()
    if found is None:
        await sql.insert(conn, "node_reference", [{"node_reference_url": url}])
        found = await look()
    assert found is not None
    return found


async def _forget(conn: AsyncConnection, node: int, image_ids: Sequence[str]) -> None:
    for first in range(0, len(image_ids), _SOME):
        text = sql.Text(sql.engine_of(conn))
        words = f"DELETE FROM cached_images WHERE node_reference_id = {text.bind(node)}"  # noqa: S608
        await sql.fetch(conn, f"{words} AND {text.any_of('image_id', image_ids[first : first + _SOME])}", text.values)


async def with_data(conn: AsyncConnection, image_ids: Iterable[str]) -> set[str]:
    """Those of these images that are there and have data."""
    asked, found = list(image_ids), set()
    for first in range(0, len(asked), _SOME):
        text = sql.Text(sql.engine_of(conn))
        some = text.any_of("id", asked[first : first + _SOME])
        words = f"SELECT id FROM images WHERE {some} AND NOT deleted AND status IN ('active', 'deactivated')"  # noqa: S608
        found |= {row[0] for row in await sql.fetch(conn, words, text.values)}
    return found
