"""What one process holds to serve requests: settings, database, stores, rights, threads. Opened after the fork.

State and where it lives: claims, images and rights of members are shared (the database); the operator's rules, the
token cache, health of stores, thread pools and limits are per process, because each process must be able to answer
alone; nothing is per node but the files of a file store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import structlog

from xloud_image.config.settings import Settings
from xloud_image.db.engine import Database
from xloud_image.model import Claim
from xloud_image.policy import Policy
from xloud_image.schemas import ImageSchema
from xloud_image.services.holder import new_holder
from xloud_image.stores.layers import LayerSettings
from xloud_image.stores.registry import Stores

log = structlog.get_logger(__name__)

_LOOK: Final = 30.0  # seconds that each store has for the look at the start


def _step_back() -> None:
    """The calling thread gives way to others; on Linux a thread has a niceness of its own."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@dataclasses.dataclass(slots=True)
class Reading:
    """A "hash" claim that is being worked on: whose image it is, since when (monotonic), for how many seconds nobody
    else may want its place, and whether it has to give it up now."""

    owner: str | None
    since: float
    share: float
    aside: bool = False


class Runtime:
    """The open parts, and the tasks that run beside requests."""

    def __init__(self, settings: Settings, policy: Policy | None = None) -> None:
        self.settings = settings
        self.policy = policy or Policy(settings.policy)
        self.schema = ImageSchema.load(settings.formats, settings.schema_image_file)
        self.db = Database(settings.database)
        self.stores = Stores(
            settings.stores, settings.default_store, layers=LayerSettings(answer_time=settings.store_timeout)
        )
        self.holder = new_holder()
        # Two digests for each of a few uploads at once: more threads than cores only switch.
        self.digest_pool = ThreadPoolExecutor(max(4, (os.cpu_count() or 2) + 2), thread_name_prefix="digest")
        # For data that were registered: one thread, behind all others when the processors are busy.
        self.background_pool = ThreadPoolExecutor(1, thread_name_prefix="background", initializer=_step_back)
        self.hashing: dict[str, Reading] = {}  # "hash" claims that are being worked on
        self.hashing_shares: dict[str, float] = {}  # those that gave up their place: seconds that they get next
        self.hashing_turn = asyncio.Lock()
        self.hashing_soon = False  # a look for the next ones waits for its turn
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held: Counter[str] = Counter()

    async def start(self) -> None:
        """Open database and stores. A sick store does not stop the service; the log says what is wrong with it."""
        await self.db.start()
        await self.stores.start()
        self.spawn(self._look_at_stores(), "look at the stores")

    async def _look_at_stores(self) -> None:
        """So that a wrong password, a missing pool or a directory of another user is told before the first upload."""
        for report in (await self.stores.health(_LOOK)).values():
            if not report.ok:
                log.warning("a store cannot be used now", store=report.id, type=report.type, reason=report.detail)

    @contextmanager
    def holding(self, *claims: Claim) -> Iterator[None]:
        """Somebody in this process works on these claims until the block is left: their leases are renewed.

        A claim of ours that nobody works on (an error on the way to giving it back) runs out like any other.
        """
        ids = [claim.id for claim in claims]
        self._held.update(ids)
        try:
            yield
        finally:
            self._held.subtract(ids)
            for each in ids:
                if self._held[each] <= 0:
                    del self._held[each]

    @property
    def held(self) -> list[str]:
        """The ids of the claims that this process works on."""
        return list(self._held)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run beside requests until done or the service closes; its failure is logged."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task beside requests failed", task=task.get_name(), error=str(task.exception()))

    async def aclose(self) -> None:
        """Stop the tasks and close everything; claims that are still open are left to the reaper."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.stores.aclose()
        await self.db.aclose()
        self.digest_pool.shutdown(wait=False, cancel_futures=True)
        self.background_pool.shutdown(wait=False, cancel_futures=True)
