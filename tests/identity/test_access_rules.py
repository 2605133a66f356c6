"""The patterns of access rules: users write them, so no pattern may cost more than its length times the path's."""

import itertools
import re
import time

import pytest

from xloud_image.identity.tokens import Token


def allows(pattern: str, path: str) -> bool:
    token = Token(expires=0, access_rules=(("image", "GET", pattern),))
    return token.allows_call("image", "GET", path)


def meant(pattern: str, path: str) -> bool:
    """The same as an expression, which is slow for some."""
    words = re.split(r"(\*\*|\*|\{[^{}]*\})", pattern)
    kinds = {"**": ".*", "*": "[^/]+"}
    expression = "".join(kinds.get(w) or ("[^/]+" if w.startswith("{") else re.escape(w)) for w in words)
    return re.fullmatch(expression, path, re.DOTALL) is not None


PATTERNS = (
    "/v2/images",
    "/v2/images/*",
    "/v2/**",
    "**",
    "*",
    "/*/*",
    "/**/file",
    "/v2/{a}/b",
    "/a*b",
    "**b**",
    "/*a/**",
    "",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_a_pattern_takes(pattern: str) -> None:
    paths = ["/v2/images", "/v2/images/1", "/v2/images/1/file", "/v2//file", "/", "", "/a\nb", "/v2/x/b"]
    paths += ["".join(one) for length in range(5) for one in itertools.product("/ab", repeat=length)]
    for path in paths:
        assert allows(pattern, path) == meant(pattern, path), path


@pytest.mark.parametrize("pattern", ["**a" * 40, "*a" * 60, "/**" * 40, "{a}b" * 30, "{" * 120, "*{a}" * 30])
@pytest.mark.parametrize("path", ["a" * 65536, "/a" * 2000, "a" * 4000, "/" * 4096])
def test_a_hostile_pattern_costs_little(pattern: str, path: str) -> None:
    begun = time.process_time()
    allows(pattern, path)
    assert time.process_time() - begun < 1.5
