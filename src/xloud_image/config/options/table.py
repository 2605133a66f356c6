"""The one table of every option that a configuration file may hold, and the class of each. The loader reads by it.

Honoured ones are fields of the settings, or stand in `derived`; all others in `not_honoured.toml`. Options of stores
are not here (see `stores`): which sections they have depends on the file.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Final

from oslo_config import cfg

from xloud_image.config import settings
from xloud_image.config.findings import Kind
from xloud_image.config.options.derived import DERIVED
from xloud_image.config.options.kinds import FORMS, Option, stated

_ABOUT: Final = frozenset({"why", "harmless", "old", "secret", "several"})


@functools.cache
def table() -> Mapping[str, Mapping[str, Option]]:
    """Section → name → option."""
    sections: dict[str, dict[str, Option]] = {}
    parts = [part for part in vars(settings).values() if isinstance(part, type) and dataclasses.is_dataclass(part)]
    for option in (*(one for part in parts for one in stated(part)), *DERIVED, *_not_honoured()):
        section = sections.setdefault(option.group, {})
        assert option.opt.dest not in section, option
        section[option.opt.dest] = option
    return sections


def _not_honoured() -> Iterator[Option]:
    text = resources.files(__package__).joinpath("not_honoured.toml").read_text("utf-8")
    for kind, reasons in tomllib.loads(text).items():
        for reason in reasons:
            for group in reason.keys() - _ABOUT:
                names = reason[group]
                for name, default in (dict.fromkeys(names.split()) if isinstance(names, str) else names).items():
                    form = cfg.MultiStrOpt if reason.get("several") else FORMS.get(type(default), cfg.StrOpt)
                    opt = form(name, default=default, deprecated_name=reason.get("old"), secret="secret" in reason)
                    yield Option(group, opt, Kind(kind), why=reason["why"], harmless=reason.get("harmless", ""))
