"""Creating, showing and deleting images, deactivating them, tags: the codes and fields of the Image API reference."""

import re
import uuid
from typing import Any

import pytest

from tests.api.cloud import Cloud

FIELDS = {
    "id", "name", "status", "visibility", "protected", "os_hidden", "owner", "container_format", "disk_format",
    "min_disk", "min_ram", "tags", "checksum", "os_hash_algo", "os_hash_value", "size", "virtual_size", "created_at",
    "updated_at", "self", "file", "schema", "locations",
}  # fmt: skip


def test_a_new_image(cloud: Cloud) -> None:
    answer = cloud.ann.create(name="a", hw_disk_bus="scsi", tags=["one", "two", "one"])
    image = answer.json()
    path = f"/v2/images/{image['id']}"
    assert answer.status == 201
    assert answer.headers["location"] == f"{cloud.service.url}{path}"
    assert "openstack-image-import-methods" not in answer.headers, (
        "nobody does imports here, and an empty header says nothing"
    )
    assert answer.headers["openstack-image-store-ids"].split(",") == ["slow", "mem", "fast"]
    assert set(image) == FIELDS | {"hw_disk_bus"}
    assert (image["self"], image["file"], image["schema"]) == (path, f"{path}/file", "/v2/schemas/image")
    expected = {
        "name": "a", "status": "queued", "visibility": "shared", "protected": False, "os_hidden": False,
        "owner": "alpha", "container_format": None, "disk_format": None, "min_disk": 0, "min_ram": 0, "size": None,
        "virtual_size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None, "locations": [],
        "hw_disk_bus": "scsi",
    }  # fmt: skip
    assert {name: image[name] for name in expected} == expected
    assert sorted(image["tags"]) == ["one", "two"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image["created_at"])
    assert cloud.ann.show(image["id"]) == image


@pytest.mark.parametrize(
    ("who", "fields", "status"),
    [
        ("ann", {"id": str(uuid.uuid4())}, 201),
        ("ann", {"id": str(uuid.uuid4()).upper()}, 201),
        ("ann", {"id": "no uuid"}, 400),
        ("ann", {"name": None}, 201),
        ("ann", {"name": "n" * 255}, 201),
        ("ann", {"name": "n" * 256}, 400),
        ("ann", {"name": 1}, 400),
        ("ann", {"visibility": "private"}, 201),
        ("ann", {"visibility": "community"}, 201),
        ("ann", {"visibility": "secret"}, 400),
        ("ann", {"visibility": "public"}, 403),
        ("admin", {"visibility": "public"}, 201),
        ("ann", {"owner": "alpha"}, 201),
        ("ann", {"owner": "beta"}, 403),
        ("admin", {"owner": "beta"}, 201),
        ("rita", {}, 403),
        ("nobody", {}, 401),
        ("ann", {"disk_format": "qcow2", "container_format": "bare"}, 201),
        ("ann", {"disk_format": "floppy"}, 400),
        ("ann", {"container_format": "box"}, 400),
        ("ann", {"min_disk": 2**31 - 1, "min_ram": 0}, 201),
        ("ann", {"min_disk": 2**31}, 400),
        ("ann", {"min_ram": -1}, 400),
        ("ann", {"min_ram": "1"}, 400),
        ("ann", {"protected": "yes"}, 400),
        ("ann", {"os_hidden": True}, 201),
        ("ann", {"tags": "one"}, 400),
        ("ann", {"tags": ["t" * 256]}, 400),
        ("ann", {"tags": [str(n) for n in range(128)]}, 201),
        ("ann", {"tags": [str(n) for n in range(129)]}, 413),
        ("ann", {f"p{n}": "" for n in range(128)}, 201),
        ("ann", {f"p{n}": "" for n in range(129)}, 413),
        ("ann", {"p" * 255: "v"}, 201),
        ("ann", {"p" * 256: "v"}, 400),
        ("ann", {"count": 3}, 400),
        ("ann", {"owner_specified.openstack.md5": ""}, 201),
        ("ann", {"smile": "\N{GRINNING FACE}"}, 201),
        *(("ann", {name: None}, 403) for name in (
            "checksum", "size", "virtual_size", "status", "created_at", "updated_at", "os_hash_algo", "os_hash_value",
            "location", "deleted", "deleted_at", "direct_url", "self", "file", "schema", "stores",
            "os_glance_import_task", "os_glance_x",
        )),
    ],
)  # fmt: skip
def test_creating(cloud: Cloud, who: str, fields: dict[str, Any], status: int) -> None:
    answer = getattr(cloud, who).create(**fields)
    assert answer.status == status, answer.body
    if status == 201:
        shown = answer.json()
        for name, value in fields.items():
            expected = value.lower() if name == "id" else value
            assert sorted(shown[name]) == sorted(value) if name == "tags" else shown[name] == expected


def test_an_id_is_used_once(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    assert cloud.ann.create(id=image_id).status == 409
    assert cloud.bob.create(id=image_id).status == 409
    assert cloud.ann.delete(image_id).status == 204
    assert cloud.ann.create(id=image_id).status == 409, "also when it was deleted"


@pytest.mark.parametrize(
    ("visibility", "seen_by"),
    [
        ("private", "admin ann rita"),
        ("shared", "admin ann rita"),
        ("community", "admin ann rita bob"),
        ("public", "admin ann rita bob"),
    ],
)
def test_who_sees_an_image_by_its_id(cloud: Cloud, visibility: str, seen_by: str) -> None:
    image_id = cloud.admin.new(owner="alpha", visibility=visibility)
    for name in ("admin", "ann", "rita", "bob"):
        status = getattr(cloud, name).ask("GET", f"/v2/images/{image_id}").status
        assert status == (200 if name in seen_by.split() else 404), name
    assert cloud.nobody.ask("GET", f"/v2/images/{image_id}").status == 401
    for method, path in (("DELETE", ""), ("PATCH", ""), ("PUT", "/tags/t"), ("POST", "/actions/deactivate")):
        how = {"json": [], "headers": {"Content-Type": "application/openstack-images-v2.1-json-patch"}}
        answer = cloud.bob.ask(method, f"/v2/images/{image_id}{path}", **(how if method == "PATCH" else {}))
        assert answer.status == (403 if "bob" in seen_by.split() else 404), (method, path)


def test_deleting(cloud: Cloud) -> None:
    image_id = cloud.ann.new(b"data")
    assert image_id in cloud.files("fast")
    assert cloud.rita.delete(image_id).status == 403
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/protected", "value": True}).status == 200
    refused = cloud.ann.delete(image_id)
    assert refused.status == 403
    assert f"mage {image_id} is protected and cannot be deleted" in refused.body.decode()
    assert cloud.ann.patch(image_id, {"op": "replace", "path": "/protected", "value": False}).status == 200
    assert cloud.ann.delete(image_id).status == 204
    assert image_id not in cloud.files("fast")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("GET", "/members"), ("PUT", "/tags/t")):
        assert cloud.ann.ask(method, f"/v2/images/{image_id}{path}").status == 404
    assert cloud.ann.upload(image_id, b"data").status == 404
    assert cloud.ann.delete(cloud.ann.new()).status == 204, "a queued image"


def test_deactivating(cloud: Cloud) -> None:
    image_id = cloud.ann.new(b"data", visibility="community")
    path = f"/v2/images/{image_id}"

    def act(who: str, action: str) -> int:
        status: int = getattr(cloud, who).ask("POST", f"{path}/actions/{action}").status
        return status

    assert act("bob", "deactivate") == 403
    assert act("rita", "deactivate") == 403
    assert [act("ann", "deactivate"), act("ann", "deactivate")] == [204, 204]
    assert cloud.ann.show(image_id)["status"] == "deactivated"
    seen, known = cloud.ann.show(image_id), cloud.admin.show(image_id)
    assert (seen["locations"], seen.keys() & {"stores", "direct_url"}) == ([], set()), "as with Glance"
    assert (len(known["locations"]), bool(known["stores"])) == (1, True)
    assert [cloud.ann.download(image_id).status, cloud.admin.download(image_id).status] == [403, 200]
    assert [act("ann", "reactivate"), act("ann", "reactivate")] == [204, 204]
    assert cloud.bob.download(image_id).body == b"data"
    queued = cloud.ann.new()
    for action in ("deactivate", "reactivate"):
        assert cloud.ann.ask("POST", f"/v2/images/{queued}/actions/{action}").status == 403
    act("ann", "deactivate")
    assert cloud.ann.delete(image_id).status == 204, "a deactivated image can be deleted"


def test_tags(cloud: Cloud) -> None:
    image_id = cloud.ann.new(tags=["first"], visibility="community")
    path = f"/v2/images/{image_id}/tags"
    for tag, status in (
        ("second", 204),
        ("first", 204),
        ("with%20space%2Fslash", 204),
        ("t" * 255, 204),
        ("t" * 256, 400),
    ):
        assert cloud.ann.ask("PUT", f"{path}/{tag}").status == status, tag
    assert sorted(cloud.ann.show(image_id)["tags"]) == sorted(["first", "second", "with space/slash", "t" * 255])
    assert cloud.bob.ask("PUT", f"{path}/x").status == 403
    assert cloud.ann.ask("DELETE", f"{path}/first").status == 204
    assert cloud.ann.ask("DELETE", f"{path}/first").status == 404
    full = cloud.ann.new(tags=[str(n) for n in range(128)])
    assert cloud.ann.ask("PUT", f"/v2/images/{full}/tags/new").status == 413
    assert cloud.ann.ask("PUT", f"/v2/images/{full}/tags/7").status == 204
