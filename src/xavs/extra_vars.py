"""Values from the command line (`-e`): name=value, a JSON or YAML mapping, or @file, as Ansible takes them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from xavs import yaml_lines
from xavs.yaml_lines import Entry
from xloud_image.config.findings import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xavs.vaults import Vault
    from xloud_image.config.findings import Findings


def read(texts: Sequence[str], findings: Findings, vault: Vault | None = None) -> dict[str, Entry]:
    """Names and values, later ones winning. What cannot be read becomes an error."""
    found: dict[str, Entry] = {}
    for text in texts:
        if text.startswith("@"):
            found |= yaml_lines.read(Path(text[1:]), findings, vault)
        elif text.lstrip().startswith("{"):
            found |= yaml_lines.parse(text, Path("-e"), findings, vault)
        else:
            found |= _pairs(text, findings)
    return found


def _pairs(text: str, findings: Findings) -> dict[str, Entry]:
    origin = Origin(Path("-e"))
    try:
        words = shlex.split(text)
    except ValueError as error:
        findings.error(f"cannot be read: {error}", origin=origin)
        return {}
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            findings.error("is no name=value", origin=origin)
        else:
            found[name] = Entry(value, origin)
    return found
