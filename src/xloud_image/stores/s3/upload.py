"""One write of one key: a claim first, then one PUT or an upload in parts; all or nothing. One object for each write.

How one key gets one writer, and how a discard stops it, with what S3 has:

1. The claim: a small object under the key itself; one of several writers succeeds (`claim`).
2. Small data replaces the claim by a PUT with `If-Match: <ETag of the claim>`: it fails when the claim is gone.
   Anything else is a multipart upload, begun after the claim; then the claim is looked at once more. A discard removes
   the object before it looks for uploads, so one of the two sees the other. Completing a removed upload fails.
3. After a failure the upload is aborted, and the object removed if it is ours. Killed processes leave their claim and
   their upload; both are found by the key alone.

Not every server has all of this. What it lacks is found on the way (`capabilities`) and done without: the claim is
always looked at before it is replaced. What comes after the data is whole and there never undoes it.

Memory: the parts that are not confirmed (`Plan.window`), and the one being gathered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from xml.sax.saxutils import escape

from xloud_image.errors import (
    BlobError,
    Gone,
    ImageServiceError,
    StoreUnavailable,
    TooLarge,
    WriteDenied,
)
from xloud_image.stores.base import finish
from xloud_image.stores.kit.chunks import Exactly, Gathered, Piece
from xloud_image.stores.kit.sentences import was_discarded
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.capabilities import APART, Lack
from xloud_image.stores.s3.claim import Claim, There
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.listing import MARK, abort, abort_all, begin
from xloud_image.stores.s3.parts import MIB, PARTS, Plan

T = TypeVar("T")

COPIED: Final = 256 * MIB  # bytes that the server copies at one request, at least …
AT_ONCE: Final = 4  # … so many of them at once …
PATIENCE: Final = 300.0  # … and seconds that one may take
_GRACE: Final = 10.0  # seconds for cleaning up after a failure
_COMPLETE: Final = (60.0, 0.05)  # seconds, and for each part: the server puts the parts together before it answers

_log = logging.getLogger(__name__)


class NoParts(WriteDenied):
    """The server takes no uploads in parts, or not now."""


class NotCopied(WriteDenied):
    """The server does not copy this object."""


class Upload:
    """`write` does all of it, once, or `copy`. `total`: bytes received, or asked for."""

    def __init__(self, client: Client, key: str, size: int | None, plan: Plan, *, create_bucket: bool) -> None:
        self._client, self._key, self._size, self._plan = client, key, size, plan
        self._claim = Claim(client, key, create_bucket=create_bucket)
        self._done: str | None = None  # the ETag of the data, once it is there
        self._begun = 0  # attempts to begin an upload in parts
        self._id = ""
        self._tags: dict[int, str] = {}
        self._count = 0
        self._parts: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._pending = 0  # parts that have not landed, and
        self._flying = 0  # their bytes
        self._landed = asyncio.Event()
        self._step: asyncio.Future[Any] | None = None
        self.total = 0

    async def write(self, source: AsyncIterator[bytes]) -> str:
        """All of `source`; the ETag of the object, or ''. After any failure nothing is left."""
        return await self._all_or_nothing(self._write(source))

    async def copy(self, origin: str) -> str:
        """The same of all bytes of another object of this server, `/bucket/key`, which are not empty. `NotCopied`."""
        return await self._all_or_nothing(self._copy(origin))

    async def _write(self, source: AsyncIterator[bytes]) -> None:
        rest = await self._receive(source)
        in_parts = bool(self._id) or not await self._uncut(self._put(rest))
        if in_parts:
            await self._send(rest)
            await self._sent()

    async def _sent(self) -> None:
        while self._pending:
            await self._wait()
        await self._uncut(self._complete())

    async def _copy(self, origin: str) -> None:
        """In parts, also what is small: no server lets a copy take the place of a claim only."""
        assert self._size
        await self._uncut(self._begin())
        part = max(COPIED, self._plan.size_of(1, self._size))
        while self.total < self._size:
            while self._pending >= AT_ONCE:
                await self._wait()
            size = min(part, self._size - self.total)
            span = f"bytes={self.total}-{self.total + size - 1}"
            self._go(self._copy_one(self._count + 1, {"x-amz-copy-source": origin, "x-amz-copy-source-range": span}))
            self.total += size
        await self._sent()

    async def _copy_one(self, number: int, headers: Mapping[str, str]) -> None:
        query = {"partNumber": str(number), "uploadId": self._id}
        answer = await self._client.again(
            lambda: self._client.ask("PUT", self._key, query, headers=headers, patience=PATIENCE)
        )
        tag = next(iter(answer.texts("ETag")), "")
        if not (answer.good and tag):
            raise NotCopied(f"it does not copy between its buckets: {answer.code or answer.status}")
        self._tags[number] = tag

    async def _all_or_nothing(self, work: Coroutine[Any, Any, None]) -> str:
        try:
            await self._uncut(self._take_key())
            await work
            if self._begun > 1:  # an upload that was begun although its answer was lost
                await self._uncut(self._tidy())
        except BaseException:
            work.close()
            await finish(self._undo())
            raise
        assert self._done is not None
        return self._done

    async def _uncut(self, step: Coroutine[Any, Any, T]) -> T:
        """A step that goes on when we are cancelled: to undo it, we must know what it did at the server."""
        self._step = task = asyncio.ensure_future(step)
        return await asyncio.shield(task)

    async def _take_key(self) -> None:
        if self._client.known.lacks(Lack.PARTS) and self._size is not None and self._size > self._plan.part:
            raise self._no_parts()
        await self._claim.take()

    # the bytes

    async def _receive(self, source: AsyncIterator[bytes]) -> list[Piece]:
        """Send every full part but the last; the rest, at most one part. The source's errors pass through."""
        gathered = Gathered(self._plan.part)
        full = self._plan.size_of(1, self._size)
        async for chunk in Exactly(source, self._size):
            self.total += len(chunk)
            gathered.add(chunk)
            while gathered.held > full:
                await self._send(gathered.take(full))
                full = self._plan.size_of(self._count + 1, self._size)
            self._look_at_failure()
        return gathered.take(full)

    async def _send(self, part: list[Piece]) -> None:
        """Begin to send a part when there is room for it in flight."""
        if not self._id:
            await self._uncut(self._begin())
        size = sum(map(len, part))
        while self._flying and self._flying + size > self._plan.window(size):
            await self._wait()
        if self._count >= PARTS:
            raise TooLarge("the data is too large to be stored without its size announced")
        self._go(self._send_one(self._count + 1, part), size)

    def _go(self, part: Coroutine[Any, Any, None], size: int = 0) -> None:
        """Begin with the next part, of `size` bytes that are held."""
        self._count += 1
        self._pending += 1
        self._flying += size
        task = asyncio.ensure_future(self._landing(part, size))
        self._parts.add(task)
        task.add_done_callback(self._parts.discard)

    async def _landing(self, part: Coroutine[Any, Any, None], size: int) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001 - raised where the writer looks
            self._failure = self._failure or (await self._why(error) if isinstance(error, Gone) else error)
        finally:
            self._pending -= 1
            self._flying -= size
            self._landed.set()

    async def _wait(self) -> None:
        """Until one more part has landed; a failed one is raised."""
        self._landed.clear()
        self._look_at_failure()
        await self._landed.wait()
        self._look_at_failure()

    def _look_at_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _begin(self) -> None:
        async def once() -> Answer:
            self._begun += 1
            return await begin(self._client, self._key, {MARK: self._claim.token})

        if self._client.known.lacks(Lack.PARTS):
            raise self._no_parts()
        answer = await self._client.again(once)
        if answer.misunderstood:  # by something in between, perhaps, and once
            self._client.known.refused(Lack.PARTS, answer)
            self._begun -= 1
            await asyncio.sleep(APART)
            answer = await self._client.again(once)
        if answer.misunderstood:
            self._begun = 0
            self._client.known.refused(Lack.PARTS, answer)
            raise self._no_parts()
        if not answer.good:
            raise self._client.refusal(answer, writing=True)
        self._client.known.has(Lack.PARTS)
        self._id = answer.texts("UploadId")[0]
        if not (await self._claim.look()).mine:
            raise was_discarded()

    def _no_parts(self) -> NoParts:
        return NoParts(
            "its server takes no uploads in parts, so an image may have at most "
            f"{self._plan.part // MIB} MiB here (s3_store_large_object_chunk_size, all of it held in memory)"
        )

    async def _send_one(self, number: int, part: Sequence[Piece]) -> None:
        query = {"partNumber": str(number), "uploadId": self._id}

        async def once() -> Answer:
            answer = await self._client.ask("PUT", self._key, query, body=part, patience=2 * self._client.patience)
            if not answer.good:
                raise self._client.refusal(answer, writing=True)
            return answer

        self._tags[number] = (await self._client.again(once, hung=1)).tag

    # the end

    async def _put(self, pieces: list[Piece]) -> bool:
        """All the data, at most a part, in place of the claim, if that is still there. False: it has to go in parts,
        and an upload was begun."""
        known = self._client.known
        refused: Answer | None = None
        if self.total > self._plan.single and pieces and await self._begins():
            return False
        if self._claim.tag and not known.lacks(Lack.REPLACE):
            usual = known.quotes
            for quotes in (usual, not usual):  # some gateways compare the tag with its quotes, some without
                answer = await self._put_all(
                    pieces, {"if-match": self._claim.tag if quotes else self._claim.tag.strip('"')}
                )
                if answer.good:
                    known.quotes, self._done = quotes, answer.tag
                    known.has(Lack.REPLACE)
                    return True
                if answer.status not in (404, 409, 412) and not answer.misunderstood:
                    raise self._client.refusal(answer, writing=True)
                there = await self._claim.look()
                if not there.mine:
                    raise was_discarded()
                if not there.claim:  # an attempt whose answer was lost
                    self._done = there.answer.tag
                    return True
                refused = answer
                if answer.misunderstood:
                    break
        if pieces and not known.lacks(Lack.TAGS) and await self._begins():
            if refused is not None:
                known.refused(Lack.REPLACE, refused)
            return False
        # nothing guards it but this look
        if not (await self._claim.look()).mine:
            raise was_discarded()
        answer = await self._put_all(pieces, {})
        if not answer.good:
            raise self._client.refusal(answer, writing=True)
        if refused is not None:
            known.refused(Lack.REPLACE, refused)
        self._done = answer.tag
        return True

    async def _begins(self) -> bool:
        """Begin an upload in parts; False where the server knows none."""
        try:
            await self._begin()
        except NoParts:
            return False
        return True

    async def _put_all(self, pieces: list[Piece], headers: Mapping[str, str]) -> Answer:
        headers = {**headers, MARK: self._claim.token}
        return await self._claim.asked("PUT", headers=headers, body=pieces, patience=2 * self._client.patience)

    async def _missing_tags(self) -> None:
        """The ETags of parts whose answers had none, from the server's list of them."""
        query = {"uploadId": self._id}
        while any(not tag for tag in self._tags.values()):
            answer = await self._claim.asked("GET", query)
            found = dict(zip(answer.texts("Part", "PartNumber"), answer.texts("Part", "ETag"), strict=False))
            for number, tag in self._tags.items():
                if not tag and found.get(str(number), "").strip('"'):
                    self._tags[number] = f'"{found[str(number)].removeprefix("W/").strip(chr(34))}"'
            more = answer.texts("NextPartNumberMarker")
            if answer.texts("IsTruncated") != ["true"] or not more or more[0] == query.get("part-number-marker"):
                break
            query["part-number-marker"] = more[0]
        if any(not tag for tag in self._tags.values()):
            raise WriteDenied(
                "its server, or what stands in front of it, gives no ETags to parts, and "
                "without them no upload in parts can be completed"
            )

    async def _complete(self) -> None:
        await self._missing_tags()
        if self._client.known.lacks(Lack.LISTING):
            there = await self._claim.look()  # who discards could not find the upload
            if not (there.mine and there.claim):
                raise was_discarded()
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
            for number, tag in sorted(self._tags.items())
        )
        body: list[Piece] = [f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()]
        patience = max(self._client.patience, _COMPLETE[0] + _COMPLETE[1] * len(self._tags))

        complete: str | None = None  # its ETag, as the server that said so named it

        async def once() -> str:
            nonlocal complete
            error: ImageServiceError | None = None
            try:
                answer = await self._client.ask("POST", self._key, {"uploadId": self._id}, body=body, patience=patience)
                if answer.good:
                    complete = next(iter(answer.texts("ETag")), "")
                else:
                    error = self._client.refusal(answer, writing=True)
            except StoreUnavailable as lost:
                error = lost
            # what is there decides, not the answer: it may be lost, or that of a second attempt
            try:
                there = await self._claim.look_long()
            except ImageServiceError as blind:
                if complete is None:
                    raise
                _log.warning(
                    "store %s: %s is complete and was not seen: %s", self._client.name, self._key, blind.message
                )
                return complete
            whole = not there.claim and there.answer.size in (self.total, None)
            if there.mine and whole:
                return there.answer.tag
            if complete is not None and there.answer.good and whole and MARK not in there.answer.headers:
                self._client.known.learn(Lack.METADATA)  # of uploads in parts
                return there.answer.tag
            raise await self._why_not(there, error)

        self._done = await self._client.again(once)

    async def _why(self, error: ImageServiceError) -> ImageServiceError:
        """Why the upload is gone, as far as what is there tells."""
        try:
            return await self._why_not(await self._claim.look(), error)
        except ImageServiceError as second:
            return second

    async def _why_not(self, there: There, error: ImageServiceError | None) -> ImageServiceError:
        """Why the data is not there after the upload should have been completed; `error`: what the server said."""
        if not there.mine:
            return was_discarded()
        if not there.claim:
            return BlobError(f"it made {there.answer.size} bytes out of {self.total}")
        if error is None:
            return StoreUnavailable("it says that the upload is complete, and its data is not there")
        if isinstance(error, Gone) or (await self._claim.asked("GET", {"uploadId": self._id})).missing:
            return WriteDenied(
                "its server forgot the upload before it was complete: see what else "
                f"removes unfinished uploads from the bucket {self._client.address.bucket}"
            )
        return error

    async def _tidy(self) -> None:
        """After the data is there: what an attempt whose answer was lost may have begun. It holds no bytes."""
        try:
            async with asyncio.timeout(_GRACE):
                await abort_all(self._client, self._key)
        except (TimeoutError, ImageServiceError) as error:
            _log.warning(
                "store %s: an unfinished upload of %s may stay: %s", self._client.name, self._key, _reason(error)
            )

    async def _undo(self) -> None:
        """Nothing of ours stays. What cannot be removed now is found by `discard`."""
        for task in self._parts:
            task.cancel()
        try:
            async with asyncio.timeout(_GRACE):
                await asyncio.gather(*self._parts, return_exceptions=True)
                if self._step is not None:
                    await asyncio.wait((self._step,))
                    self._step.exception()
                if not self._claim.touched:
                    return
                if self._id:
                    await abort(self._client, self._key, self._id)
                if self._begun > 1 or (self._begun and not self._id):
                    await abort_all(self._client, self._key)
                there = await self._claim.look()
                # others may have written since: without metadata, data is only ours when it is what we put
                ours = there.claim or MARK in there.answer.headers or (self._done and there.answer.tag == self._done)
                if there.mine and ours:
                    await self._claim.asked("DELETE")
        except (TimeoutError, ImageServiceError) as error:
            _log.warning("store %s: parts of %s stay for now: %s", self._client.name, self._key, _reason(error))


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, ImageServiceError) else "no answer in time"
