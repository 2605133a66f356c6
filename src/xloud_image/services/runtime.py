"""What one process holds: settings, database, stores, rights, threads, opened by parts. Opened after the fork.

State and where it lives: claims, images and rights of members are shared (the database); the operator's rules, the
token cache, health of stores, thread pools and limits are per process, because each process must be able to answer
alone; nothing is per node but the files of a file store.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from xloud_image.services.holder import new_holder
from xloud_image.services.lanes import Lane, stand_back

if TYPE_CHECKING:  # a part's libraries are imported with it
    from xloud_image.cache.node import Cache
    from xloud_image.config.settings import Settings
    from xloud_image.db.engine import Database
    from xloud_image.events import Event
    from xloud_image.identity import Identity
    from xloud_image.identity.barbican import Barbican
    from xloud_image.identity.limits import KeystoneLimits
    from xloud_image.model import Claim
    from xloud_image.policy import Policy
    from xloud_image.schemas import ImageSchema
    from xloud_image.services.auditing import Journal
    from xloud_image.stores.registry import Stores

log = structlog.get_logger(__name__)

Part = Literal["policy", "schema", "db", "stores", "identity"]

ALL: Final[tuple[Part, ...]] = ("policy", "schema", "db", "stores", "identity")
_STARTED: Final[tuple[Part, ...]] = ("db", "stores", "identity")
_LOOK: Final = 30.0  # seconds that each store has for the look at the start


class Runtime:
    """The parts, and the tasks that run beside requests. A part is made when it is first asked for: what is wrong with
    the configuration of another does not matter then. `open` starts the parts that are named."""

    def __init__(self, settings: Settings, niceness: int = 0) -> None:
        self.settings = settings
        self.holder = new_holder()
        # Two digests for each of a few uploads at once: more threads than cores only switch.
        self.digest_pool = ThreadPoolExecutor(
            max(4, (os.cpu_count() or 2) + 2),
            thread_name_prefix="digest",
            initializer=functools.partial(stand_back, niceness),
        )
        # Reading data that were registered.
        self.hashing = Lane("hashing", places=4, each=2)
        # Tells who works on jobs that there is one; set by the process that knows how.
        self.ring: Callable[[], None] = lambda: None
        # Events of no change, for a moment (services.notices).
        self.notices: list[Event] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held: Counter[str] = Counter()

    @cached_property
    def policy(self) -> Policy:
        from xloud_image.policy import Policy

        return Policy(self.settings.policy)

    @cached_property
    def schema(self) -> ImageSchema:
        from xloud_image.schemas import ImageSchema

        return ImageSchema.load(self.settings.formats, self.settings.schema_image_file)

    @cached_property
    def db(self) -> Database:
        from xloud_image.db.engine import Database
        from xloud_image.events import is_wanted

        return Database(self.settings.database, functools.partial(is_wanted, self.settings.notifications))

    @cached_property
    def stores(self) -> Stores:
        from xloud_image.stores.layers import LayerSettings
        from xloud_image.stores.registry import Stores

        layers = LayerSettings(store_timeout=self.settings.store_timeout)
        return Stores(self.settings.stores, self.settings.default_store, layers=layers)

    @cached_property
    def cache(self) -> Cache | None:
        """The image cache of this node; made when first asked for, and no part that is started."""
        settings = self.settings.cache
        if settings.image_cache_dir is None:
            return None
        from xloud_image.cache.directory import Directory
        from xloud_image.cache.node import Cache

        directory = Directory(settings.image_cache_dir, settings.image_cache_max_size, settings.image_cache_stall_time)
        return Cache(directory, patience=float(self.settings.store_timeout))

    @cached_property
    def identity(self) -> Identity:
        from xloud_image.identity import build

        return build(self.settings.auth, self.policy)

    @cached_property
    def limits(self) -> KeystoneLimits:
        """Only with `use_keystone_limits`."""
        from xloud_image.identity.limits import KeystoneLimits

        settings = self.settings.quotas
        assert settings.keystone is not None
        return KeystoneLimits(settings.keystone, lasts=settings.limits_cache_time)

    @cached_property
    def journal(self) -> Journal | None:
        """What is told of calls, where somebody wants it. Begun by the one who serves."""
        if not self.settings.audit.drivers:
            return None
        from xloud_image.services.auditing import Journal

        return Journal(self.db, self.settings.audit, self.identity.catalogue)

    @cached_property
    def barbican(self) -> Barbican:
        """Only with Keystone."""
        from xloud_image.identity.barbican import Barbican

        keystone = self.settings.auth.keystone
        assert keystone is not None
        return Barbican(self.settings.signing.barbican, keystone)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, *parts: Part, niceness: int = 0) -> AsyncIterator[Runtime]:
        """With these parts started; closed when the block is left. A sick store stops nothing: the log says what is
        wrong with it. `niceness`: of the threads for digests. `ConfigError`; `DatabaseUnavailable`."""
        runtime = cls(settings, niceness)
        try:
            made = {part: getattr(runtime, part) for part in parts}
            for part in _STARTED:
                if part in made:
                    await made[part].start()
            if "stores" in parts:
                runtime.spawn(runtime._look_at_stores(), "look at the stores")
            yield runtime
        finally:
            await runtime._aclose()

    async def _look_at_stores(self) -> None:
        """So that a wrong password, a missing pool or a directory of another user is told before the first upload."""
        for store, reason in (await self.stores.sick(_LOOK)).items():
            log.warning("a store cannot be used now", store=store, type=self.stores[store].TYPE.name, reason=reason)

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

    async def _aclose(self) -> None:
        """Stop the tasks and close what was made; claims that are still open are left to the reaper."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in ("cache", "journal"):
            if (made := self.__dict__.get(each)) is not None:
                await made.aclose()
        for part in (*reversed(_STARTED), "limits", "barbican"):
            if part in self.__dict__:
                await getattr(self, part).aclose()
        self.digest_pool.shutdown(wait=False, cancel_futures=True)
        self.hashing.close()
