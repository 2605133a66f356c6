"""The walls around a program that reads what strangers made: what it sees of the machine is what it is handed.

bubblewrap: names of its own for everything; no file system but /usr (read-only), no network, no process in sight.
landlock: for containers that may not make such names. The kernel lets it open /usr and its directory only; started by
root, it becomes a user that nobody else is. In both seccomp leaves it no call that makes a socket, or a process, or
reaches one. none: limits only, where the operator wants no more.

In each the environment is empty, memory, time, files and their size are limited, and it dies with whoever began it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from xloud_image.conversion import launch
from xloud_image.errors import CannotConvert

_TOLD: Final = 4096  # bytes of the error output that are kept, the last ones
_PROBE: Final = 30.0  # seconds that `true` has behind a wall
_GONE: Final = 10.0  # seconds that a killed program has
_CURE: Final = (
    "install bubblewrap and libseccomp2, or let the container use Landlock (kernel 5.13 or newer); "
    "conversion_sandbox = none does without, for images of people whom you trust"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Wall:
    """`name` is that of the module's text; `sentence` says to an operator what stands."""

    name: str
    sentence: str


NONE: Final = Wall("none", "conversion: qemu runs without a sandbox, as the configuration wants it (limits only)")
_WALLS: Final = (
    Wall("bubblewrap", "conversion: qemu runs in bubblewrap, with a seccomp filter; it sees no file and no network"),
    Wall("landlock", "conversion: qemu runs behind Landlock and seccomp (bubblewrap does not start here)"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a program may take: seconds of processor time, bytes of memory (address space) and of a file it writes."""

    seconds: int
    memory: int = 1 << 30
    file: int = 0
    descriptors: int = 64

    def limits(self) -> dict[str, int]:
        return {"CPU": self.seconds, "AS": self.memory, "FSIZE": self.file, "NOFILE": self.descriptors, "CORE": 0}


@functools.cache
def _found() -> tuple[Wall | None, str]:
    """The first wall that stands, or why none does. Runs programs: a tenth of a second, once."""
    reasons = []
    for wall in _WALLS:
        words, how = _launched(["/usr/bin/true"], wall, Bounds(10))
        try:
            done = subprocess.run(words, **how, capture_output=True, timeout=_PROBE, check=False)
        except subprocess.TimeoutExpired:
            reasons.append(f"{wall.name}: no answer in {_PROBE:g} seconds")
            continue
        if done.returncode == 0:
            return wall, ""
        reasons.append(f"{wall.name}: {_last_line(done.stderr)}")
    return None, "; ".join(reasons)


def which(*, required: bool = True) -> Wall:
    """The wall in force. required=False: the operator does without. `CannotConvert` when none stands that is required.

    The first call runs programs: not in an event loop.
    """
    if not required:
        return NONE
    wall, why = _found()
    if wall is None:
        error = CannotConvert("images cannot be converted here: there is no sandbox for qemu")
        error.cure = f"{why}; {_CURE}"
        raise error
    return wall


class Program:
    """One that runs behind a wall. `words`: the last line that it wrote to its error output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.stdout = process.stdout
        self._process = process
        self._told = bytearray()
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """Its number, which is that of its group, too."""
        return self._process.pid

    @property
    def words(self) -> str:
        return _last_line(bytes(self._told))

    async def ended(self) -> int:
        """Wait until it has ended: its exit code, or the negative number of the signal that ended it. Behind bubblewrap
        128 and the number."""
        await asyncio.wait((self._listening,))  # who waits and leaves does not end it
        return await self._process.wait()

    async def kill(self) -> int:
        """End it and all that it began, now; as `ended`."""
        if self._process.returncode is None:  # else its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        async with asyncio.timeout(_GONE):
            return await self.ended()

    async def _listen(self) -> None:
        """Whatever it writes, so that it never waits for us; ends when all of its processes have."""
        assert self._process.stderr is not None
        while came := await self._process.stderr.read(_TOLD):
            self._told += came
            del self._told[:-_TOLD]


async def start(
    command: Sequence[str],
    wall: Wall,
    bounds: Bounds,
    *,
    descriptors: Sequence[int] = (),
    listening: bool = False,
    directory: Path | None = None,
    output: bool = False,
) -> Program:
    """Begin `command`, whose first word is a program of /usr/bin. `CannotConvert` when it is not installed.

    descriptors: what it gets as 3, 4, … (listening: 3 is a listening socket). directory: its working directory, the
    only one that it may write to. output: its standard output is wanted. It dies with the thread that called.
    """
    if not os.access(command[0], os.X_OK):
        error = CannotConvert(f"images cannot be converted here: {os.path.basename(command[0])} is not installed")
        error.cure = f"{command[0]} is missing; it comes with qemu-utils (Debian), qemu-img (RPM)"
        raise error
    words, how = _launched(command, wall, bounds, descriptors, listening, directory)
    out = subprocess.PIPE if output else subprocess.DEVNULL
    return Program(await asyncio.create_subprocess_exec(*words, **how, stdout=out, stderr=subprocess.PIPE))


def _launched(
    command: Sequence[str],
    wall: Wall,
    bounds: Bounds,
    descriptors: Sequence[int] = (),
    listening: bool = False,
    directory: Path | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """The words of the command and how it is begun."""
    given = {
        "command": command,
        "wall": wall.name,
        "parent": os.getpid(),
        "descriptors": list(descriptors),
        "directory": None if directory is None else str(directory.absolute()),
        "limits": bounds.limits(),
        "listening": listening,
    }
    how = {"stdin": subprocess.DEVNULL, "env": {}, "cwd": "/", "pass_fds": descriptors, "start_new_session": True}
    return [sys.executable, "-I", "-S", launch.__file__, json.dumps(given)], how


def _last_line(text: bytes) -> str:
    """Of what a program wrote, without control characters."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return "".join(char if char.isprintable() else " " for char in lines[-1]) if lines else "no word"
