"""Lists of images: who sees what, every filter, every order, pages by key. Reads only.

Rules: Image API reference, "List" and "Who sees what in a list". A page is cut by the sort values of the marker, never
by an offset, so that page 1,000 costs what page 1 costs.

What the caller sees is cut into parts that never overlap (public, own by visibility, shared with the caller), each
walked in an index's order and each stopping after one page; the parts are then merged. When a filter has few matches
(name, id, tag, property, status, a hash, what changed lately), its index gives these candidates and each is tested. How
few is counted first, up to FEW: the engines' own guesses went wrong by a factor of a thousand on a million images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import image_children, sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.filters import COMPARE, Filter, Words, filters, same
from xloud_image.db.images import ROW, image_of
from xloud_image.db.query import COLUMNS, LISTED, NUMBERS, SORT_KEYS, TIMES, Direction, Page, Query
from xloud_image.db.visibility import Part, always, memberships, parts
from xloud_image.errors import BadRequest, Forbidden
from xloud_image.model import VISIBILITIES

_NULLABLE: Final = frozenset({"name", "container_format", "disk_format", "size", "updated_at"})
FEW: Final = 1000  # candidates of a filter that are looked at one by one
# memberships of the caller that are looked at one by one; with more, walking all shared images is cheaper: n look-ups
# and a sort, against one page times (shared images / n)
MEMBERSHIPS: Final = 5000
_ROW: Final = ", ".join(f"i.{name}" for name in ROW)


async def find(conn: AsyncConnection, query: Query) -> Page:
    """One page, with details; three statements, two for an admin without filter and marker.

    The page ends early, with `more`, where its details would be more than `image_children.PAGE` bytes.

    BadRequest: an unknown marker, key or column. Forbidden: a marker that the caller may not see.
    """
    _check(query)
    order, visible = query.order(), parts(query)
    way = await _way(conn, query, order, visible)
    try:
        text = sql.Text(sql.engine_of(conn))
        rows = await sql.fetch(conn, page(text, query, order, way, visible), text.values)
    except Exception as error:
        if meaning(error) is not Meaning.ABSENT:
            raise
        text = sql.Text(sql.engine_of(conn), hints=False)  # our indexes were removed
        rows = await sql.fetch(conn, page(text, query, order, way, visible), text.values)
    found = await image_children.load(conn, [row[0] for row in rows], query.project) if rows else {}
    fit = len(found)
    full = 0 < len(rows) == query.limit
    sizes = {} if all(part.sure for part in visible) else {image_id: one.size for image_id, one in found.items()}
    images = [image_of(row, found[row[0]]) for row in rows[:fit]]
    most = sum([one.most for one in found.values()])
    return Page(images, more=fit < len(rows) or full, sizes=sizes, most=most)


def is_sure(query: Query) -> bool:
    """Whether all that `find` gives may be listed, without asking the rule for each image."""
    return all(part.sure for part in parts(query))


def _check(query: Query) -> None:
    unknown = (
        ({key for key, _ in query.sort} - set(SORT_KEYS))
        | (set(query.equals) - COLUMNS)
        | (set(query.one_of) - LISTED)
        | ({key for key, _, _ in query.times} - TIMES)
        | ({sign for _, sign, _ in query.times} - set(COMPARE))
        | ((set(query.at_least) | set(query.at_most)) - NUMBERS)
    )
    if unknown:
        raise BadRequest(f"Images cannot be sorted or filtered by {', '.join(sorted(unknown))} in this way.")
    if len({key for key, _ in query.sort}) != len(query.sort):
        raise BadRequest("A sort key may be given only once.")
    if query.visibility not in (None, "all", *VISIBILITIES):
        raise BadRequest(f"visibility must be one of all, {', '.join(VISIBILITIES)}.")


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How a page is found: from the candidates of filter number `driver`, or (None) along the parts; `many`: the caller
    is a member of so many images that those are found along all shared ones; `after`: the marker's values of the
    order's keys."""

    filters: Sequence[Filter]
    driver: int | None = None
    many: bool = False
    after: tuple[Any, ...] | None = None


async def _way(
    conn: AsyncConnection, query: Query, order: Sequence[tuple[str, Direction]], visible: Sequence[Part]
) -> Way:
    """Look up the marker and count, each up to its limit, what could be the start; one statement at the most."""
    wanted = filters(query)
    text = sql.Text(sql.engine_of(conn))
    sources = [(n, one.source, one.order, FEW) for n, one in enumerate(wanted) if one.source is not None]
    if any(part.whose == "member" for part in visible):
        in_order = "m.status, m.image_id" if query.member_status == "all" else "m.image_id"
        sources.append((-1, lambda text: memberships(text, query), in_order, MEMBERSHIPS))
    if not sources and query.marker is None:
        return Way(wanted)
    words = []
    for _, source, index_order, limit in sources:
        # PostgreSQL reads the table from its start for what it takes to be common; the order binds it to the index
        by = f" ORDER BY {index_order}" if index_order and text.engine == "postgresql" else ""
        words.append(f"(SELECT count(*) FROM ({source(text)}{by} LIMIT {limit + 1}) c)")  # noqa: S608 - constants
    begin = ""
    if query.marker is not None:
        words += [
            "i.id",
            "i.visibility",
            "i.owner",
            "NULL"
            if query.project is None
            else "(SELECT count(*) FROM image_members m"  # noqa: S608 - constants
            f" WHERE m.image_id = i.id AND m.member = {text.bind(query.project)} AND NOT m.deleted)",
            *[f"i.{key}" for key, _ in order],
        ]
        begin = f" FROM (SELECT 1 AS one) o LEFT JOIN images i ON i.id = {text.bind(query.marker)}"
    [row] = await sql.fetch(conn, f"SELECT {', '.join(words)}{begin}", text.values)
    after = None if query.marker is None else _visible_marker(query, row[len(sources) :])
    found = {n: number for (n, *_), number in zip(sources, row, strict=False)}
    many = found.pop(-1, 0) > MEMBERSHIPS
    fewest = min(found, key=lambda n: found[n], default=None)
    return Way(wanted, None if fewest is None or found[fewest] > FEW else fewest, many, after)


def _visible_marker(query: Query, row: Sequence[Any]) -> tuple[Any, ...]:
    image_id, visibility, owner, membership, *values = row
    if image_id is None:
        raise BadRequest(f"The marker {query.marker} is no image.")
    if not (
        query.is_admin
        or visibility in ("public", "community")
        or owner is None
        or owner == query.project
        or (visibility == "shared" and membership)
    ):
        raise Forbidden(f"The marker {query.marker} is not one of your images.")
    return tuple(values)


def page(
    text: sql.Text, query: Query, order: Sequence[tuple[str, Direction]], way: Way, visible: Sequence[Part]
) -> str:
    """The text of the page's rows, values bound in `text`."""
    if not visible:
        return f"SELECT {_ROW} FROM images i WHERE 1 = 0"  # noqa: S608 - constants
    if way.driver is not None:
        source = way.filters[way.driver].source
        assert source is not None
        words = [
            _start(text, source),
            "NOT i.deleted",
            always(query),
            f"({' OR '.join([part.test(text, query) for part in visible])})",
            *[one.test(text) for n, one in enumerate(way.filters) if n != way.driver],
        ]
        return _select(text, query, order, way, _ROW, words)
    if len(visible) == 1:
        return _select(text, query, order, way, _ROW, _walk(text, query, order, way, visible[0]))
    # the parts give their ids, from the index alone where it has all that is asked; the page's rows are read at the end
    keys = ", ".join([f"i.{key}" for key, _ in order])
    selects = [_select(text, query, order, way, keys, _walk(text, query, order, way, part)) for part in visible]
    if text.engine == "sqlite":  # it takes no parentheses around the members of a union
        union = " UNION ALL ".join([f"SELECT * FROM ({select}) AS p{n}" for n, select in enumerate(selects)])  # noqa: S608 - constants
    else:
        union = " UNION ALL ".join([f"({select})" for select in selects])
    ids = f"({union} ORDER BY {_order(text.engine, order, '')} LIMIT {int(query.limit)}) c"
    return f"SELECT {_ROW} FROM {_by_id(text, ids, 'id')} ORDER BY {_order(text.engine, order)}"  # noqa: S608 - constants


def _select(
    text: sql.Text,
    query: Query,
    order: Sequence[tuple[str, Direction]],
    way: Way,
    columns: str,
    words: Sequence[str],
) -> str:
    """`words`: the table with a first condition, and more conditions."""
    beyond = [] if way.after is None else [_beyond(text, order, way.after)]
    where = " AND ".join([*words, *beyond])
    return f"SELECT {columns} FROM {where} ORDER BY {_order(text.engine, order)} LIMIT {int(query.limit)}"  # noqa: S608 - constants


def _walk(text: sql.Text, query: Query, order: Sequence[tuple[str, Direction]], way: Way, part: Part) -> list[str]:
    if part.whose == "member" and not way.many:
        start = _start(text, lambda text: memberships(text, query))
    else:
        start = f"images i{_force(text, part.index, order)} WHERE i.deleted = false"
    return [start, part.words(text, query, way.many), *[one.test(text) for one in way.filters]]


def _start(text: sql.Text, source: Words) -> str:
    """Images by the ids of a source, in words that leave the engine no other way."""
    if text.engine == "postgresql":
        return f"images i WHERE i.id = ANY(ARRAY({source(text)}))"
    ids = f"(SELECT DISTINCT d.image_id FROM ({source(text)}) d) c"  # noqa: S608 - constants
    return _by_id(text, ids, "image_id")


def _by_id(text: sql.Text, ids: str, key: str) -> str:
    match text.engine:
        case "mysql":
            return f"{ids} STRAIGHT_JOIN images i FORCE INDEX (PRIMARY) WHERE i.id = c.{key}"
        case "sqlite":
            return f"{ids} CROSS JOIN images i WHERE i.id = c.{key}"
        case _:
            return f"images i WHERE i.id = ANY(ARRAY(SELECT c.{key} FROM {ids}))"  # noqa: S608 - constants


def _force(text: sql.Text, index: str | None, order: Sequence[tuple[str, Direction]]) -> str:
    """MariaDB walks from the newest image to the marker, or intersects three indexes, unless told which to take."""
    in_order = order[0][0] == "created_at" and order[1][0] == "id" and order[0][1] == order[1][1]
    if text.engine != "mysql" or not text.hints or not in_order or index is None:
        return ""
    return f" FORCE INDEX ({index})"


def _order(engine: sql.Engine, order: Sequence[tuple[str, Direction]], prefix: str = "i.") -> str:
    # unknown values come first going up and last going down, on every engine
    nulls = {"asc": " NULLS FIRST", "desc": " NULLS LAST"} if engine == "postgresql" else {"asc": "", "desc": ""}
    return ", ".join(
        f"{prefix}{key} {direction.upper()}{nulls[direction] if key in _NULLABLE else ''}" for key, direction in order
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
        if after[n] is None and direction == "desc":
            continue  # unknown values come last
        words = [same(text, f"i.{k}", value) for (k, _), value in zip(order[:n], after[:n], strict=True)]
        if after[n] is None:
            words.append(f"i.{key} IS NOT NULL")
        else:
            step = f"i.{key} {'>' if direction == 'asc' else '<'} {text.bind(after[n])}"
            words.append(f"({step} OR i.{key} IS NULL)" if direction == "desc" and key in _NULLABLE else step)
        ways.append(" AND ".join(words))
    return f"({' OR '.join(ways)})"
