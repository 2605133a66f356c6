"""Bytes that must go from a store: marked in the transaction that hides them, removed after it, pending until gone.

The rule for every store alike: what a client deleted is gone for clients at once. A store that is down keeps its
bytes for the moment; a durable claim says so, the reaper asks again, `xloud-image stores pending` shows it. Only a
store that answers «in use» (`InUse`) undoes the deletion.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.config.stores import STAGING
from xloud_image.db import claims as rows
from xloud_image.db import events, images, uploads
from xloud_image.db.engine import Tx
from xloud_image.errors import BlobNotFound, ImageServiceError, InUse, StillNeeded, StoreUnavailable
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location, Upload
from xloud_image.services import ownership
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Caller, Can

log = structlog.get_logger(__name__)

_LAST_RETRY = 3600  # seconds; the first attempt comes at the reaper's next look, each later one after twice the time


def caller(ctx: Context, *, trusted: bool = True) -> Caller:
    """The caller as stores know it."""
    return Caller(user=ctx.user, project=ctx.project, token=ctx.token, trusted=trusted)


def new_claim(
    runtime: Runtime, kind: str, image_id: str, store: str, *, url: str | None = None, scope: str = "image"
) -> Claim:
    """A claim of this process."""
    return Claim(
        id=str(uuid.uuid4()), kind=kind, image_id=image_id, store=store, url=url, scope=scope, holder=runtime.holder
    )


async def begin_deletes(
    runtime: Runtime, conn: AsyncConnection, image: Image, locations: Sequence[Location], *, scope: str
) -> list[Claim]:
    """Write a claim for each location whose bytes are ours to remove (`ownership.are_ours`); none in read-only stores.

    A location whose store is not configured now is pending as well: the store may come back.
    """
    claims = []
    for location in locations:
        if not ownership.are_ours(runtime, image.id, location):
            continue
        store = runtime.stores.of(location)
        if store is not None and Can.WRITE not in store.can:
            continue
        name = store.name if store is not None else (location.store or "")
        claim = new_claim(runtime, "delete", image.id, name, url=location.url, scope=scope)
        await rows.begin(conn, claim, lease=runtime.settings.lease_time)
        claims.append(claim)
    return claims


async def begin_unstaging(
    runtime: Runtime, conn: AsyncConnection, image_id: str, *, scope: str = "location"
) -> list[Claim]:
    """Data that was staged for an import of this image is not wanted any more: the claims of its removal."""
    begun = []
    for upload in await uploads.list_all(conn, image_id):
        if upload.state == "staged":
            begun += await begin_removing_parts(runtime, conn, upload)
    await uploads.used(conn, image_id)
    for staged in await rows.list_all(conn, image_id=image_id, kind="stage"):
        await rows.end(conn, staged.id)
        claim = new_claim(runtime, "delete", image_id, staged.store, url=staged.url, scope=scope)
        await rows.begin(conn, claim, lease=runtime.settings.lease_time)
        begun.append(claim)
    where = staged_by_glance(runtime, image_id)
    if scope == "image" and where is not None and not begun and not await rows.list_all(conn, image_id=image_id):
        claim = new_claim(runtime, "delete", image_id, where[0], url=where[1], scope=scope)
        await rows.begin(conn, claim, lease=runtime.settings.lease_time)
        begun.append(claim)
    return begun


def staged_by_glance(runtime: Runtime, image_id: str) -> tuple[str, str] | None:
    """The store and the URL under which a Glance with the same directory keeps what it staged for an image."""
    if runtime.stores.reserved(STAGING) is None:
        return None
    folder = str(runtime.stores.settings[STAGING].options["filesystem_store_datadir"]).rstrip("/")
    return STAGING, f"file://{folder}/{image_id}"


async def begin_removing_parts(runtime: Runtime, conn: AsyncConnection, upload: Upload) -> list[Claim]:
    """What came of an upload is not wanted any more, or lies elsewhere now: the claims of its removal."""
    claims = [
        new_claim(runtime, "delete", upload.image_id, part.store, url=part.url, scope="location")
        for part in await uploads.parts(conn, upload.id)
    ]
    await rows.begin_all(conn, claims, lease=runtime.settings.lease_time)
    await uploads.remove_parts(conn, upload.id)
    return claims


async def begin_ending_uploads(runtime: Runtime, conn: AsyncConnection, image_id: str) -> list[Claim]:
    """The image goes: so do its uploads in several requests, in whatever state. The claims of their parts' removal."""
    begun = []
    for upload in await uploads.list_all(conn, image_id):
        # the lock of its row first: whoever adds a part has ended, or finds none
        await uploads.remove(conn, upload)
        begun += await begin_removing_parts(runtime, conn, upload)
    return begun


async def settle(runtime: Runtime, claims: Sequence[Claim], who: Caller | None = None) -> None:
    """Remove the bytes of claims of ours now, or leave them to later attempts. Raises nothing of a store."""
    with runtime.holding(*claims):
        for claim in claims:
            try:
                await remove(runtime, claim, who)
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                await postpone(runtime, claim, error)
            else:
                await runtime.db.write(lambda conn, claim=claim: rows.end(conn, claim.id))  # type: ignore[misc]


async def remove(runtime: Runtime, claim: Claim, who: Caller | None = None) -> None:
    """Remove the bytes of one claim. Bytes that are gone already are fine. Raises what the store raises.

    Bytes that an image which is there names as well (a location registered for both, in whatever spelling) stay: they
    go with the last one.
    It is looked at here and not when the claim is written: of two images deleted at once neither counts any more, and
    between then and now, which may be days, another may have been registered.
    """
    assert claim.url is not None
    store = runtime.stores.reserved(claim.store)
    if store is None:
        if await ownership.bequeath(runtime, claim):
            return
        store = runtime.stores.of(Location(claim.url, {"store": claim.store}))
    if store is None:
        raise StoreUnavailable(f"no configured store holds the data; it was in store '{claim.store}'")
    try:
        await store.delete(claim.url, caller=who)
    except BlobNotFound:
        log.info("the data was gone already", image=claim.image_id, store=claim.store)


async def postpone(runtime: Runtime, claim: Claim, error: BaseException, *, failed: bool = True) -> None:
    """Leave a claim to a later attempt; `failed`: count this one."""
    wait = min(runtime.settings.reaper_interval * 2 ** min(claim.attempts, 12), _LAST_RETRY)
    reason = error.message if isinstance(error, ImageServiceError) else type(error).__name__
    say = log.info if isinstance(error, StillNeeded) else log.warning  # a clone may need them for months
    what = {"write": "undoing an upload", "hash": "reading registered data"}.get(claim.kind, "a deletion")
    say(f"{what} is postponed", image=claim.image_id, store=claim.store, reason=reason, again_in_seconds=wait)
    await runtime.db.write(
        lambda conn: rows.postpone(conn, claim.id, runtime.holder, seconds=wait, error=reason, failed=failed)
    )


async def remove_image(runtime: Runtime, ctx: Context, image: Image, claims: Sequence[Claim]) -> None:
    """Remove the bytes of a hidden image. `InUse`: the image is back as it was, less locations already removed."""
    removed: list[Claim] = []
    for claim in claims:
        try:
            await remove(runtime, claim, caller(ctx))
        except InUse:
            await _revive(runtime, image, claims, {other.url for other in removed})
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            await postpone(runtime, claim, error)
        else:
            removed.append(claim)
    await reach("delete.bytes_gone")

    async def finish(tx: Tx) -> None:
        await finish_delete(tx, image.id)
        await certain(tx, image.id)
        for claim in removed:
            await rows.end(tx, claim.id)

    await runtime.db.write(finish)


async def finish_delete(conn: AsyncConnection, image_id: str, *, known: Image | None = None) -> None:
    """What belongs to a hidden image goes, and what was still to be read for it is not wanted any more."""
    await images.finish_delete(conn, image_id, known=known)
    if known is None or known.locations:
        await rows.end_all(conn, image_id, "hash")


async def certain(tx: Tx, image_id: str) -> None:
    """Nothing undoes the deletion of this image any more: it may be told."""
    if tx.wants("image.delete"):
        await events.release(tx, image_id)


async def _revive(runtime: Runtime, image: Image, claims: Sequence[Claim], gone: set[str | None]) -> None:
    async def undo(tx: Tx) -> None:
        await images.revive(tx, image.id, image.status)
        if tx.wants("image.delete"):
            await events.forget(tx, image.id)
        if gone:
            await images.change(
                tx,
                image.id,
                lambda now: now.replace(locations=tuple(loc for loc in now.locations if loc.url not in gone)),
            )
        for claim in claims:
            await rows.end(tx, claim.id)

    await runtime.db.write(undo)


async def remove_location(
    runtime: Runtime, ctx: Context, image: Image, location: Location, claims: Sequence[Claim]
) -> None:
    """Remove the bytes of a location that was taken from its image. `InUse`: the location is back."""
    for claim in claims:
        try:
            await remove(runtime, claim, caller(ctx))
        except InUse:
            await _put_back(runtime, image, location, claim)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            await postpone(runtime, claim, error)
        else:
            await reach("delete.bytes_gone")
            await runtime.db.write(lambda conn, claim=claim: rows.end(conn, claim.id))  # type: ignore[misc]


async def _put_back(runtime: Runtime, image: Image, location: Location, claim: Claim) -> None:
    back = Location(location.url, location.metadata)

    async def undo(conn: AsyncConnection) -> None:
        await images.change(conn, image.id, lambda now: now.replace(locations=(*now.locations, back)))
        await rows.end(conn, claim.id)

    await runtime.db.write(undo)
