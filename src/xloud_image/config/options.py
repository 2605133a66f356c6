"""The one table of every option that a configuration file may hold, and the class of each. The loader reads by it.

The sections stand in `options_service`, `options_access` and `options_later`; those of stores in `store_options`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
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


@functools.cache
def table() -> Mapping[str, Mapping[str, Option]]:
    """Section → name → option. Sections of stores are not here: which ones exist depends on the file."""
    from xloud_image.config import options_access, options_later, options_service

    sections: dict[str, dict[str, Option]] = {}
    for part in (options_service.SECTIONS, options_access.SECTIONS, options_later.SECTIONS):
        for group, options in part.items():
            for option in options:
                assert option.opt.dest not in sections.setdefault(group, {}), option.opt.dest
                sections[group][option.opt.dest] = option
    return sections
