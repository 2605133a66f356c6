"""The parts of `Settings` about the message bus, and what is told on it."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING, Final

from xloud_image.config.findings import Kind
from xloud_image.config.settings import MessagingSettings, NotificationSettings

if TYPE_CHECKING:
    from xloud_image.config.values import Values

NOTIFICATIONS: Final = "oslo_messaging_notifications"
BUS: Final = ("messaging", "messagingv2")  # drivers that send by it
_NOTHING: Final = ("", "noop")
_LOCAL: Final = "rabbit://"
_MISSING: Final = (
    "needs the library oslo.messaging, which is not installed here (make install EXTRAS=messaging; the container image"
    " has it)"
)


def bus(values: Values) -> MessagingSettings:
    """The bus, and every line that its library may read."""
    url = values.get("DEFAULT", "transport_url") or None
    if url and not is_installed():
        text = f"{_MISSING}; without it workers of other nodes look for work by themselves, every second or two"
        values.tell("warning", Kind.HONOURED, text, "DEFAULT", "transport_url")
    lines = (line for line in values.lines if line.group == "DEFAULT" or line.group.startswith("oslo_messaging"))
    return MessagingSettings(url, tuple((line.group, line.name, line.value) for line in lines))


def notifications(values: Values) -> NotificationSettings:
    """What is told. A driver that has no library here refuses the start: somebody waits for what it sends."""
    drivers = tuple(dict.fromkeys(name.strip().lower() for name in values.get(NOTIFICATIONS, "driver")))
    for name in drivers:
        if name not in (*BUS, "log", *_NOTHING):
            text = f"'{name}' sends nothing here: {', '.join(BUS)} and log do, noop says that none are sent"
            values.guess(text, NOTIFICATIONS, "driver")
    found = values.fill(NotificationSettings, drivers=tuple(name for name in drivers if name in (*BUS, "log")))
    if any(name in BUS for name in found.drivers):
        if not (found.transport_url or values.get("DEFAULT", "transport_url")):
            values.guess(
                f"has no transport_url, neither in [DEFAULT] nor in this section: {_LOCAL}, as oslo.messaging takes it,"
                " is a RabbitMQ with its first account on this machine",
                NOTIFICATIONS,
                "driver",
            )
            found = dataclasses.replace(found, transport_url=_LOCAL)
        if not is_installed():
            values.refuse(_MISSING, NOTIFICATIONS, "driver")
    if found.drivers and not values.get("xloud", "job_workers"):
        text = (
            "is sent by the processes that do long work, and [xloud] job_workers is 0: `xloud-image worker` has to run"
            " somewhere"
        )
        values.tell("note", Kind.HONOURED, text, NOTIFICATIONS, "driver")
    return found


def is_installed() -> bool:
    """Whether the library of the bus is here."""
    return importlib.util.find_spec("oslo_messaging") is not None
