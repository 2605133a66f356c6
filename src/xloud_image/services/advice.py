"""What stores advise about the images in them: said in the log and in the answer, never an obstacle."""

from __future__ import annotations

import structlog

from xloud_image.model import Image
from xloud_image.services.service import Service

log = structlog.get_logger(__name__)


def of(service: Service, image: Image) -> str | None:
    """One sentence about the image's newest location; None when its store has nothing to say."""
    if not image.locations or not image.disk_format:
        return None
    newest = max(image.locations, key=lambda location: location.id or 0)
    store = service.stores.of(newest)
    return store.advice(image.disk_format) if store is not None else None


def log_for(service: Service, image: Image) -> None:
    """The same as a line of the log."""
    if text := of(service, image):
        log.warning("advice of a store", image=image.id, disk_format=image.disk_format, advice=text)
