"""A worker on another node hears that there is work, by the message bus."""

import configparser
from collections.abc import Iterator

import pytest

from tests.imports.conftest import begin, ended, stage
from tests.messaging.conftest import Scene, await_that
from tests.servers.process import Process
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.service import installed


@pytest.fixture(scope="module")
def far(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A `worker` of its own, as on another node."""
    folder = tmp_path_factory.mktemp("far")
    parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
    parser.read(scene.service.configuration)
    parser["DEFAULT"]["debug"] = "true"
    parser["oslo_messaging_notifications"]["driver"] = "noop"
    file = folder / "far.conf"
    with file.open("w") as lines:
        parser.write(lines)
    process = Process(
        "worker", [*installed(), "worker", "--config-file", file], log=folder / "log", directory=folder, environment={}
    )
    try:
        process.wait_for(lambda: "rings of other nodes are heard" in process.output(), 60)
        yield process
        assert process.stop() == 0
    finally:
        process.kill()


def test_a_worker_elsewhere_is_rung(scene: Scene, far: Process) -> None:
    await_that(lambda: "rings of other nodes are heard" in scene.service.log)
    await_that(lambda: scene.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])
    image = scene.ann.new()
    assert stage(scene.ann, image, b"data").status == 204
    assert "another node rings" not in far.output()
    assert begin(scene.ann, image).status == 202
    await_that(lambda: "another node rings" in far.output(), far.output)
    assert ended(scene.ann, image)["status"] == "success"


def test_without_the_bus_it_looks_by_itself(scene: Scene, far: Process, broker: RabbitMQ) -> None:
    broker.stop()
    try:
        image = scene.ann.new()
        assert stage(scene.ann, image, b"data").status == 204
        assert begin(scene.ann, image).status == 202
        assert ended(scene.ann, image)["status"] == "success"
    finally:
        broker.start()
