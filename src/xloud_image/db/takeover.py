"""What a service that is changed for another leaves in the tables, counted and settled; by `services.takeover`.

A table is looked at once, from its first row to its last, some thousand rows at a time: whatever there is, a statement
is short and what is held is small.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.engine import Database
from xloud_image.db.image_children import WITHOUT_DATA
from xloud_image.db.leases import now
from xloud_image.model import MEMBER_STATUSES, STATUSES, VISIBILITIES

_MOST: Final = 20  # names, ids or unknown statuses that are given as examples
_PAGE: Final = 10_000  # rows that one statement looks at
_SECONDS: Final = 14.0  # of one statement, where the server can end it: less than the client waits (`engine.READ_TIME`)
UNFINISHED: Final = ("saving", "importing")  # statuses that end only by the process that set them
# properties that stand while an import runs, and no longer
IN_FLIGHT: Final = ("os_glance_import_task", "os_glance_importing_to_stores")


def _number(kind: str) -> Any:
    """How many rows there are of a class."""
    return property(lambda self: self.found[kind])


@dataclasses.dataclass(slots=True)
class Rows:
    """`statuses`: status of an image service → images; `unknown`: others → images, of _MOST at the most. `found`: a
    class of rows, a word of this module → how many there are; `examples`: of them, the images' ids."""

    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    unknown: Counter[str | None] = dataclasses.field(default_factory=Counter)
    found: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    without_data = _number("without_data")
    locked = _number("locked")
    tasks = _number("tasks")
    empty = _number("empty")
    ownerless = _number("ownerless")
    plain = _number("plain")
    recent = _number("recent")

    def add(self, kind: str, number: int, examples: Sequence[str] = ()) -> None:
        """So many more rows of a class."""
        if number:
            self.found[kind] += number
            some = self.examples.setdefault(kind, [])
            some.extend(examples[: _MOST - len(some)])

    def lacks(self, kind: str) -> int:
        """How many more examples may be given."""
        return _MOST - len(self.examples.get(kind, ()))


async def count(db: Database) -> Rows:
    """Look at all rows but those of locations, which `db.locations.page` gives.

    Classes of images: `statuses` and `visibilities` that are none, `ownerless`, `blank` (an owner without a letter),
    `numbers` that no column may hold, `timeless`, `names` too long or with a NUL, `empty` (active, of some size,
    without a location), `locked` (with the properties of an import under way), `recent` (changed in the last minute).
    Others: `tasks` that have not ended, `answers` (memberships with an unknown one), and by the table's name rows whose
    image is not there.
    """
    rows = Rows()
    engine = await db.read(_engine)
    async for span in _spans(db, "images"):
        rows = await _with(db, rows, _images, span)
    names = ", ".join(f"'{one}'" for one in IN_FLIGHT)
    answers = ", ".join(f"'{one}'" for one in MEMBER_STATUSES)
    here = "i.id IS NOT NULL AND NOT i.deleted AND NOT t.deleted"
    # an image is counted once, by one of its properties
    before = "SELECT 1 FROM image_properties o WHERE o.image_id = t.image_id AND NOT o.deleted"
    before += f" AND o.name IN ({names}) AND o.name < t.name AND o.value <> ''"
    locked = f"t.name IN ({names}) AND t.value <> '' AND NOT EXISTS ({before})"
    more = {
        "image_properties": {"locked": f"{here} AND {locked}"},
        "image_tags": {},
        "image_members": {"answers": f"{here} AND t.status NOT IN ({answers})"},
    }
    for table, kinds in more.items():
        asked = {**kinds, table: "i.id IS NULL AND NOT t.deleted"}
        source = f"{table} t LEFT JOIN images i ON i.id = t.image_id"
        async for span in _spans(db, table):
            rows = await _with(db, rows, _classes, asked, source, "t.", "image_id", span)
    few = {
        "tasks": "SELECT id FROM tasks WHERE NOT deleted AND status IN ('pending', 'processing')",
        "recent": f"SELECT id FROM images WHERE updated_at > {now(engine, -60)}",  # noqa: S608 - constants
    }
    for kind, words in few.items():
        rows = await _with(db, rows, _few, kind, words)
    return rows


async def _with(db: Database, rows: Rows, look: Callable[..., Awaitable[None]], *how: Any) -> Rows:
    """`rows` and what a look adds, once, however often it begins anew."""

    async def added(conn: AsyncConnection) -> Rows:
        more = copy.deepcopy(rows)
        await look(conn, more, *how)
        return more

    return await db.read(added)


async def _engine(conn: AsyncConnection) -> sql.Engine:
    return sql.engine_of(conn)


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """Rows of a table by their key: those after `first` (None: from the beginning on), up to `last`."""

    key: str
    first: Any
    last: Any

    def words(self, text: sql.Text, prefix: str = "") -> str:
        words = f"{prefix}{self.key} <= {text.bind(self.last)}"
        return words if self.first is None else f"{words} AND {prefix}{self.key} > {text.bind(self.first)}"


async def _spans(db: Database, table: str) -> AsyncIterator[_Span]:
    """All rows of a table, in order."""

    async def end(conn: AsyncConnection) -> Any:
        text = sql.Text(sql.engine_of(conn))
        beyond = "" if first is None else f" WHERE {key} > {text.bind(first)}"
        some = f"SELECT {key} AS id FROM {table}{beyond} ORDER BY {key} LIMIT {_PAGE}"  # noqa: S608 - constants
        # not max(): it is the last one in the order of the key
        words = f"SELECT id FROM ({some}) piece ORDER BY id DESC LIMIT 1"  # noqa: S608 - constants
        found = await _ask(conn, words, text.values)
        return found[0][0] if found else None

    # SQLite keeps rows in the order of their numbers: by ids it would go to and fro for each
    key = "rowid" if await db.read(_engine) == "sqlite" else "id"
    first: Any = None
    while (last := await db.read(end)) is not None:
        yield _Span(key, first, last)
        first = last


async def _ask(conn: AsyncConnection, words: str, values: Sequence[Any] = ()) -> sql.Rows:
    return await sql.bounded(conn, words, values, _SECONDS)


async def _images(conn: AsyncConnection, rows: Rows, span: _Span) -> None:
    text = sql.Text(sql.engine_of(conn))
    words = (
        f"SELECT i.status, count(*) FROM images i WHERE {span.words(text, 'i.')} AND NOT i.deleted GROUP BY i.status"  # noqa: S608
    )
    for status, number in await _ask(conn, words, text.values):
        if status in STATUSES:
            rows.statuses[status] += int(number)
            continue
        rows.found["statuses"] += int(number)
        if status in rows.unknown or len(rows.unknown) < _MOST:
            rows.unknown[status] += int(number)
    asked = {kind: f"NOT i.deleted AND ({test})" for kind, test in _tests(text.engine).items()}
    await _classes(conn, rows, asked, "images i", "i.", "id", span)


def _tests(engine: sql.Engine) -> Mapping[str, str]:
    """A class of images → the condition on a row `i`."""
    visibilities = ", ".join(f"'{one}'" for one in VISIBILITIES)
    visibility = "i.visibility::text" if engine == "postgresql" else "i.visibility"
    names = {
        "sqlite": "length(i.name) > 255 OR instr(i.name, char(0)) > 0",
        "postgresql": "1 = 0",
        "mysql": "instr(i.name, char(0)) > 0",
    }[engine]
    numbers = [f"i.{name} < 0" for name in ("size", "virtual_size", "min_disk", "min_ram")]
    if engine == "sqlite":
        numbers += [f"typeof(i.{one}) NOT IN ('integer', 'null')" for one in ("size", "virtual_size")]
        numbers += [f"typeof(i.{one}) <> 'integer' OR i.{one} > 2147483647" for one in ("min_disk", "min_ram")]
    return {
        "visibilities": f"{visibility} IS NULL OR {visibility} NOT IN ({visibilities})",
        "ownerless": "i.owner IS NULL",
        "blank": "trim(i.owner) = ''",
        "numbers": " OR ".join(numbers),
        "timeless": f"{_no_time(engine, 'i.created_at')} OR (i.updated_at IS NOT NULL"
        f" AND ({_no_time(engine, 'i.updated_at')}))",
        "names": names,
        "empty": "i.status = 'active' AND i.size > 0 AND NOT EXISTS"
        " (SELECT 1 FROM image_locations l WHERE l.image_id = i.id AND NOT l.deleted)",
    }


def _no_time(engine: sql.Engine, column: str) -> str:
    """The condition that a column holds nothing that is a time of ours."""
    return {
        "sqlite": f"{column} IS NULL OR typeof({column}) <> 'text' OR length({column}) < 19"
        f" OR julianday({column}) IS NULL",
        "postgresql": f"{column} IS NULL OR {column} NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'",
        "mysql": f"{column} IS NULL OR year({column}) = 0 OR month({column}) = 0 OR dayofmonth({column}) = 0",
    }[engine]


async def _classes(
    conn: AsyncConnection, rows: Rows, asked: Mapping[str, str], source: str, prefix: str, image_id: str, span: _Span
) -> None:
    """Count the rows of each class among some, and look for examples where there are some."""
    text = sql.Text(sql.engine_of(conn))
    sums = ", ".join(f"COALESCE(sum(CASE WHEN {test} THEN 1 ELSE 0 END), 0)" for test in asked.values())
    words = f"SELECT {sums} FROM {source} WHERE {span.words(text, prefix)}"  # noqa: S608 - constants
    [numbers] = await _ask(conn, words, text.values)
    for (kind, test), number in zip(asked.items(), numbers, strict=True):
        examples: list[str] = []
        if number and (some := rows.lacks(kind)):
            text = sql.Text(text.engine)
            words = (
                f"SELECT {prefix}{image_id} FROM {source} WHERE {span.words(text, prefix)} AND ({test}) LIMIT {some}"  # noqa: S608
            )
            examples = [str(row[0]) for row in await _ask(conn, words, text.values)]
        rows.add(kind, int(number), examples)


async def _few(conn: AsyncConnection, rows: Rows, kind: str, words: str) -> None:
    """Rows that an index gives."""
    [[number]] = await _ask(conn, f"SELECT count(*) FROM ({words}) found")  # noqa: S608 - constants
    examples = await _ask(conn, f"{words} LIMIT {_MOST}") if number else ()
    rows.add(kind, int(number), [str(row[0]) for row in examples])


async def is_read_only(conn: AsyncConnection) -> bool:
    """Whether the server takes no changes, as far as it says so."""
    statement = {
        "postgresql": "SELECT CASE WHEN current_setting('transaction_read_only') = 'on' THEN 1 ELSE 0 END",
        "mysql": "SELECT @@read_only",
        "sqlite": "SELECT 0",
    }[sql.engine_of(conn)]
    return bool((await sql.fetch(conn, statement))[0][0])


async def stuck(conn: AsyncConnection, *, limit: int = 1, image_id: str | None = None) -> Sequence[str]:
    """Ids of images that wait for a process which is not ours: in a status that only it ends, or locked by it. Of all,
    or this one if it does. By indexes of ours."""
    text = sql.Text(sql.engine_of(conn))
    words = ", ".join(f"'{one}'" for one in UNFINISHED)
    names = ", ".join(f"'{one}'" for one in IN_FLIGHT)
    mine = "NOT i.deleted AND NOT EXISTS (SELECT 1 FROM xloud_claims c WHERE c.image_id = i.id)"
    mine += " AND NOT EXISTS (SELECT 1 FROM xloud_jobs j WHERE j.image_id = i.id)"
    mine += " AND NOT EXISTS (SELECT 1 FROM xloud_uploads u WHERE u.image_id = i.id AND u.state <> 'over')"

    def one() -> str:
        return "" if image_id is None else f" AND i.id = {text.bind(image_id)}"

    rows = await sql.fetch(
        conn,
        f"SELECT i.id FROM images i WHERE i.status IN ({words}) AND {mine}{one()}"  # noqa: S608 - constants
        " UNION SELECT i.id FROM image_properties p JOIN images i ON i.id = p.image_id"
        f" WHERE p.name IN ({names}) AND NOT p.deleted AND p.value <> '' AND {mine}{one()}"
        f" ORDER BY 1 LIMIT {int(limit)}",
        text.values,
    )
    return [str(row[0]) for row in rows]


async def remove_without_data(db: Database) -> int:
    """Locations whose data never came are deleted, as Glance deletes them; how many."""
    statuses = ", ".join(f"'{one}'" for one in WITHOUT_DATA)
    done = 0

    async def some(conn: AsyncConnection, span: _Span) -> list[int]:
        text = sql.Text(sql.engine_of(conn))
        which = f"{span.words(text)} AND NOT deleted AND status IN ({statuses})"
        words = f"SELECT id FROM image_locations WHERE {which}"  # noqa: S608 - constants
        return [int(row[0]) for row in await _ask(conn, words, text.values)]

    async for span in _spans(db, "image_locations"):
        if numbers := await db.read(lambda conn: some(conn, span)):  # noqa: B023 - awaited at once
            await db.write(lambda conn: _remove_locations(conn, ", ".join(map(str, numbers))))
            done += len(numbers)
    return done


async def _remove_locations(conn: AsyncConnection, numbers: str) -> None:
    await sql.fetch(
        conn,
        f"UPDATE image_locations SET deleted = {_true(conn)}, status = 'deleted', deleted_at = {_now(conn)}"  # noqa: S608
        f" WHERE id IN ({numbers}) AND NOT deleted",
    )


async def fail_tasks(conn: AsyncConnection, reason: str) -> int:
    """Unfinished tasks that nobody of ours works on end as failures, with this reason; how many."""
    mine = "NOT EXISTS (SELECT 1 FROM xloud_jobs j WHERE j.id = tasks.id)"
    mine += " AND NOT EXISTS (SELECT 1 FROM xloud_claims c WHERE c.id = tasks.id)"
    which = f"NOT deleted AND status IN ('pending', 'processing') AND {mine}"
    number = int((await sql.fetch(conn, f"SELECT count(*) FROM tasks WHERE {which}"))[0][0])  # noqa: S608 - constants
    if not number:
        return 0
    text = sql.Text(sql.engine_of(conn))
    words = f"UPDATE task_info SET message = {text.bind(reason)} WHERE task_id IN (SELECT id FROM tasks WHERE {which})"  # noqa: S608
    await sql.fetch(conn, words, text.values)
    await sql.fetch(conn, f"UPDATE tasks SET status = 'failure', updated_at = {_now(conn)} WHERE {which}")  # noqa: S608
    return number


def _true(conn: AsyncConnection) -> str:
    return "true" if sql.engine_of(conn) == "postgresql" else "1"


def _now(conn: AsyncConnection) -> str:
    return now(sql.engine_of(conn))
