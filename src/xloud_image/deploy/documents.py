"""YAML files as names with text and the line of each. Which names there are, and what they mean, is for `keys`.

Every scalar stays the text that was written (null: None), so that a port, a mode and a password look as typed; the
types come from the table of keys. `!unsafe` and `!vault` are read as Ansible reads them. A name that stands twice in
one file is an error: YAML readers take either silently.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from xloud_image.deploy import vaults
from xloud_image.deploy.expressions import Unsafe
from xloud_image.deploy.problems import Origin

if TYPE_CHECKING:
    from pathlib import Path

    from xloud_image.deploy.problems import Problems
    from xloud_image.deploy.vaults import Vault

_NULL: Final = "tag:yaml.org,2002:null"
_UNSAFE: Final = "!unsafe"
_VAULT: Final = frozenset({"!vault", "!vault-encrypted"})
_NATIVE: Final = frozenset({f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")})
_DEEPEST: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One name at the top of a file: text, None, or lists and mappings of these."""

    value: Any = dataclasses.field(repr=False)
    origin: Origin


def read(path: Path, problems: Problems, vault: Vault | None = None) -> dict[str, Entry]:
    """The names of one file. Whatever keeps it from being read becomes an error; then nothing of it is returned."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.error(f"is not UTF-8 text ({error.reason} at byte {error.start})", origin=Origin(path))
        return {}
    except OSError as error:
        problems.error(f"cannot be read: {error.strerror}", origin=Origin(path))
        return {}
    if text.startswith(vaults.MARK):
        try:
            text = vaults.open_(text, vault)
        except vaults.Locked as error:
            problems.error(f"is encrypted by ansible-vault; {error}", origin=Origin(path))
            return {}
    return parse(text, path, problems, vault)


def parse(text: str, path: Path, problems: Problems, vault: Vault | None = None) -> dict[str, Entry]:
    """The same of a text that is in memory."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        problems.error(f"is no YAML: {reason}", origin=Origin(path, mark.line + 1 if mark else None))
        return {}
    except (yaml.YAMLError, RecursionError) as error:
        problems.error(f"is no YAML: {str(error).splitlines()[0]}", origin=Origin(path))
        return {}
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL):
        return {}
    if not isinstance(root, yaml.MappingNode):
        problems.error("holds no `name: value` lines", origin=Origin(path, root.start_mark.line + 1))
        return {}
    return _entries(root, path, problems, vault)


def _entries(root: yaml.MappingNode, path: Path, problems: Problems, vault: Vault | None) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name_node, node in root.value:
        origin = Origin(path, name_node.start_mark.line + 1)
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            problems.error(f"{name!r} is no name of a key" if name else "a key must be a plain name", origin=origin)
        elif name in found:
            problems.error(f"stands twice; first in line {found[name].origin.line}", name, origin)
        else:
            found[name] = Entry(_Reading(name, origin, problems, vault).value(node), origin)
    return found


class Plain(str):
    """A text that stood without quotes, and that YAML takes for a flag or a number."""

    __slots__ = ()

    @property
    def native(self) -> Any:
        """The flag or the number."""
        return yaml.safe_load(self)


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """The value of one name under way."""

    key: str
    origin: Origin
    problems: Problems
    vault: Vault | None

    def value(self, node: yaml.Node, depth: int = 0, *, unsafe: bool = False) -> Any:
        """Texts, lists and mappings of them. What cannot be read becomes an error."""
        unsafe = unsafe or node.tag == _UNSAFE
        if depth > _DEEPEST:
            self.problems.error("is nested too deeply", self.key, self.origin)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1, unsafe=unsafe) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for name, item in node.value:
                if not isinstance(name, yaml.ScalarNode):
                    self.problems.error("has a name that is no text", self.key, self.origin)
                elif name.value in found:
                    place = Origin(self.origin.file, name.start_mark.line + 1)
                    self.problems.error(f"has '{name.value}' twice", self.key, place)
                else:
                    found[name.value] = self.value(item, depth + 1, unsafe=unsafe)
            return found
        assert isinstance(node, yaml.ScalarNode)
        if node.tag in _VAULT:
            try:
                return Unsafe(vaults.open_(node.value, self.vault))
            except vaults.Locked as error:
                self.problems.error(f"is encrypted by ansible-vault; {error}", self.key, self.origin)
                return None
        if unsafe:
            return Unsafe(node.value)
        if node.tag == _NULL:
            return None
        return Plain(node.value) if node.tag in _NATIVE and node.style is None else node.value
