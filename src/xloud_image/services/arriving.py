"""What comes of an upload in several requests, on its way into parts. Whose turn it is, and what becomes of them when
all are there, is told by `uploads`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import claims, uploads
from xloud_image.db.quotas import Kind
from xloud_image.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Gone,
    ImageServiceError,
    TooLarge,
    Unavailable,
    Unverified,
    WrongLength,
)
from xloud_image.failpoints import reach
from xloud_image.fetching.checksums import Expected
from xloud_image.identity.context import Context
from xloud_image.inspection import Inspection
from xloud_image.model import Claim, Image, Part, Upload
from xloud_image.services import data, deletions, formats, quotas, staging
from xloud_image.services.ingest import Target, ingest
from xloud_image.services.parts import waiting_place
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Store
from xloud_image.streams.digest import Checked, Digest
from xloud_image.streams.stages import Stage, through

SMALLEST: Final = 8 << 20  # bytes of a part; what a process that is killed loses at most …
SHARE: Final = 128  # … and of a large upload this share of what has come …
LARGEST: Final = 4 << 30  # … or so much
PARTS: Final = 4000  # parts of an upload: a terabyte that is sent at once has a thousand
_TOO_LONG: Final = "This took too long to come back from a stop; ask for the offset and go on."


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What one request brings. length: its bytes, None unknown; last: nothing comes after it. size: the bytes of all,
    as far as the request says. content: the digest that this piece must have; whole: the one that all data must have.
    """

    source: AsyncIterator[bytes]
    length: int | None
    last: bool
    size: int | None = None
    content: Expected | None = None
    whole: Expected | None = None


def quota_kind(kind: str) -> Kind:
    """Which bytes of a project an upload of this kind takes."""
    return "size" if kind == "file" else "stage"


class Never(Exception):
    """This upload can never become the data of an image: it is to be ended with this error."""

    def __init__(self, error: ImageServiceError) -> None:
        super().__init__(error.message)
        self.error = error


async def take_in(
    runtime: Runtime, ctx: Context, image: Image, upload: Upload, piece: Piece, quota: quotas.Quota | None
) -> Upload:
    """What comes becomes parts; the upload after the last one. What broke off is kept as far as it came."""
    store = staging.store_of(runtime) if upload.kind == "stage" else waiting_place(runtime)
    if store is None:
        raise Unavailable("There is no store for data that waits now.")
    came = _Came(piece.source, keep=piece.content is None)
    stages: list[Stage] = [_Ahead(upload, runtime.settings.limits.image_size_cap)]
    if upload.kind == "file" and upload.received == 0:
        stages.append(_Judged(formats.inspection(runtime, image)))
    if piece.content is not None:
        digest = Digest([piece.content.algorithm], runtime.digest_pool)
        stages += [digest, Checked(digest, [piece.content])]
    async with contextlib.aclosing(came()) as source:
        stream = through(source, stages)
        chunk = await anext(stream, None)
        while chunk is not None:
            if upload.parts >= PARTS:
                raise TooLarge(f"The upload has {PARTS} parts already: cancel it, and send larger pieces.")
            cut = _Cut(chunk, stream, None if piece.content else min(max(SMALLEST, upload.received // SHARE), LARGEST))
            part = await _store(runtime, ctx, upload, store, cut, quota)
            upload = dataclasses.replace(upload, received=upload.received + part.size, parts=upload.parts + 1)
            chunk = cut.following
    if came.broke is not None:
        raise came.broke
    return upload


class _Came:
    """What the client sends, to its end or to where it broke: then `broke` says why, and what came is kept."""

    def __init__(self, source: AsyncIterator[bytes], *, keep: bool) -> None:
        self._source, self._keep = source, keep
        self.broke: Exception | None = None

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._source:
                yield chunk
        except Exception as error:
            if not self._keep:
                raise
            self.broke = error


class _Ahead:
    """A stage: no more than was announced, and than an image may have."""

    def __init__(self, upload: Upload, cap: int) -> None:
        self._at, self._size, self._cap = upload.received, upload.size, cap

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            self._at += len(chunk)
            if self._at > self._cap:
                raise Never(
                    TooLarge(f"The data is larger than {self._cap} bytes, the most that an image may have here.")
                )
            if self._size is not None and self._at > self._size:
                raise Never(WrongLength(f"More data came than the {self._size} bytes announced."))
            yield chunk


class _Judged:
    """A stage: what the first bytes tell is told before the rest comes. All of it is judged at the end."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            if not self._inspection.decided:
                self._inspection.eat(chunk)
            yield chunk


class _Cut:
    """The next part of a stream whose first chunk is known: as many chunks as make `least` bytes, None all.
    `following`: the first chunk behind it, None at the end."""

    def __init__(self, first: bytes, stream: AsyncIterator[bytes], least: int | None) -> None:
        self._first, self._stream, self._least = first, stream, least
        self.following: bytes | None = None

    async def __call__(self) -> AsyncIterator[bytes]:
        chunk: bytes | None = self._first
        size = 0
        while chunk is not None and (self._least is None or size < self._least):
            size += len(chunk)
            yield chunk
            chunk = await anext(self._stream, None)
        self.following = chunk


async def _store(
    runtime: Runtime, ctx: Context, upload: Upload, store: Store, cut: _Cut, quota: quotas.Quota | None
) -> Part:
    """One part, durable. `Conflict`: another request goes on with the upload, or it was cancelled."""
    claim = deletions.new_claim(runtime, "part", upload.image_id, store.name)
    claim = dataclasses.replace(claim, url=f"{upload.image_id}-{uuid.UUID(claim.id).hex}")
    # announced data was admitted when its size was known; other data has room before it comes, until the claim ends
    room = quotas.Room(runtime, quota if upload.size is None else None, quota_kind(upload.kind), None)

    async def begin(conn: AsyncConnection) -> None:
        await room.admit(conn)
        await claims.begin(conn, claim, lease=runtime.settings.lease_time)
        await room.take(conn, claim)

    await runtime.db.write(begin)
    room.holds(claim)
    target = Target(store, claim.key, deletions.caller(ctx))
    with runtime.holding(claim):
        try:
            await reach("part.claimed")
            blob = (await ingest(cut(), [target], room.stages, size=None))[store.name]
            await reach("part.written")
            part = Part(upload.received, blob.size, store.name, blob.url)
            await runtime.db.write(lambda conn: _keep(runtime, conn, upload, claim, part))
        except BaseException as error:
            mine = None if isinstance(target.error, AlreadyExists) else store
            await asyncio.shield(runtime.spawn(data.put_back(runtime, ctx, claim, mine, None), "put back a part"))
            if isinstance(error, Unverified):
                raise BadRequest(f"The content is not what its digest says: {error.message}.") from error
            if isinstance(error, Gone):  # its key was discarded under it, because it stood still for too long
                raise Unavailable(_TOO_LONG) from error
            raise
    await reach("part.kept")
    return part


async def _keep(runtime: Runtime, conn: AsyncConnection, upload: Upload, claim: Claim, part: Part) -> None:
    if not await uploads.append(conn, upload, part):
        raise Conflict("Another request has gone on with this upload, or it was cancelled; ask for the offset.")
    if not await claims.end(conn, claim.id, holder=runtime.holder):
        raise Unavailable(_TOO_LONG)
