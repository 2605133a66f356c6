"""The override directory: an operator's lines over the rendered ones. What they mean to the service is for its loader.

Files, later wins: `global.conf`, `glance.conf`, `glance/glance-api.conf`, `glance/<host>/glance-api.conf`. An option of
a later file replaces all lines of earlier ones; an option that stands several times in one file is a list.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from xloud_image.config.files import read as read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from xloud_image.config.files import Line
    from xloud_image.config.findings import Findings

POLICIES: Final = ("policy.yaml", "policy.yml", "policy.json")


def read(path: Path, fill: Callable[[str, Callable[[str], None]], str], findings: Findings) -> list[Line]:
    """The lines of one file, references to globals filled in. What keeps it from being read becomes an error."""
    found = []
    # a byte order mark, which some editors write, is no part of the first line
    for line in read_lines(path, findings, "utf-8-sig"):
        value = line.value
        if "{{" in value or "{%" in value:
            value = fill(value, lambda text, line=line: findings.error(text, line.name, line.origin))  # type: ignore[misc]
        found.append(dataclasses.replace(line, section=line.section.strip(), value=value, theirs=True))
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
