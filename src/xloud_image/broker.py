"""The operator's message bus, by oslo.messaging: sends notifications, rings other nodes and hears them ring.

For one process of a node and none of the API: the library loads eventlet, takes a second and 40 MiB, and knows only the
global configuration of oslo.config. It is imported by `open`; of the operator's files it gets what concerns it and
nothing else, so that libraries of stores, which share that object, read no more than before. Everything here waits for
the network: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from xloud_image.config.masking import mask
from xloud_image.config.messaging import BUS
from xloud_image.errors import BrokerUnavailable

if TYPE_CHECKING:
    from xloud_image.config.settings import MessagingSettings
    from xloud_image.db.events import Unsent

log = structlog.get_logger(__name__)

_TOPIC: Final = "xloud_image_look"
_EXCHANGE: Final = "xloud_image"
_NOTIFICATIONS: Final = "glance"  # the exchange where consumers look for them, unless control_exchange names another
_VERSIONS: Final = {"messaging": 1.0, "messagingv2": 2.0}


class Broker:
    """One process's connections to the bus. `BrokerUnavailable` of all that it cannot do now."""

    def __init__(self, bus: MessagingSettings) -> None:
        self._bus = bus
        self._library: Any = None
        self._opening = threading.RLock()  # calls come in threads of their own, and the library has one configuration
        self._bell: Any = None

    def open(self) -> None:
        """Load the library and give it its configuration; no connection yet. May be repeated."""
        with self._opening:
            if self._library is not None:
                return
            import oslo_messaging
            from oslo_config import cfg

            oslo_messaging.set_transport_defaults(_NOTIFICATIONS)
            with _as_file(self._bus.options) as path:
                cfg.CONF([], project="xloud-image", default_config_files=[path], default_config_dirs=[], use_env=False)
            self._library = oslo_messaging

    def ring(self) -> None:
        """Tell all nodes that there is long work. One that does not hear it looks by itself."""
        with self.asking():
            target = self._library.Target(exchange=_EXCHANGE, topic=_TOPIC, fanout=True)
            client = self._library.get_rpc_client(self._transport(), target)
            client.prepare(retry=1).cast({}, "look")

    def listen(self, heard: Callable[[], None]) -> None:
        """Have `heard` called in some thread whenever a node rings. Returns once connected, however long that takes."""

        class Ear:
            def look(self, _context: object) -> None:
                heard()

        with self.asking():
            # the queue by the node's name outlives this process: one a node
            target = self._library.Target(exchange=_EXCHANGE, topic=_TOPIC, server=socket.gethostname())
            policy = self._library.DefaultRPCAccessPolicy
            server = self._library.get_rpc_server(
                self._transport(), target, [Ear()], executor="threading", access_policy=policy
            )
            server.start()

    def _transport(self) -> Any:
        with self._opening:
            if self._bell is None:
                self._bell = self._library.get_rpc_transport(self._conf())
            return self._bell

    def notifier(self, url: str | None) -> tuple[Any, Any]:
        """The library, and what it sends notifications by; `url`: another bus than that of the service."""
        with self._opening:
            return self._library, self._library.get_notification_transport(self._conf(), url=url)

    @staticmethod
    def _conf() -> Any:
        from oslo_config import cfg

        return cfg.CONF

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """With the library; whatever it raises is `BrokerUnavailable`."""
        try:
            self.open()
            yield
        except Exception as error:
            raise BrokerUnavailable(mask(f"{type(error).__name__}: {error}")) from error


class Teller:
    """Sends events of one kind. `word`: what a line of the log begins with."""

    def __init__(
        self,
        broker: Broker,
        word: str,
        *,
        drivers: Sequence[str],
        topics: Sequence[str],
        transport_url: str | None,
        publisher: str,
    ) -> None:
        self._broker, self._word = broker, word
        self._versions = [_VERSIONS[driver] for driver in drivers if driver in BUS]
        self._logs = "log" in drivers
        self._topics, self._url, self._publisher = topics, transport_url, publisher
        self._library: Any = None
        self._to: Any = None

    def send(self, event: Unsent) -> None:
        """Give an event to the bus, once for each topic; the broker has confirmed it when this returns."""
        if self._versions:
            with self._broker.asking():
                self._send(event)
        if self._logs:
            log.info(self._word, type=event.type, level=event.level, id=event.id, payload=event.payload)

    def _send(self, event: Unsent) -> None:
        if self._to is None:
            self._library, self._to = self._broker.notifier(self._url)
        for version in self._versions:
            for topic in self._topics:
                target = self._library.Target(topic=f"{topic}.{event.level}")
                message = {
                    "message_id": event.id,
                    "publisher_id": self._publisher,
                    "event_type": event.type,
                    "priority": event.level.upper(),
                    "payload": event.payload,
                    "timestamp": str(event.made_at),
                }
                # the library's Notifier gives each message an id of its own, and takes a failure for the end
                self._to._send_notification(target, {}, message, version=version, retry=1)  # noqa: SLF001


@contextlib.contextmanager
def _as_file(options: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """The path of a file with these lines, which lies in memory only."""
    sections: dict[str, list[str]] = {}
    for section, name, value in options:
        sections.setdefault(section, []).append(f"{name} = {value.replace(chr(10), chr(10) + '    ')}")
    text = "".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
    with os.fdopen(os.memfd_create("configuration"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
