"""Each honoured option becomes the setting that its statement names, that setting is read outside of config/, and no
sentence about an option tells of what is not so."""

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.config.conftest import Read
from tests.servers.place import ROOT
from xloud_image.config import settings
from xloud_image.config.findings import Kind
from xloud_image.config.loader import Loaded
from xloud_image.config.options.kinds import Option
from xloud_image.config.options.table import table
from xloud_image.config.stores import COMMON
from xloud_image.stores import TYPES

HONOURED = [option for options in table().values() for option in options.values() if option.kind is Kind.HONOURED]
# enough for a login by Keystone, so that its settings are made
KEYSTONE = (
    "[DEFAULT]\nuse_keystone_limits = true\n"
    "[keystone_authtoken]\nauth_url = x\nusername = a\npassword = a\nproject_name = a\n"
)
TRIED = (
    "true",
    "false",
    "7777",
    "7",
    "a:b",
    "none",
    "qcow2",
    "strict",
    "policies",
    "http_basic",
    "/tmp/x",
    "public",
    "internal",
    "MAC",
    "xattr",
    "10.0.0.0/8",
    "messagingv2",
)


def _parts(whole: Any) -> Iterator[Any]:
    """The values of all classes of settings in one."""
    yield whole
    for field in dataclasses.fields(whole):
        if dataclasses.is_dataclass(value := getattr(whole, field.name)):
            yield from _parts(value)


def _setting(loaded: Loaded, into: str) -> Any:
    part, _, field = into.partition(".")
    (found,) = (getattr(one, field) for one in _parts(loaded.settings) if type(one).__name__ == part)
    return found


@pytest.mark.parametrize("option", HONOURED, ids=lambda option: f"{option.group}-{option.opt.dest}")
def test_an_honoured_option_becomes_the_setting_that_it_names(read: Read, option: Option, tmp_path: Path) -> None:
    under = KEYSTONE
    if option.opt.dest == "anonymous_off_loopback":  # it confirms what is refused without it
        under += "[DEFAULT]\nbind_host = 0.0.0.0\nallow_anonymous_access = true\n"

    if option.group == "audit_middleware_notifications":  # of a filter, which a paste file beside it names
        (tmp_path / "glance-api-paste.ini").write_text("[composite:api]\ndefault = audit\nkeystone = audit\n")

    def outcome(text: str) -> object:
        loaded = read(under, text, open_door=False)
        confirmed = [note for note in loaded.refusals if note.about == "[DEFAULT] allow_anonymous_access"]
        return _setting(loaded, option.into), confirmed

    before = outcome("")
    values = (*TRIED, str(tmp_path))  # of directories those that are there
    assert any(outcome(f"[{option.group}]\n{option.opt.dest} = {value}\n") != before for value in values)


def _watched(path: Path) -> set[str]:
    """Makes a type checker report each use of a field of the classes in this file; the fields, as Class.field.

    Most are taken away; those that hold a class of settings stay, and are called deprecated.
    """
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    inner = re.compile(rf"\b(?:{'|'.join(one.name for one in classes)}|UrlFilters)\b")
    names = set()
    for one in classes:
        one.decorator_list = []
        body: list[ast.stmt] = []
        for node in one.body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                body.append(node)
                continue
            names.add(f"{one.name}.{node.target.id}")
            if inner.search(given := ast.unparse(node.annotation)):
                text = f"@property\n@deprecated('')\ndef {node.target.id}(self) -> {given}: raise OSError"
                body += ast.parse(text).body
        one.body = body
    tree.body[1:1] = ast.parse("from __future__ import annotations\nfrom typing_extensions import deprecated").body
    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    return names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_setting_is_read_outside_of_config(tmp_path: Path) -> None:
    """By the types, not by the names alone: mypy reads a copy of the sources without the settings."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    sources = tmp_path / "src" / "xloud_image"
    fields = _watched(sources / "config" / "settings.py") | _watched(sources / "stores" / "kit" / "filters.py")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--enable-error-code", "deprecated"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # outside of config/ and but for the deployer, which is no part of the service
    lines = [line for line in done.stdout.splitlines() if re.match("src/xloud_image/(?!config/)", line)]
    read = {
        ".".join(match.groups())
        for line in lines
        for match in (
            re.search(r'"(\w+)"(?: of "[^"]*")? has no attribute "(\w+)"', line),
            re.search(r"function [\w.]+\.(\w+)\.(\w+) is deprecated", line),
        )
        if match
    }
    assert len(lines) > 200, done.stdout[-2000:] + done.stderr
    assert not sorted(fields - read)
    assert not {option.into for option in HONOURED} - read


SENTENCES = {
    f"[{option.group}] {name}": option.why or option.opt.help
    for options in table().values()
    for name, option in options.items()
}


def _is_known(group: str, name: str) -> bool:
    stores = {opt.dest for opts in (COMMON, *(one.options for one in TYPES.values())) for opt in opts}
    return name in table()[group] or (group == "glance_store" and name in stores)


def test_each_option_has_a_sentence() -> None:
    assert not [name for name, sentence in SENTENCES.items() if not sentence]
    assert {option.into.partition(".")[0] for option in HONOURED} <= set(vars(settings))


def test_what_sentences_name_is_there() -> None:
    """Options and sections, in the sentences of the table and wherever else one is written `[section] name`."""
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    texts = [*SENTENCES.values(), *(re.sub(r"\"\s+f?\"", "", path.read_text()) for path in places)]
    named = {match for text in texts for match in re.findall(r"\[(\w+)\] ([a-z]+_\w+)", text) if match[0] in table()}
    assert len(named) > 10
    assert not {one for one in named if not _is_known(*one)}


def test_what_is_read_with_another_is_not_called_unread_when_the_other_is_honoured() -> None:
    honoured = {option.opt.dest for option in HONOURED} | {f"[{option.group}]" for option in HONOURED}
    others = {match[1] for text in SENTENCES.values() if (match := re.search(r"is only read with (\S+)$", text))}
    assert not others & honoured
