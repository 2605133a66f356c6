"""Which files are read, in which order, and what stands in them, word by word. What it means is for `config.loader`.

Order, later wins (as operators know it): `glance-image-import.conf` and `glance-api.conf` in the directory, then
`glance.conf.d/*.conf`, then `glance-api.conf.d/*.conf`, each by name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oslo_config import iniparser

from xloud_image.config.findings import Origin
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xloud_image.config.findings import Findings

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
    """One assignment; section and value as written, a `-` in the name as `_`.

    `theirs` and `secret` are the deployer's: an operator wrote it; it is not shown.
    """

    section: str
    name: str
    value: str = dataclasses.field(repr=False)
    origin: Origin
    theirs: bool = False
    secret: bool = False

    @property
    def group(self) -> str:
        """The section as it is compared: the case of its name does not matter."""
        return self.section if self.section == "DEFAULT" else self.section.lower()

    @property
    def key(self) -> tuple[str, str]:
        """What lines of the same option share."""
        return self.group, self.name


class _Reader(iniparser.BaseParser):
    """Keeps the number of the line on which each assignment began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.section = ""
        self.lines: list[Line] = []
        self._began = 0

    def _split_key_value(self, line: str) -> tuple[str, list[str]]:
        self._began = self.lineno
        key, value = super()._split_key_value(line)
        return key, value

    def new_section(self, section: str) -> None:
        self.section = section

    def assignment(self, key: str, value: list[str]) -> None:
        if not self.section:
            raise iniparser.ParseError("an option stands before the first [section]", self._began, key)
        origin = Origin(self.path, self._began)
        self.lines.append(Line(self.section, key.replace("-", "_"), "\n".join(value), origin))


def read(path: Path, findings: Findings, encoding: str = "utf-8") -> list[Line]:
    """Every assignment of a file. What keeps it from being read becomes an error, without the text of the line.

    `encoding`: "utf-8-sig" passes over a byte order mark at the begin.
    """
    reader = _Reader(path)
    try:
        with path.open("rb") as file:
            begins = file.read(4)
        for mark, name in MARKS.items():
            if begins.startswith(mark) and encoding == "utf-8":
                text = f"begins with a byte order mark ({name}): save it as UTF-8 without one (in vi: :set nobomb)"
                findings.error(text, origin=Origin(path))
                return []
        with path.open(encoding=encoding) as lines:
            reader.parse(lines)
    except iniparser.ParseError as error:
        findings.error(error.msg, origin=Origin(path, error.lineno))
    except UnicodeDecodeError as error:
        findings.error(f"is not UTF-8 text ({error.reason} at byte {error.start})", origin=Origin(path))
    except OSError as error:
        findings.error(f"cannot be read: {error.strerror}", origin=Origin(path))
    return reader.lines
