"""The filters of a list: each as a test on an image's row, and, where an index serves it, as a source of candidates.

Text only, with values bound in the order of the text; which filter drives the page is decided in `listing.py`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from xloud_image.db import sql
from xloud_image.db.indexes import VALUE_PREFIX

if TYPE_CHECKING:
    from xloud_image.db.query import Query

Words = Callable[[sql.Text], str]

COMPARE: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "neq": "<>"}
_SECOND: Final = dt.timedelta(seconds=1)
_LAST: Final = dt.datetime.fromisoformat("9999-12-31T23:59:59")
# columns of images whose index finds the few rows of one value
_INDEXED: Final = frozenset({"id", "name", "status", "checksum", "os_hash_value"})


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """`test`: the condition on a row `i` of images. `source`: a SELECT of the ids of all rows that pass, if indexed.

    `order`: the column in whose order the index gives the rows of `source`, where it does.
    """

    test: Words
    source: Words | None = None
    order: str | None = None


def filters(query: Query) -> list[Filter]:
    """All filters of a query, but for those of visibility and os_hidden."""
    found = [_equal(column, value) for column, value in query.equals.items()]
    found += [_one_of(column, values) for column, values in query.one_of.items()]
    found += [_time(column, sign, moment) for column, sign, moment in query.times]
    found += [_number(column, ">=", number) for column, number in query.at_least.items()]
    found += [_number(column, "<=", number) for column, number in query.at_most.items()]
    found += [_tag(tag) for tag in query.tags]
    found += [_property(name, value) for name, value in query.properties.items()]
    return found


def _on_row(words: Callable[[sql.Text, str], str], indexed: bool, order: str | None = None) -> Filter:
    """A condition on columns of images alone; `words` takes the prefix of the columns."""

    def source(text: sql.Text) -> str:
        return f"SELECT x.id AS image_id FROM images x WHERE {words(text, 'x.')}"  # noqa: S608 - constants

    return Filter(lambda text: words(text, "i."), source if indexed else None, order)


def _equal(column: str, value: Any) -> Filter:
    indexed = column in _INDEXED and value is not None
    order = "x.id" if column in ("name", "status") else None  # these indexes are ours, with the id in them
    return _on_row(lambda text, prefix: same(text, prefix + column, value), indexed, order)


def _one_of(column: str, values: Sequence[str]) -> Filter:
    return _on_row(lambda text, prefix: text.any_of(prefix + column, values), column in _INDEXED)


def _time(column: str, sign: str, moment: dt.datetime) -> Filter:
    """Times count as they are shown, in whole seconds, whether the database keeps fractions of them or not."""
    second = moment.replace(microsecond=0)
    whole = second == moment
    after = None if second >= _LAST else second + _SECOND  # where the next second begins; None: no time is that late
    first = second if whole else after

    def words(text: sql.Text, prefix: str) -> str:
        name = prefix + column

        def beside(comparison: str, limit: dt.datetime | None) -> str:
            if limit is None:
                return "1 = 1" if comparison == "<" else "1 = 0"
            return f"{name} {comparison} {text.bind(limit)}"

        match sign:
            case "gt":
                return beside(">=", after)
            case "gte":
                return beside(">=", first)
            case "lt":
                return beside("<", first)
            case "lte":
                return beside("<", after)
            case "eq":
                return f"({beside('>=', second)} AND {beside('<', after)})" if whole else "1 = 0"
            case _:
                return f"({beside('<', second)} OR {beside('>=', after)})" if whole else f"{name} IS NOT NULL"

    # created_at has its place in the indexes that are walked; a look at what changed lately has its own index
    return _on_row(words, column == "updated_at" and sign in ("gt", "gte", "eq"))


def _number(column: str, sign: str, number: int) -> Filter:
    return _on_row(lambda text, prefix: f"{prefix}{column} {sign} {_bound(text, number)}", indexed=False)


def _bound(text: sql.Text, value: Any) -> str:
    """PostgreSQL takes a value for one of the column's type: a number that no row can have must not be an error."""
    wide = text.engine == "postgresql" and isinstance(value, int) and not isinstance(value, bool)
    return f"{text.bind(value)}::bigint" if wide else text.bind(value)


def _tag(tag: str) -> Filter:
    return Filter(
        lambda text: (
            "(SELECT 1 FROM image_tags t WHERE t.image_id = i.id"  # noqa: S608 - constants
            f" AND t.value = {text.bind(tag)} AND NOT t.deleted LIMIT 1) IS NOT NULL"
        ),
        lambda text: f"SELECT t.image_id FROM image_tags t WHERE t.value = {text.bind(tag)} AND t.deleted = false",  # noqa: S608 - constants
        "t.image_id",
    )


def _property(name: str, value: str) -> Filter:
    def named(text: sql.Text) -> str:
        words = f"q.name = {text.bind(name)}"
        # MySQL compares without case, accents and ending blanks; who may read one name may not read all of them
        return (
            f"{words} AND BINARY CONVERT(q.name USING utf8mb4) = BINARY {text.bind(name)}"
            if text.engine == "mysql"
            else words
        )

    def test(text: sql.Text) -> str:
        return (
            f"(SELECT 1 FROM image_properties q WHERE q.image_id = i.id AND {named(text)}"  # noqa: S608 - constants
            f" AND {plain(text)} AND NOT q.deleted LIMIT 1) IS NOT NULL"
        )

    def plain(text: sql.Text) -> str:
        # a property without value reads as the empty text
        return f"q.value = {text.bind(value)}" if value else "(q.value = '' OR q.value IS NULL)"

    def source(text: sql.Text) -> str:
        words = f"SELECT q.image_id FROM image_properties q WHERE {named(text)}"  # noqa: S608 - constants
        if text.engine == "mysql":  # it uses the prefix in the index by itself
            return f"{words} AND {plain(text)} AND NOT q.deleted"
        words += f" AND substr(q.value, 1, {VALUE_PREFIX}) = {text.bind(value[:VALUE_PREFIX])}"
        # SQLite would put the known value into substr() and then not find its index: the plus stops it
        return f"{words} AND {'+' if text.engine == 'sqlite' else ''}{plain(text)} AND NOT q.deleted"

    return Filter(test, source if value else None, "q.image_id")


def same(text: sql.Text, column: str, value: Any) -> str:
    """Equality in which NULL equals NULL."""
    return f"{column} IS NULL" if value is None else f"{column} = {_bound(text, value)}"
