"""The engine of long work: takes jobs (db.jobs), runs them beside each other, and sees that each comes to an end,
whatever dies. What a kind of job does is told by the services that are handed in.

Rows are the truth and leases decide; a ring of the bell only says «look». Who works on a job renews its lease; who
cannot for two thirds of it stops before it ends. A job is cancelled by a flag in its row, which the renewing sees. An
attempt that fails in a way that may pass is tried again later; the fifth is the last.

Jobs of one process end with it, and one of them may have been the reason. After the second such death a job runs alone,
so that those that follow are its own; after the fifth it has failed. Whoever ran beside it has lost time and nothing
else.

No job keeps the others waiting (`lanes`): one that is at it for longer than its share gives up its place when a project
that has none waits, and begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import structlog

from xloud_image.db import jobs, tasks
from xloud_image.errors import ImageServiceError, SourceChanged
from xloud_image.failpoints import reach
from xloud_image.model import Job
from xloud_image.services.expired import Expired
from xloud_image.services.holder import is_dead
from xloud_image.services.lanes import Lane
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 5
DEATHS: Final = 5
ALONE: Final = 2  # deaths after which a job runs alone
BEAT: Final = 2.0  # seconds between two renewals: cancelling acts within it, and progress is stored
LOOK: Final = 1.0  # seconds between two looks without a ring, and up to twice that
_TIDY: Final = 600.0  # seconds between two looks at tasks that have expired
_LONGEST: Final = 7 * 86400.0  # seconds that the share of a job grows to
_LAST_RETRY: Final = 600.0  # seconds; the first attempt comes after some seconds, each later one after twice the time


class Unwanted(Exception):
    """The job is not wanted any more: its image is gone, or somebody else has finished it."""


@dataclasses.dataclass(slots=True)
class Progress:
    """How far a job is; the work writes it, the engine stores it. `step`: what is being done, in words for people;
    `done` and `total`: bytes, None unknown."""

    step: str = ""
    done: int = 0
    total: int | None = None
    since: float = dataclasses.field(default_factory=time.monotonic)
    _ended: bool = False

    def begin(self, step: str, total: int | None = None) -> None:
        """The next step."""
        self.step, self.done, self.total, self.since = step, 0, total, time.monotonic()

    def end(self) -> None:
        """The effect is stored and the row is gone: what is left to do needs no lease."""
        self._ended = True

    def has_ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    @property
    def so_far(self) -> tuple[str, int, int | None]:
        """What changes with the work."""
        return self.step, self.done, self.total

    @property
    def facts(self) -> dict[str, Any]:
        """As it is stored: `rate` in bytes a second."""
        seconds = max(time.monotonic() - self.since, 0.001)
        return {"step": self.step, "bytes": self.done, "total": self.total, "rate": int(self.done / seconds)}


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What jobs of one kind are. `run` does the work and ends the job in the transaction that stores its effect;
    `fail` ends it without effect, with the reason in words for clients, and tidies up. Both may be called again after a
    process died anywhere in them."""

    run: Callable[[Runtime, Job, Progress], Awaitable[None]]
    fail: Callable[[Runtime, Job, str], Awaitable[None]]


class Engine:
    """The jobs of one process. `places`: at once; of one project three quarters of them, and the last place is for one
    that has none."""

    def __init__(self, runtime: Runtime, kinds: Mapping[str, Kind], *, places: int) -> None:
        self._runtime, self._kinds = runtime, kinds
        self._lane = Lane("jobs", places=places, each=max(1, places * 3 // 4), longest=_LONGEST)
        self._working: dict[str, asyncio.Task[None]] = {}
        self._rung = asyncio.Event()
        self._expired = Expired(runtime.settings.lease_time / 2)
        self._found: list[jobs.Waiting] = []  # what waited a moment ago, the next first
        self._found_at = 0.0
        self._alone = False  # the one that is under way has to be
        self._empties = True  # this process takes none, when one waits that has to be alone, until it has none

    def ring(self) -> None:
        """There may be something to do."""
        self._rung.set()

    async def run(self, stop: asyncio.Event, finish: asyncio.Event) -> None:
        """Work until `stop`; then hand over what is under way, so that another process goes on at once. After `finish`
        nothing new is taken, and the end of what is under way is the end."""
        runtime, lease = self._runtime, self._runtime.settings.lease_time
        announcing = asyncio.create_task(self._announce(lease, finish))
        stopping = asyncio.create_task(stop.wait())
        try:
            left = tidied = 0.0
            while not stop.is_set() and (self._working or not finish.is_set()):
                self._rung.clear()
                try:
                    if time.monotonic() >= left:
                        left = time.monotonic() + lease / 4
                        await self._free_from_dead()
                    if time.monotonic() >= tidied:
                        tidied = time.monotonic() + _TIDY
                        await tasks.remove_expired(runtime.db)
                    if not finish.is_set():
                        await self._look()
                except ImageServiceError as error:  # the next look may succeed
                    log.warning("no job could be looked for", reason=error.message)
                ring = asyncio.create_task(self._rung.wait())
                pause = LOOK * random.uniform(1, 2)  # noqa: S311 - no secret, it spreads the looks
                await asyncio.wait((ring, stopping), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                ring.cancel()
        finally:
            announcing.cancel()
            stopping.cancel()
            await self._drain()
            with contextlib.suppress(ImageServiceError):  # else it runs out
                await runtime.db.write(lambda conn: jobs.leave(conn, runtime.holder))
            self._lane.close()

    async def _announce(self, lease: float, finish: asyncio.Event) -> None:
        holder = self._runtime.holder
        while True:
            try:
                workers = await self._runtime.db.read(jobs.list_workers)
                if finish.is_set() and any(worker.alive and worker.id != holder for worker in workers):
                    # of those that take something the oldest is another
                    await self._runtime.db.write(lambda conn: jobs.leave(conn, holder))
                    return
                await self._runtime.db.write(lambda conn: jobs.announce(conn, holder, lease=lease))
                self._empties = next((worker.id for worker in workers if worker.alive), holder) == holder
            except ImageServiceError as error:
                log.warning("this worker could not be announced", reason=error.message)
            await asyncio.sleep(lease / 3)

    async def _look(self) -> None:
        """Begin with what waits, as far as there is room. What is found serves for a while: where thousands wait, a
        look costs more than taking a job."""
        if self._alone:
            return
        if self._lane.full:
            if self._lane.over:
                has = {place.owner for place in self._lane.taken.values()}
                self._lane.make_room(one.owner for one in await self._waiting(has))
            return
        while not self._lane.full:
            if not self._found or time.monotonic() - self._found_at > LOOK:
                self._found = await self._waiting(
                    {one.owner for one in self._lane.taken.values() if not self._lane.admits(one.owner)}
                )
                self._found_at = time.monotonic()
                if not self._found:
                    return
            if self._found[0].deaths >= ALONE and self._working:
                return  # until there is nothing under way
            seen = self._found.pop(0)
            if seen.id not in self._working and self._lane.admits(seen.owner) and await self._take(seen):
                return

    async def _waiting(self, without: Collection[str | None]) -> list[jobs.Waiting]:
        """What may be begun here: what has to be alone only where nothing is under way, or shall be soon."""
        most = None if self._empties or not self._working else ALONE - 1
        found = await self._runtime.db.read(lambda conn: jobs.waiting(conn, self._kinds, without=without, deaths=most))
        found = [one for one in self._expired.lasting(found) if one.id not in self._working]
        found = [one for one in found if most is None or one.deaths <= most]
        # several workers look at the same rows: they shall not fight for the first
        first = list(itertools.takewhile(lambda one: one.deaths < ALONE, found[: self._lane.places]))
        random.shuffle(first)
        return [*first, *found[len(first) :]]

    async def _free_from_dead(self) -> None:
        """What a process of this very node held that runs no more need not wait for its lease, nor what this one holds
        and does not work on: it could not renew it, or could not end it."""
        holder = self._runtime.holder
        for job in await self._runtime.db.read(jobs.held):
            if job.id in self._working or job.holder is None:
                continue
            if job.holder == holder or is_dead(job.holder):
                died = job.holder != holder
                await self._runtime.db.write(lambda conn, job=job, died=died: jobs.free(conn, job, died=died))  # type: ignore[misc]

    async def _take(self, seen: jobs.Waiting) -> bool:
        """Whether nothing else may begin: it has to be alone."""
        runtime, lease = self._runtime, self._runtime.settings.lease_time
        job = await runtime.db.write(lambda conn: jobs.take(conn, seen, runtime.holder, lease=lease))
        if job is None:
            return False
        await reach("job.taken")
        self._alone = job.deaths >= ALONE
        self._lane.begin(job.id, job.owner)
        self._working[job.id] = asyncio.create_task(self._work(job), name=f"job {job.kind} {job.id}")
        return self._alone

    async def _work(self, job: Job) -> None:
        bound = log.bind(job=job.id, kind=job.kind, image=job.image_id, attempt=job.attempts)
        kind = self._kinds[job.kind]
        try:
            if job.cancelled:
                await kind.fail(self._runtime, job, "It was cancelled.")
            elif job.deaths >= DEATHS:
                reason = f"It was tried {DEATHS} times: each time the process that worked on it died"
                await kind.fail(self._runtime, job, reason)
            elif job.attempts > ATTEMPTS:
                await kind.fail(self._runtime, job, f"It was tried {ATTEMPTS} times: {job.error}")
            else:
                bound.info("a job begins")
                progress = Progress()
                await self._while_ours(job, progress, kind.run(self._runtime, job, progress))
                bound.info("a job is done")
        except asyncio.CancelledError:
            await self._store(job, lambda conn: jobs.give_back(conn, job))
            raise
        except _Aside:
            self._lane.leave(job.id, aside=True)
            bound.info("a job begins anew later, others wait")
            await self._store(job, lambda conn: jobs.give_back(conn, job, last=True))
        except Unwanted:
            bound.info("a job is not wanted any more")
            await self._end(kind, job, "It was cancelled.")
        except _Lost:
            bound.warning("a job went to another process: this one could not renew its lease")
        except Exception as error:  # noqa: BLE001 - whatever it was, the job has to come to an end
            await self._failed(kind, job, error)
        else:
            self._lane.forget(job.id)
        finally:
            self._lane.leave(job.id)
            self._working.pop(job.id, None)
            self._alone = False
            self._rung.set()

    async def _while_ours(self, job: Job, progress: Progress, work: Awaitable[None]) -> None:
        """Run `work` as long as the lease is ours, which is renewed beside it, and its place. `_Lost`, `_Aside`,
        `Unwanted`; then it has been stopped, and has tidied up."""
        lease = self._runtime.settings.lease_time
        task = asyncio.ensure_future(work)
        renewed, stored = time.monotonic(), progress.so_far
        try:
            while not (await asyncio.wait((task,), timeout=BEAT))[0]:
                if progress.has_ended():
                    continue
                if self._lane.must_leave(job.id):
                    raise _Aside
                so_far = progress.so_far
                told = None if so_far == stored else progress.facts
                if told is None and time.monotonic() - renewed < lease / 6:
                    now = await self._seen(job)
                else:
                    left = max(1.0, lease * 2 / 3 - (time.monotonic() - renewed))
                    try:
                        async with asyncio.timeout(left):
                            now = await self._runtime.db.write(
                                lambda conn, told=told: jobs.renew(conn, job, lease=lease, progress=told)  # type: ignore[misc]
                            )
                    except (ImageServiceError, TimeoutError):
                        if time.monotonic() - renewed > lease * 2 / 3:
                            raise _Lost from None
                        continue
                    renewed, stored = time.monotonic(), so_far
                if progress.has_ended():
                    continue
                if now is None or (now.holder, now.epoch) != (job.holder, job.epoch):
                    raise _Lost
                if now.cancelled:
                    raise Unwanted
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _seen(self, job: Job) -> Job | None:
        try:
            return await self._runtime.db.read(lambda conn: jobs.get(conn, job.id))
        except ImageServiceError:
            return job

    async def _failed(self, kind: Kind, job: Job, error: Exception) -> None:
        known = isinstance(error, ImageServiceError)
        reason = error.message if known else type(error).__name__  # type: ignore[attr-defined]
        say = log.warning if known else log.exception
        say("a job failed", job=job.id, kind=job.kind, image=job.image_id, attempt=job.attempts, reason=reason)
        passing = error.temporary or isinstance(error, SourceChanged) if isinstance(error, ImageServiceError) else True
        if not passing or job.attempts >= ATTEMPTS:
            await self._end(kind, job, reason)
            return
        pause = min(_LAST_RETRY, 3 * 2**job.attempts) * random.uniform(0.8, 1.2)  # noqa: S311
        await self._store(job, lambda conn: jobs.postpone(conn, job, seconds=pause, error=reason))

    async def _end(self, kind: Kind, job: Job, reason: str) -> None:
        """Whatever the reason says, the job ends."""
        try:
            await kind.fail(self._runtime, job, reason)
        except Exception as error:  # noqa: BLE001 - its lease runs out, and whoever takes it then ends it
            log.warning("a job could not be ended", job=job.id, reason=str(error))

    async def _store(self, job: Job, work: Callable[[Any], Awaitable[object]]) -> None:
        try:
            await self._runtime.db.write(work)
        except ImageServiceError as error:
            log.warning("the lease of a job runs out by itself", job=job.id, reason=error.message)

    async def _drain(self) -> None:
        working = list(self._working.values())
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


class _Lost(Exception):
    """The lease is not ours any more, or cannot be renewed."""


class _Aside(Exception):
    """Its place is needed by another."""
