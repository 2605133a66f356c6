"""What a refusal of the server means: its error of the contract, with a sentence that says what to do."""

from __future__ import annotations

import re
from typing import Final

from xloud_image.errors import (
    BlobError,
    ImageServiceError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.kit.sentences import no_data, was_discarded
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.location import Address

_KEYS: Final = frozenset({"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "AuthFailure", "ExpiredToken"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull"})
_REGION: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
# the server itself says that trying again helps; the digests: damaged on the way
_AGAIN: Final = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "OperationAborted", "XAmzContentSHA256Mismatch"}
    | {"BadDigest", "IncompleteBody", "InternalError", "ServiceUnavailable", "ThrottlingException", "Throttling"}
    | {"TooManyRequests", "RequestLimitExceeded", "ConditionalRequestConflict"}
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


class Busy(StoreUnavailable):
    """It answered, and asking again may help."""


def refusal(address: Address, answer: Answer, *, writing: bool) -> ImageServiceError:
    """`writing`: what was asked changes something."""
    code = answer.code
    denied: type[ImageServiceError] = WriteDenied if writing else StoreRefused
    if code == "NoSuchUpload":
        return was_discarded()
    if code == "NoSuchBucket":
        return denied(f"there is no bucket {address.bucket}: {_cure(address)}")
    if code == "InvalidBucketName":
        return denied(
            f"its server takes no bucket of the name {address.bucket}: see s3_store_bucket (3 to 63 of a-z, "
            "0-9, '-' and '.')"
        )
    if code in _FULL or answer.status == 507:
        return StoreFull(f"it is full, or its quota is used up ({code or answer.status})")
    if code == "EntityTooLarge":
        return StoreFull("the server does not take objects of this size")
    if answer.status == 413:
        return denied(
            "what stands in front of its server takes no body as large as a part (413): raise its limit "
            "(client_max_body_size of nginx) above s3_store_large_object_chunk_size, which is at least 5 MiB"
        )
    if code == "RequestTimeTooSkewed":
        return denied(f"the clocks of this host and of {address.host} differ too much: set one of them")
    if code in _KEYS or answer.status == 401:
        return denied(f"its server refuses the keys ({code}): see s3_store_access_key, s3_store_secret_key")
    if code in _REGION or answer.status in (301, 302, 303, 307, 308):
        return denied(_region(address, answer))
    if answer.status == 403:
        return denied(
            f"its server refuses this ({code or 403}): see s3_store_access_key, s3_store_secret_key and "
            f"what they may do in the bucket {address.bucket}"
        )
    if answer.unknown:
        return denied(f"its server has not implemented what was asked ({code or 501})")
    if code in _AGAIN or answer.status in (408, 425, 429) or answer.status >= 500:
        return Busy(f"it cannot serve this now ({code or answer.status})")
    if answer.status == 404:
        return no_data()
    if answer.status == 400 and b"HTTPS" in answer.body[:4096]:
        return denied("its server speaks https there: write s3_store_host with https://")
    said = f": {answer.said[:200]}" if answer.said else ""
    return BlobError(f"its server answered {answer.status} {code}".rstrip() + said)


def _cure(address: Address) -> str:
    if address.prefix.rpartition("/")[2] == address.bucket or address.host.startswith(f"{address.bucket}."):
        return "s3_store_host has the bucket's name in it: write it without, the name stands in s3_store_bucket"
    return "make it, or set s3_store_create_bucket_on_put"


def _region(address: Address, answer: Answer) -> str:
    """The server often names it, in one of two places."""
    named = next(
        (name for name in (answer.headers.get("x-amz-bucket-region", ""), *answer.texts("Region")) if name), ""
    )
    named = named if _NAME.fullmatch(named) and named != address.region else ""
    if named:
        return (
            f"the bucket is in another region, {named}: set s3_store_region_name = {named} (now {address.region}) and "
            "give s3_store_host a host of it"
        )
    return "the bucket is in another region: see s3_store_region_name and s3_store_host"
