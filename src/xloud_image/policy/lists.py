"""A rule looked at for a whole list: what it says of all images of a kind, for a database to leave the others out.

A condition may let more through than the rule, never less; the rule itself is asked for each image where that is so.
No SQL stands here: `db.visibility` puts conditions into words.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from oslo_policy import policy as oslo

from xloud_image.policy import checks

# columns that hold the very text that a rule compares
_TEXTS: Final = {
    "id": "id", "image_id": "id", "name": "name", "status": "status", "container_format": "container_format",
    "disk_format": "disk_format", "checksum": "checksum", "os_hash_algo": "os_hash_algo",
    "os_hash_value": "os_hash_value", "project_id": "owner", "owner": "owner", "tenant": "owner",
}  # fmt: skip
_OWNER: Final = frozenset({"project_id", "owner", "tenant"})
_MEMBER: Final = frozenset({"member_id", "member"})


@dataclasses.dataclass(frozen=True, slots=True)
class Equal:
    """The image's column has this value."""

    column: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class Several:
    """All of the conditions ("AND"), or one of them ("OR")."""

    word: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


Condition = Equal | Several


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What a rule says of a kind of images: `condition` False: it allows none; True: any; else those that it may allow.
    `sure`: the condition is all; otherwise the rule must be asked for each image."""

    condition: Condition | bool
    sure: bool


_ANY: Final = Sight(True, sure=True)
_NONE: Final = Sight(False, sure=True)
_UNKNOWN: Final = Sight(True, sure=False)


def sight(check: Any, rules: Mapping[str, Any], creds: Mapping[str, Any], visibility: str, whose: str) -> Sight:
    """What a check, that `checks.compile_rule` took, says of images of one visibility: those of "all" projects, the
    caller's "own", or those of others in which he is a "member"."""
    project = creds["project_id"]

    def of(check: Any) -> Sight:
        if isinstance(check, checks.TRUE):
            return _ANY
        if isinstance(check, checks.FALSE):
            return _NONE
        if isinstance(check, oslo.RuleCheck):
            return of(rules[check.match])
        if isinstance(check, oslo.NotCheck):
            inner = of(check.rule)
            return (
                Sight(not inner.condition, sure=True) if isinstance(inner.condition, bool) and inner.sure else _UNKNOWN
            )
        if isinstance(check, oslo.AndCheck | oslo.OrCheck):
            return _several("AND" if isinstance(check, oslo.AndCheck) else "OR", [of(part) for part in check.rules])
        if isinstance(check, checks.ROLE):
            if "%" in check.match:
                return _UNKNOWN
            return _ANY if check.match.lower() in creds["roles"] else _NONE
        return _several("OR", [compared(check.match, value) for value in _left(check.kind, creds)])

    def compared(right: str, value: str | None) -> Sight:
        if value is None:
            return _UNKNOWN
        if "%" not in right:
            return _ANY if right == value else _NONE
        key = right[2:-2]
        if right != f"%({key})s":
            return _UNKNOWN
        if key == "visibility":
            return _ANY if value == visibility else _NONE
        if key in _MEMBER:
            if visibility != "shared" or value != project:
                return _NONE
            return _ANY if whose == "member" else _UNKNOWN
        if key in _OWNER and whose == "own":
            return _ANY if value == project else _NONE
        if key not in _TEXTS or value == "None":  # so a rule reads an unknown value
            return _UNKNOWN
        return Sight(Equal(_TEXTS[key], value), sure=False)

    return of(check)


def _left(kind: str, creds: Mapping[str, Any]) -> list[str | None]:
    """The texts on the left side of a check; None for one that is not known here."""
    try:
        return [str(ast.literal_eval(kind))]
    except (ValueError, SyntaxError):
        pass
    if "." in kind:
        return [None]
    if kind not in creds:
        return []
    value = creds[kind]
    return [str(one) for one in value] if isinstance(value, frozenset | list | tuple) else [str(value)]


def _several(word: Literal["AND", "OR"], parts: Sequence[Sight]) -> Sight:
    decides = word == "OR"  # the value that decides alone
    if any(part.condition is decides and part.sure for part in parts):
        return _ANY if decides else _NONE
    if not decides and any(part.condition is False for part in parts):
        return _NONE
    if decides and any(part.condition is True for part in parts):
        return _UNKNOWN
    rest = [part for part in parts if not isinstance(part.condition, bool)]
    sure = all(part.sure for part in parts)
    if not rest:
        return Sight(not decides, sure)
    conditions = tuple(part.condition for part in rest if not isinstance(part.condition, bool))
    return Sight(conditions[0] if len(conditions) == 1 else Several(word, conditions), sure)
