"""The tables that are there when we come: whose they are, of which release of Glance, and whether all is there. They
are never changed but by the step that Glance's own migration would take next.

Source of the revisions: the migrations of Glance 33. Since Wallaby all of them are empty but the expansion of 2024.1,
which makes the tables of the central cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from xloud_image.db import collations, tables

_SYNC: Final = "glance-manage db sync"
_OLDER: Final = ("liberty", "mitaka", "ocata", "pike", "queens", "rocky", "train", "ussuri", "wallaby", "xena", "yoga",
                 "zed", "2023_1")  # fmt: skip
# heads from which one step leads to GLANCE_HEAD: 2023.1, what was left between its migrations or those of 2024.1, and
# what `finish` leaves when it is cut off
_STEPS: Final = (
    {"2023_1_expand01", tables.GLANCE_HEAD},
    {"2024_1_expand01", tables.GLANCE_HEAD},
    {"2023_1_contract01"},
    {"2023_1_contract01", "2024_1_expand01"},
    {"2023_1_expand01", "zed_contract01"},
    {"2024_1_expand01", "zed_contract01"},
)
_NEWER: Final = (tables.node_reference, tables.cached_images)
_SOME: Final = 5  # names that are given as examples


@dataclasses.dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can be done with this database, and what to do about it."""

    sentence: str
    cure: str


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """`heads`: of Glance's migrations. `obstacles`: none, when we can work with it. `step`: the sentence of what
    `finish` does first; "" for nothing. `differences`: what is not as expected and can be lived with."""

    heads: frozenset[str] = frozenset()
    obstacles: Sequence[Obstacle] = ()
    step: str = ""
    differences: Sequence[str] = ()


def look(bind: sa.Connection) -> Found:
    """What there is. An empty database has no heads and no obstacle."""
    names = set(sa.inspect(bind).get_table_names())
    heads = frozenset((tables.glance_version(bind) or "").split(",")) - {""}
    if tables.images.name not in names:
        return Found(heads, _without_images(bind, names, heads))
    here = [table for table in tables.glance.sorted_tables if table.name in names]
    if not heads:
        return Found(heads, _unnamed(bind, names, here))
    if heads in _STEPS:
        obstacles = _lacking(bind, [one for one in tables.glance.sorted_tables if one not in _NEWER or one in here])
        step = f"{', '.join(one.name for one in _NEWER)} are made, and its version becomes {tables.GLANCE_HEAD}"
        return Found(heads, obstacles, step, _differences(bind))
    told = ",".join(sorted(heads))
    if any(one.startswith(_OLDER) for one in heads):
        sentence = f"the tables are older than those of Glance 2023.1 (they are at {told})"
        return Found(heads, [Obstacle(sentence, f"pass through Glance 2024.1 (28) or newer: its own {_SYNC}")])
    if len(heads) > 1 or not all("contract" in one for one in heads):
        if not all("contract" in one or "expand" in one for one in heads):
            return Found(heads, [Obstacle(f"the version of Glance's tables is unknown ({told})", _CONNECTION)])
        sentence = f"a migration of Glance is not finished (the database is at {told})"
        return Found(heads, [Obstacle(sentence, f"{_SYNC}, with the release that wrote it")])
    return Found(heads, _lacking(bind, tables.glance.sorted_tables), differences=_differences(bind))


_CONNECTION: Final = "name Glance's database, or an empty one, in [database] connection"


def _without_images(bind: sa.Connection, names: set[str], heads: frozenset[str]) -> list[Obstacle]:
    known = {table.name for table in (*tables.glance.sorted_tables, *tables.own.sorted_tables)}
    others = sorted(names - known - {"alembic_version", tables.VERSION_TABLE})
    if others:
        some = ", ".join(others[:_SOME]) + (", …" if len(others) > _SOME else "")
        return [Obstacle(f"the database is of something else: it has no table images, but {some}", _CONNECTION)]
    if heads:
        return _lacking(bind, tables.glance.sorted_tables)
    return []


def _unnamed(bind: sa.Connection, names: set[str], here: Sequence[sa.Table]) -> list[Obstacle]:
    """Image tables without a version: of a Glance before Ocata, or ours, whose making was cut off."""
    if "migrate_version" in names or _lacking(bind, here):
        sentence = "the tables are those of a Glance older than Ocata, or no whole ones: they have no version"
        return [Obstacle(sentence, f"pass through Glance 2024.1 (28) or newer: its own {_SYNC}")]
    return []


def _lacking(bind: sa.Connection, wanted: Iterable[sa.Table]) -> list[Obstacle]:
    cure = f"{_SYNC} with Glance's own release, or restore the database"
    return [Obstacle(sentence, cure) for sentence in missing(bind, wanted)]


def missing(bind: sa.Connection, wanted: Iterable[sa.Table]) -> list[str]:
    """Tables and columns that are not there, a sentence each."""
    inspector = sa.inspect(bind)
    names = set(inspector.get_table_names())
    said = []
    for table in wanted:
        if table.name not in names:
            said.append(f"Table {table.name} is missing")
            continue
        there = {column["name"] for column in inspector.get_columns(table.name)}
        said += [f"Column {table.name}.{one.name} is missing" for one in table.columns if one.name not in there]
    return said


def _differences(bind: sa.Connection) -> list[str]:
    heads = tables.glance_version(bind)
    said = []
    if heads != tables.GLANCE_HEAD:
        said.append(f"Glance's tables are at {heads}; this release was tried with {tables.GLANCE_HEAD}")
    inspector = sa.inspect(bind)
    names = set(inspector.get_table_names())
    for table in (*tables.glance.sorted_tables, *tables.own.sorted_tables):
        if table.name not in names:
            continue
        there = {column["name"]: column for column in inspector.get_columns(table.name)}
        said += [
            f"Column {table.name}.{column.name} allows NULL and should not"
            for column in table.columns
            if column.name in there and there[column.name]["nullable"] and not column.nullable
        ]
    return said + collations.foreign(bind)


def finish(bind: sa.Connection, found: Found) -> None:
    """Take the step that Glance's own migration would take, if there is one. Cut off anywhere it can be taken again:
    what is left is one of the states that have it."""
    if not found.step:
        return
    tables.glance.create_all(bind, tables=list(_NEWER))
    version = sa.table("alembic_version", sa.column("version_num"))
    old = [one for one in found.heads if "contract" in one]
    bind.execute(version.update().where(version.c.version_num.in_(old)).values(version_num=tables.GLANCE_HEAD))
    bind.execute(version.delete().where(version.c.version_num != tables.GLANCE_HEAD))
