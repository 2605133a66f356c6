"""What other services ask of an image service by python-glanceclient, as their own code does; run in the client's
environment, where nothing else of the tests is.

    callers WHO      JSON on standard input (see `Asked` of test_services), what came of it on standard output

Two releases of each service: the one of 2023, and today's, which knows more calls of the client.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import glanceclient
from glanceclient import exc
from keystoneauth1 import service_token, session, token_endpoint


def client(asked: Any, *, endpoint: str | None = None, service: bool = True) -> Any:
    """With the user's token, and the service's own beside it, as a service sends them since 2018."""
    address = endpoint or asked["url"]
    auth = token_endpoint.Token(address, asked["token"])
    if service:
        auth = service_token.ServiceTokenAuthWrapper(
            user_auth=auth, service_auth=token_endpoint.Token(address, asked["service_token"])
        )
    return glanceclient.Client(
        2, session=session.Session(auth=auth), endpoint_override=address, global_request_id=asked["request_id"]
    )


def retried(asked: Any, endpoints: list[str], method: str, *args: Any, **kwargs: Any) -> Any:
    """A call at one endpoint after the other, as `nova.image.glance` and Cinder go on when one does not answer."""
    for number, endpoint in enumerate(endpoints):
        try:
            return getattr(client(asked, endpoint=endpoint).images, method)(*args, **kwargs)
        except (exc.ServiceUnavailable, exc.InvalidEndpoint, exc.CommunicationError, OSError):
            if number == len(endpoints) - 1:
                raise
    return None


def fails(kind: type[Exception], call: Any, *args: Any, **kwargs: Any) -> str:
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def active(images: Any, image: str, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while (found := images.get(image))["status"] != "active":
        assert time.monotonic() < end, dict(found)
        time.sleep(0.2)
    return found


def split(images: Any, schema: Any, image: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of an image, and properties: what the schema does not name."""
    found = images.get(image)
    fields = {name: found[name] for name in found if schema.is_base_property(name)}
    return fields, {name: found[name] for name in found if not schema.is_base_property(name)}


def nova(asked: Any) -> Any:
    """A server boots from an image; snapshots of servers: a file, one without data, one that is cloned in the store."""
    whole = client(asked)
    images = whole.images
    data = Path(asked["file"]).read_bytes()

    # what its API does before a server is made, on a host of which the first address is dead
    endpoints = [asked["dead"], asked["url"]]
    image = retried(asked, endpoints, "get", asked["image"])
    assert (image["status"], image["size"], image["min_disk"]) == ("active", len(data), 0)
    fails(exc.CommunicationError, retried, asked, endpoints[:1], "get", asked["image"])
    fields, properties = split(images, whole.schemas.get("image"), asked["image"])
    assert properties == {"hw_disk_bus": "scsi"}, properties
    assert fields["direct_url"] in [one["url"] for one in fields["locations"]]
    # what the compute node does
    chunks = retried(asked, endpoints, "data", asked["image"])
    assert chunks.wrapped is not None
    assert len(chunks) == len(data)
    assert b"".join(chunks) == data
    # its list of images
    listed = images.list(filters={"name": image["name"], "updated_at": "gte:2020-01-01T00:00:00Z"}, page_size=1)
    assert [one["id"] for one in listed] == [asked["image"]]
    fails(exc.HTTPNotFound, images.get, "11111111-2222-4333-8444-555555555555")

    # a snapshot: queued with all that is known, then its formats, then the data
    known = {
        "base_image_ref": asked["image"],
        "image_type": "snapshot",
        "instance_uuid": "0f1a7c2e-3c6e-4c3b-9a5c-5b1e3c1c0f11",
        "user_id": "someone",
        "boot_roles": "member,reader",
        "owner_user_name": "None",
    }
    snapshot = images.create(name="snapshot", visibility="private", min_ram=512, min_disk=1, **known)["id"]
    formats = {"disk_format": "raw", "container_format": "bare"}
    images.update(image_id=snapshot, remove_props=["boot_roles"], image_location="snapshot", image_state="available",
                  owner_id=asked["owner"], **formats)  # fmt: skip
    with Path(asked["file"]).open("rb") as opened:
        images.upload(snapshot, opened)
    done = images.get(snapshot)
    assert (done["status"], done["size"]) == ("active", len(data))
    assert "boot_roles" not in done
    assert done["image_type"] == "snapshot"

    # one of a server whose disks are volumes: no data, only what they are
    mapping = json.dumps([{"snapshot_id": "s", "boot_index": 0, "source_type": "snapshot", "volume_size": 1}])
    formatted = "qcow2" in whole.schemas.get("image").raw()["properties"]["disk_format"]["enum"]
    empty = images.create(name="volumes", block_device_mapping=mapping, bdm_v2="True", **formats)["id"]
    images.upload(empty, "")
    assert formatted
    assert (images.get(empty)["status"], images.get(empty)["size"]) == ("active", 0)
    assert json.loads(images.get(empty)["block_device_mapping"])[0]["boot_index"] == 0

    # cloned in the store, so that only its place is told
    cloned = images.create(name="cloned", **formats)["id"]
    if hasattr(images, "add_image_location"):
        images.add_image_location(cloned, asked["place"], {})
    else:
        assert images.add_location(cloned, asked["place"], {})["status"] == "active"
    assert active(images, cloned, asked["seconds"])["size"] == len(data)
    assert b"".join(images.data(cloned)) == data

    # an administrator's snapshot of another's server is shared with that one
    shared = images.create(name="shared", visibility="shared", **formats)["id"]
    whole.image_members.create(shared, asked["other_project"])
    assert [one["member_id"] for one in whole.image_members.list(shared)] == [asked["other_project"]]

    # before a server is made from it, an image comes into the store of that node
    copying = client({**asked, "token": asked["admin_token"]}).images
    copying.image_import(snapshot, method="copy-image", stores=["more"])
    end = time.monotonic() + asked["seconds"]
    while "more" not in images.get(snapshot)["stores"].split(","):
        assert time.monotonic() < end
        time.sleep(0.2)

    assert "protected" in fails(exc.HTTPForbidden, images.delete, asked["protected"])
    return [snapshot, empty, cloned, shared]


def cinder(asked: Any) -> Any:
    """A volume from an image, an image from a volume."""
    whole = client(asked)
    images = whole.images
    data = Path(asked["file"]).read_bytes()
    schema = whole.schemas.get("image")
    fields, properties = split(images, schema, asked["image"])
    assert properties == {"hw_disk_bus": "scsi"}, "they become the volume's"
    assert {"id", "size", "min_disk", "min_ram", "checksum", "stores", "direct_url"} <= set(fields)
    if hasattr(images, "get_image_locations"):
        as_service = client({**asked, "token": asked["service_token"]}).images
        assert [one["metadata"]["store"] for one in as_service.get_image_locations(asked["image"])] == ["files"]
    assert b"".join(images.data(asked["image"])) == data
    assert [one["id"] for one in whole.images.get_stores_info()["stores"]] == ["files", "more", "web"]
    listed = images.list(filters={"name": fields["name"]}, limit=1, sort_key="name", sort_dir="asc")
    assert [one["id"] for one in listed] == [asked["image"]]

    meta = {"name": "of a volume", "disk_format": "raw", "container_format": "bare", "visibility": "private"}
    uploaded = images.create(**meta, protected=False, signature_verified="False", hw_disk_bus="scsi")["id"]
    # in the store that its type of volumes names, with a word about what it was made from
    into = client(asked)
    into.http_client.additional_headers = {"x-image-meta-store": "more", "x-openstack-base-image-ref": asked["image"]}
    with Path(asked["file"]).open("rb") as opened:
        into.images.upload(uploaded, opened)
    changed = images.update(uploaded, remove_props=["signature_verified"], name="renamed")
    assert (changed["name"], changed["status"], changed["stores"]) == ("renamed", "active", "more")
    # or the volume's copy itself becomes the image's data
    placed = images.create(**meta)["id"]
    if hasattr(images, "add_image_location"):
        images.add_image_location(placed, asked["place"], {})
    else:
        noted = images.add_location(placed, asked["place"], {"note": "of a volume"})
        assert noted["locations"][0]["metadata"]["note"] == "of a volume"
    assert b"".join(images.data(active(images, placed, asked["seconds"])["id"])) == data
    assert list(whole.image_members.list(asked["shared"])) == []
    return [uploaded, placed]


def octavia(asked: Any) -> Any:
    """The newest image with a tag, of one owner; no user is there."""
    images = client({**asked, "token": asked["service_token"]}, service=False).images
    filters = {"tag": ["amphora"], "status": "active", "owner": asked["owner"]}
    found = list(images.list(filters=filters, sort="created_at:desc", limit=2))
    assert [one["name"] for one in found] == ["newer", "older"]
    assert list(images.list(filters={**filters, "tag": ["none"]}, sort="created_at:desc", limit=2)) == []
    return [one["id"] for one in found]


def heat(asked: Any) -> Any:
    """A stack's image from a URL: made, changed, deactivated, deleted."""
    whole = client(asked)
    images = whole.images
    made = images.create(name="stack's", disk_format="raw", container_format="bare", min_disk=1, tags=["a", "b"],
                         visibility="shared", protected=False)  # fmt: skip
    images.image_import(made["id"], method="web-download", uri=asked["place"])
    whole.image_members.create(made["id"], asked["other_project"])
    images.update(made["id"], os_distro="debian")
    active(images, made["id"], asked["seconds"])
    whole.image_tags.update(made["id"], "c")
    whole.image_tags.delete(made["id"], "a")
    fails(exc.HTTPNotFound, whole.image_tags.delete, made["id"], "a")
    images.update(made["id"], ["os_distro"], os_version="12", name="renamed")
    whole.image_members.delete(made["id"], asked["other_project"])
    (found,) = images.list(filters={"name": "renamed"})
    assert (sorted(found["tags"]), found["os_version"]) == (["b", "c"], "12")
    assert "os_distro" not in found
    images.deactivate(made["id"])
    assert images.get(made["id"])["status"] == "deactivated"
    images.reactivate(made["id"])
    return [made["id"]]


def main() -> int:
    asked = json.load(sys.stdin)
    left = {"nova": nova, "cinder": cinder, "octavia": octavia, "heat": heat}[sys.argv[1]](asked)
    images = client(asked, service=False).images
    for image in left if sys.argv[1] != "octavia" else ():
        images.delete(image)
        fails(exc.HTTPNotFound, images.get, image)
    json.dump(left, sys.stdout)
    return 0
