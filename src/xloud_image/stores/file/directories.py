"""Other names of the store's directories: a path through a link, or a second mount of the same. No file is opened here.

Rows outlive mounts and links: they may name `/old/ID` where `/old` is a link to a directory of today's configuration,
or the directory behind a link that is configured. What counts is the directory itself, not how it is spelled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from xloud_image.errors import StoreUnavailable

_PATIENCE: Final = 0.1  # seconds that `find` waits, once for each name: a directory at hand is known in a thousandth
_FRESH: Final = 60.0  # seconds after which a name is looked at again, beside the work
_MOST: Final = 1000  # names that are remembered
_NOTHING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES})
_AT_ONCE: Final = 8  # looks that may hang; further names are unknown until one returns


class Places:
    """`paths`: the configured directories. Each name is looked at in a thread of its own, so that a
    mount that hangs holds up whoever asks for that very name, for a tenth of a second, once."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str | None, float]] = {}  # name → (configured path, when it was looked at)
        self._looking: dict[str, threading.Event] = {}

    def find(self, name: str) -> str | None:
        """The configured path of the directory `name`; None: it is none of ours. `StoreUnavailable`: that is not known
        now, because the file system does not answer, or not yet."""
        if name in self._paths:
            return name
        with self._lock:
            known = self._known.get(name)
            if known is not None and time.monotonic() - known[1] < _FRESH:
                return known[0]
            done = self._looking.get(name)
            begun = done is None and len(self._looking) < _AT_ONCE
            if begun:
                done = self._looking[name] = threading.Event()
        if begun:
            assert done is not None
            threading.Thread(target=self._look, args=(name, done), name="store directory", daemon=True).start()
            if known is None:
                done.wait(_PATIENCE)
        with self._lock:
            known = self._known.get(name)
        if known is None:
            raise StoreUnavailable("a directory that may be its own does not answer")
        return known[0]

    def _look(self, name: str, done: threading.Event) -> None:
        try:
            with contextlib.suppress(OSError):  # then it stays as unknown as it was
                self.look(name)
        finally:
            with self._lock:
                del self._looking[name]
            done.set()

    def look(self, name: str) -> str | None:
        """As `find`, asked anew. Blocks as long as the file system does; `OSError` when it is sick."""
        found = None
        if (wanted := _identity(name)) is not None:
            found = next((path for path in self._paths if _identity(path) == wanted), None)
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[name] = (found, time.monotonic())
        return found


def _identity(name: str) -> tuple[int, int] | None:
    """Device and inode; None where there is nothing, or nothing that we may see. `OSError` of a sick file system."""
    try:
        found = os.stat(name)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise
    return found.st_dev, found.st_ino
