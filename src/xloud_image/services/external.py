"""Locations whose bytes are not under our hand: what is noted of them, and whether they are still what they were.

The notes are a part of the location's metadata that only the service writes and no client sees: the version at
registering, whether whoever registered it may be led to addresses that are not public (if not, no read is either), and
since when the bytes are known to be wrong, or why they were refused. Rows without notes are as old as the image and are
trusted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import images
from xloud_image.errors import (
    BadRequest,
    BlobChanged,
    BlobError,
    BlobNotFound,
    FormatRefused,
    ImageServiceError,
    NotFound,
    StoreUnavailable,
)
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location, shown_url, utcnow
from xloud_image.services import formats
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Blob, Caller, Can, Reader, Store
from xloud_image.streams.digest import Digest
from xloud_image.streams.stages import Inspect, Limit, through

log = structlog.get_logger(__name__)

NOTES: Final = "xloud"  # the key in the metadata
_REASON: Final = 500  # characters of a refusal that are kept
_REGISTERED: Final = "registered"  # says no more than that the row is not an older one
_CERTIFICATE: Final = "certificate"
_ANNOUNCED, _DIGEST = "announced", "digest"
_VERSION, _UNTRUSTED, _WRONG, _UNPROVED, _REFUSED = "version", "untrusted", "wrong_since", "unproved", "refused"


def notes(location: Location) -> Mapping[str, Any]:
    """What the service noted of a location."""
    found = location.metadata.get(NOTES)
    return found if isinstance(found, dict) else {}


def without_notes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as clients may give and see them."""
    return {name: value for name, value in metadata.items() if name != NOTES}


def noted(store: Store, blob: Blob, *, trusted: bool) -> dict[str, Any]:
    """The notes of a new location that tell later whether the bytes changed; none where only we change them.

    Never empty otherwise: a row without notes is an older one, which is followed wherever it leads.
    """
    if Can.CHANGE not in store.can:
        return {}
    found: dict[str, Any] = {_REGISTERED: True}
    if blob.version:
        found[_VERSION] = blob.version
    return found if trusted else {**found, _UNTRUSTED: True}


def unproved(location: Location) -> Location:
    """The same location, which does not count before its data were read and compared."""
    return with_notes(location, {**notes(location), _UNPROVED: True})


def proved(location: Location) -> Location:
    """The same location, which counts from now on."""
    return with_notes(location, {name: value for name, value in notes(location).items() if name != _UNPROVED})


def announced(location: Location) -> Location:
    """The same location, of an image whose digests were given with a location, and not compared with its data."""
    return with_notes(location, {**notes(location), _ANNOUNCED: True})


def is_announced(image: Image) -> bool:
    """Whether nobody has compared the image's digests with its data."""
    return any(_ANNOUNCED in notes(location) for location in image.locations)


def digested(location: Location, algorithm: str, value: str) -> Location:
    """The same location, of whose data this digest is known to us alone."""
    return with_notes(location, {**notes(location), _DIGEST: {"algorithm": algorithm, "value": value}})


def own_digest(location: Location) -> tuple[str, str] | None:
    """Algorithm and hex value that `digested` noted."""
    found = notes(location).get(_DIGEST)
    return (found["algorithm"], found["value"]) if isinstance(found, dict) else None


def true_digest(image: Image) -> tuple[str, str] | None:
    """Algorithm and hex value of the data that the image has, when somebody has read them; whatever was announced."""
    own = (own_digest(location) for location in image.locations if counts(location))
    known = None if is_announced(image) else digest_of(image)
    return known or next((found for found in own if found is not None), None)


def counts(location: Location) -> bool:
    """Whether the location is shown and read: not as long as nobody has compared its data with the image's."""
    return _UNPROVED not in notes(location)


def registered_as(location: Location) -> Mapping[str, Any]:
    """Those notes of which none changes unless the location is registered again, or found to be wrong or right."""
    found = notes(location)
    return {name: found[name] for name in (_VERSION, _UNTRUSTED, _WRONG, _UNPROVED, _REFUSED) if name in found}


def is_wrong(location: Location) -> bool:
    """Whether a full read showed other bytes than the image has, or such as are refused."""
    return bool(notes(location).get(_WRONG)) or refusal(location) is not None


def refusal(location: Location) -> str | None:
    """Why the data were refused when they were read; None when they were not."""
    found = notes(location).get(_REFUSED)
    return found if isinstance(found, str) else None


def refused(location: Location, why: str) -> Location:
    """The same location, which is not read any more until it is registered again."""
    return with_notes(location, {**notes(location), _REFUSED: why[:_REASON]})


def caller(ctx: Context, location: Location) -> Caller:
    """For whom a location is read: whoever asks, but trusted no more than who registered it."""
    return Caller(
        user=ctx.user,
        project=ctx.project,
        token=ctx.token,
        trusted=not notes(location).get(_UNTRUSTED, False),
        older=NOTES not in location.metadata,
    )


def other_size(store: Store, size: int, found: str) -> BlobError:
    """The error of a store that has fewer or more bytes than the image: where only we write, the data is lost."""
    kind = BlobChanged if Can.CHANGE in store.can else BlobNotFound
    return kind(f"the image has {size} bytes, the store has others: {found}")


def require_unchanged(store: Store, location: Location, reader: Reader, size: int | None) -> None:
    """`BlobChanged` when what is open is not what was registered, as far as the store tells before the first byte."""
    if size is not None and reader.size not in (None, size):
        raise other_size(store, size, f"{reader.size} bytes")
    version = notes(location).get(_VERSION)
    if version and reader.version and version != reader.version:
        raise BlobChanged("the file is of another version (ETag or time of change) than when it was registered")


def require_no_credentials(url: str) -> None:
    """`BadRequest` for a URL with a password, of whatever store: who may see locations would see it, and the database
    would keep it."""
    authority = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if "@" in authority or shown_url(url) != url:
        raise BadRequest(
            "A URL with a user name or password ('@') is not taken: the database would keep it for everybody. "
            "The store's own options say who logs in."
        )


def digest_of(image: Image) -> tuple[str, str] | None:
    """Algorithm and hex value of the digest that the whole data must have; None when none is known."""
    if image.os_hash_algo and image.os_hash_value and image.os_hash_algo in hashlib.algorithms_available:
        return image.os_hash_algo, image.os_hash_value.lower()
    return ("md5", image.checksum.lower()) if image.checksum else None


async def verified(
    runtime: Runtime, image: Image, location: Location, chunks: AsyncIterator[bytes], size: int
) -> AsyncIterator[bytes]:
    """All of the data, looked at as an upload is, and compared with the image's digest, if it has one, before the last
    chunk is handed on.

    `FormatRefused` for dangerous content, as soon as it is seen; `BlobChanged` instead of the last chunk when the
    digest differs: whoever counts bytes notices. Either marks the location.
    """
    known = own_digest(location) or digest_of(image)  # what was read before what was announced
    digest = Digest([] if known is None else [known[0]], runtime.digest_pool)
    stages = Limit(size, size), Inspect(formats.safety(runtime, image)), digest
    held: bytes | None = None
    try:
        async for chunk in through(chunks, stages):
            if held is not None:
                yield held
            held = chunk
        found = await digest.hexes()
    except FormatRefused as error:
        why = error.message
        log.error("a location has data that is refused", image=image.id, store=location.store, reason=why)
        await _mark(runtime, image, location, lambda marked: refused(marked, why))
        raise
    except BadRequest as error:  # more or fewer bytes: nothing is known about the right ones
        raise StoreUnavailable(f"the data broke off: {error.message}") from error
    if known is not None and found[known[0]] != known[1]:
        log.error(
            "a location has other data than its image and is not read any more until it is registered again",
            image=image.id,
            store=location.store,
            location=location.id,
            digest=known[0],
        )
        await _mark(runtime, image, location, wrong)
        raise BlobChanged(f"the {known[0]} of the data differs from that of the image")
    if held is not None:
        yield held


def wrong(location: Location) -> Location:
    """The same location, of which a full read showed other bytes than the image has."""
    return with_notes(location, {**notes(location), _WRONG: utcnow().isoformat(timespec="seconds") + "Z"})


async def _mark(runtime: Runtime, image: Image, location: Location, mark: Callable[[Location], Location]) -> None:
    def marked(current: Image) -> Image:
        if digest_of(current) != digest_of(image):
            return current
        return current.replace(
            locations=tuple(
                mark(other)
                if other.id == location.id
                and registered_as(other) == registered_as(location)  # not registered again meanwhile
                else other
                for other in current.locations
            )
        )

    async def write(conn: AsyncConnection) -> None:
        await images.change(conn, image.id, marked)

    try:
        await runtime.db.write(write)
    except NotFound:
        pass  # deleted meanwhile
    except ImageServiceError as error:
        log.error("the location could not be marked", image=image.id, reason=error.message)


def sealed(location: Location, certificate: str, pem: str) -> Location:
    """The same location of a signed image, whose data has to fit a signature by this certificate."""
    return with_notes(location, {**notes(location), _CERTIFICATE: {"id": certificate, "pem": pem}})


def certificate(location: Location) -> Mapping[str, str] | None:
    """The certificate that `sealed` noted: `id`, `pem`."""
    found = notes(location).get(_CERTIFICATE)
    return found if isinstance(found, dict) else None


def unsealed(location: Location) -> Location:
    """The same location, once that was found."""
    return with_notes(location, {name: value for name, value in notes(location).items() if name != _CERTIFICATE})


def with_notes(location: Location, new: Mapping[str, Any]) -> Location:
    """The same location with other notes."""
    metadata = without_notes(location.metadata)
    if new:
        metadata[NOTES] = dict(new)
    return Location(location.url, metadata, location.status, location.id)


def none_left(image: Image) -> BlobChanged:
    """What a client is told when all that is left of an image is another file."""
    return BlobChanged(
        f"The data of the image {image.id} lies elsewhere and is not what was registered any more: its size, version "
        "or digest differs. Put the right file back, let an administrator register its URL again "
        f"(POST /v2/images/{image.id}/locations), or make a new image."
    )
