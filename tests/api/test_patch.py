"""PATCH in both dialects: what each operation does to each kind of field, all or nothing, and at once."""

import threading
from typing import Any

import pytest

from tests.api.cloud import V20, V21, Cloud

BEFORE: dict[str, Any] = {"name": "before", "tags": ["t"], "colour": "red", "a/b~c": "odd"}

# path, operation, value, status in v2.1, status in v2.0 (None: the same)
TABLE: list[tuple[str, str, Any, int, int | None]] = [
    ("/name", "replace", "after", 200, None),
    ("/name", "replace", None, 200, None),
    ("/name", "add", "after", 200, 409),
    ("/name", "remove", None, 403, None),
    ("/name", "replace", 7, 400, None),
    ("/name", "replace", "n" * 256, 400, None),
    ("/visibility", "replace", "private", 200, None),
    ("/visibility", "replace", "public", 403, None),
    ("/visibility", "replace", "nobody", 400, None),
    ("/protected", "replace", True, 200, None),
    ("/protected", "replace", "yes", 400, None),
    ("/os_hidden", "replace", True, 200, None),
    ("/min_disk", "replace", 10, 200, None),
    ("/min_disk", "replace", -1, 400, None),
    ("/min_ram", "remove", None, 403, None),
    ("/disk_format", "replace", "qcow2", 200, None),
    ("/container_format", "replace", "ovf", 200, None),
    ("/disk_format", "replace", "tape", 400, None),
    ("/owner", "replace", "beta", 403, None),
    ("/owner", "add", "beta", 403, 409),
    ("/owner", "remove", None, 403, None),
    ("/tags", "replace", ["x", "y"], 200, None),
    ("/tags", "replace", "x", 400, None),
    ("/tags", "replace", [str(n) for n in range(129)], 413, None),
    ("/tags/-", "add", "x", 400, None),
    ("/tags/0", "remove", None, 400, None),
    ("/colour", "replace", "blue", 200, None),
    ("/colour", "add", "blue", 200, 409),
    ("/colour", "remove", None, 200, None),
    ("/colour", "replace", 5, 400, None),
    ("/new", "add", "1", 200, None),
    ("/new", "add", "", 200, None),
    ("/new", "replace", "1", 409, None),
    ("/new", "remove", None, 409, None),
    ("/a~1b~0c", "replace", "escaped", 200, None),
    ("/deep/er", "add", "1", 400, None),
    ("/" + "p" * 256, "add", "1", 400, None),
    ("/id", "replace", "00000000-0000-0000-0000-000000000000", 403, None),
    ("/checksum", "replace", "0" * 32, 403, None),
    ("/checksum", "remove", None, 403, None),
    ("/status", "replace", "active", 403, None),
    ("/size", "add", 1, 403, None),
    ("/created_at", "replace", "x", 403, None),
    ("/os_hash_value", "replace", "x", 403, None),
    ("/deleted", "add", True, 403, None),
    ("/stores", "add", "x", 403, None),
    ("/direct_url", "add", "x", 403, None),
    ("/self", "replace", "x", 403, None),
    ("/os_glance_x", "add", "x", 403, None),
    ("/os_glance_x", "remove", None, 403, None),
]


def operation(op: str, path: str, value: Any, dialect: str) -> dict[str, Any]:
    named = {"op": op, "path": path} if dialect == V21 else {op: path}
    return named if op == "remove" else {**named, "value": value}


@pytest.mark.parametrize("dialect", [V21, V20], ids=["v2.1", "v2.0"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[1]} {row[0][:20]} {str(row[2])[:12]}")
def test_one_operation(cloud: Cloud, dialect: str, row: tuple[str, str, Any, int, int | None]) -> None:
    path, op, value, new, old = row
    status = old if dialect == V20 and old is not None else new
    image_id = cloud.ann.new(**BEFORE)
    before = cloud.ann.show(image_id)
    answer = cloud.ann.patch(image_id, operation(op, path, value, dialect), dialect=dialect)
    assert answer.status == status, answer.body
    after = cloud.ann.show(image_id)
    name = path[1:].replace("~1", "/").replace("~0", "~")
    if status != 200:
        assert after == before
        return
    assert answer.json() == after
    expected = {**before, name: value, "updated_at": after["updated_at"]}
    if op == "remove":
        del expected[name]
    assert {**after, "tags": sorted(after["tags"])} == {**expected, "tags": sorted(expected["tags"])}


def test_all_or_nothing(cloud: Cloud) -> None:
    image_id = cloud.ann.new(**BEFORE)
    before = cloud.ann.show(image_id)
    good = {"op": "replace", "path": "/name", "value": "after"}
    assert cloud.ann.patch(image_id, good, {"op": "remove", "path": "/missing"}).status == 409
    assert cloud.ann.show(image_id) == before
    several = (
        good,
        {"op": "add", "path": "/x", "value": "1"},
        {"op": "replace", "path": "/x", "value": "2"},
        {"op": "remove", "path": "/colour"},
    )
    assert cloud.ann.patch(image_id, *several).status == 200
    after = cloud.ann.show(image_id)
    assert (after["name"], after["x"], "colour" in after) == ("after", "2", False)
    assert cloud.ann.patch(image_id).status == 200, "no operation at all"


def test_limits_of_properties(cloud: Cloud) -> None:
    image_id = cloud.ann.new(**{f"p{n}": "" for n in range(128)})
    assert cloud.ann.patch(image_id, {"op": "add", "path": "/more", "value": ""}).status == 413
    swap = ({"op": "remove", "path": "/p0"}, {"op": "add", "path": "/more", "value": ""})
    assert cloud.ann.patch(image_id, *swap).status == 200


def test_formats_stay_once_there_is_data(cloud: Cloud) -> None:
    image_id = cloud.ann.new(b"data")
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/disk_format", "value": "qcow2"}).status == 403
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/container_format", "value": "ovf"}).status == 403
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/disk_format", "value": "raw"}).status == 200


def test_an_administrator_gives_an_image_away(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    assert cloud.admin.patch(image_id, {"op": "replace", "path": "/owner", "value": "beta"}).status == 200
    assert cloud.ann.ask("GET", f"/v2/images/{image_id}").status == 404
    assert cloud.bob.show(image_id)["owner"] == "beta"
    assert cloud.bob.patch(image_id, {"op": "replace", "path": "/visibility", "value": "community"}).status == 200
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/name", "value": "mine"}).status == 403


def test_concurrent_changes_are_all_there(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    statuses: list[int] = []

    def change(number: int) -> None:
        for turn in range(5):
            value = {"op": "add", "path": f"/p{number}x{turn}", "value": "1"}
            statuses.append(cloud.ann.patch(image_id, value).status)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert sum(name.startswith("p") and "x" in name for name in cloud.ann.show(image_id)) == 40
