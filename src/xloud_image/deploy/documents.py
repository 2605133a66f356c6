"""YAML files as names with text and the line of each. Which names there are, and what they mean, is for `keys`.

Every scalar stays the text that was written (null: None), so that a port, a mode and a password look as typed; the
types come from the table of keys. A name that stands twice in one file is an error: YAML readers take either silently.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from xloud_image.deploy.problems import Origin

if TYPE_CHECKING:
    from pathlib import Path

    from xloud_image.deploy.problems import Problems

_NULL: Final = "tag:yaml.org,2002:null"
_VAULT: Final = "$ANSIBLE_VAULT"
_DEEPEST: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One name at the top of a file: text, None, or lists and mappings of these."""

    value: Any = dataclasses.field(repr=False)
    origin: Origin


def read(path: Path, problems: Problems) -> dict[str, Entry]:
    """The names of one file. Whatever keeps it from being read becomes an error; then nothing of it is returned."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.error(f"is not UTF-8 text ({error.reason} at byte {error.start})", origin=Origin(path))
        return {}
    except OSError as error:
        problems.error(f"cannot be read: {error.strerror}", origin=Origin(path))
        return {}
    if text.startswith(_VAULT):
        problems.error(
            "is encrypted by ansible-vault; hand over a decrypted copy (ansible-vault view) that others cannot read",
            origin=Origin(path),
        )
        return {}
    return parse(text, path, problems)


def parse(text: str, path: Path, problems: Problems) -> dict[str, Entry]:
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
    return _entries(root, path, problems)


def _entries(root: yaml.MappingNode, path: Path, problems: Problems) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name_node, node in root.value:
        origin = Origin(path, name_node.start_mark.line + 1)
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            problems.error(f"{name!r} is no name of a key" if name else "a key must be a plain name", origin=origin)
        elif name in found:
            problems.error(f"stands twice; first in line {found[name].origin.line}", name, origin)
        else:
            found[name] = Entry(_plain(node, name, origin, problems), origin)
    return found


def _plain(node: yaml.Node, key: str, origin: Origin, problems: Problems, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        problems.error("is nested too deeply", key, origin)
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, key, origin, problems, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for name, item in node.value:
            if not isinstance(name, yaml.ScalarNode):
                problems.error("has a name that is no text", key, origin)
            elif name.value in found:
                place = Origin(origin.file, name.start_mark.line + 1)
                problems.error(f"has '{name.value}' twice", key, place)
            else:
                found[name.value] = _plain(item, key, origin, problems, depth + 1)
        return found
    assert isinstance(node, yaml.ScalarNode)
    return None if node.tag == _NULL else node.value
