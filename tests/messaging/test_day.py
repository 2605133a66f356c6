"""A day of a cloud on a real broker, in which workers of the API and those that work and send are killed all the time:
each event of what was committed is told, in order, and none twice but with the same id.

What was cut off by a kill is asked for again only where it did not happen, so that each step of the day is done once.
"""

import contextlib
import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.crash.points import workers
from tests.crash.proof import rows
from tests.imports.conftest import begin, set_back, stage
from tests.load import quiet
from tests.messaging.conftest import Consumer, Scene, await_that
from tests.servers.http import Answer

IMAGES, MOST = 6, 60  # images of a day: at least, and at most until enough was killed
BETWEEN = (0.8, 1.6)  # seconds between two kills
MEMBER = "beta"


class Killer:
    """Kills one of the service's processes now and then, of each kind in turn, until closed."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._over = scene, threading.Event()
        self.killed: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def enough(self) -> bool:
        return self.killed["api"] >= 3 and self.killed["relay"] >= 2

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(4)
        turn = 0
        while not self._over.wait(chance.uniform(*BETWEEN)):
            turn += 1
            relay = self._scene.relay
            # starting one takes longer than a request
            pid = relay if turn % 3 == 0 else chance.choice(sorted(workers(self._scene.service) - {relay}) or [0])
            if pid in workers(self._scene.service):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.killed["relay" if pid == relay else "api"] += 1


@pytest.fixture
def killer(scene: Scene) -> Iterator[Killer]:
    killer = Killer(scene)
    yield killer
    killer.close()


def surely(ask: Callable[[], Answer], happened: Callable[[], object]) -> None:
    """Have it happen once: what a kill cut off is asked for again when it did not."""
    begun = time.monotonic()
    answer: Answer | None = None
    while time.monotonic() - begun < quiet(60):
        with contextlib.suppress(OSError):
            if answer is not None and answer.status >= 500 and happened():
                return
            answer = ask()
            if answer.status < 400:
                return
        with contextlib.suppress(OSError):
            if happened():
                return
        time.sleep(0.1)
    raise AssertionError(answer)


class Life:
    """One image from its beginning to its end; `told`: what is to be heard of it, but for the events of each step of
    its data, of which an attempt that a kill cut off has its own."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.image = str(uuid.uuid4())
        self._scene, self._ann, self._number = scene, scene.ann, number
        self.tasks: list[str] = []

    def live(self) -> None:
        ann, bob, image = self._ann, self._scene.cloud.bob, self.image
        members = f"/v2/images/{image}/members"
        fields = {"id": image, "name": f"day {self._number}", "disk_format": "raw", "container_format": "bare"}
        surely(lambda: ann.create(**fields), lambda: self._status() == "queued")
        if self._number % 2:
            surely(lambda: ann.upload(image, b"data" * 5000), lambda: self._status() == "active")
        else:
            surely(lambda: stage(ann, image, b"data" * 5000), lambda: self._status() == "uploading")
            surely(lambda: begin(ann, image), self._tasks)
            await_that(lambda: self._status() == "active", self._tasks, 60)
            await_that(self._remembered)  # nobody may listen for a moment
        name = [{"op": "replace", "path": "/name", "value": "renamed"}]
        surely(lambda: ann.patch(image, *name), lambda: self._shown().get("name") == "renamed")
        surely(
            lambda: ann.ask("POST", members, json={"member": MEMBER}),
            lambda: ann.ask("GET", f"{members}/{MEMBER}").status == 200,
        )
        surely(
            lambda: bob.ask("PUT", f"{members}/{MEMBER}", json={"status": "accepted"}),
            lambda: ann.ask("GET", f"{members}/{MEMBER}").json().get("status") == "accepted",
        )
        surely(
            lambda: ann.ask("DELETE", f"{members}/{MEMBER}"),
            lambda: ann.ask("GET", f"{members}/{MEMBER}").status == 404,
        )
        for action, status in (("deactivate", "deactivated"), ("reactivate", "active")):
            surely(
                lambda action=action: self._scene.cloud.admin.ask("POST", f"/v2/images/{image}/actions/{action}"),
                lambda status=status: self._status() == status,
            )
        surely(lambda: ann.delete(image), lambda: ann.ask("GET", f"/v2/images/{image}").status == 404)

    def _shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ann.ask("GET", f"/v2/images/{self.image}").json()
        return found

    def _status(self) -> object:
        with contextlib.suppress(OSError):
            return self._shown().get("status")
        return None

    def _remembered(self) -> bool:
        self.tasks = [one["id"] for one in self._tasks()]
        return bool(self.tasks)

    def _tasks(self) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):
            found: list[dict[str, Any]] = self._ann.ask("GET", f"/v2/images/{self.image}/tasks").json()["tasks"]
            return found
        return []


WHOLE = [
    "image.create", "image.upload", "image.activate", "renamed", "image.member.create", "image.member.update",
    "image.member.delete", "deactivated", "reactivated", "image.delete",
]  # fmt: skip


def steps(told: list[dict[str, Any]]) -> list[str]:
    """The steps of a life, in the order in which they were told; an update by what it changed."""
    found, name, status = [], "", ""
    for one in told:
        kind, payload = one["event_type"], one["payload"]
        if kind == "image.update":
            if payload["name"] == "renamed" != name and name:
                found.append("renamed")
            if payload["status"] == "deactivated" != status:
                found.append("deactivated")
            if payload["status"] == "active" and status == "deactivated":
                found.append("reactivated")
        elif kind in WHOLE:
            found.append(kind)
        if kind.startswith("image.") and "member" not in kind and isinstance(payload, dict) and "name" in payload:
            name, status = payload["name"], payload["status"]
    return found


@pytest.mark.timeout(400)
def test_each_event_of_a_day_of_kills(scene: Scene, consumer: Consumer, killer: Killer) -> None:
    lives: list[Life] = []
    while len(lives) < IMAGES or (not killer.enough() and len(lives) < MOST):
        lives.append(Life(scene, len(lives)))
        lives[-1].live()
    killer.close()
    assert killer.enough(), killer.killed
    # who worked is gone for good; what is left is told by another
    await_that(lambda: not rows(scene.service, "SELECT id FROM xloud_events"), lambda: scene.service.log[-3000:], 90)

    def told(about: str) -> list[dict[str, Any]]:
        once = {one["message_id"]: one for one in list(consumer.messages)}.values()
        return [one for one in once if about in (one["payload"].get("id"), one["payload"].get("image_id"))]

    for life in lives:
        await_that(lambda life=life: steps(told(life.image))[-1:] == ["image.delete"], lambda: killer.killed)
        assert steps(told(life.image)) == WHOLE, (life.image, [one["event_type"] for one in told(life.image)])
        assert len(life.tasks) == (life._number + 1) % 2
    for task in [task for life in lives for task in life.tasks]:
        kinds = [one["event_type"] for one in told(task)]
        assert kinds == ["task.create", "task.run", "task.processing", "task.success"]
    set_back(scene.service, "UPDATE tasks SET expires_at = '2020-01-01 00:00:00.000000'")
    os.kill(scene.relay, signal.SIGKILL)  # the next one looks for what has expired when it begins
    await_that(lambda: [one["event_type"] for one in told(lives[0].tasks[0])][-1] == "task.delete")
    assert told(lives[0].tasks[0])[-1]["payload"]["deleted"]

    # what is told of no change, with nobody killed
    ann, image = scene.ann, scene.ann.new(b"data", name="sent")
    assert ann.download(image).status == 200
    await_that(lambda: "image.send" in consumer.types(image), lambda: consumer.types(image))
    failing = ann.new(disk_format="qcow2")
    assert stage(ann, failing, b"no qcow2" * 100).status == 204
    assert begin(ann, failing).status == 202
    [task] = [one["id"] for one in ann.ask("GET", f"/v2/images/{failing}/tasks").json()["tasks"]]
    await_that(lambda: [one["event_type"] for one in told(task)][-1:] == ["task.failure"], lambda: told(task))
