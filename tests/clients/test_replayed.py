"""Clients that are no Python: their requests as they send them, header by header, and what they read of the answers.

Gophercloud 2 and the Terraform provider above it; the pages for images of Skyline's console, which run in a browser.
"""

import hashlib
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from tests.api.cloud import OCTETS, V21
from tests.clients.place import Place
from tests.servers.http import Answer

pytestmark = pytest.mark.timeout(600)

RAW = {"disk_format": "raw", "container_format": "bare"}


class Gophercloud:
    """A service client of the image service: its headers, the codes that it takes, its pages."""

    def __init__(self, place: Place, user: str) -> None:
        self._place, self._user = place, user
        _, login = place.keystone.login(user)
        (image,) = (one for one in login["catalog"] if one["type"] == "image")
        (endpoint,) = (one["url"] for one in image["endpoints"] if one["interface"] == "public")
        self.base = f"{endpoint.rstrip('/')}/"
        # since 2.7 it asks which versions there are before anything else
        versions = self.ask("GET", "/", ok=(200, 300)).json()["versions"]
        (current,) = (one for one in versions if one["status"] == "CURRENT")
        assert current["links"][0]["href"] == f"{self.base}v2/"

    def ask(self, method: str, path: str, ok: tuple[int, ...], *, body: Any = None, json: Any = None,
            **headers: str) -> Answer:  # fmt: skip
        sent = {"User-Agent": "gophercloud/v2.7.0", "Accept": "application/json", "Accept-Encoding": "identity"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._place.ask(self._user, method, path, json=json, body=body, headers=sent)
        assert answer.status in ok, answer
        return answer

    def pages(self, **query: Any) -> list[list[dict[str, Any]]]:
        """Every page: the next is the path and the query of `next` behind the address of the service."""
        path = f"/v2/images?{urlencode(query, doseq=True)}"
        found = []
        while True:
            answer = self.ask("GET", path, (200,)).json()
            found.append(answer["images"])
            if not answer["images"] or "next" not in answer:
                return found
            following = urlsplit(answer["next"])
            path = f"{following.path}?{following.query}"

    def image(self, image: str) -> dict[str, Any]:
        """Decoded as its struct is: other types are errors there."""
        found: dict[str, Any] = self.ask("GET", f"/v2/images/{image}", (200,)).json()
        for name in (
            "id",
            "name",
            "status",
            "visibility",
            "owner",
            "file",
            "schema",
            "disk_format",
            "container_format",
        ):
            assert isinstance(found[name], str), name
        assert isinstance(found["size"], int | None)
        assert isinstance(found["virtual_size"], int | None)
        assert isinstance(found["protected"], bool)
        assert isinstance(found["os_hidden"], bool)
        assert {type(tag) for tag in found["tags"]} <= {str}
        for name in ("created_at", "updated_at"):
            assert datetime.strptime(found[name], "%Y-%m-%dT%H:%M:%SZ")
        return found


def chunks(data: bytes) -> Iterator[bytes]:
    """An open file: Go does not know its length, so it comes chunked."""
    for start in range(0, len(data), 32768):
        yield data[start : start + 32768]


def test_terraform(place: Place, data: bytes) -> None:
    """`openstack_images_image_v2` from a file and by `web_download`, changed and destroyed; its data source; access."""
    cloud = Gophercloud(place, "demo")
    called = f"tf-{uuid.uuid4().hex}"
    fields = {"name": called, "visibility": "private", "protected": False, "min_disk": 1, "min_ram": 64,
              "tags": ["golden", called], "os_distro": "debian", **RAW}  # fmt: skip
    made = cloud.ask("POST", "/v2/images", (201,), json=fields)
    image = made.json()["id"]
    assert made.headers["location"] == f"{cloud.base}v2/images/{image}"
    assert "web-download" in made.headers["openstack-image-import-methods"].split(",")
    cloud.ask("PUT", f"/v2/images/{image}/file", (204,), body=chunks(data), Content_Type=OCTETS)
    found = cloud.image(image)
    assert (found["status"], found["size"], found["checksum"]) == ("active", len(data), hashlib.md5(data).hexdigest())
    assert cloud.ask("GET", f"/v2/images/{image}/file", (200,)).body == data

    assert place.web.files is not None
    (place.web.files / "terraform.raw").write_bytes(data)
    second = cloud.ask("POST", "/v2/images", (201,), json=fields).json()["id"]
    body = {"method": {"name": "web-download", "uri": f"{place.web.url}/terraform.raw"}}
    cloud.ask("POST", f"/v2/images/{second}/import", (202,), json=body)
    place.wait(lambda: cloud.image(second)["status"] == "active", 60)
    assert "glance-direct" in cloud.ask("GET", "/v2/info/import", (200,)).json()["import-methods"]["value"]
    third = cloud.ask("POST", "/v2/images", (201,), json=fields).json()["id"]
    cloud.ask("PUT", f"/v2/images/{third}/stage", (204,), body=chunks(data), Content_Type=OCTETS)
    cloud.ask("POST", f"/v2/images/{third}/import", (202,), json={"method": {"name": "glance-direct"}})
    place.wait(lambda: cloud.image(third)["status"] == "active", 60)
    path = "/v2/tasks?type=api_image_import&status=success&limit=1"
    assert len(Gophercloud(place, "admin").ask("GET", path, (200,)).json()["tasks"]) == 1
    cloud.ask("GET", path, (403,))

    # what a plan changes: all of it one request; nothing, too
    operations: list[dict[str, Any]] = [
        {"op": "replace", "path": "/visibility", "value": "shared"},
        {"op": "replace", "path": "/name", "value": f"{called}-renamed"},
        {"op": "replace", "path": "/tags", "value": [called]},
        {"op": "replace", "path": "/min_disk", "value": 2},
        {"op": "replace", "path": "/min_ram", "value": 0},
        {"op": "replace", "path": "/os_hidden", "value": False},
        {"op": "replace", "path": "/protected", "value": False},
        {"op": "add", "path": "/hw_disk_bus", "value": "scsi"},
        {"op": "remove", "path": "/os_distro"},
    ]
    changed = cloud.ask("PATCH", f"/v2/images/{image}", (200,), json=operations, Content_Type=V21).json()
    assert (changed["name"], changed["tags"], changed["min_disk"]) == (f"{called}-renamed", [called], 2)
    assert changed["hw_disk_bus"] == "scsi"
    assert "os_distro" not in changed
    same = cloud.ask("PATCH", f"/v2/images/{image}", (200,), json=[], Content_Type=V21).json()
    assert same["name"] == changed["name"]

    # the data source: by what it is, the newest of several; every page
    pages = cloud.pages(tag=[called, "golden"], sort="created_at:asc", limit=1)
    assert [one["id"] for page in pages for one in page] == [second, third]
    by_name = cloud.pages(name=f"in:{called},{called}-renamed", status="in:active,queued", sort="name:asc")
    assert [one["id"] for page in by_name for one in page][-1] == image
    since = {"created_at": "gte:2020-01-01T00:00:00Z", "updated_at": "lt:2100-01-01T00:00:00Z"}
    found_by = cloud.pages(tag=called, os_hidden="false", size_min=1, disk_format="in:raw,qcow2", **since)
    assert {one["id"] for page in found_by for one in page} == {image, second, third}

    # access, and that it is accepted
    other = Gophercloud(place, "alt")
    project = place.keystone.project_id("alt")
    members = f"/v2/images/{image}/members"
    added = cloud.ask("POST", members, (200,), json={"member": project}).json()
    assert (added["image_id"], added["member_id"], added["status"]) == (image, project, "pending")
    taken = other.ask("PUT", f"{members}/{project}", (200,), json={"status": "accepted"}).json()
    assert taken["status"] == "accepted"
    assert [one["member_id"] for one in cloud.ask("GET", members, (200,)).json()["members"]] == [project]
    assert [one["id"] for page in other.pages(tag=called, member_status="accepted") for one in page] == [image]
    cloud.ask("DELETE", f"{members}/{project}", (204,))

    refused = cloud.ask("PUT", f"/v2/images/{image}/file", (409,), body=chunks(data), Content_Type=OCTETS)
    assert "message" in refused.json()
    for one in (image, second, third):
        cloud.ask("DELETE", f"/v2/images/{one}", (204,))
        cloud.ask("GET", f"/v2/images/{one}", (404,))


def test_skyline(place: Place, data: bytes) -> None:
    """Through the browser: create (a file, and a URL), the tabs of the list, edit, metadata, members, delete."""
    base = f"{place.service.url}/v2/"

    def ask(user: str, method: str, path: str, status: int, *, json: Any = None, body: bytes | None = None,
            kind: str = "application/json", **query: Any) -> Any:  # fmt: skip
        url = urljoin(base, path) + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json, text/plain, */*", "User-Agent": "Mozilla/5.0", "Content-Type": kind}
        if json is None and body is None:
            del headers["Content-Type"]
        answer = place.ask(user, method, url.removeprefix(place.service.url), json=json, body=body, headers=headers)
        assert answer.status == status, answer
        return answer.json() if answer.body.startswith((b"{", b"[")) else answer.body

    called = f"sky-{uuid.uuid4().hex}"
    form = {"name": called, "container_format": "bare", "disk_format": "raw", "os_distro": "debian", "os_version": "12",
            "os_admin_user": "root", "min_disk": 1, "min_ram": 512, "visibility": "private", "protected": False,
            "usage_type": "common", "hw_qemu_guest_agent": "yes", "hw_cpu_policy": "shared",
            "description": "by hand", "owner": place.keystone.project_id("demo")}  # fmt: skip
    one = ask("demo", "POST", "images", 201, json=form)["id"]
    ask("demo", "PUT", f"images/{one}/file", 204, body=data, kind=OCTETS)
    assert ask("demo", "GET", f"images/{one}", 200)["status"] == "active"
    assert place.web.files is not None
    (place.web.files / "skyline.raw").write_bytes(data)
    two = ask("demo", "POST", "images", 201, json={**form, "name": f"{called}-url"})["id"]
    uri = f"{place.web.url}/skyline.raw"
    ask("demo", "POST", f"images/{two}/import", 202, json={"method": {"name": "web-download", "uri": uri}})
    place.wait(lambda: ask("demo", "GET", f"images/{two}", 200)["status"] == "active", 60)
    # an administrator makes one for others, who have accepted it with that
    project = place.keystone.project_id("alt")
    three = ask("admin", "POST", "images", 201, json={**form, "visibility": "shared", "name": f"{called}-lent"})["id"]
    ask("admin", "POST", f"images/{three}/members", 200, json={"member": project})
    ask("admin", "PUT", f"images/{three}/members/{project}", 200, json={"status": "accepted"})
    assert ask("admin", "GET", f"images/{three}/members", 200)["members"][0]["status"] == "accepted"

    # its tabs; the list goes on with the last one's id
    owner = place.keystone.project_id("demo")
    first = ask("demo", "GET", "images", 200, owner=owner, limit=1, sort_key="created_at", sort_dir="desc")["images"]
    then = ask("demo", "GET", "images", 200, owner=owner, limit=1, sort_key="created_at", sort_dir="desc",
               marker=first[0]["id"])["images"]  # fmt: skip
    assert first[0]["id"] != then[0]["id"]
    assert ask("demo", "GET", "images", 200, visibility="public", limit=10)["images"] == []
    shared = ask("alt", "GET", "images", 200, visibility="shared", member_status="accepted", limit=10)["images"]
    assert three in [each["id"] for each in shared]
    assert one in [each["id"] for each in ask("admin", "GET", "images", 200, limit=1000)["images"]]
    assert [each["id"] for each in ask("demo", "GET", "images", 200, name=called)["images"]] == [one]

    # Edit, and Manage Metadata with the sets that fit images
    operations = [
        {"op": "replace", "path": "/name", "value": f"{called}-edited"},
        {"op": "replace", "path": "/protected", "value": True},
        {"op": "replace", "path": "/min_ram", "value": 0},
        {"op": "add", "path": "/hw_vif_model", "value": "virtio"},
        {"op": "remove", "path": "/hw_cpu_policy"},
    ]
    edited = ask("demo", "PATCH", f"images/{one}", 200, json=operations, kind=V21)
    assert (edited["name"], edited["protected"], edited["hw_vif_model"]) == (f"{called}-edited", True, "virtio")
    space = {"namespace": f"Sky::{called}", "display_name": "Sky", "visibility": "public", "protected": False,
             "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
             "properties": {"vif": {"title": "VIF", "type": "string", "enum": ["virtio", "e1000"]}}}  # fmt: skip
    ask("admin", "POST", "metadefs/namespaces", 201, json=space)
    sets = ask("demo", "GET", "metadefs/namespaces", 200, resource_types="OS::Glance::Image", limit=1000)["namespaces"]
    assert space["namespace"] in [each["namespace"] for each in sets]
    detail = ask("demo", "GET", f"metadefs/namespaces/{space['namespace']}", 200, resource_type="OS::Glance::Image")
    assert list(detail["properties"]) == ["hw_vif"]
    types = [each["name"] for each in ask("admin", "GET", "metadefs/resource_types", 200)["resource_types"]]
    assert "OS::Glance::Image" in types
    kinds = f"metadefs/namespaces/{space['namespace']}/resource_types"
    ask("admin", "POST", kinds, 201, json={"name": "OS::Nova::Flavor", "prefix": ""})
    ask("admin", "DELETE", f"{kinds}/OS::Glance::Image", 204)
    edit = {name: space[name] for name in ("namespace", "display_name", "visibility", "protected")}
    ask("admin", "PUT", f"metadefs/namespaces/{space['namespace']}", 200, json=edit)
    ask("admin", "DELETE", f"metadefs/namespaces/{space['namespace']}", 204)

    refused = ask("demo", "DELETE", f"images/{one}", 403)
    assert "protected" in refused["message"], "the red line of the page"
    ask("demo", "PATCH", f"images/{one}", 200, json=[{"op": "replace", "path": "/protected", "value": False}], kind=V21)
    for user, image in (("demo", one), ("demo", two), ("admin", three)):
        ask(user, "DELETE", f"images/{image}", 204)
