"""What all calls have in common: versions, information, schemas, errors, request ids, browsers, anonymous callers."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.api.cloud import Caller, Cloud
from tests.servers.place import program
from tests.servers.service import Service

SEVERAL = "2.17 2.15 2.13 2.12 2.11 2.10 2.9 2.8 2.7 2.6 2.5 2.4 2.3 2.2 2.1 2.0".split()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the old style: one store, nobody logs in; a file that disables its health; a public address."""
    folder = tmp_path_factory.mktemp("single")
    service = Service(
        {
            "DEFAULT": {"enabled_backends": None, "public_endpoint": "https://images.example/base"},
            "glance_store": {"default_backend": None, "filesystem_store_datadir": folder / "data"},
            "files": {"filesystem_store_datadir": None},
            "healthcheck": {"disable_by_file_path": folder / "disable"},
        }
    )
    service.start()
    try:
        yield service
        assert service.stop() == 0
    finally:
        service.kill()


def ids(answer: Any) -> list[str]:
    return [version["id"].removeprefix("v") for version in answer.json()["versions"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/versions", 200), ("/versions/", 200), ("/", 300), ("/v3/images", 300), ("/v3", 300), ("/v1/", 300)],
)
def test_versions(cloud: Cloud, path: str, status: int) -> None:
    answer = cloud.nobody.ask("GET", path)
    assert (answer.status, ids(answer)) == (status, SEVERAL)
    current, *rest = answer.json()["versions"]
    assert current["status"] == "CURRENT"
    assert {version["status"] for version in rest} == {"SUPPORTED"}
    assert current["links"] == [{"rel": "self", "href": f"{cloud.service.url}/v2/"}]


def test_a_single_store_announces_less(single: Service) -> None:
    answer = single.request("GET", "/versions")
    assert set(SEVERAL) - set(ids(answer)) == {"2.15", "2.9", "2.8"}
    assert answer.json()["versions"][0]["links"][0]["href"] == "https://images.example/base/v2/"
    image = single.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"})
    assert image.headers["location"].startswith("https://images.example/base/v2/images/")
    assert "openstack-image-store-ids" not in image.headers
    image_id = image.json()["id"]
    octets = {"Content-Type": "application/octet-stream"}
    assert single.request("PUT", f"/v2/images/{image_id}/file", body=b"data", headers=octets).status == 204
    shown = single.request("GET", f"/v2/images/{image_id}").json()
    assert ("stores" in shown, shown["owner"] is not None) == (False, True)
    for method, path, status in (
        ("GET", "/v2/info/stores", 404),
        ("GET", "/v2/info/stores/detail", 404),
        ("GET", f"/v2/images/{image_id}/file?prefer=x", 400),
        ("DELETE", f"/v2/stores/x/{image_id}", 404),
    ):
        assert single.request(method, path).status == status, path


@pytest.mark.parametrize("prefix", ["/v2", "/v2.0", "/v2.17", "/v2.99"])
def test_every_minor_is_the_same_code(cloud: Cloud, prefix: str) -> None:
    assert cloud.ann.ask("GET", f"{prefix}/images?limit=1").status == 200
    assert cloud.ann.ask("GET", f"{prefix}/images/?limit=1").status == 404


def test_the_version_in_accept(cloud: Cloud) -> None:
    accept = {"Accept": "application/vnd.openstack.images-v2.7"}
    assert "images" in cloud.ann.ask("GET", "/images?limit=1", headers=accept).json()
    assert cloud.ann.ask("GET", "/images?limit=1").status == 404


def test_stores(cloud: Cloud) -> None:
    assert cloud.ann.ask("GET", "/v2/info/stores").json() == {
        "stores": [
            {"id": "fast", "description": "quick one", "default": "true"},
            {"id": "slow"},
            {"id": "mem"},
        ]
    }
    assert cloud.ann.ask("GET", "/v2/info/stores/detail").status == 403
    for caller in (cloud.admin, cloud.nova):
        detail = {store["id"]: store for store in caller.ask("GET", "/v2/info/stores/detail").json()["stores"]}
        assert {name: (store["type"], store["weight"]) for name, store in detail.items()} == {
            "fast": ("file", 0), "slow": ("file", 50), "mem": ("memory", 10),
        }  # fmt: skip
        folder = str(cloud.folder / "fast")
        assert detail["fast"]["properties"] == {"data_dir": folder, "chunk_size": 65536, "thin_provisioning": False}


def test_other_information(cloud: Cloud) -> None:
    methods = {"description": "Import methods available.", "type": "array", "value": []}
    assert cloud.ann.ask("GET", "/v2/info/import").json() == {"import-methods": methods}
    assert cloud.ann.ask("GET", "/v2/info/usage").json() == {"usage": {}}


def test_health(single: Service) -> None:
    disable = Path(single.sections["healthcheck"]["disable_by_file_path"])
    assert (single.request("GET", "/healthcheck").status, single.request("HEAD", "/healthcheck").body) == (200, b"")
    disable.touch()
    assert single.request("GET", "/healthcheck").status == 503
    assert single.request("GET", "/v2/images").status == 200
    disable.unlink()
    assert single.request("GET", "/healthcheck").body == b"OK"


# schemas


def test_the_published_schema_fits_what_is_shown(cloud: Cloud) -> None:
    schema = cloud.ann.ask("GET", "/v2/schemas/image").json()
    assert schema["name"] == "image"
    assert schema["additionalProperties"] == {"type": "string"}
    assert {link["rel"] for link in schema["links"]} == {"self", "enclosure", "describedby"}
    for name, field in schema["properties"].items():
        assert field["description"], name
    read_only = {name for name, field in schema["properties"].items() if field.get("readOnly")}
    assert {"checksum", "size", "status", "self", "file", "schema", "direct_url", "stores"} <= read_only
    for image_id in (cloud.ann.new(), cloud.ann.new(b"data", colour="red", tags=["t"])):
        jsonschema.validate(cloud.ann.show(image_id), schema)
    images = cloud.ann.ask("GET", "/v2/schemas/images").json()
    jsonschema.validate(cloud.ann.ask("GET", "/v2/images?limit=2").json(), images)
    member = cloud.ann.ask("GET", "/v2/schemas/member").json()
    image_id = cloud.ann.new()
    given = cloud.ann.ask("POST", f"/v2/images/{image_id}/members", json={"member": "beta"}).json()
    jsonschema.validate(given, member)
    assert set(given) == set(member["properties"])
    members = cloud.ann.ask("GET", "/v2/schemas/members").json()
    jsonschema.validate(cloud.ann.ask("GET", f"/v2/images/{image_id}/members").json(), members)
    assert cloud.ann.ask("GET", "/v2/schemas/nothing").status == 404


def test_properties_that_the_operator_declares(tmp_path: Path) -> None:
    declared = {"kernel": {"type": "string", "enum": ["linux", "other"], "description": "Which kernel."}}
    cloud = Cloud(tmp_path)
    # beside the configuration file, where operators have it
    (cloud.service.directory / "schema-image.json").write_text(json.dumps(declared))
    cloud.service.start()
    try:
        shown = cloud.ann.ask("GET", "/v2/schemas/image").json()["properties"]
        assert shown["kernel"]["enum"] == ["linux", "other"]
        assert cloud.ann.create(kernel="linux").status == 201
        assert cloud.ann.create(kernel="minix").status == 400
    finally:
        assert cloud.service.stop() == 0


# errors


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/plain"),
        (None, "application/json"),
    ],
)
def test_errors(cloud: Cloud, accept: str | None, kind: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    image_id = "6b7b0b63-0000-4000-8000-000000000000"
    answer = cloud.ann.ask("GET", f"/v2/images/{image_id}", headers=headers)
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (404, kind)
    if kind == "application/json":
        said = answer.json()
        said = said.get("error", said)
        assert (said["code"], said["title"]) == ("404 Not Found", "Not Found")
        assert image_id in said["message"]
    else:
        assert image_id in answer.body.decode()


def test_request_ids(cloud: Cloud) -> None:
    seen = set()
    for path in ("/v2/images", "/v2/images/x", "/versions", "/nothing", "/healthcheck"):
        answer = cloud.ann.ask("GET", path)
        assert re.fullmatch(r"req-[0-9a-f-]{36}", answer.headers["x-openstack-request-id"]), path
        seen.add(answer.headers["x-openstack-request-id"])
    assert len(seen) == 5
    for length, status in ((64, 200), (65, 431)):
        headers = {"x-openstack-request-id": "r" * length}
        assert cloud.ann.ask("GET", "/v2/images", headers=headers).status == status
    theirs = f"req-{uuid.uuid4()}"
    for given, told in ((theirs, True), ("r" * 64, False), (f"{theirs[:-1]}\t", False), ("req-x status=500", False)):
        answer = cloud.ann.ask("GET", "/v2/images", headers={"x-openstack-request-id": given})
        line = next(one for one in cloud.service.log.splitlines() if answer.headers["x-openstack-request-id"] in one)
        assert (f" global_request={given}" in f"{line} ") == told, line
        assert "global_request" not in line or told


def test_methods(cloud: Cloud) -> None:
    answer = cloud.ann.ask("POST", "/v2/images/6b7b0b63-0000-4000-8000-000000000000/file")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "OPTIONS"}
    assert cloud.ann.ask("PROPFIND", "/v2/images").status == 501


def test_a_body_where_none_belongs(cloud: Cloud) -> None:
    answer = cloud.ann.ask("GET", "/v2/images", body=b"{}")
    assert (answer.status, b"A body is not expected with this request." in answer.body) == (400, True)
    assert cloud.ann.ask("POST", "/v2/images").status == 400


# browsers


def test_browsers(cloud: Cloud) -> None:
    origin = {"Origin": "https://dashboard.example"}
    answer = cloud.ann.ask("GET", "/v2/images?limit=1", headers=origin)
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]
    assert "x-openstack-request-id" in answer.headers["access-control-expose-headers"].lower()
    other = cloud.ann.ask("GET", "/v2/images?limit=1", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    asked = {**origin, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-auth-token"}
    answer = cloud.nobody.ask("OPTIONS", "/v2/images/6b7b0b63-0000-4000-8000-000000000000", headers=asked)
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "x-auth-token" in answer.headers["access-control-allow-headers"].lower()
    refused = cloud.ann.ask("DELETE", "/v2/images/x", headers=origin)
    assert refused.headers["access-control-allow-origin"] == origin["Origin"], "a page must see why it failed"


# anonymous callers


def test_anonymous_callers(tmp_path: Path) -> None:
    """They read what is public, and change nothing."""
    cloud = Cloud(tmp_path, options={"allow_anonymous_access": True})
    cloud.service.start()
    try:
        public = cloud.admin.new(b"data", visibility="public")
        private = cloud.ann.new(b"data", visibility="private")
        assert {image["id"] for image in cloud.nobody.listed("")} == {public}
        assert cloud.nobody.show(public)["id"] == public
        assert cloud.nobody.ask("GET", f"/v2/images/{private}").status == 404
        assert cloud.nobody.create(name="x").status == 403
        assert cloud.nobody.patch(public, {"op": "replace", "path": "/name", "value": "x"}).status == 403
        assert cloud.nobody.delete(public).status == 403
        assert cloud.nobody.upload(public, b"x").status == 403
        assert cloud.nobody.ask("PUT", f"/v2/images/{public}/tags/x").status == 403
        assert Caller(cloud.service, "ann", "wrong").ask("GET", "/v2/images").status == 401
    finally:
        assert cloud.service.stop() == 0


def test_curl_shares_an_image(cloud: Cloud) -> None:
    """Where the openstack client cannot share (without a Keystone it has no project), curl can."""
    image_id = cloud.ann.new(b"data")

    def curl(caller: Caller, *words: str) -> str:
        login = [word for name, value in caller.headers.items() for word in ("-H", f"{name}: {value}")]
        command = [program("curl", "curl"), "-sS", "--fail-with-body", *login, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    base = f"{cloud.service.url}/v2/images/{image_id}"
    kind = ("-H", "Content-Type: application/json")
    curl(cloud.ann, "-X", "POST", *kind, "-d", '{"member": "beta"}', f"{base}/members")
    curl(cloud.bob, "-X", "PUT", *kind, "-d", '{"status": "accepted"}', f"{base}/members/beta")
    listed = json.loads(curl(cloud.bob, f"{cloud.service.url}/v2/images?id={image_id}"))
    assert [image["id"] for image in listed["images"]] == [image_id]
    assert curl(cloud.bob, f"{base}/file") == "data"
