"""Data of an image that comes in several requests and goes on where it broke: what a client can ask about it.

What comes is cut into parts (`arriving`). Each is an object in the store for data that waits (`waiting_place`): a
claim of kind "part" names its key while it is written, and the transaction that ends the claim makes it a part and
moves the offset, so the offset is what is durable. Whoever adds data has an epoch: a later request takes the upload
over by the next one, and what the earlier one still brings changes nothing. When all is there, a "file" is read once
more on its way into its store, as the data of any upload; a "stage" waits as parts for its import.
Source: draft-ietf-httpbis-resumable-upload-12 (interop version 8); this module knows no header.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import claims, images
from xloud_image.db import uploads as rows
from xloud_image.db.engine import Tx
from xloud_image.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Gone,
    ImageServiceError,
    NotFound,
    StoreFull,
    TooLarge,
    Unavailable,
    Unverified,
    UploadEnded,
    WrongLength,
    WrongMediaType,
    WrongOffset,
)
from xloud_image.failpoints import reach
from xloud_image.fetching.checksums import Expected
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Upload
from xloud_image.policy import images as rights
from xloud_image.services import acls, certificates, data, deletions, hints, notices, quotas, staging
from xloud_image.services.arriving import Never, Piece, quota_kind, take_in
from xloud_image.services.holder import is_dead
from xloud_image.services.ingest import Target, ingest
from xloud_image.services.lookup import load
from xloud_image.services.parts import LOST, Parts, waiting_place
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Blob
from xloud_image.streams.digest import Checked, Digest
from xloud_image.streams.stages import Limit, Stage, through

log = structlog.get_logger(__name__)

EACH: Final = 100  # unfinished uploads of one project
GRACE: Final = 2.0  # seconds that a request which may have broken gets to store what came of it
PATIENCE: Final = 25.0  # seconds that a request waits for one that is finishing the upload
_AGAIN: Final = {"Retry-After": "3"}


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """An upload after a request; `image`: it is complete, and this is the image with the data, or with staged data."""

    upload: Upload
    image: Image | None = None


async def begin(
    runtime: Runtime, ctx: Context, image_id: str, kind: str, piece: Piece, *, store_id: str | None = None
) -> Taken:
    """A new upload of a queued image, and its first piece. kind: "file" or "stage".

    What `data.upload` or `staging.stage` raise before they read anything; `Conflict` with the header Location of the
    upload that the image has already; and what `add` raises.
    """
    if kind == "stage":
        staging.store_of(runtime)
    elif not is_offered(runtime):
        raise NotFound("Uploads in several requests are not offered here: there is no store for data that waits.")
    seen = await load(runtime, ctx, image_id)
    upload = Upload(str(uuid.uuid4()), image_id, kind, seen.owner, store_id)
    await _require_none(runtime, ctx, seen, upload)
    _require(runtime, ctx, seen, upload, "queued")
    if kind == "file":
        data.writable(runtime, store_id)
    size = _size_of(runtime, upload, piece)
    upload = dataclasses.replace(upload, size=size, digest=_text(piece.whole))
    quota = await quotas.of(runtime, seen.owner)
    empty = piece.length == 0 and not piece.last

    async def begun(conn: Tx) -> Upload:
        await quotas.admit(conn, quota, uploading=1, **{quota_kind(kind): size or 1})

        def taken(current: Image) -> Image:
            _require(runtime, ctx, current, upload, "queued")
            quotas.require_owner(quota, current)
            return current.replace(status=_status(kind))

        image = await images.change(conn, image_id, taken, project=ctx.project)
        owner = image.owner
        if kind == "file":
            where = data.writable(runtime, store_id).name if runtime.settings.multi_store else None
            conn.tell("image.prepare", events.of_image, image, store=where)
        if await rows.count(conn, owner) >= EACH:
            raise TooLarge(f"{EACH} uploads of this project are unfinished already: finish or cancel some.")
        made = dataclasses.replace(upload, owner=owner, holder=None if empty else runtime.holder)
        await rows.add(conn, made, seconds=runtime.settings.imports.upload_lifetime * 3600)
        stored = await rows.get(conn, made.id)
        assert stored is not None
        return stored

    stored = await runtime.db.write(begun)
    await reach("parts.begun")
    if empty:
        return Taken(stored)
    return await _add(runtime, ctx, stored, piece)


def is_offered(runtime: Runtime) -> bool:
    """Whether there is a store for data that waits."""
    return waiting_place(runtime) is not None


async def state(runtime: Runtime, ctx: Context, image_id: str, upload_id: str, *, stop: bool) -> Upload:
    """How far it is. `stop`: whoever may still be adding to it is stopped, so that the next piece is taken at this
    offset. `NotFound`."""
    _, seen = await _seen(runtime, ctx, image_id, upload_id)
    if not stop:
        return seen
    seen = await _quiet(runtime, seen)
    if seen.state == "open" and seen.holder is not None:
        stopped = seen
        return await runtime.db.write(lambda conn: rows.take(conn, stopped, None)) or await _again(runtime, seen)
    return seen


async def add(runtime: Runtime, ctx: Context, image_id: str, upload_id: str, offset: int, piece: Piece) -> Taken:
    """A further piece, which begins at `offset`. What came is durable when this returns, and as far as the offset says
    when it raises.

    `NotFound`, `WrongOffset`, `UploadEnded`, `WrongLength`, `Conflict` (another request goes on with it), `TooLarge`,
    `FormatRefused`, what the source raises and what stores raise. After what can never become an image the upload is
    gone, and the image queued.
    """
    _, seen = await _seen(runtime, ctx, image_id, upload_id)
    if seen.state == "finishing" and piece.last and piece.length == 0 and offset == seen.received:
        return await _wait(runtime, ctx, seen)
    while True:
        seen = await _quiet(runtime, seen)
        mine = await _take(runtime, seen, _taking(runtime, seen, offset, piece))
        if mine is not None:
            return await _add(runtime, ctx, mine, piece)
        seen = await _again(runtime, seen)  # another was first, maybe one that had been given up by its client


def _taking(runtime: Runtime, seen: Upload, offset: int, piece: Piece) -> dict[str, Any]:
    """What is stored when a piece is taken. Raises why it is not."""
    if seen.state == "finishing":
        raise Unavailable("All data of this upload is there, and is being stored; ask again.", headers=_AGAIN)
    if seen.state != "open":
        if piece.length != 0:
            raise WrongLength("This upload is complete: it takes no more data.", headers={"Upload-Complete": "?1"})
        raise UploadEnded("This upload is complete already.")
    if offset != seen.received:
        raise WrongOffset(expected=seen.received, provided=offset)
    if piece.whole is not None and seen.digest not in (None, _text(piece.whole)):
        raise BadRequest("The digest of the whole data is not the one that was given before.")
    return {"size": _size_of(runtime, seen, piece), "digest": seen.digest or _text(piece.whole)}


async def _take(runtime: Runtime, seen: Upload, values: dict[str, Any]) -> Upload | None:
    """The next epoch is ours, with room for what is announced now; None: another was first."""
    quota = await quotas.of(runtime, seen.owner)
    more = max(0, (values["size"] or 0) - max(seen.size or 0, seen.received))

    async def taken(conn: AsyncConnection) -> Upload | None:
        if more:
            await quotas.admit(conn, quota, **{quota_kind(seen.kind): more})
        return await rows.take(conn, seen, runtime.holder, **values)

    return await runtime.db.write(taken)


async def cancel(runtime: Runtime, ctx: Context, image_id: str, upload_id: str) -> None:
    """The upload is gone, and the image queued again. `NotFound`; `Conflict` when its data is the image's, or is being
    stored."""
    _, seen = await _seen(runtime, ctx, image_id, upload_id)
    if seen.state in ("finishing", "staged"):
        what = "is being stored" if seen.state == "finishing" else "waits for an import"
        raise Conflict(f"All data of this upload is there and {what}; delete the image instead.")
    await _end(runtime, seen)


async def sweep(runtime: Runtime) -> None:
    """Give up what nobody finished in its time, and forget what has been over for long."""
    for upload in await runtime.db.read(rows.expired):
        if upload.state == "open":
            log.info("an upload was given up: its time is over", image=upload.image_id, received=upload.received)
        await _end(runtime, upload)


# rights and what they are about


def _status(kind: str) -> str:
    """Of an image while data comes in."""
    return "saving" if kind == "file" else "uploading"


def _require(runtime: Runtime, ctx: Context, image: Image, upload: Upload, status: str) -> None:
    """Whether the caller may give the image data in this way: at each request by the image as it is then."""
    if upload.kind == "file":
        data.require_takes_data(runtime, ctx, image, upload.store is not None, status=status)
        return
    rights.require(runtime.policy, ctx, "modify_image", image)
    if image.status != status:
        raise Conflict(f"Only data for a queued image can be staged; this one is {image.status}.")


async def _require_none(runtime: Runtime, ctx: Context, image: Image, upload: Upload) -> None:
    for other in await runtime.db.read(lambda conn: rows.list_all(conn, image.id)):
        if other.state in ("open", "finishing"):
            _require(runtime, ctx, image, dataclasses.replace(upload, kind=other.kind, store=other.store), image.status)
            raise Conflict(
                "An upload of this image is unfinished: go on with it, or cancel it.",
                headers={"Location": place_of(other)},
            )


def place_of(upload: Upload) -> str:
    """The path of an upload."""
    return f"/v2/images/{upload.image_id}/uploads/{upload.id}"


async def _seen(runtime: Runtime, ctx: Context, image_id: str, upload_id: str) -> tuple[Image, Upload]:
    image = await load(runtime, ctx, image_id)
    rights.require_see(runtime.policy, ctx, image)
    upload = await runtime.db.read(lambda conn: rows.get(conn, upload_id))
    if upload is None or upload.image_id != image_id:
        raise NotFound("There is no such upload: it was never begun, was cancelled, or its time is over.")
    over = upload.state in ("over", "staged")
    _require(runtime, ctx, image, upload, image.status if over else _status(upload.kind))
    return image, upload


async def _again(runtime: Runtime, upload: Upload) -> Upload:
    now = await runtime.db.read(lambda conn: rows.get(conn, upload.id))
    if now is None:
        raise NotFound("The upload was cancelled meanwhile.")
    return now


async def _quiet(runtime: Runtime, seen: Upload) -> Upload:
    """The upload once nobody adds to it, or after GRACE seconds: a connection that broke is told of sooner or later."""
    end = time.monotonic() + GRACE
    while seen.state == "open" and seen.holder is not None and not is_dead(seen.holder) and time.monotonic() < end:
        await asyncio.sleep(0.1)
        seen = await _again(runtime, seen)
    return seen


def _size_of(runtime: Runtime, upload: Upload, piece: Piece) -> int | None:
    """The bytes of all data, as far as they are known now. `WrongLength` when what is said differs, `TooLarge`."""
    said = {size for size in (upload.size, piece.size) if size is not None}
    end = None if piece.length is None else upload.received + piece.length
    if piece.last and end is not None:
        said.add(end)
    if len(said) > 1:
        sizes = " and ".join(str(size) for size in sorted(said))
        raise WrongLength(f"The data cannot have {sizes} bytes: the lengths that were given differ.")
    size = said.pop() if said else None
    cap = runtime.settings.limits.image_size_cap
    if max(size or 0, end or 0, upload.received) > cap:
        raise TooLarge(f"The data is larger than {cap} bytes, the most that an image may have here.")
    if size is not None and max(end or 0, upload.received) > size:
        raise WrongLength(f"The piece ends at byte {end or upload.received}, the data has {size}.")
    return size


def _text(digest: Expected | None) -> str | None:
    return None if digest is None else f"{digest.algorithm}:{digest.value.lower()}"


# a piece, and what it leads to


async def _add(runtime: Runtime, ctx: Context, upload: Upload, piece: Piece) -> Taken:
    image = await load(runtime, ctx, upload.image_id)
    quota = await quotas.of(runtime, upload.owner)
    try:
        try:
            upload = await take_in(runtime, ctx, image, upload, piece, quota)
        finally:
            await _left(runtime, upload)
        if not piece.last:
            return Taken(upload)
        if upload.size is not None and upload.size != upload.received:
            raise WrongLength(f"{upload.received} bytes of {upload.size} have come: there is more to come.")
        return await _finish(runtime, ctx, upload)
    except (WrongMediaType, Never) as error:
        with contextlib.suppress(NotFound):
            now = await _again(runtime, upload)
            if now.state != "open" or now.epoch != upload.epoch:
                raise Conflict("Another request has gone on with this upload; ask for the offset.") from None
            await _end(runtime, now)
        known = error.error if isinstance(error, Never) else error
        if upload.kind == "file":
            notices.failed_upload(runtime, upload.image_id, known)
        known.headers["Upload-Complete"] = "?1"  # going on cannot help
        known.message = known.message.rstrip(".") + ". The upload was ended, and the image is without data."
        raise known from None


async def _left(runtime: Runtime, upload: Upload) -> None:
    leaving = runtime.spawn(runtime.db.write(lambda conn: rows.leave(conn, upload)), "leave an upload")
    with contextlib.suppress(ImageServiceError):  # else the next request waits GRACE seconds
        await asyncio.shield(leaving)


# all data is there


async def _finish(runtime: Runtime, ctx: Context, upload: Upload) -> Taken:
    """The data is the image's, or staged. After a failure that may pass the upload is open as before."""
    store = data.writable(runtime, upload.store) if upload.kind == "file" else staging.store_of(runtime)
    who = deletions.caller(ctx)
    signed = upload.kind == "file"
    seal = await certificates.signed(runtime, ctx, await load(runtime, ctx, upload.image_id)) if signed else None
    try:
        await data.clear_leftover(runtime, upload.image_id, store, who)
    except Conflict as error:
        raise Unavailable(error.message, headers=_AGAIN) from None
    claim = deletions.new_claim(runtime, "write", upload.image_id, store.name)
    claim = dataclasses.replace(claim, url=data.own_key(claim))

    async def begin(conn: AsyncConnection) -> Image:
        current = await images.locked(conn, upload.image_id, project=ctx.project)
        _require(runtime, ctx, current, upload, _status(upload.kind))
        if signed:
            certificates.require_same(current, seal)
        if not await rows.finish(conn, upload):
            raise Conflict("Another request has gone on with this upload, or it was cancelled; ask for the offset.")
        await claims.begin(conn, claim, lease=runtime.settings.lease_time)
        return current

    image = await runtime.db.write(begin)
    parts = Parts(runtime, await runtime.db.read(lambda conn: rows.parts(conn, upload.id)), who)
    target = Target(store, claim.key, who)
    summary: data.Summary | None = None
    with runtime.holding(claim):
        try:
            await reach("parts.finishing")
            async with contextlib.aclosing(parts.chunks()) as source:
                if upload.kind == "stage":
                    await _compared(runtime, upload, source)
                    return Taken(await _staged(runtime, upload, claim), image)
                limit, inspect, digest = stages = data.stages_of(runtime, image, upload.received, seal)
                whole, checked = _whole(runtime, upload)
                last = [*data.verify(digest, seal), *checked]
                blobs = await ingest(source, [target], [*stages, *whole, *last], size=upload.received)
            await reach("parts.written")
            summary = data.Summary(limit.size, await digest.hexes(), inspect.virtual_size)
            return await _activate(runtime, ctx, upload, claim, blobs[store.name], summary)
        except BaseException as error:
            mine = None if isinstance(target.error, AlreadyExists) else store
            back = runtime.spawn(data.put_back(runtime, ctx, claim, mine, summary), "put back an upload")
            if await asyncio.shield(back):
                return Taken(await _again(runtime, upload), await load(runtime, ctx, upload.image_id))
            raise _judged(error) from error


def _judged(error: BaseException) -> BaseException:
    """What can never pass ends the upload."""
    if isinstance(error, Unverified):
        return Never(BadRequest(f"The data is not what its digest says: {error.message}."))
    if isinstance(error, LOST):
        return Never(Gone("A part of the data has been lost from its store: begin anew."))
    never = isinstance(error, (BadRequest, TooLarge)) and not isinstance(error, StoreFull)
    return Never(error) if never and isinstance(error, ImageServiceError) else error


def _whole(runtime: Runtime, upload: Upload) -> tuple[Sequence[Stage], Sequence[Stage]]:
    """The stages that compare all data with the digest that the client gave."""
    if upload.digest is None:
        return [], []
    expected = Expected(*upload.digest.split(":", 1))
    digest = Digest([expected.algorithm], runtime.digest_pool)
    return [digest], [Checked(digest, [expected])]


async def _compared(runtime: Runtime, upload: Upload, source: AsyncIterator[bytes]) -> None:
    """Staged data has the digest that the client gave; without one it is not read."""
    if upload.digest is not None:
        whole, checked = _whole(runtime, upload)
        async for _ in through(source, [Limit(upload.received, upload.received), *whole, *checked]):
            pass


async def _activate(
    runtime: Runtime, ctx: Context, upload: Upload, claim: Claim, blob: Blob, summary: data.Summary
) -> Taken:
    removed: list[Claim] = []

    async def also(conn: AsyncConnection) -> None:
        if not await rows.close(conn, upload.id, "over"):
            raise Conflict("The upload was cancelled meanwhile.")
        removed[:] = await deletions.begin_removing_parts(runtime, conn, upload)

    image = await data.activate(runtime, claim, blob, summary, also)
    # the answer need not wait for it
    runtime.spawn(deletions.settle(runtime, removed), "remove the parts of an upload")
    hints.log_for(runtime, image)
    await acls.follow(runtime, ctx, image)
    return Taken(dataclasses.replace(upload, state="over"), image)


async def _staged(runtime: Runtime, upload: Upload, claim: Claim) -> Upload:
    async def keep(conn: AsyncConnection) -> None:
        # deleted meanwhile: then nobody would ever look at what is kept
        if (await images.locked(conn, upload.image_id)).status != "uploading":
            raise Conflict("The image is not uploading any more.")
        await deletions.begin_unstaging(runtime, conn, upload.image_id)
        if not await rows.close(conn, upload.id, "staged") or not await claims.end(
            conn, claim.id, holder=runtime.holder
        ):
            raise Unavailable("This took too long to come back from a stop; ask for the offset and go on.")

    try:
        await runtime.db.write(keep)
    except NotFound:
        raise Gone(f"The image {upload.image_id} was deleted meanwhile.") from None
    await reach("parts.staged")
    return dataclasses.replace(upload, state="staged")


async def _wait(runtime: Runtime, ctx: Context, upload: Upload) -> Taken:
    """Another request is finishing it: its end is this one's as well."""
    end = time.monotonic() + PATIENCE
    while upload.state == "finishing" and time.monotonic() < end:
        await asyncio.sleep(0.5)
        upload = await _again(runtime, upload)
    if upload.state in ("over", "staged"):
        return Taken(upload, await load(runtime, ctx, upload.image_id))
    raise Unavailable("All data of this upload is there, and is not stored yet; ask again.", headers=_AGAIN)


async def _end(runtime: Runtime, upload: Upload) -> None:
    """The upload is gone with what came of it, and an image that waited for it is queued. Nothing when it changed."""

    async def ended(conn: AsyncConnection) -> list[Claim]:
        with contextlib.suppress(NotFound):  # deleted meanwhile
            await images.locked(conn, upload.image_id)
        if not await rows.remove(conn, upload):
            return []
        if upload.state == "open":
            with contextlib.suppress(NotFound):
                await images.change(conn, upload.image_id, data.queued)
        return await deletions.begin_removing_parts(runtime, conn, upload)

    removed = await runtime.db.write(ended)
    runtime.spawn(deletions.settle(runtime, removed), "remove what came of an upload")
