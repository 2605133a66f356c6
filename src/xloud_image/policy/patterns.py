"""Regular expressions of an operator's file against names that strangers choose: the answer of `re.search`, in bounded
time.

`re` tries one way after the other, and some patterns have more ways than anybody can wait for. Here all places that a
part of the pattern may lead to are followed at once, so that each is looked at once. `tests/policy/test_patterns.py`
proves that both give the same answers.
"""

from __future__ import annotations

import re
import re._constants as kinds  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

from xloud_image.errors import ConfigError

WORK: Final = 200_000  # places looked at for one name, in all patterns of a file: about a tenth of a second
_WORDS: Final = {
    kinds.GROUPREF: "a reference to a group",
    kinds.GROUPREF_EXISTS: "a reference to a group",
    kinds.ATOMIC_GROUP: "an atomic group",
    kinds.POSSESSIVE_REPEAT: "a possessive repeat",
}
_SINGLE: Final = frozenset({kinds.LITERAL, kinds.NOT_LITERAL, kinds.ANY, kinds.IN})


class TooMuchWork(Exception):
    """No answer within WORK."""


class Text:
    """A text that patterns are searched in, and the work that is left for all of them."""

    __slots__ = ("left", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.left = WORK

    def spend(self, work: int) -> None:
        """Raises `TooMuchWork` when no work is left."""
        self.left -= work
        if self.left < 0:
            raise TooMuchWork


Search = Callable[[Text], bool]
_Step = Callable[[Text, set[int]], set[int]]  # the places after a part of the pattern, for those before it
_Test = Callable[[str], bool]


def compile_search(pattern: str) -> Search:
    """Whether the pattern is found anywhere in a text. The function raises `TooMuchWork`.

    `ConfigError` for what is no regular expression, and for the few parts that are not followed here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = re.compile(pattern)
            tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"is no regular expression: {error}") from None
    step = _sequence(tree, tree.state.flags)
    repeats = _quick(tree)
    if repeats is None:
        return lambda text: bool(step(text, set(range(len(text.text) + 1))))

    def quick(text: Text) -> bool:
        text.spend(repeats * len(text.text))
        return plain.search(text.text) is not None

    return quick


def _quick(tree: Any) -> int | None:
    """The repeats of a pattern for which `re` takes no more than the square of a name's length: none, or one of single
    characters. None for any other pattern."""
    repeats = 0
    todo = [tree]
    while todo:
        for kind, value in todo.pop():
            if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
                _, high, body = value
                if high > 1:
                    repeats += 1
                    if len(body) != 1 or body[0][0] not in _SINGLE:
                        return None
                else:
                    todo.append(body)
            elif kind is kinds.SUBPATTERN:
                todo.append(value[3])
            elif kind is kinds.BRANCH:
                todo += value[1]
            elif kind in (kinds.ASSERT, kinds.ASSERT_NOT):
                todo.append(value[1])
    return repeats if repeats <= 1 else None


def _sequence(nodes: Any, flags: int) -> _Step:
    steps = [_step(kind, value, flags) for kind, value in nodes]

    def step(text: Text, places: set[int]) -> set[int]:
        for each in steps:
            if not places:
                break
            places = each(text, places)
        return places

    return step


def _step(kind: Any, value: Any, flags: int) -> _Step:
    if kind in _SINGLE:
        return _one(_test(kind, value, flags))
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        low, high, body = value
        return _repeat(int(low), int(high), _sequence(body, flags))
    if kind is kinds.SUBPATTERN:
        _, more, fewer, body = value
        return _sequence(body, (flags | more) & ~fewer)
    if kind is kinds.BRANCH:
        ways = [_sequence(way, flags) for way in value[1]]
        return lambda text, places: set().union(*[way(text, places) for way in ways])
    if kind is kinds.AT:
        return _at(value, flags)
    if kind in (kinds.ASSERT, kinds.ASSERT_NOT):
        direction, body = value
        back = int(body.getwidth()[0]) if direction < 0 else 0
        return _ahead(_sequence(body, flags), back, direction < 0, wanted=kind is kinds.ASSERT)
    raise ConfigError(f"has {_WORDS.get(kind, str(kind).lower())}, which is not followed here; write it without")


def _one(test: _Test) -> _Step:
    def step(text: Text, places: set[int]) -> set[int]:
        text.spend(len(places) + 1)
        whole = text.text
        return {place + 1 for place in places if place < len(whole) and test(whole[place])}

    return step


def _repeat(low: int, high: int, body: _Step) -> _Step:
    def step(text: Text, places: set[int]) -> set[int]:
        for _ in range(low):
            after = body(text, places)
            if after == places:  # nothing more will change
                break
            places = after
        found, fresh, times = set(places), places, low
        while fresh and times < high:
            fresh = body(text, fresh) - found
            found |= fresh
            times += 1
        return found

    return step


def _ahead(body: _Step, back: int, behind: bool, *, wanted: bool) -> _Step:
    def holds(text: Text, place: int) -> bool:
        if place < back:
            return False
        ends = body(text, {place - back})
        return place in ends if behind else bool(ends)

    return lambda text, places: {place for place in places if holds(text, place) is wanted}


def _at(where: Any, flags: int) -> _Step:
    lines = bool(flags & re.MULTILINE)

    def holds(text: str, place: int) -> bool:
        if where is kinds.AT_BEGINNING:
            return place == 0 or (lines and text[place - 1] == "\n")
        if where is kinds.AT_BEGINNING_STRING:
            return place == 0
        if where is kinds.AT_END:
            last = place == len(text) - 1 or lines
            return place == len(text) or (last and text[place] == "\n")
        if where is kinds.AT_END_STRING:
            return place == len(text)
        word = _category(kinds.CATEGORY_WORD, flags)
        sides = [0 <= at < len(text) and word(text[at]) for at in (place - 1, place)]
        if where is kinds.AT_NON_BOUNDARY and not text:  # what `re` answers
            return False
        return (sides[0] != sides[1]) is (where is kinds.AT_BOUNDARY)

    return lambda text, places: {place for place in places if holds(text.text, place)}


def _test(kind: Any, value: Any, flags: int) -> _Test:
    if kind is kinds.ANY:
        return (lambda _: True) if flags & re.DOTALL else (lambda char: char != "\n")
    if kind is not kinds.IN:
        return _folded([(kinds.LITERAL, value)], flags, negated=kind is kinds.NOT_LITERAL)
    negated = bool(value) and value[0][0] is kinds.NEGATE
    return _folded(value[1:] if negated else value, flags, negated=negated)


def _folded(items: Sequence[Any], flags: int, *, negated: bool) -> _Test:
    """Any of the items, in any case where the flags say so."""
    tests = [_item(kind, value, flags) for kind, value in items]

    def among(char: str) -> bool:
        return any(test(char) for test in tests)

    def folded(char: str) -> bool:
        if flags & re.ASCII and not char.isascii():
            return among(char)
        return among(char) or among(char.lower()) or among(char.upper())

    positive = folded if flags & re.IGNORECASE else among
    return (lambda char: not positive(char)) if negated else positive


def _item(kind: Any, value: Any, flags: int) -> _Test:
    if kind is kinds.LITERAL:
        return chr(value).__eq__
    if kind is kinds.RANGE:
        low, high = map(chr, value)
        return lambda char: low <= char <= high and len(char) == 1
    return _category(value, flags)


def _category(name: Any, flags: int) -> _Test:
    ascii_only = bool(flags & re.ASCII)

    def digit(char: str) -> bool:
        return char.isdecimal() and (char.isascii() or not ascii_only)

    def space(char: str) -> bool:
        return char in " \t\n\r\f\v" if ascii_only else char.isspace()

    def word(char: str) -> bool:
        return char == "_" or (char.isalnum() and (char.isascii() or not ascii_only))

    tests: dict[Any, _Test] = {
        kinds.CATEGORY_DIGIT: digit,
        kinds.CATEGORY_SPACE: space,
        kinds.CATEGORY_WORD: word,
        kinds.CATEGORY_NOT_DIGIT: lambda char: not digit(char),
        kinds.CATEGORY_NOT_SPACE: lambda char: not space(char),
        kinds.CATEGORY_NOT_WORD: lambda char: not word(char),
    }
    return tests[name]
