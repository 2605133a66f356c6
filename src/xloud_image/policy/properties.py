"""Property protection: an operator's file says which roles (or rules) may create, read, update and delete which
properties of images. Whoever may not read a property cannot tell an image that has it from one that has not.

The file is Glance's: sections are regular expressions that are searched in a property's name, the first one that is
found counts, and a name for which none is found is nobody's. What the service writes itself (`os_glance…`) is outside
of it.
"""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from xloud_image.errors import ConfigError
from xloud_image.policy.patterns import TooMuchWork, compile_search

if TYPE_CHECKING:
    from xloud_image.policy.caller import Caller

_LOG = logging.getLogger(__name__)

Action = Literal["create", "read", "update", "delete"]
Check = Callable[["Caller"], bool]

ACTIONS: Final[tuple[Action, ...]] = ("create", "read", "update", "delete")
OWN: Final = "os_glance"  # how the names of properties begin that only the service writes
_OLD: Final = "x-image-meta-property-"  # a header of the first version of the API, which old guides print as sections
_NAMES: Final = 10_000  # whose sections are remembered


@dataclasses.dataclass(frozen=True, slots=True)
class _Section:
    """`found`: whether it is about a name. `checks`: who may do what; None: nobody."""

    pattern: str
    found: Callable[[str], bool]
    checks: Mapping[Action, Check | None]


class Protection:
    """The rules of one file. Safe to ask from any thread."""

    def __init__(self, sections: tuple[_Section, ...], warnings: tuple[str, ...]) -> None:
        self._sections = sections
        self._known: dict[str, _Section | None] = {}
        self.warnings = warnings

    def allows(self, ctx: Caller, action: Action, name: str) -> bool:
        """Whether the caller may do this to a property of this name, whatever image has it."""
        if name.startswith(OWN):
            return True
        section = self._known[name] if name in self._known else self._remembered(name)
        check = section.checks[action] if section is not None else None
        return check is not None and check(ctx)

    def _remembered(self, name: str) -> _Section | None:
        if len(self._known) >= _NAMES:
            self._known.clear()
        found = self._known[name] = self._section(name)
        return found

    def _section(self, name: str) -> _Section | None:
        for section in self._sections:
            try:
                if section.found(name):
                    return section
            except TooMuchWork:
                _LOG.warning("the section [%s] takes too long for a property's name; it is nobody's", section.pattern)
                return None
        return None


def load(file: str, form: str, rule: Callable[[str], Check | None]) -> Protection | None:
    """The rules of a file in which `form`, "roles" or "policies", may do something. None: the file has no section, and
    protects nothing.

    rule: the check of a rule of the policy by its name, None when there is none. `ConfigError`: a sentence with the
    file and what to write.
    """
    lines = _lines(Path(file))
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string("\n".join(lines), file)
    except configparser.Error as error:
        raise ConfigError(f"property_protection_file: {' '.join(str(error).split())}") from None
    sections, warnings = [], []
    for pattern in parser.sections():
        where = f"property_protection_file: {file}, line {_line(lines, pattern)}: the section [{pattern}]"
        if pattern.startswith(OWN):
            warnings.append(
                f"{where} does not count: properties {OWN}… are the service's own, and everybody reads them"
            )
            continue
        given = parser[pattern]
        try:
            _require_sense(pattern, given)
            found = compile_search(pattern)
            checks = {action: _check(given[action], form, rule) for action in ACTIONS}
        except ConfigError as error:
            raise ConfigError(f"{where} {error.message}") from None
        if empty := [action for action in ACTIONS if not given[action].strip()]:
            warnings.append(f"{where} names nobody for {', '.join(empty)}: nobody may")
        sections.append(_Section(pattern, found, checks))
    if not parser.sections():
        _LOG.warning("property_protection_file: %s has no section and protects nothing", file)
        return None
    return Protection(tuple(sections), tuple(warnings))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"property_protection_file: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"property_protection_file: {file} is no text in UTF-8") from None


def _line(lines: list[str], section: str) -> int:
    return next((number for number, line in enumerate(lines, 1) if line.startswith(f"[{section}]")), 0)


def _require_sense(pattern: str, given: Mapping[str, str]) -> None:
    plain = pattern.lower().lstrip("^(")
    if plain.startswith(_OLD):
        name = plain.removeprefix(_OLD).strip(".*$)") or "NAME"
        raise ConfigError(
            "protects nothing, because no property's name begins so: with it every other property would be nobody's. "
            f"Write [^{name}.*], and last of all a section [.*] with what holds for all other properties"
        )
    for option in given:
        if option not in ACTIONS:
            near = difflib.get_close_matches(option, ACTIONS, 1)
            hint = f"; is '{near[0]}' meant?" if near else f"; there are {', '.join(ACTIONS)}"
            raise ConfigError(f"has an unknown '{option}'{hint}")
    if missing := [action for action in ACTIONS if action not in given]:
        raise ConfigError(f"says nothing of {', '.join(missing)}; write ! for nobody")


def _check(text: str, form: str, rule: Callable[[str], Check | None]) -> Check | None:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if "@" in names and "!" in names:
        raise ConfigError("names both '@' (everybody) and '!' (nobody) for one action")
    if not names or "!" in names:
        return None
    if "@" in names:
        return lambda _ctx: True
    if form == "roles":
        roles = frozenset(name.lower() for name in names)
        return lambda ctx: not (roles.isdisjoint(ctx.roles) and roles.isdisjoint(ctx.service_roles))
    if len(names) > 1:
        raise ConfigError(f"names several rules ({text.strip()}) for one action; make one of them in the policy file")
    check = rule(names[0])
    if check is None:
        raise ConfigError(
            f"names the rule '{names[0]}', which the policy file does not have "
            "(property_protection_rule_format is policies)"
        )
    return check
