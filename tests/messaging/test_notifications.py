"""What a consumer on a real broker hears of changes, whatever dies meanwhile."""

import contextlib

from tests.crash.points import service_deaths
from tests.crash.proof import rows
from tests.imports.conftest import begin, ended, stage
from tests.messaging.conftest import Consumer, Scene, await_that
from tests.servers.rabbitmq import RabbitMQ

LIFE = ["create", "update", "prepare", "update", "upload", "activate", "update", "delete"]


def test_each_change_is_told_once_and_in_order(scene: Scene, consumer: Consumer) -> None:
    ann = scene.ann
    image = ann.new(b"data" * 1000, name="first", os_distro="debian")
    assert ann.download(image).status == 200
    assert ann.patch(image, {"op": "replace", "path": "/name", "value": "second"}).status == 200
    assert ann.delete(image).status == 204
    await_that(lambda: len(consumer.types(image)) == len(LIFE) + 1, lambda: consumer.types(image))
    found = consumer.types(image)
    found.remove("image.send")  # beside the others
    assert found == [f"image.{kind}" for kind in LIFE]


def test_a_day_on_which_everything_dies(scene: Scene, consumer: Consumer) -> None:
    """kill -9 of API processes before and after the commit, and of the process that sends, before what it has sent is
    removed: each event comes, and one that comes twice has the same id."""
    ann, service = scene.ann, scene.service
    told: dict[str, list[str]] = {}
    for point in ("change.begin", "change.stored", "upload.activated", "delete.marked", "relay.sent"):
        before = len(service_deaths(service))
        image = ann.new(name=point)
        scene.armed.arm(point)
        with contextlib.suppress(OSError):
            if point.startswith("change"):
                ann.patch(image, {"op": "replace", "path": "/name", "value": f"{point} again"})
            elif point.startswith("upload"):
                ann.upload(image, b"data")
            else:
                scene.patient(lambda image=image: ann.upload(image, b"data"))
                ann.delete(image)
        await_that(lambda before=before: len(service_deaths(service)) > before, lambda: service.log)
        scene.armed.disarm()
        scene.patient(lambda: ann.ask("GET", "/v2/images?limit=1"))
        told[image] = {
            "change.begin": ["create"],
            "change.stored": ["create", "update"],
            "upload.activated": LIFE[:-2],
        }.get(point, [*LIFE[:-2], "delete"])
    expected = {image: [f"image.{kind}" for kind in kinds] for image, kinds in told.items()}

    def heard() -> dict[str, list[str]]:
        return {image: consumer.types(image) for image in told}

    await_that(lambda: heard() == expected, lambda: (heard(), expected, service.log), 60)
    await_that(lambda: len(consumer.messages) > len({one["message_id"] for one in consumer.messages}))  # relay.sent
    await_that(lambda: not rows(service, "SELECT id FROM xloud_events"))


def test_the_bus_is_away_for_a_while(scene: Scene, consumer: Consumer, broker: RabbitMQ) -> None:
    ann = scene.ann
    broker.stop()
    images = [ann.new(name=f"while it is away {number}") for number in range(20)]
    for image in images:
        assert ann.delete(image).status == 204
    await_that(lambda: "they cannot be sent now" in scene.service.log)
    assert len(rows(scene.service, "SELECT id FROM xloud_events")) == 40
    broker.start()
    for image in images:
        await_that(lambda image=image: consumer.types(image) == ["image.create", "image.delete"], seconds=60)
    assert "r-secret" not in scene.service.log
    first = [one["payload"]["id"] for one in consumer.messages if one["payload"].get("name", "").startswith("while")]
    assert list(dict.fromkeys(first)) == images  # in their order


def test_what_failed_is_told_as_an_error(scene: Scene, consumer: Consumer) -> None:
    image = scene.ann.new(disk_format="qcow2")
    assert scene.ann.upload(image, b"no qcow2" * 100).status == 415
    await_that(lambda: consumer.types(image)[-1:] == ["image.upload"] or "image.upload" in consumer.types(image))
    (error,) = [
        one for one in consumer.messages if one["event_type"] == "image.upload" and image in str(one["payload"])
    ]
    assert error["priority"] == "ERROR"
    assert error["payload"].startswith(f"Upload of image {image} failed: ")


def test_members_and_imports(scene: Scene, consumer: Consumer) -> None:
    ann = scene.ann
    image = ann.new()
    await_that(lambda: ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])
    assert stage(ann, image, b"data").status == 204
    assert begin(ann, image).status == 202
    assert ended(ann, image)["status"] == "success"
    assert ann.ask("POST", f"/v2/images/{image}/members", json={"member": "beta"}).status == 200
    accepted = scene.cloud.bob.ask("PUT", f"/v2/images/{image}/members/beta", json={"status": "accepted"})
    assert accepted.status == 200
    assert ann.ask("DELETE", f"/v2/images/{image}/members/beta").status == 204
    members = [f"image.member.{kind}" for kind in ("create", "update", "delete")]
    await_that(lambda: consumer.types(image)[-3:] == members, lambda: consumer.types(image))
    assert {"image.prepare", "image.upload", "image.activate"} <= set(consumer.types(image))
    (task,) = ann.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"]
    kinds = [f"task.{kind}" for kind in ("create", "run", "processing", "success")]
    assert [kind for kind in consumer.types(task["id"]) if kind.startswith("task.")] == kinds
    assert not [one for one in consumer.messages if "file://" in str(one) or "input" in str(one["payload"])]


def test_definitions_of_metadata(scene: Scene, consumer: Consumer) -> None:
    admin, place = scene.cloud.admin, "/v2/metadefs/namespaces"
    name = "OS::Told::Of"
    assert admin.ask("POST", place, json={"namespace": name, "visibility": "public"}).status == 201
    change = {"namespace": name, "visibility": "private"}
    assert admin.ask("PUT", f"{place}/{name}", json=change).status == 200
    assert admin.ask("POST", f"{place}/{name}/tags/warm").status == 201
    one = {"name": "size", "title": "Size", "type": "integer"}
    assert admin.ask("POST", f"{place}/{name}/properties", json=one).status == 201
    assert admin.ask("POST", f"{place}/{name}/properties", json=one).status == 409
    assert admin.ask("POST", f"{place}/{name}/resource_types", json={"name": "OS::Glance::Image"}).status == 201
    assert admin.ask("DELETE", f"{place}/{name}/resource_types/OS::Glance::Image").status == 204
    assert admin.ask("DELETE", f"{place}/{name}/properties/size").status == 204
    assert admin.ask("DELETE", f"{place}/{name}/tags").status == 204
    assert admin.ask("DELETE", f"{place}/{name}").status == 204
    told = [
        "metadef_namespace.create", "metadef_namespace.update", "metadef_tag.create", "metadef_property.create",
        "metadef_resource_type.create", "metadef_resource_type.delete", "metadef_property.delete",
        "metadef_namespace.delete_tags", "metadef_namespace.delete",
    ]  # fmt: skip
    await_that(lambda: consumer.types(name) == told, lambda: consumer.types(name))
