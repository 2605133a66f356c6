"""For tests: which turns of the event loop took much processor time, and in which line. Nothing of it runs otherwise.

`XLOUD_IMAGE_TURNS=DIRECTORY` in the environment: a process writes a file there, by its id, with a line of JSON for each
turn that took longer than `LIMIT`, and for the longest one of those below: seconds, and the calls that it was found in.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import orjson

LIMIT: Final = 0.2  # seconds of processor time; more than that in one turn holds up every other client
_TOLD: Final = 0.03  # shorter ones are not written at all
_LOOKS: Final = 0.02  # seconds between two looks at what is being done


class Watch:
    """Of the loops of this process. `ours_only`: only turns in which a line of this package was seen count."""

    def __init__(self, file: Path, *, ours_only: bool = False) -> None:
        self._file = file
        self._ours_only = ours_only
        self._worst = _TOLD
        self._turn: tuple[int, int, float] | None = None  # number, thread, its processor time when it began
        self._number = 0
        self._seen: tuple[int, list[str]] = (0, [])
        self._collecting = self._collected = 0.0

    def begin(self) -> None:
        """From now on; there is no end."""
        plain: Any = asyncio.Handle.__dict__["_run"]  # the one way that every turn goes
        clock = time.thread_time
        watch = self
        main = threading.main_thread().ident or 0
        if self._ours_only:
            gc.callbacks.append(self._collector)

        def run(handle: asyncio.Handle) -> None:
            watch._number += 1
            number = watch._number
            watch._collected = 0.0
            begun = clock()
            if threading.get_ident() == main:  # the clock of a thread that has ended must not be asked
                watch._turn = (number, main, begun)
            try:
                plain(handle)
            finally:
                watch._turn = None
                spent = clock() - begun - watch._collected
                if spent > watch._worst or spent > LIMIT:
                    watch._tell(number, spent, handle)

        setattr(asyncio.Handle, "_run", run)  # noqa: B010 - the method is not public
        threading.Thread(target=self._look, name="turns", daemon=True).start()

    def _collector(self, phase: str, _info: dict[str, int]) -> None:
        """What the collector takes is that of everything which other tests left in this process."""
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting

    def _look(self) -> None:
        while True:
            time.sleep(_LOOKS)
            turn = self._turn
            if turn is None or self._seen[0] == turn[0]:
                continue
            number, thread, begun = turn
            try:
                if time.clock_gettime(time.pthread_getcpuclockid(thread)) - begun < _TOLD:
                    continue
            except OSError:
                continue
            frame = sys._current_frames().get(thread)  # noqa: SLF001
            calls = []
            while frame is not None:
                calls.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
                frame = frame.f_back
            if self._turn is not None and self._turn[0] == number:
                self._seen = (number, calls)

    def _tell(self, number: int, spent: float, handle: asyncio.Handle) -> None:
        calls = self._seen[1] if self._seen[0] == number else []
        if self._ours_only and not _is_ours(calls):
            return
        self._worst = max(self._worst, spent)
        with self._file.open("ab") as file:
            file.write(orjson.dumps({"seconds": spent, "turn": repr(handle)[:300], "calls": calls[:20]}) + b"\n")


def _is_ours(calls: list[str]) -> bool:
    """Whether the innermost call that is of the service or of a test (`stores.suite` too) is of the service. Loading
    a library is nobody's: a service does it before it is ready."""
    if any("<frozen importlib" in call for call in calls):
        return False
    for call in calls:
        if "/xloud_image/stores/suite/" in call or "/tests/" in call:
            return False
        if "/xloud_image/" in call and "/turns.py" not in call:
            return True
    return False


def begin_if_asked() -> None:
    """Watch this process when the environment asks for it."""
    directory = os.environ.get("XLOUD_IMAGE_TURNS")
    if directory:
        Watch(Path(directory) / str(os.getpid())).begin()
