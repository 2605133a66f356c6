"""The globals of one run as typed values, each with the line it came from. Which stores they mean is for `plan`.

Order, the later wins: defaults of the table, `globals.yml`, `globals.d/*.yml` by name, the passwords file, `-e`.
A value may hold expressions (see `expressions`), with every other key in them, and what a name of the wider deployment
is by default. An expression that only a node or an inventory could answer is refused in a key that is used here, unless
it is the very text that kolla-ansible has as its default: then our default stands, as if the line were not there.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING, Any, Final

import yaml
from oslo_config import cfg

from xavs import expressions, foreign_names, no_effect, variables
from xavs.expressions import Failed, Unread
from xavs.variables import Key, Type
from xavs.yaml_lines import Entry, Plain
from xloud_image.config.findings import Origin
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xloud_image.config.findings import Findings

_TRUE: Final = frozenset({"yes", "true", "on", "1", "y"})
_FALSE: Final = frozenset({"no", "false", "off", "0", "n"})
_NEARLY: Final = 0.89  # so alike that a name is rather a typing error
_OPTIONS: Final = {opt.dest: f"glance_{opt.dest}" for one in TYPES.values() for opt in one.options}


class Globals:
    """`layers`: from the weakest to the strongest, each name → entry. What is wrong is told to `findings`."""

    def __init__(self, layers: Sequence[Mapping[str, Entry]], findings: Findings) -> None:
        self.findings = findings
        self._entries: dict[str, Entry] = {}
        for layer in layers:
            self._entries |= layer
        self._values: dict[str, Any] = {}
        self._used: set[str] = set()
        self._open: list[str] = []
        self._read: dict[str, Any] = {}
        self._referenced = frozenset[str]().union(
            *(expressions.names_in(text) for entry in self._entries.values() for text in _expressions(entry.value))
        )

    def is_set(self, name: str) -> bool:
        """Whether somebody gave this key a value, under any of its names."""
        return self._found(variables.table()[name]) is not None

    def origin(self, name: str) -> Origin:
        """The line that gave the value, or the default's reason."""
        key = variables.table()[name]
        found = self._found(key)
        if found is None:
            return Origin(why=f"default of {name}: {key.why}" if key.why != "default" else f"default of {name}")
        origin = found[1].origin
        return Origin(origin.file, origin.line, found[0] if origin.file else f"{found[0]}, {origin.why}")

    def get(self, name: str) -> Any:
        """The typed value, or the default (None: there is none)."""
        if name not in self._values:
            key = variables.table()[name]
            found = self._found(key)
            value = None
            if found is not None:
                value = self._typed(key, *found)
            if found is None:
                value = key.default(self) if callable(key.default) else key.default
            self._values[name] = value
        return self._values[name]

    def is_upstreams(self, name: str) -> bool:
        """Whether what was written for a name is what kolla-ansible has as its default."""
        entry = self._entries.get(name)
        return entry is not None and foreign_names.is_default(name, entry.value)

    def text(self, text: str, told: Callable[[str], None]) -> str:
        """A text with its expressions filled in. `told` hears a sentence when that cannot be done."""
        if not expressions.is_one(text):
            return text
        self._referenced |= expressions.names_in(text)
        try:
            found = expressions.read(text, self._name)
        except Failed as error:
            told(error.text)
            return text
        if isinstance(found, (list, dict)):
            told("has an expression that gives a list or a mapping, and a text is needed")
        return "" if found is None else str(found)

    def look_at_names(self) -> list[tuple[str, Entry, str]]:
        """Complain about names that are rather ones of ours, mistyped; the others that mean nothing here, each with the
        reason. What a whole cloud has besides is its own matter."""
        known = variables.names()
        unused, strange = [], []
        for name, entry in self._entries.items():
            if name in no_effect.WITHOUT_MEANING:
                unused.append((name, entry, no_effect.WITHOUT_MEANING[name]))
                if name in no_effect.PROMISES and not _is_off(entry.value) and not self.is_upstreams(name):
                    self.findings.warning(f"has no effect: {no_effect.WITHOUT_MEANING[name]}", name, entry.origin)
            elif name in known or name in variables.shared():
                continue
            elif foreign_names.is_kollas(name):
                unused.append((name, entry, "concerns another service"))
                # TLS between balancer and service has a switch, which is refused
                if (
                    not name.startswith("glance_tls_proxy")
                    and foreign_names.looks_like_ours(name)
                    and not (self.is_upstreams(name) or _is_off(entry.value))
                ):
                    self.findings.warning("has no effect: the image service here does not have it", name, entry.origin)
            elif name in self._referenced:
                continue
            elif name in _OPTIONS:
                self.findings.error(f"is an option of a store; its key is '{_OPTIONS[name]}'", name, entry.origin)
            elif near := self._near(name, known):
                self.findings.error(f"is no key that is known; is '{near}' meant?", name, entry.origin)
            elif foreign_names.looks_like_ours(name):
                self.findings.error("is no key that is known", name, entry.origin)
            else:
                unused.append((name, entry, "concerns another service"))
                if not foreign_names.belongs_elsewhere(name):
                    strange.append(name)
        if strange:
            shown = ", ".join(sorted(strange)[:20]) + (", …" if len(strange) > 20 else "")
            self.findings.note(f"not known here, and taken as other services' own: {shown}")
        return unused

    def _near(self, name: str, known: Mapping[str, Key]) -> str:
        cutoff = 0.75 if foreign_names.looks_like_ours(name) else _NEARLY
        if found := difflib.get_close_matches(name, sorted({*known, *variables.shared()}), 1, cutoff):
            return found[0]
        option = next(iter(difflib.get_close_matches(name, sorted(_OPTIONS), 1, _NEARLY)), "")
        return _OPTIONS.get(option, "")

    def _found(self, key: Key) -> tuple[str, Entry] | None:
        """The name and entry that count; a contradiction between names is told."""
        given = [(name, self._entries[name]) for name in (key.name, *key.also) if self._set(name)]
        if not given:
            given = [(name, self._entries[name]) for name in key.last if self._set(name)][:1]
        if not given:
            return None
        first = given[0]
        for name, entry in given[1:]:
            if name in self._open or first[0] in self._open:
                continue  # one is being made of the other
            if self._shown(name) != self._shown(first[0]):
                shown = "another value" if key.secret else f"'{self._shown(name)}', not '{self._shown(first[0])}'"
                self.findings.error(
                    f"is another name for {first[0]} ({first[1].origin}) and has {shown}; keep one", name, entry.origin
                )
        return first

    def _shown(self, name: str) -> Any:
        """What was written for a name, as it is understood."""
        return self._resolved(name, lambda _: None)

    def _set(self, name: str) -> bool:
        entry = self._entries.get(name)
        if entry is None or entry.value is None or entry.value == "":
            return False
        if next(_expressions(entry.value), None) is None:
            return True
        found = self._value(name)
        if isinstance(found, Failed):
            # what it refers to is one of ours without a value, or upstream's own way to say its default
            return not found.unknown or not (found.name in variables.names() or self.is_upstreams(name))
        return found not in (None, "")

    def emptied(self, name: str) -> Entry | None:
        """The entry of a key that was written with nothing behind it."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.value in ("", None) else None

    def _name(self, name: str) -> Any:
        """The value of a name in an expression. KeyError: it has none; Failed."""
        key = variables.names().get(name)
        if name in self._open or (key is not None and key.name in self._open):
            raise Failed(f"refers to {{{{ {name} }}}}, which refers back to it")
        self._open.append(key.name if key else name)
        try:
            if key is not None:
                return self._of_ours(key)
            if name in self._entries:
                found = self._value(name)
                if isinstance(found, Failed):
                    raise found
                return found
            return _typed_plain(foreign_names.values()[name])
        finally:
            self._open.pop()

    def _of_ours(self, key: Key) -> Any:
        found = self._found(key)
        if found is not None and key.type in (Type.ENTRIES, Type.MAP, Type.NAMES, Type.ANY):
            native = self._value(found[0])
            if isinstance(native, Failed):
                raise native
            return native
        value = self.get(key.name)
        if value is None:
            raise KeyError(key.name)
        return list(value) if isinstance(value, tuple) else value

    def _value(self, name: str) -> Any:
        """What was written for a name with all expressions in it read: native values. A Failed is returned."""
        if name not in self._read:
            mine = name not in self._open
            if mine:
                self._open.append(name)
            try:
                self._read[name] = self._native(self._entries[name].value)
            except Failed as error:
                self._read[name] = error
            finally:
                if mine:
                    self._open.remove(name)
        return self._read[name]

    def _native(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._native(item) for item in value]
        if isinstance(value, dict):
            return {name: self._native(item) for name, item in value.items()}
        if isinstance(value, Unread):
            raise Failed(f"refers to a value that {value}")
        if expressions.is_one(value):
            return expressions.read(value, self._name)
        return value.native if isinstance(value, Plain) else value

    def _resolved(self, name: str, told: Callable[[str], None]) -> Any:
        """As it was written, and expressions replaced by the texts that they mean."""
        entry = self._entries[name]
        if next(_expressions(entry.value), None) is None:
            return entry.value
        found = self._value(name)
        if isinstance(found, Failed):
            told(found.text)
            return None
        return _as_texts(found)

    def _typed(self, key: Key, name: str, entry: Entry) -> Any:
        def wrong(text: str) -> None:
            self.findings.error(text, name, entry.origin)

        before = len(self.findings.of("error"))
        value = self._resolved(name, wrong)
        if len(self.findings.of("error")) > before:
            return None
        shown = "the value" if key.secret else f"'{value}'"
        try:
            value = read_as(key.type, value)
            _judge(key, value)
        except ValueError as error:
            wrong(str(error) or f"{shown} is not {key.type}")
            return None
        return value


def _expressions(value: Any) -> Iterator[str]:
    """Every text with an expression in a value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from _expressions(item)
    elif expressions.is_one(value):
        yield value


def _as_texts(value: Any) -> Any:
    """Native values as they would stand in a file."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return [_as_texts(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _as_texts(item) for name, item in value.items()}
    return value if value is None or isinstance(value, str) else str(value)


@functools.cache
def _typed_plain(text: str) -> Any:
    return yaml.safe_load(text)


def _is_off(value: Any) -> bool:
    return value in (None, "", [], {}) or (isinstance(value, str) and value.strip().lower() in _FALSE)


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
