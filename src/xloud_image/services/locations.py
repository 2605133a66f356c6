"""Locations of an image: by PATCH, by the locations API (2.17), and removing the data from one store.

Source: Image API reference, sections "PATCH" (by PATCH), "Locations API" and "Tags, members, actions, stores".
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from xloud_image import checking, schemas
from xloud_image.db import claims, images, tasks
from xloud_image.errors import (
    BadRequest,
    Conflict,
    Duplicate,
    Forbidden,
    NoSuchImage,
    NotFound,
    QuotaExceeded,
)
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location, Task, shown_url
from xloud_image.patch import MAX_LOCATIONS, Change
from xloud_image.policy import images as rights
from xloud_image.services import candidates, certificates, deletions, external, hashing, hints, quotas
from xloud_image.services.downloads import in_order
from xloud_image.services.image_patch import require_formats
from xloud_image.services.lookup import load
from xloud_image.services.ownership import is_internal, require_free
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Can

_LOCATION: Final = checking.Check(schemas.location())
_VALIDATION: Final = checking.Check(schemas.validation_data())
_PATIENCE: Final = 10.0  # seconds that a PATCH waits for the data of its location to be read


def require_rights(runtime: Runtime, ctx: Context, image: Image, changes: Sequence[Change]) -> None:
    """`NotFound` for an image that the caller cannot see, `Forbidden` when he may not make all of these changes."""
    for rule in sorted({"delete_image_location" if one.op == "remove" else "set_image_location" for one in changes}):
        rights.require(runtime.policy, ctx, rule, image)


async def patch(runtime: Runtime, ctx: Context, image: Image, changes: Sequence[Change]) -> Image:
    """Apply changes of `/locations`, one after the other, each all or nothing: a failure leaves the earlier ones."""
    if not runtime.settings.exposure.show_multiple_locations:
        raise Forbidden("Locations cannot be changed here (show_multiple_locations is off).")
    for change in changes:
        if change.op == "replace":
            image = await _replace(runtime, ctx, image, change.value)
        elif change.op == "remove":
            image = await _remove_numbered(runtime, ctx, image, change.path[1])
        else:
            image = await _add(runtime, ctx, image, change.path[1], change.value)
    return image


async def _add(runtime: Runtime, ctx: Context, image: Image, place: str, value: Any) -> Image:
    rights.require(runtime.policy, ctx, "set_image_location", image)
    if not _LOCATION.is_valid(value):
        raise BadRequest(f"This is no location: {checking.explain(_LOCATION, value)}")
    validation = value.get("validation_data") or {}
    candidates.require_agreement(image, validation)
    candidates.require_own_algorithm(runtime, validation)
    candidates.require_digests(validation)
    seen = await candidates.looked_at(runtime, ctx, image, value["url"], value["metadata"])
    location, size = seen.location, seen.size
    verify = runtime.settings.exposure.verify_locations
    known = image.status != "queued" and any(other.url == location.url for other in image.locations)
    quota = None if known else await quotas.of(runtime, image.owner)
    seal = await certificates.signed(runtime, ctx, image) if image.status == "queued" else None
    examine = filled = waits = False

    def added(current: Image) -> Image:
        nonlocal examine, filled, waits
        announced = external.is_announced(current)
        filled = _shows(runtime, current)
        examine = waits = False
        rights.require(runtime.policy, ctx, "set_image_location", current)
        _require_still(seen.trusted == candidates.may_reach_all(runtime, ctx, current))
        if (
            current.status != "queued"
            and seen.trusted
            and (again := _again(runtime, current, location, size)) is not None
        ):
            candidates.require_agreement(current, validation)
            waits = _waits(current, location)
            examine = waits or runtime.settings.exposure.do_secure_hash
            return again
        if current.status not in ("queued", "active"):
            raise Conflict(f"Locations are added to queued or active images; this one is {current.status}.")
        candidates.require_new(runtime, current, location)
        require_formats(current)
        at = len(current.locations) if place == "-" else _index(place, len(current.locations) + 1)
        if current.status == "active":
            candidates.require_agreement(current, validation)
            if current.size is not None and current.size != size:
                raise Conflict(f"The image has {current.size} bytes, the data at the new location {size}.")
            examine = waits = True
            new = external.unproved(external.announced(location) if announced else location)
            return current.replace(locations=(*current.locations[:at], new, *current.locations[at:]), size=size)
        waits = seal is not None or (verify and bool(validation))
        # where the bytes may change, only a digest tells later whether they did
        examine = waits or (not is_internal(seen.store) and runtime.settings.exposure.do_secure_hash)
        filled = waits or (verify and examine)
        return candidates.first(runtime, current, location, size, validation, filled, seal, believed=not verify)

    async def begin(conn: Any) -> tuple[Image, Claim]:
        await quotas.admit(conn, quota, size=size)
        changed = await _change(runtime, ctx, conn, image.id, location, added)
        claim = _claim(runtime, image, location, hashing.SHOWN if filled else hashing.KEPT)
        return changed, await _queued(conn, claim, changed, trusted=seen.trusted) if examine else claim

    changed, claim = await _stored(runtime, begin)
    if waits:
        return await _examined(runtime, changed, claim)
    if examine:
        hashing.soon(runtime)
    return changed


def _shows(runtime: Runtime, image: Image) -> bool:
    """Whether clients see the digest of data that is read: not of an image whose own nobody has read for them."""
    known = image.os_hash_algo is not None and not external.is_announced(image)
    return known or runtime.settings.exposure.verify_locations


def _claim(runtime: Runtime, image: Image, location: Location, scope: str = hashing.SHOWN) -> Claim:
    """That the data of a location have to be read. Held by nobody: the claims are the queue of the readers."""
    claim = deletions.new_claim(runtime, "hash", image.id, location.store or "", url=location.url, scope=scope)
    return dataclasses.replace(claim, holder=None)


async def _queued(conn: Any, claim: Claim, image: Image, *, trusted: bool) -> Claim:
    """The claim, stored; or the one that waits for the same data already. The image is locked. `QuotaExceeded` when too
    many wait for members to register more; what services and administrators register is read in any case."""
    for waiting in await claims.list_all(conn, image_id=claim.image_id, kind=claim.kind):
        if (waiting.store, waiting.url, waiting.scope) == (claim.store, claim.url, claim.scope):
            return waiting
    if not trusted and await claims.count(conn, claim.kind, image.owner) >= hashing.WAITING:
        raise QuotaExceeded(
            f"{hashing.WAITING} registered locations of this project wait to be read already; register more when some"
            " have been."
        )
    await claims.begin(conn, claim, lease=0)
    return claim


async def _stored(runtime: Runtime, begin: Callable[[Any], Awaitable[tuple[Image, Claim]]]) -> tuple[Image, Claim]:
    await reach("location.begin")
    try:
        changed, claim = await runtime.db.write(begin)
    except Duplicate:
        raise Conflict("This location is being examined already.") from None
    await reach("location.stored")
    hints.log_for(runtime, changed)
    return changed, claim


async def _examined(runtime: Runtime, image: Image, claim: Claim) -> Image:
    """The image after its new location was compared. What takes long goes on beside: the image as it is by then, in
    which that location does not count yet. `Conflict` when the data are others than they should be."""
    hashing.soon(runtime)
    pause, left = 0.05, _PATIENCE
    while left > 0:
        await asyncio.sleep(pause)
        left -= pause
        pause = min(2 * pause, 0.5)
        if await runtime.db.read(lambda conn: claims.get(conn, claim.id)) is None:
            break
    found = await runtime.db.read(lambda conn: images.get(conn, image.id))
    if found is None:
        raise NoSuchImage(image.id)
    if found.status == "queued" or all(other.url != claim.url for other in found.locations):
        raise Conflict("The data at this URL could not be read, or have another digest than they should have.")
    return found.replace(membership=image.membership)


async def _replace(runtime: Runtime, ctx: Context, image: Image, value: Any) -> Image:
    rights.require(runtime.policy, ctx, "set_image_location", image)
    if not isinstance(value, list) or not all(_LOCATION.is_valid(item) for item in value):
        raise BadRequest("'locations' is a list of objects with 'url' and 'metadata'.")
    if not value:
        raise Forbidden("The locations of an image cannot all be removed.")
    for item in value:
        candidates.require_short(item["metadata"])
    given = candidates.given_together(value)
    candidates.require_agreement(image, given)
    if image.status == "queued" or not image.locations:
        if len(value) > MAX_LOCATIONS:
            raise BadRequest(f"At most {MAX_LOCATIONS} locations are added by one PATCH.")
        first = {**value[0], "validation_data": given} if given else value[0]
        for item in (first, *value[1:]):
            image = await _add(runtime, ctx, image, "-", item)
        return image

    def replaced(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "set_image_location", current)
        candidates.require_agreement(current, given)
        # clients know the URLs as they are shown; several rows may look alike then, and keep their order
        # what does not count yet is not shown to them, and stays
        known: dict[str, list[Location]] = {}
        for location in current.locations:
            if external.counts(location):
                known.setdefault(shown_url(location.url), []).append(location)
        urls = [shown_url(item["url"]) for item in value]
        if sorted(urls) != sorted(url for url, those in known.items() for _ in those):
            raise BadRequest("Replacing locations can only change their metadata, not their URLs.")
        places = []
        for url, item in zip(urls, value, strict=True):
            location = known[url].pop(0)
            places.append(Location(location.url, _metadata(item["metadata"], location), location.status, location.id))
        unseen = (location for location in current.locations if not external.counts(location))
        return current.replace(locations=(*places, *unseen))

    return await runtime.db.write(lambda conn: images.change(conn, image.id, replaced, project=ctx.project))


def _metadata(given: Mapping[str, Any], location: Location) -> dict[str, Any]:
    """A client's new metadata of a location; what the service wrote stays."""
    kept = {name: location.metadata[name] for name in ("store", external.NOTES) if name in location.metadata}
    return {**external.without_notes(given), **kept}


async def _remove_numbered(runtime: Runtime, ctx: Context, image: Image, place: str) -> Image:
    rights.require(runtime.policy, ctx, "delete_image_location", image)
    if image.status != "active":
        raise Conflict(f"Locations are removed from active images; this one is {image.status}.")
    # Clients count in the list as it is shown to them.
    shown = [location for _, location in in_order(runtime, image)]
    at = _index(place, len(shown))
    if len(shown) == 1:
        raise Forbidden("The last location of an image cannot be removed; delete the image instead.")
    return await _remove(runtime, ctx, image, shown[at])


async def delete_from_store(runtime: Runtime, ctx: Context, store_id: str, image_id: str) -> None:
    """Remove the image's data from one store (API 2.10). `Conflict`, `NotFound`, `Forbidden` (last), `InUse`."""
    if not runtime.settings.multi_store:
        raise NotFound("This service has a single store; delete the image instead.")
    if runtime.stores.get(store_id) is None:
        raise Conflict(f"There is no store '{store_id[:80]}' here.")
    image = await load(runtime, ctx, image_id)
    rights.require(runtime.policy, ctx, "delete_image_location", image)
    if image.status != "active":
        raise Conflict(f"Data is removed from the stores of active images; this one is {image.status}.")
    found = [item for item in image.locations if (store := runtime.stores.of(item)) and store.name == store_id]
    if not found:
        raise NotFound(f"The image {image_id} is not in the store '{store_id}'.")
    if not any(external.counts(item) for item in image.locations if item is not found[0]):
        raise Forbidden(f"'{store_id}' is the last store that holds the image; delete the image instead.")
    await _remove(runtime, ctx, image, found[0])


async def _remove(runtime: Runtime, ctx: Context, image: Image, location: Location) -> Image:
    def removed(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "delete_image_location", current)
        if current.status != "active":
            raise Conflict(f"Locations are removed from active images; this one is {current.status}.")
        rest = tuple(other for other in current.locations if other.id != location.id)
        if len(rest) == len(current.locations):
            raise NotFound("This location was removed meanwhile.")
        if not any(external.counts(other) for other in rest):
            raise Forbidden("The last location of an image cannot be removed; delete the image instead.")
        return current.replace(locations=rest)

    async def hide(conn: Any) -> tuple[Image, list[Claim]]:
        changed = await images.change(conn, image.id, removed, project=ctx.project)
        return changed, await deletions.begin_deletes(runtime, conn, image, [location], scope="location")

    await reach("delete.begin")
    changed, pending = await runtime.db.write(hide)
    await reach("delete.marked")
    with runtime.holding(*pending):
        await deletions.remove_location(runtime, ctx, image, location, pending)
    await reach("delete.done")
    return changed


def _index(place: str, count: int) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", place) or int(place) >= count:
        raise BadRequest(f"There is no location number '{place[:20]}'.")
    return int(place)


def _require_still(so: bool) -> None:
    """What was read before the lock, and decided how the data was looked at, must hold under the lock."""
    if not so:
        raise Conflict("The image was changed by somebody else meanwhile; look at it and try again.")


async def _change(
    runtime: Runtime, ctx: Context, conn: Any, image_id: str, location: Location, step: Callable[[Image], Image]
) -> Image:
    """Change an image that gets this location, whose bytes are nobody else's and not on their way out."""
    changed = await images.change(conn, image_id, step, project=ctx.project)
    await require_free(runtime, ctx, conn, changed, location)
    return changed


def _again(runtime: Runtime, image: Image, location: Location, size: int) -> Image | None:
    """The image with one of its locations registered again, where the file may have changed: looked at anew, and given
    out again. None when it has no such location."""
    store = runtime.stores.of(location)
    old = next((other for other in image.locations if other.url == location.url), None)
    if old is None or store is None or Can.CHANGE not in store.can:
        return None
    if image.size not in (None, size):
        raise Conflict(f"The image has {image.size} bytes, the data at this location {size}; make a new image.")
    fresh = external.with_notes(old, external.notes(location))
    if external.is_announced(image):
        fresh = external.announced(fresh)
    if (own := external.own_digest(old)) is not None:  # the data of an image never change
        fresh = external.digested(fresh, *own)
    if not external.counts(old):  # nobody has compared its data yet: saying it twice does not prove it
        fresh = external.unproved(fresh)
    return image.replace(locations=tuple(fresh if other is old else other for other in image.locations))


def _waits(image: Image, location: Location) -> bool:
    """Whether the image has this location already, and it does not count yet."""
    return any(other.url == location.url and not external.counts(other) for other in image.locations)


async def register(runtime: Runtime, ctx: Context, image_id: str, url: str, validation: Mapping[str, Any]) -> Image:
    """The locations API: point a queued image at data that exists. Returns before the data has been hashed.

    With `validation` (os_hash_algo, os_hash_value) the image becomes active only when the data has that digest;
    without it is active at once and its digests follow.

    Beyond the reference: an active image takes a URL that it has already from an administrator or service, who says so
    that the file there, which was found changed, is the right one.
    """
    image = await load(runtime, ctx, image_id)
    rights.require(runtime.policy, ctx, "add_image_location", image)
    if validation:
        if not _VALIDATION.is_valid(validation):
            raise BadRequest(f"validation_data: {checking.explain(_VALIDATION, validation)}")
        candidates.require_digests(validation)
    again = image.status == "active" and any(location.url == url for location in image.locations)
    if image.status != "queued" and not (again and candidates.may_reach_all(runtime, ctx, image)):
        raise Conflict(f"Only a queued image takes a first location; this one is {image.status}.")
    require_formats(image)
    seen = await candidates.looked_at(runtime, ctx, image, url, {})
    location, size = seen.location, seen.size
    if again:
        return await _look_again(runtime, ctx, image, location, size, validation)
    seal = await certificates.signed(runtime, ctx, image)
    examine = bool(validation) or seal is not None or runtime.settings.exposure.do_secure_hash
    quota = await quotas.of(runtime, image.owner)

    def begun(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "add_image_location", current)
        _require_still(seen.trusted == candidates.may_reach_all(runtime, ctx, current))
        if current.status != "queued":
            raise Conflict(f"Only a queued image takes a first location; this one is {current.status}.")
        candidates.require_new(runtime, current, location)
        require_formats(current)
        return candidates.first(runtime, current, location, size, validation, examine, seal)

    async def begin(conn: Any) -> tuple[Image, Claim]:
        await quotas.admit(conn, quota, size=size)
        changed = await _change(runtime, ctx, conn, image_id, location, begun)
        claim = _claim(runtime, image, location)
        if examine and await _queued(conn, claim, changed, trusted=seen.trusted) is claim:
            # what clients see of the reading; `hashing` ends it
            asked = {"image_id": image_id, "loc_url": shown_url(url), "validation_data": dict(validation)}
            owner = ctx.project or changed.owner or ""
            task = Task(claim.id, "location_import", owner, image_id=image_id, user_id=ctx.user, input=asked)
            await tasks.add(conn, task)
        return changed, claim

    changed, _ = await _stored(runtime, begin)
    if examine:
        hashing.soon(runtime)
    return changed


async def _look_again(
    runtime: Runtime, ctx: Context, image: Image, location: Location, size: int, validation: Mapping[str, Any]
) -> Image:
    def looked(current: Image) -> Image:
        rights.require(runtime.policy, ctx, "add_image_location", current)
        _require_still(candidates.may_reach_all(runtime, ctx, current))
        candidates.require_agreement(current, validation)
        found = _again(runtime, current, location, size)
        if found is None:
            raise Conflict("This location cannot change behind the service's back, or was removed meanwhile.")
        return found

    async def look(conn: Any) -> Image:
        changed = await _change(runtime, ctx, conn, image.id, location, looked)
        if runtime.settings.exposure.do_secure_hash or _waits(changed, location):
            shown = _shows(runtime, changed) and not external.is_announced(changed)
            scope = hashing.SHOWN if shown else hashing.KEPT
            await _queued(conn, _claim(runtime, image, location, scope), changed, trusted=True)
        return changed

    changed = await runtime.db.write(look)
    hashing.soon(runtime)
    return changed


async def find(runtime: Runtime, ctx: Context, image_id: str) -> list[Location]:
    """All locations that count, for other services and administrators."""
    image = await load(runtime, ctx, image_id)
    rights.require(runtime.policy, ctx, "fetch_image_location", image)
    return [location for location in image.locations if external.counts(location)]
