"""A real broker, a consumer of notifications beside it, and a service that sends them."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest

from tests.api.cloud import Cloud
from tests.crash.points import Armed
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.place import HOST
from tests.servers.rabbitmq import PASSWORD, USER, RabbitMQ

LEASE = 5
QUEUES = ("notifications.info", "notifications.error")


class Consumer:
    """What a consumer of Glance's notifications sees, by plain AMQP; `messages` in the order in which they came."""

    def __init__(self, broker: RabbitMQ) -> None:
        self.messages: list[dict[str, Any]] = []
        self._broker = broker
        self._stop = threading.Event()
        self._connect()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        where = f"{HOST}:{self._broker.port}"
        self._connection = amqp.Connection(where, userid=USER, password=PASSWORD, heartbeat=0, connect_timeout=10)
        self._connection.connect()
        channel = self._connection.channel()
        channel.exchange_declare("glance", "topic", durable=True, auto_delete=False)
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True, auto_delete=False)
            channel.queue_bind(queue, "glance", queue)
            channel.basic_consume(queue, callback=self._came)

    def _came(self, message: Any) -> None:
        envelope = json.loads(message.body)
        assert envelope["oslo.version"] == "2.0"
        self.messages.append(json.loads(envelope["oslo.message"]))
        message.channel.basic_ack(message.delivery_tag)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue
            except (OSError, amqp.exceptions.AMQPError):
                self._connect_again()

    def _connect_again(self) -> None:
        while not self._stop.wait(0.2):
            self._connection.collect()
            try:
                self._connect()
            except (OSError, amqp.exceptions.AMQPError):
                continue
            return

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._connection.collect()

    def types(self, image: str) -> list[str]:
        """Of what was told of an image, each message once, in the order in which it came."""
        once = {one["message_id"]: one for one in self.messages}
        return [one["event_type"] for one in once.values() if image in json.dumps(one["payload"])]


def await_that(what: Callable[[], object], tell: Callable[[], object] = lambda: "", seconds: float = 30) -> None:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < quiet(seconds), tell()
        time.sleep(0.05)


@pytest.fixture(scope="package")
def broker() -> Iterator[RabbitMQ]:
    server = RabbitMQ()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def consumer(broker: RabbitMQ) -> Iterator[Consumer]:
    consumer = Consumer(broker)
    yield consumer
    consumer.close()


class Scene:
    """A cloud that sends notifications, whose processes can be told where to die."""

    def __init__(self, folder: Path, broker: RabbitMQ, **xloud: Any) -> None:
        self.armed = Armed(folder / "failpoints")
        self.cloud = Cloud(
            folder,
            options={"enabled_backends": "fast:file,slow:file", "transport_url": broker.url},
            os_glance_staging_store={"filesystem_store_datadir": folder / "staging"},
            mem={"weight": None},
            oslo_messaging_notifications={"driver": "messagingv2"},
            # the queues outlive the broker's restart, as at sites that care
            oslo_messaging_rabbit={"amqp_durable_queues": "true"},
            xloud={"job_workers": 1, "lease_time": LEASE, "reaper_interval": 1, **xloud},
        )
        self.service, self.ann = self.cloud.service, self.cloud.ann
        self.service.environment = self.armed.environment

    @property
    def relay(self) -> int:
        """The process that sends."""
        line = [one for one in self.service.log.splitlines() if "ready for long work" in one][-1]
        return int(line.rpartition("pid=")[2].split()[0])

    def patient(self, request: Callable[[], Answer]) -> Answer:
        """An answer below 400 of a service whose processes die just now."""
        found: list[Answer] = []

        def answered() -> bool:
            with contextlib.suppress(OSError):
                found.append(request())
            return bool(found) and found[-1].status < 400

        await_that(answered, lambda: found)
        return found[-1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, broker: RabbitMQ, consumer: Consumer) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("armed"), broker)
    try:
        scene.service.start()
        await_that(lambda: "ready for long work" in scene.service.log)
        yield scene
    finally:
        scene.service.kill()
