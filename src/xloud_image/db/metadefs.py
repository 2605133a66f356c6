"""Namespaces of metadata definitions in Glance's tables. A namespace is one row, what it holds are rows of four more
(`metadef_parts`); nothing is marked deleted, it is removed. Rights and shapes are elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import metadef_parts as parts
from xloud_image.db import sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.image_children import kept
from xloud_image.errors import Duplicate, NoSuchNamespace
from xloud_image.model import Association, MetadefTag, Namespace, utcnow

SORT_KEYS: Final = (
    "created_at", "updated_at", "namespace", "display_name", "visibility", "protected", "owner", "id"
)  # fmt: skip
_ROW: Final = (
    "n.id, n.namespace, n.display_name, n.description, n.visibility, n.protected, n.owner, n.created_at, n.updated_at"
)


def _namespace(row: Sequence[Any]) -> Namespace:
    return Namespace(
        row[1],
        row[6],
        row[0],
        display_name=row[2],
        description=row[3],
        visibility=row[4] or "private",
        protected=bool(row[5]),
        **parts.times(row, 7),
    )


async def get(conn: AsyncConnection, name: str) -> Namespace | None:
    """One namespace without what it holds."""
    return await _get(conn, name)


async def locked(conn: AsyncConnection, name: str) -> Namespace:
    """The same, locked until the transaction ends. `NoSuchNamespace`."""
    found = await _get(conn, name, "" if conn.dialect.name == "sqlite" else " FOR UPDATE")
    if found is None:
        raise NoSuchNamespace(name)
    return found


async def _get(conn: AsyncConnection, name: str, lock: str = "") -> Namespace | None:
    text = sql.Text(sql.engine_of(conn))
    words = f"SELECT {_ROW} FROM metadef_namespaces n WHERE n.namespace = {text.bind(name)}{lock}"  # noqa: S608
    rows = await sql.fetch(conn, words, text.values)
    return next((_namespace(row) for row in rows if row[1] == name), None)


async def find(
    conn: AsyncConnection,
    *,
    everybodys: bool,
    project: str | None,
    visibility: str | None,
    resource_types: Sequence[str] | None,
    sort_key: str,
    direction: Literal["asc", "desc"],
    marker: Namespace | None,
    limit: int,
) -> list[Namespace]:
    """A page of namespaces with their resource types. everybodys: also other projects' private ones."""
    text = sql.Text(sql.engine_of(conn))
    words = []
    if not everybodys:
        words.append(f"(n.visibility = 'public' OR n.owner = {text.bind(project or '')})")
    if visibility is not None:
        words.append(f"COALESCE(n.visibility, 'private') = {text.bind(visibility)}")
    if resource_types is not None:
        words.append(
            "n.id IN (SELECT a.namespace_id FROM metadef_namespace_resource_types a"  # noqa: S608 - constants
            " JOIN metadef_resource_types t ON t.id = a.resource_type_id"
            f" WHERE {text.any_of('t.name', resource_types)})"
        )
    if marker is not None:
        words.append(parts.after(conn, text, f"n.{sort_key}", "n.id", direction, _sorted(marker, sort_key), marker.id))
    where = f" WHERE {' AND '.join(words)}" if words else ""
    by = f"{parts.sort_word(f'n.{sort_key}')} {direction}, n.id {direction}"
    rows = await sql.fetch(
        conn,
        f"SELECT {_ROW} FROM metadef_namespaces n{where} ORDER BY {by} LIMIT {int(limit)}",  # noqa: S608 - constants
        text.values,
    )
    found = [_namespace(row) for row in rows]
    if not found:
        return found
    held: dict[int, list[Association]] = {}
    numbers = ", ".join([str(int(one.id)) for one in found])
    rows = await sql.fetch(
        conn, f"{parts.ASSOCIATIONS} WHERE a.namespace_id IN ({numbers}) ORDER BY a.resource_type_id"
    )
    for row in rows:
        held.setdefault(row[7], []).append(Association(row[1], row[2], row[3], **parts.times(row, 5)))
    return [dataclasses.replace(one, associations=tuple(held.get(one.id, ()))) for one in found]


def _sorted(value: Any, key: str) -> Any:
    found = parts.sorted_value(value, "name" if key == "namespace" else key)
    return "" if found is None else found


async def whole(conn: AsyncConnection, namespace: Namespace) -> Namespace:
    """The namespace with all that it holds, each in the order in which it was added; tags the newest first."""
    of = f"WHERE namespace_id = {int(namespace.id)}"
    selects = [
        f"{parts.ASSOCIATIONS} WHERE a.namespace_id = {int(namespace.id)}",
        *[f"{one} {of}" for one in parts.BESIDES],
    ]
    rows = sorted(await sql.fetch(conn, " UNION ALL ".join(selects)), key=lambda row: (row[0], row[8]))
    held: dict[int, list[Sequence[Any]]] = {0: [], 1: [], 2: [], 3: []}
    for row in rows:
        held[row[0]].append(row)
    return dataclasses.replace(
        namespace,
        associations=tuple(Association(row[1], row[2], row[3], **parts.times(row, 5)) for row in held[0]),
        properties={row[1]: parts.definition(row[2]) for row in held[1]},
        objects=tuple(parts.object_(row[1], row[2], row[3], row[4], parts.times(row, 5)) for row in held[2]),
        tags=tuple(
            MetadefTag(row[1], **parts.times(row, 5))
            for row in sorted(held[3], key=lambda row: (sql.made(row[5]), row[8]), reverse=True)
        ),
    )


async def add(conn: AsyncConnection, namespace: Namespace) -> Namespace:
    """Store a new namespace with all that it holds; as stored. `Duplicate`, `QuotaExceeded`, `TooLarge`."""
    now = kept(conn, utcnow())
    row = {**_columns(namespace), "created_at": now, "updated_at": now}
    try:
        await sql.insert(conn, "metadef_namespaces", [row])
    except Exception as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(f"There is a namespace '{namespace.name}' already.") from error
    stored = await locked(conn, namespace.name)
    await parts.add_held(conn, stored, namespace)
    return await whole(conn, stored)


def _columns(namespace: Namespace) -> dict[str, Any]:
    return {
        "namespace": namespace.name,
        "display_name": namespace.display_name,
        "description": namespace.description,
        "visibility": namespace.visibility,
        "protected": namespace.protected,
        "owner": namespace.owner,
    }


async def change(conn: AsyncConnection, old: Namespace, new: Namespace) -> Namespace:
    """Store the fields of `new` in the row of `old`; as stored. What it holds stays. `Duplicate`."""
    now = kept(conn, utcnow())
    try:
        await sql.update(conn, "metadef_namespaces", {**_columns(new), "updated_at": now}, id=old.id)
    except Exception as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(f"There is a namespace '{new.name}' already.") from error
    return dataclasses.replace(new, id=old.id, created_at=old.created_at, updated_at=now)


async def remove(conn: AsyncConnection, namespace: Namespace) -> None:
    """Remove a locked namespace and all that it holds."""
    for table in ("metadef_tags", "metadef_objects", "metadef_properties", "metadef_namespace_resource_types"):
        await sql.fetch(conn, f"DELETE FROM {table} WHERE namespace_id = {int(namespace.id)}")  # noqa: S608 - constants
    await sql.fetch(conn, f"DELETE FROM metadef_namespaces WHERE id = {int(namespace.id)}")  # noqa: S608 - a number
