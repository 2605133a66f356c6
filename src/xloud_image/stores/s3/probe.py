"""Looking at the server behind a bucket for an operator's check: what it lacks (`capabilities`), found on purpose
instead of on the way, and what would make stored images unreadable."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from xloud_image.errors import BadRange, BlobError, BlobNotFound, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.capabilities import APART, Lack
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.download import Open
from xloud_image.stores.s3.listing import CLAIM_SIZE, MARK, abort_all, begin, first_objects, unfinished

_ABSENT: Final = "xloud-image-check-"  # and a random end: no object of this name


async def examine(client: Client, key: str | None) -> list[str]:
    """Reads only; with `key`, which must be free, writes small objects under it and removes them. What the server
    lacks, and which rights are missing, a sentence each. Raises what keeps images from being stored or read."""
    notes = await _read(client)
    if key is not None:
        await _objects(client, key)
        await _aborts(client, key)
        await _remove(client, key)
    return [lack.value for lack in client.known.lacking] + notes


async def _read(client: Client) -> list[str]:
    """Read an object that lies in the bucket, else one that cannot; notes."""
    notes: list[str] = []
    if (await client.surely("HEAD", lost=True)).missing:
        return notes  # `check` says what that means
    try:
        names = await first_objects(client, 1)
    except (BlobError, StoreRefused) as error:
        notes.append(f"what lies in the bucket cannot be listed: {error.message}")
        return notes  # without that right, what is missing is refused like what is forbidden
    name = names[0] if names else _ABSENT + secrets.token_hex(8)

    with contextlib.suppress(BlobNotFound, BadRange):
        await _ranges(client, name)
    try:
        await unfinished(client, name)
    except WriteDenied as error:
        notes.append(f"what killed uploads leave cannot be found: {error.message}")
    return notes


async def _ranges(client: Client, name: str) -> None:
    """Read a byte; twice when ranges seem to be lacking. `BlobNotFound`, `BadRange`, and why it cannot be."""

    async def byte() -> None:
        async with contextlib.aclosing(Open(client, name, 1, 2, "")) as window:
            await window.begin()
            await window.next()

    with contextlib.suppress(BadRange):
        await client.again(byte)
    if client.known.doubted(Lack.RANGES):
        await asyncio.sleep(APART)
        await client.again(byte)


async def _objects(client: Client, key: str) -> None:
    """What is kept of an object, and whether the conditions of a write are obeyed."""
    data, mark = secrets.token_bytes(CLAIM_SIZE + 1), secrets.token_hex(8)

    async def put(headers: Mapping[str, str]) -> Answer:
        return await client.surely("PUT", key, headers={MARK: mark, **headers}, body=[data], lost=True)

    answer = await put({})
    if not answer.good:
        raise client.refusal(answer, writing=True)
    there = await client.head(key, writing=True)
    if there.missing:
        raise StoreUnavailable("what was just written to it is not there")
    if there.headers.get(MARK) != mark:
        client.known.learn(Lack.METADATA)
    if not there.tag:
        client.known.learn(Lack.TAGS)
    await _ranges(client, key)
    await conditions(client, put)
    if client.known.doubted(Lack.CREATE) or client.known.doubted(Lack.REPLACE):
        await asyncio.sleep(APART)
        await conditions(client, put)


async def conditions(client: Client, put: Callable[[Mapping[str, str]], Awaitable[Answer]]) -> Answer | None:
    """Whether the server obeys If-None-Match and If-Match, by `put` of an object that is there with these headers,
    which must be refused. The answer to the last one that was not, if any."""
    done = None
    for lack, headers in ((Lack.CREATE, {"if-none-match": "*"}), (Lack.REPLACE, {"if-match": f'"{"0" * 32}"'})):
        if client.known.lacks(lack):
            continue
        answer = await put(headers)
        if answer.good:
            client.known.learn(lack)
            done = answer
        elif answer.misunderstood:
            client.known.refused(lack, answer)
        elif answer.status not in (404, 409, 412):
            raise client.refusal(answer, writing=True)
        else:
            client.known.has(lack)
    return done


async def _aborts(client: Client, key: str) -> None:
    """Whether an upload in parts is found by its key, and cannot go on once it was aborted."""
    begun = await client.again(lambda: begin(client, key, {}))
    if begun.misunderstood:
        client.known.refused(Lack.PARTS, begun)
        await asyncio.sleep(APART)
        begun = await client.again(lambda: begin(client, key, {}))
    if begun.misunderstood:
        client.known.refused(Lack.PARTS, begun)
        return
    ids = begun.texts("UploadId")
    if not begun.good:
        raise client.refusal(begun, writing=True)
    if ids[0] not in await unfinished(client, key):
        client.known.learn(Lack.LISTING)
    query = {"uploadId": ids[0]}
    await client.surely("DELETE", key, query, lost=True)
    try:
        late = await client.ask("PUT", key, {"partNumber": "1", **query}, body=[b"late"])
    except StoreUnavailable:
        return  # it did not take it, as it should
    if late.good:
        client.known.learn(Lack.ABORTS)
        await client.surely("DELETE", key, query, lost=True)


async def _remove(client: Client, key: str) -> None:
    await abort_all(client, key)
    gone = await client.surely("DELETE", key, lost=True)
    if not gone.good and not gone.missing:
        raise client.refusal(gone, writing=True)
