"""The engine of long work: takes jobs (db.jobs), runs them beside each other, and sees that each comes to an end,
whatever dies. What a kind of job does is told by the services that are handed in.

Rows are the truth and leases decide; a ring of the bell only says «look». Who works on a job renews its lease; who
cannot for two thirds of it stops before it ends. A job is cancelled by a flag in its row, which the renewing sees. An
attempt that fails in a way that may pass is tried again later; the fifth is the last, and one that was killed counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from xloud_image.db import jobs, tasks
from xloud_image.errors import ImageServiceError, SourceChanged
from xloud_image.failpoints import reach
from xloud_image.model import Job
from xloud_image.services.holder import is_dead
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 5
BEAT: Final = 2.0  # seconds between two renewals: cancelling acts within it, and progress is stored
LOOK: Final = 1.0  # seconds between two looks without a ring, and up to twice that
_TIDY: Final = 600.0  # seconds between two looks at tasks that have expired
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
    """The jobs of one process. `places`: at once; of one project three quarters of them."""

    def __init__(self, runtime: Runtime, kinds: Mapping[str, Kind], *, places: int) -> None:
        self._runtime, self._kinds, self._places = runtime, kinds, places
        self._working: dict[str, asyncio.Task[None]] = {}
        self._rung = asyncio.Event()
        self._found: list[str] = []  # jobs that waited a moment ago, the next first
        self._found_at = 0.0
        self._workers = 1  # processes that do such work

    def ring(self) -> None:
        """There may be something to do."""
        self._rung.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then hand over what is under way, so that another process goes on at once."""
        runtime, lease = self._runtime, self._runtime.settings.lease_time
        announcing = asyncio.create_task(self._announce(lease))
        stopping = asyncio.create_task(stop.wait())
        try:
            left = tidied = 0.0
            while not stop.is_set():
                self._rung.clear()
                try:
                    if time.monotonic() >= left:
                        left = time.monotonic() + lease / 4
                        await self._free_from_dead()
                    if time.monotonic() >= tidied:
                        tidied = time.monotonic() + _TIDY
                        await tasks.remove_expired(runtime.db)
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

    async def _announce(self, lease: float) -> None:
        holder = self._runtime.holder
        while True:
            try:
                await self._runtime.db.write(lambda conn: jobs.announce(conn, holder, lease=lease))
                workers = await self._runtime.db.read(jobs.list_workers)
                self._workers = max(1, sum(worker.alive for worker in workers))
            except ImageServiceError as error:
                log.warning("this worker could not be announced", reason=error.message)
            await asyncio.sleep(lease / 3)

    async def _look(self) -> None:
        """Begin with what waits, as far as there is room. What is found serves for a while: where thousands wait, a
        look costs more than taking a job."""
        while len(self._working) < self._places:
            if not self._found or time.monotonic() - self._found_at > LOOK:
                self._found = await self._waiting()
                self._found_at = time.monotonic()
                if not self._found:
                    return
            job_id = self._found.pop(0)
            if job_id not in self._working:
                await self._take(job_id)

    async def _waiting(self) -> list[str]:
        each = max(1, self._places * 3 // 4) * self._workers
        found = await self._runtime.db.read(lambda conn: jobs.waiting(conn, self._kinds, each=each))
        found = [job_id for job_id in found if job_id not in self._working]
        first = found[: self._places]
        random.shuffle(first)  # several workers look at the same rows: they shall not fight for the first
        return [*first, *found[self._places :]]

    async def _free_from_dead(self) -> None:
        """What a process of this very node held that runs no more need not wait for its lease."""
        for job in await self._runtime.db.read(jobs.held):
            if job.holder is not None and job.id not in self._working and is_dead(job.holder):
                await self._runtime.db.write(lambda conn, job=job: jobs.free_of(conn, job))  # type: ignore[misc]

    async def _take(self, job_id: str) -> bool:
        runtime, lease = self._runtime, self._runtime.settings.lease_time
        job = await runtime.db.write(lambda conn: jobs.take(conn, job_id, runtime.holder, lease=lease))
        if job is None:
            return False
        await reach("job.taken")
        self._working[job.id] = asyncio.create_task(self._work(job), name=f"job {job.kind} {job.id}")
        return True

    async def _work(self, job: Job) -> None:
        bound = log.bind(job=job.id, kind=job.kind, image=job.image_id, attempt=job.attempts)
        kind = self._kinds[job.kind]
        try:
            if job.cancelled:
                await kind.fail(self._runtime, job, "It was cancelled.")
            elif job.attempts > ATTEMPTS:
                reason = job.error or "each time the process that worked on it died"
                await kind.fail(self._runtime, job, f"It was tried {ATTEMPTS} times: {reason}")
            else:
                bound.info("a job begins")
                progress = Progress()
                await self._while_ours(job, progress, kind.run(self._runtime, job, progress))
                bound.info("a job is done")
        except asyncio.CancelledError:
            await self._give_back(job)
            raise
        except Unwanted:
            bound.info("a job is not wanted any more")
            await self._end(kind, job, "It was cancelled.")
        except _Lost:
            bound.warning("a job went to another process: this one could not renew its lease")
        except Exception as error:  # noqa: BLE001 - whatever it was, the job has to come to an end
            await self._failed(kind, job, error)
        finally:
            self._working.pop(job.id, None)
            self._rung.set()

    async def _while_ours(self, job: Job, progress: Progress, work: Awaitable[None]) -> None:
        """Run `work` as long as the lease is ours, which is renewed beside it. `_Lost`, `Unwanted`; then it has been
        stopped, and has tidied up."""
        lease = self._runtime.settings.lease_time
        task = asyncio.ensure_future(work)
        renewed, stored = time.monotonic(), progress.so_far
        try:
            while not (await asyncio.wait((task,), timeout=BEAT))[0]:
                if progress.has_ended():
                    continue
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

    async def _give_back(self, job: Job) -> None:
        await self._store(job, lambda conn: jobs.give_back(conn, job))

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
