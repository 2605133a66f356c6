"""Rendered lines with their origins, for people. Secrets are masked here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xloud_image.config.masking import MASK, mask
from xloud_image.config.options.table import table
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from xavs.render import Rendered
    from xloud_image.config.files import Line

_SECRET = frozenset(opt.dest for one in TYPES.values() for opt in one.options if opt.secret) | frozenset(
    name for options in table().values() for name, option in options.items() if option.opt.secret
)


def shown(line: Line) -> str:
    """The value as it may be seen: without passwords, those inside addresses included."""
    masked = mask(line.value)
    hide = line.secret or line.key[1] in _SECRET
    return MASK if hide and masked == line.value and line.value else masked


def explain(rendered: Rendered) -> str:
    """Every line of every ini file with where it comes from, and the keys that were not used."""
    parts = []
    for name, lines in rendered.lines.items():
        parts.append(f"# {name}")
        section = None
        width = max((len(f"{line.name} = {shown(line)}") for line in lines), default=0)
        for line in lines:
            if line.section != section:
                section = line.section
                parts.append(f"[{section}]")
            parts.append(f"{f'{line.name} = {shown(line)}':<{min(width, 60)}}  # {line.origin}")
        parts.append("")
    if rendered.unused:
        parts.append("# Not used:")
        parts += [f"#   {entry.origin} {name}: {why}" for name, entry, why in rendered.unused]
    for missing in rendered.facts["missing"]:
        parts.append(f"# Needed before the deployment: {missing}")
    return "\n".join(parts) + "\n"
