"""The one table of every option that a configuration file may hold, and the class of each. The loader reads by it.

The sections stand in `service`, `access` and `later`; those of a
store with its type, in `stores`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from xloud_image.config.options import access, later, service
from xloud_image.config.options.kinds import Option


@functools.cache
def table() -> Mapping[str, Mapping[str, Option]]:
    """Section → name → option. Sections of stores are not here: which ones exist depends on the file."""
    sections: dict[str, dict[str, Option]] = {}
    for part in (service.SECTIONS, access.SECTIONS, later.SECTIONS):
        for group, options in part.items():
            for option in options:
                assert option.opt.dest not in sections.setdefault(group, {}), option.opt.dest
                sections[group][option.opt.dest] = option
    return sections
