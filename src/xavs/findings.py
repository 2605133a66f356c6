"""Where a value came from, and what is wrong with it, collected so that one run tells everything. No meaning here."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Level = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """A line of a file, or (without a file) the reason why a value is what it is."""

    file: Path | None = None
    line: int | None = None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.place} {self.why}".strip()

    @property
    def place(self) -> str:
        """File and line, as far as there are."""
        if self.file is None:
            return ""
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One sentence. An error keeps everything from being written."""

    level: Level
    text: str
    key: str = ""
    origin: Origin = Origin()

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin.place, self.key, self.text) if part)


class Problems:
    """What has been found so far; the same sentence about the same line is kept once."""

    def __init__(self) -> None:
        self.all: list[Problem] = []

    def error(self, text: str, key: str = "", origin: Origin | None = None) -> None:
        """Something that cannot be deployed as written."""
        self._add("error", text, key, origin)

    def warning(self, text: str, key: str = "", origin: Origin | None = None) -> None:
        """Something that will surprise."""
        self._add("warning", text, key, origin)

    def note(self, text: str, key: str = "", origin: Origin | None = None) -> None:
        """Something worth knowing."""
        self._add("note", text, key, origin)

    def _add(self, level: Level, text: str, key: str, origin: Origin | None) -> None:
        problem = Problem(level, text, key, origin or Origin())
        if problem not in self.all:
            self.all.append(problem)

    def of(self, level: Level) -> list[Problem]:
        """Those of one level, in the order they were found."""
        return [problem for problem in self.all if problem.level == level]

    def stop(self) -> None:
        """ConfigError with a line for each error, when there is one."""
        errors = self.of("error")
        if errors:
            lines = "".join(f"\n  {problem}" for problem in errors)
            count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
            raise ConfigError(f"nothing was written, {count} in what was given:{lines}")
