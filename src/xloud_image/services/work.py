"""The long work of a service as its operator sees it. Nothing is changed here."""

from __future__ import annotations

import dataclasses
from typing import Any

from xloud_image.db import jobs
from xloud_image.model import Job, utcnow
from xloud_image.services.runtime import Runtime
from xloud_image.services.tasks import words

_MOST = 10_000  # jobs that are looked at


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """`jobs`: the unfinished ones, the oldest first; `kinds`: how many of each kind in which state, and the age of the
    oldest; `workers`: the processes that do them, or did within the last hour. Plain values, for JSON."""

    jobs: list[dict[str, Any]]
    kinds: list[dict[str, Any]]
    workers: list[dict[str, Any]]


async def look(runtime: Runtime) -> Work:
    """As it is now."""
    found = await runtime.db.read(lambda conn: jobs.list_all(conn, limit=_MOST))
    workers = await runtime.db.read(jobs.list_workers)
    shown = [_shown(job) for job in found]
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for one in shown:  # the oldest first
        new = {"kind": one["kind"], "state": one["state"], "count": 0, "oldest_seconds": one["seconds"]}
        kinds.setdefault((one["kind"], one["state"]), new)["count"] += 1
    return Work(shown, list(kinds.values()), [{"id": one.id, "alive": one.alive} for one in workers])


def _shown(job: Job) -> dict[str, Any]:
    state = "cancelled" if job.cancelled else "under way" if job.holder else "waiting"
    return {
        "id": job.id,
        "kind": job.kind,
        "image_id": job.image_id,
        "owner": job.owner,
        "state": state,
        "holder": job.holder,
        "attempts": job.attempts + job.deaths,
        "seconds": max(0, int((utcnow() - job.begun_at).total_seconds())),
        "progress": words(job),
        "error": job.error,
    }
