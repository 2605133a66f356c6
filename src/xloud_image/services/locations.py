"""Locations of an image: by PATCH, by the locations API (2.17), and removing the data from one store.

Source: Image API reference, sections "PATCH" (by PATCH), "Locations API" and "Tags, members, actions, stores".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xloud_image import checking, schemas
from xloud_image.db import claims, images
from xloud_image.db import locations as places
from xloud_image.errors import BadRequest, Conflict, Duplicate, Forbidden, ImageServiceError, NotFound, QuotaExceeded
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location, shown_url
from xloud_image.patch import Change
from xloud_image.policy import images as rights
from xloud_image.services import advice, digests, foreign, owed
from xloud_image.services.changes import require_formats
from xloud_image.services.downloads import in_order
from xloud_image.services.lookup import get
from xloud_image.services.service import Service
from xloud_image.stores.base import Can

_LOCATION: Final = checking.Check(schemas.location())
_VALIDATION: Final = checking.Check(schemas.validation_data())
# Never taken from a client: they name files of this node or credentials in its configuration.
_REFUSED: Final = frozenset({"file", "filesystem", "swift+config"})
_ALGORITHMS: Final[Mapping[str, int]] = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


async def patch(service: Service, ctx: Context, image: Image, changes: Sequence[Change]) -> Image:
    """Apply changes of `/locations`, one after the other, each all or nothing."""
    if not service.settings.exposure.show_multiple_locations:
        raise Forbidden("Locations cannot be changed here (show_multiple_locations is off).")
    for change in changes:
        if change.op == "replace":
            image = await _replace(service, ctx, image, change.value)
        elif change.op == "remove":
            image = await _remove_numbered(service, ctx, image, change.path[1])
        else:
            image = await _add(service, ctx, image, change.path[1], change.value)
    return image


async def _add(service: Service, ctx: Context, image: Image, place: str, value: Any) -> Image:
    rights.require(service.policy, ctx, "set_image_location", image)
    if not _LOCATION.is_valid(value):
        raise BadRequest(f"This is no location: {checking.explain(_LOCATION, value)}")
    location, size = await _measured(service, ctx, image, value["url"], value["metadata"])
    validation = value.get("validation_data") or {}
    _require_algorithm(service, validation)
    trusted = _trusted(service, ctx, image)

    def added(current: Image) -> Image:
        if trusted and (again := _again(service, current, location, size)) is not None:
            _require_agreement(current, validation)
            return again
        if current.status not in ("queued", "active"):
            raise Conflict(f"Locations are added to queued or active images; this one is {current.status}.")
        _require_new(service, current, location)
        _require_agreement(current, validation)
        if current.size is not None and current.status == "active" and current.size != size:
            raise Conflict(f"The image has {current.size} bytes, the data at the new location {size}.")
        require_formats(current)
        at = len(current.locations) if place == "-" else _index(place, len(current.locations) + 1)
        places = (*current.locations[:at], location, *current.locations[at:])
        return _validated(current.replace(locations=places, status="active", size=size), validation)

    store = service.stores.of(location)
    # where the bytes may change, only a digest tells later whether they did
    wanted = store is not None and Can.CHANGE in store.can and service.settings.exposure.do_secure_hash
    wanted = wanted and all(other.url != location.url for other in image.locations)
    claim = owed.new_claim(service, "hash", image.id, location.store or "", url=location.url)

    async def begin(conn: Any) -> tuple[Image, bool]:
        changed = await _change(conn, image.id, location, added, ctx.project)
        examine = wanted and changed.os_hash_value is None
        if examine:
            await claims.begin(conn, claim, lease=service.settings.lease_time)
        return changed, examine

    await reach("location.begin")
    try:
        changed, examine = await service.db.write(begin)
    except Duplicate:
        raise Conflict("This location is being examined already.") from None
    await reach("location.stored")
    advice.log_for(service, changed)
    if examine:
        service.spawn(digests.settle(service, claim), "digest a new location")
    return changed


async def _replace(service: Service, ctx: Context, image: Image, value: Any) -> Image:
    rights.require(service.policy, ctx, "set_image_location", image)
    if not isinstance(value, list) or not all(_LOCATION.is_valid(item) for item in value):
        raise BadRequest("'locations' is a list of objects with 'url' and 'metadata'.")
    if not value:
        raise Forbidden("The locations of an image cannot all be removed.")
    if not image.locations:
        for item in value:
            image = await _add(service, ctx, image, "-", item)
        return image

    def replaced(current: Image) -> Image:
        # clients know the URLs as they are shown; several rows may look alike then, and keep their order
        known: dict[str, list[Location]] = {}
        for location in current.locations:
            known.setdefault(shown_url(location.url), []).append(location)
        given = [shown_url(item["url"]) for item in value]
        if sorted(given) != sorted(shown_url(location.url) for location in current.locations):
            raise BadRequest("Replacing locations can only change their metadata and order, not their URLs.")
        places = []
        for url, item in zip(given, value, strict=True):
            location = known[url].pop(0)
            places.append(Location(location.url, _metadata(item["metadata"], location), id=location.id))
        return current.replace(locations=tuple(places))

    return await service.db.write(lambda conn: images.change(conn, image.id, replaced, project=ctx.project))


def _metadata(given: Mapping[str, Any], location: Location) -> dict[str, Any]:
    """A client's new metadata of a location; what the service wrote stays."""
    kept = {name: location.metadata[name] for name in ("store", foreign.NOTES) if name in location.metadata}
    return {**foreign.without_notes(given), **kept}


async def _remove_numbered(service: Service, ctx: Context, image: Image, place: str) -> Image:
    rights.require(service.policy, ctx, "delete_image_location", image)
    if image.status != "active":
        raise Conflict(f"Locations are removed from active images; this one is {image.status}.")
    # Clients count in the list as it is shown to them.
    shown = [location for _, location in in_order(service, image)]
    at = _index(place, len(shown))
    if len(image.locations) == 1:
        raise Forbidden("The last location of an image cannot be removed; delete the image instead.")
    return await _remove(service, ctx, image, shown[at])


async def delete_from_store(service: Service, ctx: Context, store_id: str, image_id: str) -> None:
    """Remove the image's data from one store (API 2.10). `Conflict`, `NotFound`, `Forbidden` (last), `InUse`."""
    if not service.settings.multi_store:
        raise NotFound("This service has a single store; delete the image instead.")
    if service.stores.get(store_id) is None:
        raise Conflict(f"There is no store '{store_id[:80]}' here.")
    image = await get(service, ctx, image_id)
    rights.require(service.policy, ctx, "delete_image_location", image)
    if image.status != "active":
        raise Conflict(f"Data is removed from the stores of active images; this one is {image.status}.")
    found = [item for item in image.locations if (store := service.stores.of(item)) and store.name == store_id]
    if not found:
        raise NotFound(f"The image {image_id} is not in the store '{store_id}'.")
    if len(image.locations) == 1:
        raise Forbidden(f"'{store_id}' is the last store that holds the image; delete the image instead.")
    await _remove(service, ctx, image, found[0])


async def _remove(service: Service, ctx: Context, image: Image, location: Location) -> Image:
    def removed(current: Image) -> Image:
        rest = tuple(other for other in current.locations if other.id != location.id)
        if len(rest) == len(current.locations):
            raise NotFound("This location was removed meanwhile.")
        if not rest:
            raise Forbidden("The last location of an image cannot be removed; delete the image instead.")
        return current.replace(locations=rest)

    async def hide(conn: Any) -> tuple[Image, list[Claim]]:
        changed = await images.change(conn, image.id, removed, project=ctx.project)
        return changed, await owed.begin_deletes(service, conn, image, [location], scope="location")

    await reach("delete.begin")
    changed, pending = await service.db.write(hide)
    await reach("delete.marked")
    with service.holding(*pending):
        await owed.pay_location(service, ctx, image, location, pending)
    await reach("delete.done")
    return changed


def _index(place: str, count: int) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", place) or int(place) >= count:
        raise BadRequest(f"There is no location number '{place[:20]}'.")
    return int(place)


def _trusted(service: Service, ctx: Context, image: Image) -> bool:
    """Whether the caller may make the service look at addresses that are not public."""
    return service.policy.allows(ctx, "register_private_address", rights.image_target(image, ctx))


async def _change(
    conn: Any, image_id: str, location: Location, step: Callable[[Image], Image], project: str | None
) -> Image:
    """Change an image that gets this location. `Conflict` while its bytes are on their way out."""
    changed = await images.change(conn, image_id, step, project=project)
    if await places.is_leaving(conn, location.url):
        raise Conflict("The data at this URL is being removed; it was the data of an image that was deleted.")
    return changed


def _again(service: Service, image: Image, location: Location, size: int) -> Image | None:
    """The image with one of its locations registered again, where the file may have changed: looked at anew, and given
    out again. None when it has no such location."""
    store = service.stores.of(location)
    old = next((other for other in image.locations if other.url == location.url), None)
    if old is None or store is None or Can.CHANGE not in store.can:
        return None
    if image.size not in (None, size):
        raise Conflict(f"The image has {image.size} bytes, the data at this location {size}; make a new image.")
    fresh = foreign.with_notes(old, foreign.notes(location))
    return image.replace(locations=tuple(fresh if other is old else other for other in image.locations))


async def _measured(
    service: Service, ctx: Context, image: Image, url: str, metadata: Mapping[str, Any]
) -> tuple[Location, int]:
    """The location with its store's id, and the bytes there. `BadRequest` when no store can have it."""
    metadata = foreign.without_notes(metadata)
    foreign.require_no_credentials(url)
    scheme = url.partition("://")[0].lower()
    if scheme in _REFUSED:
        raise BadRequest(f"Locations with the scheme '{scheme}' are not taken from clients.")
    given = metadata.get("store")
    if given is not None and service.stores.get(str(given)) is None:
        raise BadRequest(f"There is no store '{str(given)[:80]}' here.")
    store = service.stores.of(Location(url, metadata))
    if store is None or not store.owns(url) or (given is not None and store.name != given):
        raise BadRequest("No store of this service can hold data under this URL.")
    trusted = _trusted(service, ctx, image)
    try:
        blob = await store.stat(url, caller=owed.caller(ctx, trusted=trusted))
    except ImageServiceError as error:
        if error.temporary:
            raise
        raise BadRequest(f"The data cannot be read: {error.message}") from error
    if blob.size == 0:
        raise BadRequest("The data at this URL is empty.")
    return Location(url, {**metadata, "store": store.name, **foreign.noted(store, blob, trusted=trusted)}), blob.size


def _require_new(service: Service, image: Image, location: Location) -> None:
    if any(other.url == location.url for other in image.locations):
        raise BadRequest("The image has this location already.")
    quota = service.settings.limits.image_location_quota
    if 0 <= quota <= len(image.locations):
        raise QuotaExceeded(f"An image may have {quota} locations here.")


def _require_algorithm(service: Service, validation: Mapping[str, str]) -> None:
    algorithm = validation.get("os_hash_algo")
    if algorithm is None:
        return
    if algorithm != service.settings.hashing_algorithm:
        raise BadRequest(f"'os_hash_algo' must be {service.settings.hashing_algorithm} here.")
    _require_digest(algorithm, validation["os_hash_value"])


def _require_digest(algorithm: str, value: str) -> None:
    length = _ALGORITHMS.get(algorithm)
    if length is None:
        raise BadRequest(f"'os_hash_algo' must be one of {', '.join(_ALGORITHMS)}.")
    if not re.fullmatch(f"[0-9a-fA-F]{{{length}}}", value):
        raise BadRequest(f"'os_hash_value' of {algorithm} has {length} hexadecimal digits.")


def _require_agreement(image: Image, validation: Mapping[str, str]) -> None:
    if image.status != "active":
        return
    for name, value in validation.items():
        known = getattr(image, name)
        if known is not None and known.lower() != value.lower():
            raise Conflict(f"The image's {name} differs from that of the new location.")


def _validated(image: Image, validation: Mapping[str, str]) -> Image:
    if not validation:
        return image
    return image.replace(
        checksum=validation.get("checksum", image.checksum),
        os_hash_algo=validation["os_hash_algo"],
        os_hash_value=validation["os_hash_value"],
    )


async def register(service: Service, ctx: Context, image_id: str, url: str, validation: Mapping[str, Any]) -> Image:
    """The locations API: point a queued image at data that exists. Returns before the data has been hashed.

    With `validation` (os_hash_algo, os_hash_value) the image becomes active only when the data has that digest;
    without it is active at once and its digests follow.

    Beyond the reference: an active image takes a URL that it has already from an administrator or service, who says so
    that the file there, which was found changed, is the right one.
    """
    image = await get(service, ctx, image_id)
    rights.require(service.policy, ctx, "add_image_location", image)
    if validation:
        if not _VALIDATION.is_valid(validation):
            raise BadRequest(f"validation_data: {checking.explain(_VALIDATION, validation)}")
        _require_digest(validation["os_hash_algo"], validation["os_hash_value"])
    again = image.status == "active" and any(location.url == url for location in image.locations)
    if image.status != "queued" and not (again and _trusted(service, ctx, image)):
        raise Conflict(f"Only a queued image takes a first location; this one is {image.status}.")
    require_formats(image)
    trusted = service.policy.allows(ctx, "service_api", {})
    if not trusted and url.partition("://")[0].lower() not in ("http", "https"):
        raise Forbidden("Only other services may register locations that are not http or https URLs.")
    location, size = await _measured(service, ctx, image, url, {})
    if again:
        return await _look_again(service, ctx, image, location, size, validation)
    claim = None
    if validation or service.settings.exposure.do_secure_hash:
        claim = owed.new_claim(service, "hash", image_id, location.store or "", url=url)
    algorithm = validation.get("os_hash_algo")
    value = validation.get("os_hash_value")

    def begun(current: Image) -> Image:
        if current.status != "queued":
            raise Conflict(f"Only a queued image takes a first location; this one is {current.status}.")
        _require_new(service, current, location)
        require_formats(current)
        changed = current.replace(locations=(location,), size=size, status="importing" if validation else "active")
        return changed.replace(os_hash_algo=algorithm, os_hash_value=value) if validation else changed

    async def begin(conn: Any) -> Image:
        changed = await _change(conn, image_id, location, begun, ctx.project)
        if claim is not None:
            await claims.begin(conn, claim, lease=service.settings.lease_time)
        return changed

    await reach("location.begin")
    try:
        changed = await service.db.write(begin)
    except Duplicate:
        raise Conflict("Another location of this image is being examined.") from None
    await reach("location.stored")
    advice.log_for(service, changed)
    if claim is not None:
        service.spawn(digests.settle(service, claim), "digest a new location")
    return changed


async def _look_again(
    service: Service, ctx: Context, image: Image, location: Location, size: int, validation: Mapping[str, Any]
) -> Image:
    def looked(current: Image) -> Image:
        _require_agreement(current, validation)
        found = _again(service, current, location, size)
        if found is None:
            raise Conflict("This location cannot change behind the service's back, or was removed meanwhile.")
        return found

    return await service.db.write(lambda conn: _change(conn, image.id, location, looked, ctx.project))


async def find(service: Service, ctx: Context, image_id: str) -> list[Location]:
    """All locations, for other services and administrators."""
    image = await get(service, ctx, image_id)
    rights.require(service.policy, ctx, "fetch_image_location", image)
    return list(image.locations)
