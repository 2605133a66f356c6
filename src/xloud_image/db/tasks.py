"""Tasks: what clients see of long work (model.Task), in Glance's two tables, so that a Glance shows them as well."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import sql
from xloud_image.db.engine import Database, Tx
from xloud_image.db.image_children import kept
from xloud_image.db.tables import tasks
from xloud_image.model import Task, utcnow

_ROW: Final = (
    "t.id, t.type, t.owner, t.status, t.image_id, t.request_id, t.user_id, t.created_at, t.updated_at, t.expires_at,"
    " i.input, i.result, i.message"
)
_FROM: Final = "FROM tasks t LEFT JOIN task_info i ON i.task_id = t.id WHERE NOT t.deleted"
_SOME: Final = 100
SORT_KEYS: Final = ("created_at", "updated_at", "expires_at", "id", "type", "status", "owner")


def _task(row: Sequence[Any]) -> Task:
    created = sql.made(row[7])
    return Task(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], created, sql.instant(row[8]) or created,
        sql.instant(row[9]), _json(row[10]) or {}, _json(row[11]), row[12] or "",
    )  # fmt: skip


def _json(text: str | None) -> Any:
    """What a column holds; None where it is no mapping."""
    try:
        found = None if text is None else orjson.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(dict(value))  # in ASCII: the columns hold three bytes a character


async def add(conn: AsyncConnection, task: Task) -> Task:
    """Store a new task; the task as stored."""
    now = kept(conn, utcnow())
    row = {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
        "created_at": now,
        "updated_at": now,
        "deleted": False,
    }
    await sql.insert(conn, "tasks", [row])
    info = {"task_id": task.id, "input": _text(task.input), "result": None, "message": task.message}
    await sql.insert(conn, "task_info", [info])
    if isinstance(conn, Tx):
        conn.tell("task.create", events.of_task, task)
    return task


async def change(
    conn: AsyncConnection,
    task_id: str,
    status: str,
    *,
    message: str | None = None,
    result: Mapping[str, Any] | None = None,
    kept_for: float | None = None,
) -> None:
    """The task has this status from now on. kept_for: seconds after which nobody sees it any more."""
    now = kept(conn, utcnow())
    more = {} if kept_for is None else {"expires_at": now + dt.timedelta(seconds=kept_for)}
    if isinstance(conn, Tx) and conn.wants(f"task.{status}"):
        await _tell(conn, task_id, status, {"updated_at": now, **more})
    await sql.update(conn, "tasks", {"status": status, "updated_at": now, **more}, id=task_id)
    info: dict[str, Any] = {} if message is None else {"message": _plain(message)}
    info |= {} if result is None else {"result": _text(result)}
    if info:
        await sql.update(conn, "task_info", info, task_id=task_id)


async def _tell(tx: Tx, task_id: str, status: str, times: Mapping[str, Any]) -> None:
    was = await get(tx, task_id)
    if was is None or was.status == status:  # tried again
        return
    if status == "processing":
        tx.tell("task.run", events.of_task, was)
    tx.tell(f"task.{status}", events.of_task, dataclasses.replace(was, status=status, **times))


async def get(conn: AsyncConnection, task_id: str) -> Task | None:
    """One task that has not expired."""
    text = sql.Text(sql.engine_of(conn))
    found = await _all(conn, f"AND t.id = {text.bind(task_id)} AND {_there(conn, text)}", text)
    return found[0] if found else None


async def of_image(conn: AsyncConnection, image_id: str, *, limit: int = 1000) -> list[Task]:
    """The tasks of an image, the newest first."""
    text = sql.Text(sql.engine_of(conn))
    words = f"AND t.image_id = {text.bind(image_id)} AND {_there(conn, text)}"
    return await _all(conn, f"{words} ORDER BY t.created_at DESC, t.id DESC LIMIT {int(limit)}", text)


async def find(
    conn: AsyncConnection,
    *,
    owner: str | None,
    equals: Mapping[str, str],
    sort: Sequence[tuple[str, Literal["asc", "desc"]]],
    marker: Task | None,
    limit: int,
) -> list[Task]:
    """A page of tasks. owner: whose, None everybody's. sort: keys of SORT_KEYS; what is equal goes on by created_at and
    id. marker: the task after which the page begins."""
    text = sql.Text(sql.engine_of(conn))
    words = [f"AND t.{name} = {text.bind(value)}" for name, value in equals.items()]
    words += [f"AND t.owner = {text.bind(owner)}"] if owner is not None else []
    words.append(f"AND {_there(conn, text)}")
    direction: Literal["asc", "desc"] = sort[0][1] if sort else "desc"
    asked = {key for key, _ in sort}
    more = () if "id" in asked else ("id",) if "created_at" in asked else ("created_at", "id")
    order = [*sort, *[(key, direction) for key in more]]
    if marker is not None:
        words.append(f"AND ({_after(conn, text, order, marker)})")
    by = ", ".join(f"{_sorted_by(text.engine, key)} {direction}" for key, direction in order)
    return await _all(conn, f"{' '.join(words)} ORDER BY {by} LIMIT {int(limit)}", text)


_NEVER: Final[Mapping[sql.Engine, str]] = {
    "sqlite": "'9999-12-31 00:00:00.000000'",
    "postgresql": "TIMESTAMP '9999-12-31'",
    "mysql": "CAST('9999-12-31' AS DATETIME)",
}


def _sorted_by(engine: sql.Engine, key: str) -> str:
    # all engines put an expiry that is unknown in the same place
    return f"COALESCE(t.expires_at, {_NEVER[engine]})" if key == "expires_at" else f"t.{key}"


def _after(conn: AsyncConnection, text: sql.Text, order: Sequence[tuple[str, str]], marker: Task) -> str:
    steps = []
    for number, (key, direction) in enumerate(order):
        parts = [
            f"{_sorted_by(text.engine, other)} = {text.bind(_value(conn, marker, other))}"
            for other, _ in order[:number]
        ]
        sign = ">" if direction == "asc" else "<"
        parts.append(f"{_sorted_by(text.engine, key)} {sign} {text.bind(_value(conn, marker, key))}")
        steps.append(" AND ".join(parts))
    return " OR ".join(f"({step})" for step in steps)


def _value(conn: AsyncConnection, marker: Task, key: str) -> Any:
    value = getattr(marker, key)
    if key == "expires_at":
        value = value or dt.datetime(9999, 12, 31)  # noqa: DTZ001 - as the columns have it
    return kept(conn, value) if isinstance(value, dt.datetime) else value


def _there(conn: AsyncConnection, text: sql.Text) -> str:
    return f"(t.expires_at IS NULL OR t.expires_at > {text.bind(kept(conn, utcnow()))})"


async def remove_expired(db: Database) -> None:
    """Mark those deleted that nobody sees any more, some at a time: no index helps to find them."""
    while True:

        async def some(conn: AsyncConnection) -> list[str]:
            text = sql.Text(sql.engine_of(conn))
            now = text.bind(kept(conn, utcnow()))
            words = f"SELECT id FROM tasks WHERE NOT deleted AND expires_at < {now} LIMIT {_SOME}"  # noqa: S608
            return [row[0] for row in await sql.fetch(conn, words, text.values)]

        found = await db.read(some)
        for task_id in found:
            await db.write(lambda tx, task_id=task_id: _remove(tx, task_id))  # type: ignore[misc]
        if len(found) < _SOME:
            return


async def _remove(tx: Tx, task_id: str) -> None:
    """Unless another process did."""
    text, now = sql.Text(sql.engine_of(tx)), utcnow()
    found = await _all(tx, f"AND t.id = {text.bind(task_id)}", text) if tx.wants("task.delete") else []
    marked = {"deleted": True, "deleted_at": kept(tx, now)}
    columns = tasks.c
    done = await tx.execute(tasks.update().where(columns.id == task_id, ~columns.deleted).values(**marked))
    if found and done.rowcount:
        tx.tell("task.delete", events.of_task, found[0], deleted_at=now)


def _plain(text: str) -> str:
    """As the columns of Glance can hold it on every engine."""
    return "".join(
        char if "\0" < char < "\U00010000" and not "\ud800" <= char < "\ue000" else "\ufffd" for char in text
    )


async def _all(conn: AsyncConnection, words: str, text: sql.Text) -> list[Task]:
    return [_task(row) for row in await sql.fetch(conn, f"SELECT {_ROW} {_FROM} {words}", text.values)]
