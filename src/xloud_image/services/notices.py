"""Events that belong to no change of the database: best effort, and in nobody's way."""

from __future__ import annotations

from xloud_image import events
from xloud_image.db.engine import Tx
from xloud_image.errors import ImageServiceError
from xloud_image.events import Event
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.services.runtime import Runtime


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
    async def emitted(tx: Tx) -> None:
        tx.emit(event)

    runtime.spawn(runtime.db.write(emitted), "store an event")
