"""The schemas that are published are those that are enforced; a file of declared properties is checked when read."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from xloud_image import checking, patch, schemas
from xloud_image.api.openapi import answers, parameters
from xloud_image.config.settings import Formats
from xloud_image.errors import BadRequest, ConfigError
from xloud_image.schemas import BASE, READ_ONLY, RESERVED, ImageSchema

SCHEMA = ImageSchema(Formats())

VALUES: list[tuple[str, Any, bool]] = [
    ("name", "n" * 255, True), ("name", "n" * 256, False), ("name", None, True), ("name", 1, False),
    ("id", "6B7B0B63-0000-4000-8000-000000000000", True), ("id", "6b7b0b63", False), ("id", None, False),
    ("visibility", "shared", True), ("visibility", "SHARED", False), ("protected", True, True),
    ("protected", "true", False), ("protected", 1, False), ("min_disk", 0, True), ("min_disk", 2**31 - 1, True),
    ("min_disk", 2**31, False), ("min_disk", -1, False), ("min_disk", 1.5, False), ("min_disk", True, False),
    ("disk_format", "qcow2", True), ("disk_format", None, True), ("disk_format", "QCOW2", False),
    ("container_format", "bare", True), ("tags", [], True), ("tags", ["t" * 255], True), ("tags", ["t" * 256], False),
    ("tags", [1], False), ("tags", None, False),
    ("tags", "a", False), ("tags", [None], False), ("min_disk", 20.0, True), ("min_disk", 20.5, False),
    ("min_ram", float(2**31), False), ("id", "6b7b0b63-0000-4000-8000-000000000000\n", False),
    ("colour", "", True), ("colour", "c" * 65535, True),
    ("colour", "c" * 65536, False), ("colour", None, False), ("colour", {}, False), ("p" * 255, "", True),
    ("p" * 256, "", False), ("", "", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "fits"), VALUES, ids=lambda value: str(value)[:20])
def test_values(name: str, value: Any, fits: bool) -> None:
    if fits:
        SCHEMA.check(name, value)
    else:
        with pytest.raises(BadRequest) as caught:
            SCHEMA.check(name, value)
        assert len(str(caught.value)) < 500, "a sentence, not the value again"
    if name in SCHEMA.properties:
        published = Draft202012Validator(SCHEMA.image["properties"][name])
        assert published.is_valid(value) == fits or str(value).endswith("\n")


def test_every_schema_is_one() -> None:
    for schema in (SCHEMA.image, SCHEMA.images, schemas.member(), schemas.members()):
        Draft202012Validator.check_schema(schema)
    assert set(SCHEMA.properties) >= READ_ONLY | BASE
    for name in READ_ONLY:
        assert SCHEMA.properties[name]["readOnly"]
    assert not (RESERVED | READ_ONLY) & BASE


def test_formats_are_those_of_the_operator() -> None:
    own = ImageSchema(Formats(disk_formats=("raw",), container_formats=("bare",)))
    assert own.image["properties"]["disk_format"]["enum"] == [None, "raw"]
    with pytest.raises(BadRequest):
        own.check("disk_format", "qcow2")


def write(folder: Path, content: Any) -> str:
    path = folder / "schema-image.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_declared_properties(tmp_path: Path) -> None:
    declared = {"cores": {"type": "string", "enum": ["1", "2"]}, "name": {"type": "integer"}}
    own = ImageSchema.load(Formats(), write(tmp_path, declared))
    own.check("cores", "1")
    with pytest.raises(BadRequest, match="cores"):
        own.check("cores", "3")
    assert own.image["properties"]["cores"]["is_base"] is False
    own.check("name", "an own field cannot be declared anew")


@pytest.mark.parametrize("content", ["", "[]", "nonsense", {"a": {"type": "nothing"}}, {"a": 5}])
def test_a_file_that_cannot_be_used(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ConfigError, match=r"schema-image\.json"):
        ImageSchema.load(Formats(), write(tmp_path, content))


def test_no_file(tmp_path: Path) -> None:
    assert ImageSchema.load(Formats(), None).declared == {}
    with pytest.raises(ConfigError):
        ImageSchema.load(Formats(), str(tmp_path / "missing"))


def patterns(schema: Any) -> Iterator[str]:
    """Every pattern in a schema, however deep."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for value in schema.values():
            yield from patterns(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from patterns(value)


EVERY_PATTERN = sorted(
    {
        pattern
        for schema in (
            SCHEMA.image, SCHEMA.new, schemas.member(), schemas.new_location(), schemas.location(),
            *patch.SHAPES.values(), parameters.filters(), answers.HEADERS,
        )
        for pattern in patterns(schema)
    }
)  # fmt: skip


@pytest.mark.parametrize("pattern", EVERY_PATTERN)
def test_a_pattern_ends_where_the_text_ends(pattern: str) -> None:
    """In JSON Schema the dollar is the end of the text; Python's would let a newline follow."""
    strict = checking.anchored(pattern)
    if pattern.endswith("$"):
        assert strict.pattern.endswith(r"\Z")
    check = checking.Check({"type": "string", "pattern": pattern})
    for text in TEXTS:
        assert check.is_valid(text) == (re.search(pattern, text) is not None)
        if re.search(pattern, text) and pattern.endswith("$") and "[^" not in pattern:
            assert not check.is_valid(text + "\n")


TEXTS = (
    "6b7b0b63-0000-4000-8000-000000000000", "d" * 32, "abc", "25", "/a/b", "bytes=0-1", "bytes 0-1/*", "req-1", "v2.17",
    "name:asc", "name:asc,size:desc", "",
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("^a$", "a", "a\n"),
        (r"^a\$$", "a$", "a$\n"),
        ("^[$]$", "$", "$\n"),
        ("^[^$]+$", "ab", "a$"),
        (r"^\\$", "\\", "\\\n"),
        ("^(a|b$)", "b", "b\n"),
    ],
)
def test_the_dollars_of_a_pattern(pattern: str, fits: str, not_fits: str) -> None:
    assert checking.Check({"type": "string", "pattern": pattern}).is_valid(fits)
    assert not checking.Check({"type": "string", "pattern": pattern}).is_valid(not_fits)


def test_no_expression_of_the_sources_ends_before_a_newline() -> None:
    """`$` in an expression of Python stands for two places; `fullmatch` and `\\Z` for one."""
    found = []
    for file in sorted((Path(schemas.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in ("compile", "match", "search", "sub", "split", "findall", "finditer")
            ):
                continue
            words = ast.unparse(node)
            parts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            text = "".join(part.decode() if isinstance(part, bytes) else str(part) for part in parts)
            if "MULTILINE" not in words and checking.anchored(text).pattern != text:
                found.append(f"{file.name}:{node.lineno}: {words}")
    assert not found
