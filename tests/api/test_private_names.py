"""Names of aiohttp and gunicorn that nobody promised us: which ones are used, that they are there, and that only
releases are taken of which that is known."""

import ast
import inspect
import tomllib
from asyncio import selector_events
from pathlib import Path
from typing import Any

import gunicorn.arbiter
import pytest
from aiohttp import web, web_request

from tests.servers.place import ROOT
from xloud_image.api import connections

SOURCE = ROOT / "src" / "xloud_image"
# class → its private names that we use. Each is set by its constructor, or is a method.
OF_AIOHTTP: dict[Any, set[str]] = {
    web.RequestHandler: {
        "_current_request", "_loop", "_manager", "_messages", "_parser", "_request_count", "_waiter",
    },
    web.Server: {"_kwargs", "_loop"},
    web.AppRunner: {"_make_server"},
    web_request.Request: {"_match_info"},
}  # fmt: skip


def _names(path: Path) -> set[str]:
    """Private attributes that a file uses and that are not set or defined by the class in which they are used; a
    connection's own that it sets (`_parser`) count as used."""
    found: set[str] = set()
    for part in ast.parse(path.read_text()).body:
        used, own = set(), set()
        for node in ast.walk(part):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                is_set = isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"
                is_set &= node.attr not in OF_AIOHTTP[web.RequestHandler]
                (own if is_set else used).add(node.attr)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                (used if node.name == "_make_server" else own).add(node.name)
        found |= used - own
    return found


def test_no_other_private_name_is_used() -> None:
    stated = {name for names in OF_AIOHTTP.values() for name in names}
    found: dict[str, set[str]] = {}
    for path in [*(SOURCE / "api").rglob("*.py"), SOURCE / "server.py", SOURCE / "deaths.py"]:
        if names := _names(path) - {"_replace", "_exit"}:  # documented
            found[path.name] = names
    assert {name for names in found.values() for name in names} == stated, found


@pytest.mark.parametrize(
    ("class_", "name"),
    [(class_, name) for class_, names in OF_AIOHTTP.items() for name in names],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_it_is_there(class_: Any, name: str) -> None:
    names = set(dir(class_)) | {
        attribute
        for one in class_.__mro__
        for attribute in (*getattr(one, "__slots__", ()), *getattr(one, "__annotations__", ()))
    }
    if name not in names:
        constructors = [one.__init__.__code__.co_names for one in class_.__mro__ if hasattr(one.__init__, "__code__")]
        names |= {each for code in constructors for each in code}
    assert name in names


def test_a_request_counts_and_waits_by_them() -> None:
    """What they mean here: our class has no field of its own by such a name."""
    ours = set(connections.Connection.__slots__)
    assert not ours & OF_AIOHTTP[web.RequestHandler]
    assert {"kill_worker", "spawn_workers", "manage_workers", "reap_workers"} <= set(dir(gunicorn.arbiter.Arbiter))


def _made(class_: type, name: str) -> list[str]:
    """The arguments by name with which the source of a class makes the one parser there."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(class_))) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if getattr(node.func, "id", "") == name]
    return [*sorted(str(keyword.arg) for keyword in call.keywords), str(len(call.args))]


def test_the_parser_after_a_large_body_has_the_limits_of_the_first() -> None:
    """Our own is made as aiohttp's: a release that gives it one limit more fails here."""
    ours, theirs = (_made(class_, "HttpRequestParser") for class_ in (connections._Server, web.RequestHandler))
    assert ours == theirs


def test_how_much_a_transport_reads_at_once() -> None:
    """By this name, which a large body changes."""
    assert selector_events._SelectorSocketTransport.max_size == connections.USUAL < connections.PIECE


@pytest.mark.parametrize("library", ["aiohttp", "gunicorn"])
def test_only_known_releases_are_taken(library: str) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = [one for one in wanted if one.startswith(f"{library}>")]
    assert ",<" in line
