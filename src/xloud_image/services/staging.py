"""Data that waits for its import: staged by a client, in a store of the service's own or one that the operator names,
so that whichever node does the import can read it. Source: Image API reference, section "Import".

A claim of kind "stage" says where the data lies; it is ended by the import, or turned into a removal with its image.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import claims, images, uploads
from xloud_image.errors import AlreadyExists, BlobNotFound, Conflict, Duplicate, Gone, NotFound
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Part
from xloud_image.policy import images as rights
from xloud_image.services import data, deletions, quotas
from xloud_image.services.ingest import Target, ingest
from xloud_image.services.lookup import load
from xloud_image.services.parts import Parts, place_of, waiting_place
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Blob, Store
from xloud_image.streams.stages import Limit


def store_of(runtime: Runtime) -> Store:
    """Where data is staged. `NotFound` where none is."""
    found = waiting_place(runtime)
    if found is None or "glance-direct" not in runtime.settings.imports.enabled_import_methods:
        raise NotFound("Staging is not offered here: glance-direct is not among the import methods of info/import.")
    return found


async def stage(
    runtime: Runtime, ctx: Context, image_id: str, source: AsyncIterator[bytes], *, declared: int | None
) -> None:
    """Keep data for an import of a queued image, which is uploading from then on. Returns when the data is durable.

    declared: announced bytes, None unknown. `Conflict` (not queued), `TooLarge`, and what the store raises. After a
    failure the image is queued again and nothing of the data is left.
    """
    store = store_of(runtime)

    def checked(current: Image) -> None:
        rights.require(runtime.policy, ctx, "modify_image", current)
        if current.status != "queued":
            raise Conflict(f"Only data for a queued image can be staged; this one is {current.status}.")

    image = await load(runtime, ctx, image_id)
    checked(image)
    room = await quotas.room(runtime, image, "stage", declared)
    claim, _ = await data.begin_write(runtime, ctx, image_id, store, "uploading", room, checked)
    target = Target(store, claim.key, deletions.caller(ctx))
    with runtime.holding(claim):
        try:
            limit = Limit(declared, runtime.settings.limits.image_size_cap)
            blobs = await ingest(source, [target], [limit, *room.stages], size=declared)
            await reach("stage.written")
            await _keep(runtime, claim, blobs[store.name], room, limit.size)
            await reach("stage.kept")
        except BaseException:
            mine = None if isinstance(target.error, AlreadyExists) else store
            await asyncio.shield(runtime.spawn(data.put_back(runtime, ctx, claim, mine, None), "put back staged data"))
            raise


async def _keep(runtime: Runtime, claim: Claim, blob: Blob, room: quotas.Room, size: int) -> None:
    kept = deletions.new_claim(runtime, "stage", claim.image_id, claim.store, url=blob.url)

    async def keep(conn: AsyncConnection) -> None:
        # deleted meanwhile: then nobody would ever look at what is kept
        if (await images.locked(conn, claim.image_id)).status != "uploading":
            raise Conflict("The image is not uploading any more.")
        await deletions.begin_unstaging(runtime, conn, claim.image_id)
        if not await claims.end(conn, claim.id, holder=runtime.holder):
            raise Conflict("Staging took too long to come back from a stop; another process has cleaned it up.")
        await claims.begin(conn, dataclasses.replace(kept, holder=None), lease=0)
        await room.keep(conn, kept, size)

    try:
        await runtime.db.write(keep)
    except NotFound:
        raise Gone(f"The image {claim.image_id} was deleted meanwhile.") from None


async def found(runtime: Runtime, image_id: str) -> Parts | None:
    """The data that waits for an import of an image, wherever it lies."""
    staged = await runtime.db.read(lambda conn: claims.list_all(conn, image_id=image_id, kind="stage"))
    if staged and staged[0].url is not None:
        return await _one(runtime, staged[0].store, staged[0].url)
    for upload in await runtime.db.read(lambda conn: uploads.list_all(conn, image_id)):
        if upload.state == "staged":
            return Parts(runtime, await runtime.db.read(lambda conn, upload=upload: uploads.parts(conn, upload.id)))  # type: ignore[misc]
    return None


async def _one(runtime: Runtime, store_id: str, url: str) -> Parts:
    blob = await place_of(runtime, store_id).stat(url)
    return Parts(runtime, [Part(0, blob.size, store_id, url)])


async def adopt(runtime: Runtime, image: Image) -> None:
    """Data that a Glance on this database staged for an image that is uploading is ours from now on, where it lies in
    the directory that both have, under the image's id."""
    where = deletions.staged_by_glance(runtime, image.id)
    if where is None or image.status != "uploading":
        return
    store_id, url = where
    kept = deletions.new_claim(runtime, "stage", image.id, store_id, url=url)

    async def unclaimed(conn: AsyncConnection) -> bool:
        return not await claims.list_all(conn, image_id=image.id) and not await uploads.list_all(conn, image.id)

    async def keep(conn: AsyncConnection) -> None:
        if (await images.locked(conn, image.id)).status == "uploading" and await unclaimed(conn):
            await claims.begin(conn, dataclasses.replace(kept, holder=None), lease=0)

    with contextlib.suppress(BlobNotFound, NotFound, Duplicate):
        if await runtime.db.read(unclaimed):
            await place_of(runtime, store_id).stat(url)
            await runtime.db.write(keep)
