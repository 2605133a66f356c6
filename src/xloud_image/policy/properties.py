"""Property protection: an operator's file says which roles (or rules) may create, read, update and delete which
properties of images. Whoever may not read a property cannot tell an image that has it from one that has not.

The file is Glance's: sections are regular expressions that are searched in a property's name, the first one that is
found counts, and a name for which none is found is nobody's; so a file without a section leaves every property to
nobody. What `[DEFAULT]` says holds for sections that do not say it. What the service writes itself (`os_glance…`) is
outside of it.
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
from xloud_image.policy.patterns import Search, Text, TooMuchWork, compile_search

if TYPE_CHECKING:
    from xloud_image.policy.caller import Caller

_LOG = logging.getLogger(__name__)

Action = Literal["create", "read", "update", "delete"]
Check = Callable[["Caller"], bool]

ACTIONS: Final[tuple[Action, ...]] = ("create", "read", "update", "delete")
OWN: Final = "os_glance"  # how the names of properties begin that only the service writes
_OLD: Final = "x-image-meta-property-"  # a header of the first version of the API, which old guides print as sections
_NAMES: Final = 10_000  # whose sections are remembered
_LONGEST: Final = 255  # characters of a property's name, in every database
_TOLD: Final = 20  # warnings of one file


@dataclasses.dataclass(frozen=True, slots=True)
class _Section:
    """`found`: whether it is about a name. `checks`: who may do what; None: nobody."""

    pattern: str
    found: Search
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
        if len(name) > _LONGEST:  # no image has it
            return None
        if len(self._known) >= _NAMES:
            self._known.clear()
        found = self._known[name] = self._section(name)
        return found

    def _section(self, name: str) -> _Section | None:
        text = Text(name)
        for section in self._sections:
            try:
                if section.found(text):
                    return section
            except TooMuchWork:
                where = _short(section.pattern)
                _LOG.warning("the sections up to [%s] take too long for a property's name; it is nobody's", where)
                return None
        return None


def load(file: str, form: str, rule: Callable[[str], Check | None]) -> Protection:
    """The rules of a file in which `form`, "roles" or "policies", may do something.

    rule: the check of a rule of the policy by its name, None when there is none. `ConfigError`: a sentence with the
    file and what to write, for what Glance does not start with either.
    """
    text = _read(Path(file))
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text, file)
    except configparser.Error as error:
        raise ConfigError(f"property_protection_file: {_short(' '.join(str(error).split()), 300)}") from None
    lines = _section_lines(text)
    sections, warnings = [], [f"property_protection_file: {file}: [DEFAULT] {odd}" for odd in _odd(parser.defaults())]
    for pattern in parser.sections():
        where = f"property_protection_file: {file}, line {lines.get(pattern, 0)}: the section [{_short(pattern)}]"
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
        own = {option: value for option, value in given.items() if parser.defaults().get(option) != value}
        warnings += [f"{where} {odd}" for odd in _odd(own)]
        if empty := [action for action in ACTIONS if not given[action].strip()]:
            warnings.append(f"{where} names nobody for {', '.join(empty)}: nobody may")
        sections.append(_Section(pattern, found, checks))
    if not sections:
        warnings.append(f"property_protection_file: {file} has no section: nobody may read or write any property")
    if more := len(warnings) - _TOLD:
        warnings[_TOLD:] = [f"property_protection_file: {file}: {more} more of this kind"] if more > 0 else []
    return Protection(tuple(sections), tuple(warnings))


def _read(file: Path) -> str:
    """The text of the file, whose lines end as files' do, not at other characters that Unicode ends lines at."""
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"property_protection_file: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"property_protection_file: {file} is no text in UTF-8") from None


def _section_lines(text: str) -> dict[str, int]:
    """The line of each section."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("["):
            found.setdefault(line[1 : line.rfind("]")], number)
    return found


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _require_sense(pattern: str, given: Mapping[str, str]) -> None:
    plain = pattern.lower().lstrip("^(")
    if plain.startswith(_OLD):
        name = _short(plain.removeprefix(_OLD).strip(".*$)")) or "NAME"
        raise ConfigError(
            "protects nothing, because no property's name begins so: with it every other property would be nobody's. "
            f"Write [^{name}.*], and last of all a section [.*] with what holds for all other properties"
        )
    if missing := [action for action in ACTIONS if action not in given]:
        odd = [hint for option in given if (hint := _meant(option))]
        hints = f" ({', '.join(odd)})" if odd else ""
        raise ConfigError(f"says nothing of {', '.join(missing)}{hints}; write ! for nobody")


def _meant(option: str) -> str:
    """What an unknown option may be meant to be, as a question; empty for none."""
    near = [] if option in ACTIONS else difflib.get_close_matches(option[:_LONGEST], ACTIONS, 1)
    return f"is '{near[0]}' meant by '{_short(option)}'?" if near else ""


def _odd(given: Mapping[str, str]) -> list[str]:
    """What Glance takes without a word and nobody can have meant."""
    found = []
    for option, value in given.items():
        if option not in ACTIONS:
            found.append(f"has '{_short(option)}', which is none of {', '.join(ACTIONS)}, and does nothing")
            continue
        for name in (name.strip() for name in value.split(",")):
            if name not in ("", "@", "!") and (len(name.split()) > 1 or any(char in name for char in "@!#;")):
                once = " ".join(name.split())
                found.append(
                    f"{option}: '{_short(once)}' is taken as one name; names stand between commas, comments alone"
                )
    return found


def _check(text: str, form: str, rule: Callable[[str], Check | None]) -> Check | None:
    if "%" in text.replace("%%", ""):
        raise ConfigError("has a single '%': write '%%' for it; other values of the file are not put in")
    names = [name.strip() for name in text.replace("%%", "%").split(",") if name.strip()]
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
        raise ConfigError(
            f"names several rules ({_short(text.strip())}) for one action; make one of them in the policy file"
        )
    check = rule(names[0])
    if check is None:
        raise ConfigError(
            f"names the rule '{_short(names[0])}', which the policy file does not have "
            "(property_protection_rule_format is policies)"
        )
    return check
