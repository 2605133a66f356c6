"""Locations of an image: by PATCH, by the locations API (2.17), and removing the data from one store.

Source: Image API reference, sections "PATCH" (by PATCH), "Locations API" and "Tags, members, actions, stores".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft202012Validator

from xloud_image import schemas
from xloud_image.db import claims, images
from xloud_image.errors import BadRequest, Conflict, Duplicate, Forbidden, ImageServiceError, NotFound, QuotaExceeded
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.patch import Change
from xloud_image.policy import images as rights
from xloud_image.services import digests, owed
from xloud_image.services.changes import require_formats
from xloud_image.services.data import in_order
from xloud_image.services.lookup import get
from xloud_image.services.service import Service

_LOCATION: Final = Draft202012Validator(schemas.location())
_VALIDATION: Final = Draft202012Validator(schemas.validation_data())
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
        raise BadRequest(f"This is no location: {schemas.explain(_LOCATION, value)}")
    location, size = await _measured(service, ctx, value["url"], value["metadata"])
    validation = value.get("validation_data") or {}
    _require_algorithm(service, validation)

    def added(current: Image) -> Image:
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

    await reach("location.begin")
    changed = await service.db.write(lambda conn: images.change(conn, image.id, added, project=ctx.project))
    await reach("location.stored")
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
        by_url = {location.url: location for location in current.locations}
        if sorted(by_url) != sorted(item["url"] for item in value):
            raise BadRequest("Replacing locations can only change their metadata and order, not their URLs.")
        places = tuple(
            Location(item["url"], {**item["metadata"], **_store_of(by_url[item["url"]])}, id=by_url[item["url"]].id)
            for item in value
        )
        return current.replace(locations=places)

    return await service.db.write(lambda conn: images.change(conn, image.id, replaced, project=ctx.project))


def _store_of(location: Location) -> dict[str, str]:
    return {"store": location.store} if location.store else {}


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


async def _measured(service: Service, ctx: Context, url: str, metadata: Mapping[str, Any]) -> tuple[Location, int]:
    """The location with its store's id, and the bytes there. `BadRequest` when no store can have it."""
    scheme = url.partition("://")[0].lower()
    if scheme in _REFUSED:
        raise BadRequest(f"Locations with the scheme '{scheme}' are not taken from clients.")
    given = metadata.get("store")
    if given is not None and service.stores.get(str(given)) is None:
        raise BadRequest(f"There is no store '{str(given)[:80]}' here.")
    store = service.stores.of(Location(url, metadata))
    if store is None or not store.owns(url):
        raise BadRequest("No store of this service can hold data under this URL.")
    try:
        size = await store.size(url, caller=owed.caller(ctx))
    except ImageServiceError as error:
        if error.temporary:
            raise
        raise BadRequest(f"The data cannot be read: {error.message}") from error
    if size == 0:
        raise BadRequest("The data at this URL is empty.")
    return Location(url, {**metadata, "store": store.name}), size


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


async def register(service: Service, ctx: Context, image_id: str, url: str, validation: Mapping[str, Any]) -> None:
    """The locations API: point a queued image at data that exists. Returns before the data has been hashed.

    With `validation` (os_hash_algo, os_hash_value) the image becomes active only when the data has that digest;
    without it is active at once and its digests follow.
    """
    image = await get(service, ctx, image_id)
    rights.require(service.policy, ctx, "add_image_location", image)
    if validation:
        if not _VALIDATION.is_valid(validation):
            raise BadRequest(f"validation_data: {schemas.explain(_VALIDATION, validation)}")
        _require_digest(validation["os_hash_algo"], validation["os_hash_value"])
    if image.status != "queued":
        raise Conflict(f"Only a queued image takes a first location; this one is {image.status}.")
    require_formats(image)
    trusted = service.policy.allows(ctx, "service_api", {})
    if not trusted and url.partition("://")[0].lower() not in ("http", "https"):
        raise Forbidden("Only other services may register locations that are not http or https URLs.")
    location, size = await _measured(service, ctx, url, {})
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

    async def begin(conn: Any) -> None:
        await images.change(conn, image_id, begun)
        if claim is not None:
            await claims.begin(conn, claim, lease=service.settings.lease_time)

    await reach("location.begin")
    try:
        await service.db.write(begin)
    except Duplicate:
        raise Conflict("Another location of this image is being examined.") from None
    await reach("location.stored")
    if claim is not None:
        service.spawn(digests.settle(service, claim), "digest a new location")


async def find(service: Service, ctx: Context, image_id: str) -> list[Location]:
    """All locations, for other services and administrators."""
    image = await get(service, ctx, image_id)
    rights.require(service.policy, ctx, "fetch_image_location", image)
    return list(image.locations)
