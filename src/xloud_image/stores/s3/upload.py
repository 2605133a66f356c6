"""One write of one key: a claim first, then one PUT or an upload in parts; all or nothing. One object for each write.

How one key gets one writer, and how a discard stops it, with what S3 has:

1. The claim: a small object under the key itself, put with `If-None-Match: *`; one of several writers succeeds. It
   is our token, which also stands in its metadata, and in that of the finished object.
2. Small data replaces the claim by a PUT with `If-Match: <ETag of the claim>`: it fails when the claim is gone.
   Anything else is a multipart upload, begun after the claim; then the claim is looked at once more. A discard removes
   the object before it looks for uploads, so one of the two sees the other. Completing a removed upload fails.
3. After a failure the upload is aborted, and the object removed if it is ours. Killed processes leave their claim and
   their upload; both are found by the key alone.

Not every server has all of this. What it lacks is found on the way (`capabilities`) and done without: the key is always
looked at before (HEAD), the claim before it is replaced. The first claim of a process is read back like an image, so
nothing is acknowledged that could not be read. What comes after the data is whole and there never undoes it.

Memory: the parts that are not confirmed (`Plan.window`), and the one being gathered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from xml.sax.saxutils import escape

from xloud_image.errors import (
    AlreadyExists,
    BadRange,
    BadRequest,
    BlobError,
    BlobNotFound,
    Gone,
    ImageServiceError,
    StoreRefused,
    StoreUnavailable,
    TooLarge,
    WriteDenied,
)
from xloud_image.stores.base import finish
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.capabilities import APART, Lack
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.download import Open
from xloud_image.stores.s3.errors import Busy
from xloud_image.stores.s3.listing import CLAIM, CLAIM_SIZE, MARK, abort, abort_all, begin, unfinished
from xloud_image.stores.s3.parts import MIB, PARTS, Gathered, Piece, Plan
from xloud_image.stores.s3.probe import conditions

T = TypeVar("T")

_GRACE: Final = 10.0  # seconds for cleaning up after a failure
_COMPLETE: Final = (60.0, 0.05)  # seconds, and for each part: the server puts the parts together before it answers
_MISSING: Final = (0.2, 0.5, 1.0, 2.0)  # seconds after which an object that should be there is looked for again
_PROBE: Final = (3, 20)  # the bytes of the first claim that are read back: first, last

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class There:
    """What lies under the key. `mine`: this write put it there; `claim`: it is a claim, not data."""

    answer: Answer
    mine: bool
    claim: bool


class NoParts(WriteDenied):
    """The server takes no uploads in parts, or not now."""


class Upload:
    """`write` does all of it, once. `total`: bytes received."""

    def __init__(self, client: Client, key: str, size: int | None, plan: Plan, *, create_bucket: bool) -> None:
        self._client, self._key, self._size, self._plan = client, key, size, plan
        self._create_bucket = create_bucket
        self._token = secrets.token_hex(CLAIM_SIZE // 2)
        self._claim = ""  # its ETag
        self._claimed = False
        self._done: str | None = None  # the ETag of the data, once it is there
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
        """All of `source`; the ETag of the object, or ''. After any failure nothing is left."""
        try:
            await self._uncut(self._take_key())
            rest = await self._receive(source)
            in_parts = bool(self._id) or not await self._uncut(self._put(rest))
            if in_parts:
                await self._send(rest)
                while self._pending:
                    await self._wait()
                await self._uncut(self._complete())
            if self._begun > 1:  # an upload that was begun although its answer was lost
                await self._uncut(self._tidy())
        except BaseException:
            await finish(self._undo())
            raise
        assert self._done is not None
        return self._done

    async def _uncut(self, step: Coroutine[Any, Any, T]) -> T:
        """A step that goes on when we are cancelled: to undo it, we must know what it did at the server."""
        self._step = task = asyncio.ensure_future(step)
        return await asyncio.shield(task)

    # the key

    async def _take_key(self) -> None:
        known = self._client.known
        if known.lacks(Lack.PARTS) and self._size is not None and self._size > self._plan.part:
            raise self._no_parts()
        if (await self._head()).good:
            raise self._taken()
        self._touched = True
        answer = await self._put_claim()
        if answer.code == "NoSuchBucket" and self._create_bucket:
            await self._make_bucket()
            answer = await self._put_claim()
        if not answer.good:
            raise self._client.refusal(answer, writing=True)
        self._claim, self._claimed = answer.tag, True
        if not known.met:
            await self._meet()

    async def _put_claim(self) -> Answer:
        """The answer to the claim. `AlreadyExists` when somebody else was there first."""
        known = self._client.known
        refused: Answer | None = None
        for _ in range(0 if known.lacks(Lack.CREATE) else 2):
            answer = await self._put_claim_if({"if-none-match": "*"})
            if answer.misunderstood:
                refused = answer
                break
            if answer.status not in (409, 412):
                if answer.good:
                    known.has(Lack.CREATE)
                return answer
            there = await self._look()  # it may be ours, put by an attempt whose answer was lost
            if there.mine:
                return there.answer
            if there.answer.good:
                self._touched = False
                raise self._taken()
        plain = await self._put_claim_if({})
        if plain.good and refused is not None:
            known.refused(Lack.CREATE, refused)
        return plain

    async def _put_claim_if(self, condition: Mapping[str, str]) -> Answer:
        headers = {**condition, CLAIM: self._token, MARK: self._token}
        return await self._asked("PUT", headers=headers, body=[self._token.encode()])

    def _taken(self) -> AlreadyExists:
        return AlreadyExists(f"store {self._client.name} has data under this key already")

    async def _meet(self) -> None:
        """The first claim of this process: read it back as an image is read, and see what the server keeps of it."""
        client, known = self._client, self._client.known
        there = await self._look()
        if not there.mine:
            raise self._discarded() if there.answer.missing else self._taken()
        if there.answer.headers.get(MARK) != self._token:
            known.learn(Lack.METADATA)
        self._claim = self._claim or there.answer.tag
        if not self._claim:
            known.learn(Lack.TAGS)
        again = await conditions(client, self._put_claim_if)
        self._claim = again.tag or self._claim if again is not None else self._claim
        got = await client.again(self._read_back)
        if got != self._token[_PROBE[0] : _PROBE[1] + 1].encode():
            if not (await self._look()).mine:  # another writer, on a server without conditions
                raise self._taken()
            raise WriteDenied(f"store {client.name}: its server gives back other bytes than were written to it")
        try:
            listed = await client.surely("GET", "", {"max-keys": "1"})
            if not listed.missing:
                await unfinished(client, self._key)
        except StoreUnavailable as error:
            _log.warning("store %s: what its server lists was not found out: %s", client.name, error.message)
            return
        except WriteDenied as error:
            _log.warning("store %s: unfinished uploads cannot be listed: %s", client.name, error.message)
        else:
            if listed.missing:  # the key was written, so something else is asked for than the bucket
                raise client.refusal(dataclasses.replace(listed, code="NoSuchBucket"), writing=True)
        known.met = True

    async def _read_back(self) -> bytes:
        """Some bytes of the claim, by a range."""
        who = f"store {self._client.name}"
        try:
            return await self._bytes(*_PROBE)
        except (BlobNotFound, BadRange):
            raise Busy(f"{who}: what was just written to it cannot be read back") from None
        except (BlobError, StoreRefused) as error:
            raise WriteDenied(f"what is written cannot be read back: {error.message}") from error

    async def _bytes(self, first: int, last: int) -> bytes:
        """Of what is under the key if that is as long as a claim, else nothing."""
        window = Open(self._client, self._key, first, last, "")
        try:
            await window.begin()
            got = b""
            while window.size == CLAIM_SIZE and window.at <= window.last:
                got += await window.next()
            return got
        finally:
            await window.aclose()

    async def _head(self) -> Answer:
        return await self._client.head(self._key, writing=True)

    async def _look(self) -> There:
        """What lies under the key now, and whose it is. Servers that drop metadata: by its bytes if it may be a claim;
        finished data is then ours, because nobody writes a key whose claim is ours."""
        answer = await self._head()
        if answer.missing:
            return There(answer, mine=False, claim=False)
        mark = answer.headers.get(MARK)
        if mark is not None:
            return There(answer, mine=mark == self._token, claim=CLAIM in answer.headers)
        if answer.size in (CLAIM_SIZE, None):
            try:
                found = await self._client.again(lambda: self._bytes(0, CLAIM_SIZE - 1))
            except (BlobNotFound, BadRange):
                found = b""
            if found == self._token.encode():
                return There(answer, mine=True, claim=True)
        return There(answer, mine=self._claimed and self._client.known.lacks(Lack.METADATA), claim=False)

    async def _look_long(self) -> There:
        """As `_look`, where something should be: nothing is believed only after some seconds."""
        for wait in _MISSING:
            there = await self._look()
            if not there.answer.missing:
                return there
            await asyncio.sleep(wait)
        return await self._look()

    async def _asked(
        self, method: str, query: dict[str, str] | None = None, *, key: str | None = None, **how: Any
    ) -> Answer:
        """An answer about our key; asked again while that may help."""
        return await self._client.surely(method, self._key if key is None else key, query, lost=True, **how)

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
            return await begin(self._client, self._key, {MARK: self._token})

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
        if not (await self._look()).mine:
            raise self._discarded()

    def _no_parts(self) -> NoParts:
        return NoParts(
            f"store {self._client.name}: its server takes no uploads in parts, so an image may have at most "
            f"{self._plan.part // MIB} MiB here (s3_store_large_object_chunk_size, all of it held in memory)"
        )

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
            self._tags[number] = (await self._client.again(once, hung=1)).tag
        except Exception as error:  # noqa: BLE001 - raised where the writer looks
            self._failure = self._failure or (await self._why(error) if isinstance(error, Gone) else error)
        finally:
            self._pending -= 1
            self._flying -= size
            self._landed.set()

    # the end

    async def _put(self, pieces: list[Piece]) -> bool:
        """All the data, at most a part, in place of the claim, if that is still there. False: it has to go in parts,
        and an upload was begun."""
        known = self._client.known
        refused: Answer | None = None
        if self.total > self._plan.single and pieces and await self._begins():
            return False
        if self._claim and not known.lacks(Lack.REPLACE):
            usual = known.quotes
            for quotes in (usual, not usual):  # some gateways compare the tag with its quotes, some without
                answer = await self._put_all(pieces, {"if-match": self._claim if quotes else self._claim.strip('"')})
                if answer.good:
                    known.quotes, self._done = quotes, answer.tag
                    known.has(Lack.REPLACE)
                    return True
                if answer.status not in (404, 409, 412) and not answer.misunderstood:
                    raise self._client.refusal(answer, writing=True)
                there = await self._look()
                if not there.mine:
                    raise self._discarded()
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
        if not (await self._look()).mine:
            raise self._discarded()
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
        headers = {**headers, MARK: self._token}
        return await self._asked("PUT", headers=headers, body=pieces, patience=2 * self._client.patience)

    async def _missing_tags(self) -> None:
        """The ETags of parts whose answers had none, from the server's list of them."""
        query = {"uploadId": self._id}
        while any(not tag for tag in self._tags.values()):
            answer = await self._asked("GET", query)
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
                f"store {self._client.name}: its server, or what stands in front of it, gives no ETags to parts, and "
                "without them no upload in parts can be completed"
            )

    async def _complete(self) -> None:
        await self._missing_tags()
        if self._client.known.lacks(Lack.LISTING):
            there = await self._look()  # who discards could not find the upload
            if not (there.mine and there.claim):
                raise self._discarded()
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
                there = await self._look_long()
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
            return await self._why_not(await self._look(), error)
        except ImageServiceError as second:
            return second

    async def _why_not(self, there: There, error: ImageServiceError | None) -> ImageServiceError:
        """Why the data is not there after the upload should have been completed; `error`: what the server said."""
        if not there.mine:
            return self._discarded()
        if not there.claim:
            return BlobError(f"store {self._client.name} made {there.answer.size} bytes out of {self.total}")
        if error is None:
            return StoreUnavailable(
                f"store {self._client.name} says that the upload is complete, and its data is not there"
            )
        if isinstance(error, Gone) or (await self._asked("GET", {"uploadId": self._id})).missing:
            return WriteDenied(
                f"store {self._client.name}: its server forgot the upload before it was complete: see what else "
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
                if not self._touched:
                    return
                if self._id:
                    await abort(self._client, self._key, self._id)
                if self._begun > 1 or (self._begun and not self._id):
                    await abort_all(self._client, self._key)
                there = await self._look()
                # others may have written since: without metadata, data is only ours when it is what we put
                ours = there.claim or MARK in there.answer.headers or (self._done and there.answer.tag == self._done)
                if there.mine and ours:
                    await self._asked("DELETE")
        except (TimeoutError, ImageServiceError) as error:
            _log.warning("store %s: parts of %s stay for now: %s", self._client.name, self._key, _reason(error))


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, ImageServiceError) else "no answer in time"
