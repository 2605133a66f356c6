"""What a bucket says of itself: the unfinished multipart uploads of one key, which are found by the key alone and
removed, and its first objects. Nothing is uploaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.capabilities import Lack
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.errors import Busy

# what marks the small object that claims a key until the data is there, and its size in bytes
CLAIM: Final = "x-amz-meta-xloud-claim"
CLAIM_SIZE: Final = 32
MARK: Final = "x-amz-meta-xloud-write"  # who wrote an object: the token of the write


async def _listed(client: Client, query: Mapping[str, str], kind: str) -> Answer:
    """An answer of the bucket. A list that is cut off is no shorter list: it is asked for again."""

    async def once() -> Answer:
        answer = await client.ask("GET", "", query)
        if not answer.good and isinstance(error := client.refusal(answer), Busy):
            raise error
        if answer.good and not answer.is_a(kind) and not answer.is_a("ListBucketResult"):
            raise Busy(f"its server's answer cannot be understood (no {kind})")
        return answer

    return await client.again(once)


async def _only_uploads(client: Client, query: Mapping[str, str]) -> bool:
    """After a 403: whether the keys may list the bucket's objects, and still not its unfinished uploads."""
    objects = await _listed(client, {"list-type": "2", "max-keys": "1"}, "ListBucketResult")
    return objects.good and (await _listed(client, query, "ListMultipartUploadsResult")).status == 403


async def unfinished(client: Client, key: str, *, page: int = 1000) -> list[str]:
    """The ids of all uploads of exactly this key, whoever began them, asked for by `page`. None in a bucket that is
    missing, and on a server that cannot list them, or does not let these keys (`Lack.LISTING`)."""
    found: list[str] = []
    query = {"uploads": "", "prefix": key, "max-uploads": str(page)}
    while True:
        answer = await _listed(client, query, "ListMultipartUploadsResult")
        if answer.code == "NoSuchBucket":
            return found
        if answer.misunderstood or answer.missing or answer.is_a("ListBucketResult"):
            client.known.learn(Lack.LISTING)  # it says so, or does not know what "uploads" means
            return found
        if answer.status == 403 and await _only_uploads(client, query):
            client.known.learn(Lack.LISTING)
            return found
        if not answer.good:
            raise client.refusal(answer, writing=True)
        names, ids = answer.texts("Upload", "Key"), answer.texts("Upload", "UploadId")
        found += [upload for name, upload in zip(names, ids, strict=True) if name == key]
        markers = (*answer.texts("NextKeyMarker"), *answer.texts("NextUploadIdMarker"))
        # names come in order, and those that only begin with the key come after it
        if answer.texts("IsTruncated") != ["true"] or len(markers) != 2 or markers[0] > key:
            return found
        if markers == (query.get("key-marker"), query.get("upload-id-marker")):
            return found  # a server that does not go on
        query |= {"key-marker": markers[0], "upload-id-marker": markers[1]}


async def begin(client: Client, key: str, headers: Mapping[str, str]) -> Answer:
    """Ask once for a new upload. A good answer names it (`UploadId`); `Busy` when asking again may help."""
    answer = await client.ask("POST", key, {"uploads": ""}, headers=headers)
    if not answer.good and isinstance(error := client.refusal(answer, writing=True), Busy):
        raise error
    if answer.good and len(answer.texts("UploadId")) != 1:
        raise Busy("it began an upload and did not say which")
    return answer


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
        page = {**query, "max-keys": str(min(limit - len(found), 1000))}
        answer = await _listed(client, page, "ListBucketResult")
        if answer.code == "NoSuchBucket":
            break
        if not answer.good:
            raise client.refusal(answer)
        for name, size in zip(answer.texts("Contents", "Key"), answer.texts("Contents", "Size"), strict=True):
            if size != str(CLAIM_SIZE) or CLAIM not in (await client.head(name)).headers:
                found.append(name)
        more = answer.texts("NextContinuationToken")
        if answer.texts("IsTruncated") != ["true"] or not more or more[0] == query.get("continuation-token"):
            break
        query["continuation-token"] = more[0]
    return found
