"""Values from strangers checked against JSON schemas: what is wrong, in one sentence, in linear time. No schema stands
here.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError, best_match

Json = dict[str, Any]


@functools.lru_cache(maxsize=256)
def anchored(pattern: str) -> re.Pattern[str]:
    """A schema's pattern with its `$` as JSON Schema means it: the end of the text, not also before a last newline."""
    words, escaped, inside = [], False, False
    for char in pattern:
        if escaped or char == "\\":
            escaped = not escaped
        elif char in "[]":
            inside = char == "["
        elif char == "$" and not inside:
            char = r"\Z"  # noqa: PLW2901
        words.append(char)
    return re.compile("".join(words))


def _pattern(validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "string") and not anchored(pattern).search(value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator: Final[Any] = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _pattern}
)
_ERRORS: Final = 8  # that are compared for the one to tell; a hostile body has as many as it has bytes


# jsonschema writes the whole of a value into the words of each error, however long both are. What it is given are
# copies that are equal in all but that: of them it writes so many characters or items.
_SHOWN, _FEW = 80, 8
_DEPTH: Final = 250  # lists and objects within each other; what is deeper could not be written down again


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{self[:_SHOWN]!r}…"


class _List(list[Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        shown = [repr(item) for item in self[:_FEW]]
        return f"[{', '.join([*shown, '…'] if len(self) > _FEW else shown)}]"


class _Object(dict[str, Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        shown = [f"{name!r}: {item!r}" for name, item in itertools.islice(self.items(), _FEW)]
        return f"{{{', '.join([*shown, '…'] if len(self) > _FEW else shown)}}}"


def _told(value: Any, room: int = _DEPTH) -> Any:
    """The copy of a JSON value for jsonschema. `RecursionError` when it is too deep."""
    if type(value) is str:
        return _Text(value) if len(value) > _SHOWN else value
    if type(value) not in (list, dict):
        return value
    if not room:
        raise RecursionError
    if type(value) is list:
        return _List(_told(item, room - 1) for item in value)
    return _Object((_told(name), _told(item, room - 1)) for name, item in value.items())


class Check:
    """One schema as a check of values; the time is linear in the value's size, whatever its shape.

    Values that fit in the plain ways are let through by functions made of the schema; only what those do not know is
    given to jsonschema, whose verdict counts and which finds the words.
    """

    def __init__(self, schema: Json) -> None:
        self._validator = _Validator(schema, format_checker=FormatChecker())
        self._quick = _quick(schema)
        self._items = Check(schema["items"]) if _is_plain_list(schema) else None

    def is_valid(self, value: Any) -> bool:
        """Whether the value fits."""
        return (self._quick is not None and self._quick(value)) or self.problem(value) is None

    def problem(self, value: Any) -> str | None:
        """One short sentence: why the value does not fit. None when it does."""
        if self._items is not None and isinstance(value, list):
            return next((f"{self._items.problem(one)} (at {n})" for n, one in self._wrong(value)), None)
        try:
            told = _told(value)
            error: ValidationError | None = best_match(itertools.islice(self._validator.iter_errors(told), _ERRORS))
        except (RecursionError, TypeError):
            return "it is nested too deeply"
        if error is None:
            return None
        where = "/".join(str(part) for part in error.absolute_path)[:80]
        message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
        return f"{message} (at {where})" if where else message

    def _wrong(self, values: list[Any]) -> Iterator[tuple[int, Any]]:
        assert self._items is not None
        fits = self._items.is_valid
        return ((n, one) for n, one in enumerate(values) if not fits(one))


def explain(check: Check, value: Any) -> str:
    """One short sentence: why `value` does not fit."""
    return check.problem(value) or "it does not fit"


_Quick = Callable[[Any], bool]
_SAYS_NOTHING: Final = frozenset({"description", "readOnly", "writeOnly", "is_base"})


def _quick(schema: Json) -> _Quick | None:
    """A function that is true only for values that fit; None when the schema has words that are not known here."""
    words = {name: value for name, value in schema.items() if name not in _SAYS_NOTHING}
    if "enum" in words:
        return _quick_choice(words)
    kinds = words.pop("type", None)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or len(kinds) > 2:
        return None
    null = "null" in kinds
    maker = _QUICK.get(next((kind for kind in kinds if kind != "null"), ""))
    made = maker(words) if maker is not None else None
    if made is None or (len(kinds) == 2 and not null):
        return None
    return (lambda value: value is None or made(value)) if null else made


def _quick_choice(words: Json) -> _Quick | None:
    if set(words) - {"enum", "type"} or not all(one is None or isinstance(one, str) for one in words["enum"]):
        return None
    kinds = words.get("type", ["null", "string"])
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if not kinds <= {"null", "string"} or "string" not in kinds:
        return None
    null = "null" in kinds
    choice = frozenset(one for one in words["enum"] if one is not None or null)
    return lambda value: (value is None or type(value) is str) and value in choice


def _quick_text(words: Json) -> _Quick | None:
    if set(words) - {"minLength", "maxLength", "pattern"}:
        return None
    least, most = words.get("minLength", 0), words.get("maxLength", float("inf"))
    if (pattern := words.get("pattern")) is None:
        return lambda value: type(value) is str and least <= len(value) <= most
    search = anchored(pattern).search
    return lambda value: type(value) is str and least <= len(value) <= most and search(value) is not None


def _quick_number(words: Json) -> _Quick | None:
    if set(words) - {"minimum", "maximum"}:
        return None
    least, most = words.get("minimum", float("-inf")), words.get("maximum", float("inf"))
    return lambda value: type(value) is int and least <= value <= most


def _is_plain_list(schema: Json) -> bool:
    return set(schema) - _SAYS_NOTHING == {"type", "items"} and schema["type"] == "array"


def _quick_list(words: Json) -> _Quick | None:
    if set(words) != {"items"} or (one := _quick(words["items"])) is None:
        return None
    return lambda value: type(value) is list and all(map(one, value))


_QUICK: Final[Mapping[str, Callable[[Json], _Quick | None]]] = {
    "string": _quick_text,
    "integer": _quick_number,
    "array": _quick_list,
    "boolean": lambda words: None if words else lambda value: type(value) is bool,
}
