"""Delayed deletion: what clients deleted is gone for them at once, its data only `scrub_time` seconds later. Until then
an administrator, or a manager of the owning project, can have the image back.

From its scrubbing on an image is deleted as any other is (`deletions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import pending
from xloud_image.errors import Conflict, NoSuchImage
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.policy import images as rights
from xloud_image.services import deletions, external, quotas
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

_EACH: Final = 100  # images that are looked up at a time
_WAS: Final = "deactivated"  # noted of the locations of an image that was so when it was deleted


def is_delayed(runtime: Runtime, image: Image) -> bool:
    """Whether the data of this image stay for a while when it is deleted."""
    return (
        runtime.settings.deletion.delayed_delete and image.status in ("active", "deactivated") and bool(image.locations)
    )


async def delay(conn: AsyncConnection, image: Image) -> None:
    """Delete an image that this transaction has locked, but for its data."""
    noted: Sequence[Location] = image.locations
    if image.status == "deactivated":
        noted = [external.with_notes(one, {**external.notes(one), _WAS: True}) for one in noted]
    await pending.begin(conn, image.id, noted)


async def once(runtime: Runtime) -> int:
    """Scrub every image that has waited for `scrub_time`: how many there were. What a store does not give up now is
    removed by the reaper later. Any number of processes may do it at once."""
    done, wait = 0, runtime.settings.deletion.scrub_time
    seen: set[str] = set()
    while some := [
        one for one in await runtime.db.read(lambda conn: pending.due(conn, wait, _EACH)) if one not in seen
    ]:
        for image_id in some:
            seen.add(image_id)
            done += await _scrub(runtime, image_id)
    return done


async def _scrub(runtime: Runtime, image_id: str) -> bool:
    async def scrub(conn: AsyncConnection) -> tuple[Image, list[Claim]]:
        image = await pending.lock(conn, image_id)
        claims = await deletions.begin_deletes(runtime, conn, image, image.locations, scope="image")
        await pending.scrub(conn, image_id)
        return image, claims

    await reach("delete.begin")
    try:
        image, claims = await runtime.db.write(scrub)
    except NoSuchImage:  # another process was first, or it was restored
        return False
    log.info("scrubbing an image", image=image_id, locations=len(image.locations))
    await reach("delete.marked")
    await deletions.settle(runtime, claims)
    return True


def _require_restore(runtime: Runtime, ctx: Context | None, image: Image) -> None:
    if ctx is None:
        return
    if not rights.may_see(ctx, image.replace(visibility="private")):
        raise NoSuchImage(image.id)
    runtime.policy.require(ctx, "restore_image", rights.image_target(image, ctx))


async def restore(runtime: Runtime, ctx: Context | None, image_id: str) -> Image:
    """An image whose deletion is delayed is there again as it was. `NoSuchImage` when there is none, or nobody who may
    know of it asks; `Conflict` when its data are gone; `QuotaExceeded`. Without a `ctx` the operator asks, on
    his node."""
    found = await runtime.db.read(lambda conn: pending.lock(conn, image_id))
    _require_restore(runtime, ctx, found)
    quota = await quotas.of(runtime, found.owner)

    async def back(conn: AsyncConnection) -> Image:
        await quotas.admit(conn, quota, count=1, size=len(found.locations) * (found.size or 0))
        image = await pending.lock(conn, image_id)
        _require_restore(runtime, ctx, image)
        if not image.locations:
            raise Conflict("The data of this image are gone; it cannot be restored.")
        noted = [external.notes(one) for one in image.locations]
        kept = [
            external.with_notes(one, {name: value for name, value in notes.items() if name != _WAS})
            for one, notes in zip(image.locations, noted, strict=True)
        ]
        status = "deactivated" if any(_WAS in notes for notes in noted) else "active"
        return await pending.restore(conn, image_id, status, kept)

    await reach("change.begin")
    image = await runtime.db.write(back)
    await reach("change.stored")
    log.info("an image was restored", image=image_id, status=image.status)
    return image
