"""The override directory: an operator's lines over the rendered ones. What they mean to the service is for its loader.

Files, later wins: `global.conf`, `glance.conf`, `glance/glance-api.conf`, `glance/<host>/glance-api.conf`. An option of
a later file replaces all lines of earlier ones; an option that stands several times in one file is a list.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from oslo_config import iniparser

from xavs.findings import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from xavs.findings import Problems

POLICIES: Final = ("policy.yaml", "policy.yml", "policy.json")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a rendered file, and where it came from. `theirs`: an operator wrote it."""

    section: str
    name: str
    value: str = dataclasses.field(repr=False)
    origin: Origin
    theirs: bool = False
    secret: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What lines of the same option share; the case of a section's name does not matter."""
        section = self.section if self.section == "DEFAULT" else self.section.lower()
        return section, self.name.replace("-", "_")


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
        self.section = section.strip()

    def assignment(self, key: str, value: list[str]) -> None:
        if not self.section:
            raise iniparser.ParseError("an option stands before the first [section]", self._began, key)
        self.lines.append(Line(self.section, key, "\n".join(value), Origin(self.path, self._began), theirs=True))


def read(path: Path, fill: Callable[[str, Callable[[str], None]], str], problems: Problems) -> list[Line]:
    """The lines of one file, references to globals filled in. What keeps it from being read becomes an error."""
    reader = _Reader(path)
    try:
        # a byte order mark, which some editors write, is no part of the first line
        reader.parse(path.read_text(encoding="utf-8-sig").splitlines())
    except iniparser.ParseError as error:
        problems.error(error.msg, origin=Origin(path, error.lineno))
    except UnicodeDecodeError as error:
        problems.error(f"is not UTF-8 text ({error.reason} at byte {error.start})", origin=Origin(path))
    except OSError as error:
        problems.error(f"cannot be read: {error.strerror}", origin=Origin(path))
    found = []
    for line in reader.lines:
        value = line.value
        if "{{" in value or "{%" in value:
            value = fill(value, lambda text, line=line: problems.error(text, line.name, line.origin))  # type: ignore[misc]
        found.append(dataclasses.replace(line, value=value))
    return found


def files(directory: Path, host: str) -> list[Path]:
    """The files for glance-api.conf that exist, in the order of reading."""
    places = [directory / "global.conf", directory / "glance.conf", directory / "glance" / "glance-api.conf"]
    if host:
        places.append(directory / "glance" / host / "glance-api.conf")
    return [path for path in places if path.is_file()]


def merge(under: Sequence[Line], over: Iterable[Line]) -> list[Line]:
    """`over` replaces options of `under` where they stand; new options join their section, new sections the end."""
    fresh: dict[tuple[str, str], list[Line]] = {}
    for line in over:
        fresh.setdefault(line.key, []).append(line)
    merged: list[Line] = []
    for line in under:
        if line.key not in fresh:
            merged.append(line)
        elif fresh[line.key]:
            merged += [dataclasses.replace(new, section=line.section, secret=line.secret) for new in fresh[line.key]]
            fresh[line.key] = []
    for lines in fresh.values():
        for line in lines:
            last = max((n for n, old in enumerate(merged) if old.key[0] == line.key[0]), default=len(merged) - 1)
            merged.insert(last + 1, line)
    return merged


def as_ini(lines: Sequence[Line], head: str) -> str:
    """The text of a file; several lines of one option stay several lines."""
    parts = ["".join(f"# {line}\n" for line in head.splitlines())]
    section = None
    for line in lines:
        if line.section != section:
            section = line.section
            parts.append(f"\n[{section}]\n")
        value = line.value.replace("\n", "\n    ")
        parts.append(f"{line.name} = {value}".rstrip() + "\n")
    return "".join(parts)
