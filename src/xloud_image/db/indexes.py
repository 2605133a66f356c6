"""Our own indexes on Glance's tables, for lists and filters, and later ones on ours. Glance works with or without them;
removal is safe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

# characters of a property's value in the index; the query names the same number. PostgreSQL refuses longer keys
# altogether, MySQL wants a prefix
VALUE_PREFIX: Final = 80
# characters of a URL in the index on MySQL: the parts that differ come late
URL_PREFIX: Final = 191
# named by lists on MySQL
SEEN: Final = "xloud_ix_images_seen"
OWNED: Final = "xloud_ix_images_owned"


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """One index: its columns as SQL; on MySQL other words if the prefix needs them; on PostgreSQL, if keys are long."""

    name: str
    table: str
    columns: str
    mysql: str | None = None
    postgresql: str | None = None


FIRST: Final = (
    # who sees what, each part in the order of the default list, with all that is asked of a row
    Index(SEEN, "images", "visibility, deleted, os_hidden, created_at, id, status"),
    Index(OWNED, "images", "owner, visibility, deleted, os_hidden, created_at, id, status"),
    Index("xloud_ix_members_member", "image_members", "member, deleted, status, image_id"),
    # filters
    Index("xloud_ix_images_name", "images", "name, id"),
    Index("xloud_ix_images_status", "images", "status, id"),
    Index("xloud_ix_tags_value", "image_tags", "value, deleted, image_id"),
    Index(
        "xloud_ix_properties_value",
        "image_properties",
        f"name, substr(value, 1, {VALUE_PREFIX}), image_id",
        f"name, value({VALUE_PREFIX}), image_id",
    ),
)
SECOND: Final = (
    # who else names this URL. PostgreSQL: of any length, hence by its hash
    Index(
        "xloud_ix_locations_value",
        "image_locations",
        "(value)",
        f"(value({URL_PREFIX}))",
        "USING hash (value)",
    ),
)
THIRD: Final = (
    # what is about to be removed under a URL, and what waits to be read
    Index("xloud_ix_claims_slot", "xloud_claims", "slot"),
    Index("xloud_ix_claims_kind", "xloud_claims", "kind, begun_at"),
)
JOBS: Final = (
    # the next one, the last turn of a project, and what somebody works on
    Index("xloud_ix_jobs_queue", "xloud_jobs", "lease_until, turn, begun_at"),
    Index("xloud_ix_jobs_owner", "xloud_jobs", "owner, turn"),
    Index("xloud_ix_jobs_holder", "xloud_jobs", "holder"),
)
ALL: Final = (*FIRST, *SECOND, *THIRD, *JOBS)


def create(bind: sa.Connection, wanted: Iterable[Index]) -> None:
    """Create what is missing, without stopping the writers of a running Glance where the engine can."""
    there = existing(bind)
    postgresql = bind.dialect.name == "postgresql"
    for index in wanted:
        if postgresql and index.name in _broken(bind):  # left by a creation that was cut off
            bind.exec_driver_sql(f"DROP INDEX {index.name}")
        elif index.name in there:
            continue
        own = {"mysql": index.mysql, "mariadb": index.mysql, "postgresql": index.postgresql}.get(bind.dialect.name)
        columns = own or index.columns
        if not columns.startswith(("(", "USING")):
            columns = f"({columns})"
        how = "CONCURRENTLY " if postgresql else ""  # MySQL does so by itself
        bind.exec_driver_sql(f"CREATE INDEX {how}{index.name} ON {index.table} {columns}")
        if bind.dialect.name == "sqlite":
            continue
        analyze = "ANALYZE" if postgresql else "ANALYZE TABLE"
        bind.exec_driver_sql(f"{analyze} {index.table}")


def drop(bind: sa.Connection, unwanted: Iterable[Index]) -> None:
    """Drop what is there."""
    there = existing(bind)
    for index in unwanted:
        if index.name in there:
            on = f" ON {index.table}" if bind.dialect.name in ("mysql", "mariadb") else ""
            bind.exec_driver_sql(f"DROP INDEX {index.name}{on}")


def existing(bind: sa.Connection) -> set[str]:
    """The names of our indexes that the database has."""
    statement = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
    }.get(
        bind.dialect.name,
        "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = database()",
    )
    return {name for (name,) in bind.exec_driver_sql(statement) if name.startswith("xloud_ix_")}


def _broken(bind: sa.Connection) -> set[str]:
    return set(
        bind.exec_driver_sql(
            "SELECT c.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
            " WHERE NOT x.indisvalid AND c.relnamespace = current_schema()::regnamespace"
        ).scalars()
    )
