"""The globals of one run as typed values, each with the line it came from. Which stores they mean is for `choice`.

Order, the later wins: defaults of the table, `globals.yml`, `globals.d/*.yml` by name, the passwords file, `-e`.
A value may hold `{{ name }}` of another key, nothing more: expressions and filters belong to another tool, and a value
that was misread would be deployed. They are refused in keys that are used here, and left alone in all others.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg

from xloud_image.deploy import elsewhere, keys
from xloud_image.deploy.documents import Entry
from xloud_image.deploy.keys import Key, Type
from xloud_image.deploy.problems import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xloud_image.deploy.problems import Problems

_TRUE: Final = frozenset({"yes", "true", "on", "1", "y"})
_FALSE: Final = frozenset({"no", "false", "off", "0", "n"})
_REFERENCE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_NEARLY: Final = 0.94  # so alike that a name of the wider deployment is rather a typing error


class Globals:
    """`layers`: from the weakest to the strongest, each name → entry. What is wrong is told to `problems`."""

    def __init__(self, layers: Sequence[Mapping[str, Entry]], problems: Problems) -> None:
        self.problems = problems
        self._entries: dict[str, Entry] = {}
        for layer in layers:
            self._entries |= layer
        self._layers = layers
        self._values: dict[str, Any] = {}
        self._used: set[str] = set()
        self._open: list[str] = []
        self._referenced = {name for entry in self._entries.values() for name in _REFERENCE.findall(_flat(entry.value))}

    def is_set(self, name: str) -> bool:
        """Whether somebody gave this key a value, under any of its names."""
        return self._found(keys.table()[name]) is not None

    def origin(self, name: str) -> Origin:
        """The line that gave the value, or the default's reason."""
        key = keys.table()[name]
        found = self._found(key)
        if found is None:
            return Origin(why=f"default of {name}: {key.why}" if key.why != "default" else f"default of {name}")
        origin = found[1].origin
        return Origin(origin.file, origin.line, found[0] if origin.file else f"{found[0]}, {origin.why}")

    def get(self, name: str) -> Any:
        """The typed value, or the default (None: there is none)."""
        if name not in self._values:
            key = keys.table()[name]
            found = self._found(key)
            value = None
            if found is not None:
                value = self._typed(key, *found)
            if found is None:
                value = key.default(self) if callable(key.default) else key.default
            self._values[name] = value
        return self._values[name]

    def raw(self, name: str) -> Entry | None:
        """What was written for a name, also for one that is in no table."""
        return self._entries.get(name)

    def text(self, text: str, told: Callable[[str], None]) -> str:
        """A text with its references filled in. `told` hears a sentence when that cannot be done."""
        if "{%" in text:
            told("has a {% statement %}, which is not read here: write the value")
            return text
        self._referenced.update(_REFERENCE.findall(text))
        filled = _REFERENCE.sub(lambda match: self._reference(match[1], told), text)
        if re.search(r"\{\{", _REFERENCE.sub("", text)):
            told("has an expression in {{ }}; only the plain name of another key is read here: write the value")
        return filled

    def look_at_names(self) -> list[tuple[str, Entry, str]]:
        """Complain about unknown names; the known ones that mean nothing here, each with the reason."""
        known = keys.names()
        unused = []
        for name, entry in self._entries.items():
            if name in keys.WITHOUT_MEANING:
                unused.append((name, entry, keys.WITHOUT_MEANING[name]))
            elif name in known or name in keys.shared() or name in self._referenced:
                continue
            elif near := self._near(name, known):
                self.problems.error(f"is no key that is known; is '{near}' meant?", name, entry.origin)
            elif elsewhere.belongs_elsewhere(name):
                unused.append((name, entry, "concerns another service"))
            else:
                self.problems.error("is no key that is known", name, entry.origin)
        return unused

    def _near(self, name: str, known: Mapping[str, Key]) -> str:
        cutoff = _NEARLY if elsewhere.belongs_elsewhere(name) else 0.6
        return next(iter(difflib.get_close_matches(name, sorted(known), 1, cutoff)), "")

    def _found(self, key: Key) -> tuple[str, Entry] | None:
        """The name and entry that count; a contradiction between names is told."""
        given = [(name, self._entries[name]) for name in (key.name, *key.also) if self._set(name)]
        if not given:
            given = [(name, self._entries[name]) for name in key.last if self._set(name)][:1]
        if not given:
            return None
        first = given[0]
        for name, entry in given[1:]:
            if entry.value != first[1].value:
                shown = "another value" if key.secret else f"'{entry.value}', not '{first[1].value}'"
                self.problems.error(
                    f"is another name for {first[0]} ({first[1].origin}) and has {shown}; keep one", name, entry.origin
                )
        return first

    def _set(self, name: str) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.value is not None and entry.value != ""

    def emptied(self, name: str) -> Entry | None:
        """The entry of a key that was written with nothing behind it."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.value in ("", None) else None

    def _reference(self, name: str, told: Callable[[str], None]) -> str:
        key = keys.names().get(name)
        if key is None and name not in self._entries:
            told(f"refers to {{{{ {name} }}}}, which is not given")
            return ""
        if name in self._open:
            told(f"refers to {{{{ {name} }}}}, which refers back to it")
            return ""
        self._open.append(name)
        try:
            value = self.get(key.name) if key else self._resolved(self._entries[name].value, told)
        finally:
            self._open.pop()
        if value is None or isinstance(value, (list, dict, tuple)):
            told(f"refers to {{{{ {name} }}}}, which has no text to put there")
            return ""
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)

    def _resolved(self, value: Any, told: Callable[[str], None]) -> Any:
        if isinstance(value, str):
            return self.text(value, told)
        if isinstance(value, list):
            return [self._resolved(item, told) for item in value]
        if isinstance(value, dict):
            return {name: self._resolved(item, told) for name, item in value.items()}
        return value

    def _typed(self, key: Key, name: str, entry: Entry) -> Any:
        def wrong(text: str) -> None:
            self.problems.error(text, name, entry.origin)

        before = len(self.problems.of("error"))
        self._open.append(name)
        try:
            value = self._resolved(entry.value, wrong)
        finally:
            self._open.pop()
        if len(self.problems.of("error")) > before:
            return None
        shown = "the value" if key.secret else f"'{value}'"
        try:
            value = read_as(key.type, value)
            _judge(key, value)
        except ValueError as error:
            wrong(str(error) or f"{shown} is not {key.type}")
            return None
        return value


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(map(_flat, value.values()))
    return " ".join(map(_flat, value)) if isinstance(value, list) else str(value or "")


def read_as(type_: Type, value: Any) -> Any:
    """A value of YAML (texts, lists, mappings) in a type of the table. ValueError without words: it is not of it."""
    if type_ is Type.ANY:
        return value
    if type_ is Type.NAMES:
        if isinstance(value, str):
            return [part for part in (part.strip() for part in re.split(r"[,\n]", value)) if part]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise ValueError
    if type_ is Type.ENTRIES:
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
        raise ValueError
    if type_ is Type.MAP:
        if isinstance(value, dict):
            return value
        raise ValueError
    if not isinstance(value, str):
        raise ValueError
    text = value.strip()
    if type_ is Type.FLAG:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError
        return text.lower() in _TRUE
    if type_ in (Type.NUMBER, Type.PORT):
        number = int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
        if number is None or (type_ is Type.PORT and not 0 < number < 65536):
            raise ValueError
        return number
    if type_ is Type.URL and not re.match(r"https?://[^\s/]", text):
        raise ValueError
    if "\n" in text:
        raise ValueError("has several lines")
    return text


def _judge(key: Key, value: Any) -> None:
    if key.choices and value not in key.choices:
        raise ValueError(f"'{value}' is none of {', '.join(key.choices)}")
    if key.option is None or isinstance(key.option, (cfg.ListOpt, cfg.MultiStrOpt, cfg.DictOpt)):
        return
    try:
        key.option.type(str(value))
    except ValueError as error:
        raise ValueError("the value is not allowed" if key.secret else f"'{value}' is not allowed: {error}") from None
