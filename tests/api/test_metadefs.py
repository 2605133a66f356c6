"""Metadata definitions: every call, who may ask it, and the calls of the dashboards in their order."""

import json
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud
from xloud_image.db.metadef_parts import MOST
from xloud_image.metadefs import files

ROOT = "/v2/metadefs/namespaces"
TEXT = {"title": "A text", "type": "string"}
HELD = {
    "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}, {"name": "OS::Nova::Flavor"}],
    "properties": {"bus": {**TEXT, "enum": ["virtio", "scsi"], "default": "virtio", "operators": ["<or>"]}},
    "objects": [
        {"name": "limits", "description": "How much.", "required": ["most"], "properties": {"most": TEXT}},
        {"name": "nothing"},
    ],
    "tags": [{"name": "b"}, {"name": "a"}],
}


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left(cloud: Cloud) -> Iterator[None]:
    yield
    for one in listed(cloud.admin, "limit=1000"):
        cloud.admin.ask("PUT", path(one), json={"namespace": one, "protected": False})
        assert cloud.admin.ask("DELETE", path(one)).status == 204


def path(*parts: str) -> str:
    return "/".join([ROOT, *[urllib.parse.quote(part, safe="") for part in parts]])


def listed(caller: Caller, query: str = "") -> list[str]:
    answer = caller.ask("GET", f"{ROOT}?{query}")
    assert answer.status == 200, answer
    return [one["namespace"] for one in answer.json()["namespaces"]]


def new(cloud: Cloud, name: str = "", **fields: Any) -> str:
    """The name of a new namespace of the operators'."""
    body = {"namespace": name or f"Test::{uuid.uuid4().hex}", "visibility": "public", **fields}
    answer = cloud.admin.ask("POST", ROOT, json=body)
    assert answer.status == 201, answer
    made: str = answer.json()["namespace"]
    return made


def error(answer: Any) -> str:
    """The sentence of a refusal."""
    found = answer.json()
    message: str = found.get("error", found)["message"]
    assert message
    return message


def test_a_namespace_and_all_that_it_holds(cloud: Cloud) -> None:
    body = {"namespace": "Test::Whole", "display_name": "Whole", "description": "All of it.", **HELD}
    answer = cloud.admin.ask("POST", ROOT, json=body)
    assert answer.status == 201, answer
    assert answer.headers["location"] == cloud.service.url + answer.json()["self"]
    found = cloud.admin.ask("GET", path("Test::Whole")).json()
    assert found == answer.json()
    assert (found["visibility"], found["protected"], found["owner"]) == ("private", False, "operators")
    assert found["self"] == "/v2/metadefs/namespaces/Test::Whole"
    assert found["schema"] == "/v2/schemas/metadefs/namespace"
    assert found["properties"] == HELD["properties"]
    assert found["tags"] == HELD["tags"][::-1], "the newest first, as with Glance"
    assert [one["name"] for one in found["objects"]] == ["limits", "nothing"]
    assert found["objects"][0]["self"].endswith("/objects/limits")
    assert found["objects"][1]["required"] == []
    assert found["objects"][1]["properties"] == {}
    assert [(one["name"], one.get("prefix")) for one in found["resource_type_associations"]] == [
        ("OS::Glance::Image", "hw_"),
        ("OS::Nova::Flavor", None),
    ]
    # as the metadata of an image has them
    seen = cloud.admin.ask("GET", f"{path('Test::Whole')}?resource_type=OS::Glance::Image").json()
    assert list(seen["properties"]) == ["hw_bus"]
    assert list(seen["objects"][0]["properties"]) == seen["objects"][0]["required"] == ["hw_most"]
    for other in ("OS::Nova::Flavor", "OS::Nothing"):
        assert cloud.admin.ask("GET", f"{path('Test::Whole')}?resource_type={other}").json() == found

    assert "There is a namespace" in error(cloud.admin.ask("POST", ROOT, json=body))
    # another name; what it holds stays, and so does the owner
    change = {"namespace": "Test::Changed", "visibility": "public", "protected": True}
    changed = cloud.admin.ask("PUT", path("Test::Whole"), json=change).json()
    assert {name: changed[name] for name in change} == change
    assert "display_name" not in changed
    assert cloud.admin.ask("GET", path("Test::Whole")).status == 404
    assert cloud.admin.ask("GET", path("Test::Changed")).json()["tags"] == HELD["tags"][::-1]
    for below in ("", "/objects", "/properties", "/tags", "/objects/limits", "/properties/bus", "/tags/a",
                  "/resource_types/OS::Nova::Flavor"):  # fmt: skip
        refused = cloud.admin.ask("DELETE", path("Test::Changed") + below)
        assert refused.status == 403, below
        assert "protected" in error(refused)
    other = new(cloud)
    assert cloud.admin.ask("PUT", path(other), json={"namespace": "Test::Changed"}).status == 409
    assert cloud.admin.ask("PUT", path("Test::Changed"), json={**change, "protected": False}).status == 200
    assert cloud.admin.ask("DELETE", path("Test::Changed")).status == 204
    assert cloud.admin.ask("DELETE", path("Test::Changed")).status == 404


def test_objects(cloud: Cloud) -> None:
    where = f"{path(new(cloud))}/objects"
    one = cloud.admin.ask("POST", where, json={"name": "one", "properties": {"x": TEXT}, "required": ["x"]})
    assert one.status == 201
    assert cloud.admin.ask("POST", where, json={"name": "one"}).status == 409
    assert cloud.admin.ask("POST", where, json={"name": "two", "properties": {"x": {"title": "x"}}}).status == 400
    assert cloud.admin.ask("POST", where, json={"name": "two", "self": "x"}).status == 403
    assert cloud.admin.ask("POST", where, json={"name": "two"}).status == 201
    found = cloud.rita.ask("GET", where).json()
    assert [each["name"] for each in found["objects"]] == ["one", "two"]
    assert found["schema"] == "/v2/schemas/metadefs/objects"
    assert cloud.rita.ask("GET", f"{where}/one").json() == one.json()
    changed = cloud.admin.ask("PUT", f"{where}/one", json={"name": "1", "description": "The first."})
    assert (changed.status, changed.json()["properties"], changed.json()["required"]) == (200, {}, [])
    assert urllib.parse.unquote(changed.json()["self"]) == urllib.parse.unquote(f"{where}/1")
    assert cloud.admin.ask("PUT", f"{where}/two", json={"name": "1"}).status == 409
    for method, body in (("GET", None), ("PUT", {"name": "x"}), ("DELETE", None)):
        assert cloud.admin.ask(method, f"{where}/one", json=body).status == 404
    assert cloud.admin.ask("DELETE", f"{where}/1").status == 204
    assert cloud.admin.ask("DELETE", where).status == 204
    assert cloud.admin.ask("GET", where).json()["objects"] == []


def test_properties(cloud: Cloud) -> None:
    name = new(cloud, resource_type_associations=[{"name": "OS::Glance::Image", "prefix": "hw_"}])
    where = f"{path(name)}/properties"
    many = {
        "name": "list", "title": "L", "type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": 0,
        "maxItems": 3, "uniqueItems": True, "additionalItems": False, "readonly": False, "default": ["a"],
    }  # fmt: skip
    assert cloud.admin.ask("POST", where, json=many).json() == many
    number = {"name": "number", "title": "N", "type": "number", "minimum": 0.5, "maximum": 4, "default": 1}
    assert cloud.admin.ask("POST", where, json=number).status == 201
    assert cloud.admin.ask("POST", where, json=number).status == 409
    found = cloud.rita.ask("GET", where).json()["properties"]
    assert found == {one["name"]: one for one in (many, number)}, "each as it was given, as Glance keeps it"
    assert cloud.rita.ask("GET", f"{where}/number").json() == number
    assert cloud.rita.ask("GET", f"{where}/hw_number?resource_type=OS::Glance::Image").json() == number
    for wrong in ("number?resource_type=OS::Glance::Image", "hw_number?resource_type=OS::Other", "hw_number", "x"):
        assert cloud.rita.ask("GET", f"{where}/{wrong}").status == 404
    assert cloud.admin.ask("PUT", f"{where}/number", json={**TEXT, "name": "text"}).json() == {**TEXT, "name": "text"}
    assert cloud.admin.ask("PUT", f"{where}/text", json={**TEXT, "name": "list"}).status == 409
    assert cloud.admin.ask("PUT", f"{where}/text", json=TEXT).status == 400
    assert cloud.admin.ask("DELETE", f"{where}/text").status == 204
    assert cloud.admin.ask("DELETE", f"{where}/text").status == 404
    assert cloud.admin.ask("DELETE", where).status == 204
    assert cloud.admin.ask("GET", where).json() == {"properties": {}}


def test_tags(cloud: Cloud) -> None:
    where = f"{path(new(cloud))}/tags"

    def shown(query: str = "sort_key=name&sort_dir=asc") -> list[str]:
        return [one["name"] for one in cloud.rita.ask("GET", f"{where}?{query}").json()["tags"]]

    def put(*names: str, append: str | None = None) -> Any:
        headers = {} if append is None else {"X-Openstack-Append": append}
        return cloud.admin.ask("POST", where, json={"tags": [{"name": name} for name in names]}, headers=headers)

    answer = put("a", "b")
    assert (answer.status, answer.json()) == (201, {"tags": [{"name": "a"}, {"name": "b"}]})
    assert put("c").status == 201
    assert shown() == ["c"]
    assert put("d", "e", append="True").status == 201
    assert put("f", append="false").status == 201
    assert shown() == ["f"]
    assert put("g", "h", append="true").status == 201
    assert put("f", append="true").status == 409
    assert put("x", "x").status == 409
    assert put().json() == {"tags": []}
    assert shown() == ["f", "g", "h"], "a refusal changes nothing, and neither does an empty list"
    assert shown("") == ["h", "g", "f"], "the newest first"
    assert shown("limit=2&sort_key=name&sort_dir=asc") == ["f", "g"]
    assert shown("marker=g&sort_key=name&sort_dir=asc") == ["h"]
    assert shown("marker=g") == ["f"]
    assert cloud.rita.ask("GET", f"{where}?marker=z").status == 404
    for query in ("limit=x", "limit=-1", "sort_key=color", "sort_dir=up"):
        assert cloud.rita.ask("GET", f"{where}?{query}").status == 400

    made = cloud.admin.ask("POST", f"{where}/one%20more")
    assert (made.status, set(made.json())) == (201, {"name", "created_at", "updated_at"})
    assert cloud.admin.ask("POST", f"{where}/one%20more").status == 409
    assert cloud.admin.ask("POST", f"{where}/other", json={}).status == 400
    assert cloud.admin.ask("POST", f"{where}/{'x' * 81}").status == 400
    assert cloud.rita.ask("GET", f"{where}/one%20more").json() == made.json()
    assert cloud.admin.ask("PUT", f"{where}/one%20more", json={"name": "i"}).json()["name"] == "i"
    assert cloud.admin.ask("PUT", f"{where}/i", json={"name": "f"}).status == 409
    assert cloud.admin.ask("PUT", f"{where}/i", json={}).status == 400
    assert cloud.admin.ask("DELETE", f"{where}/i").status == 204
    assert cloud.admin.ask("DELETE", f"{where}/i").status == 404
    assert cloud.admin.ask("DELETE", where).status == 204
    assert shown() == []


def test_resource_types(cloud: Cloud) -> None:
    where = f"{path(new(cloud))}/resource_types"
    name = f"OS::Test::{uuid.uuid4().hex}"
    body = {"name": name, "prefix": "x:", "properties_target": "image"}
    made = cloud.admin.ask("POST", where, json=body)
    assert made.status == 201
    assert {key: made.json()[key] for key in body} == body
    assert cloud.admin.ask("POST", where, json=body).status == 409
    assert cloud.admin.ask("POST", where, json={"name": name, "prefix": None}).status == 400
    assert cloud.rita.ask("GET", where).json() == {"resource_type_associations": [made.json()]}
    assert cloud.admin.ask("DELETE", f"{where}/{name}").status == 204
    assert cloud.admin.ask("DELETE", f"{where}/{name}").status == 404
    known = cloud.rita.ask("GET", "/v2/metadefs/resource_types").json()["resource_types"]
    assert [set(one) for one in known if one["name"] == name] == [{"name", "created_at", "updated_at"}]


def test_the_list_is_walked_filtered_and_sorted(cloud: Cloud) -> None:
    kind = f"OS::Walk::{uuid.uuid4().hex}"
    about: Any = {"resource_type_associations": [{"name": kind}]}
    names = sorted(new(cloud, **about, display_name=f"{number % 3}") for number in range(7))
    of = f"resource_types={kind}"
    assert listed(cloud.rita, f"{of}&sort_key=namespace&sort_dir=asc") == names
    assert listed(cloud.rita, f"{of}&sort_key=namespace") == names[::-1]
    assert listed(cloud.rita, f"resource_types=OS::Nothing,{kind}&sort_key=namespace&sort_dir=asc") == names
    assert listed(cloud.rita, "resource_types=OS::Nothing") == []
    assert listed(cloud.rita, f"{of}&limit=0") == []
    for key in ("created_at", "updated_at", "namespace", "display_name", "visibility", "protected", "owner", "id"):
        walked: list[str] = []
        first = {"resource_types": kind, "limit": 2, "sort_key": key, "sort_dir": "asc"}
        url = f"{ROOT}?{urllib.parse.urlencode(first)}"
        for _ in range(5):
            page = cloud.rita.ask("GET", url).json()
            assert page["schema"] == "/v2/schemas/metadefs/namespaces"
            assert page["first"] == f"{ROOT}?{urllib.parse.urlencode(first)}"
            walked += [one["namespace"] for one in page["namespaces"]]
            if "next" not in page:
                break
            url = page["next"]
        assert sorted(walked) == names, key
    for query in ("limit=x", "limit=-1", "sort_key=color", "sort_dir=up", "visibility=shared",
                  "resource_types=" + ",".join(map(str, range(101)))):  # fmt: skip
        assert cloud.rita.ask("GET", f"{ROOT}?{query}").status == 400, query
    assert cloud.rita.ask("GET", f"{ROOT}?marker=nothing").status == 404
    assert set(listed(cloud.admin, f"{of}&visibility=public")) == set(names)
    assert listed(cloud.admin, f"{of}&visibility=private") == []


def test_who_sees_and_who_changes(cloud: Cloud) -> None:
    public, private = new(cloud, owner="alpha"), new(cloud, owner="alpha", visibility="private", **HELD)
    other = new(cloud, owner="beta", visibility="private")
    for caller, seen in (
        (cloud.admin, {public, private, other}),
        (cloud.ann, {public, private}),
        (cloud.rita, {public, private}),
        (cloud.bob, {public, other}),
        (cloud.carl, {public}),
    ):
        assert set(listed(caller, "limit=1000")) & {public, private, other} == seen
    for below in ("", "/objects", "/objects/limits", "/properties", "/properties/bus", "/tags", "/tags/a",
                  "/resource_types"):  # fmt: skip
        assert cloud.rita.ask("GET", path(private) + below).status == 200, below
        hidden = cloud.bob.ask("GET", path(private) + below)
        assert hidden.status == 404, below
        assert "No namespace" in error(hidden)
    assert cloud.bob.ask("GET", f"{ROOT}?marker={private}").status == 404
    assert cloud.cinder.ask("GET", ROOT).status == 403, "no reader"

    changes: list[tuple[str, str, Any]] = [
        ("PUT", "", {"namespace": "x"}), ("DELETE", "", None),
        ("POST", "/objects", {"name": "x"}), ("PUT", "/objects/limits", {"name": "x"}), ("DELETE", "/objects", None),
        ("DELETE", "/objects/limits", None), ("POST", "/properties", {**TEXT, "name": "x"}),
        ("PUT", "/properties/bus", {**TEXT, "name": "x"}), ("DELETE", "/properties", None),
        ("DELETE", "/properties/bus", None), ("POST", "/tags", {"tags": []}), ("POST", "/tags/x", None),
        ("PUT", "/tags/a", {"name": "x"}), ("DELETE", "/tags", None), ("DELETE", "/tags/a", None),
        ("POST", "/resource_types", {"name": "x"}), ("DELETE", "/resource_types/OS::Nova::Flavor", None),
    ]  # fmt: skip
    for method, below, body in changes:
        assert cloud.ann.ask(method, path(private) + below, json=body).status == 403, (method, below)
        assert cloud.bob.ask(method, path(private) + below, json=body).status == 404, (method, below)
        assert cloud.bob.ask(method, path(public) + below, json=body).status in {403, 404}, (method, below)
    assert cloud.ann.ask("POST", ROOT, json={"namespace": "x"}).status == 403
    assert cloud.nobody.ask("GET", ROOT).status == 401
    assert cloud.admin.ask("GET", path(private)).json()["objects"][0]["name"] == "limits", "nothing was changed"


def test_room_is_bounded(cloud: Cloud) -> None:
    name = new(cloud)
    tags = [{"name": str(number)} for number in range(MOST)]
    assert cloud.admin.ask("POST", f"{path(name)}/tags", json={"tags": tags}).status == 201
    append, large, one = {"X-Openstack-Append": "1"}, {**TEXT, "enum": ["x" * 70_000]}, {"name": "x"}
    for answer in (
        cloud.admin.ask("POST", f"{path(name)}/tags/more"),
        cloud.admin.ask("POST", f"{path(name)}/tags", json={"tags": [{"name": "more"}]}, headers=append),
        cloud.admin.ask("POST", f"{path(name)}/properties", json={**large, "name": "x"}),
        cloud.admin.ask("POST", f"{path(name)}/properties", json={**TEXT, "name": "x", "enum": [""] * 30_000}),
        cloud.admin.ask(
            "POST", ROOT, json={"namespace": "Too::Large", "objects": [{**one, "properties": {"x": large}}]}
        ),
    ):
        assert answer.status == 413, answer
        assert error(answer)
    assert cloud.admin.ask("PUT", f"{path(name)}/tags/7", json={"name": "seven"}).status == 200
    assert cloud.admin.ask("GET", path("Too::Large")).status == 404


# hostile bodies

DEEP: Any = "x"
for _ in range(400):
    DEEP = [DEEP]
CYCLE = {"definitions": {"a": {"$ref": "#/definitions/a"}}, "$ref": "#/definitions/a"}
BODIES: list[tuple[str, Any]] = [
    ("", None), ("", []), ("", 7), ("", {"namespace": None}), ("", {"namespace": 7}), ("", {"namespace": ""}),
    ("", {"namespace": "a\x00b"}), ("", {"namespace": "a\nb"}), ("", {"namespace": ".."}),
    ("", {"namespace": "n" * 81}),
    ("", {"namespace": "n", "display_name": "n" * 81}), ("", {"namespace": "n", "description": "d" * 501}),
    ("", {"namespace": "n", "visibility": "shared"}), ("", {"namespace": "n", "protected": "yes"}),
    ("", {"namespace": "n", "owner": "o" * 256}), ("", {"namespace": "n", "color": "red"}),
    ("", {"namespace": "n", "properties": []}), ("", {"namespace": "n", "properties": {"": TEXT}}),
    ("", {"namespace": "n", "properties": {"p" * 81: TEXT}}), ("", {"namespace": "n", "properties": {"p": DEEP}}),
    ("", {"namespace": "n", "properties": {"p": {**TEXT, "default": DEEP}}}),
    ("", {"namespace": "n", "properties": CYCLE}),
    ("", {"namespace": "n", "objects": {"name": "o"}}), ("", {"namespace": "n", "objects": [{}]}),
    ("", {"namespace": "n", "tags": ["t"]}), ("", {"namespace": "n", "tags": [{"name": "t" * 81}]}),
    ("", {"namespace": "n", "tags": [{"name": "t", "color": "red"}]}),
    ("", {"namespace": "n", "resource_type_associations": [{"prefix": "p"}]}),
    ("", {"namespace": "n", "resource_type_associations": [{"name": "r", "prefix": "p" * 81}]}),
    ("/objects", {"name": "o", "required": "x"}), ("/objects", {"name": "o", "required": ["a,b"]}),
    ("/objects", {"name": "o", "required": ["a", 1]}), ("/objects", {"name": "o", "properties": {"a\x00": TEXT}}),
    ("/properties", {"name": "p", "title": "t"}), ("/properties", {**TEXT, "name": "p", "type": "null"}),
    ("/properties", {**TEXT, "name": "p", "type": ["string"]}), ("/properties", {**TEXT, "name": "p", **CYCLE}),
    ("/properties", {**TEXT, "name": "p", "minimum": "0"}), ("/properties", {**TEXT, "name": "p", "maxLength": -1}),
    ("/properties", {**TEXT, "name": "p", "maxItems": 1.5}), ("/properties", {**TEXT, "name": "p", "enum": [1]}),
    ("/properties", {**TEXT, "name": "p", "items": {"type": "string", "items": {}}}),
    ("/properties", {**TEXT, "name": "p", "pattern": "(" * 20_000}), ("/tags", {"tags": None}), ("/tags", {}),
    ("/resource_types", {"name": "r", "prefix": 1}), ("/resource_types", {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def target(cloud: Cloud) -> str:
    return new(cloud)


@pytest.mark.parametrize(("below", "body"), BODIES, ids=range(len(BODIES)))
def test_hostile_bodies(cloud: Cloud, target: str, below: str, body: Any) -> None:
    answer = cloud.admin.ask("POST", path(target) + below if below else ROOT, json=body)
    assert answer.status == 400, answer
    assert len(error(answer)) < 600
    assert cloud.admin.ask("GET", path("n")).status == 404


def test_large_and_odd_bodies_that_are_taken(cloud: Cloud, target: str) -> None:
    """Patterns are kept and never run; names are any text that a path can say."""
    odd = {**TEXT, "name": "a/b ü?#%", "pattern": "(a+)+$", "enum": [str(number) for number in range(5000)]}
    made = cloud.admin.ask("POST", f"{path(target)}/properties", json=odd)
    assert (made.status, made.json()) == (201, odd)
    where = path(target, "properties", odd["name"])
    assert cloud.admin.ask("GET", where).json() == odd
    assert cloud.admin.ask("DELETE", where).status == 204
    name = new(cloud, "Test::a/b")
    assert cloud.admin.ask("GET", cloud.admin.ask("GET", path(name)).json()["self"]).json()["namespace"] == name
    assert cloud.admin.ask("POST", ROOT, body=b'{"namespace": "\\ud800"}').status == 400
    assert cloud.admin.ask("POST", ROOT, body=b'{"namespace":' * 10_000).status in {400, 413}


# the dashboards


@pytest.fixture(scope="module")
def standard(cloud: Cloud) -> None:
    cloud.service.run("metadefs", "load")


@pytest.mark.usefixtures("standard")
@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("OS::Glance::Image", {"hw_cpu_policy", "hw_disk_bus", "os_distro", "os_secure_boot"}),
        ("OS::Nova::Flavor", {"hw:cpu_policy", "quota:cpu_shares", "trait:HW_CPU_X86_AVX2", "hw_rng:allowed"}),
        ("OS::Nova::Aggregate", {"max_io_ops_per_host", "aggregate_instance_extra_specs:cpu_info:vendor"}),
        ("OS::Cinder::Volume", {"hw_watchdog_action", "os_distro"}),
    ],
)  # fmt: skip
def test_metadata_dialog_of_skyline(cloud: Cloud, kind: str, some: set[str]) -> None:
    """«Manage Metadata»: one list, then every namespace of it for this type; limit 0 is never sent."""
    words = urllib.parse.urlencode({"resource_types": kind, "manage": "true", "limit": 100})
    found = cloud.ann.ask("GET", f"{ROOT}?{words}").json()["namespaces"]
    assert found
    names: set[str] = set()
    for one in found:
        assert kind in {each["name"] for each in one["resource_type_associations"]}
        query = urllib.parse.urlencode({"resource_type": kind})
        detail = cloud.ann.ask("GET", f"{ROOT}/{one['namespace']}?{query}").json()
        names |= set(detail.get("properties", {}))
        for each in detail.get("objects", ()):
            names |= set(each["properties"])
    assert some <= names


@pytest.mark.usefixtures("standard")
def test_admin_panel_of_skyline(cloud: Cloud) -> None:
    """«Metadata Definitions»: the list, an import, resource types, the options, and the end."""
    assert cloud.admin.ask("GET", f"{ROOT}?limit=10&sort_key=created_at&sort_dir=desc").json()["next"]
    file = json.loads((files.STANDARD / "watchdog.json").read_text())
    body = {**file, "namespace": "Test::Imported", "protected": False, "visibility": "private"}
    assert cloud.admin.ask("POST", ROOT, json=body).status == 201
    known = cloud.admin.ask("GET", "/v2/metadefs/resource_types").json()["resource_types"]
    assert {"OS::Glance::Image", "OS::Nova::Flavor"} <= {one["name"] for one in known}
    where = f"{ROOT}/Test::Imported"
    assert cloud.admin.ask("DELETE", f"{where}/resource_types/OS::Nova::Flavor").status == 204
    assert cloud.admin.ask("POST", f"{where}/resource_types", json={"name": "OS::Nova::Aggregate"}).status == 201
    edit = {"display_name": body["display_name"], "description": body["description"], "namespace": "Test::Imported",
            "protected": True, "visibility": "public"}  # fmt: skip
    assert cloud.admin.ask("PUT", where, json=edit).status == 200
    assert cloud.admin.ask("DELETE", where).status == 403
    assert cloud.admin.ask("PUT", where, json={**edit, "protected": False}).status == 200
    assert cloud.admin.ask("GET", where).json()["properties"] == file["properties"]
    assert cloud.admin.ask("DELETE", where).status == 204


@pytest.mark.usefixtures("standard")
def test_metadata_dialog_of_horizon(cloud: Cloud) -> None:
    """By glanceclient: pages of 20 by name, each namespace for its type; with it the schema that it checks them by."""
    schema = cloud.ann.ask("GET", "/v2/schemas/metadefs/namespace").json()
    assert schema["name"] == "namespace"
    url = f"{ROOT}?limit=20&resource_types=OS%3A%3AGlance%3A%3AImage&sort_dir=asc&sort_key=namespace"
    found: list[str] = []
    while url:
        page = cloud.ann.ask("GET", url).json()
        for one in page["namespaces"]:
            assert set(one) <= set(schema["properties"])
            found.append(one["namespace"])
        url = page.get("next", "")
    assert found == sorted(found)
    assert "OS::Compute::LibvirtImage" in found
    for name in found:
        answer = cloud.ann.ask("GET", f"{ROOT}/{name}?resource_type=OS%3A%3AGlance%3A%3AImage")
        assert set(answer.json()) <= set(schema["properties"])


@pytest.mark.parametrize("name", ["namespace", "object", "property", "tag", "resource_type"])
def test_schemas(cloud: Cloud, name: str) -> None:
    several = "properties" if name == "property" else f"{name}s"
    one = cloud.rita.ask("GET", f"/v2/schemas/metadefs/{name}").json()
    many = cloud.rita.ask("GET", f"/v2/schemas/metadefs/{several}").json()
    title = "resource_type_association" if name == "resource_type" else name
    assert one["name"] == title
    assert {"first", "next", "schema"} < set(many["properties"])
    assert cloud.rita.ask("GET", "/v2/schemas/metadefs/nothing").status == 404
