"""Bodies of JSON made to cost: whatever their shape, they are refused or taken in time that is linear and small."""

import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from xloud_image import checking, patch, schemas
from xloud_image.config.settings import Formats, Limits
from xloud_image.errors import BadRequest, ImageServiceError
from xloud_image.model import Image
from xloud_image.services import image_patch

SCHEMA, LIMITS = schemas.ImageSchema(Formats()), Limits()
LOCATION, NEW_LOCATION = checking.Check(schemas.location()), schemas.Shape(schemas.new_location())


def filled(begin: str, end: str, item: Callable[[int], str]) -> Callable[[int], bytes]:
    """A body of about so many bytes: items with commas between a beginning and an end."""

    def make(size: int) -> bytes:
        items, length = [], 0
        while length < size:
            items.append(item(len(items)))
            length += len(items[-1]) + 1
        return (begin + ",".join(items) + end).encode()

    return make


NEW = {
    "tags that are numbers": filled('{"tags":[', "]}", lambda _: "1"),
    "tags that are lists": filled('{"tags":[', "]}", lambda _: "[]"),
    "tags that are objects": filled('{"tags":[', "]}", lambda _: "{}"),
    "equal tags": filled('{"tags":[', "]}", lambda _: '""'),
    "different tags": filled('{"tags":[', "]}", lambda n: f'"{n}"'),
    "one that is wrong at the end": filled('{"tags":[', ",1]}", lambda n: f'"{n}"'),
    "properties": filled("{", "}", lambda n: f'"k{n}":""'),
    "properties of a wrong type": filled("{", "}", lambda n: f'"k{n}":1'),
    "one property again and again": filled("{", "}", lambda _: '"k":"v"'),
    "deep lists": filled('{"tags":[', "]}", lambda _: "[" * 900 + "]" * 900),
    "deep objects": lambda _: b'{"name":' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
    "a long number": lambda size: b'{"min_disk":0.' + b"9" * size + b"}",
    "a long text": lambda size: b'{"name":"' + b"a" * size + b'"}',
    "a long id": lambda size: b'{"id":"' + b"f" * size + b'"}',
    "a list where a word belongs": filled('{"disk_format":[', "]}", lambda _: '"raw"'),
    "a reserved name among many": filled('{"os_glance_x":"",', "}", lambda n: f'"k{n}":""'),
}
PATCHES = {
    "added properties": filled("[", "]", lambda n: f'{{"op":"add","path":"/k{n}","value":""}}'),
    "numbers": filled("[", "]", lambda n: f'{{"op":"add","path":"/min_disk","value":{n}.0}}'),
    "lists of tags": filled("[", "]", lambda _: '{"op":"add","path":"/tags","value":["a","b","c","d","e"]}'),
    "a path of many parts": lambda size: b'[{"op":"add","value":"","path":"/' + b"a/" * (size // 2) + b'b"}]',
    "a path of tildes": lambda size: b'[{"op":"add","value":"","path":"/' + b"~0~1" * (size // 4) + b'"}]',
}
LOCATIONS = {
    "unknown digests": filled('{"url":"x","validation_data":{', "}}", lambda n: f'"k{n}":1'),
    "deep digests": lambda _: b'{"url":"x","validation_data":' + b"[" * 1000 + b"]" * 1000 + b"}",
    "a URL that is a list": filled('{"url":[', "]}", lambda _: '"x"'),
}


def taken(kind: str, body: bytes) -> None:
    checked(kind, orjson.loads(body))


def checked(kind: str, value: Any) -> None:
    if kind == "new":
        image_patch.new_image(value, owner="p", schema=SCHEMA, limits=LIMITS)
    elif kind == "patch":
        image_patch.apply(Image("i"), patch.parse(value, patch.V21), schema=SCHEMA, limits=LIMITS)
    else:
        NEW_LOCATION.require(value)


CASES = [
    pytest.param(kind, make, id=f"{kind}: {name}")
    for kind, found in (("new", NEW), ("patch", PATCHES), ("location", LOCATIONS))
    for name, make in found.items()
]


@pytest.mark.parametrize(("kind", "make"), CASES)
@pytest.mark.usefixtures("no_collector")
def test_a_hostile_body_costs_little(kind: str, make: Callable[[int], bytes]) -> None:
    """Processor time, so that a loaded machine does not matter; the figures are some twenty times what it takes."""
    for size, most in ((64 << 10, 0.3), (1 << 20, 3.0)):
        body = make(size)
        begun = time.process_time()
        refusal = refused(kind, body)
        spent = time.process_time() - begun
        assert spent < most, f"{size} bytes"
        assert refusal is None or (refusal.status in {400, 403, 413} and len(refusal.message) < 500)


def refused(kind: str, body: bytes) -> ImageServiceError | None:
    try:
        taken(kind, body)
    except ImageServiceError as error:
        return error
    return None


def test_changes_one_after_the_other_are_those_of_the_whole() -> None:
    operations = [{"op": "add", "path": f"/k{n}", "value": str(n)} for n in range(4000)]
    operations += [{"op": "remove", "path": f"/k{n}"} for n in range(3999)]
    parsed = patch.parse(operations, patch.V21)
    assert image_patch.apply(Image("i"), parsed, schema=SCHEMA, limits=LIMITS).properties == {"k3999": "3999"}


DEEP: Any = []
for _ in range(2000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", [{"url": "x", "metadata": {"a": DEEP}}, {"url": DEEP, "metadata": {}}, DEEP], ids=["inside", "url", "all"]
)
def test_what_cannot_be_written_down_again_is_refused(value: Any) -> None:
    assert not LOCATION.is_valid(value)
    with pytest.raises(BadRequest, match="nested too deeply"):
        SCHEMA.check("name", DEEP)


# As large as a body may be, of letters that take ten times their room when they are quoted.
HUGE = "\U000e0001" * (9 << 20)
LARGE: dict[str, tuple[str, Any]] = {
    "a digest": ("location", {"url": "x", "validation_data": {"os_hash_algo": "a", "os_hash_value": HUGE}}),
    "a name of a digest": ("location", {"url": "x", "validation_data": {HUGE: 1}}),
    "a URL": ("location", {"url": HUGE}),
    "a property": ("new", {"a": HUGE}),
    "a key": ("new", {HUGE: "x"}),
    "a key inside": ("new", {"a": {HUGE: 1}}),
    "a word": ("new", {"disk_format": HUGE}),
    "a word in a list": ("new", {"disk_format": [[HUGE]]}),
    "a tag": ("new", {"tags": [HUGE]}),
    "a changed property": ("patch", [{"op": "add", "path": "/a", "value": HUGE}]),
    "a path": ("patch", [{"op": "add", "path": f"/{HUGE}", "value": ""}]),
    "many texts": ("location", {"url": {f"{n}{HUGE[:500]}": HUGE[:500] for n in range(8000)}}),
}


@pytest.mark.parametrize("name", LARGE)
def test_words_about_the_largest_bodies_cost_little(name: str) -> None:
    """To say what is wrong with a text takes less than to read it as JSON, give or take."""
    kind, value = LARGE[name]
    begun = time.process_time()
    with pytest.raises(ImageServiceError) as refusal:
        checked(kind, value)
    assert time.process_time() - begun < 0.4
    assert refusal.value.status in {400, 413}
    assert len(refusal.value.message) < 500


def test_the_largest_legal_body_is_taken() -> None:
    value = {f"k{n}": HUGE[:65535] for n in range(128)}
    assert len(image_patch.new_image(value, owner="p", schema=SCHEMA, limits=LIMITS).properties) == 128


def test_words_quote_the_beginning_only() -> None:
    with pytest.raises(BadRequest, match=r"'name': 'a{80}'… is too long") as refusal:
        SCHEMA.check("name", "a" * 1000)
    assert "a" * 81 not in refusal.value.message
    with pytest.raises(BadRequest, match=r"\[1, 1, 1, 1, 1, 1, 1, 1, …\] is not of type"):
        SCHEMA.check("name", [1] * 1000)
