"""What a bucket says of itself: the unfinished multipart uploads of one key, which are found by the key alone and
removed, and its first objects. Nothing is uploaded here."""

from __future__ import annotations

from typing import Final

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.bucket.client import Client
from xloud_image.stores.bucket.known import Lack

# what marks the small object that claims a key until the data is there, and its size in bytes
CLAIM: Final = "x-amz-meta-xloud-claim"
CLAIM_SIZE: Final = 32
MARK: Final = "x-amz-meta-xloud-write"  # who wrote an object: the token of the write


async def unfinished(client: Client, key: str, *, page: int = 1000) -> list[str]:
    """The ids of all uploads of exactly this key, whoever began them, asked for by `page`. None in a bucket that is
    missing, and on a server that cannot list them (`Lack.LISTING`)."""
    found: list[str] = []
    query = {"uploads": "", "prefix": key, "max-uploads": str(page)}
    while True:
        answer = await client.surely("GET", "", query)
        if answer.code == "NoSuchBucket":
            return found
        if answer.misunderstood or answer.missing or answer.is_a("ListBucketResult"):
            client.known.learn(Lack.LISTING)  # it says so, or does not know what "uploads" means
            return found
        if not answer.good:
            raise client.refusal(answer, writing=True)
        if not answer.is_a("ListMultipartUploadsResult"):
            raise StoreUnavailable(f"store {client.name}: its server's list of unfinished uploads cannot be understood")
        names, ids = answer.texts("Upload", "Key"), answer.texts("Upload", "UploadId")
        found += [upload for name, upload in zip(names, ids, strict=True) if name == key]
        markers = (*answer.texts("NextKeyMarker"), *answer.texts("NextUploadIdMarker"))
        # names come in order, and those that only begin with the key come after it
        if answer.texts("IsTruncated") != ["true"] or len(markers) != 2 or markers[0] > key:
            return found
        if markers == (query.get("key-marker"), query.get("upload-id-marker")):
            return found  # a server that does not go on
        query |= {"key-marker": markers[0], "upload-id-marker": markers[1]}


async def abort(client: Client, key: str, upload: str) -> None:
    """Remove an upload and its parts; one that is gone already is as good."""
    answer = await client.surely("DELETE", key, {"uploadId": upload})
    if not answer.good and not answer.missing:
        raise client.refusal(answer, writing=True)


async def abort_all(client: Client, key: str) -> int:
    """Remove all uploads of a key; how many there were."""
    uploads = await unfinished(client, key)
    for upload in uploads:
        await abort(client, key, upload)
    return len(uploads)


async def first_objects(client: Client, limit: int) -> list[str]:
    """The first `limit` finished objects at the top of the bucket, in its order. A bucket that is missing has none."""
    found: list[str] = []
    query = {"list-type": "2", "delimiter": "/"}
    while len(found) < limit:
        answer = await client.surely("GET", "", {**query, "max-keys": str(min(limit - len(found), 1000))})
        if answer.code == "NoSuchBucket":
            break
        if not answer.good:
            raise client.refusal(answer)
        if not answer.is_a("ListBucketResult"):
            raise StoreUnavailable(f"store {client.name}: its server's list of objects cannot be understood")
        for name, size in zip(answer.texts("Contents", "Key"), answer.texts("Contents", "Size"), strict=True):
            if size != str(CLAIM_SIZE) or CLAIM not in (await client.head(name)).headers:
                found.append(name)
        more = answer.texts("NextContinuationToken")
        if answer.texts("IsTruncated") != ["true"] or not more or more[0] == query.get("continuation-token"):
            break
        query["continuation-token"] = more[0]
    return found
