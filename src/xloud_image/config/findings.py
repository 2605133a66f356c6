"""What is found out about a configuration: a sentence, how grave it is, and where it comes from; never with a secret.

The loader and the deployer collect them, so that one run tells everything. What they mean is not known here.
"""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Final, Literal

from xloud_image.errors import ConfigError

Severity = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


class Kind(enum.StrEnum):
    """What became of an option, or why else a sentence is told."""

    HONOURED = "honoured"
    PENDING = "pending"  # known, not yet built
    UNSAFE = "unsafe"  # promises a protection that this release does not give
    GONE = "gone"  # Glance does not read it either, any more
    IGNORED = "ignored"  # harmless and without meaning here
    UNKNOWN = "unknown"
    GUESS = "guess"  # the loader chose a reading
    INVALID = "invalid"  # cannot be served as written


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
class Finding:
    """One sentence. An error keeps the service from starting, and the deployer from writing anything.

    `about`: "[section] name", "[section]" or a key of the globals, if any. `kind`: of what the loader found.
    """

    severity: Severity
    sentence: str
    about: str = ""
    origin: Origin = Origin()
    kind: Kind | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin.place, self.about, self.sentence) if part)


class Findings:
    """What has been found so far; the same sentence about the same line is kept once."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, finding: Finding) -> None:
        """Keep one."""
        if finding not in self.all:
            self.all.append(finding)

    def error(self, sentence: str, about: str = "", origin: Origin | None = None) -> None:
        """Something that cannot be served or deployed as written."""
        self.add(Finding("error", sentence, about, origin or Origin()))

    def warning(self, sentence: str, about: str = "", origin: Origin | None = None) -> None:
        """Something that will surprise."""
        self.add(Finding("warning", sentence, about, origin or Origin()))

    def note(self, sentence: str, about: str = "", origin: Origin | None = None) -> None:
        """Something worth knowing."""
        self.add(Finding("note", sentence, about, origin or Origin()))

    def of(self, severity: Severity) -> list[Finding]:
        """Those of one severity, in the order they were found."""
        return [finding for finding in self.all if finding.severity == severity]

    def stop(self) -> None:
        """For whoever would write now: ConfigError with a line for each error, when there is one."""
        errors = self.of("error")
        if errors:
            lines = "".join(f"\n  {finding}" for finding in errors)
            count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
            raise ConfigError(f"nothing was written, {count} in what was given:{lines}")


def label(group: str, name: str | None = None) -> str:
    """How findings name an option or a section."""
    return f"[{group}] {name}" if name else f"[{group}]"
