"""The document at /openapi.json: valid, whole, and of the same mind as what the service enforces."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.conftest import ServiceFactory
from tests.servers.service import Service
from xloud_image import patch, schemas
from xloud_image.api.routes import HEALTH, MINORS, ROUTES
from xloud_image.config.settings import Formats, Limits
from xloud_image.errors import ImageServiceError, QuotaExceeded
from xloud_image.services.image_patch import new_image

# names in the table of minors that stand for what is not built yet
NOT_YET: set[str] = set()
METHODS = ("get", "head", "put", "post", "patch", "delete")


@pytest.fixture(scope="module")
def document() -> Any:
    one = Service()
    one.start()
    answers = [one.request("GET", "/openapi.json") for _ in range(2)]
    assert one.stop() == 0
    assert answers[0].status == 200
    assert answers[0].headers["content-type"] == "application/json"
    assert answers[0].body == answers[1].body
    return answers[0].json()


def test_it_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_every_route_and_no_other(document: Any) -> None:
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in METHODS if method in item
    }
    served = {(route.method, "/healthcheck" if route.path == HEALTH else route.path) for route in ROUTES}
    assert described == served | {("HEAD", path) for method, path in served if method == "GET"}
    assert len(served) == len(ROUTES)


def test_the_table_opens_nothing_by_mistake() -> None:
    assert not [route.path for route in ROUTES if route.open and route.path.startswith("/v2")]
    handlers = [(route.handler, bool(route.body), route.open) for route in ROUTES]
    assert len({handler for handler, _, _ in handlers}) == len(set(handlers)), "a handler is let in in two ways"


def test_minors_name_calls() -> None:
    named = frozenset[str]().union(*MINORS.values())
    names = {route.name for route in ROUTES}
    assert named - names == NOT_YET, "what is built is announced, and is no more called not yet built"


def test_operations_can_be_told_apart(document: Any) -> None:
    names = [item[method]["operationId"] for item in document["paths"].values() for method in METHODS if method in item]
    assert len(names) == len(set(names))


def test_every_schema_is_one(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_nothing_is_referred_to_in_vain(document: Any) -> None:
    parts = {f"#/components/{kind}/{name}" for kind, found in document["components"].items() for name in found}
    used = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document)))
    assert used <= parts
    unused = {part for part in parts - used if "/securitySchemes/" not in part}
    assert not unused


def test_declared_properties_and_formats_are_in_it(service: ServiceFactory) -> None:
    one = service({"image_format": {"disk_formats": "raw,qcow2"}}, start=False)
    kernel = {"type": "string", "enum": ["a", "b"], "description": "Which kernel."}
    (one.directory / "schema-image.json").write_text(json.dumps({"kernel": kernel}))
    one.start()
    fields = one.request("GET", "/openapi.json").json()["components"]["schemas"]["NewImage"]["properties"]
    assert fields["disk_format"]["enum"] == [None, "raw", "qcow2"]
    assert fields["kernel"]["enum"] == ["a", "b"]
    assert one.request("POST", "/v2/images", json={"kernel": "c"}).status == 400


# the schemas and the code that enforces by hand are of one mind

SCHEMA = schemas.ImageSchema(Formats(), {"kernel_id": {"type": "string", "enum": ["a", "b"]}})

names = st.one_of(
    st.sampled_from([*SCHEMA.properties, "os_glance_x", "kernel", "", "x" * 255, "x" * 256]), st.text(max_size=8)
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**31), st.text(max_size=5), st.sampled_from(["a", "raw"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(deadline=None)
@given(st.dictionaries(names, values, max_size=4))
def test_what_the_schema_of_a_new_image_takes_is_taken(body: dict[str, Any]) -> None:
    fits = Draft202012Validator(SCHEMA.new).is_valid(body)
    try:
        new_image(body, owner="p", schema=SCHEMA, limits=Limits())
    except QuotaExceeded:
        return
    except ImageServiceError:
        assert not fits
    else:
        assert fits


pointers = st.one_of(
    st.sampled_from(["/name", "/tags", "/a~1b", "/a~0", "/locations/-"]), st.text("/~01ab", max_size=6)
)
operations = st.fixed_dictionaries(
    {},
    optional={
        "op": st.one_of(st.sampled_from(["add", "replace", "remove", "move"]), scalars),
        "path": st.one_of(pointers, scalars),
        "value": scalars,
        "add": st.one_of(pointers, scalars),
        "replace": pointers,
        "remove": pointers,
    },
)


@pytest.mark.parametrize("kind", patch.MEDIA_TYPES)
@settings(deadline=None)
@example(body=[{"remove": "/name", "replace": "/name"}])
@given(body=st.one_of(st.lists(st.one_of(operations, scalars), max_size=3), values))
def test_what_a_patch_takes_has_the_published_shape(kind: str, body: Any) -> None:
    fits = Draft202012Validator(patch.SHAPES[kind]).is_valid(body)
    try:
        patch.parse(body, kind)
    except ImageServiceError as error:
        reason = error.message
    else:
        assert fits
        return
    # beyond the shape: where a pointer may lead
    beyond = ("too deep", "single tags", "a location", "one location", "use /locations")
    assert not fits or any(words in reason for words in beyond), reason


def test_both_dialects_are_of_one_mind_about_fields(document: Any) -> None:
    """A field's schema is the same in a new image and in both dialects."""
    found = document["components"]["schemas"]
    fields = found["NewImage"]["properties"]
    for name, one in itertools.chain(_of_patch(found["Patch"]), _of_patch(found["OldPatch"])):
        assert one == fields[name]
    assert {name for name, _ in _of_patch(found["Patch"])} == set(fields) - {"id"}


def _of_patch(schema: Any) -> Any:
    for operation in schema["items"]["anyOf"]:
        for one in operation.get("properties", {}).values():
            if "const" in one and one["const"].startswith("/"):
                yield one["const"][1:], operation["properties"]["value"]
