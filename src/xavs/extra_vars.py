"""Values from the command line (`-e`): name=value, a JSON or YAML mapping, or @file, as Ansible takes them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from xavs import yaml_lines
from xavs.findings import Origin
from xavs.yaml_lines import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xavs.findings import Problems
    from xavs.vaults import Vault


def read(texts: Sequence[str], problems: Problems, vault: Vault | None = None) -> dict[str, Entry]:
    """Names and values, later ones winning. What cannot be read becomes an error."""
    found: dict[str, Entry] = {}
    for text in texts:
        if text.startswith("@"):
            found |= yaml_lines.read(Path(text[1:]), problems, vault)
        elif text.lstrip().startswith("{"):
            found |= yaml_lines.parse(text, Path("-e"), problems, vault)
        else:
            found |= _pairs(text, problems)
    return found


def _pairs(text: str, problems: Problems) -> dict[str, Entry]:
    origin = Origin(Path("-e"))
    try:
        words = shlex.split(text)
    except ValueError as error:
        problems.error(f"cannot be read: {error}", origin=origin)
        return {}
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            problems.error("is no name=value", origin=origin)
        else:
            found[name] = Entry(value, origin)
    return found
