"""A lane for work beside requests: so many at once, few of one project, in threads that stand back behind those of
requests. What waits, and what the work is, is told by the modules that do it.

Nobody keeps the others waiting: the last place is for a project that has none, and whoever is at it for longer than his
share gives up his place when a project that has none waits. He begins anew after all others, with a longer share.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

NICE: Final = 10  # of the threads: a tenth of the processor when all others want it
SHARE: Final = 300.0  # seconds for which nobody takes a place; twice as long each time that it was lost
LONGEST: Final = 4 * 3600.0  # seconds that a share grows to, unless another is named
_REMEMBERED: Final = 1000  # works that lost their places


@dataclasses.dataclass(slots=True)
class Place:
    """A work that is being done: for whom, since when (monotonic), for how many seconds nobody else may want the place,
    and whether it has to be given up now."""

    owner: str | None
    since: float
    share: float
    aside: bool = False


class Lane:
    """The lane of one process. `places`: works at once; `each`: of them for one project; `threads`: of `pool`, in which
    they use the processor. `longest`: seconds that a share grows to."""

    def __init__(self, name: str, *, places: int, each: int, threads: int = 1, longest: float = LONGEST) -> None:
        self.places, self.each, self.longest = places, each, longest
        self.taken: dict[str, Place] = {}  # by the id of the work
        self.pool = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=functools.partial(stand_back, NICE)
        )
        self.turn = asyncio.Lock()  # held by whoever looks for the next works
        self.due = False  # such a look waits for its turn
        self._shares: dict[str, float] = {}  # of works that lost their places

    @property
    def full(self) -> bool:
        return len(self.taken) >= self.places

    def admits(self, owner: str | None) -> bool:
        """Whether a work of this project may begin now."""
        last = len(self.taken) == self.places - 1
        has = sum(place.owner == owner for place in self.taken.values())
        return not self.full and has < (1 if last else self.each)

    def begin(self, work: str, owner: str | None) -> None:
        """The work takes a place."""
        self.taken[work] = Place(owner, time.monotonic(), self._shares.get(work, SHARE))

    def leave(self, work: str, *, aside: bool = False) -> None:
        """Its place is free; `aside`: it comes again, with twice the share."""
        self.taken.pop(work, None)
        if aside:
            if len(self._shares) > _REMEMBERED:  # what another process ended meanwhile was not forgotten here
                self._shares.clear()
            self._shares[work] = min(2 * self._shares.get(work, SHARE), self.longest)

    def forget(self, work: str) -> None:
        """It is done for good."""
        self._shares.pop(work, None)

    def must_leave(self, work: str) -> bool:
        """Whether its place is needed by another."""
        return work in self.taken and self.taken[work].aside

    @property
    def over(self) -> list[Place]:
        """Places that are held beyond their shares; none while somebody is about to leave his."""
        now = time.monotonic()
        found = [place for place in self.taken.values() if now - place.since > place.share]
        return [] if any(place.aside for place in found) else found

    def make_room(self, waiting: Iterable[str | None]) -> None:
        """Whoever is over his share by most has to go when one of these projects has no place."""
        owners = {place.owner for place in self.taken.values()}
        if (over := self.over) and any(owner not in owners for owner in waiting):
            max(over, key=lambda place: time.monotonic() - place.since - place.share).aside = True

    def close(self) -> None:
        """Nothing more is begun in its threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def stand_back(niceness: int) -> None:
    """The calling thread gives way to others, unless 0; on Linux a thread has a niceness of its own."""
    with suppress(OSError):
        if niceness:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
