"""openstacksdk as Ansible's modules, Ironic and programs of users call it: `connection.image`, and the layer above."""

import hashlib
import io
import logging
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack import exceptions

from tests.clients.place import Place
from tests.load import quiet

# imports take turns with all that runs beside
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # the library's, about itself
]

Connect = Callable[[str], Any]
RAW = {"disk_format": "raw", "container_format": "bare"}


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    """`connect(user)`: a connection of one of Keystone's users."""
    made: dict[str, Any] = {}

    def one(user: str) -> Any:
        if user not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[user] = openstack.connect(load_yaml_config=False, load_envvars=False,
                                               **place.keystone.clouds()[user])  # fmt: skip
        return made[user]

    level = logging.getLogger("openstack").level
    yield one
    for connection in made.values():
        connection.close()
    logging.getLogger("openstack").setLevel(level)


def name() -> str:
    """A name that no other test has."""
    return f"sdk-{uuid.uuid4().hex[:12]}"


def sha512(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


def test_upload_and_download(place: Place, connect: Connect, data: bytes, file: Path, tmp_path: Path) -> None:
    images = connect("demo").image
    called = name()
    image = images.create_image(
        called, filename=str(file), **RAW, validate_checksum=True, tags=["one"], min_disk=1, os_distro="debian"
    )
    image = images.get_image(image)
    assert (image.status, image.size, image.hash_value, image.checksum) == (
        "active",
        len(data),
        sha512(data),
        hashlib.md5(data).hexdigest(),
    )
    assert (image.tags, image.min_disk, image.os_distro, image.visibility) == (["one"], 1, "debian", "shared")
    assert image.properties["owner_specified.openstack.md5"] == image.checksum
    assert images.find_image(called).id == images.find_image(image.id).id == image.id
    assert images.find_image(name()) is None
    # the same file again: nothing is sent
    again = images.create_image(called, filename=str(file), **RAW, md5=image.checksum,
                                sha256=hashlib.sha256(data).hexdigest())  # fmt: skip
    assert again.id == image.id

    # whole; in pieces; into a file, an open file; from a store that is named
    assert images.download_image(image).content == data
    with images.download_image(image, stream=True) as answer:
        assert b"".join(answer.iter_content(65536)) == data
    images.download_image(image, output=str(tmp_path / "copy"), chunk_size=4096)
    assert (tmp_path / "copy").read_bytes() == data
    opened = io.BytesIO()
    images.download_image(image, output=opened, store_preferences=["more", "files"])
    assert opened.getvalue() == data
    copied = tmp_path / "by name"
    connect("demo").download_image(called, output_path=str(copied))
    assert copied.read_bytes() == data

    # bytes, an open file, and something that does not tell its length
    for number, source in enumerate((data, io.BytesIO(data), iter([data[:1000], data[1000:]]))):
        made = images.create_image(f"{called}-{number}", data=source, **RAW)
        assert place.show(made.id)["os_hash_value"] == sha512(data)
        images.delete_image(made)
    with pytest.raises(exceptions.HttpException) as refused:
        images.create_image(name(), data=b"no disk at all", disk_format="qcow2", container_format="bare")
    assert refused.value.status_code == 415
    assert "qcow2" in str(refused.value)
    assert images.find_image(image.id).id == image.id
    images.delete_image(image)
    images.delete_image(image)  # what is not there may be missing
    with pytest.raises(exceptions.NotFoundException):
        images.delete_image(image, ignore_missing=False)
    with pytest.raises(exceptions.NotFoundException):
        images.get_image(image.id)


def test_lists(place: Place, connect: Connect, data: bytes) -> None:
    images = connect("demo").image
    mark = name()
    made = [
        images.create_image(f"{mark}-{number}", data=data[: 1000 + number], allow_duplicates=True,
                            tags=[mark, str(number)], min_ram=number, mark=mark, **RAW)
        for number in range(5)
    ]  # fmt: skip
    known = [image.id for image in made]

    def listed(**query: Any) -> list[str]:
        return [image.id for image in images.images(**query)]

    assert sorted(listed(tag=mark)) == sorted(known)
    assert listed(tag=mark, sort="name:asc") == known
    assert listed(tag=mark, sort_key="size", sort_dir="desc") == known[::-1]
    pages = [image.id for image in images.images(tag=mark, sort="name:asc", limit=2)]
    assert pages == known, "every page, each once"
    assert listed(tag=mark, sort="name:asc", limit=2, paginated=False) == known[:2]
    assert listed(tag=mark, sort="name:asc", marker=known[2]) == known[3:]
    assert listed(name=f"{mark}-3") == [known[3]]
    assert listed(tag=mark, size_min=1003, sort="name:asc") == known[3:]
    assert listed(tag=mark, visibility="shared", status="active", owner=made[0].owner, sort="name:asc") == known
    assert listed(tag=mark, visibility="private") == []
    assert listed(mark=mark, sort="name:asc") == known, "a property of one's own"
    assert listed(tag=mark, created_at="lt:2020-01-01T00:00:00Z") == []
    images.update_image(made[4], is_hidden=True)
    assert known[4] not in listed(tag=mark)
    assert listed(tag=mark, is_hidden=True) == [known[4]]
    assert sorted(
        image.id for image in connect("demo").search_images(filters={"properties": {"mark": mark}})
    ) == sorted(known[:4])
    assert connect("demo").get_image_id(f"{mark}-1") == known[1]
    assert connect("demo").get_image_name(known[1]) == f"{mark}-1"
    assert sorted(image.id for image in connect("demo").list_images() if mark in image.tags) == sorted(known[:4])
    for image in made:
        images.delete_image(image)
    assert listed(tag=mark) == []


def test_changes(place: Place, connect: Connect, data: bytes) -> None:
    demo = connect("demo")
    images = demo.image
    image = images.create_image(name(), data=data, **RAW)
    changed = images.update_image(image, name="other", min_disk=7, is_protected=True, os_distro="debian", mine="x")
    assert (changed.name, changed.min_disk, changed.is_protected, changed.os_distro) == ("other", 7, True, "debian")
    assert place.show(image.id)["mine"] == "x"
    with pytest.raises(exceptions.ForbiddenException, match="protected"):
        images.delete_image(image)
    # as Ansible's module and the cloud layer change them
    assert images.update_image_properties(images.get_image(image.id), min_ram=512, hw_disk_bus="scsi", mine="y")
    shown = place.show(image.id)
    assert (shown["min_ram"], shown["hw_disk_bus"], shown["mine"], shown["os_distro"]) == (512, "scsi", "y", "debian")
    assert demo.update_image_properties(image=images.get_image(image.id), is_protected=False)
    images.add_tag(image, "a b:ü")
    images.add_tag(image, "two")
    images.remove_tag(image, "two")
    assert place.show(image.id)["tags"] == ["a b:ü"]

    images.deactivate_image(image)
    assert images.get_image(image.id).status == "deactivated"
    with images.download_image(image.id, stream=True) as answer:  # else it takes the refusal for data
        assert answer.status_code == 403
    images.reactivate_image(image)
    assert images.download_image(image.id).content == data

    other = connect("alt")
    project = place.keystone.project_id("alt")
    assert other.image.find_image(image.id) is None
    member = images.add_member(image, member_id=project)
    assert (member.status, member.member_id) == ("pending", project)
    assert [one.id for one in other.list_images(show_all=True) if one.id == image.id] == [image.id]
    assert [one.id for one in other.list_images() if one.id == image.id] == []
    assert other.image.update_member(project, image.id, status="accepted").status == "accepted"
    assert [one.id for one in other.list_images() if one.id == image.id] == [image.id]
    assert [one.member_id for one in images.members(image)] == [project]
    assert images.get_member(project, image).status == images.find_member(project, image).status == "accepted"
    images.remove_member(project, image)
    assert list(images.members(image)) == []
    with pytest.raises(exceptions.ForbiddenException):
        images.update_image(images.get_image(image.id), visibility="public")
    assert demo.delete_image(image.id, wait=True, timeout=quiet(60))
    assert not demo.delete_image(image.id)


def test_imports(place: Place, connect: Connect, data: bytes, file: Path) -> None:
    demo = connect("demo")
    images = demo.image
    assert {"glance-direct", "web-download", "copy-image"} <= set(images.get_import_info().import_methods["value"])
    stores = {store.id: store for store in images.stores()}
    assert set(stores) == {"files", "more", "web"}
    assert stores["files"].is_default
    detailed = {store.id: store for store in connect("admin").image.stores(details=True)}
    assert detailed["more"].properties["data_dir"] == str(place.folder / "more")

    def active(image: Any) -> Any:
        images.wait_for_status(image, "active", failures=["queued"], interval=0.2, wait=quiet(60))
        return place.show(image.id)

    assert place.web.files is not None
    (place.web.files / "sdk.raw").write_bytes(data)
    url = f"{place.web.url}/sdk.raw"
    # upload and import as one call
    one = images.create_image(name(), filename=str(file), use_import=True, wait=True, timeout=quiet(60), **RAW)
    assert active(one)["os_hash_value"] == sha512(data)
    two = images.create_image(name(), import_method="web-download", use_import=True, uri=url, **RAW)
    assert active(two)["os_hash_value"] == sha512(data)
    three = images.create_image(name(), data=data, all_stores_must_succeed=True, all_stores=True, **RAW)
    assert set(active(three)["stores"].split(",")) == {"files", "more"}
    # step by step
    four = images.create_image(name(), **RAW)
    assert four.image_import_methods[:1] == ["glance-direct"]
    images.stage_image(four, data=data)
    assert four.status == "uploading"
    images.import_image(four, "glance-direct", store=stores["more"])
    assert active(four)["stores"] == "more"
    five = images.create_image(name(), **RAW)
    assert images.import_image(five, "web-download", uri=url, stores=[stores["more"]]).status_code == 202
    assert active(five)["stores"] == "more"
    (task,) = images.image_tasks(five)
    assert (task.type, task.status, task.image_id) == ("api_image_import", "success", five.id)

    # an administrator's: copies and tasks
    admin = connect("admin").image
    copied = admin.get_image(five.id)
    admin.import_image(copied, "copy-image", stores=[stores["files"]])
    task = next(
        task for task in admin.image_tasks(copied) if task.input["import_req"]["method"]["name"] == "copy-image"
    )
    done = admin.wait_for_task(admin.get_task(task.id), interval=0.2, wait=quiet(60))
    assert done.status == "success"
    assert place.show(five.id)["stores"] == "more,files"
    assert done.id in [one.id for one in admin.tasks(status="success", type="api_image_import")]
    admin.delete_image(five.id, store=stores["more"])
    assert place.show(five.id)["stores"] == "files"
    assert images.download_image(five.id).content == data
    for image in (one, two, three, four, five):
        images.delete_image(image)


def test_locations(place: Place, connect: Connect, data: bytes) -> None:
    """A service registers where the data is, and asks for it."""
    service = connect("glance").image
    assert place.web.files is not None
    (place.web.files / "located.raw").write_bytes(data)
    url = f"{place.web.url}/located.raw"
    image = service.create_image(name(), **RAW)
    service.add_image_location(image, url, validation_data={"os_hash_algo": "sha512", "os_hash_value": sha512(data)})
    service.wait_for_status(image, "active", interval=0.2, wait=quiet(60))
    assert [(one.url, one.metadata["store"]) for one in service.image_locations(image)] == [(url, "web")]
    assert service.download_image(image.id).content == data
    mine = connect("demo").image.create_image(name(), **RAW)
    with pytest.raises(exceptions.ForbiddenException):
        list(connect("demo").image.image_locations(mine))
    connect("demo").image.delete_image(mine)
    service.delete_image(image)


def test_the_cache(place: Place, connect: Connect, data: bytes) -> None:
    admin = connect("admin").image
    image = admin.create_image(name(), data=data, **RAW)
    admin.queue_image(image.id)

    def cached() -> list[str]:
        return [one["image_id"] for one in admin.get_image_cache().cached_images]

    place.wait(lambda: image.id in cached())
    admin.cache_delete_image(image.id)
    assert image.id not in cached()
    with pytest.raises(exceptions.NotFoundException):
        admin.cache_delete_image(str(uuid.uuid4()), ignore_missing=False)
    admin.clear_cache("queue")
    admin.clear_cache()
    admin.clean_cache()
    assert set(admin.prune_cache()) == {"total_files_pruned", "total_bytes_pruned"}
    with pytest.raises(exceptions.ForbiddenException):
        connect("demo").image.get_image_cache()
    admin.delete_image(image)


def test_metadata_definitions(connect: Connect) -> None:
    admin, demo = connect("admin").image, connect("demo").image
    space = name()
    admin.create_metadef_namespace(
        namespace=space, display_name="By a program", visibility="public", is_protected=False
    )
    # what is not said is private from then on, as in Glance: a namespace is replaced
    fields = {"description": "Tried", "display_name": "Again", "visibility": "public"}
    changed = admin.update_metadef_namespace(space, namespace=space, **fields)
    assert (changed.description, changed.display_name) == ("Tried", "Again")
    assert demo.get_metadef_namespace(space).owner
    assert space in [one.namespace for one in demo.metadef_namespaces(limit=1)]

    admin.create_metadef_property(space, name="size", type="integer", title="Size", minimum=1, default=2)
    admin.update_metadef_property("size", space, name="size", type="integer", title="How large")
    assert demo.get_metadef_property("size", space).title == "How large"
    assert [one.name for one in demo.metadef_properties(space)] == ["size"]
    admin.create_metadef_object(space, name="thing", properties={"x": {"title": "X", "type": "string"}})
    admin.update_metadef_object("thing", space, name="object", description="said")
    assert demo.get_metadef_object("object", space).description == "said"
    assert [one.name for one in demo.metadef_objects(space)] == ["object"]
    admin.create_metadef_resource_type_association(space, name="OS::Glance::Image", prefix="hw_")
    assert [one.name for one in demo.metadef_resource_type_associations(space)] == ["OS::Glance::Image"]
    assert "OS::Glance::Image" in [one.name for one in demo.metadef_resource_types()]
    admin.delete_metadef_resource_type_association("OS::Glance::Image", space)
    admin.add_tag_to_metadef_namespace(space, "one")
    admin.remove_tag_from_metadef_namespace(space, "one")
    admin.remove_tags_from_metadef_namespace(space)
    admin.delete_metadef_property("size", space)
    admin.delete_all_metadef_properties(space)
    admin.delete_metadef_object("object", space)
    admin.delete_all_metadef_objects(space)
    with pytest.raises(exceptions.ForbiddenException):
        demo.delete_metadef_namespace(space)
    admin.delete_metadef_namespace(space)
    with pytest.raises(exceptions.NotFoundException):
        demo.get_metadef_namespace(space)
    for kind in ("images", "image", "members", "member", "tasks", "task"):
        assert getattr(demo, f"get_{kind}_schema")().name == kind
    kinds = ("namespace", "resource_type", "property", "object", "tag")
    for kind in (*kinds, "namespaces", "resource_types", "properties", "objects", "tags"):
        assert getattr(demo, f"get_metadef_{kind}_schema")().properties
