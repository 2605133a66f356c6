"""Files written so that each one is whole at any moment: the old text or the new one. Nothing is decided here."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def write_whole(files: Mapping[Path, tuple[bytes, int]], remove: Iterable[Path] = ()) -> list[Path]:
    """Write bytes with a mode under each path, and remove others; the paths that changed.

    All are written and synced under temporary names first: when the disk is full, every old file is as it was.
    A file that is the same already is left alone, time stamps included. ConfigError: it cannot be done.
    """
    changed: dict[Path, str] = {}
    path = None
    try:
        for path, (data, mode) in files.items():
            if _same(path, data, mode):
                continue
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            changed[path] = name
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, mode)
                file.write(data)
                file.flush()
                os.fsync(handle)
        for path in list(changed):
            os.replace(changed[path], path)
            changed[path] = ""
        gone = [path for path in remove if path.exists()]
        for path in gone:
            path.unlink()
        for folder in {path.parent for path in (*changed, *gone)}:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; what was there is as it was") from None
    finally:
        for name in filter(None, changed.values()):
            with contextlib.suppress(OSError):
                os.unlink(name)
    return [*changed, *gone]


def _same(path: Path, data: bytes, mode: int) -> bool:
    try:
        return path.read_bytes() == data and path.stat().st_mode & 0o777 == mode
    except OSError:
        return False
