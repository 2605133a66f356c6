"""Sends what was emitted (db.events), in order, each event once as far as a message bus allows: it is sent, the bus has
confirmed it, its row goes. Whoever dies in between has sent it, and another sends it again with the same id.

Of all processes one at a time sends: whose turn it is says a lease in the database. It renews that once a third of it
has passed, and sends no more after two. Nobody waits for this but the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from xloud_image.config.messaging import BUS
from xloud_image.config.settings import Settings
from xloud_image.db.events import AUDIT, CHANGES, Outbox, Unsent
from xloud_image.errors import BrokerUnavailable, ImageServiceError
from xloud_image.failpoints import reach
from xloud_image.services.holder import is_dead
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK: Final = 1.0  # seconds between two looks without a ring, and up to twice that
_MOMENT: Final = 0.5  # seconds: what is rung for in them is read, sent and removed together
BATCH: Final = 100  # events that are read at once, and may come twice when this process is killed
_LATE: Final = 300.0  # seconds: one that waits for longer is told of in the log
_LAST_SEND: Final = 3.0  # seconds that the event under way gets at the end
_LAST_RETRY: Final = 30.0  # seconds; the first attempt comes after one, each later one after twice the time


class Sender(Protocol):
    """What takes events to whoever wants to hear of them (`broker.Teller`)."""

    def send(self, event: Unsent) -> None:
        """Returns when it is safe there. Waits in its thread. `BrokerUnavailable`."""


class Relay:
    """The sending of one outbox by one process, until cancelled."""

    def __init__(self, runtime: Runtime, box: Outbox, sender: Sender) -> None:
        self._runtime, self._box, self._sender = runtime, box, sender
        self._rung = asyncio.Event()
        self._sent: list[int] = []  # whose rows are still there
        self._failures = 0
        self._taken_at: float | None = None  # when the turn that is ours was last taken or renewed
        self._sending: asyncio.Future[BrokerUnavailable | None] | None = None
        self._stopping = False  # read by the thread that sends

    def ring(self) -> None:
        """There may be something to send."""
        self._rung.set()

    async def run(self) -> None:
        """Until cancelled. Survives a lost database, and a lost bus."""
        try:
            while True:
                self._rung.clear()
                try:
                    while await self._send_some():
                        pass
                except ImageServiceError as error:
                    log.warning(f"{self._box.what} could not be looked for", reason=error.message)
                pause = LOOK * random.uniform(1, 2)  # noqa: S311 - no secret, it spreads the looks
                if self._failures:
                    await asyncio.sleep(min(_LAST_RETRY, 2.0 ** (self._failures - 1)))
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._rung.wait()
                    await asyncio.sleep(_MOMENT)
        finally:
            self._stopping = True
            if self._sending is not None:  # what it has sent is not sent again by the next one
                await asyncio.wait((self._sending,), timeout=_LAST_SEND)
            with contextlib.suppress(ImageServiceError):  # else it runs out
                await self._remove()
                await self._runtime.db.write(lambda tx: self._box.give_turn(tx, self._runtime.holder))

    async def _send_some(self) -> bool:
        """Send the next ones; whether there may be more."""
        db, lease = self._runtime.db, self._runtime.settings.lease_time
        await self._remove()
        found = await db.read(lambda conn: self._box.first(conn, BATCH))
        if not found:
            return False
        if self._taken_at is None or time.monotonic() > self._taken_at + lease / 3:
            taken_at = time.monotonic()
            if not await self._take_turn():
                self._taken_at = None
                return False
            self._taken_at = taken_at
            # what another has sent since it was read
            found = await db.read(lambda conn: self._box.first(conn, BATCH))
        end = self._taken_at + lease * 2 / 3
        self._sending = asyncio.ensure_future(_in_thread(lambda: self._send(found, end)))
        failure = await asyncio.shield(self._sending)
        await reach("relay.sent")
        await self._remove()
        if failure is None:
            self._recovered()
            return len(found) == BATCH
        self._failures += 1
        log.error(f"{self._box.what} wait: they cannot be sent now", reason=failure.message, attempt=self._failures)
        self._taken_at = None
        await db.write(lambda tx: self._box.give_turn(tx, self._runtime.holder))  # the bus may take them from another
        return False

    async def _take_turn(self) -> bool:
        holder, lease = self._runtime.holder, self._runtime.settings.lease_time
        turn = await self._runtime.db.read(self._box.whose_turn)
        if turn.holder not in (None, holder) and not turn.free and not is_dead(turn.holder or ""):
            return False
        was = turn.holder if turn.holder is not None and is_dead(turn.holder) else None
        return await self._runtime.db.write(lambda tx: self._box.take_turn(tx, holder, lease=lease, was=was))

    def _send(self, found: Sequence[Unsent], end: float) -> BrokerUnavailable | None:
        for event in found:
            if self._stopping or time.monotonic() > end:
                return None
            try:
                self._sender.send(event)
            except BrokerUnavailable as error:
                return error
            self._sent.append(event.number)
        return None

    async def _remove(self) -> None:
        if sent := list(self._sent):
            await self._runtime.db.write(lambda tx: self._box.remove(tx, sent))
            self._sent = self._sent[len(sent) :]

    def _recovered(self) -> None:
        if self._failures:
            log.info(f"{self._box.what} are sent again")
        self._failures = 0


async def bound(runtime: Runtime) -> None:
    """Drop what has waited for too long, or is too much, also of what is not sent any more, and say loudly that
    something waits. Any process does it: it may be that none sends."""
    kept, hours = runtime.settings.notifications.events_kept, runtime.settings.notifications.events_kept_hours
    wanted = told(runtime.settings)
    for box in (CHANGES, AUDIT):
        dropped = await box.drop(runtime.db, most=kept, hours=hours)
        if dropped:
            log.error(f"{box.what} were dropped: they waited for too long, or were too many", count=dropped)
        if box not in wanted:
            continue
        count, seconds = await runtime.db.read(box.waiting)
        if seconds > _LATE:
            log.error(f"{box.what} wait", count=count, for_seconds=int(seconds), kept=kept)


def told(settings: Settings) -> list[Outbox]:
    """What somebody wants to have sent."""
    audited = any(name in BUS for name in settings.audit.drivers)
    return [*([CHANGES] if settings.notifications.drivers else []), *([AUDIT] if audited else [])]


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """What `work` returns, from a thread that keeps no process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as caught:  # noqa: BLE001 - it is raised where the result is waited for
            result, error = None, caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="relay", daemon=True).start()
    return done


class Bell(Protocol):
    """What rings other nodes (`broker.Broker`)."""

    def ring(self) -> None:
        """Waits in its thread. `BrokerUnavailable`."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Have `heard` called in some thread when a node rings; returns once that is so."""


class FarBell:
    """The bell between nodes: a ring that is lost costs a second or two, one that is doubled nothing."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._wanted = asyncio.Event()

    def ring(self) -> None:
        """Ring the other nodes; never waits. What is rung meanwhile is one ring."""
        self._wanted.set()

    async def run(self, heard: Callable[[], None]) -> None:
        """Until cancelled; `heard` is called in this loop."""
        loop = asyncio.get_running_loop()

        def told() -> None:
            log.debug("another node rings")
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(heard)

        await asyncio.gather(self._listen(told), self._ring())

    async def _listen(self, told: Callable[[], None]) -> None:
        while True:
            try:
                await _in_thread(lambda: self._bell.listen(told))
            except BrokerUnavailable as error:
                log.warning("rings of other nodes cannot be heard now", reason=error.message)
                await asyncio.sleep(_LAST_RETRY)
            else:
                log.info("rings of other nodes are heard")
                return

    async def _ring(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await _in_thread(self._bell.ring)
            except BrokerUnavailable as error:
                log.info("other nodes could not be rung: they look by themselves", reason=error.message)
