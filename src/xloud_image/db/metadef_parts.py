"""What a namespace of metadata definitions holds: properties, objects, tags, resource types; each a row of its table.

Whoever changes them holds the lock of the namespace's row, so that what was counted stays so. Names are compared to the
letter, also where the database's collation would not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.image_children import kept
from xloud_image.errors import Conflict, Duplicate, NotFound, QuotaExceeded, TooLarge
from xloud_image.model import Association, MetadefObject, MetadefTag, Namespace, utcnow

Kind = Literal["objects", "properties", "tags"]
WORDS: Final[Mapping[Kind, str]] = {"objects": "object", "properties": "property", "tags": "tag"}
TAG_SORT_KEYS: Final = ("created_at", "updated_at", "name", "id")
MOST: Final = 1000  # objects, properties, tags and resource types of one namespace, each
BYTES: Final = 2 << 20  # characters of all definitions of one namespace
LONGEST: Final = 65_535  # bytes of one definition, an object being one: what its column holds on every engine
# kind, name, three texts, two times, namespace, number: all that namespaces hold, each from its table
ASSOCIATIONS: Final = (
    "SELECT 0, t.name, a.prefix, a.properties_target, NULL, a.created_at, a.updated_at, a.namespace_id,"
    " a.resource_type_id FROM metadef_namespace_resource_types a"
    " JOIN metadef_resource_types t ON t.id = a.resource_type_id"
)
BESIDES: Final = (
    "SELECT 1, name, json_schema, NULL, NULL, created_at, updated_at, namespace_id, id FROM metadef_properties",
    "SELECT 2, name, json_schema, description, required, created_at, updated_at, namespace_id, id FROM metadef_objects",
    "SELECT 3, name, NULL, NULL, NULL, created_at, updated_at, namespace_id, id FROM metadef_tags",
)
_STEP: Final = 500  # rows of one INSERT
_NULLS: Final = {
    "n.display_name": "COALESCE(n.display_name, '')",
    "n.visibility": "COALESCE(n.visibility, 'private')",
    "n.protected": "COALESCE(n.protected, false)",
    "n.updated_at": "COALESCE(n.updated_at, n.created_at)",
    "updated_at": "COALESCE(updated_at, created_at)",
}


def times(row: Sequence[Any], first: int) -> dict[str, Any]:
    """The two times of a row, from its column `first` on; what never changed may have the first one only."""
    return {"created_at": sql.made(row[first]), "updated_at": sql.instant(row[first + 1])}


def object_(name: str, schema: str, description: str | None, required: str | None, when: Any) -> MetadefObject:
    """From the columns of its row."""
    names = tuple(required.split(",")) if required else ()
    return MetadefObject(name, description, names, definition(schema), **when)


def definition(text: str) -> dict[str, Any]:
    """As it was written: those that were posted by themselves repeat their name. {} where that is no mapping."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Mapping[str, Any]) -> str:
    """A definition for its column. `TooLarge` when it does not fit there."""
    text = json.dumps(dict(value))  # in ASCII: a character is a byte on every engine
    if len(text) > LONGEST:
        raise TooLarge(f"A definition may have {LONGEST} bytes as JSON, this one has {len(text)}.")
    return text


async def add_held(conn: AsyncConnection, namespace: Namespace, held: Namespace) -> None:
    """Add all that `held` holds to a locked namespace. `Duplicate`, `QuotaExceeded`, `TooLarge`."""
    now = kept(conn, utcnow())
    await _require_room(conn, namespace, held)
    base = {"namespace_id": namespace.id, "created_at": now, "updated_at": now}
    await _insert(
        conn,
        "properties",
        [{**base, "name": name, "json_schema": _text(one)} for name, one in held.properties.items()],
    )
    await _insert(conn, "objects", [{**base, **_of_object(one)} for one in held.objects])
    await _insert(conn, "tags", [{**base, "name": one.name} for one in held.tags])
    if held.associations:
        numbers = await _resource_types(conn, [one.name for one in held.associations], now)
        rows = [
            {
                "namespace_id": namespace.id,
                "resource_type_id": numbers[one.name],
                "properties_target": one.properties_target,
                "prefix": one.prefix,
                "created_at": now,
                "updated_at": now,
            }
            for one in held.associations
        ]
        await _unique(sql.insert(conn, "metadef_namespace_resource_types", rows), "resource type")


def _of_object(value: MetadefObject) -> dict[str, Any]:
    return {
        "name": value.name,
        "description": value.description,
        "required": ",".join(value.required) or None,
        "json_schema": _text(value.properties),
    }


async def _insert(conn: AsyncConnection, kind: Kind, rows: Sequence[Mapping[str, Any]]) -> None:
    for first in range(0, len(rows), _STEP):
        await _unique(sql.insert(conn, f"metadef_{kind}", rows[first : first + _STEP]), WORDS[kind])


async def _unique(statement: Any, word: str) -> None:
    try:
        await statement
    except Exception as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(f"There is a {word} of this name already, or it is named twice.") from error


async def _require_room(conn: AsyncConnection, namespace: Namespace, more: Namespace, *, less: int = 0) -> None:
    """`QuotaExceeded` when the namespace would hold more than MOST of a kind, or more than BYTES of definitions.

    less: bytes of a definition, counted in `more`, that are there already.
    """
    number = int(namespace.id)
    counts = [
        f"SELECT {kind}, count(*), {size} FROM {table} WHERE namespace_id = {number}"  # noqa: S608 - constants
        for kind, table, size in (
            (0, "metadef_namespace_resource_types", "0"),
            (1, "metadef_properties", "COALESCE(sum(length(json_schema)), 0)"),
            (2, "metadef_objects", "COALESCE(sum(length(json_schema)), 0)"),
            (3, "metadef_tags", "0"),
        )
    ]
    rows = {row[0]: row for row in await sql.fetch(conn, " UNION ALL ".join(counts))}
    added = (len(more.associations), len(more.properties), len(more.objects), len(more.tags))
    for kind, count in enumerate(added):
        if count and not less and rows[kind][1] + count > MOST:
            raise QuotaExceeded(
                f"A namespace may hold {MOST} {('resource types', 'properties', 'objects', 'tags')[kind]}."
            )
    size = sum(len(_text(one)) for one in more.properties.values())
    size += sum(len(_text(one.properties)) for one in more.objects)
    if size > less and int(rows[1][2]) + int(rows[2][2]) + size - less > BYTES:
        raise QuotaExceeded(f"The definitions of a namespace may have {BYTES} bytes as JSON together.")


async def get_held(conn: AsyncConnection, namespace: Namespace, kind: Kind, name: str) -> Any:
    """One object (MetadefObject), property (its definition) or tag (MetadefTag) of a namespace. `NotFound`."""
    text = sql.Text(sql.engine_of(conn))
    columns = {
        "objects": "json_schema, description, required",
        "properties": "json_schema, NULL, NULL",
        "tags": "NULL, NULL, NULL",
    }[kind]
    rows = await sql.fetch(
        conn,
        f"SELECT name, {columns}, created_at, updated_at FROM metadef_{kind}"  # noqa: S608 - constants
        f" WHERE namespace_id = {int(namespace.id)} AND name = {text.bind(name)}",
        text.values,
    )
    row = next((row for row in rows if row[0] == name), None)
    if row is None:
        raise NotFound(f"The namespace '{namespace.name}' has no {WORDS[kind]} '{name[:80]}'.")
    if kind == "properties":
        return definition(row[1])
    when = times(row, 4)
    return MetadefTag(row[0], **when) if kind == "tags" else object_(row[0], row[1], row[2], row[3], when)


async def change_held(
    conn: AsyncConnection, namespace: Namespace, kind: Kind, name: str, new_name: str, value: Any
) -> Any:
    """Store an object, a property's definition or a tag in the place of `name`; as stored. The namespace is locked.

    `NotFound`, `Duplicate`, `QuotaExceeded`, `TooLarge`.
    """
    old = await get_held(conn, namespace, kind, name)
    columns: dict[str, Any] = {"name": new_name}
    if kind == "objects":
        columns = _of_object(value)
        new = Namespace("", "", objects=(value,))
        await _require_room(conn, namespace, new, less=len(json.dumps(dict(old.properties))))
    elif kind == "properties":
        columns["json_schema"] = _text(value)
        await _require_room(conn, namespace, Namespace("", "", properties={"": value}), less=len(json.dumps(old)))
    columns["updated_at"] = kept(conn, utcnow())
    held = {"namespace_id": namespace.id, "name": name}
    await _unique(sql.update(conn, f"metadef_{kind}", columns, **held), WORDS[kind])
    return await get_held(conn, namespace, kind, new_name)


async def remove_held(conn: AsyncConnection, namespace: Namespace, kind: Kind, name: str | None = None) -> None:
    """Remove one object, property or tag of a locked namespace (`NotFound`), or all of the kind."""
    text = sql.Text(sql.engine_of(conn))
    more = ""
    if name is not None:
        await get_held(conn, namespace, kind, name)
        more = f" AND name = {text.bind(name)}"
    words = f"DELETE FROM metadef_{kind} WHERE namespace_id = {int(namespace.id)}{more}"  # noqa: S608 - constants
    await sql.fetch(conn, words, text.values)


async def tags(
    conn: AsyncConnection,
    namespace: Namespace,
    *,
    sort_key: str,
    direction: Literal["asc", "desc"],
    marker: str | None,
    limit: int,
) -> list[MetadefTag]:
    """A page of a namespace's tags. `NotFound` for a marker that is none."""
    text = sql.Text(sql.engine_of(conn))
    where = f"WHERE namespace_id = {int(namespace.id)}"
    if marker is not None:
        value, number = await _marker(conn, namespace, sort_key, marker)
        where += f" AND {after(conn, text, sort_key, 'id', direction, value, number)}"
    rows = await sql.fetch(
        conn,
        f"SELECT name, created_at, updated_at FROM metadef_tags {where}"  # noqa: S608 - constants
        f" ORDER BY {sort_word(sort_key)} {direction}, id {direction} LIMIT {int(limit)}",
        text.values,
    )
    return [MetadefTag(row[0], **times(row, 1)) for row in rows]


async def _marker(conn: AsyncConnection, namespace: Namespace, sort_key: str, name: str) -> tuple[Any, int]:
    tag = await get_held(conn, namespace, "tags", name)
    text = sql.Text(sql.engine_of(conn))
    words = f"SELECT id FROM metadef_tags WHERE namespace_id = {int(namespace.id)} AND name = {text.bind(name)}"  # noqa: S608
    [[number]] = await sql.fetch(conn, words, text.values)
    return number if sort_key == "id" else sorted_value(tag, sort_key), number


def sort_word(column: str) -> str:
    """What stands for a column in ORDER BY and in comparisons: nulls have a place of their own on each engine."""
    return _NULLS.get(column, column)


def sorted_value(value: Any, key: str) -> Any:
    """What `sort_word` of that column gives for this one."""
    found = getattr(value, key)
    return value.created_at if key == "updated_at" and found is None else found


def after(conn: AsyncConnection, text: sql.Text, column: str, number: str, direction: str, value: Any, id_: int) -> str:
    """The rows behind the marker's."""
    sign, word = (">" if direction == "asc" else "<"), sort_word(column)
    if column == number:
        return f"{number} {sign} {text.bind(id_)}"
    kept_value = kept(conn, value) if column.endswith("_at") else value
    first = f"{word} {sign} {text.bind(kept_value)}"
    return f"({first} OR ({word} = {text.bind(kept_value)} AND {number} {sign} {text.bind(id_)}))"


async def resource_types(conn: AsyncConnection, *, limit: int = 10_000) -> list[Association]:
    """All types of resources that namespaces were ever about."""
    words = f"SELECT name, created_at, updated_at FROM metadef_resource_types ORDER BY name LIMIT {int(limit)}"  # noqa: S608
    return [Association(row[0], **times(row, 1)) for row in await sql.fetch(conn, words)]


async def associations(conn: AsyncConnection, namespace: Namespace) -> list[Association]:
    """What a namespace is about."""
    of = f"WHERE a.namespace_id = {int(namespace.id)} ORDER BY a.resource_type_id"
    return [
        Association(row[1], row[2], row[3], **times(row, 5)) for row in await sql.fetch(conn, f"{ASSOCIATIONS} {of}")
    ]


async def remove_association(conn: AsyncConnection, namespace: Namespace, name: str) -> None:
    """A locked namespace is about this no more; the type itself stays. `NotFound`."""
    if all(one.name != name for one in await associations(conn, namespace)):
        raise NotFound(f"The namespace '{namespace.name}' is not about '{name[:80]}'.")
    text = sql.Text(sql.engine_of(conn))
    await sql.fetch(
        conn,
        f"DELETE FROM metadef_namespace_resource_types WHERE namespace_id = {int(namespace.id)} AND resource_type_id IN"  # noqa: S608
        f" (SELECT id FROM metadef_resource_types WHERE name = {text.bind(name)})",
        text.values,
    )


async def _resource_types(conn: AsyncConnection, names: Sequence[str], now: Any) -> dict[str, int]:
    """The numbers of these types; those that are new are made. Others may make the same ones at once."""
    found = await _numbers(conn, names)
    new = [name for name in dict.fromkeys(names) if name not in found]
    if not new:
        return found
    rows = [{"name": name, "protected": False, "created_at": now, "updated_at": now} for name in sorted(new)]
    mysql = sql.engine_of(conn) == "mysql"
    conflict = "ON DUPLICATE KEY UPDATE id = id" if mysql else "ON CONFLICT (name) DO NOTHING"
    await sql.insert(conn, "metadef_resource_types", rows, conflict)
    found = await _numbers(conn, names, lock=mysql)
    if missing := [name for name in names if name not in found]:
        raise Conflict(f"There is a resource type whose name differs from '{missing[0]}' in case or accents only.")
    return found


async def _numbers(conn: AsyncConnection, names: Sequence[str], *, lock: bool = False) -> dict[str, int]:
    text = sql.Text(sql.engine_of(conn))
    words = f"SELECT name, id FROM metadef_resource_types WHERE {text.any_of('name', sorted(set(names)))}"  # noqa: S608
    rows = await sql.fetch(conn, words + (" LOCK IN SHARE MODE" if lock else ""), text.values)
    return {row[0]: row[1] for row in rows if row[0] in names}
