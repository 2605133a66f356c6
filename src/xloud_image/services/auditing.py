"""The journal of calls (`audit`): each is stored, and sent from there as everything that is told (`services.relay`).

A call that changes something goes on only when it stands in the journal: killed at any moment, nothing was changed
that is not there. How a call ended, and that somebody reads, is stored within a moment: what comes in it is one
transaction, and who dies in it has lost that much. Drivers that are no message bus are written to at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from xloud_image import audit
from xloud_image.audit import Call, Caller, Service
from xloud_image.config.messaging import BUS
from xloud_image.config.settings import AuditSettings
from xloud_image.db import events
from xloud_image.db.engine import Database
from xloud_image.errors import DatabaseUnavailable, ImageServiceError
from xloud_image.events import Event

log = structlog.get_logger(__name__)

MOST: Final = 10_000  # events that wait for the database in one process, of some KiB each
_MOMENT: Final = 0.2  # seconds
_SOME: Final = 100  # events of one statement, 30 KB each at most: a MySQL server may take 4 MiB
_AGAIN: Final = 1.0  # seconds after the database could not
_LOOK: Final = 3600.0  # seconds between two looks at the catalogue
_LOOK_AGAIN: Final = 30.0  # after one that failed
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Catalogue = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


class Journal:
    """That of one process. State: what is not stored yet."""

    def __init__(self, db: Database, settings: AuditSettings, catalogue: Catalogue) -> None:
        self._db, self._settings, self._catalogue = db, settings, catalogue
        self._stores = any(name in BUS for name in settings.drivers)
        self._logs = "log" in settings.drivers
        self._service = Service(settings.service_type)
        self._waiting: list[tuple[Event, asyncio.Future[None] | None]] = []
        self._some, self._now = asyncio.Event(), asyncio.Event()
        self._lost = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to store, and to ask for the catalogue."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name="audit"), loop.create_task(self._look(), name="catalogue")]

    async def aclose(self) -> None:
        """Store what waits, if the database can."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(ImageServiceError):
            while self._waiting:
                await self._store()

    async def begin(self, method: str, path: str, query: str, caller: Caller) -> Call | None:
        """A call begins; None when nothing is told of it. Raises as `Database.write` when the call would change
        something and cannot be recorded."""
        if method in self._settings.ignored_methods or path in self._settings.ignored_paths:
            return None
        call = audit.call(method, path, query, caller, self._service, self._settings.map)
        event = call.pending
        self._log(event)
        if not self._stores:
            return call
        if method in _READS:
            self._put(event)
            return call
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(event, done)
        await done
        return call

    def end(self, call: Call, status: int | None) -> None:
        """It has ended with this status, None: without an answer. Never waits."""
        event = call.ended(status)
        self._log(event)
        if self._stores:
            self._put(event)

    def _log(self, event: Event) -> None:
        if self._logs:
            log.info("audit", type=event.type, payload=event.payload)

    def _put(self, event: Event, done: asyncio.Future[None] | None = None) -> None:
        if len(self._waiting) >= MOST:
            self._lost += 1
            if done is not None:
                done.set_exception(
                    DatabaseUnavailable("The database does not take what is recorded of calls; try again.")
                )
            return
        self._waiting.append((event, done))
        self._some.set()
        if done is not None:
            self._now.set()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MOMENT):
                    await self._now.wait()
            self._some.clear()
            self._now.clear()
            while self._waiting:
                try:
                    await self._store()
                except Exception as error:  # noqa: BLE001 - a task that ended would keep all that change something
                    reason = error.message if isinstance(error, ImageServiceError) else repr(error)
                    log.error("calls could not be recorded", count=len(self._waiting), reason=reason)
                    await asyncio.sleep(_AGAIN)

    async def _store(self) -> None:
        some = self._waiting[:_SOME]
        try:
            await self._db.write(lambda tx: events.AUDIT.store(tx, [event for event, _ in some]))
        except Exception as error:
            # those behind them as well: nobody waits for longer than the database takes to fail
            for _, done in self._waiting:
                if done is not None and not done.done():
                    done.set_exception(error)
            self._waiting = [(event, None) for event, _ in self._waiting]
            raise
        del self._waiting[: len(some)]
        for _, done in some:
            if done is not None and not done.done():
                done.set_result(None)
        if self._lost:
            log.error("calls were not recorded: too many waited for the database", count=self._lost)
            self._lost = 0
        self._db.told()

    async def _look(self) -> None:
        """What the catalogue says of this service."""
        while True:
            pause = _LOOK
            try:
                self._service = audit.service_of(await self._catalogue(), self._settings.service_type)
            except Exception as error:  # noqa: BLE001 - whatever a catalogue may be
                reason = error.message if isinstance(error, ImageServiceError) else repr(error)
                log.info("the catalogue could not be read for the audit", reason=reason)
                pause = _LOOK_AGAIN
            await asyncio.sleep(pause)
