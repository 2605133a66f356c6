"""The claim of one write to its key, and what lies under the key: whose it is, claim or data. The data: `upload`.

A claim is a small object under the key itself, put with `If-None-Match: *`; one of several writers succeeds. It is our
token, which also stands in its metadata, and in that of the finished object.

Not every server has all of this. What it lacks is found on the way (`capabilities`) and done without: the key is always
looked at before (HEAD). The first claim of a process is read back like an image, so nothing is acknowledged that could
not be read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from xloud_image.errors import BadRange, BlobError, BlobNotFound, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.kit.chunks import Piece
from xloud_image.stores.kit.sentences import key_taken, was_discarded
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.capabilities import Lack
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.download import Open
from xloud_image.stores.s3.errors import Busy
from xloud_image.stores.s3.listing import CLAIM, CLAIM_SIZE, MARK, unfinished
from xloud_image.stores.s3.probe import conditions

_MISSING: Final = (0.2, 0.5, 1.0, 2.0)  # seconds after which an object that should be there is looked for again
_PROBE: Final = (3, 20)  # the bytes of the first claim that are read back: first, last

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class There:
    """What lies under the key. `mine`: this write put it there; `claim`: it is a claim, not data."""

    answer: Answer
    mine: bool
    claim: bool


class Claim:
    """`token` marks what this write puts; `tag`: the ETag of the claim, '' where there is none; `touched`: whether
    anything may be there that is ours. `create_bucket`: make a bucket that is missing."""

    def __init__(self, client: Client, key: str, *, create_bucket: bool) -> None:
        self._client, self._key, self._create_bucket = client, key, create_bucket
        self.token = secrets.token_hex(CLAIM_SIZE // 2)
        self.tag = ""
        self.touched = False
        self._held = False

    async def take(self) -> None:
        """Be the one who writes the key. `AlreadyExists`, and what keeps images from being stored or read there."""
        known = self._client.known
        if (await self._client.head(self._key, writing=True)).good:
            raise key_taken()
        self.touched = True
        answer = await self._put()
        if answer.code == "NoSuchBucket" and self._create_bucket:
            await self._make_bucket()
            answer = await self._put()
        if not answer.good:
            raise self._client.refusal(answer, writing=True)
        self.tag, self._held = answer.tag, True
        if not known.met:
            await self._meet()

    async def _put(self) -> Answer:
        """The answer to the claim. `AlreadyExists` when somebody else was there first."""
        known = self._client.known
        refused: Answer | None = None
        for _ in range(0 if known.lacks(Lack.CREATE) else 2):
            answer = await self._put_if({"if-none-match": "*"})
            if answer.misunderstood:
                refused = answer
                break
            if answer.status not in (409, 412):
                if answer.good:
                    known.has(Lack.CREATE)
                return answer
            there = await self.look()  # it may be ours, put by an attempt whose answer was lost
            if there.mine:
                return there.answer
            if there.answer.good:
                self.touched = False
                raise key_taken()
        plain = await self._put_if({})
        if plain.good and refused is not None:
            known.refused(Lack.CREATE, refused)
        return plain

    async def _put_if(self, condition: Mapping[str, str]) -> Answer:
        headers = {**condition, CLAIM: self.token, MARK: self.token}
        return await self.asked("PUT", headers=headers, body=[self.token.encode()])

    async def _meet(self) -> None:
        """The first claim of this process: read it back as an image is read, and see what the server keeps of it."""
        client, known = self._client, self._client.known
        there = await self.look()
        if not there.mine:
            raise was_discarded() if there.answer.missing else key_taken()
        if there.answer.headers.get(MARK) != self.token:
            known.learn(Lack.METADATA)
        self.tag = self.tag or there.answer.tag
        if not self.tag:
            known.learn(Lack.TAGS)
        again = await conditions(client, self._put_if)
        self.tag = again.tag or self.tag if again is not None else self.tag
        got = await client.again(self._read_back)
        if got != self.token[_PROBE[0] : _PROBE[1] + 1].encode():
            if not (await self.look()).mine:  # another writer, on a server without conditions
                raise key_taken()
            raise WriteDenied("its server gives back other bytes than were written to it")
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
        try:
            return await self._bytes(*_PROBE)
        except (BlobNotFound, BadRange):
            raise Busy("what was just written to it cannot be read back") from None
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

    async def look(self) -> There:
        """What lies under the key now, and whose it is. Servers that drop metadata: by its bytes if it may be a claim;
        finished data is then ours, because nobody writes a key whose claim is ours."""
        answer = await self._client.head(self._key, writing=True)
        if answer.missing:
            return There(answer, mine=False, claim=False)
        mark = answer.headers.get(MARK)
        if mark is not None:
            return There(answer, mine=mark == self.token, claim=CLAIM in answer.headers)
        if answer.size in (CLAIM_SIZE, None):
            try:
                found = await self._client.again(lambda: self._bytes(0, CLAIM_SIZE - 1))
            except (BlobNotFound, BadRange):
                found = b""
            if found == self.token.encode():
                return There(answer, mine=True, claim=True)
        return There(answer, mine=self._held and self._client.known.lacks(Lack.METADATA), claim=False)

    async def look_long(self) -> There:
        """As `look`, where something should be: nothing is believed only after some seconds."""
        for wait in _MISSING:
            there = await self.look()
            if not there.answer.missing:
                return there
            await asyncio.sleep(wait)
        return await self.look()

    async def asked(
        self, method: str, query: dict[str, str] | None = None, *, key: str | None = None, **how: Any
    ) -> Answer:
        """An answer about our key; asked again while that may help."""
        return await self._client.surely(method, self._key if key is None else key, query, lost=True, **how)

    async def _make_bucket(self) -> None:
        region, body = self._client.address.region, list[Piece]()
        if region != "us-east-1" and self._client.address.host.endswith(".amazonaws.com"):
            where = f"<LocationConstraint>{region}</LocationConstraint>"
            body = [f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode()]
        answer = await self.asked("PUT", key="", body=body)
        if not answer.good and answer.code != "BucketAlreadyOwnedByYou":
            raise self._client.refusal(answer, writing=True)
        _log.info("store %s: made the bucket %s", self._client.name, self._client.address.bucket)
