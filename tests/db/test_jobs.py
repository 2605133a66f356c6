"""Jobs and tasks on each of the databases: who may take a row, in which order, and that who lost it changes nothing."""

import asyncio
import dataclasses
import datetime as dt
import uuid

import pytest

from tests.db.test_plans import rows_read_by
from xloud_image.db import jobs, sql, tables, tasks
from xloud_image.db.engine import Database
from xloud_image.errors import Duplicate
from xloud_image.model import Job, Task


def _job(owner: str = "p", **fields: object) -> Job:
    return dataclasses.replace(Job(str(uuid.uuid4()), "import", str(uuid.uuid4()), owner), **fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
async def _no_others(db: Database) -> None:
    for table in ("xloud_jobs", "xloud_workers"):
        await db.write(lambda conn, table=table: sql.fetch(conn, f"DELETE FROM {table}"))  # type: ignore[misc]


async def _added(db: Database, *several: Job) -> None:
    for one in several:
        await db.write(lambda conn, one=one: jobs.add(conn, one))  # type: ignore[misc]


async def _seen(db: Database, *without: str | None, deaths: int | None = None) -> list[jobs.Waiting]:
    return await db.read(lambda conn: jobs.waiting(conn, ["import"], without=without, deaths=deaths, limit=100))


async def _waiting(db: Database, *without: str | None) -> list[str]:
    return [one.id for one in await _seen(db, *without)]


async def _take(db: Database, job: Job, holder: str = "me", lease: float = 60) -> Job | None:
    """As by somebody who has seen it as it is now."""
    found = await db.read(lambda conn: jobs.get(conn, job.id))
    assert found is not None
    seen = jobs.Waiting(job.id, found.owner, found.holder, found.epoch, found.lease_until, found.deaths)
    return await db.write(lambda conn: jobs.take(conn, seen, holder, lease=lease))


async def test_a_job_is_there_as_it_was_given(db: Database) -> None:
    job = _job(request={"method": "copy-image", "stores": ["a", "ü"], "details": {"uri": "x" * 70_000}}, slot="s")
    await _added(db, job)
    found = await db.read(lambda conn: jobs.get(conn, job.id))
    assert found is not None
    assert (found.request, found.owner, found.attempts, found.epoch, found.cancelled) == (job.request, "p", 0, 0, False)
    with pytest.raises(Duplicate):
        await _added(db, _job(slot="s"))
    await _added(db, _job(), _job())


async def test_of_many_who_want_it_one_gets_it(db: Database) -> None:
    job = _job()
    await _added(db, job)
    got = [one for one in await asyncio.gather(*(_take(db, job, f"w{n}") for n in range(8))) if one is not None]
    assert len(got) == 1
    assert (got[0].attempts, got[0].epoch) == (1, 1)
    assert await _waiting(db) == []
    assert await _take(db, job) is None


async def test_whoever_lost_it_changes_nothing(db: Database) -> None:
    job = _job()
    await _added(db, job)
    first = await _take(db, job, "w", lease=0.2)
    assert first is not None
    await asyncio.sleep(0.5)
    assert await _waiting(db) == [job.id], "its lease is over"
    second = await _take(db, job, "w")  # the same process: the epoch tells them apart
    assert second is not None
    assert (second.attempts, second.deaths, second.epoch) == (1, 1, 2), "whoever does not renew counts as dead"
    assert await db.write(lambda conn: jobs.renew(conn, first, lease=60)) is None
    assert not await db.write(lambda conn: jobs.postpone(conn, first, seconds=1, error="x"))
    assert not await db.write(lambda conn: jobs.give_back(conn, first))
    assert not await db.write(lambda conn: jobs.end(conn, first))
    again = await db.write(lambda conn: jobs.renew(conn, second, lease=60, progress={"step": "s", "bytes": 5}))
    assert again is not None
    assert again.progress == {"step": "s", "bytes": 5}
    assert await db.write(lambda conn: jobs.end(conn, second))
    assert await db.read(lambda conn: jobs.get(conn, job.id)) is None


async def test_what_is_postponed_waits_and_what_is_given_back_does_not(db: Database) -> None:
    job = _job()
    await _added(db, job)
    mine = await _take(db, job)
    assert mine is not None
    assert await db.write(lambda conn: jobs.postpone(conn, mine, seconds=0.6, error="the store is away"))
    assert await _waiting(db) == []
    assert await _take(db, job) is None
    await asyncio.sleep(1)
    again = await _take(db, job)
    assert again is not None
    assert (again.attempts, again.error) == (2, "the store is away")
    assert await db.write(lambda conn: jobs.give_back(conn, again))
    assert await _waiting(db) == [job.id]
    last = await _take(db, job)
    assert last is not None
    assert (last.attempts, last.epoch) == (2, 3), "what was given back was no attempt"


async def test_projects_come_in_turn(db: Database) -> None:
    many = [_job("many") for _ in range(5)]
    few = [_job("few") for _ in range(2)]
    await _added(db, *many, *few)
    order = await _waiting(db)
    assert order == [many[0].id, few[0].id, many[1].id, few[1].id, *(one.id for one in many[2:])]
    assert await _waiting(db, "many") == [few[0].id, few[1].id]
    await _take(db, many[0])
    await _take(db, many[1])
    new, nobody = _job("new"), _job(None)  # type: ignore[arg-type]
    await _added(db, new, nobody)
    assert (await _waiting(db))[:4] == [few[0].id, new.id, nobody.id, few[1].id], "who comes is not after all others"
    assert await _waiting(db, "many", None) == [few[0].id, new.id, few[1].id]


async def test_who_failed_or_stepped_aside_comes_after_the_others(db: Database) -> None:
    one, others = _job("a"), [_job("b") for _ in range(2)]
    await _added(db, one, *others)
    mine = await _take(db, one)
    assert mine is not None
    assert await db.write(lambda conn: jobs.give_back(conn, mine, last=True))
    await _added(db, second := _job("a"))
    assert await _waiting(db) == [others[0].id, one.id, others[1].id, second.id]
    mine = await _take(db, one)
    assert mine is not None
    assert await db.write(lambda conn: jobs.postpone(conn, mine, seconds=-1, error="x"))
    assert await _waiting(db) == [others[0].id, others[1].id, second.id, one.id]


async def test_a_death_is_no_attempt(db: Database) -> None:
    job = _job()
    await _added(db, job)
    for number in range(1, 4):
        mine = await _take(db, job)
        assert mine is not None
        assert (mine.attempts, mine.deaths) == (1, number - 1)
        assert await db.write(lambda conn, mine=mine: jobs.free(conn, mine, died=True))  # type: ignore[misc]
        assert not await db.write(lambda conn, mine=mine: jobs.free(conn, mine, died=True))  # type: ignore[misc]
    mine = await _take(db, job, lease=-1)
    assert mine is not None
    (seen,) = await _seen(db)
    assert (seen.holder, seen.deaths) == ("me", 4), "whoever looks sees that another one died"
    assert await _seen(db, deaths=2) == []
    assert await db.write(lambda conn: jobs.free(conn, mine, died=False))
    last = await _take(db, job)
    assert last is not None
    assert (last.attempts, last.deaths) == (2, 3)


async def test_what_was_seen_is_taken_as_it_was(db: Database) -> None:
    """Somebody else took it since, and it looks expired because the database's clock was set forward."""
    job = _job()
    await _added(db, job)
    (seen,) = await _seen(db)
    assert await _take(db, job, "other", lease=-1) is not None
    assert await db.write(lambda conn: jobs.take(conn, seen, "me", lease=60)) is None


async def test_the_next_job_is_found_without_the_others(db: Database, engine: str) -> None:
    """Thousands wait, thousands failed lately: what is read is what is asked for."""
    rows = [
        {
            "id": str(uuid.UUID(int=number)),
            "kind": "import",
            "image_id": "i",
            "owner": f"p{number % 10}",
            "slot": str(number),
            "request": "{}",
            "lease_until": None if number % 2 else dt.datetime(2100, 1, 1),
            "begun_at": dt.datetime(2026, 1, 1),
            "turn": number // 10,
            **dict.fromkeys(("attempts", "epoch", "cancelled", "deaths"), 0),
        }
        for number in range(3000)
    ]
    await db.write(lambda conn: conn.execute(tables.jobs.insert(), rows))
    if engine != "sqlite":
        words = f"ANALYZE {'' if engine == 'postgresql' else 'TABLE '}{tables.jobs.name}"
        await db.read(lambda conn: sql.fetch(conn, words))
    for work in (
        lambda conn: jobs.waiting(conn, ["import"], without=["p1", "p3"]),
        lambda conn: jobs._turn(conn, "p5"),
        jobs.held,
    ):
        assert await rows_read_by(db, engine, work) < 200
    assert [one.id for one in await db.read(lambda conn: jobs.waiting(conn, ["import"], without=["p1"]))][:3] == [
        str(uuid.UUID(int=number)) for number in (3, 5, 7)
    ]


async def test_cancelling_is_seen_by_who_works_and_ends_the_waiting(db: Database) -> None:
    job = _job()
    await _added(db, job)
    mine = await _take(db, job)
    assert mine is not None
    await db.write(lambda conn: jobs.cancel(conn, job.image_id))
    seen = await db.write(lambda conn: jobs.renew(conn, mine, lease=60))
    assert seen is not None
    assert seen.cancelled
    await db.write(lambda conn: jobs.postpone(conn, mine, seconds=600, error="x"))
    await db.write(lambda conn: jobs.cancel(conn, job.image_id))
    assert await _waiting(db) == [job.id]


async def test_workers_are_known_as_long_as_they_say_so(db: Database) -> None:
    await db.write(lambda conn: jobs.announce(conn, "a/b", lease=60))
    await db.write(lambda conn: jobs.announce(conn, "c/d", lease=0.1))
    await asyncio.sleep(0.4)
    assert {one.id: one.alive for one in await db.read(jobs.list_workers)} == {"a/b": True, "c/d": False}
    await db.write(lambda conn: jobs.announce(conn, "c/d", lease=60))
    await db.write(lambda conn: jobs.leave(conn, "a/b"))
    assert {one.id: one.alive for one in await db.read(jobs.list_workers)} == {"c/d": True}


async def test_a_task_goes_through_its_life(db: Database) -> None:
    task = Task(
        str(uuid.uuid4()), "api_image_import", "p", image_id=str(uuid.uuid4()), input={"a": [1, "ü"]}, user_id="u"
    )
    await db.write(lambda conn: tasks.add(conn, task))
    found = await db.read(lambda conn: tasks.get(conn, task.id))
    assert found is not None
    assert (found.status, found.input, found.result, found.message, found.expires_at) == (
        "pending",
        task.input,
        None,
        "",
        None,
    )
    done = {"image_id": "x"}
    await db.write(lambda conn: tasks.change(conn, task.id, "success", message="m" * 900, result=done, kept_for=3600))
    found = await db.read(lambda conn: tasks.get(conn, task.id))
    assert found is not None
    assert (found.status, found.result, len(found.message)) == ("success", done, 900)
    assert found.expires_at is not None
    assert 3590 < (found.expires_at - found.updated_at).total_seconds() <= 3600
    await db.write(lambda conn: tasks.change(conn, task.id, "success", message="a\0b\U0001f600 ü"))
    found = await db.read(lambda conn: tasks.get(conn, task.id))
    assert found is not None
    assert found.message == "a\ufffdb\ufffd ü", "what Glance's columns can hold on every engine"
    assert [one.id for one in await db.read(lambda conn: tasks.of_image(conn, task.image_id or ""))] == [task.id]
    await db.write(lambda conn: tasks.change(conn, task.id, "success", kept_for=-5))
    assert await db.read(lambda conn: tasks.get(conn, task.id)) is None, "nobody sees it any more"
    await tasks.remove_expired(db)


@pytest.mark.parametrize("key", tasks.SORT_KEYS)
async def test_pages_of_tasks_hold_each_once(db: Database, key: str) -> None:
    owner = str(uuid.uuid4())
    for number in range(7):
        task = Task(str(uuid.uuid4()), "import" if number % 2 else "api_image_import", owner)
        await db.write(lambda conn, task=task: tasks.add(conn, task))  # type: ignore[misc]
        if number % 3:
            await db.write(
                lambda conn, task=task, number=number: tasks.change(  # type: ignore[misc]
                    conn, task.id, "failure", kept_for=3600 * (number % 2 + 1)
                )
            )
    for direction in ("asc", "desc"):
        seen: list[str] = []
        marker = None
        while True:
            page = await db.read(
                lambda conn, marker=marker, direction=direction: tasks.find(  # type: ignore[misc]
                    conn, owner=owner, equals={}, sort=[(key, direction)], marker=marker, limit=2
                )
            )
            if not page:
                break
            seen += [one.id for one in page]
            marker = page[-1]
        assert len(seen) == len(set(seen)) == 7
        if key in ("type", "status", "owner"):  # what is equal goes on by time
            rows = [await db.read(lambda conn, one=one: tasks.get(conn, one)) for one in seen]  # type: ignore[misc]
            assert rows == sorted(
                rows, key=lambda one: (getattr(one, key), one.created_at, one.id), reverse=direction == "desc"
            )
