"""What dies in the middle of an upload in several requests: the offset stays true, and what goes on there ends
well. One death at each step: tests.crash.test_table."""

import hashlib
import http.client
import io
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import requests

from tests.api.cloud import Caller
from tests.crash.points import service_deaths, workers
from tests.imports.conftest import begin, ended
from tests.servers.http import Answer
from tests.servers.service import Service
from tests.uploads.conftest import DATA, HALF, LEASE, Scene, Sender, answering, await_that
from xloud_image import resuming

GONE = (OSError, http.client.HTTPException)


def test_while_one_finishes_it_another_asks(scene: Scene) -> None:
    """The client's connection broke at the end: he asks again, and hears of the end when it is there."""
    sender = Sender(scene.ann)
    sender.begin(DATA[:HALF])
    scene.armed.arm("parts.written", action="sleep:2")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(sender.last(HALF, DATA[HALF:])))
    thread.start()
    await_that(lambda: scene.query("SELECT 1 FROM xloud_uploads WHERE state = 'finishing'"))
    told = sender.head().headers
    assert (told["upload-offset"], told["upload-complete"]) == (str(len(DATA)), "?0")
    assert sender.cancel().status == 409
    assert sender.add(len(DATA), b"more").status == 503
    assert sender.last(len(DATA)).status == 204
    thread.join()
    assert answers[0].status == 204
    assert sender.has(DATA)
    scene.nothing_left(sender.image)


def test_one_that_stood_still_beyond_its_lease_changes_nothing(scene: Scene) -> None:
    sender = Sender(scene.ann)
    sender.begin(Upload_Length=str(len(DATA)))
    scene.armed.arm("part.written", action="sleep:1")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(sender.add(0, b"Z" * HALF)))
    thread.start()
    await_that(lambda: scene.staged(sender.image))
    scene.armed.disarm()
    asleep = _serving(scene.service)
    os.kill(asleep, signal.SIGSTOP)
    other = _sister(scene)
    try:
        other.start()
        sister = Sender(Caller(other, None), sender.image)
        sister.caller.headers, sister.path = scene.ann.headers, sender.path
        assert sister.add(sister.offset, DATA[:HALF]).status == 204
        await_that(lambda: scene.staged(sender.image) == 1, seconds=LEASE + 30)
        os.kill(asleep, signal.SIGCONT)
        thread.join()
        assert answers[0].status in (409, 503)
        assert sister.last(HALF, DATA[HALF:]).status == 204
        assert sister.has(DATA)
        scene.nothing_left(sender.image)
    finally:
        os.kill(asleep, signal.SIGCONT)
        other.kill()


def _sister(scene: Scene) -> Service:
    """Another node on the same database and stores."""
    options = {name: dict(values) for name, values in scene.service.sections.items()}
    options["DEFAULT"].pop("bind_port")
    options["xloud"]["job_workers"] = 0
    return Service(options, environment=scene.armed.environment)


# MiB of the long upload, of the staged one a fourth: `BROKEN_MIB=2048` is a trial by hand
BROKEN = int(os.environ.get("BROKEN_MIB", "256"))


@pytest.mark.timeout(180 + BROKEN)
@pytest.mark.parametrize(("kind", "size"), [("file", BROKEN << 20), ("stage", BROKEN << 18)])
def test_broken_ten_times(scene: Scene, tmp_path: Path, session: requests.Session, kind: str, size: int) -> None:
    """By its client, by kill -9 of a process, and by kill -9 of a whole node, of two that have the database in common.
    It ends with the right digest, and each byte is sent about once. What is staged so is imported, by one that dies."""
    path = tmp_path / "data"
    sums = hashlib.sha512()
    with path.open("wb") as file:
        source = random.Random(11)
        for _ in range(size >> 20):
            block = source.randbytes(1 << 20)
            sums.update(block)
            file.write(block)
    image = scene.cloud.ann.new()
    scene.service.configure({"DEFAULT": {"image_size_cap": BROKEN << 20}})
    scene.service.kill()
    scene.service.start()
    nodes = [scene.service, _sister(scene)]
    nodes[1].start()
    try:
        sent = _send(nodes, scene.ann, image, kind, path, session)
        if kind == "stage":
            before = len(service_deaths(scene.service))
            scene.armed.arm("job.half")
            assert begin(scene.ann, image).status == 202
            await_that(lambda: len(service_deaths(scene.service)) > before)
            scene.armed.disarm()
            assert ended(scene.ann, image, 60)["status"] == "success"
        told = scene.ann.show(image)
        assert (told["status"], told["os_hash_value"], told["size"]) == ("active", sums.hexdigest(), size)
        scene.nothing_left(image)
        print(f"{sent / size:.3f} of the data was sent")
        # each time a part is sent again, and what was on its way
        assert sent < size + 10 * (max(8 << 20, size // 128) + (4 << 20))
    finally:
        nodes[1].kill()


class Falling(io.FileIO):
    """A file of which something happens each time it has been read up to one of some bytes. `sent`: bytes read."""

    def __init__(self, path: Path, events: Iterator[tuple[int, Callable[[], None]]]) -> None:
        super().__init__(path)
        self._events, self.sent = events, 0
        self._next = next(events, None)

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.sent += len(found)
        if self._next is not None and self.tell() >= self._next[0]:
            _, event = self._next
            self._next = next(self._events, None)
            event()
        return found


def _serving(service: Service) -> int:
    """The process that answers requests."""
    return next(pid for pid in workers(service) if f"event=ready pid={pid}" in service.log)


def _send(
    nodes: Sequence[Service], caller: Caller, image: str, kind: str, path: Path, session: requests.Session
) -> int:
    """Bytes that were sent until all was there. After each time that the client goes another node is asked."""
    turn = itertools.cycle(nodes)
    node = next(turn)

    def process() -> None:
        os.kill(_serving(node), signal.SIGKILL)

    def whole() -> None:
        node.kill()
        node.start()

    def client() -> None:
        raise KeyboardInterrupt

    what = [client, process, whole, client, process, client, whole, process, client, whole]
    step = path.stat().st_size // (len(what) + 1)
    known: str | None = None
    found: list[str] = []
    with Falling(path, iter([(step * number, event) for number, event in enumerate(what, 1)])) as file:
        for _ in range(len(what) + 1):
            base = f"{node.url}/v2/images/{image}"
            known = f"{base}/uploads/{found[0].rpartition('/')[2]}" if found else None
            try:
                resuming.upload(
                    session, f"{base}/{kind}", file, headers=lambda: caller.headers, known=known, begun=found.append
                )
            except KeyboardInterrupt:
                node = next(turn)
                answering(node)
            else:
                return file.sent
    raise AssertionError("it did not come to an end")
