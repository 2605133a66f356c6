"""`xloud-image metadefs …`: files of definitions into the database and out of it; and the files of the service."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.home import Home, sentence
from xloud_image.errors import ConfigError
from xloud_image.metadefs import documents, files

TEXT = {"title": "A text", "type": "string"}
STANDARD = files.read(files.STANDARD)


@pytest.fixture
def ready(home: Home) -> Home:
    """With an empty database."""
    home.configure()
    assert home.with_file("db", "upgrade").returncode == 0
    return home


def run(home: Home, *words: str) -> list[str]:
    done = home.with_file("metadefs", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def exported(home: Home) -> dict[str, Any]:
    folder = home.path / "exported"
    run(home, "export", str(folder))
    return {body["namespace"]: sorted_(body) for body in (json.loads(one.read_text()) for one in folder.glob("*.json"))}


def sorted_(body: dict[str, Any]) -> dict[str, Any]:
    """With its resource types in an order: they have none."""
    types = "resource_type_associations"
    return {**body, types: sorted(body[types], key=lambda one: one["name"])} if types in body else body


def write(home: Home, *bodies: Any) -> str:
    folder = home.path / "files"
    folder.mkdir(exist_ok=True)
    for number, body in enumerate(bodies):
        (folder / f"{number}.json").write_text(body if isinstance(body, str) else json.dumps(body))
    return str(folder)


def test_the_standard_namespaces(home: Home) -> None:
    """Loaded when asked for, once; what an operator has made of one stays; and away again."""
    home.configure()
    done = home.with_file("db", "upgrade", "--metadefs")
    assert f"{len(STANDARD)} of {len(STANDARD)} namespaces" in done.stdout
    assert home.with_file("db", "upgrade", "--metadefs").stdout.splitlines()[-1].startswith("0 of")
    assert run(home, "load") == [f"0 namespaces added, 0 changed, {len(STANDARD)} left as they were."]
    found = exported(home)
    assert found == {one.name: sorted_(documents.of_namespace(one)) for one in STANDARD}

    own = {**found["OS::Compute::Watchdog"], "display_name": "Ours", "properties": {"own": TEXT}}
    run(home, "load", write(home, own), "--overwrite")
    run(home, "load")
    assert exported(home)["OS::Compute::Watchdog"] == own
    assert run(home, "load", "--merge")[0] == "changed: OS::Compute::Watchdog changed"
    merged = exported(home)["OS::Compute::Watchdog"]
    assert (merged["display_name"], set(merged["properties"])) == ("Ours", {"own", "watchdog_action"})
    run(home, "load", "--prefer-new")
    assert exported(home)["OS::Compute::Watchdog"]["display_name"] == found["OS::Compute::Watchdog"]["display_name"]

    run(home, "load", write(home, {"namespace": "Own"}))
    assert len(run(home, "unload")) == len(STANDARD)
    assert run(home, "unload") == ["None of them was there."]
    assert run(home, "unload", "--all") == ["changed: Own removed"]


def test_files_of_a_glance(ready: Home) -> None:
    """Also those that it exports, which say null where there is nothing, and what only the service writes."""
    body = {
        "namespace": "Old", "display_name": None, "visibility": "public", "protected": None, "owner": "p1",
        "created_at": "2020-01-01T00:00:00Z", "self": "/v2/metadefs/namespaces/Old",
        "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": None, "properties_target": None}],
        "properties": {"a": {**TEXT, "default": None}},
        "objects": [{"name": "o", "description": None, "properties": {"b": TEXT}, "required": ["b"]}],
        "tags": [{"name": "t"}],
    }  # fmt: skip
    assert run(ready, "load", write(ready, body)) == [
        "changed: Old added", "1 namespaces added, 0 changed, 0 left as they were."
    ]  # fmt: skip
    objects = [{"name": "o", "required": ["b"], "properties": {"b": TEXT}}]
    expected = {
        "namespace": "Old", "visibility": "public", "protected": False, "properties": body["properties"],
        "objects": objects, "tags": [{"name": "t"}], "resource_type_associations": [{"name": "OS::Nova::Flavor"}],
    }  # fmt: skip
    assert exported(ready) == {"Old": expected}
    changed = {**body, "objects": [{"name": "o"}, {"name": "p"}], "tags": [{"name": "u"}],
               "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "x:"}]}  # fmt: skip
    run(ready, "load", write(ready, changed), "--prefer-new")
    found = exported(ready)["Old"]
    assert found["objects"] == [{"name": "o", "properties": {}}, {"name": "p", "properties": {}}]
    assert found["resource_type_associations"] == [{"name": "OS::Nova::Flavor", "prefix": "x:"}]
    assert found["tags"] == [{"name": "t"}, {"name": "u"}]


WRONG: list[tuple[list[Any], str]] = [
    (["{"], "cannot be read as metadata definitions"),
    (["[" * 100_000], "cannot be read as metadata definitions"),
    (['{"namespace": "\udcff"}'], "cannot be read"),
    ([[]], "is not of type 'object'"),
    ([{}], "'namespace' is a required property"),
    ([{"namespace": "a" * 81}], "too long"),
    ([{"namespace": "a", "properties": {"p": {"title": "t"}}}], "'type' is a required property"),
    ([{"namespace": "a", "objects": 7}], "is not of type 'array'"),
    ([{"namespace": "a"}, {"namespace": "a"}], "holds the namespace 'a' twice"),
    ([{"namespace": "good"}, {"namespace": "a", "tags": ["t"]}], "is not of type 'object'"),
    ([], "holds no *.json"),
]


@pytest.mark.parametrize(("bodies", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_wrong_files(tmp_path: Path, bodies: list[Any], reason: str) -> None:
    for number, body in enumerate(bodies):
        text = body if isinstance(body, str) else json.dumps(body)
        (tmp_path / f"{number}.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as refused:
        files.read(tmp_path)
    assert reason in refused.value.message
    assert str(tmp_path) in refused.value.message


def test_a_wrong_file_changes_nothing(ready: Home) -> None:
    large = {"namespace": "a", "properties": {"p": {**TEXT, "enum": ["x" * 70_000]}}}
    assert "a: A definition may have" in sentence(ready.with_file("metadefs", "load", write(ready, large)))
    folder = write(ready, {"namespace": "good"}, {"namespace": "a", "tags": ["t"]})
    assert "1.json: " in sentence(ready.with_file("metadefs", "load", folder))
    assert exported(ready) == {}


def test_wrong_words(home: Home) -> None:
    home.configure()
    assert "contradict" in home.with_file("metadefs", "load", "--prefer-new", "--overwrite").stderr
    assert "takes no file" in home.with_file("metadefs", "unload", "--all", "x").stderr
    assert "cannot be read" in sentence(home.with_file("metadefs", "load", "/nothing"))
    with pytest.raises(ConfigError, match="cannot be written"):
        files.write(home.file, [])


@pytest.mark.parametrize("one", STANDARD, ids=lambda one: one.name)
def test_what_comes_with_the_service(one: Any) -> None:
    """Public and protected, about something, and every text is there for people."""
    assert (one.visibility, one.protected) == ("public", True)
    assert one.display_name
    assert one.description
    assert one.associations
    assert one.properties or one.objects
    for name, each in [*one.properties.items(), *(pair for held in one.objects for pair in held.properties.items())]:
        assert each["title"], name
        assert each["description"].endswith("."), name
        if "enum" in each:
            assert len(set(each["enum"])) == len(each["enum"]) > 0, name
            assert each.get("default", each["enum"][0]) in each["enum"], name
        assert each.get("minimum", 0) <= each.get("maximum", 2**63), name
