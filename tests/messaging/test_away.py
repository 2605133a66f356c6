"""RabbitMQ goes away under load and comes back: nothing is lost, nobody waits for it, and nothing grows.

Time is compressed: the bus is away for a minute, in which two callers make as many changes as they can, 3000 at most:
one a second for most of an hour. XLOUD_BUS_AWAY=3600 makes it the hour itself, with such a load for all of it.
"""

import os
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.proof import rows
from tests.messaging.conftest import Consumer, Scene, await_that
from tests.servers.rabbitmq import RabbitMQ

AWAY = float(os.environ.get("XLOUD_BUS_AWAY", "60"))  # seconds
BEFORE = min(AWAY / 4, 60)  # seconds with the bus, to compare with
CHANGES = 3000  # at most that are made while it is away: as in an hour
CALLERS = 2
GROWTH = 48 << 20  # bytes that the process that sends may grow by, whatever waits
FIRST = ["image.create", "image.update", "image.update", "image.delete"]


class Load:
    """Callers that each make, change and delete images, one after the other, until told to stop."""

    def __init__(self, scene: Scene, most: int, pause: float) -> None:
        self._scene, self._most, self._pause = scene, most, pause
        self.images: list[str] = []
        self.seconds: list[float] = []
        self.failures: list[object] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]

    def run(self, seconds: float) -> None:
        """For so long, or until there are enough."""
        for thread in self._threads:
            thread.start()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.2)
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        while not self._over.is_set() and 4 * len(self.images) < self._most:
            image = self._ask("POST", "/v2/images", {"name": "away", "disk_format": "raw", "container_format": "bare"})
            if image is None:
                return
            for number in range(2):
                change = [{"op": "replace", "path": "/name", "value": f"away {number}"}]
                self._ask("PATCH", f"/v2/images/{image}", change)
            self._ask("DELETE", f"/v2/images/{image}")
            self.images.append(image)

    def _ask(self, method: str, path: str, body: object = None) -> str | None:
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"} if method == "PATCH" else {}
        begun = time.monotonic()
        answer = self._scene.ann.ask(method, path, headers=headers, **({} if body is None else {"json": body}))
        self.seconds.append(time.monotonic() - begun)
        if answer.status not in (200, 201, 204):
            self.failures.append((method, path, answer))
            return None
        self._over.wait(self._pause)
        return str(answer.json()["id"]) if method == "POST" else path

    def shown(self) -> str:
        cuts = statistics.quantiles(self.seconds, n=100)
        return f"{len(self.seconds)} calls, p50 {1000 * cuts[49]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(300 + 3 * AWAY)
def test_the_bus_is_away_under_load(
    scene: Scene, consumer: Consumer, broker: RabbitMQ, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = 0.0 if AWAY <= 600 else CALLERS * AWAY / CHANGES
    before = Load(scene, CHANGES, pause)
    before.run(BEFORE)
    assert not before.failures
    await_that(lambda: not rows(scene.service, "SELECT id FROM xloud_events"), seconds=120)
    relay = scene.relay
    small = resident(relay)

    broker.stop()
    begun = time.monotonic()
    meanwhile = Load(scene, CHANGES, pause)
    meanwhile.run(AWAY)
    largest = resident(relay)
    while time.monotonic() - begun < AWAY:
        time.sleep(0.5)
        largest = max(largest, resident(relay))
    assert not meanwhile.failures
    waiting = len(rows(scene.service, "SELECT id FROM xloud_events"))
    assert waiting == 4 * len(meanwhile.images)
    broker.start()
    back = time.monotonic()
    await_that(lambda: not rows(scene.service, "SELECT id FROM xloud_events"), lambda: scene.service.log[-2000:], 180)
    took = time.monotonic() - back
    largest = max(largest, resident(relay))
    assert scene.relay == relay  # it did not die of it

    ids = {*before.images, *meanwhile.images}

    def told() -> list[dict[str, object]]:
        return [one for one in list(consumer.messages) if one["payload"]["id"] in ids]

    await_that(lambda: len(told()) >= 4 * len(ids), lambda: (len(told()), 4 * len(ids)))
    assert set(Counter(one["message_id"] for one in told()).values()) == {1}
    kinds: dict[str, list[str]] = {}
    for one in told():
        kinds.setdefault(one["payload"]["id"], []).append(one["event_type"])  # type: ignore[index]
    assert kinds == dict.fromkeys(ids, FIRST)
    first = dict.fromkeys(one["payload"]["id"] for one in told())  # type: ignore[index]
    assert len(first) == len(ids)
    with capsys.disabled():
        print(
            f"\nthe bus away for {AWAY:.0f} s: before {before.shown()}; meanwhile {meanwhile.shown()};"
            f" {waiting} events waited and were sent in {took:.1f} s; the sender grew by {(largest - small) >> 10} KiB"
        )
    assert largest - small < GROWTH
