"""The state of a service in numbers, for its operator: images, unfinished work, stores. Plain values, for JSON.

Looking reads whole tables and asks every store, so it is done beside requests and seldom: see `api.metrics`.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from xloud_image.db import jobs
from xloud_image.db import statistics as counts
from xloud_image.errors import ImageServiceError
from xloud_image.services.runtime import Runtime

PATIENCE = 5.0  # seconds that a store has to say that it works


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """`at`: seconds since 1970. `images`: [status, visibility, type, images, bytes]; `claims`: [kind, store, how many,
    age of the oldest]; `jobs`: [kind, state, how many, age of the oldest]; ages in seconds. `workers`: processes that
    do long work now. `stores`: [id, type, what is wrong or None, free bytes or None]. `failed`: why the database could
    not be asked; what it tells is empty then."""

    at: float
    images: list[Any]
    claims: list[Any]
    jobs: list[Any]
    workers: int
    stores: list[Any]
    failed: str | None = None


async def look(runtime: Runtime) -> Facts:
    """As it is now. Never raises for a part that is sick: that is what is asked."""
    health = await runtime.stores.health(PATIENCE)
    stores = []
    for name, found in health.items():
        sick = found if isinstance(found, str) else None
        free = None if isinstance(found, str) else found.free
        stores.append([name, runtime.stores[name].TYPE.name, sick, free])
    try:
        images = await runtime.db.read(counts.images)
        claims = await runtime.db.read(counts.claimed)
        work = await runtime.db.read(counts.working)
        workers = sum(one.alive for one in await runtime.db.read(jobs.list_workers))
    except ImageServiceError as error:
        return Facts(time.time(), [], [], [], 0, stores, error.message)
    return Facts(time.time(), list(images), list(claims), list(work), workers, stores)
