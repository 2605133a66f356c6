"""Waiting for long work of a service: what its task tells, until it has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from xloud_image.client.cloud import Answered, Broken, Cloud, Task
from xloud_image.client.data import Stopped
from xloud_image.errors import ImageServiceError

PAUSE: Final = 1.0  # seconds between two looks
_PATIENCE: Final = 300.0  # seconds in which a service that does not answer comes back
_MIB: Final = 1 << 20
_PROGRESS: Final = re.compile(r"Copied (\d+) MiB(?: of (\d+) MiB)?")


class Failed(ImageServiceError):
    """The work has ended without its effect; the message is the reason."""


class Watcher(Protocol):
    """Who waits."""

    stop: Any

    def bar(self, text: str, total: int | None) -> Callable[[int], None]:
        """A bar for it."""
        ...

    def say(self, text: str, *, error: bool = False) -> None:
        """A line about it."""
        ...


def follow(watcher: Watcher, cloud: Cloud, image_id: str, task: Task | None) -> str:
    """Wait for the end of a task; a sentence of what came of it. `Failed` with the reason. Without a task the image
    tells."""
    moved: Callable[[int], None] | None = None
    told, silent_since = "", time.monotonic()
    while not watcher.stop.wait(PAUSE):
        try:
            now = cloud.task(task["id"], image_id) if task else None
            image = cloud.image(image_id) if now is None or now.get("status") in ("success", "failure") else {}
        except Broken:
            if time.monotonic() - silent_since > _PATIENCE:
                raise
            continue
        except Answered as error:
            if error.answered < 500 or time.monotonic() - silent_since > _PATIENCE:
                raise
            continue
        silent_since = time.monotonic()
        message = str((now or {}).get("message") or "")
        status = now.get("status") if now else {"active": "success", "queued": "failure"}.get(str(image.get("status")))
        if status == "failure":
            raise Failed(message or "it failed; the service says no reason")
        if status == "success":
            failed = str(image.get("os_glance_failed_import") or "")
            if failed:
                raise Failed(f"done, but not in the stores {failed}: {message}")
            return f"{image_id}  {image.get('status')}  {message}".rstrip()
        if match := _PROGRESS.search(message):
            moved = moved or watcher.bar(image_id, int(match[2]) * _MIB if match[2] else None)
            moved(int(match[1]) * _MIB)
        step = message.rpartition("/s, ")[2] or str(now.get("status") if now else image.get("status"))
        if step != told:
            told = step
            watcher.say(f"{image_id}  {message or step}", error=True)
    raise Stopped


__all__ = ["Failed", "follow"]
