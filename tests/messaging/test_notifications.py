"""What a consumer on a real broker hears of changes, whatever dies meanwhile."""

from tests.messaging.conftest import Consumer, Scene, await_that

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
