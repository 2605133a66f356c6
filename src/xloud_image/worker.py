"""A process that does long work: imports, copies. `serve` keeps one beside the API; `xloud-image worker` is one alone.
There may be any number, on any node: all take their work from the one database.

SIGTERM hands over what is under way: another process goes on with it at once. SIGUSR1 has it finish what is under
way, take nothing new, and end: so a service changes its configuration under long work. One whose loop stands still ends
itself, with the stack of what it stands in, and whoever started it starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from xloud_image.broker import Broker, Teller
from xloud_image.config.messaging import BUS, is_installed
from xloud_image.db.events import CHANGES, Outbox
from xloud_image.errors import ConfigError, ImageServiceError
from xloud_image.services import converting, importing, reaper
from xloud_image.services.jobs import Engine
from xloud_image.services.relay import FarBell, Relay, told
from xloud_image.services.runtime import Runtime

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded
    from xloud_image.config.settings import Settings

log = structlog.get_logger(__name__)

HAND_OVER: Final = 15.0  # seconds that this may take
NICE: Final = 5  # of the digests: a third of the processor when everything else on the node wants it
STILL: Final = 60.0  # seconds for which the event loop may stand still
KINDS: Final = {"import": importing.KIND}


class Bell:
    """Tells the processes of one service that there is something to do. A ring that is lost costs a second."""

    def __init__(self) -> None:
        self._work, self._events, self._far = _Line(), _Line(), _Line()

    def ring(self) -> None:
        """There is long work, for processes of this node and of others. Never waits."""
        self._work.ring()
        self._far.ring()

    def tell(self) -> None:
        """There are events to send. Never waits."""
        self._events.ring()

    def hear(self, engine: Engine) -> None:
        """Have long work rung in this loop. Of several processes one hears a ring."""
        self._work.hear(engine.ring)

    def relay(self, events: Callable[[], None], far: Callable[[], None]) -> None:
        """Have the rings for the one process that knows the message bus rung in this loop."""
        self._events.hear(events)
        self._far.hear(far)

    def leave(self) -> None:
        """Hear nothing more in this loop: others do."""
        for line in (self._work, self._events, self._far):
            line.leave()


class _Line:
    """Datagrams without a meaning, from any process to any one of those that hear."""

    def __init__(self) -> None:
        self._ear, self._hand = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.setblocking(False)
        self._hand.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # many rings wait already
            self._hand.send(b"1")

    def hear(self, told: Callable[[], None]) -> None:
        def heard() -> None:
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(1)
                told()

        asyncio.get_running_loop().add_reader(self._ear, heard)

    def leave(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ear)


def run(loaded: Loaded, bell: Bell | None = None, *, parent: int | None = None, relays: bool = True) -> int:
    """Work until SIGTERM, SIGINT, or, with `parent`, until that process is gone; the exit code. `relays`: this is the
    process of its service that knows the message bus."""
    signal.signal(signal.SIGINT, signal.SIG_IGN if parent else signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of whoever moved the log, which is noticed anyway
    early: list[int] = []  # what came before the event loop was there
    signal.signal(signal.SIGUSR1, lambda number, _frame: early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    async def work() -> None:
        try:
            await _work(loaded.settings, bell, parent, relays, early)
        finally:
            signal.set_wakeup_fd(-1)  # another signal may come while the loop is closed

    try:
        asyncio.run(work())
    except ConfigError as error:
        log.error("long work cannot be done", reason=error.message)
        return 3
    except ImageServiceError as error:
        log.error("long work cannot be done now", reason=error.message)
        return 1
    except Exception:
        log.exception("a process for long work failed")
        return 1
    return 0


async def _work(settings: Settings, bell: Bell | None, parent: int | None, relays: bool, early: list[int]) -> None:
    stop, finish = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    turns = loop.create_task(turning())
    loop.add_signal_handler(signal.SIGUSR1, finish.set)
    if early:
        finish.set()
    for number in (signal.SIGTERM, signal.SIGQUIT, *(() if parent else (signal.SIGINT,))):
        loop.add_signal_handler(number, stop.set)
    async with Runtime.open(settings, "policy", "db", "stores", niceness=NICE) as runtime:
        if "image_conversion" in settings.imports.image_import_plugins:
            await asyncio.to_thread(converting.prepare, runtime)
        engine = Engine(runtime, KINDS, places=settings.imports.jobs_at_once)
        if bell is not None:
            bell.hear(engine)
            runtime.ring, runtime.db.told = bell.ring, bell.tell
        relaying = _relay(runtime, bell, engine) if relays else []
        beside = [
            *relaying,
            asyncio.create_task(reaper.run(runtime)),
            asyncio.create_task(_watch(parent, stop)),
            asyncio.create_task(_give_way(finish, bell, relaying)),
        ]
        gc.collect()
        gc.freeze()
        log.info("ready for long work", pid=os.getpid())
        try:
            await engine.run(stop, finish)
        finally:
            for task in (*beside, turns):
                task.cancel()
            await asyncio.gather(*beside, turns, return_exceptions=True)


def _relay(runtime: Runtime, bell: Bell | None, engine: Engine) -> list[asyncio.Task[None]]:
    """What this process does with the message bus, as far as there is one."""
    settings = runtime.settings
    broker = Broker(settings.messaging)
    far = FarBell(broker)
    relays = [Relay(runtime, box, _teller(broker, settings, box)) for box in told(settings)]

    def rung() -> None:
        for each in relays:
            each.ring()

    if bell is not None:
        bell.relay(rung, far.ring)
    runtime.db.told = rung
    tasks = [asyncio.create_task(each.run(), name="send events") for each in relays]
    if settings.messaging.transport_url and is_installed():
        tasks.append(asyncio.create_task(far.run(engine.ring), name="ring between nodes"))
    return tasks


async def _give_way(finish: asyncio.Event, bell: Bell | None, relaying: list[asyncio.Task[None]]) -> None:
    """At `finish`: another process hears the rings and knows the message bus."""
    await finish.wait()
    if bell is not None:
        bell.leave()
    for task in relaying:
        task.cancel()


def _teller(broker: Broker, settings: Settings, box: Outbox) -> Teller:
    wanted, audit = settings.notifications, settings.audit
    publisher = wanted.default_publisher_id
    if box is CHANGES:
        return Teller(
            broker,
            "notification",
            drivers=wanted.drivers,
            topics=wanted.topics,
            transport_url=wanted.transport_url,
            publisher=publisher,
        )
    drivers = [name for name in audit.drivers if name in BUS]  # what goes to the log is there already
    url = audit.transport_url
    return Teller(broker, "audit", drivers=drivers, topics=audit.topics, transport_url=url, publisher=publisher)


async def _watch(parent: int | None, stop: asyncio.Event) -> None:
    """Stop when whoever started this process is gone."""
    while parent is None or os.getppid() == parent:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(1)
    stop.set()


async def turning(seconds: float = STILL) -> None:
    """Until cancelled: see that the event loop turns. A process whose loop stands still for so long ends with exit code
    1, and what it stands in was written to standard error: by a thread that does not need Python's lock."""
    try:
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True)
            await asyncio.sleep(seconds / 12)
    finally:
        faulthandler.cancel_dump_traceback_later()
