"""Jobs: work beside requests as durable rows (model.Job), each under a lease, and the processes that do it. What a kind
means is told by the services.

Nothing is changed by whoever lost his lease: each statement names the holder and the epoch of the lease that it was
given. An attempt is counted when the lease is taken; one that ended with its holder counts as a death instead, as soon
as somebody notices.

Whoever waits has a turn, given when it begins to wait: the next one of its project, and none before the turn of those
who wait now. So projects come one after the other, whatever they brought, and the next job is the first of an index.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.leases import after, now
from xloud_image.db.tables import jobs, workers
from xloud_image.errors import Duplicate
from xloud_image.model import Job

_ROW: Final = ", ".join(column.name for column in jobs.columns)


# those that wait, as the index has them: told so that each engine sees that it does
_IN_TURN: Final[Mapping[sql.Engine, str]] = {
    "sqlite": "turn, begun_at",
    "postgresql": "lease_until, turn, begun_at",
    "mysql": "turn, begun_at",
}


def _job(row: Sequence[Any]) -> Job:
    begun = sql.instant(row[8])
    assert begun is not None
    return Job(
        row[0], row[1], row[2], row[3], row[4], orjson.loads(row[5]), row[6], sql.instant(row[7]), begun, row[9],
        row[10], bool(row[11]), orjson.loads(row[12] or "{}"), row[13], row[15],
    )  # fmt: skip


def slot_of(*parts: str) -> str:
    """What two jobs have in common that must not both be unfinished."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


async def add(conn: AsyncConnection, job: Job) -> None:
    """A new job that waits. `Duplicate`: one of the same slot is unfinished."""
    try:
        await conn.execute(
            jobs.insert().values(
                id=job.id,
                kind=job.kind,
                image_id=job.image_id,
                owner=job.owner,
                slot=job.slot or slot_of(job.id),
                request=orjson.dumps(dict(job.request)).decode(),
                begun_at=after(conn),
                attempts=0,
                epoch=0,
                cancelled=False,
                turn=await _turn(conn, job.owner),
                deaths=0,
            )
        )
    except sa.exc.IntegrityError as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(f"This is being done for the image {job.image_id} already.") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A job that nobody works on now, by its lease. `holder`: of a lease that was not renewed in time; he counts as
    dead."""

    id: str
    owner: str | None
    holder: str | None
    epoch: int
    lease_until: dt.datetime | None
    deaths: int


async def waiting(
    conn: AsyncConnection,
    kinds: Collection[str],
    *,
    without: Collection[str | None] = (),
    deaths: int | None = None,
    limit: int = 20,
) -> list[Waiting]:
    """The first jobs that nobody holds now, by their turns, then by age; and as many whose time has come: their leases,
    or the pauses after failures, are over.

    without: projects whose jobs are not asked for. deaths: of jobs with no more.
    """
    text = sql.Text(sql.engine_of(conn))
    words = [text.any_of("kind", kinds), *([] if deaths is None else [f"deaths <= {int(deaths)}"])]
    named = [owner for owner in without if owner is not None]
    if named:
        words.append(f"(owner IS NULL OR NOT {text.any_of('owner', named)})")
    if None in without:
        words.append("owner IS NOT NULL")
    found: list[Sequence[Any]] = []
    for one, order in (
        ("lease_until IS NULL", _IN_TURN[text.engine]),
        (f"lease_until < {now(text.engine)}", "lease_until"),
    ):
        found += await sql.fetch(
            conn,
            f"SELECT id, owner, holder, epoch, lease_until, deaths, turn, begun_at FROM {jobs.name}"  # noqa: S608
            f" WHERE {one} AND {' AND '.join(words)} ORDER BY {order} LIMIT {int(limit)}",
            text.values,
        )
    found.sort(key=lambda row: (row[6], row[7], row[0]))
    return [
        Waiting(row[0], row[1], row[2], row[3], sql.instant(row[4]), row[5] + (row[2] is not None)) for row in found
    ]


async def _turn(conn: AsyncConnection, owner: str | None) -> int:
    """The turn of a job of this project that begins to wait now."""
    text = sql.Text(sql.engine_of(conn))
    whose = f"owner = {text.bind(owner)}" if owner is not None else "owner IS NULL"
    rows = await sql.fetch(
        conn,
        f"SELECT (SELECT turn FROM {jobs.name} WHERE {whose} ORDER BY owner DESC, turn DESC LIMIT 1),"  # noqa: S608
        f" (SELECT turn FROM {jobs.name} WHERE lease_until IS NULL ORDER BY {_IN_TURN[text.engine]} LIMIT 1)",
        text.values,
    )
    own, first = rows[0]
    return max(0 if own is None else int(own) + 1, int(first or 0))


async def take(conn: AsyncConnection, seen: Waiting, holder: str, *, lease: float) -> Job | None:
    """Take a job that was seen waiting, atomically. None: another was first, or it is done."""
    columns = jobs.c
    may = sa.or_(columns.lease_until.is_(None), columns.lease_until < after(conn))
    died = sa.case((columns.holder.is_(None), 0), else_=1)
    done = await conn.execute(
        jobs.update()
        .where(columns.id == seen.id, columns.epoch == seen.epoch, may)
        .ordered_values(  # MySQL reads what the columns before were given
            (columns.attempts, columns.attempts + 1 - died),
            (columns.deaths, columns.deaths + died),
            (columns.holder, holder),
            (columns.lease_until, after(conn, lease)),
            (columns.epoch, columns.epoch + 1),
        )
    )
    return await get(conn, seen.id) if done.rowcount else None


async def renew(
    conn: AsyncConnection, job: Job, *, lease: float, progress: Mapping[str, Any] | None = None
) -> Job | None:
    """Hold on for `lease` more seconds, and store how far it is. The job as it is now; None: not ours any more."""
    more = {} if progress is None else {"progress": orjson.dumps(dict(progress)).decode()}
    if not await _change(conn, job, lease_until=after(conn, lease), **more):
        return None
    return await get(conn, job.id)


async def postpone(conn: AsyncConnection, job: Job, *, seconds: float, error: str) -> bool:
    """It did not work: nobody takes it for so long, then it has a new turn. False: it is not ours."""
    error = error.replace("\0", "")[:1000]
    turn = await _turn(conn, job.owner)
    return await _change(conn, job, holder=None, lease_until=after(conn, seconds), error=error, turn=turn)


async def give_back(conn: AsyncConnection, job: Job, *, last: bool = False) -> bool:
    """Anybody may go on with it at once; this was no attempt. `last`: after those who wait. False: it is not ours."""
    turn = {"turn": await _turn(conn, job.owner)} if last else {}
    return await _change(conn, job, holder=None, lease_until=None, attempts=jobs.c.attempts - 1, **turn)


async def free(conn: AsyncConnection, job: Job, *, died: bool) -> bool:
    """Nobody works on it although it is held: anybody may take it at once. `died`: its holder runs no more; else the
    attempt counts as one."""
    end = {"attempts": jobs.c.attempts - 1, "deaths": jobs.c.deaths + 1} if died else {}
    return await _change(conn, job, holder=None, lease_until=None, **end)


async def end(conn: AsyncConnection, job: Job) -> bool:
    """It is done. False: it is not ours any more, and nothing of it may be stored."""
    done = await conn.execute(jobs.delete().where(*_held(job)))
    return bool(done.rowcount)


async def cancel(conn: AsyncConnection, image_id: str) -> None:
    """Whatever is under way or waits for this image is not wanted any more; whoever works on it stops and tidies up."""
    await _cancel(conn, jobs.c.image_id == image_id)


async def cancel_one(conn: AsyncConnection, job_id: str) -> bool:
    """The same for one job. False: it is not there, or no more."""
    return await _cancel(conn, jobs.c.id == job_id)


async def _cancel(conn: AsyncConnection, which: sa.ColumnElement[bool]) -> bool:
    lease = sa.case((jobs.c.holder.is_(None), None), else_=jobs.c.lease_until)
    done = await conn.execute(jobs.update().where(which).values(cancelled=True, lease_until=lease))
    return bool(done.rowcount)


async def get(conn: AsyncConnection, job_id: str) -> Job | None:
    """One job."""
    text = sql.Text(sql.engine_of(conn))
    found = await _all(conn, f"WHERE id = {text.bind(job_id)}", text)
    return found[0] if found else None


async def held(conn: AsyncConnection, *, limit: int = 1000) -> list[Job]:
    """Jobs with a holder, whether he lives or not."""
    text = sql.Text(sql.engine_of(conn))
    return await _all(conn, f"WHERE holder > '' ORDER BY begun_at, id LIMIT {int(limit)}", text)


async def list_all(conn: AsyncConnection, *, image_id: str | None = None, limit: int = 1000) -> list[Job]:
    """Unfinished jobs by the time they began; of one image if named."""
    text = sql.Text(sql.engine_of(conn))
    words = f"WHERE image_id = {text.bind(image_id)} " if image_id is not None else ""
    return await _all(conn, f"{words}ORDER BY begun_at, id LIMIT {int(limit)}", text)


async def count(conn: AsyncConnection, owner: str | None) -> int:
    """How many unfinished jobs a project has."""
    text = sql.Text(sql.engine_of(conn))
    rows = await sql.fetch(
        conn,
        f"SELECT count(*) FROM {jobs.name} WHERE owner = {text.bind(owner)}",  # noqa: S608 - constants
        text.values,
    )
    return int(rows[0][0])


async def _all(conn: AsyncConnection, words: str, text: sql.Text) -> list[Job]:
    return [_job(row) for row in await sql.fetch(conn, f"SELECT {_ROW} FROM {jobs.name} {words}", text.values)]  # noqa: S608


def _held(job: Job) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.id == job.id, jobs.c.holder == job.holder, jobs.c.epoch == job.epoch


async def _change(conn: AsyncConnection, job: Job, **values: Any) -> bool:
    done = await conn.execute(jobs.update().where(*_held(job)).values(**values))
    return bool(done.rowcount)


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """A process that works on jobs. `id`: the holder's name; `alive`: it renewed its row in time."""

    id: str
    begun_at: Any
    alive: bool


async def announce(conn: AsyncConnection, holder: str, *, lease: float) -> None:
    """This process works on jobs, for so long unless it says so again; forget those that said so long ago."""
    done = await conn.execute(workers.update().where(workers.c.id == holder).values(lease_until=after(conn, lease)))
    if not done.rowcount:
        await conn.execute(workers.insert().values(id=holder, lease_until=after(conn, lease), begun_at=after(conn)))
        await conn.execute(workers.delete().where(workers.c.lease_until < after(conn, -3600)))


async def leave(conn: AsyncConnection, holder: str) -> None:
    """This process works on none any more."""
    await conn.execute(workers.delete().where(workers.c.id == holder))


async def list_workers(conn: AsyncConnection) -> list[Worker]:
    """The processes that work on jobs, or did so within the last hour."""
    engine = sql.engine_of(conn)
    rows = await sql.fetch(
        conn,
        f"SELECT id, begun_at, CASE WHEN lease_until > {now(engine)} THEN 1 ELSE 0 END FROM {workers.name}"  # noqa: S608
        " ORDER BY begun_at, id",
    )
    return [Worker(row[0], sql.instant(row[1]), bool(row[2])) for row in rows]
