"""What the options of the file store mean: directories, file mode, metadata file. Reads the metadata file, no other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xloud_image.config.options.stores import directory_of
from xloud_image.errors import ConfigError


def relative(options: Mapping[str, Any]) -> list[str]:
    """The entries of the options that depend on where the service is started."""
    several: Sequence[str] = options["filesystem_store_datadirs"]
    return [one for one in several or [options["filesystem_store_datadir"]] if not one.strip().startswith("/")]


def normal(path: str) -> str:
    """The absolute path without double or trailing slashes."""
    path = os.path.normpath(path)
    return "/" + path.lstrip("/")


def directories(store: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The store's directories, the highest priority first. `path:priority`; a priority that is left out is 0."""
    several: Sequence[str] = options["filesystem_store_datadirs"]
    if not several:
        return (
            normal(os.path.abspath(_named(store, options["filesystem_store_datadir"], "filesystem_store_datadir"))),
        )
    found: dict[str, int] = {}
    for line in several:
        _named(store, line, "filesystem_store_datadirs")
        path, colon, priority = line.rpartition(":")
        if not colon:
            path, priority = line, "0"
        try:
            number = int(priority)
        except ValueError:
            raise ConfigError(
                f"store {store}: filesystem_store_datadirs = {line}: write path:priority, the priority a whole number"
            ) from None
        path = normal(os.path.abspath(_named(store, path.strip(), "filesystem_store_datadirs")))
        if path in found:
            raise ConfigError(f"store {store}: filesystem_store_datadirs names {path} twice")
        found[path] = number
    return tuple(sorted(found, key=lambda path: -found[path]))


def _named(store: str, path: str | None, option: str) -> str:
    if not path or "\0" in path:
        raise ConfigError(f"store {store}: {option} is empty: name a directory")
    try:
        directory_of(path, priority=False)
    except ValueError as error:
        raise ConfigError(f"store {store}: {option}: {error}") from None
    return path


def mode(store: str, digits: int) -> int:
    """The permission bits that octal digits, written as a decimal number, mean; 0: as the umask says."""
    try:
        return int(str(digits), 8)
    except ValueError:
        raise ConfigError(
            f"store {store}: filesystem_store_file_perm = {digits}: write octal digits, such as 640"
        ) from None


def metadata(file: str, paths: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What direct consumers are told about each directory: {"id", "mountpoint"}, or of a list of these the one with
    the longest mount point above the directory. ValueError says what is wrong."""
    found = json.loads(Path(file).read_bytes())
    entries = found if isinstance(found, list) else [found]
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "mountpoint")):
            raise ValueError('each entry needs "id" and "mountpoint", both text')
    if not isinstance(found, list):
        return dict.fromkeys(paths, found)
    chosen: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        above = [entry for entry in entries if _within(path, normal(entry["mountpoint"]))]
        if not above:
            raise ValueError(f"no entry has a mountpoint above {path}")
        chosen[path] = max(above, key=lambda entry: len(normal(entry["mountpoint"])))
    return chosen


def _within(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")
