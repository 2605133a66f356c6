"""Worker processes that die: when the next one may be started, and when to give up; and how one ends. For `server`.

A worker that served for a while, or that somebody killed, is replaced at once. Those that die young, one after the
other, are replaced later and later; when so many of them died and none was ever ready, the service ends, so that its
supervisor and its operator see it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

YOUNG: Final = 10.0  # seconds of life under which a death counts as one of a row
GIVE_UP: Final = 5  # such deaths for each worker that was to run, none of them ever ready
_LONGEST: Final = 60.0  # seconds between two attempts
# what ends a process from inside: a native library, not Python
_NATIVE: Final = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


def leave(code: object = 0) -> NoReturn:
    """End this process now, with the code of a `SystemExit`, without taking the interpreter apart: a thread of a native
    library that calls back into an interpreter that is going away ends the process by SIGABRT instead."""
    if not (code is None or isinstance(code, int)):
        sys.stderr.write(f"{code}\n")
        code = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


class TooManyDeaths(Exception):
    """No worker was ever ready, and too many died."""


@dataclasses.dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended. status: as `os.waitpid` gives it; lived: seconds; ready: whether it has served; hung: whether
    the arbiter ended it because its event loop stood still."""

    pid: int
    status: int
    lived: float
    ready: bool
    hung: bool = False

    @property
    def orderly(self) -> bool:
        """It ended because it was told to."""
        if os.WIFSIGNALED(self.status):
            return os.WTERMSIG(self.status) in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
        return os.WEXITSTATUS(self.status) == 0

    @property
    def young(self) -> bool:
        """It counts as one of a row."""
        if self.orderly or self.lived >= YOUNG:
            return False
        killed = os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL
        return not (self.ready and killed)  # from outside, and it was well

    def __str__(self) -> str:
        moment = "" if self.ready else ", before it was ready"
        return f"worker {self.pid} ended {self._way()} after {self.lived:.1f} s{moment}: {self._cause()}"

    def _way(self) -> str:
        if not os.WIFSIGNALED(self.status):
            return f"with exit code {os.WEXITSTATUS(self.status)}"
        number = os.WTERMSIG(self.status)
        return f"by {signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'}"

    def _cause(self) -> str:
        if not os.WIFSIGNALED(self.status):
            return "its own words stand above"
        number = os.WTERMSIG(self.status)
        if self.hung:
            return "its event loop stood still, and it was ended for that"
        if number == signal.SIGKILL:
            return "the kernel was out of memory (see its log), or somebody killed it"
        if number in _NATIVE:
            return (
                "a native library gave up (of the stores', Ceph's: librados, librbd); its last words stand above, and"
                " 'xloud-image stores check' tries each store"
            )
        return "somebody sent it that signal"


class Record:
    """The deaths so far. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._row = 0  # young deaths since the last old one
        self._not_before = 0.0

    def forget(self) -> None:
        """Another configuration: what died under the former says nothing."""
        self._row, self._not_before = 0, 0.0

    def add(self, death: Death, *, workers: int, ever_ready: bool) -> float:
        """Seconds until the next worker may start. `TooManyDeaths` when that would lead nowhere."""
        if not death.young:
            if death.lived >= YOUNG:
                self._row = 0
            return 0.0
        self._row += 1
        if not ever_ready and self._row >= GIVE_UP * workers:
            raise TooManyDeaths
        rounds = (self._row - 1) // workers  # all workers die of the same: they count once
        pause = min(_LONGEST, 2.0 ** (rounds - 1)) if rounds else 0.0
        self._not_before = max(self._not_before, self._clock() + pause)
        return pause

    @property
    def may_start(self) -> bool:
        """Whether the next worker may be started now."""
        return self._clock() >= self._not_before
