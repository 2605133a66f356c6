"""Lists of images: who sees what, every filter, every order, pages by key. Reads only.

Rules: Image API reference, "List" and "Who sees what in a list". A page is cut by the sort values of the marker, never
by an offset, so that page 1,000 costs what page 1 costs.

Two shapes of the same question. With no filter that narrows the list down, what the caller sees is cut into parts that
never overlap (public, own by visibility, shared with the caller), each walked in an index's order and each stopping
after one page; the parts are then merged. With such a filter (name, id, tag, property, a hash) its index finds the few
candidates, and what the caller may see is checked on each.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import details, sql
from xloud_image.db.images import ROW, image_of
from xloud_image.db.indexes import VALUE_PREFIX
from xloud_image.errors import BadRequest, Forbidden
from xloud_image.model import VISIBILITIES, Image

Direction = Literal["asc", "desc"]

SORT_KEYS: Final = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
NUMBERS: Final = frozenset({"size", "virtual_size", "min_disk", "min_ram"})
FLAGS: Final = frozenset({"protected", "os_hidden"})
TIMES: Final = frozenset({"created_at", "updated_at"})
COLUMNS: Final = frozenset(ROW) - {"visibility"}
LISTED: Final = frozenset({"id", "name", "status", "container_format", "disk_format"})
COMPARE: Final[Mapping[str, str]] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "neq": "<>"}

_NULLABLE: Final = frozenset({"name", "container_format", "disk_format", "size", "updated_at"})
# columns whose equality leaves few images
_NARROW: Final = frozenset({"id", "name", "checksum", "os_hash_value"})


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """What to list. Values have the column's type: int, bool, str, or a UTC time without zone.

    `project` and `is_admin` say who asks; a caller without project sees what is public. `visibility`: None is the
    default list, "all", or one visibility. `member_status`: of the caller's memberships, or "all". `equals`: column →
    value; `one_of`: column of LISTED → values; `times`: (column, key of COMPARE, time); `at_least`, `at_most`: column
    of NUMBERS → number; `tags` must all be there; `properties` must all be equal. `sort`: (key of SORT_KEYS, "asc" or
    "desc"); created_at and id are appended. `marker`: the id after which the page begins.
    """

    project: str | None = None
    is_admin: bool = False
    visibility: str | None = None
    member_status: str = "accepted"
    os_hidden: bool = False
    equals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    one_of: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    times: Sequence[tuple[str, str, dt.datetime]] = ()
    at_least: Mapping[str, int] = dataclasses.field(default_factory=dict)
    at_most: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tags: Sequence[str] = ()
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sort: Sequence[tuple[str, Direction]] = ()
    marker: str | None = None
    limit: int = 25

    def order(self) -> tuple[tuple[str, Direction], ...]:
        """The whole order: `sort`, then created_at and id in the direction that all keys have, else descending."""
        directions = {direction for _, direction in self.sort}
        rest: Direction = self.sort[0][1] if len(directions) == 1 else "desc"
        named = {key for key, _ in self.sort}
        return (*self.sort, *((key, rest) for key in ("created_at", "id") if key not in named))


async def find(conn: AsyncConnection, query: Query) -> list[Image]:
    """One page, with details; two statements, three with a marker.

    BadRequest: an unknown marker, key or column. Forbidden: a marker that the caller may not see.
    """
    _check(query)
    order = query.order()
    after = None if query.marker is None else await _marker(conn, query, order)
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(conn, page(text, query, order, after), text.values)
    found = await details.load(conn, [row[0] for row in rows], query.project) if rows else {}
    return [image_of(row, found[row[0]]) for row in rows]


def _check(query: Query) -> None:
    unknown = (
        ({key for key, _ in query.sort} - set(SORT_KEYS))
        | (set(query.equals) - COLUMNS)
        | (set(query.one_of) - LISTED)
        | ({key for key, _, _ in query.times} - TIMES)
        | ((set(query.at_least) | set(query.at_most)) - NUMBERS)
    )
    if unknown:
        raise BadRequest(f"Images cannot be sorted or filtered by {', '.join(sorted(unknown))} in this way.")
    if len({key for key, _ in query.sort}) != len(query.sort):
        raise BadRequest("A sort key may be given only once.")
    if query.visibility not in (None, "all", *VISIBILITIES):
        raise BadRequest(f"visibility must be one of all, {', '.join(VISIBILITIES)}.")


async def _marker(conn: AsyncConnection, query: Query, order: Sequence[tuple[str, Direction]]) -> tuple[Any, ...]:
    text = sql.Text(sql.engine_of(conn))
    assert query.marker is not None
    member = (
        "NULL"
        if query.project is None
        else "(SELECT count(*) FROM image_members m"  # noqa: S608 - constants
        f" WHERE m.image_id = i.id AND m.member = {text.bind(query.project)} AND m.deleted = false)"
    )
    rows = await sql.fetch(
        conn,
        f"SELECT i.visibility, i.owner, {member}, {', '.join(f'i.{key}' for key, _ in order)}"  # noqa: S608 - constants
        f" FROM images i WHERE i.id = {text.bind(query.marker)}",
        text.values,
    )
    if not rows:
        raise BadRequest(f"The marker {query.marker} is no image.")
    visibility, owner, membership, *values = rows[0]
    if not (
        query.is_admin
        or visibility in ("public", "community")
        or owner is None
        or owner == query.project
        or (visibility == "shared" and membership)
    ):
        raise Forbidden(f"The marker {query.marker} is not one of your images.")
    return tuple(values)


def page(text: sql.Text, query: Query, order: Sequence[tuple[str, Direction]], after: tuple[Any, ...] | None) -> str:
    """The text of the page's rows, values bound in `text`. Public for tests that look at the engines' plans."""
    parts = [_seen] if _narrows(query) else _parts(query)
    if not parts:
        return f"SELECT {', '.join(ROW)} FROM images WHERE 1 = 0"  # noqa: S608 - constants
    tail = f" ORDER BY {_order(text.engine, order)} LIMIT {int(query.limit)}"
    selects = []
    for part in parts:
        where = [part(text, query), *_filters(text, query)]
        if after is not None:
            where.append(_beyond(text, order, after))
        selects.append(
            f"SELECT {', '.join([f'i.{name}' for name in ROW])} FROM images i WHERE {' AND '.join(where)}{tail}"  # noqa: S608 - constants
        )
    if len(selects) == 1:
        return selects[0]
    if text.engine == "sqlite":  # it takes no parentheses around the members of a union
        selects = [f"SELECT * FROM ({select}) AS p{n}" for n, select in enumerate(selects)]  # noqa: S608 - constants
        return " UNION ALL ".join(selects) + tail
    return " UNION ALL ".join([f"({select})" for select in selects]) + tail


def _order(engine: sql.Engine, order: Sequence[tuple[str, Direction]]) -> str:
    # unknown values come first going up and last going down, on every engine
    nulls = {"asc": " NULLS FIRST", "desc": " NULLS LAST"} if engine == "postgresql" else {"asc": "", "desc": ""}
    return ", ".join(
        f"{key} {direction.upper()}{nulls[direction] if key in _NULLABLE else ''}" for key, direction in order
    )


def _beyond(text: sql.Text, order: Sequence[tuple[str, Direction]], after: tuple[Any, ...]) -> str:
    """The condition that a row comes after the marker's."""
    if (
        text.engine != "mysql"  # it does not use an index for a comparison of rows, but does for the words below
        and len({direction for _, direction in order}) == 1
        and not any(key in _NULLABLE for key, _ in order)
    ):
        sign = ">" if order[0][1] == "asc" else "<"
        names = ", ".join([f"i.{key}" for key, _ in order])
        return f"({names}) {sign} ({', '.join([text.bind(value) for value in after])})"
    ways = []
    for n, (key, direction) in enumerate(order):
        if after[n] is None:
            if direction == "desc":
                continue  # unknown values come last
            step = f"i.{key} IS NOT NULL"
            same = [_same(text, k, v) for (k, _), v in zip(order[:n], after[:n], strict=True)]
        else:
            same = [_same(text, k, v) for (k, _), v in zip(order[:n], after[:n], strict=True)]
            step = f"i.{key} {'>' if direction == 'asc' else '<'} {text.bind(after[n])}"
            if direction == "desc" and key in _NULLABLE:
                step = f"({step} OR i.{key} IS NULL)"
        ways.append(" AND ".join([*same, step]))
    return f"({' OR '.join(ways)})"


def _same(text: sql.Text, key: str, value: Any) -> str:
    return f"i.{key} IS NULL" if value is None else f"i.{key} = {text.bind(value)}"


# -- who sees what: each part binds its values when its words are written


def _parts(query: Query) -> list[Any]:
    wanted = query.visibility
    names = VISIBILITIES if wanted in (None, "all") else (wanted,)
    parts: list[Any] = []
    for name in names:
        if query.is_admin:
            whole = name != "community" or wanted is not None
        else:
            whole = name == "public" or (name == "community" and wanted is not None)
        if whole:
            parts.append(_Whole(name))
        elif query.project is not None:
            parts.append(_Own(name))
            if name == "shared":
                parts.append(_with_me)
    return parts


def _base(query: Query) -> str:
    return f"i.deleted = false AND i.os_hidden = {'true' if query.os_hidden else 'false'} AND i.status <> 'killed'"


@dataclasses.dataclass(frozen=True, slots=True)
class _Whole:
    """All images of one visibility."""

    visibility: str

    def __call__(self, text: sql.Text, query: Query) -> str:
        return f"i.visibility = '{self.visibility}' AND {_base(query)}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Own:
    """The caller's images of one visibility."""

    visibility: str

    def __call__(self, text: sql.Text, query: Query) -> str:
        return f"i.owner = {text.bind(query.project)} AND i.visibility = '{self.visibility}' AND {_base(query)}"


def _with_me(text: sql.Text, query: Query) -> str:
    """What others share with the caller."""
    return (
        f"i.id IN ({_memberships(text, query)}) AND i.visibility = 'shared'"
        f" AND (i.owner <> {text.bind(query.project)} OR i.owner IS NULL) AND {_base(query)}"
    )


def _memberships(text: sql.Text, query: Query) -> str:
    words = f"SELECT m.image_id FROM image_members m WHERE m.member = {text.bind(query.project)} AND m.deleted = false"  # noqa: S608 - constants
    return words if query.member_status == "all" else f"{words} AND m.status = {text.bind(query.member_status)}"


def _seen(text: sql.Text, query: Query) -> str:
    """All that the caller sees, as one condition on a candidate."""
    # a plus keeps SQLite, which has no statistics here, from walking another index than the filter's
    plus = "+" if text.engine == "sqlite" else ""
    ways = []
    for part in _parts(query):
        if isinstance(part, _Whole):
            ways.append(f"{plus}i.visibility = '{part.visibility}'")
        elif isinstance(part, _Own):
            ways.append(f"({plus}i.visibility = '{part.visibility}' AND {plus}i.owner = {text.bind(query.project)})")
        else:
            ways.append(
                f"({plus}i.visibility = 'shared' AND EXISTS ({_memberships(text, query)} AND m.image_id = i.id))"
            )
    hidden = "true" if query.os_hidden else "false"
    seen = f"({' OR '.join(ways)})" if ways else "1 = 0"
    return f"{seen} AND {plus}i.deleted = false AND {plus}i.os_hidden = {hidden} AND i.status <> 'killed'"


# -- filters


def _narrows(query: Query) -> bool:
    return bool(query.tags or query.properties) or not _NARROW.isdisjoint((*query.equals, *query.one_of))


def _filters(text: sql.Text, query: Query) -> list[str]:
    where = [_same(text, column, value) for column, value in query.equals.items()]
    where += [text.any_of(f"i.{column}", values) for column, values in query.one_of.items()]
    where += [f"i.{column} {COMPARE[sign]} {text.bind(moment)}" for column, sign, moment in query.times]
    where += [f"i.{column} >= {text.bind(number)}" for column, number in query.at_least.items()]
    where += [f"i.{column} <= {text.bind(number)}" for column, number in query.at_most.items()]
    where += [
        f"i.id IN (SELECT t.image_id FROM image_tags t WHERE t.value = {text.bind(tag)} AND t.deleted = false)"  # noqa: S608 - constants
        for tag in query.tags
    ]
    where += [_property(text, name, value) for name, value in query.properties.items()]
    return where


def _property(text: sql.Text, name: str, value: str) -> str:
    words = f"SELECT q.image_id FROM image_properties q WHERE q.name = {text.bind(name)}"  # noqa: S608 - constants
    if not value:
        same = "(q.value = '' OR q.value IS NULL)"  # a property without value reads as the empty text
    elif text.engine == "mysql":  # it uses the prefix in the index by itself
        same = f"q.value = {text.bind(value)}"
    else:
        same = f"substr(q.value, 1, {VALUE_PREFIX}) = {text.bind(value[:VALUE_PREFIX])}"
        if len(value) >= VALUE_PREFIX:
            same += f" AND q.value = {text.bind(value)}"
    return f"i.id IN ({words} AND {same} AND NOT q.deleted)"
