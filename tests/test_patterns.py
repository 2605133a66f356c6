"""No text that others write costs more time than in proportion to its length.

Every regular expression of the sources is found from the syntax trees and tried with texts made from its own parts; one
that is built while the program runs must have its example in BUILT. Functions that take such text apart by other means
stand in FUNCTIONS. Times are processor time, and what is looked at is how they grow.
"""

import ast
import contextlib
import importlib
import re
import time
from collections.abc import Callable, Iterator
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import SimpleNamespace
from typing import Any

import pytest

from tests.servers.place import ROOT
from xloud_image import logs
from xloud_image.api import messages, proxies, sending, wire
from xloud_image.config.masking import CLIPPED, clipped, mask
from xloud_image.config.options.table import table
from xloud_image.errors import ImageServiceError
from xloud_image.identity import basic, tokens

SOURCE = ROOT / "src"
_CALLS = ("compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")

# Patterns that are made of names only known while the program runs: what those names may be.
BUILT: dict[str, dict[str, Any]] = {
    # an operator's own filters of his own globals, on the control host
    "xavs/expressions.py": {"pattern": "a+"},
    "xavs/passwords.py": {"name": "database_password"},
    # how many characters a digest has
    "xloud_image/client/exports.py": {"n": 128},
    # all that the table of options without effect has for values that ask for nothing
    "xloud_image/config/options/kinds.py": {
        "self": SimpleNamespace(
            harmless="|".join(
                f"(?:{option.harmless.replace('(?i)', '')})"
                for options in table().values()
                for option in options.values()
                if option.harmless
            )
        )
    },
    # an operator's own; those that would take long are not given to `re`
    "xloud_image/policy/patterns.py": {"pattern": "a+"},
    "xloud_image/services/candidates.py": {"length": 128},
    "xloud_image/checking.py": {"words": [r"^[a-z_]+(:(asc|desc))?\Z"]},
    "xloud_image/stores/rbd/removal.py": {"key": "a.b-c"},
    "xloud_image/stores/swift/removal.py": {"prefix": "a-", "rest": "[0-9]{5}"},
    "xloud_image/stores/vmware/store.py": {"key": "a.b-c"},
    "xloud_image/api/openapi/parameters.py": {"pair": "[a-z_]+(:(asc|desc))?"},
}


pytestmark = pytest.mark.usefixtures("no_collector")


class Found:
    """One pattern: where it stands, its text, and the ways in which it is applied."""

    def __init__(self, place: str, pattern: "re.Pattern[Any]", ways: set[str]) -> None:
        self.place = place
        self.pattern = pattern
        self.ways = ways


def _module(file: str) -> Any:
    return importlib.import_module(file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))


def _patterns() -> Iterator[Found]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if "re." not in text and '"pattern"' not in text:
            continue
        file = str(path.relative_to(SOURCE))
        tree = ast.parse(text)
        named = {
            id(node.value): target.id
            for node in ast.walk(tree)
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if _is_call(node):
                assert isinstance(node, ast.Call)
                assert isinstance(node.func, ast.Attribute)
                pattern = _evaluate(file, ast.Call(node.func, [node.args[0], *_flags(node)], [])).pattern
                flags = _evaluate(file, ast.Call(node.func, [node.args[0], *_flags(node)], [])).flags
                way = {node.func.attr} if node.func.attr != "compile" else _ways(tree, named.get(id(node)))
                yield Found(f"{file}:{node.lineno}", re.compile(pattern, flags & ~re.UNICODE), way)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "pattern":
                        made = _value(file, value)
                        if isinstance(made, str):  # a schema's, not the function that judges by it
                            yield Found(f"{file}:{value.lineno}", re.compile(made), {"search"})


def _is_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in _CALLS
    )


def _flags(node: ast.Call) -> list[ast.expr]:
    given = [word.value for word in node.keywords if word.arg == "flags"]
    return given or [arg for arg in node.args[1:] if "re." in ast.unparse(arg)][:1]


def _evaluate(file: str, call: ast.Call) -> Any:
    return re.compile(*(_value(file, arg) for arg in call.args))


def _value(file: str, node: ast.expr) -> Any:
    space = {**vars(_module(file)), **BUILT.get(file, {})}
    try:
        return eval(compile(ast.Expression(node), file, "eval"), space)
    except NameError as error:
        raise AssertionError(f"{file}: a pattern is made while the program runs ({error}); list it in BUILT") from None


def _ways(tree: ast.Module, name: str | None) -> set[str]:
    used = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == name
    }
    return (used & set(_CALLS)) or {"search", "fullmatch"}


# texts made from a pattern


def _sample(items: Any) -> str:
    """A short text that the parsed items match, or nearly."""
    return "".join(_one(kind, value) for kind, value in items)


def _one(kind: Any, value: Any) -> str:
    if kind is kinds.LITERAL:
        return chr(value)
    if kind is kinds.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if kind is kinds.ANY:
        return "a"
    if kind is kinds.IN:
        return _of_set(value)
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
        return _sample(value[2]) * max(1, min(value[0], 4))
    if kind is kinds.SUBPATTERN:
        return _sample(value[3])
    if kind is kinds.ATOMIC_GROUP:
        return _sample(value)
    if kind is kinds.BRANCH:
        return _sample(value[1][0])
    return ""


def _of_set(value: Any) -> str:
    allowed = [chr(number) for number in (97, 48, 32, 45, 47, 46, 58, 33, 10, 0, 65, 95, 9)]
    source = re.compile(r"[^\n]")
    first = next((item for item in value if item[0] is not kinds.NEGATE), None)
    if value[0][0] is kinds.NEGATE:
        refused = {chr(item[1]) for item in value if item[0] is kinds.LITERAL}
        return next(char for char in allowed if char not in refused and source.match(char))
    assert first is not None
    if first[0] is kinds.LITERAL:
        return chr(first[1])
    if first[0] is kinds.RANGE:
        return chr(first[1][0])
    return {kinds.CATEGORY_DIGIT: "0", kinds.CATEGORY_SPACE: " ", kinds.CATEGORY_WORD: "a"}.get(first[1], "a")


def _units(items: Any) -> Iterator[str]:
    """Every part of a pattern as a text, the parts of its parts too."""
    yield _sample(items)
    for kind, value in items:
        yield _one(kind, value)
        if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
            yield from _units(value[2])
        elif kind is kinds.SUBPATTERN:
            yield from _units(value[3])
        elif kind is kinds.BRANCH:
            for branch in value[1]:
                yield from _units(branch)


def _texts(pattern: "re.Pattern[Any]") -> Iterator[tuple[str, str, str]]:
    """Beginning, what is repeated, end."""
    items = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
    beginnings = dict.fromkeys(_sample(items[:count]) for count in range(len(items) + 1))
    units = dict.fromkeys(text for text in [*_units(items), " ", "a", "0", "\n", "%", "://"] if text)
    for beginning in beginnings:
        for unit in units:
            for end in ("", "\x01"):
                yield beginning, unit, end


def _seconds(run: Callable[[Any], object], text: Any) -> float:
    """Processor time of the quickest of three runs (the machine does other things too)."""
    best = 1e9
    for _ in range(3):
        begun = time.thread_time()
        with contextlib.suppress(ImageServiceError, ValueError):
            run(text)
        best = min(best, time.thread_time() - begun)
        if best > 1:
            break
    return best


def _grows(run: Callable[[Any], object], make: Callable[[int], Any]) -> str | None:
    """What is wrong with how the time grows with the length of the text; None when it is in proportion."""
    short = _seconds(run, make(4 * 1024))
    if short > 0.04:
        return f"{short:.3f} s for 4 KiB"
    middle = _seconds(run, make(16 * 1024))
    if middle > 0.15:
        return f"{middle:.3f} s for 16 KiB"
    long = _seconds(run, make(64 * 1024))
    if long > 10 * middle + 0.05:  # beside other runs a turn of the processor costs up to twice as much
        return f"{middle:.4f} s for 16 KiB, {long:.4f} s for 64 KiB"
    return f"{long:.3f} s for 64 KiB" if long > 0.8 else None


FOUND = list(_patterns())


def test_they_are_found() -> None:
    places = {found.place.partition(":")[0] for found in FOUND}
    assert len(FOUND) > 60
    ours = ("config/masking", "api/sending", "stores/s3/location", "patch", "schemas")
    assert {"xavs/expressions.py", *(f"xloud_image/{name}.py" for name in ours)} <= places
    # no other library of patterns, and no way of our own to apply them that is not looked for here
    for path in SOURCE.rglob("*.py"):
        assert not re.search(
            r"^(?:from re import|import (?:re as|regex|fnmatch)|from fnmatch)", path.read_text(), re.MULTILINE
        )


@pytest.mark.parametrize("found", FOUND, ids=[found.place for found in FOUND])
def test_a_pattern_takes_time_in_proportion(found: Found) -> None:
    binary = isinstance(found.pattern.pattern, bytes)

    def make(beginning: str, unit: str, end: str, length: int) -> Any:
        text = beginning + unit * (length // len(unit)) + end
        return text.encode("utf-8", "replace") if binary else text

    for way in found.ways:
        run: Callable[[Any], object] = (
            (lambda text: found.pattern.sub(b"" if binary else "", text))
            if way in ("sub", "subn")
            else (lambda text: sum(1 for _ in found.pattern.finditer(text)))
            if way == "finditer"
            else getattr(found.pattern, way)
        )
        # the dearest ones of short texts are tried with long ones
        tried = sorted(
            ((_once(run, make(*parts, 2048)), parts) for parts in dict.fromkeys(_texts(found.pattern))), reverse=True
        )
        for _, parts in tried[:3]:
            wrong = _grows(run, lambda length, parts=parts: make(*parts, length))
            assert wrong is None, f"{found.pattern.pattern!r} by {way}: {wrong}, with {parts!r}"


def _once(run: Callable[[Any], object], text: Any) -> float:
    begun = time.thread_time()
    run(text)
    return time.thread_time() - begun


# what is taken apart by other means

_PIECES = (
    "=?key", "%3Fkey", "?key=", "a://b:", "a://", "://", "a:@", "a://b:@", "@", "%3a%2f%2f", "%3A%2F%2Fa", "%25",
    "%2540",
    "%", "?", "&", "=", " ", "\n", "\x1b", "&a", "a=", "%3d", "%26",
    "/", "//", ",", ";", "-", "0", "a", "\u00e9", '"', "\\",
)  # fmt: skip
_BEFORE = ("", "=%3Fkey", "a://b:", "?token=", "bytes=", "Basic ", "%3A%2F%2Fu%3A")


def _log(text: str) -> object:
    return logs._without_secrets(None, "info", {"event": text, "path": clipped(text)})


def _request(**headers: str) -> Any:
    return SimpleNamespace(headers=headers, method="GET")


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "mask": mask,
    "clipped": clipped,
    "a line of the log": _log,
    "Range": lambda text: sending.requested(_request(Range=text)),
    "Authorization": lambda text: basic.parse(text),
    "a large body": lambda text: wire._require_few_values(text.encode()),
    "Forwarded": proxies._forwarded,
    "a forwarded host": proxies._host,
    "a forwarded address": proxies._address,
    "a date": messages._date,
    "entity tags": lambda text: messages._names(text, '"x"', strong=False),
    "a rule of access": lambda text: tokens._matches("/v2/**i**{name}*e**/**f*{x}*", text),
    "a pattern of access": lambda text: tokens._matches(text, "/v2/images/" + "a" * 200),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_time_in_proportion(name: str) -> None:
    run = FUNCTIONS[name]

    def make(beginning: str, unit: str, end: str, length: int) -> str:
        return beginning + unit * (length // len(unit)) + end

    def quick(text: str) -> float:
        try:
            return _once(run, text)
        except (ImageServiceError, ValueError):
            return 0.0

    tried = sorted(
        (
            (quick(make(before, piece, end, 2048)), (before, piece, end))
            for before in _BEFORE
            for piece in _PIECES
            for end in ("", "@", "=")
        ),
        reverse=True,
    )
    for _, parts in tried[:8]:
        wrong = _grows(run, lambda length, parts=parts: make(*parts, length))
        assert wrong is None, f"{name}: {wrong}, with {parts!r}"


def test_many_patterns_of_access_follow_every_way_at_once() -> None:
    assert tokens._matches("/**" * 200, "/" * 1000)
    assert not tokens._matches("/**a" * 200, "/a" * 199)
    assert tokens._matches("/v2/{a}/*/**", "/v2/images/x/members/y")
    assert not tokens._matches("/v2/{a}", "/v2/")
    assert not tokens._matches("/**", "/" + "a" * 100_000), "no call has such a path"


def test_a_path_in_the_log_is_short_and_keeps_no_secret_behind_the_cut() -> None:
    assert clipped("/v2/images") == "/v2/images"
    assert len(clipped("/" + "a" * 100_000)) == CLIPPED + 1
    # what tells that it is a password stands far behind the cut
    long = "/mysql://u:" + "hunter2" * 3000 + "@db/x"
    assert "hunter2" not in clipped(long)
