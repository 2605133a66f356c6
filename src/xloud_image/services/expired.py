"""Leases that look expired, of rows of any table: which of them count."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar


class Leased(Protocol):
    """What is needed of a row."""

    @property
    def id(self) -> str: ...
    @property
    def holder(self) -> str | None: ...
    @property
    def lease_until(self) -> dt.datetime | None: ...


L = TypeVar("L", bound=Leased)


_KEPT: Final = 10.0  # times the wait for which a row that is not found again is remembered


class Expired:
    """Leases that were found expired. The database's clock may have been set forward, and then every lease looks so:
    whoever lives renews his within a third of it. So one counts only when it is found again as it was, `wait` seconds
    later by the clock that nobody sets."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._first: dict[tuple[str, str | None, object], float] = {}

    def lasting(self, found: Sequence[L]) -> list[L]:
        """Those that nobody holds, and those that were expired at an earlier look already."""
        now = time.monotonic()
        keys = {row.id: (row.id, row.holder, row.lease_until) for row in found}
        # a look may be for some of the rows only: what it did not ask for is remembered for a while
        seen = {key: self._first.get(key, now) for key in keys.values()}
        self._first = {key: at for key, at in self._first.items() if now - at < _KEPT * self._wait} | seen
        return [row for row in found if row.holder is None or now - self._first[keys[row.id]] >= self._wait]
