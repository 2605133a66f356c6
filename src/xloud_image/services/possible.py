"""Which ways of import can work now: a method is listed only then, so that nobody's image waits for nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from xloud_image.db import jobs
from xloud_image.errors import ImageServiceError
from xloud_image.services.parts import waiting_place
from xloud_image.services.runtime import Runtime

_SEEN: Final = 3.0  # seconds for which what was seen of staging and workers counts


class Possible:
    """Which of the operator's methods can work now: somebody does jobs, and the place for staging takes data."""

    def __init__(self) -> None:
        self._methods: tuple[str, ...] | None = None
        self._until = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def methods(self, runtime: Runtime, *, lately: bool = False) -> tuple[str, ...]:
        """In the order of the configuration, as they were some seconds ago at most. `lately`: as they were at the last
        look, which is made again beside: a place for staged data that hangs holds up nobody."""
        if self._methods is None or (not lately and time.monotonic() >= self._until):
            await self._again(runtime)
        elif time.monotonic() >= self._until and (self._looking is None or self._looking.done()):
            self._looking = runtime.spawn(self._again(runtime), "look at the ways of import")
        assert self._methods is not None
        return self._methods

    async def _again(self, runtime: Runtime) -> None:
        self._methods = await self._look(runtime)
        self._until = time.monotonic() + _SEEN

    @staticmethod
    async def _look(runtime: Runtime) -> tuple[str, ...]:
        enabled = runtime.settings.imports.enabled_import_methods
        if runtime.settings.auth.method != "keystone":  # nobody has a token that another region would take
            enabled = tuple(name for name in enabled if name != "glance-download")
        if not enabled:
            return ()
        try:
            workers = await runtime.db.read(jobs.list_workers)
        except ImageServiceError:  # nobody knows now
            return enabled
        if not any(worker.alive for worker in workers):
            return ()
        if "glance-direct" in enabled and not await _can_stage(runtime):
            return tuple(name for name in enabled if name != "glance-direct")
        return enabled


async def _can_stage(runtime: Runtime) -> bool:
    store = waiting_place(runtime)
    if store is None:
        return False
    try:
        async with asyncio.timeout(_SEEN):
            await store.check()
    except (ImageServiceError, TimeoutError):
        return False
    return True
