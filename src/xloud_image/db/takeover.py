"""What a service that is changed for another leaves in the tables, counted and settled; by `services.takeover`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.image_children import WITHOUT_DATA
from xloud_image.db.leases import now
from xloud_image.model import STATUSES

_MOST: Final = 20  # names or ids that are given as examples
UNFINISHED: Final = ("saving", "importing")  # statuses that end only by the process that set them
# properties that stand while an import runs, and no longer
IN_FLIGHT: Final = ("os_glance_import_task", "os_glance_importing_to_stores")


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """`statuses`: status → images; `without_data`: locations whose data never came; `empty`: active images of some size
    without a location; `ownerless`: images without an owner; `tasks`: unfinished ones; `locked`: images with the
    properties of an import under way; `plain`: locations that are no URL; `recent`: images that changed within the last
    minute; `examples` of them by the same names."""

    statuses: dict[str, int]
    without_data: int
    empty: int
    ownerless: int
    tasks: int
    locked: int
    plain: int
    recent: int
    examples: dict[str, list[str]]

    @property
    def unknown(self) -> list[str]:
        """Statuses that no image service has."""
        return [status for status in self.statuses if status not in STATUSES]


async def count(conn: AsyncConnection) -> Rows:
    """Look at all rows once; nothing is held but the counts."""
    words = ", ".join(f"'{one}'" for one in WITHOUT_DATA)
    names = ", ".join(f"'{one}'" for one in IN_FLIGHT)
    here = "SELECT i.id FROM images i"
    # whose ids are asked for, each a statement that can be counted and be cut short
    asked = {
        "without_data": f"{here} JOIN image_locations l ON l.image_id = i.id"
        f" WHERE NOT i.deleted AND NOT l.deleted AND l.status IN ({words})",
        "empty": f"{here} WHERE NOT i.deleted AND i.status = 'active' AND i.size > 0 AND NOT EXISTS"  # noqa: S608
        " (SELECT 1 FROM image_locations l WHERE l.image_id = i.id AND NOT l.deleted)",
        "ownerless": f"{here} WHERE NOT i.deleted AND i.owner IS NULL",
        "tasks": "SELECT id FROM tasks WHERE NOT deleted AND status IN ('pending', 'processing')",
        "locked": "SELECT DISTINCT i.id FROM images i JOIN image_properties p ON p.image_id = i.id"  # noqa: S608
        f" WHERE NOT i.deleted AND NOT p.deleted AND p.name IN ({names}) AND p.value <> ''",
        "plain": f"{here} JOIN image_locations l ON l.image_id = i.id"
        " WHERE NOT i.deleted AND NOT l.deleted AND l.value NOT LIKE {like}",
        "recent": f"{here} WHERE i.updated_at > {now(sql.engine_of(conn), -60)}",
    }
    # to a driver that takes values, a percent sign is a placeholder; none is given here
    asked["plain"] = asked["plain"].format(like="'%://%'")
    statuses = await sql.fetch(conn, "SELECT status, count(*) FROM images WHERE NOT deleted GROUP BY status")
    counts, examples = {}, {}
    for name, words in asked.items():
        rows = await sql.fetch(conn, f"SELECT count(*) FROM ({words}) found")  # noqa: S608 - constants
        counts[name] = int(rows[0][0])
        if counts[name]:
            examples[name] = [str(row[0]) for row in await sql.fetch(conn, f"{words} LIMIT {_MOST}")]
    return Rows({str(row[0]): int(row[1]) for row in statuses}, **counts, examples=examples)


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
    or this one if it does."""
    text = sql.Text(sql.engine_of(conn))
    words = ", ".join(f"'{one}'" for one in UNFINISHED)
    names = ", ".join(f"'{one}'" for one in IN_FLIGHT)
    mine = "NOT EXISTS (SELECT 1 FROM xloud_claims c WHERE c.image_id = i.id)"
    mine += " AND NOT EXISTS (SELECT 1 FROM xloud_jobs j WHERE j.image_id = i.id)"
    mine += " AND NOT EXISTS (SELECT 1 FROM xloud_uploads u WHERE u.image_id = i.id AND u.state <> 'over')"
    rows = await sql.fetch(
        conn,
        f"SELECT i.id FROM images i WHERE NOT i.deleted AND {mine} AND (i.status IN ({words}) OR EXISTS"  # noqa: S608
        " (SELECT 1 FROM image_properties p WHERE p.image_id = i.id AND NOT p.deleted"
        f" AND p.name IN ({names}) AND p.value <> ''))"
        f"{'' if image_id is None else f' AND i.id = {text.bind(image_id)}'} ORDER BY i.id LIMIT {int(limit)}",
        text.values,
    )
    return [str(row[0]) for row in rows]


async def remove_without_data(conn: AsyncConnection) -> None:
    """Locations whose data never came are deleted, as Glance deletes them."""
    words = ", ".join(f"'{one}'" for one in WITHOUT_DATA)
    await sql.fetch(
        conn,
        f"UPDATE image_locations SET deleted = {_true(conn)}, status = 'deleted', deleted_at = {_now(conn)}"  # noqa: S608
        f" WHERE NOT deleted AND status IN ({words})",
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
