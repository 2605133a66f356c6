"""An option of a configuration file and its class: what it does here. The options themselves stand beside this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from xloud_image.config.notes import Kind

Matters = Callable[[Any], bool]


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An option and its class. `why` ends the note about it; `matters` tells from the typed value whether to note."""

    opt: cfg.Opt
    kind: Kind
    why: str = ""
    matters: Matters | None = None

    def concerns(self, value: Any) -> bool:
        """Whether this value, set in a file, deserves a note; by default when it is not the default."""
        return self.matters(value) if self.matters else bool(value != self.opt.default)


Section = tuple[Option, ...]


def honoured(*opts: cfg.Opt) -> Section:
    """Options that do here what operators expect."""
    return tuple(Option(opt, Kind.HONOURED) for opt in opts)


def pending(why: str, *opts: cfg.Opt | str, matters: Matters | None = None) -> Section:
    """Options of things that are not built yet; the names alone stand for plain text."""
    return tuple(Option(_opt(opt), Kind.PENDING, why, matters) for opt in opts)


def unsafe(why: str, *opts: cfg.Opt | str, matters: Matters | None = None) -> Section:
    """Options that promise a protection which this release would not give: they keep it from starting."""
    return tuple(Option(_opt(opt), Kind.UNSAFE, why, matters) for opt in opts)


def ignored(why: str, names: str) -> Section:
    """Options, by name, without meaning here; leaving them out loses nothing that a client could see."""
    return tuple(Option(_opt(name), Kind.IGNORED, why, lambda _: True) for name in names.split())


def _opt(opt: cfg.Opt | str) -> cfg.Opt:
    return cfg.StrOpt(opt) if isinstance(opt, str) else opt
