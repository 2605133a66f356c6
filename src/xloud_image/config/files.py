"""Which files are read, in which order, and what stands in them, word by word. What it means is for `config.loader`.

Order, later wins (as operators know it): `glance-image-import.conf` and `glance-api.conf` in the directory, then
`glance.conf.d/*.conf`, then `glance-api.conf.d/*.conf`, each by name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg, iniparser

from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MARKS: Final = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
STANDARD_DIR: Final = Path("/etc/glance")
_MAIN: Final = ("glance-image-import.conf", "glance-api.conf")
_PARTS: Final = ("glance.conf.d", "glance-api.conf.d")


def in_standard_order(directory: Path) -> list[Path]:
    """The files that exist of those that a directory like /etc/glance may hold."""
    found = [directory / name for name in _MAIN if (directory / name).exists()]
    for part in _PARTS:
        found += sorted((directory / part).glob("*.conf"))
    return found


def find(files: Sequence[Path], dirs: Sequence[Path], env: Mapping[str, str]) -> list[Path]:
    """The files to read, in order; none: nothing was given and nothing stands in the standard directory.

    Given files come first, then given directories. A directory with a `glance-api.conf` is read like /etc/glance, any
    other as all its `*.conf` by name. Without either: the directory that OS_GLANCE_CONFIG_DIR names, else /etc/glance,
    but that not when XLOUD_IMAGE_STATE asks for the embedded default. ConfigError: one that was named does not exist.
    """
    try:
        return _find(files, dirs, env)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None


def _find(files: Sequence[Path], dirs: Sequence[Path], env: Mapping[str, str]) -> list[Path]:
    for file in files:
        if not file.is_file():
            raise ConfigError(f"configuration file {file} does not exist or is not a file")
    found = list(files)
    for directory in dirs:
        if not directory.is_dir():
            raise ConfigError(f"configuration directory {directory} does not exist or is not a directory")
        standard = in_standard_order(directory)
        found += standard if directory / "glance-api.conf" in standard else sorted(directory.glob("*.conf"))
    if files or dirs:
        if not found:
            raise ConfigError(f"no *.conf file stands in {', '.join(map(str, dirs))}")
        return found
    if named := env.get("OS_GLANCE_CONFIG_DIR"):
        found = in_standard_order(Path(named))
        if not found:
            raise ConfigError(f"OS_GLANCE_CONFIG_DIR is {named}, but no glance-api.conf stands there")
        return found
    return [] if env.get("XLOUD_IMAGE_STATE") else in_standard_order(STANDARD_DIR)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One assignment: section and option as the parser compares them, the value as written, its file."""

    group: str
    name: str
    value: str = dataclasses.field(repr=False)
    file: Path


def _no_mark(path: Path) -> None:
    """ConfigError when the file begins with bytes that editors of other systems put before a text."""
    with path.open("rb") as file:
        begins = file.read(4)
    for mark, name in MARKS.items():
        if begins.startswith(mark):
            raise ConfigError(
                f"{path} begins with a byte order mark ({name}): save it as UTF-8 without one (in vi: :set nobomb)"
            )


def read(paths: Iterable[Path]) -> list[Line]:
    """Every assignment of these files. ConfigError with file, line and reason; never with the text of a line."""
    lines: list[Line] = []
    for path in paths:
        sections: dict[str, dict[str, Any]] = {}
        try:
            _no_mark(path)
            cfg.ConfigParser(str(path), sections).parse()
        except iniparser.ParseError as error:
            reason = "an option stands before the first [section]" if not error.line else error.msg
            raise ConfigError(f"{path}, line {error.lineno}: {reason}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        for section, options in sections.items():
            group = section if section == "DEFAULT" else section.lower()
            for name, values in options.items():
                lines += [Line(group, name.replace("-", "_"), value, path) for value in values]
    return lines
