"""How texts are compared in our tables, on MariaDB and MySQL: as in Glance's.

Two columns of one character set and different collations cannot be compared (error 1267), and what a new table gets is
the server's choice, which changes with its releases. Columns of different character sets can: utf8mb3 becomes utf8mb4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from xloud_image.db import tables

_USUAL: Final = "utf8mb4_general_ci"  # which each release of both has
_KEPT: Final = (
    "SELECT DISTINCT table_name, collation_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND (table_name LIKE 'xloud%' OR"
    " (table_name IN ('images', 'tasks') AND column_name = 'id'))"
)


def create(bind: sa.Connection, chosen: Sequence[sa.Table] = ()) -> None:
    """Make those of these tables of ours (none: of all) that are missing."""
    collation = _wanted(_kept(bind))
    made = sa.MetaData()
    for table in chosen or tables.own.sorted_tables:
        copy = table.to_metadata(made)
        if collation is not None:
            copy.kwargs["mysql_collate"] = collation
    made.create_all(bind)


def convert(bind: sa.Connection) -> None:
    """Bring tables of ours to the collation that they need. Rows and names stay."""
    collation = _wanted(_kept(bind))
    for name in odd(bind):
        bind.exec_driver_sql(f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")


def odd(bind: sa.Connection) -> list[str]:
    """The tables of ours whose texts cannot be compared with Glance's, or with each other's."""
    kept = _kept(bind)
    collation, ours = _wanted(kept), {table.name for table in tables.own.sorted_tables}
    return sorted({name for name, found in kept if name in ours and found != collation})


def _kept(bind: sa.Connection) -> set[tuple[str, str]]:
    if bind.dialect.name not in ("mysql", "mariadb"):
        return set()
    return {(str(name), str(found)) for name, found in bind.execute(sa.text(_KEPT))}


def foreign(bind: sa.Connection) -> list[str]:
    """Tables of Glance's whose ids cannot be compared with those of its images, a sentence each."""
    kept = dict(item for item in _kept(bind) if not item[0].startswith("xloud"))
    images = kept.get("images", "")
    charset = images.partition("_")[0]
    return [
        f"Table {name} has the collation {found}, images {images}: ALTER TABLE {name} CONVERT TO CHARACTER SET"
        f" {charset} COLLATE {images}"
        for name, found in sorted(kept.items())
        if found != images and found.partition("_")[0] == charset
    ]


def _wanted(kept: set[tuple[str, str]]) -> str | None:
    """None: the engine has one for all. With columns of Glance's that are not utf8mb4 ours can be compared anyway, so
    that what most of them have will do."""
    theirs = next((found for name, found in kept if name == "images"), None)
    if theirs is None or theirs.startswith("utf8mb4_"):
        return theirs
    ours = Counter(found for name, found in kept if name.startswith("xloud") and found.startswith("utf8mb4_"))
    return min(ours, key=lambda one: (-ours[one], one), default=_USUAL)
