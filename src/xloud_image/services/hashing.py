"""Digests of data that did not pass through us: registered locations are read once, beside requests.

A claim of kind "hash" says that it is still to be done; the claims are the queue, shared by all processes. Each process
reads as many at once as its lane has places (`lanes`), and takes whoever waits longest of the projects in turn. What
waits is a row and nothing else: no task, no connection, no lease.

Where Glance would make no digests (scope KEPT), ours are noted of the location, seen by no client: they tell later
whether the data changed, and whether those at a further location are the same.

While an image waits for its data to be verified it is importing, with the expected digests in its row. A further
location of an image with data does not count (`external.counts`) before its data have been compared. A reader ends with
its image, and when the data come slower than `pace`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import claims, images, tasks
from xloud_image.errors import (
    BadRequest,
    BlobNotFound,
    FormatRefused,
    ImageServiceError,
    NotFound,
    StoreUnavailable,
    TooLarge,
)
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.services import deletions, downloads, external, formats
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Can
from xloud_image.streams import signatures
from xloud_image.streams.digest import Digest
from xloud_image.streams.stages import Inspect, Limit, through

log = structlog.get_logger(__name__)

T = TypeVar("T")

SHOWN, KEPT = "image", "location"  # scope of a claim: whose the digests of its data become
WAITING: Final = 1000  # claims of one project; its members register no more then
MOST: Final = 4 * 3600.0  # seconds within which the largest data come
PACE: Final = 1024 * 1024  # bytes a second that any data must bring while they are waited for, over WINDOW
WINDOW: Final = 60.0  # seconds
LOOK: Final = 3.0  # seconds between two looks whether the image is still there


class _TooSlow(StoreUnavailable):
    """The data come too slowly."""


class _Again(Exception):
    """The location was registered again while its data were read."""


class _Aside(Exception):
    """Somebody else's turn."""


class _Unwanted(Exception):
    """The image or its location is gone."""


def soon(runtime: Runtime) -> None:
    """Begin with what waits, beside. Call it when something was registered: it costs nothing while a look is due."""
    if not runtime.hashing.due:
        runtime.hashing.due = True
        runtime.spawn(look(runtime), "look for registered locations")


async def look(runtime: Runtime) -> None:
    """Begin with what waits, as far as there is room. Call it now and then."""
    lane = runtime.hashing
    async with lane.turn:
        lane.due = False
        if lane.full and not lane.over:
            return
        waiting = await runtime.db.read(lambda conn: claims.waiting(conn, "hash", each=lane.each))
        if lane.full:
            lane.make_room(owner for _, owner in waiting)
            return
        for claim, owner in waiting:
            if claim.id in runtime.held or not lane.admits(owner):
                continue
            mine = await _taken(runtime, claim)
            if mine is not None:
                lane.begin(mine.id, owner)
                runtime.spawn(_turn(runtime, mine), "digest a registered location")


async def _taken(runtime: Runtime, claim: Claim) -> Claim | None:
    lease = runtime.settings.lease_time
    return await runtime.db.write(lambda conn: claims.take(conn, claim.id, runtime.holder, lease=lease))


async def _turn(runtime: Runtime, claim: Claim) -> None:
    try:
        with runtime.holding(claim):
            await settle(runtime, claim)
    finally:
        runtime.hashing.leave(claim.id)
    soon(runtime)


async def _step_aside(runtime: Runtime, claim: Claim) -> None:
    runtime.hashing.leave(claim.id, aside=True)
    log.info("a registered location is read later, others wait", image=claim.image_id, store=claim.store)
    await runtime.db.write(lambda conn: claims.give_back(conn, claim.id, runtime.holder, last=True))


async def settle(runtime: Runtime, claim: Claim) -> None:
    """Read the data of a claim that is ours, compare or fill in digests, end the claim. Failures leave it for later."""
    image, location = await _wanted(runtime, claim)
    if image is None or location is None:
        await _give_up(runtime, claim)
        return
    try:
        if not external.counts(location) and _known(image, claim) is None:
            image = await _digested(runtime, image, claim)
        digests = await _while_wanted(runtime, claim, _read(runtime, image, location, claim))
    except _Aside:
        await _step_aside(runtime, claim)
    except _Unwanted:
        await _give_up(runtime, claim)
    except (BlobNotFound, TooLarge, FormatRefused) as error:
        await _finish(runtime, claim, location, None, error.message, refused=isinstance(error, FormatRefused))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
        awaited = image.status == "importing" or not external.counts(location) or isinstance(error, _TooSlow)
        if awaited and claim.attempts >= runtime.settings.exposure.http_retries:
            reason = error.message if isinstance(error, ImageServiceError) else type(error).__name__
            await _finish(runtime, claim, location, None, f"the data could not be read: {reason}")
        else:
            await deletions.postpone(runtime, claim, error)
    else:
        await reach("hash.read")
        await _finish(runtime, claim, location, digests, "the digest differs from the one announced")


async def _give_up(runtime: Runtime, claim: Claim) -> None:
    async def end(conn: AsyncConnection) -> None:
        if await claims.end(conn, claim.id, holder=runtime.holder):
            await _tell(runtime, conn, claim, "The image or its location was removed.")

    await runtime.db.write(end)


async def _tell(runtime: Runtime, conn: AsyncConnection, claim: Claim, failure: str | None) -> None:
    """End the task of a claim, which those of the locations API have."""
    status, kept_for = "failure" if failure else "success", runtime.settings.imports.task_time_to_live * 3600.0
    await tasks.change(conn, claim.id, status, message=failure, kept_for=kept_for)


async def _wanted(runtime: Runtime, claim: Claim) -> tuple[Image | None, Location | None]:
    image = await runtime.db.read(lambda conn: images.get(conn, claim.image_id))
    if image is None:
        return None, None
    return image, next((location for location in image.locations if location.url == claim.url), None)


async def _while_wanted(runtime: Runtime, claim: Claim, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. `_Unwanted`, and it is stopped, when the image or the location goes meanwhile; `_Aside` when
    its place is needed."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait((task,), timeout=LOOK))[0]:
            if runtime.hashing.must_leave(claim.id):
                raise _Aside
            try:
                _, location = await _wanted(runtime, claim)
            except ImageServiceError:  # nobody knows now
                continue
            if location is None:
                raise _Unwanted
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _digested(runtime: Runtime, image: Image, claim: Claim) -> Image:
    """The image with a digest of the data that count, to compare others with."""
    failure: Exception = StoreUnavailable("the image has no other data now to compare these with")
    for _, location in downloads.in_order(runtime, image):
        try:
            digests = await _while_wanted(runtime, claim, _read(runtime, image, location, claim))
        except ImageServiceError as error:
            failure = error
            continue

        def filled(current: Image, location: Location = location, digests: Mapping[str, str] = digests) -> Image:
            if not any(other.id == location.id and external.counts(other) for other in current.locations):
                raise StoreUnavailable("the location was removed meanwhile")
            return current if _known(current, claim) else _filled(runtime, current, location, digests, claim)

        return await runtime.db.write(lambda conn, filled=filled: images.change(conn, image.id, filled))  # type: ignore[misc]
    raise failure


def _known(image: Image, claim: Claim) -> tuple[str, str] | None:
    """The digest that the data of a claim must have."""
    return external.digest_of(image) if claim.scope == SHOWN else external.true_digest(image)


async def _read(runtime: Runtime, image: Image, location: Location, claim: Claim) -> dict[str, str]:
    store = runtime.stores.of(location)
    if store is None:
        raise StoreUnavailable(f"the store '{location.store}' is not configured now")
    # with nobody's rights, and no further than whoever registered it may reach
    async with store.open(location.url, caller=external.caller(Context(), location)) as reader:
        external.require_unchanged(store, location, reader, image.size)
        limit = Limit(image.size, runtime.settings.limits.image_size_cap)
        looks = [Inspect(formats.safety(runtime, image))] if Can.CHANGE in store.can else []
        digest = Digest(_names(runtime, image, claim), runtime.hashing.pool)
        async for _ in through(_paced(reader.chunks, pace(image.size)), [limit, *looks, digest]):
            pass
        return await digest.hexes()


def _names(runtime: Runtime, image: Image, claim: Claim) -> list[str]:
    """The digests that are made of its data."""
    known = _known(image, claim)
    names = [known[0]] if known else []
    if claim.scope == KEPT:
        return names or [runtime.settings.hashing_algorithm]
    names.append(image.os_hash_algo or runtime.settings.hashing_algorithm)
    if runtime.settings.compute_checksum or image.checksum:
        names.append("md5")
    if image.status == "importing" and (signature := signatures.stated(image.properties)) is not None:
        names.append(signature.algorithm)
    return names


def pace(size: int | None) -> float:
    """Bytes a second that data of this size must bring."""
    return max(PACE, (size or 0) / MOST)


async def _paced(source: AsyncIterator[bytes], least: float) -> AsyncIterator[bytes]:
    """The source, whose waiting counts: what is done with its bytes does not make it slow."""
    waited, brought = 0.0, 0
    begun = time.monotonic()
    async for chunk in source:
        waited += time.monotonic() - begun
        brought += len(chunk)
        if waited >= WINDOW:
            if brought < least * waited:
                raise _TooSlow(f"the data come too slowly, {int(brought / waited)} bytes a second")
            waited, brought = 0.0, 0
        yield chunk
        begun = time.monotonic()


def _agrees(image: Image, digests: Mapping[str, str], claim: Claim) -> bool:
    """Whether these are the data that every digest in the row is of."""
    known = _known(image, claim)
    pairs = [known] if known else []
    if claim.scope == SHOWN and image.checksum and "md5" in digests:
        pairs.append(("md5", image.checksum.lower()))
    return all(digests.get(name) == value for name, value in pairs)


def _fits(image: Image, location: Location, digests: Mapping[str, str]) -> bool:
    """Whether these are the data that was signed, if the image says so."""
    try:
        signature, kept = signatures.stated(image.properties), external.certificate(location)
        if signature is None:
            return True
        if kept is None or kept["id"] != signature.certificate or signature.algorithm not in digests:
            return False
        signatures.require(signature, signatures.read(kept["pem"].encode()), digests)
    except BadRequest:
        return False
    return True


def _filled(runtime: Runtime, image: Image, location: Location, digests: Mapping[str, str], claim: Claim) -> Image:
    """The image with digests that were made of the data at its location."""
    if claim.scope == KEPT:
        ((algorithm, value),) = digests.items()
        return image.replace(
            locations=tuple(
                external.digested(other, algorithm, value) if other.id == location.id else other
                for other in image.locations
            )
        )
    algorithm = image.os_hash_algo or runtime.settings.hashing_algorithm
    return image.replace(
        checksum=digests.get("md5", image.checksum),
        os_hash_algo=algorithm,
        os_hash_value=digests.get(algorithm, image.os_hash_value),
    )


async def _finish(
    runtime: Runtime,
    claim: Claim,
    location: Location,
    digests: Mapping[str, str] | None,
    why: str,
    *,
    refused: bool = False,
) -> None:
    store = runtime.stores.of(location)
    dropped: list[Location] = []
    agreed = False

    def settled(current: Image) -> Image:
        nonlocal agreed
        agreed = False
        dropped.clear()
        mine = next((other for other in current.locations if other.id == location.id), None)
        if mine is None:  # removed meanwhile
            return current
        if external.registered_as(mine) != external.registered_as(location):
            raise _Again
        rest = tuple(other for other in current.locations if other is not mine)
        agreed = good = digests is not None and _agrees(current, digests, claim)
        if current.status == "importing":
            fits = digests is not None and _fits(current, mine, digests)
            if digests is None or not good or not fits:
                reason = why if not good else "the data is not what was signed"
                log.warning("a registered location was refused", image=current.id, reason=reason)
                none = {"size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None}
                if not good and not refused and store is not None and Can.WRITE not in store.can:
                    # where nothing can be removed clients still see that store, as with Glance; it does not count
                    return current.replace(status="queued", locations=(*rest, external.unproved(mine)), **none)
                dropped.append(mine)
                return current.replace(status="queued", locations=rest, **none)
            plain = tuple(external.unsealed(other) if other is mine else other for other in current.locations)
            return _filled(runtime, current, mine, digests, claim).replace(status="active", locations=plain)
        if not external.counts(mine):
            if not good:
                log.warning("a further location was refused", image=current.id, store=mine.store, reason=why)
                dropped.append(mine)
                return current.replace(locations=rest)
            proved = tuple(external.proved(other) if other is mine else other for other in current.locations)
            right = current.replace(locations=proved)
            return right if claim.scope == SHOWN else _filled(runtime, right, mine, digests or {}, claim)
        if refused:
            log.error("a location has data that is refused", image=current.id, store=mine.store, reason=why)
            marked = tuple(external.refused(other, why) if other is mine else other for other in current.locations)
            return current.replace(locations=marked)
        if digests is None:
            log.warning("the data of a location could not be compared", image=current.id, reason=why)
            return current
        if not good:
            log.error("a location has other data than its image", image=current.id, store=mine.store, reason=why)
            if store is None or Can.CHANGE not in store.can:
                return current
            marked = tuple(external.wrong(other) if other is mine else other for other in current.locations)
            return current.replace(locations=marked)
        known = _known(current, claim) if claim.scope == KEPT else current.os_hash_value
        return current if known is not None else _filled(runtime, current, mine, digests, claim)

    async def finish(conn: AsyncConnection) -> list[Claim]:
        if not await claims.end(conn, claim.id, holder=runtime.holder):
            return []
        try:
            found = await images.change(conn, claim.image_id, settled)
        except NotFound:
            log.info("the image of a registered location is gone", image=claim.image_id)
            await _tell(runtime, conn, claim, "The image was removed.")
            return []
        await _tell(runtime, conn, claim, None if agreed else why)
        # what could not be read may be right: then the bytes stay where they are
        if (digests is None and not refused) or not dropped:
            return []
        return await deletions.begin_deletes(runtime, conn, found, dropped, scope="location")

    try:
        pending = await runtime.db.write(finish)
    except _Again:
        again = StoreUnavailable("the location was registered again meanwhile")
        await deletions.postpone(runtime, claim, again, failed=False)
        return
    runtime.hashing.forget(claim.id)
    await deletions.settle(runtime, pending)
