"""Tags of an image, one at a time (whole lists change by PATCH)."""

from __future__ import annotations

from xloud_image.db import images as rows
from xloud_image.errors import NotFound
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.policy import images as rights
from xloud_image.services import image_patch
from xloud_image.services.runtime import Runtime


async def add(runtime: Runtime, ctx: Context, image_id: str, tag: str) -> None:
    """Adding a tag that is there already is fine. `BadRequest` over 255 characters, `QuotaExceeded`."""
    runtime.schema.check("tags", [tag])

    def added(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "modify_image", current)
        if tag in current.tags:
            return current
        changed = current.replace(tags=(*current.tags, tag))
        image_patch.require_counts(runtime.settings.limits, tags=len(changed.tags))
        return changed

    await reach("change.begin")
    await runtime.db.write(lambda conn: rows.change(conn, image_id, added, project=ctx.project))
    await reach("change.stored")


async def remove(runtime: Runtime, ctx: Context, image_id: str, tag: str) -> None:
    """`NotFound` when the image does not have the tag."""

    def removed(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "modify_image", current)
        if tag not in current.tags:
            raise NotFound(f"The image has no tag '{tag[:80]}'.")
        return current.replace(tags=tuple(other for other in current.tags if other != tag))

    await reach("change.begin")
    await runtime.db.write(lambda conn: rows.change(conn, image_id, removed, project=ctx.project))
    await reach("change.stored")
