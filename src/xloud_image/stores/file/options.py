"""The file store as a type, and what its options mean: directories, file mode, metadata file, which alone is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg

from xloud_image.errors import ConfigError
from xloud_image.stores.store_type import Key, Section, StoreType

_ONE: Final = "filesystem_store_datadir"
_SEVERAL: Final = "filesystem_store_datadirs"  # path:priority


class _File(StoreType):
    def settle(self, section: Section) -> Mapping[str, Any]:
        if section.options[_SEVERAL] and section.is_set(_ONE, own=True):
            section.refuse(f"excludes {_ONE}; keep one of the two", _SEVERAL)
        for option, entry in _entries(section.options):
            if problem := _problem(entry):
                section.refuse(problem, option)
        return {}

    def directories(self, options: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        return [(option, self.directory(option, entry)) for option, entry in _entries(options)]

    def directory(self, option: str, entry: str) -> str:
        entry = entry.strip()
        if path := _path_of_url(entry):
            return path
        return (entry.rpartition(":")[0] or entry) if option == _SEVERAL else entry

    def with_directories(self, paths: Sequence[str]) -> Mapping[str, Any]:
        return {
            _ONE: paths[0] if len(paths) == 1 else None,
            _SEVERAL: [f"{path}:0" for path in paths] if len(paths) > 1 else [],
        }


def _entries(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries that count, with their option."""
    several: Sequence[str] = options[_SEVERAL]
    return [(_SEVERAL, one) for one in several] or [(_ONE, options[_ONE])]


def _problem(entry: str) -> str | None:
    path = _path_of_url(entry)
    return path and f"'{entry.strip()}' is a URL; a directory is written as it is: {path}"


def _path_of_url(entry: str) -> str | None:
    """The path that an entry means which is a URL, as other options of the kind have it; None of any other."""
    scheme, colon, rest = entry.strip().partition(":")
    return f"/{rest.lstrip('/')}" if colon and (rest.startswith("//") or scheme in ("file", "filesystem")) else None


FILE: Final = _File(
    name="file",
    store="xloud_image.stores.file.store:FileStore",
    schemes=("file", "filesystem"),
    closed_schemes=("file", "filesystem"),
    place=(_ONE, _SEVERAL),
    directory_options=(_ONE, _SEVERAL),
    options=(
        cfg.StrOpt(_ONE, default="/var/lib/glance/images", help="Directory of the images."),
        cfg.MultiStrOpt(
            _SEVERAL,
            default=[],
            help="path:priority, several; the highest with room takes the image. Excludes the option above.",
        ),
        cfg.StrOpt("filesystem_store_metadata_file", help='JSON {"id", "mountpoint"} (or a list), added to locations.'),
        cfg.IntOpt(
            "filesystem_store_file_perm",
            default=0,
            min=0,
            max=777,
            help="Mode, octal digits as written; 0: by umask.",
        ),
        cfg.IntOpt("filesystem_store_chunk_size", default=65536, min=1, help="Bytes per read and write."),
        cfg.BoolOpt("filesystem_thin_provisioning", default=False, help="Leave holes where the data is all zeros."),
        cfg.IntOpt(
            "filesystem_store_timeout",
            default=0,
            min=0,
            help="Seconds that one step of a call may take on a hung mount; 0: ten minutes.",
        ),
        cfg.IntOpt(
            "filesystem_store_thread_pool_size", default=10, min=1, help="Threads for calls under that timeout."
        ),
        cfg.IntOpt(
            "filesystem_store_threadpool_threshold",
            default=75,
            min=1,
            max=100,
            help="Per cent of busy threads from which a warning is logged.",
        ),
    ),
    switch="glance_backend_file",
    keys={_ONE: Key("/var/lib/glance/images/", "in the volume")},
    more_keys=("glance_file_datadir_volume", "glance_datadir_is_mount"),
)


def relative(options: Mapping[str, Any]) -> list[str]:
    """The entries of the options that depend on where the service is started."""
    return [entry for _, entry in _entries(options) if not entry.strip().startswith("/")]


def normal(path: str) -> str:
    """The absolute path without double or trailing slashes."""
    path = os.path.normpath(path)
    return "/" + path.lstrip("/")


def directories(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The store's directories, the highest priority first. `path:priority`; a priority that is left out is 0."""
    found: dict[str, int] = {}
    for option, entry in _entries(options):
        path, priority = entry or "", 0
        if problem := _problem(path):
            raise ConfigError(f"{option}: {problem}")
        if option == _SEVERAL and ":" in path:
            path, _, number = path.rpartition(":")
            try:
                priority = int(number)
            except ValueError:
                raise ConfigError(f"{option} = {entry}: write path:priority, the priority a whole number") from None
        if not path.strip() or "\0" in path:
            raise ConfigError(f"{option} is empty: name a directory")
        path = normal(os.path.abspath(path.strip()))
        if path in found:
            raise ConfigError(f"{option} names {path} twice")
        found[path] = priority
    return tuple(sorted(found, key=lambda path: -found[path]))


def mode(digits: int) -> int:
    """The permission bits that octal digits, written as a decimal number, mean; 0: as the umask says."""
    try:
        return int(str(digits), 8)
    except ValueError:
        raise ConfigError(f"filesystem_store_file_perm = {digits}: write octal digits, such as 640") from None


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
