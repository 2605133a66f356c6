"""Images: create, show, list, change, delete, deactivate, reactivate. Data moves in `data` and `downloads`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from xloud_image import events
from xloud_image.db import images as rows
from xloud_image.db import jobs, listing
from xloud_image.db.engine import Tx
from xloud_image.db.image_children import PAGE
from xloud_image.db.query import Page, Query
from xloud_image.errors import BadRequest, Forbidden, Protected
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, utcnow
from xloud_image.patch import Change
from xloud_image.policy import images as rights
from xloud_image.services import acls, cache_keeping, deletions, image_patch, locations, quotas, scrubbing
from xloud_image.services.imports import LOCK
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime

# How often rows are read for one page while the rule `get_image` refuses what they hold: once an image was found, and
# before; clients (openstacksdk) take a page without images for the end of the list, whatever its `next` says.
LOOKS, _EMPTY_LOOKS = 20, 200
_LOOK, _MOST_LOOKED = 100, 1000  # images read at a time then


async def create(runtime: Runtime, ctx: Context, fields: Mapping[str, Any]) -> Image:
    """A new image in status queued. `Duplicate` when the id is or was in use; `QuotaExceeded`."""
    may = rights.may_do(runtime.policy, ctx)
    limits = runtime.settings.limits
    image = image_patch.new_image(fields, owner=ctx.project, schema=runtime.schema, limits=limits, may=may)
    rights.require_create(runtime.policy, ctx, image)
    quota = await quotas.of(runtime, image.owner)
    await reach("create.begin")

    async def created(tx: Tx) -> None:
        await quotas.admit(tx, quota, count=1)
        await rows.create(tx, image)

    await runtime.db.write(created)
    await reach("create.stored")
    return image


async def find(runtime: Runtime, ctx: Context, query: Query) -> Page:
    """One page of the images that the caller may list (API reference, section "List") and read (rule `get_image`).

    What the rule says in words that the database knows is asked there; where it says more it is asked for each image,
    and the page is filled up from the next ones. It ends as it is, with `more`, after LOOKS times, where its images
    have PAGE bytes, and after _EMPTY_LOOKS times without any image.
    """
    policy = runtime.policy
    policy.require(ctx, "get_images")
    if not all(policy.may_touch(ctx, "read", name) for name in query.properties):
        return Page()  # for him no image has it
    query = dataclasses.replace(query, sight=functools.cache(lambda *kind: policy.sight(ctx, "get_image", *kind)))
    if listing.is_sure(query):
        return await runtime.db.read(lambda conn: listing.find(conn, query))
    found: list[Image] = []
    looked = dataclasses.replace(query, limit=min(max(query.limit, _LOOK), _MOST_LOOKED))
    room, looks = PAGE, 0
    while looks < (LOOKS if found else _EMPTY_LOOKS):
        looks += 1
        page = await runtime.db.read(functools.partial(listing.find, query=looked))
        for image in page:
            if len(found) == query.limit:
                return Page(found, more=True)
            if rights.may_read(policy, ctx, image):
                room -= page.sizes[image.id]
                if room < 0 and found:
                    return Page(found, more=True)
                found.append(image)
        if not page.more or len(found) == query.limit:
            return Page(found, more=page.more)
        looked = dataclasses.replace(looked, marker=page.end, limit=looked.limit if found else _MOST_LOOKED)
    return Page(found, more=True, end=looked.marker)


async def change(runtime: Runtime, ctx: Context, image_id: str, changes: Sequence[Change]) -> Image:
    """Apply a PATCH, all of it or nothing; two at once both take effect, one after the other. Of several operations on
    locations each is all or nothing, because each looks at a store."""
    at_places = [item for item in changes if item.path[0] == "locations"]
    if at_places:
        image = await load(runtime, ctx, image_id)
        locations.require_rights(runtime, ctx, image, at_places)  # before anything that only an image here is told
        if len(at_places) != len(changes):
            raise BadRequest("Change locations and other fields in separate requests.")
        return await locations.patch(runtime, ctx, image, at_places)

    may = rights.may_do(runtime.policy, ctx)

    # rights are looked at under the lock only: one statement less, and nothing can change in between
    def applied(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "modify_image", current)
        result = image_patch.apply(current, changes, schema=runtime.schema, limits=runtime.settings.limits, may=may)
        if result.visibility != current.visibility:
            rights.require_visibility(runtime.policy, ctx, current, result.visibility)
        if result.owner != current.owner:
            rights.require_owner_change(runtime.policy, ctx, current)
            if result.owner is None:
                raise Forbidden("An image needs an owner.")
        return result

    await reach("change.begin")
    changed = await runtime.db.write(lambda conn: rows.change(conn, image_id, applied, project=ctx.project))
    await reach("change.stored")
    if any(item.path[0] in ("visibility", "owner") for item in changes):
        await acls.follow(runtime, ctx, changed)
    return changed


async def delete(runtime: Runtime, ctx: Context, image_id: str) -> None:
    """The image is gone when this returns; bytes that a sick store would not give up are pending, and removed later.

    `Protected`, `InUse` (the image stays as it was), `BadRequest` when its status does not allow it.
    """

    def checked(current: Image) -> None:
        rights.require(runtime.policy, ctx, "delete_image", current)
        if current.protected:
            raise Protected(f"Image {image_id} is protected and cannot be deleted.")
        if not current.may_become("deleted"):
            raise BadRequest(f"An image in status {current.status} cannot be deleted.")

    await reach("delete.begin")

    async def hide(tx: Tx) -> tuple[Image, list[Claim], list[Claim]]:
        if runtime.settings.deletion.delayed_delete:
            current = await rows.locked(tx, image_id, project=ctx.project)
            if scrubbing.is_delayed(runtime, current):
                checked(current)
                await jobs.cancel(tx, image_id)
                await scrubbing.delay(tx, current)
                tx.tell("image.delete", events.of_image, current, deleted_at=utcnow())
                return current, [], []
        current = await rows.hide(tx, image_id, checked, project=ctx.project)
        claims = await deletions.begin_deletes(runtime, tx, current, current.locations, scope="image")
        parts: list[Claim] = []
        if current.status in ("saving", "uploading", "importing"):
            parts = await deletions.begin_ending_uploads(runtime, tx, image_id)
        if current.status in ("uploading", "importing") or current.properties.get(LOCK):
            await jobs.cancel(tx, image_id)
            claims += await deletions.begin_unstaging(runtime, tx, image_id, scope="image")
        if not claims:
            await deletions.finish_delete(tx, image_id, known=current)
        if tx.wants("image.delete"):  # a store may still say that the data is in use
            gone = events.of_image(current, deleted_at=utcnow())
            tx.emit(events.Event("image.delete", gone, held_for=image_id if claims else None))
        return current, claims, parts

    hidden, claims, parts = await runtime.db.write(hide)
    await reach("delete.marked")
    if parts:
        runtime.spawn(deletions.settle(runtime, parts), "remove what came of an upload")
    if claims:
        with runtime.holding(*claims):
            await deletions.remove_image(runtime, ctx, hidden, claims)
    await cache_keeping.forget(runtime, image_id)
    await reach("delete.done")


async def deactivate(runtime: Runtime, ctx: Context, image_id: str) -> None:
    """Its data is no longer given out, but to administrators. Repeating it is fine."""
    await _switch(runtime, ctx, image_id, "deactivate", "active", "deactivated")


async def reactivate(runtime: Runtime, ctx: Context, image_id: str) -> None:
    """Undo `deactivate`. Repeating it is fine."""
    await _switch(runtime, ctx, image_id, "reactivate", "deactivated", "active")


async def _switch(runtime: Runtime, ctx: Context, image_id: str, rule: str, before: str, after: str) -> None:
    def switched(current: Image) -> Image:
        rights.require(runtime.policy, ctx, rule, current)
        if current.status == after:
            return current
        if current.status != before:
            raise Forbidden(f"Only an image in status {before} can be {rule}d; this one is {current.status}.")
        return current.replace(status=after)

    await reach("change.begin")
    await runtime.db.write(lambda conn: rows.change(conn, image_id, switched, project=ctx.project))
    await reach("change.stored")
