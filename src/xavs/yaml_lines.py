"""YAML files as names with text and the line of each. Which names there are, and what they mean, is for `variables`.

Every scalar stays the text that was written (null: None), so that a port, a mode and a password look as typed; the
types come from the table of keys. `!unsafe`, `!vault` and `<<` are read as Ansible reads them. A name of ours that
stands twice in one file is an error: YAML readers take either silently. What cannot be read in a key of another service
is a note: of two the last counts, as for Ansible, and a value that is not read fails where an expression needs it.

A few lines of aliases cannot make more values than `_MORE` besides one for each character of the file.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from xavs import foreign_names, no_effect, variables, vaults
from xavs.expressions import Unread, Unsafe
from xloud_image.config.findings import Origin

if TYPE_CHECKING:
    from pathlib import Path

    from xavs.vaults import Vault
    from xloud_image.config.findings import Findings

_NULL: Final = "tag:yaml.org,2002:null"
_UNSAFE: Final = "!unsafe"
_VAULT: Final = frozenset({"!vault", "!vault-encrypted"})
_NATIVE: Final = frozenset({f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")})
_MERGE: Final = "tag:yaml.org,2002:merge"
_DEEPEST: Final = 20
_MORE: Final = 100_000
_SHOWN: Final = 20  # names in one note


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One name at the top of a file: text, None, or lists and mappings of these."""

    value: Any = dataclasses.field(repr=False)
    origin: Origin


def read(path: Path, findings: Findings, vault: Vault | None = None) -> dict[str, Entry]:
    """The names of one file. Whatever keeps it from being read becomes an error; then nothing of it is returned."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        findings.error(f"is not UTF-8 text ({error.reason} at byte {error.start})", origin=Origin(path))
        return {}
    except OSError as error:
        findings.error(f"cannot be read: {error.strerror}", origin=Origin(path))
        return {}
    if text.startswith(vaults.MARK):
        try:
            text = vaults.open_(text, vault)
        except vaults.Locked as error:
            findings.error(f"is encrypted by ansible-vault; {error}", origin=Origin(path))
            return {}
    return parse(text, path, findings, vault)


def parse(text: str, path: Path, findings: Findings, vault: Vault | None = None) -> dict[str, Entry]:
    """The same of a text that is in memory."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        findings.error(f"is no YAML: {reason}", origin=Origin(path, mark.line + 1 if mark else None))
        return {}
    except (yaml.YAMLError, RecursionError) as error:
        findings.error(f"is no YAML: {str(error).splitlines()[0]}", origin=Origin(path))
        return {}
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL):
        return {}
    if not isinstance(root, yaml.MappingNode):
        findings.error("holds no `name: value` lines", origin=Origin(path, root.start_mark.line + 1))
        return {}
    try:
        return _File(path, findings, vault, _MORE + len(text)).entries(root)
    except RecursionError:
        findings.error("is nested too deeply", origin=Origin(path))
        return {}


def _is_ours(name: str) -> bool:
    return (
        name in variables.shared()
        or foreign_names.looks_like_ours(name)
        or (name in variables.names() and name not in no_effect.WITHOUT_MEANING)
    )


@dataclasses.dataclass(slots=True)
class _File:
    """One file under way. `left`: how many values it may still have; `others`: reason → names that are not ours."""

    path: Path
    findings: Findings
    vault: Vault | None
    left: int
    others: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    merged: dict[int, list[tuple[yaml.Node, yaml.Node]]] = dataclasses.field(default_factory=dict)

    def entries(self, root: yaml.MappingNode) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name_node, node in self.pairs(root):
            origin = Origin(self.path, name_node.start_mark.line + 1)
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                meant = re.sub(r"\W", "_", name)
                if _is_ours(meant):
                    self.findings.error(f"{name!r} is no name of a key; is '{meant}' meant?", origin=origin)
                else:
                    self.other("is no plain name, so nothing can refer to it", repr(name) if name else "?", origin)
                continue
            if name in found:
                self.wrong(name, f"stands twice; first in line {found[name].origin.line}", "stands twice; the last "
                           "counts", origin)  # fmt: skip
                if _is_ours(name):
                    continue
            found[name] = Entry(_Reading(name, origin, self).value(node), origin)
        for reason, names in self.others.items():
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            self.findings.note(f"{reason}: {shown} (not keys of the image service)", origin=Origin(self.path))
        return found

    def wrong(self, name: str, text: str, reason: str, origin: Origin) -> None:
        """What keeps a name from being read: an error if it is ours, else a note of all that have this `reason`."""
        if _is_ours(name):
            self.findings.error(text, name, origin)
        else:
            self.other(reason, name, origin)

    def other(self, reason: str, name: str, origin: Origin) -> None:
        said = f"{name} (line {origin.line})"
        names = self.others.setdefault(reason, [])
        if said not in names[: _SHOWN + 1] and len(names) <= _SHOWN:
            names.append(said)

    def pairs(self, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
        """Name and value of a mapping, with what it merges (`<<`) first: what it says itself counts more."""
        if id(node) in self.merged:
            return self.merged[id(node)]
        self.merged[id(node)] = []  # one that merges itself adds nothing
        own, theirs = [], dict[str, tuple[yaml.Node, yaml.Node]]()
        for name, item in node.value:
            if name.tag != _MERGE:
                own.append((name, item))
                continue
            for one in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                for pair in self.pairs(one) if isinstance(one, yaml.MappingNode) else ():
                    self.left -= 1
                    if isinstance(pair[0], yaml.ScalarNode) and self.left > 0:
                        theirs.setdefault(pair[0].value, pair)
        mine = {name.value for name, _ in own if isinstance(name, yaml.ScalarNode)}
        self.merged[id(node)] = [pair for name, pair in theirs.items() if name not in mine] + own
        return self.merged[id(node)]


class Plain(str):
    """A text that stood without quotes, and that YAML takes for a flag or a number."""

    __slots__ = ()

    @property
    def native(self) -> Any:
        """The flag or the number."""
        try:
            return yaml.safe_load(self)
        except ValueError:  # such as 0x_, or a number of thousands of digits
            return str(self)


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """The value of one name under way."""

    key: str
    origin: Origin
    file: _File

    def value(self, node: yaml.Node, depth: int = 0, *, unsafe: bool = False) -> Any:
        """Texts, lists and mappings of them. What cannot be read is told, and stays unread."""
        unsafe = unsafe or node.tag == _UNSAFE
        self.file.left -= 1
        if depth > _DEEPEST:
            return self._unread("is nested too deeply")
        if self.file.left < 0:
            return self._unread("has too many values, by its aliases or those before it")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1, unsafe=unsafe) for item in self._within(node.value)]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for name, item in self._within(self.file.pairs(node)):
                place = Origin(self.origin.file, name.start_mark.line + 1)
                if not isinstance(name, yaml.ScalarNode):
                    self.file.wrong(self.key, "has a name that is no text", "has a name that is no text", self.origin)
                    continue
                if name.value in found:
                    reason = "has a name twice; the last counts"
                    self.file.wrong(self.key, f"has '{name.value}' twice", reason, place)
                found[name.value] = self.value(item, depth + 1, unsafe=unsafe)
            return found
        assert isinstance(node, yaml.ScalarNode)
        if node.tag in _VAULT:
            try:
                return Unsafe(vaults.open_(node.value, self.file.vault))
            except vaults.Locked as error:
                return self._unread(f"is encrypted by ansible-vault; {error}")
        if unsafe:
            return Unsafe(node.value)
        if node.tag == _NULL:
            return None
        return Plain(node.value) if node.tag in _NATIVE and node.style is None else node.value

    def _within(self, items: list[Any]) -> list[Any]:
        """As many as may still be read, and one more, which says so."""
        return items[: max(0, self.file.left) + 1]

    def _unread(self, text: str) -> Unread | None:
        self.file.wrong(self.key, text, text, self.origin)
        return None if _is_ours(self.key) else Unread(text)
