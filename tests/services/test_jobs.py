"""The engine of long work: who gets a place, who has to leave it, and what looks dead and is not."""

import asyncio
import dataclasses
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.load import quiet
from xloud_image.config.loader import load
from xloud_image.config.settings import Settings
from xloud_image.db import jobs as rows
from xloud_image.db import schema, sql
from xloud_image.model import Job
from xloud_image.services import jobs, lanes
from xloud_image.services.runtime import Runtime


class Work:
    """Jobs that are under way until they are told to end, on engines of several processes."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "BEAT", 0.05)
        monkeypatch.setattr(jobs, "LOOK", 0.05)
        self.settings = settings
        self.begun: list[str] = []
        self.failed: dict[str, str] = {}
        self.may_end: set[str] = set()
        self.stop, self.finish = asyncio.Event(), asyncio.Event()
        self.engines: list[asyncio.Task[None]] = []

    async def engine(self, runtime: Runtime) -> None:
        kind = jobs.Kind(self.run, self.fail)
        self.engines.append(
            asyncio.create_task(jobs.Engine(runtime, {"import": kind}, places=4).run(self.stop, self.finish))
        )

    async def run(self, runtime: Runtime, job: Job, progress: jobs.Progress) -> None:
        self.begun.append(job.id)
        while job.id not in self.may_end:
            await asyncio.sleep(0.01)
        await runtime.db.write(lambda conn: rows.end(conn, job))
        progress.end()

    async def fail(self, runtime: Runtime, job: Job, reason: str) -> None:
        self.failed[job.id] = reason
        await runtime.db.write(lambda conn: rows.end(conn, job))

    async def add(self, runtime: Runtime, owner: str) -> str:
        job = Job(str(uuid.uuid4()), "import", str(uuid.uuid4()), owner)
        await runtime.db.write(lambda conn: rows.add(conn, job))
        return job.id


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    file = tmp_path / "xloud-image.conf"
    file.write_text(
        f"[DEFAULT]\nenabled_backends = disk:file\n[glance_store]\ndefault_backend = disk\n"
        f"[disk]\nfilesystem_store_datadir = {tmp_path}\n[database]\nconnection = sqlite:///{tmp_path / 'db'}\n"
        "[xloud]\nauth = none\nlease_time = 5\n"
    )
    settings = load([file], env={}).settings
    await schema.upgrade(settings.database)
    async with Runtime.open(settings, "db") as opened:
        yield opened


@pytest.fixture
async def work(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Work]:
    work = Work(runtime.settings, monkeypatch)
    yield work
    work.stop.set()
    await asyncio.gather(*work.engines)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(quiet(30)):
        while not true():
            await asyncio.sleep(0.02)


async def test_whoever_is_slow_makes_room_and_begins_anew(
    work: Work, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SHARE", 0.5)
    slow = [await work.add(runtime, "a") for _ in range(4)]
    await work.engine(runtime)
    await until(lambda: len(work.begun) == 3)
    last = await work.add(runtime, "b")
    await until(lambda: work.begun[3:] == [last])
    new = await work.add(runtime, "c")
    await until(lambda: work.begun[4:] == [new])
    left = {one.id: one for one in await runtime.db.read(rows.list_all)}
    (aside,) = (one for one in work.begun[:3] if left[one].holder is None)
    assert (left[aside].attempts, left[aside].deaths, left[aside].epoch) == (0, 0, 1)
    assert left[aside].id in slow
    work.may_end |= {*slow, last, new}
    await until(lambda: work.begun.count(aside) == 2 and len(set(work.begun)) == 6)
    assert not work.failed


async def test_when_the_database_s_clock_jumps_nothing_is_begun_beside_itself(work: Work, runtime: Runtime) -> None:
    ours = await work.add(runtime, "a")
    await work.engine(runtime)
    await until(lambda: work.begun == [ours])
    async with Runtime.open(runtime.settings, "db") as other:
        other.holder = other.holder.replace("/", "-")  # as of another node
        await work.engine(other)
        past = "UPDATE xloud_jobs SET lease_until = '2026-01-01 00:00:00.000000'"
        await runtime.db.write(lambda conn: sql.fetch(conn, past))
        before = None
        while before is None or str(before.lease_until).startswith("2026-01-01"):
            await asyncio.sleep(0.05)
            before = await runtime.db.read(lambda conn: rows.get(conn, ours))
        assert (before.holder, before.epoch, work.begun) == (runtime.holder, 1, [ours])
        # one that does not renew is taken, some time later
        dead = dataclasses.replace(before, id=str(uuid.uuid4()), slot="", owner="b")
        await runtime.db.write(lambda conn: rows.add(conn, dead))
        seen = rows.Waiting(dead.id, "b", None, 0, None, 0)
        await runtime.db.write(lambda conn: rows.take(conn, seen, "gone", lease=-60))
        await until(lambda: dead.id in work.begun)
        found = await runtime.db.read(lambda conn: rows.get(conn, dead.id))
        assert found is not None
        assert (found.attempts, found.deaths) == (1, 1)
        work.may_end |= {ours, dead.id}
        work.stop.set()
        await asyncio.gather(*work.engines)


async def test_what_killed_two_processes_runs_alone(work: Work, runtime: Runtime) -> None:
    suspect = await work.add(runtime, "a")
    others = [await work.add(runtime, "b") for _ in range(2)]
    await runtime.db.write(
        lambda conn: sql.fetch(conn, f"UPDATE xloud_jobs SET deaths = {jobs.ALONE} WHERE id = '{suspect}'")
    )
    await work.engine(runtime)
    await until(lambda: work.begun == [suspect])
    await asyncio.sleep(0.3)
    assert work.begun == [suspect]
    work.may_end.add(suspect)
    await until(lambda: set(work.begun) == {suspect, *others})
    second = await work.add(runtime, "a")
    await runtime.db.write(
        lambda conn: sql.fetch(conn, f"UPDATE xloud_jobs SET deaths = {jobs.DEATHS + 1} WHERE id = '{second}'")
    )
    await asyncio.sleep(0.3)
    assert not work.failed, "it waits until nothing else is under way"
    work.may_end |= set(others)
    await until(lambda: second in work.failed)
    assert "tried 5 times: each time the process that worked on it died" in work.failed[second]


def test_a_process_whose_loop_stands_still_ends_itself() -> None:
    code = (
        "import asyncio, time\nfrom xloud_image import worker\n"
        "async def main():\n"
        "    turns = asyncio.create_task(worker.turning(1))\n"
        "    await asyncio.sleep(1.5)\n"
        "    print('it turned', flush=True)\n"
        "    time.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=quiet(60), check=False)
    assert (done.returncode, done.stdout) == (1, "it turned\n")
    assert "line 7 in main" in done.stderr, "and says where"
