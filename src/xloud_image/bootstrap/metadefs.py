"""Namespaces of metadata definitions from files into the database, out of it and away from it.

May be repeated, and by several nodes at once. Each namespace is one transaction. What an operator made or changed stays
as it is unless he says otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import metadef_parts as parts
from xloud_image.db import metadefs as rows
from xloud_image.db.engine import Database
from xloud_image.errors import ConfigError, Duplicate, NoSuchNamespace, TooLarge
from xloud_image.model import Association, MetadefObject, Namespace

# of a namespace that is there: leave it; add what it lacks; that, and what the file says otherwise; make it anew
How = Literal["leave", "merge", "prefer", "overwrite"]

_PAGE: Final = 200


@contextlib.asynccontextmanager
async def _database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = Database(settings)
    await database.start()
    try:
        yield database
    finally:
        await database.aclose()


async def load(settings: DatabaseSettings, wanted: Sequence[Namespace], how: How = "leave") -> dict[str, str]:
    """Have these namespaces; what became of each: "added", "changed" or "left". `ConfigError`: one is too large."""
    async with _database(settings) as database:
        return {one.name: await _load(database, one, how) for one in wanted}


async def _load(database: Database, new: Namespace, how: How) -> str:
    async def load(conn: AsyncConnection) -> str:
        try:
            there = await rows.locked(conn, new.name)
        except NoSuchNamespace:
            await rows.add(conn, new)
            return "added"
        if how == "leave":
            return "left"
        if how == "overwrite":
            await rows.remove(conn, there)
            await rows.add(conn, new)
            return "changed"
        old = await rows.whole(conn, there)
        changed = await _prefer(conn, old, new) if how == "prefer" else False
        lacks = _lacks(old, new)
        if lacks.associations or lacks.properties or lacks.objects or lacks.tags:
            await parts.add_held(conn, there, lacks)
            changed = True
        return "changed" if changed else "left"

    try:
        return await database.write(load)
    except Duplicate:  # another node was first
        return "left"
    except TooLarge as error:
        raise ConfigError(f"{new.name}: {error.message}") from None


def _lacks(old: Namespace, new: Namespace) -> Namespace:
    """What `new` holds and `old` does not, by name."""
    objects, tags = {one.name for one in old.objects}, {one.name for one in old.tags}
    types = {one.name for one in old.associations}
    return Namespace(
        "",
        "",
        associations=tuple(one for one in new.associations if one.name not in types),
        properties={name: one for name, one in new.properties.items() if name not in old.properties},
        objects=tuple(one for one in new.objects if one.name not in objects),
        tags=tuple(one for one in new.tags if one.name not in tags),
    )


async def _prefer(conn: AsyncConnection, old: Namespace, new: Namespace) -> bool:
    """Change what both have to what `new` says; whether there was a difference. The owner stays."""
    changed = False
    wanted = dataclasses.replace(new, owner=old.owner)
    if _fields(old) != _fields(wanted):
        await rows.change(conn, old, wanted)
        changed = True
    for name, definition in new.properties.items():
        if name in old.properties and old.properties[name] != definition:
            await parts.change_held(conn, old, "properties", name, name, definition)
            changed = True
    there = {one.name: one for one in old.objects}
    for one in new.objects:
        known = there.get(one.name)
        if known is not None and _said(known) != _said(one):
            await parts.change_held(conn, old, "objects", one.name, one.name, one)
            changed = True
    types = {one.name: one for one in old.associations}
    for each in new.associations:
        if each.name in types and _tie(types[each.name]) != _tie(each):
            await parts.remove_association(conn, old, each.name)
            await parts.add_held(conn, old, Namespace("", "", associations=(each,)))
            changed = True
    return changed


def _fields(one: Namespace) -> tuple[object, ...]:
    return one.display_name, one.description, one.visibility, one.protected


def _said(one: MetadefObject) -> tuple[object, ...]:
    return one.description, one.required, dict(one.properties)


def _tie(one: Association) -> tuple[object, ...]:
    return one.prefix, one.properties_target


async def unload(settings: DatabaseSettings, names: Sequence[str] | None) -> list[str]:
    """Remove these namespaces, protected ones too, None: all; the names of those that were there."""
    async with _database(settings) as database:
        wanted = names if names is not None else [one.name for one in await _all(database)]

        async def remove(conn: AsyncConnection, name: str) -> bool:
            try:
                await rows.remove(conn, await rows.locked(conn, name))
            except NoSuchNamespace:
                return False
            return True

        return [name for name in wanted if await database.write(lambda conn, name=name: remove(conn, name))]  # type: ignore[misc]


async def export(settings: DatabaseSettings) -> list[Namespace]:
    """All namespaces with what they hold."""
    async with _database(settings) as database:
        return [
            await database.read(lambda conn, one=one: rows.whole(conn, one))  # type: ignore[misc]
            for one in await _all(database)
        ]


async def _all(database: Database) -> list[Namespace]:
    async def page(conn: AsyncConnection, marker: Namespace | None) -> list[Namespace]:
        return await rows.find(
            conn,
            everybodys=True,
            project=None,
            visibility=None,
            resource_types=None,
            sort_key="id",
            direction="asc",
            marker=marker,
            limit=_PAGE,
        )

    found: list[Namespace] = []
    while not len(found) % _PAGE:
        marker = found[-1] if found else None
        more = await database.read(lambda conn, marker=marker: page(conn, marker))  # type: ignore[misc]
        found += more
        if not more:
            break
    return found
