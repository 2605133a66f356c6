"""Events that belong to no change of the database: best effort, and in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from xloud_image import events
from xloud_image.db.engine import Tx
from xloud_image.errors import ImageServiceError
from xloud_image.events import Event
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

_MOMENT: Final = 0.2  # seconds
_SOME: Final = 500  # events of one transaction


def sent(runtime: Runtime, ctx: Context, image: Image, count: int) -> None:
    """Somebody got this many bytes of an image's data, all that he asked for."""
    if events.is_wanted(runtime.settings.notifications, "image.send"):
        payload = events.of_download(image, count, user=ctx.user, project=ctx.project)
        _store(runtime, Event("image.send", payload))


def failed_upload(runtime: Runtime, image_id: str, error: BaseException) -> None:
    """The data of an image did not come; what a client is told about it."""
    if events.is_wanted(runtime.settings.notifications, "image.upload"):
        reason = error.message if isinstance(error, ImageServiceError) else "the client or the service broke it off"
        _store(runtime, Event("image.upload", f"Upload of image {image_id} failed: {reason}", "error"))


def _store(runtime: Runtime, event: Event) -> None:
    runtime.notices.append(event)
    if len(runtime.notices) == 1:
        runtime.spawn(_store_soon(runtime), "store events")


async def _store_soon(runtime: Runtime) -> None:
    """What comes within a moment is one transaction: small downloads cost no more for being told of."""
    await asyncio.sleep(_MOMENT)
    while found := runtime.notices[:_SOME]:
        del runtime.notices[:_SOME]

        async def emitted(tx: Tx, found: Sequence[Event] = found) -> None:
            for event in found:
                tx.emit(event)

        try:
            await runtime.db.write(emitted)
        except ImageServiceError as error:
            log.warning("events could not be stored", count=len(found), reason=error.message)
