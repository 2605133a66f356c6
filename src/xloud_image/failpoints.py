"""Named places where a test can stop, slow or fail the process. Costs one empty-dict look-up when not in use.

`XLOUD_FAILPOINTS="upload.written=kill,delete.marked=sleep:2"` in the environment: `kill` ends the process as
kill -9 does, `sleep:S` waits S seconds, `fail` raises an error, `note:/path` adds a line with the name and the process
id to that file. Only names in POINTS are accepted.
`XLOUD_FAILPOINTS=@/path` reads the same text from a file, each time, so that a running service can be armed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Final

from xloud_image.errors import ConfigError, ImageServiceError

POINTS: Final = (
    "create.begin",
    "create.stored",
    "change.begin",
    "change.stored",
    "upload.begin",
    "upload.claimed",
    "upload.first_byte",
    "upload.half",
    "upload.received",
    "upload.written",
    "upload.activated",
    "stage.written",
    "stage.kept",
    "parts.begun",
    "part.claimed",
    "part.written",
    "part.kept",
    "parts.finishing",
    "parts.written",
    "parts.staged",
    "import.begin",
    "import.stored",
    "job.taken",
    "job.half",
    "job.written",
    "job.done",
    "undo.bytes_gone",
    "delete.begin",
    "delete.marked",
    "delete.bytes_gone",
    "delete.done",
    "location.begin",
    "location.stored",
    "hash.read",
    "member.begin",
    "member.stored",
    "reaper.taken",
    "reaper.bytes_gone",
    "relay.sent",
    "file.created",
    "file.synced",
    "file.linked",
    "file.unlinked",
    "cache.begun",
    "cache.written",
    "cache.filled",
)


def parse(text: str) -> dict[str, str]:
    """`name=action,…` → {name: action}; ConfigError names what is not known."""
    armed: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = item.partition("=")
        if name not in POINTS or action.partition(":")[0] not in ("kill", "sleep", "fail", "note"):
            raise ConfigError(f"XLOUD_FAILPOINTS: '{item}' is no failpoint; the names are {', '.join(POINTS)}")
        armed[name] = action
    return armed


_TEXT: Final = os.environ.get("XLOUD_FAILPOINTS", "")
_file: Final = Path(_TEXT[1:]) if _TEXT.startswith("@") else None
_armed: Final = {} if _file else parse(_TEXT)


def _action(name: str) -> str | None:
    if _file is not None:
        return parse(_file.read_text()).get(name)
    return _armed.get(name)


async def reach(name: str) -> None:
    """The event loop's side: promise that the step called `name` has just been done."""
    action = _action(name)
    if action is None:
        return
    if action.startswith("sleep:"):
        await asyncio.sleep(float(action[6:]))
    else:
        _act(name, action)


def reach_in_thread(name: str) -> None:
    """The same from a worker thread."""
    action = _action(name)
    if action is None:
        return
    if action.startswith("sleep:"):
        time.sleep(float(action[6:]))
    else:
        _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action.startswith("note:"):
        with Path(action[5:]).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        return
    raise ImageServiceError(f"failpoint {name}")
