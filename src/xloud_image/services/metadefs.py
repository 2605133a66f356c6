"""Metadata definitions: what clients can ask for namespaces and for what they hold. Every change goes by `_changed` or,
of a namespace that is new, by `create`.

Source: Image API reference, section "Metadata definitions".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import metadef_parts as parts
from xloud_image.db import metadefs as rows
from xloud_image.db.engine import Tx
from xloud_image.errors import NoSuchNamespace, NotFound, Protected
from xloud_image.identity.context import Context
from xloud_image.model import Association, MetadefTag, Namespace, utcnow
from xloud_image.policy import metadefs as rights
from xloud_image.services.runtime import Runtime

T = TypeVar("T")
Kind = parts.Kind
Direction = Literal["asc", "desc"]

_LOOK: Final = 100  # namespaces that are read at a time at least, where a rule may hide some
_PAGES: Final = 20  # that are looked through when a rule hides most of them

# kind → what the types of its events begin with
_EVENT: Final[Mapping[Kind, str]] = {
    "objects": "metadef_object",
    "properties": "metadef_property",
    "tags": "metadef_tag",
}
# kind → the rules that are asked to read one, to read all, to add, to change, to remove one
_ONE: Final[Mapping[Kind, str]] = {
    "objects": "get_metadef_object",
    "properties": "get_metadef_property",
    "tags": "get_metadef_tag",
}
_ALL: Final[Mapping[Kind, str]] = {
    "objects": "get_metadef_objects",
    "properties": "get_metadef_properties",
    "tags": "get_metadef_tags",
}
_ADD: Final[Mapping[Kind, str]] = {
    "objects": "add_metadef_object",
    "properties": "add_metadef_property",
    "tags": "add_metadef_tag",
}
_CHANGE: Final[Mapping[Kind, str]] = {
    "objects": "modify_metadef_object",
    "properties": "modify_metadef_property",
    "tags": "modify_metadef_tag",
}
_REMOVE: Final[Mapping[Kind, str]] = {
    "objects": "delete_metadef_object",
    "properties": "remove_metadef_property",
    "tags": "delete_metadef_tag",
}


# namespaces


async def find(
    runtime: Runtime,
    ctx: Context,
    *,
    visibility: str | None,
    resource_types: Sequence[str] | None,
    sort_key: str,
    direction: Direction,
    marker: str | None,
    limit: int,
) -> tuple[list[Namespace], bool]:
    """A page of the namespaces that the caller may see, with their resource types; whether more may follow.
    `NoSuchNamespace`: there is no such marker."""
    runtime.policy.require(ctx, "get_metadef_namespaces")
    runtime.policy.require(ctx, "list_metadef_resource_types")
    after = await _seen(runtime, ctx, marker) if marker is not None else None
    found: list[Namespace] = []
    more, look = limit > 0, limit if ctx.is_admin else max(limit, _LOOK)
    for _ in range(_PAGES):
        if not more or len(found) == limit:
            break
        page = await runtime.db.read(
            lambda conn, after=after: rows.find(  # type: ignore[misc]
                conn,
                everybodys=ctx.is_admin,
                project=ctx.project,
                visibility=visibility,
                resource_types=resource_types,
                sort_key=sort_key,
                direction=direction,
                marker=after,
                limit=look,
            )
        )
        room = limit - len(found)
        shown = [one for one in page if rights.may_see(runtime.policy, ctx, one)]
        found += shown[:room]
        more = len(page) == look or len(shown) > room
        after = page[-1] if page else None
    return found, more and len(found) > 0


async def get(runtime: Runtime, ctx: Context, name: str) -> Namespace:
    """One namespace with all that it holds."""

    async def read(conn: AsyncConnection) -> Namespace:
        found = _there(await rows.get(conn, name), name)
        rights.require_see(runtime.policy, ctx, found)
        for rule in ("list_metadef_resource_types", *_ALL.values()):
            rights.require(runtime.policy, ctx, rule, found)
        return await rows.whole(conn, found)

    return await runtime.db.read(read)


async def create(runtime: Runtime, ctx: Context, namespace: Namespace) -> Namespace:
    """A new namespace with all that it holds, or none of it."""
    policy = runtime.policy
    policy.require(ctx, "add_metadef_namespace")
    for held, rule in (
        (namespace.associations, "add_metadef_resource_type_association"),
        (namespace.objects, _ADD["objects"]),
        (namespace.properties, _ADD["properties"]),
        (namespace.tags, _ADD["tags"]),
    ):
        if held:
            policy.require(ctx, rule)
    rights.require_owner(ctx, namespace.owner)

    async def created(tx: Tx) -> Namespace:
        stored = await rows.add(tx, namespace)
        tx.tell("metadef_namespace.create", events.of_namespace, stored)
        return stored

    return await runtime.db.write(created)


async def change(runtime: Runtime, ctx: Context, name: str, new: Namespace) -> Namespace:
    """Other fields, its name included; what it holds stays, and its owner unless a new one is given."""

    async def changed(tx: Tx, old: Namespace) -> Namespace:
        if new.owner not in ("", old.owner):
            rights.require_owner(ctx, new.owner)
        stored = await rows.change(tx, old, dataclasses.replace(new, owner=new.owner or old.owner))
        tx.tell("metadef_namespace.update", events.of_namespace, stored, old=old.name)
        return stored

    return await _changed(runtime, ctx, name, "modify_metadef_namespace", changed)


async def delete(runtime: Runtime, ctx: Context, name: str) -> None:
    """Remove a namespace and all that it holds. `Protected`."""

    async def removed(tx: Tx, namespace: Namespace) -> None:
        await rows.remove(tx, namespace)
        tx.tell("metadef_namespace.delete", events.of_namespace, namespace, deleted_at=utcnow())

    await _changed(runtime, ctx, name, "delete_metadef_namespace", removed, removes=True)


async def empty(runtime: Runtime, ctx: Context, name: str, kind: Kind) -> None:
    """Remove all objects, properties or tags of a namespace; for who may remove it. `Protected`."""

    async def emptied(tx: Tx, namespace: Namespace) -> None:
        if kind == "tags":
            rights.require(runtime.policy, ctx, "delete_metadef_tags", namespace)
        await parts.remove_held(tx, namespace, kind)
        tx.tell(f"metadef_namespace.delete_{kind}", events.of_namespace, namespace, deleted_at=utcnow())

    await _changed(runtime, ctx, name, "delete_metadef_namespace", emptied, removes=True)


# what a namespace holds


async def held(runtime: Runtime, ctx: Context, name: str, kind: Kind) -> Namespace:
    """A namespace with its objects or properties, if the caller may read each of them."""

    async def read(conn: AsyncConnection) -> Namespace:
        found = _there(await rows.get(conn, name), name)
        rights.require(runtime.policy, ctx, _ALL[kind], found)
        if kind == "objects" and not rights.allows(runtime.policy, ctx, _ONE[kind], found):
            return found
        return await rows.whole(conn, found)

    return await runtime.db.read(read)


async def get_held(
    runtime: Runtime, ctx: Context, name: str, kind: Kind, which: str, *, resource_type: str | None = None
) -> tuple[str, Any]:
    """One object, property or tag of a namespace, under its name. resource_type: the name begins with its prefix."""

    async def read(conn: AsyncConnection) -> tuple[str, Any]:
        found = _there(await rows.get(conn, name), name)
        rights.require(runtime.policy, ctx, _ONE[kind], found)
        own = which
        if resource_type is not None:
            rights.require(runtime.policy, ctx, "get_metadef_resource_type", found)
            own = _without_prefix(await parts.associations(conn, found), resource_type, which)
        return own, await parts.get_held(conn, found, kind, own)

    return await runtime.db.read(read)


def _without_prefix(known: Sequence[Association], resource_type: str, name: str) -> str:
    prefix = next((one.prefix for one in known if one.name == resource_type), None)
    if not prefix or not name.startswith(prefix):
        raise NotFound(f"No property of '{resource_type[:80]}' is called '{name[:80]}' here.")
    return name[len(prefix) :]


async def tags(
    runtime: Runtime, ctx: Context, name: str, *, sort_key: str, direction: Direction, marker: str | None, limit: int
) -> list[MetadefTag]:
    """A page of a namespace's tags. `NotFound`: there is no such marker."""

    async def read(conn: AsyncConnection) -> list[MetadefTag]:
        found = _there(await rows.get(conn, name), name)
        rights.require(runtime.policy, ctx, _ALL["tags"], found)
        return await parts.tags(conn, found, sort_key=sort_key, direction=direction, marker=marker, limit=limit)

    return await runtime.db.read(read)


async def add(runtime: Runtime, ctx: Context, name: str, kind: Kind, which: str, value: Any = None) -> Any:
    """One more object (MetadefObject), property (its definition) or tag; as stored. `Duplicate`, `QuotaExceeded`."""

    async def added(tx: Tx, namespace: Namespace) -> Any:
        one: dict[Kind, Namespace] = {
            "objects": Namespace("", "", objects=(value,)),
            "properties": Namespace("", "", properties={which: value}),
            "tags": Namespace("", "", tags=(MetadefTag(which),)),
        }
        await parts.add_held(tx, namespace, one[kind])
        tx.tell(f"{_EVENT[kind]}.create", events.of_definition, namespace, which)
        return await parts.get_held(tx, namespace, kind, which)

    return await _changed(runtime, ctx, name, _ADD[kind], added)


async def add_tags(runtime: Runtime, ctx: Context, name: str, new: Sequence[MetadefTag], *, append: bool) -> None:
    """These tags instead of those that are there; append: besides them."""

    async def added(tx: Tx, namespace: Namespace) -> None:
        if new and not append:
            await parts.remove_held(tx, namespace, "tags")
        await parts.add_held(tx, namespace, Namespace("", "", tags=tuple(new)))
        for one in new:
            tx.tell("metadef_tag.create", events.of_definition, namespace, one.name)

    await _changed(runtime, ctx, name, "add_metadef_tags", added)


async def change_held(
    runtime: Runtime, ctx: Context, name: str, kind: Kind, which: str, new_name: str, value: Any = None
) -> Any:
    """Another object, definition or name in the place of one; as stored. `Duplicate`."""

    async def changed(tx: Tx, namespace: Namespace) -> Any:
        stored = await parts.change_held(tx, namespace, kind, which, new_name, value)
        tx.tell(f"{_EVENT[kind]}.update", events.of_definition, namespace, new_name, old=which)
        return stored

    return await _changed(runtime, ctx, name, _CHANGE[kind], changed)


async def remove_held(runtime: Runtime, ctx: Context, name: str, kind: Kind, which: str) -> None:
    """Remove one object, property or tag. `Protected`."""

    async def removed(tx: Tx, namespace: Namespace) -> None:
        await parts.remove_held(tx, namespace, kind, which)
        tx.tell(f"{_EVENT[kind]}.delete", events.of_definition, namespace, which, deleted_at=utcnow())

    await _changed(runtime, ctx, name, _REMOVE[kind], removed, removes=True)


# resource types


async def resource_types(runtime: Runtime, ctx: Context) -> list[Association]:
    """The types of resources that there are definitions for, or ever were."""
    runtime.policy.require(ctx, "list_metadef_resource_types")
    return await runtime.db.read(parts.resource_types)


async def associations(runtime: Runtime, ctx: Context, name: str) -> list[Association]:
    """What a namespace is about."""

    async def read(conn: AsyncConnection) -> list[Association]:
        found = _there(await rows.get(conn, name), name)
        rights.require(runtime.policy, ctx, "list_metadef_resource_types", found)
        if not rights.allows(runtime.policy, ctx, "get_metadef_resource_type", found):
            return []
        return await parts.associations(conn, found)

    return await runtime.db.read(read)


async def associate(runtime: Runtime, ctx: Context, name: str, new: Association) -> Association:
    """A namespace is about this type of resources, too. `Duplicate`."""

    async def added(tx: Tx, namespace: Namespace) -> Association:
        await parts.add_held(tx, namespace, Namespace("", "", associations=(new,)))
        tx.tell("metadef_resource_type.create", events.of_definition, namespace, new.name)
        return next(one for one in await parts.associations(tx, namespace) if one.name == new.name)

    return await _changed(runtime, ctx, name, "add_metadef_resource_type_association", added)


async def dissociate(runtime: Runtime, ctx: Context, name: str, resource_type: str) -> None:
    """A namespace is about this type of resources no more. `Protected`."""

    async def removed(tx: Tx, namespace: Namespace) -> None:
        await parts.remove_association(tx, namespace, resource_type)
        tx.tell("metadef_resource_type.delete", events.of_definition, namespace, resource_type, deleted_at=utcnow())

    await _changed(runtime, ctx, name, "remove_metadef_resource_type_association", removed, removes=True)


def _there(found: Namespace | None, name: str) -> Namespace:
    if found is None:
        raise NoSuchNamespace(name)
    return found


async def _seen(runtime: Runtime, ctx: Context, name: str) -> Namespace:
    found = _there(await runtime.db.read(lambda conn: rows.get(conn, name)), name)
    rights.require_see(runtime.policy, ctx, found)
    return found


async def _changed(
    runtime: Runtime,
    ctx: Context,
    name: str,
    rule: str,
    work: Callable[[Tx, Namespace], Awaitable[T]],
    *,
    removes: bool = False,
) -> T:
    """Do `work` in one transaction that holds the namespace: what it looks at cannot change before it is stored."""

    async def locked(tx: Tx) -> T:
        namespace = await rows.locked(tx, name)
        rights.require(runtime.policy, ctx, rule, namespace)
        if removes and namespace.protected:
            raise Protected(f"The namespace '{namespace.name}' is protected: nothing of it can be deleted.")
        return await work(tx, namespace)

    return await runtime.db.write(locked)
