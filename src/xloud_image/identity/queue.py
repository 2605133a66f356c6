"""Whose password is checked next. Nothing is hashed here, and no header is read.

Hashing is dear and its threads are few, so who sends wrong passwords in great numbers makes others wait. They wait in
lanes, one for each name, within it one for each address, and the lanes take turns: an attack on one name, or from one
address, has one turn as everybody else; addresses that sent wrong passwords come after those that did not. A password
that was right before goes first. When all places are taken, the
longest lane gives up its latest; so a name or an address that nobody attacks always finds a place.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import ipaddress
from typing import Final

from xloud_image.identity.cache import Recent

PLACES: Final = 64  # passwords that wait for a thread
OTHERS: Final = ""  # the one lane of all names that are in no file: there is no end of them


@dataclasses.dataclass(eq=False, slots=True)
class Ticket:
    """One that waits. `turn`: True when it is its turn, False when its place was given to another."""

    name: str
    network: str
    trusted: bool
    turn: asyncio.Future[bool]


class Queue:
    """Lets `threads` be checked at once, and PLACES wait."""

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._waiting = 0
        self._trusted: collections.deque[Ticket] = collections.deque()
        self._lanes: dict[str, dict[str, collections.deque[Ticket]]] = {}
        self._wrong: Recent[int] = Recent(4096)

    async def enter(self, name: str, address: str | None, *, trusted: bool) -> bool:
        """Wait for a thread: True when there is one, which `leave` must give back; False when too many wait.

        name: OTHERS for one that is in no file. trusted: the very password was right before.
        """
        if self._free > 0:
            self._free -= 1
            return True
        if self._waiting >= PLACES and not self._make_room(name, network(address), trusted=trusted):
            return False
        ticket = Ticket(name, network(address), trusted, asyncio.get_running_loop().create_future())
        if trusted:
            self._trusted.append(ticket)
        else:
            self._lanes.setdefault(name, {}).setdefault(ticket.network, collections.deque()).append(ticket)
        self._waiting += 1
        return await ticket.turn

    def judge(self, address: str | None, *, right: bool) -> None:
        """What came out for a password from there."""
        where = network(address)
        self._wrong.put(where.encode(), 0 if right else (self._wrong.get(where.encode()) or 0) + 1)

    def leave(self) -> None:
        """One thread is free: the next one has it."""
        ticket = self._next()
        if ticket is None:
            self._free += 1
        else:
            ticket.turn.set_result(True)

    def _next(self) -> Ticket | None:
        while self._waiting:
            ticket = self._trusted.popleft() if self._trusted else self._of_the_next_lane()
            self._waiting -= 1
            if not ticket.turn.done():
                return ticket
        return None

    def _of_the_next_lane(self) -> Ticket:
        """Names take turns, and within a name its addresses: who was served goes to the end."""
        name, lanes = next(iter(self._lanes.items()))
        where = min(lanes, key=lambda one: self._wrong.get(one.encode()) or 0)  # the first of those with the fewest
        lane = lanes[where]
        ticket = lane.popleft()
        del lanes[where]
        if lane:
            lanes[where] = lane
        del self._lanes[name]
        if lanes:
            self._lanes[name] = lanes
        return ticket

    def _make_room(self, name: str, where: str, *, trusted: bool) -> bool:
        """Send away the latest of the longest lane, unless the newcomer would stand in one as long."""
        longest = max(
            (
                (len(lane), len(lanes), one, place)
                for one, lanes in self._lanes.items()
                for place, lane in lanes.items()
            ),
            default=None,
        )
        if longest is None:
            return False
        count, _, other, place = longest
        if not trusted and len(self._lanes.get(name, {}).get(where, ())) + 1 > count:
            return False
        self._send_away(other, place)
        return True

    def _send_away(self, name: str, where: str) -> None:
        lanes = self._lanes[name]
        ticket = lanes[where].pop()
        if not lanes[where]:
            del lanes[where]
        if not lanes:
            del self._lanes[name]
        self._waiting -= 1
        if not ticket.turn.done():
            ticket.turn.set_result(False)


def network(address: str | None) -> str:
    """Who has one address of IPv6 has 2^64 of them: they count as one."""
    if not address or ":" not in address:
        return address or ""
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False).network_address)
    except ValueError:
        return address
