"""Both dialects of a PATCH body, read into the same changes; what is malformed says which operation it was."""

from typing import Any

import pytest

from xloud_image.errors import BadRequest
from xloud_image.patch import MAX_LOCATIONS, MAX_OPERATIONS, V20, V21, Change, parse


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ({"add": "/a", "value": 1}, {"op": "add", "path": "/a", "value": 1}, ("a",)),
        ({"replace": "/a~1b", "value": None}, {"op": "replace", "path": "/a~1b", "value": None}, ("a/b",)),
        ({"remove": "/a~0b"}, {"op": "remove", "path": "/a~0b"}, ("a~b",)),
        ({"remove": "/~01"}, {"op": "remove", "path": "/~01"}, ("~1",)),
        ({"add": "/locations/-", "value": {}}, {"op": "add", "path": "/locations/-", "value": {}}, ("locations", "-")),
        ({"replace": "/locations", "value": []}, {"op": "replace", "path": "/locations", "value": []}, ("locations",)),
        ({"remove": "/locations/3"}, {"op": "remove", "path": "/locations/3"}, ("locations", "3")),
    ],
)
def test_the_dialects_say_the_same(old: dict[str, Any], new: dict[str, Any], path: tuple[str, ...]) -> None:
    (change,) = parse([new], V21)
    assert change == Change(new["op"], path, new.get("value"), overwrite=True)
    assert parse([old], V20) == [Change(new["op"], path, new.get("value"), overwrite=False)]
    for other, dialect in ((old, V21), (new, V20)):
        with pytest.raises(BadRequest, match="operation 0"):
            parse([other], dialect)


@pytest.mark.parametrize("document", [None, {}, "x", 5, {"op": "add"}])
def test_no_list(document: Any) -> None:
    with pytest.raises(BadRequest, match="array"):
        parse(document, V21)


@pytest.mark.parametrize(
    "item",
    [
        None, [], "add", {}, {"op": "add"}, {"op": "test", "path": "/a", "value": 1}, {"op": "move", "path": "/a"},
        {"op": ["add"], "path": "/a", "value": 1}, {"op": "add", "path": 5, "value": 1}, {"op": "add", "path": "/a"},
        {"op": "add", "path": "a", "value": 1}, {"op": "add", "path": "", "value": 1},
        {"op": "add", "path": "/", "value": 1}, {"op": "add", "path": "/a/", "value": 1},
        {"op": "add", "path": "//a", "value": 1}, {"op": "add", "path": "/a~", "value": 1},
        {"op": "add", "path": "/a~2", "value": 1}, {"op": "add", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/tags/-", "value": 1}, {"op": "remove", "path": "/tags/0"},
        {"op": "replace", "path": "/locations/0", "value": 1}, {"op": "add", "path": "/locations", "value": 1},
        {"op": "remove", "path": "/locations"}, {"op": "add", "path": "/locations/0/url", "value": 1},
    ],
)  # fmt: skip
def test_what_is_malformed_is_named(item: Any) -> None:
    good = {"op": "add", "path": "/a", "value": 1}
    with pytest.raises(BadRequest, match="operation 1"):
        parse([good, item], V21)


def test_how_many() -> None:
    one = {"op": "remove", "path": "/a"}
    assert len(parse([one] * MAX_OPERATIONS, V21)) == MAX_OPERATIONS
    with pytest.raises(BadRequest):
        parse([one] * (MAX_OPERATIONS + 1), V21)


def test_few_operations_on_locations() -> None:
    def operations(count: int) -> list[dict[str, object]]:
        return [{"op": "remove", "path": f"/locations/{n}"} for n in range(count)]

    assert len(parse(operations(MAX_LOCATIONS), V21)) == MAX_LOCATIONS
    with pytest.raises(BadRequest, match="at most 20 operations on locations"):
        parse(operations(MAX_LOCATIONS + 1), V21)
