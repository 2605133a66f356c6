"""Image data on its way in: upload. The way of the bytes is `ingest`; where they end is a store; out: `downloads`.

Upload: claim the key → image saving → bytes into the store → location, digests and status in one transaction, which
also ends the claim. Dying anywhere leaves either the queued image (the claim tells the reaper what to remove) or the
active one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import claims, images, uploads
from xloud_image.db.engine import Tx
from xloud_image.errors import (
    AlreadyExists,
    BadRequest,
    BlobNotFound,
    Conflict,
    Gone,
    ImageServiceError,
    NotFound,
    StoreUnavailable,
    WriteDisabled,
)
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.policy import images as rights
from xloud_image.services import acls, certificates, deletions, formats, hints, notices, quotas
from xloud_image.services.holder import is_dead
from xloud_image.services.image_patch import require_formats
from xloud_image.services.ingest import Target, ingest
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Blob, Caller, Can, Store
from xloud_image.streams import signatures
from xloud_image.streams.digest import Digest
from xloud_image.streams.stages import Inspect, Limit, Stage

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What came: bytes, digests in hex by algorithm, the size that a guest will see (None: unknown), and properties of
    the image that were found in it."""

    size: int
    digests: dict[str, str]
    virtual_size: int | None
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)


async def upload(
    runtime: Runtime,
    ctx: Context,
    image_id: str,
    source: AsyncIterator[bytes],
    *,
    declared: int | None,
    store_id: str | None = None,
) -> Image:
    """Give a queued image its data; returns when the data is durable and the image active.

    declared: announced bytes, None unknown. `BadRequest` (formats, store, size), `Conflict` (not queued), `Gone`
    (deleted meanwhile), `TooLarge`, `FormatRefused`, and what the store raises. After a failure the image is queued
    again and nothing of it is left in the store.
    """
    chosen = store_id is not None
    found = await load(runtime, ctx, image_id)
    require_takes_data(runtime, ctx, found, chosen)
    store = writable(runtime, store_id)
    room = await quotas.room(runtime, found, "size", declared)
    seal = await certificates.signed(runtime, ctx, found)
    await reach("upload.begin")

    def check(now: Image) -> None:
        require_takes_data(runtime, ctx, now, chosen)
        certificates.require_same(now, seal)

    claim, image = await begin_write(runtime, ctx, image_id, store, "saving", room, check)
    target = Target(store, claim.key, deletions.caller(ctx))
    summary: Summary | None = None
    with runtime.holding(claim):
        try:
            await reach("upload.claimed")
            limit, inspect, digest = stages_of(runtime, image, declared, seal)
            stages: list[Stage] = [limit, *room.stages, inspect, digest, *verify(digest, seal)]
            blobs = await ingest(_watched(source, declared), [target], stages, size=declared)
            await reach("upload.written")
            summary = Summary(limit.size, await digest.hexes(), inspect.virtual_size)
            done = await activate(runtime, claim, blobs[store.name], summary)
            hints.log_for(runtime, done)
            await acls.follow(runtime, ctx, done)
            return done
        except BaseException as error:
            # Bytes that were there before us are not ours to remove.
            mine = None if isinstance(target.error, AlreadyExists) else store
            # Nothing may interrupt putting things back, neither a client that left nor a second cancellation.
            back = runtime.spawn(put_back(runtime, ctx, claim, mine, summary), "put back an upload")
            if await asyncio.shield(back):
                log.warning("the answer was lost, the upload was not", image=image_id, error=type(error).__name__)
                return await load(runtime, ctx, image_id)
            notices.failed_upload(runtime, image_id, error)
            raise await as_upload_error(runtime, image_id, error) from error


def require_takes_data(runtime: Runtime, ctx: Context, image: Image, chosen: bool, *, status: str = "queued") -> None:
    """Whether the caller may give this image its data, and it can be judged. Asked first to refuse without a lock, and
    again of the image as it is under the lock: only the latter counts."""
    rights.require_upload(runtime.policy, ctx, image, chosen_store=chosen)
    if image.status != status:
        raise Conflict(f"Only a queued image takes data; this one is {image.status}.")
    require_formats(image)


def writable(runtime: Runtime, store_id: str | None) -> Store:
    """The store that new data goes to; None is the default one. `BadRequest`, `WriteDisabled`."""
    name = store_id if store_id is not None else runtime.stores.default.name
    store = runtime.stores.get(name)
    if store is None:
        raise BadRequest(f"There is no store '{name[:80]}' here; the stores are {', '.join(runtime.stores.names)}.")
    if not runtime.stores.takes_images(name):
        raise WriteDisabled(_read_only(runtime, name))
    return store


def _read_only(runtime: Runtime, name: str) -> str:
    """Why an upload cannot go there, and what can."""
    others = [other.name for other in runtime.stores.public if runtime.stores.takes_images(other.name)]
    where = f"upload to another store ({', '.join(others)}) with the header X-Image-Meta-Store" if others else ""
    if Can.WRITE in runtime.stores[name].can:
        kept = f"The store '{name}' is kept for the images that lie in it and takes no new ones"
        return f"{kept}; {where}." if where else f"{kept}, and no other store here does."
    register = "register a URL of data that exists by POST /v2/images/ID/locations"
    return (
        f"The store '{name}' is read-only: it gives out what lies on other servers and takes no data; "
        f"{where + ', or ' if where else ''}{register}."
    )


async def as_upload_error(runtime: Runtime, image_id: str, error: BaseException) -> BaseException:
    """What the client is told: also that the record of the image is still there, and what to do with it."""
    if not isinstance(error, ImageServiceError) or isinstance(error, Gone):
        return error
    try:
        left = await runtime.db.read(lambda conn: images.get(conn, image_id))
    except ImageServiceError:  # nobody knows now
        return error
    if left is None:
        return Gone(f"The image {image_id} was deleted during the upload.")
    if isinstance(error, BlobNotFound):
        error = StoreUnavailable("What was written went away while more came (a process that stood still, or a store).")
    if left.status == "queued":
        error.message = error.message.rstrip(".") + (
            f". The image {image_id} is there without data: upload to it again, or delete it"
            f" (DELETE /v2/images/{image_id})."
        )
    return error


def stages_of(
    runtime: Runtime, image: Image, declared: int | None, seal: certificates.Seal | None = None
) -> tuple[Limit, Inspect, Digest]:
    """What data of an image passes on its way in; with the digest that was signed."""
    settings = runtime.settings
    return (
        Limit(declared, settings.limits.image_size_cap),
        Inspect(formats.inspection(runtime, image)),
        new_digest(runtime, seal),
    )


def new_digest(runtime: Runtime, seal: certificates.Seal | None = None) -> Digest:
    """The digests that an image has, as a stage, and the one that was signed."""
    names = [*(["md5"] if runtime.settings.compute_checksum else []), runtime.settings.hashing_algorithm]
    more = [] if seal is None else [seal.signature.algorithm]
    return Digest([*dict.fromkeys([*names, *more])], runtime.digest_pool)


def verify(digest: Digest, seal: certificates.Seal | None) -> list[Stage]:
    """The last stage of a signed image."""
    return [] if seal is None else [signatures.Verify(digest, seal.signature, seal.certificate)]


async def _watched(source: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[bytes]:
    """The source itself, with its failpoints."""
    received, half = 0, (declared or 0) // 2
    async for chunk in source:
        if received == 0:
            await reach("upload.first_byte")
        if received <= half < received + len(chunk):
            await reach("upload.half")
        received += len(chunk)
        yield chunk
    await reach("upload.received")


async def begin_write(
    runtime: Runtime,
    ctx: Context,
    image_id: str,
    store: Store,
    status: str,
    room: quotas.Room,
    check: Callable[[Image], None],
) -> tuple[Claim, Image]:
    """In one transaction: the image has this status, the bytes to come are claimed and have room. What an earlier write
    left goes first.

    The image is the one of that transaction, after `check` has judged it. Everything later judges by it: while it has
    this status, its formats stay.
    """
    await clear_leftover(runtime, image_id, store, deletions.caller(ctx))
    claim = deletions.new_claim(runtime, "write", image_id, store.name)

    async def begin(tx: Tx) -> tuple[Claim, Image]:
        changed = False
        await room.admit(tx, uploading=1)

        def taken(current: Image) -> Image:
            nonlocal changed
            changed = current.updated_at != current.created_at
            check(current)
            room.require_owner(current)
            return current.replace(status=status)

        image = await images.change(tx, image_id, taken, project=ctx.project)
        if status == "saving":
            tx.tell("image.prepare", events.of_image, image, store=store.name if runtime.settings.multi_store else None)
        # An image that was changed may have had an upload before, and on a hung mount the removal of its bytes may
        # still be under way, in whatever process: it comes too late for a name of this upload's own.
        mine = dataclasses.replace(claim, url=own_key(claim)) if changed else claim
        await claims.begin(tx, mine, lease=runtime.settings.lease_time)
        await room.take(tx, mine)
        return mine, image

    claim, image = await runtime.db.write(begin)
    room.holds(claim)
    return claim, image


def own_key(claim: Claim) -> str:
    """A key that no other write of the image has or had."""
    return f"{claim.image_id}-{claim.id[:8]}"


async def clear_leftover(runtime: Runtime, image_id: str, store: Store, who: Caller) -> None:
    """What an earlier write of this image to this store left goes. `Conflict` while somebody is at it."""
    lease = runtime.settings.lease_time
    old = await runtime.db.read(lambda conn: claims.of_write(conn, image_id, store.name))
    if old is None:
        return
    # A claim without holder is only waiting for its next attempt: this is it.
    was = old.holder if old.holder is not None and is_dead(old.holder) else None
    mine = await runtime.db.write(
        lambda conn: claims.take(conn, old.id, runtime.holder, lease=lease, idle=True, was=was)
    )
    if mine is None:
        raise Conflict("An earlier upload of this image is being cleaned up; try again in a moment.")
    with runtime.holding(mine):
        try:
            await store.discard(mine.key, caller=who)
        except Exception as error:
            await deletions.postpone(runtime, mine, error)
            raise
        await runtime.db.write(lambda conn: claims.end(conn, mine.id, holder=runtime.holder))


def location_of(runtime: Runtime, blob: Blob, store: str) -> Location:
    """Where bytes lie that were just written there."""
    # with a single store nobody names it, nor did a Glance
    return Location(blob.url, {**blob.metadata, **({"store": store} if runtime.settings.multi_store else {})})


def arrived(runtime: Runtime, image: Image, summary: Summary, locations: Sequence[Location]) -> Image:
    """The image once its data is there; a location that was refused before, or that a Glance left, is its no more."""
    algorithm = runtime.settings.hashing_algorithm
    return image.replace(
        status="active",
        size=summary.size,
        virtual_size=summary.virtual_size,
        checksum=summary.digests.get("md5"),
        os_hash_algo=algorithm,
        os_hash_value=summary.digests[algorithm],
        locations=tuple(locations),
    )


def tell_arrived(tx: Tx, image: Image) -> Image:
    """Tell that the data of this image came, and that it is active by them; the image."""
    for kind in ("image.upload", "image.activate"):
        tx.tell(kind, events.of_image, image)
    return image


async def activate(
    runtime: Runtime,
    claim: Claim,
    blob: Blob,
    summary: Summary,
    also: Callable[[AsyncConnection], Awaitable[object]] | None = None,
) -> Image:
    """The image has the data of a write that is ours. `also`: what is stored with it. `Conflict`, `Gone`."""
    location = location_of(runtime, blob, claim.store)

    def active(current: Image) -> Image:
        if current.status != "saving":
            raise Conflict(f"The image became {current.status} during the upload.")
        return arrived(runtime, current, summary, [location])

    async def finish(tx: Tx) -> Image:
        if not await claims.end(tx, claim.id, holder=runtime.holder):
            raise Conflict("This upload took too long to come back from a stop; another process has cleaned it up.")
        image = tell_arrived(tx, await images.change(tx, claim.image_id, active))
        if also is not None:
            await also(tx)
        return image

    try:
        image = await runtime.db.write(finish)
    except NotFound:
        raise Gone(f"The image {claim.image_id} was deleted during the upload.") from None
    await reach("upload.activated")
    return image


async def put_back(runtime: Runtime, ctx: Context, claim: Claim, store: Store | None, summary: Summary | None) -> bool:
    """After a failed upload: bytes away, image queued, claim ended. True when the upload had succeeded after all.

    What cannot be done now stays with the claim, and so with the reaper. A claim that is not ours any more was put
    back by another; since then the image may be anybody's, so nothing of it is touched. `store` None: the bytes stay.
    """
    lease = runtime.settings.lease_time
    with runtime.holding(claim):
        try:
            if not await runtime.db.write(lambda conn: claims.renew(conn, claim.id, runtime.holder, lease=lease)):
                found = await runtime.db.read(lambda conn: images.get(conn, claim.image_id))
                return found is not None and summary is not None and _holds(found, summary)
            if store is not None:
                await store.discard(claim.key, caller=deletions.caller(ctx))
            await reach("undo.bytes_gone")
            await release(runtime, claim)
        except Exception as error:  # noqa: BLE001 - whatever it was, the reaper will try again
            await requeue(runtime, claim)
            await deletions.postpone(runtime, claim, error)
    return False


def _holds(image: Image, summary: Summary) -> bool:
    """Whether these are the bytes that the image has got: its activation was stored, only the answer was lost."""
    return image.locations != () and image.os_hash_value == summary.digests.get(image.os_hash_algo or "")


async def release(runtime: Runtime, claim: Claim) -> None:
    """The bytes of a write claim are gone: the image is queued again (unless deleted meanwhile), the claim ends.

    Nothing happens when the claim is not ours any more: the image may be saving for another upload by now.
    """

    async def undo(conn: AsyncConnection) -> None:
        if await claims.end(conn, claim.id, holder=runtime.holder):
            await _queue(conn, claim)

    await runtime.db.write(undo)


async def requeue(runtime: Runtime, claim: Claim) -> None:
    """The image is queued again although its bytes are still to be removed. Only while the claim is ours."""

    async def undo(conn: AsyncConnection) -> None:
        if await claims.renew(conn, claim.id, runtime.holder, lease=runtime.settings.lease_time):
            await _queue(conn, claim)

    try:
        await runtime.db.write(undo)
    except ImageServiceError as error:
        log.warning("the image could not be queued again yet", image=claim.image_id, error=error.message)


async def _queue(conn: AsyncConnection, claim: Claim) -> None:
    """The image waits for data again, unless it has another write by now, data that came in several requests or waits
    for its import: what this claim is of may be left of an earlier one. Of a part that did not come nothing changes."""
    if claim.kind == "part":
        return
    with contextlib.suppress(NotFound):  # deleted meanwhile
        await images.locked(conn, claim.image_id)
        if await claims.list_all(conn, image_id=claim.image_id, kind="stage", limit=1):
            return
        writes = await claims.list_all(conn, image_id=claim.image_id, kind="write")
        if any(other.id != claim.id and other.holder is not None for other in writes):
            return  # the last of them does
        if await uploads.reopen(conn, claim.image_id):
            return
        await images.change(conn, claim.image_id, queued)


def queued(current: Image) -> Image:
    """The image without the data that was on its way."""
    if current.status not in ("saving", "uploading"):
        return current
    return current.replace(status="queued", size=None, virtual_size=None)
