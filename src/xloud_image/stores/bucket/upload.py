"""One write of one key: a claim first, then one PUT or an upload in parts; all or nothing. One object for each write.

How one key gets one writer, and how a discard stops it, with what every S3 server has:

1. The claim: a small object under the key itself, put with `If-None-Match: *`; one of several writers succeeds. It
   carries our token in its metadata, as the finished object will.
2. Small data replaces the claim by a PUT with `If-Match: <ETag of the claim>`: it fails when the claim is gone.
   Anything else is a multipart upload, begun after the claim; then the claim is looked at once more. A discard removes
   the object before it looks for uploads, so one of the two sees the other. Completing a removed upload fails.
3. After a failure the upload is aborted, and the object removed if it carries our token. Killed processes leave their
   claim and their upload; both are found by the key alone.

A server that ignores the conditions is still asked for the key before (HEAD): then two writers of one key at the very
same moment are not told apart, and the service makes no such two.

Memory: the parts that are not confirmed (`Plan.window`), and the one being gathered.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final, TypeVar

from xloud_image.errors import AlreadyExists, BadRequest, Gone, ImageServiceError, StoreUnavailable, TooLarge
from xloud_image.stores.base import finish
from xloud_image.stores.bucket.client import Answer, Client
from xloud_image.stores.bucket.plan import PARTS, Gathered, Piece, Plan
from xloud_image.stores.bucket.uploads import CLAIM, CLAIM_SIZE, abort, abort_all

T = TypeVar("T")

MARK: Final = "x-amz-meta-xloud-write"
_GRACE: Final = 10.0  # seconds for cleaning up after a failure
_COMPLETE: Final = (60.0, 0.05)  # seconds, and for each part: the server puts the parts together before it answers

_log = logging.getLogger(__name__)


class Upload:
    """`write` does all of it, once. `total`: bytes received."""

    def __init__(self, client: Client, key: str, size: int | None, plan: Plan, *, create_bucket: bool) -> None:
        self._client, self._key, self._size, self._plan = client, key, size, plan
        self._create_bucket = create_bucket
        self._token = secrets.token_hex(CLAIM_SIZE // 2)
        self._claim = ""  # its ETag
        self._touched = False  # whether anything may be there that is ours
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
        """All of `source`; the ETag of the object. After any failure nothing is left."""
        try:
            await self._uncut(self._take_key())
            rest = await self._receive(source)
            if not self._id and self.total <= self._plan.single:
                return await self._uncut(self._put(rest))
            await self._send(rest)
            while self._pending:
                await self._wait()
            return await self._uncut(self._complete())
        except BaseException:
            await finish(self._undo())
            raise

    async def _uncut(self, step: Coroutine[Any, Any, T]) -> T:
        """A step that goes on when we are cancelled: to undo it, we must know what it did at the server."""
        self._step = task = asyncio.ensure_future(step)
        return await asyncio.shield(task)

    # the key

    async def _take_key(self) -> None:
        found = await self._look()
        if found.good:
            raise self._taken()
        if found.status != 404:
            raise self._client.refusal(found, writing=True)
        self._touched = True
        headers = {"if-none-match": "*", CLAIM: self._token, MARK: self._token}
        answer = await self._asked("PUT", headers=headers, body=[self._token.encode()])
        if answer.code == "NoSuchBucket" and self._create_bucket:
            await self._make_bucket()
            answer = await self._asked("PUT", headers=headers, body=[self._token.encode()])
        if answer.status in (409, 412):
            answer = await self._look()  # it may be ours, put by an attempt whose answer was lost
            if answer.headers.get(MARK) != self._token:
                self._touched = False
                raise self._taken()
        if not answer.good:
            raise self._client.refusal(answer, writing=True)
        self._claim = answer.headers.get("etag", "")

    def _taken(self) -> AlreadyExists:
        return AlreadyExists(f"store {self._client.name} has data under this key already")

    async def _look(self) -> Answer:
        return await self._asked("HEAD")

    async def _asked(
        self, method: str, query: dict[str, str] | None = None, *, key: str | None = None, **how: Any
    ) -> Answer:
        """An answer about our key; asked again while the server says that this may help."""

        async def once() -> Answer:
            answer = await self._client.ask(method, self._key if key is None else key, query, **how)
            if not answer.good and self._client.refusal(answer, writing=True).temporary:
                raise self._client.refusal(answer, writing=True)
            return answer

        return await self._client.again(once)

    async def _make_bucket(self) -> None:
        region, body = self._client.address.region, list[Piece]()
        if region != "us-east-1" and self._client.address.host.endswith(".amazonaws.com"):
            where = f"<LocationConstraint>{region}</LocationConstraint>"
            body = [f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode()]
        answer = await self._asked("PUT", key="", body=body)
        if not answer.good and answer.code != "BucketAlreadyOwnedByYou":
            raise self._client.refusal(answer, writing=True)
        _log.info("store %s: made the bucket %s", self._client.name, self._client.address.bucket)

    # the bytes

    async def _receive(self, source: AsyncIterator[bytes]) -> list[Piece]:
        """Send every full part but the last; the rest, at most one part. The source's errors pass through."""
        gathered = Gathered()
        full = self._plan.size_of(1, self._size)
        async for chunk in source:
            self.total += len(chunk)
            if self._size is not None and self.total > self._size:
                raise BadRequest(f"more data came than the {self._size} bytes announced")
            gathered.add(chunk)
            while gathered.held > full:
                await self._send(gathered.take(full))
                full = self._plan.size_of(self._count + 1, self._size)
            self._look_at_failure()
        if self._size is not None and self.total != self._size:
            raise BadRequest(f"{self.total} bytes came, {self._size} were announced")
        return gathered.take(full)

    async def _send(self, part: list[Piece]) -> None:
        """Begin to send a part when there is room for it in flight."""
        if not self._id:
            await self._uncut(self._begin())
        size = sum(map(len, part))
        while self._flying and self._flying + size > self._plan.window(size):
            await self._wait()
        self._count += 1
        if self._count > PARTS:
            raise TooLarge(f"store {self._client.name}: the data is too large to be stored without its size announced")
        self._pending += 1
        self._flying += size
        task = asyncio.ensure_future(self._send_one(self._count, part, size))
        self._parts.add(task)
        task.add_done_callback(self._parts.discard)

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
            return await self._client.ask("POST", self._key, {"uploads": ""}, headers={MARK: self._token})

        async def well() -> Answer:
            answer = await once()
            if not answer.good:
                raise self._client.refusal(answer, writing=True)
            return answer

        ids = (await self._client.again(well)).texts("UploadId")
        if len(ids) != 1:
            raise StoreUnavailable(f"store {self._client.name} began an upload and did not say which")
        self._id = ids[0]
        if (await self._look()).headers.get(MARK) != self._token:
            raise self._discarded()

    def _discarded(self) -> Gone:
        return Gone(f"store {self._client.name}: the data was discarded while it was being written")

    async def _send_one(self, number: int, part: Sequence[Piece], size: int) -> None:
        query = {"partNumber": str(number), "uploadId": self._id}

        async def once() -> Answer:
            answer = await self._client.ask("PUT", self._key, query, body=part, patience=2 * self._client.patience)
            if not answer.good:
                raise self._client.refusal(answer, writing=True)
            return answer

        try:
            self._tags[number] = (await self._client.again(once, hung=1)).headers.get("etag", "")
        except Exception as error:  # noqa: BLE001 - raised where the writer looks
            self._failure = self._failure or error
        finally:
            self._pending -= 1
            self._flying -= size
            self._landed.set()

    # the end

    async def _put(self, pieces: list[Piece]) -> str:
        """The data in place of the claim, if that is still there."""
        usual = self._client.quotes
        for quotes in (usual, not usual):  # some gateways compare the tag with its quotes, some without
            tag = self._claim if quotes else self._claim.strip('"')
            headers = {"if-match": tag, MARK: self._token}
            answer = await self._asked("PUT", headers=headers, body=pieces, patience=2 * self._client.patience)
            if answer.good:
                self._client.quotes = quotes
                return answer.headers.get("etag", "")
            if answer.status not in (404, 409, 412):
                break
            there = await self._look()
            if there.headers.get(MARK) != self._token:
                raise self._discarded()
            if CLAIM not in there.headers:  # an attempt whose answer was lost
                return there.headers.get("etag", "")
        raise self._client.refusal(answer, writing=True)

    async def _complete(self) -> str:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in sorted(self._tags.items())
        )
        body: list[Piece] = [f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()]
        patience = max(self._client.patience, _COMPLETE[0] + _COMPLETE[1] * len(self._tags))

        async def once() -> str:
            error: ImageServiceError | None = None
            try:
                answer = await self._client.ask("POST", self._key, {"uploadId": self._id}, body=body, patience=patience)
                if not answer.good:
                    error = self._client.refusal(answer, writing=True)
            except StoreUnavailable as lost:
                error = lost
            # what is there decides, not the answer: it may be lost, or that of a second attempt
            there = await self._client.ask("HEAD", self._key)
            mine = there.headers.get(MARK) == self._token and CLAIM not in there.headers
            if there.good and mine and there.headers.get("content-length") == str(self.total):
                return there.headers.get("etag", "")
            if error is None or (await self._client.ask("GET", self._key, {"uploadId": self._id})).status == 404:
                error = self._discarded()
            raise error

        tag = await self._client.again(once)
        if self._begun > 1:  # an upload that was begun although its answer was lost
            await abort_all(self._client, self._key)
        return tag

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
                if not self._touched:
                    return
                if self._id:
                    await abort(self._client, self._key, self._id)
                if self._begun > 1 or (self._begun and not self._id):
                    await abort_all(self._client, self._key)
                if (await self._look()).headers.get(MARK) == self._token:
                    await self._asked("DELETE")
        except (TimeoutError, ImageServiceError) as error:
            reason = error.message if isinstance(error, ImageServiceError) else "no answer in time"
            _log.warning("store %s: parts of %s stay for now: %s", self._client.name, self._key, reason)
