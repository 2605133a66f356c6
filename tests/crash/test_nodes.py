"""Two nodes on one database and one directory: what one of them works on, the other leaves alone; and a node that
stands still for longer than its lease finds out when it goes on."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash import points
from tests.crash.points import Armed, wait_until
from tests.crash.proof import claims, files, rows
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.service import Service
from tests.stores.mounts import Hangable

OCTETS = {"Content-Type": "application/octet-stream"}
LEASE = points.SETTINGS["xloud"]["lease_time"]
FIRST, SECOND = b"1" * 3_000_000, b"2" * 2_000_000


class Nodes:
    """`one` can be told where to wait; `two` shares its database and its directory."""

    def __init__(self, directory: Path) -> None:
        self.armed = Armed(directory / "failpoints")
        settings = {"DEFAULT": {"workers": 1}, "xloud": points.SETTINGS["xloud"]}
        self.one = Service(settings, environment=self.armed.environment)
        shared = {name: self.one.sections[name] for name in ("database", "files")}
        self.two = Service({**settings, **shared})

    def new_image(self) -> str:
        body = {"disk_format": "raw", "container_format": "bare"}
        image_id: str = self.one.request("POST", "/v2/images", json=body).json()["id"]
        return image_id

    def status(self, image_id: str) -> str:
        status: str = self.two.request("GET", f"/v2/images/{image_id}").json()["status"]
        return status

    def put(self, node: Service, image_id: str, body: Any) -> Answer:
        return node.request("PUT", f"/v2/images/{image_id}/file", body=body, headers=OCTETS)

    def held(self) -> dict[str, int]:
        """The bytes in the directory by image; a second attempt has a name that begins with the image's id."""
        return {name[:36]: size for name, size in files(self.one.images).items()}

    def close(self) -> None:
        self.one.kill()
        self.two.kill()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        nodes.one.start()
        nodes.two.start()
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def nodes(pair: Nodes) -> Iterator[Nodes]:
    """Both run, and there is no image."""
    yield pair
    pair.armed.disarm()
    for image in pair.two.request("GET", "/v2/images").json()["images"]:
        assert pair.two.request("DELETE", f"/v2/images/{image['id']}").status == 204
    assert files(pair.one.images) == {}
    if pair.one.exit_code is not None:
        pair.one.start()


def started(call: Callable[[], Answer]) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_lease_that_is_renewed_is_respected(nodes: Nodes) -> None:
    """An upload that takes twice as long as a lease, while another node looks for something to clean up."""
    image_id = nodes.new_image()

    def data() -> Iterator[bytes]:
        for _ in range(LEASE * 4):
            yield bytes(10_000)
            time.sleep(0.5)

    thread, answers = started(lambda: nodes.put(nodes.one, image_id, data()))
    assert wait_until(lambda: claims(nodes.one))
    holders = set()
    while thread.is_alive():
        holders |= {(holder, attempts) for _, _, _, holder, attempts, _ in claims(nodes.one)}
        time.sleep(0.2)
    assert len(holders) == 1, f"the claim changed hands: {holders}"
    assert answers[0].status == 204
    assert files(nodes.one.images) == {image_id: LEASE * 40_000}


def test_a_node_that_stood_still_during_uploads(nodes: Nodes) -> None:
    """Stopped in the middle of one upload, and of another one whose bytes were complete under their final name. The
    other node cleans up and takes new data. The first node goes on: both its clients are told that they failed, and
    nothing of what they sent is there."""
    middle, complete = nodes.new_image(), nodes.new_image()
    going_on = threading.Event()

    def data() -> Iterator[bytes]:
        yield FIRST
        going_on.wait(60)
        yield FIRST

    nodes.armed.arm("upload.written", action="sleep:1.5")
    in_middle, middle_answer = started(lambda: nodes.put(nodes.one, middle, data()))
    in_complete, complete_answer = started(lambda: nodes.put(nodes.one, complete, FIRST))
    assert wait_until(lambda: complete in files(nodes.one.images) and len(files(nodes.one.images)) == 2)
    (worker,) = points.workers(nodes.one)
    os.kill(worker, signal.SIGSTOP)
    try:
        assert {nodes.status(middle), nodes.status(complete)} == {"saving"}
        assert wait_until(lambda: nodes.status(middle) == nodes.status(complete) == "queued", LEASE + 10)
        assert files(nodes.one.images) == {}
        for image_id in (middle, complete):
            assert nodes.put(nodes.two, image_id, SECOND).status == 204
    finally:
        os.kill(worker, signal.SIGCONT)
    going_on.set()
    in_middle.join(30)
    in_complete.join(30)
    assert middle_answer[0].status in (409, 410)
    assert complete_answer[0].status in (409, 410)
    assert claims(nodes.one) == []
    assert nodes.held() == {middle: len(SECOND), complete: len(SECOND)}
    for image_id in (middle, complete):
        assert nodes.status(image_id) == "active"
        for node in (nodes.one, nodes.two):
            assert node.request("GET", f"/v2/images/{image_id}/file").body == SECOND
    assert rows(nodes.one, "SELECT count(*) FROM image_locations WHERE NOT deleted") == [(2,)]


def test_what_a_dead_node_left(nodes: Nodes) -> None:
    """kill -9 of a whole node during an upload: a sister on the same host takes over without waiting for the lease."""
    image_id = nodes.new_image()
    stuck = threading.Event()

    def data() -> Iterator[bytes]:
        yield FIRST
        stuck.wait(60)

    def upload() -> Answer:
        try:
            return nodes.put(nodes.one, image_id, data())
        except OSError:
            return Answer(0, {}, b"")

    thread, answers = started(upload)
    assert wait_until(lambda: files(nodes.one.images))
    begun = time.monotonic()
    nodes.one.kill()
    stuck.set()
    assert wait_until(lambda: nodes.status(image_id) == "queued")
    assert time.monotonic() - begun < quiet(LEASE), "it waited for the lease"
    thread.join(30)
    assert answers[0].status == 0
    assert (files(nodes.one.images), claims(nodes.two)) == ({}, [])


def test_a_removal_that_comes_too_late(tmp_path: Path) -> None:
    """One node's mount hangs while it removes what an upload left. The other node sees the directory, cleans up and
    takes the data. When the mount goes on, the removal is carried out: it must not meet the new data."""
    settings = {"DEFAULT": {"workers": 1}, "xloud": points.SETTINGS["xloud"], "files": {"filesystem_store_timeout": 1}}
    mount = Hangable(tmp_path / "disk", tmp_path / "mount")
    one = Service({**settings, "files": {**settings["files"], "filesystem_store_datadir": mount.target}})
    shared = {"database": one.sections["database"], "files": {"filesystem_store_datadir": tmp_path / "disk"}}
    two = Service({**settings, **shared})
    image = {"disk_format": "raw", "container_format": "bare"}
    try:
        one.start()
        two.start()
        image_id = one.request("POST", "/v2/images", json=image).json()["id"]
        path = f"/v2/images/{image_id}/file"

        def broken() -> Iterator[bytes]:
            yield FIRST
            assert wait_until(lambda: any(files(tmp_path / "disk").values()))
            mount.stop()
            yield b"too much"

        headers = {**OCTETS, "x-openstack-image-size": str(len(FIRST))}
        assert one.request("PUT", path, body=broken(), headers=headers).status >= 400
        assert wait_until(lambda: two.request("PUT", path, body=SECOND, headers=OCTETS).status == 204, 30)
        mount.go_on()
        time.sleep(1)
        assert two.request("GET", path).body == SECOND
        assert wait_until(lambda: not claims(two))
        assert [name[:36] for name in files(tmp_path / "disk")] == [image_id]
    finally:
        one.kill()
        two.kill()
        mount.close()
