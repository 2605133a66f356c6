"""The passwords file: read, and what is missing in it made once. Nothing is written here.

Only passwords that nobody else has yet are made: those of our own accounts. The administrators' of the database and of
Keystone exist already and must be written by the operator.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from typing import TYPE_CHECKING, Final

from xavs import vaults, yaml_lines
from xloud_image.config.findings import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xavs.vaults import Vault
    from xavs.yaml_lines import Entry
    from xloud_image.config.findings import Findings

MADE: Final = ("glance_database_password", "glance_keystone_password", "memcache_secret_key")
MODE: Final = 0o600
_LENGTH: Final = 40  # letters and digits, 238 bits
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclasses.dataclass(frozen=True, slots=True)
class Passwords:
    """The names of the file. `made`: those that were missing; they count when `text` is written to `path`."""

    path: Path
    entries: Mapping[str, Entry]
    made: tuple[str, ...] = ()
    text: str = dataclasses.field(default="", repr=False)


def read(
    path: Path, findings: Findings, *, given: frozenset[str] = frozenset(), vault: Vault | None = None
) -> Passwords:
    """The file with what is missing in it, and in `given` (names with a value elsewhere); nothing is written."""
    there = path.exists()
    before = len(findings.of("error"))
    found = yaml_lines.read(path, findings, vault) if there else {}
    if len(findings.of("error")) > before:
        return Passwords(path, found)
    missing = [name for name in MADE if name not in given and (name not in found or found[name].value in (None, ""))]
    if not missing:
        return Passwords(path, found)
    text = path.read_text(encoding="utf-8-sig") if there else ""
    if text.startswith(vaults.MARK):
        findings.error(f"is encrypted, so nothing can be added to it; add {', '.join(missing)} with ansible-vault edit",
                       origin=Origin(path))  # fmt: skip
        return Passwords(path, found)
    for name in missing:
        line = f"{name}: {''.join(secrets.choice(_LETTERS) for _ in range(_LENGTH))}\n"
        # a name without a value, as files from a template have it
        empty = re.compile(rf"^{name}:[ \t]*+(?:null|~|\"\"|'')?[ \t]*+(?:#.*)?$\n?", re.MULTILINE)
        text, count = empty.subn(line, text)
        if not count:
            text += ("\n" if text and not text.endswith("\n") else "") + line
    return Passwords(path, yaml_lines.parse(text, path, findings, vault), tuple(missing), text)
