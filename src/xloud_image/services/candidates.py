"""What somebody wants to register as a location: looked at, and judged alone and beside the image. Nothing is stored.

Source: Image API reference, sections "PATCH" (by PATCH) and "Locations API".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from xloud_image.errors import BadRequest, Conflict, ImageServiceError, QuotaExceeded, TooLarge
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location
from xloud_image.policy import images as rights
from xloud_image.services import deletions, external, fetching
from xloud_image.services.certificates import Seal, require_same
from xloud_image.services.ownership import notes_for, require_may_name, same
from xloud_image.services.runtime import Runtime
from xloud_image.stores import TYPES
from xloud_image.stores.base import Store

_METADATA: Final = 60 * 1024  # bytes, as they are stored; the column has 64 KiB, for the service's notes too
_CLOSED: Final = frozenset(scheme for one in TYPES.values() for scheme in one.closed_schemes)
_ALGORITHMS: Final[Mapping[str, int]] = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def may_reach_all(runtime: Runtime, ctx: Context, image: Image) -> bool:
    """Whether the caller may make the service look at addresses that are not public."""
    return runtime.policy.allows(ctx, "register_private_address", rights.image_target(image, ctx))


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What lies at a URL that somebody gave: the location as its row will have it, the bytes there, and whether the
    service went wherever it reaches to look."""

    location: Location
    size: int
    store: Store
    trusted: bool


async def looked_at(runtime: Runtime, ctx: Context, image: Image, url: str, metadata: Mapping[str, Any]) -> Seen:
    """`BadRequest` when no store can have it, `Forbidden` when the caller may not name it, `TooLarge`."""
    metadata = external.without_notes(metadata)
    require_short(metadata)
    external.require_no_credentials(url)
    fetching.require_allowed(runtime, url)
    scheme = url.partition("://")[0].lower()
    if scheme in _CLOSED:
        raise BadRequest(f"Locations with the scheme '{scheme}' are not taken from clients.")
    given = metadata.get("store")
    if given is not None and runtime.stores.get(str(given)) is None:
        raise BadRequest(f"There is no store '{str(given)[:80]}' here.")
    store = runtime.stores.of(Location(url, metadata))
    if store is None or not store.owns(url) or (given is not None and store.name != given):
        raise BadRequest("No store of this service can hold data under this URL.")
    require_may_name(runtime, ctx, store)
    trusted = may_reach_all(runtime, ctx, image)
    try:
        blob = await store.stat(url, caller=deletions.caller(ctx, trusted=trusted))
    except ImageServiceError as error:
        if error.temporary:
            raise
        raise BadRequest(f"The data cannot be read: {error.message}") from error
    if blob.size == 0:
        raise BadRequest("The data at this URL is empty.")
    cap = runtime.settings.limits.image_size_cap
    if blob.size > cap:
        raise TooLarge(f"The data at this URL has {blob.size} bytes; an image may have {cap} here.")
    notes = {**external.noted(store, blob, trusted=trusted), **notes_for(runtime, ctx, image.id, store, blob)}
    named = {"store": store.name} if runtime.settings.multi_store else {}
    found = external.with_notes(Location(url, {**metadata, **named}), notes)
    return Seen(found, blob.size, store, trusted)


def require_short(metadata: Mapping[str, Any]) -> None:
    """`BadRequest` for metadata of a location that are longer than a row should be, or than it can be in MySQL."""
    if len(orjson.dumps(dict(metadata))) > _METADATA:
        raise BadRequest(f"The metadata of a location may have {_METADATA} bytes as JSON, these are more.")


def require_new(runtime: Runtime, image: Image, location: Location) -> None:
    # what is left of an attempt that failed does not count
    held = image.locations if image.status != "queued" else ()
    if held and same(runtime, image, location) is not None:
        raise BadRequest("The image has this location already.")
    quota = runtime.settings.limits.image_location_quota
    if 0 <= quota <= len(held):
        raise QuotaExceeded(f"An image may have {quota} locations here.")


def require_own_algorithm(runtime: Runtime, validation: Mapping[str, str]) -> None:
    if validation and validation["os_hash_algo"] != runtime.settings.hashing_algorithm:
        raise Conflict(f"'os_hash_algo' must be {runtime.settings.hashing_algorithm} here.")


def given_together(locations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The digests that came with locations of one image. `Conflict` when they say different things."""
    found: dict[str, str] = {}
    for location in locations:
        for name, value in (location.get("validation_data") or {}).items():
            if found.setdefault(name, value).lower() != value.lower():
                raise Conflict(f"The locations are given with different {name}.")
    return found


def require_digests(validation: Mapping[str, str]) -> None:
    """`BadRequest` for digests that no data can have. That both names are there the schema says."""
    if not validation:
        return
    algorithm, value = validation["os_hash_algo"], validation["os_hash_value"]
    length = _ALGORITHMS.get(algorithm)
    if length is None:
        raise BadRequest(f"'os_hash_algo' must be one of {', '.join(_ALGORITHMS)}.")
    if not re.fullmatch(f"[0-9a-fA-F]{{{length}}}", value):
        raise BadRequest(f"'os_hash_value' of {algorithm} has {length} hexadecimal digits.")


def require_agreement(image: Image, validation: Mapping[str, str]) -> None:
    """`Conflict` for digests that an image with data does not have."""
    if image.status == "queued":
        return
    for name, value in validation.items():
        known = getattr(image, name)
        if known is None:
            raise Conflict(f"The image has no {name}: it is given with the first location, or never.")
        if known.lower() != value.lower():
            raise Conflict(f"The image's {name} differs from that of the new location.")


def first(
    runtime: Runtime,
    image: Image,
    location: Location,
    size: int,
    validation: Mapping[str, str],
    digested: bool,
    seal: Seal | None,
    *,
    believed: bool = False,
) -> Image:
    """A queued image with its first location; with digests to be compared, or a signature, it becomes active only by
    them. digested: the data will be read for their digests. believed: digests that were given are taken as they are;
    those of an image that is signed are compared all the same. `Conflict` when it was signed anew since its certificate
    was read."""
    require_same(image, seal)
    waits = seal is not None or (bool(validation) and not believed)
    if seal is not None:
        location = external.sealed(location, seal.signature.certificate, seal.pem)
    elif validation and believed:
        location = external.announced(location)
    first = image.replace(locations=(location,), size=size, status="importing" if waits else "active")
    if validation:
        return first.replace(
            checksum=validation.get("checksum"),
            os_hash_algo=validation["os_hash_algo"],
            os_hash_value=validation["os_hash_value"].lower(),
        )
    return first.replace(os_hash_algo=runtime.settings.hashing_algorithm) if digested else first
