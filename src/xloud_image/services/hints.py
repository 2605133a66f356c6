"""What to know about an image that was just given its data: said in the log and in the answer, never an obstacle."""

from __future__ import annotations

from typing import Final

import structlog

from xloud_image.model import Image
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

_EMPTY: Final = (
    "The image is active and holds no data: 0 bytes came. Snapshots of servers that boot from volumes are such images; "
    "if data was meant to come, delete the image and upload again."
)


def of(runtime: Runtime, image: Image) -> str | None:
    """One sentence: that the image is empty, or what the store of its newest location says. None: nothing to say."""
    if image.locations and image.size == 0:
        return _EMPTY
    if not image.locations or not image.disk_format:
        return None
    newest = max(image.locations, key=lambda location: location.id or 0)
    store = runtime.stores.of(newest)
    return store.advice(image.disk_format) if store is not None else None


def log_for(runtime: Runtime, image: Image) -> None:
    """The same as a line of the log."""
    text = of(runtime, image)
    if text == _EMPTY:
        log.warning("an image was given no data", image=image.id, disk_format=image.disk_format)
    elif text:
        log.warning("advice of a store", image=image.id, disk_format=image.disk_format, advice=text)
