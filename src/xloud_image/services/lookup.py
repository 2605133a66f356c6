"""Finding the image that a caller names: the first step of every call."""

from __future__ import annotations

from xloud_image.db import images as rows
from xloud_image.errors import NoSuchImage
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.policy import images as rights
from xloud_image.services.runtime import Runtime


async def load(runtime: Runtime, ctx: Context, image_id: str) -> Image:
    """The image, for a caller whose rights are still to be asked; NotFound when there is none."""
    image = await runtime.db.read(lambda conn: rows.get(conn, image_id, project=ctx.project))
    if image is None:
        raise NoSuchImage(image_id)
    return image


async def get(runtime: Runtime, ctx: Context, image_id: str) -> Image:
    """The image, if the caller can see it; else NotFound."""
    image = await load(runtime, ctx, image_id)
    rights.require_see(runtime.policy, ctx, image)
    return image
