"""The patterns of a protection file: the answers of `re`, and an end to each of them."""

import random
import re
import time

import pytest

from xloud_image.errors import ConfigError
from xloud_image.policy.patterns import Text, TooMuchWork, compile_search

PATTERNS = [
    "", "a", "^a", "a$", "^$", ".*", "^x_.*", "[abc]+b", "[^a-c]", "(a|b)*c$", "(a|aa)+$", r"\bab\b", r"\Bb",
    r"\d+_\w*\s?", r"^(?!a).*", r"(?=ab)a", r"(?<=a)b", r"(?<!a)b", "(?i)AB[x-z]", "(?i:A)b", "(?s)a.b", "a.b",
    r"\Aa|b\Z",
    "a{2}", "(ab?){2,}c", "(?m)^b", "(?m)a$", "a*?b", "(a*)*b", "(?P<n>a)b", r"\W", r"\S\D", "x?y??z", "(|a)+b",
    "(?a)\\w+", "[^\\d]a",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_answers_are_those_of_re(pattern: str) -> None:
    chance = random.Random(pattern)
    ours, theirs = compile_search(f"(?:{pattern})" if not pattern.startswith("(?") else pattern), re.compile(pattern)
    # the same pattern beside a repeat that cannot matter, so that it is never left to `re`
    slow = compile_search(f"{pattern}(?:(?:)*)*")
    for _ in range(300):
        text = "".join(chance.choice("aabbcxyzAB_1é \n") for _ in range(chance.randrange(9)))
        expected = theirs.search(text) is not None
        assert ours(Text(text)) is expected, text
        assert slow(Text(text)) is expected, text


def test_patterns_made_by_chance() -> None:
    chance = random.Random(1)

    def part(depth: int) -> str:
        if depth == 0:
            return chance.choice(["a", "b", ".", "[ab]", "[^a]", "^", "$", r"\b"])
        one, other = part(depth - 1), part(depth - 1)
        return chance.choice(
            [one + other, f"(?:{one}|{other})", f"(?:{one})*", f"(?:{one})?", f"(?:{one}){{1,2}}", f"(?={one})"]
        )

    for _ in range(400):
        pattern = part(3)
        ours, theirs = compile_search(pattern), re.compile(pattern)
        for _ in range(20):
            text = "".join(chance.choice("ab_") for _ in range(chance.randrange(6)))
            assert ours(Text(text)) is (theirs.search(text) is not None), (pattern, text)


@pytest.mark.parametrize(
    "pattern",
    ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*x", "a*a*a*a*a*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?=(a+)+b)a"],
)
def test_no_name_takes_long(pattern: str) -> None:
    search = compile_search(pattern)
    before = time.process_time()
    assert not search(Text("a" * 254 + "!"))
    assert time.process_time() - before < 2  # `re` would not come back


def test_what_would_take_long_all_the_same_gives_up() -> None:
    with pytest.raises(TooMuchWork):
        compile_search("(?:(?=a*(?=a*(?=a*b|a)))a)*b")(Text("a" * 255))


def test_all_patterns_of_a_file_share_the_work_of_a_name() -> None:
    search, text = compile_search("(a+)+b$"), Text("a" * 255)
    with pytest.raises(TooMuchWork):
        assert not any(search(text) for _ in range(1000))


@pytest.mark.parametrize("pattern", ["(", "[", "a**", "(?P<x", r"(a)\1", "(?>a)b", "a++b", "*.*", "(?P<y>a)(?(y)b)"])
def test_what_is_not_taken_is_told(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"is no regular expression|write it without"):
        compile_search(pattern)
