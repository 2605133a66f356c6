"""What the loader has to tell the operator: one line each, never with a secret. Printing is for `config.check`."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

Level = Literal["info", "warning", "refuse"]
LEVELS: Final = ("refuse", "warning", "info")


class Kind(enum.StrEnum):
    """What became of an option, or why else a line is told."""

    HONOURED = "honoured"
    PENDING = "pending"  # known, not yet built
    UNSAFE = "unsafe"  # promises a protection that this release does not give
    IGNORED = "ignored"  # harmless and without meaning here
    UNKNOWN = "unknown"
    GUESS = "guess"  # the loader chose a reading
    INVALID = "invalid"  # cannot be served as written


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """`level` "refuse" keeps the service from starting. `option` is "[section] name" or "[section]", if any."""

    level: Level
    kind: Kind
    text: str
    option: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        where = f" ({self.file})" if self.file else ""
        return f"{self.option}: {self.text}{where}" if self.option else f"{self.text}{where}"


def label(group: str, name: str | None = None) -> str:
    """How notes name an option or a section."""
    return f"[{group}] {name}" if name else f"[{group}]"
