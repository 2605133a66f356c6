"""kill -9 of a process at every named failpoint: what was acknowledged stays, what was not is done or not done."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import points, table
from tests.crash.client import Client
from tests.crash.ledger import Ledger
from tests.crash.points import Armed, die_at
from tests.crash.proof import prove, wait_until_settled
from tests.servers.place import ROOT
from tests.servers.service import Service
from xloud_image import failpoints


def test_the_list_of_failpoints_is_what_the_code_has() -> None:
    sources = (ROOT / "src").rglob("*.py")
    reached = {name for path in sources for name in re.findall(r'reach(?:_in_thread)?\("([^"]+)"\)', path.read_text())}
    assert reached == set(failpoints.POINTS)


def test_every_failpoint_is_tried() -> None:
    tried = {*points.STEPS, *points.REAPER, *points.MESSAGES, *(cell.point for cell in table.DEATHS)}
    assert tried == set(failpoints.POINTS)


class Scene:
    """One service whose workers die and are replaced, and all that clients were told by it."""

    def __init__(self, directory: Path) -> None:
        self.armed = Armed(directory / "failpoints")
        self.service = Service(points.SETTINGS, environment=self.armed.environment)
        self.ledger = Ledger()
        self.died = 0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("armed"))
    scene.service.start()
    yield scene
    scene.service.kill()


@pytest.mark.parametrize("point", [*points.STEPS, *points.REAPER])
def test_a_worker_dies_at(point: str, scene: Scene) -> None:
    before = len(points.service_deaths(scene.service))
    client = Client(scene.service.url, scene.ledger, point)
    assert die_at(point, scene.service, scene.armed, client, before=before), f"nobody died at {point}"
    assert not client.surprises
    assert prove(scene.service, scene.ledger, only=client.mine) == []


def test_all_die_at_once_and_nothing_of_it_is_lost(scene: Scene) -> None:
    """After the tests above: the whole service is killed and started anew; every image is as it was left."""
    scene.service.kill()
    scene.service.start()
    assert prove(scene.service, scene.ledger) == []


def test_a_worker_dies_while_a_location_is_registered(tmp_path: Path) -> None:
    """The data was in the memory of the process, so it is gone; the image waits for data, and no claim is left."""
    armed = Armed(tmp_path / "failpoints")
    service = Service(points.MEMORY, environment=armed.environment)
    service.start()
    try:
        client = Client(service.url, Ledger(), "hash.read")
        image = points.register_location(service, armed, client, "hash.read")
        assert wait_until_settled(service) == []
        shown = points.settled_image(service, image)
        assert (shown["status"], shown["size"], shown["os_hash_value"]) == ("queued", None, None)
        assert client.upload(client.ledger.open(image), 1000) == 204
    finally:
        service.kill()
