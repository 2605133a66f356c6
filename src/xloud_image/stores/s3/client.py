"""Requests to one bucket: signed, bounded in time, sent again where that may help. What to ask is decided elsewhere.

A request gives up when nothing moved for `patience` seconds: no 256 KiB of its body taken, no answer. Memory: the
answer, of which at most 4 MiB are read (lists and errors; the bytes of objects are the caller's to read).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import aiohttp
from yarl import URL

from xloud_image.errors import ImageServiceError, StoreUnavailable
from xloud_image.stores.kit.chunks import Piece
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.web import Web, wind
from xloud_image.stores.s3.answers import MOST, Answer
from xloud_image.stores.s3.capabilities import Known
from xloud_image.stores.s3.errors import Busy, refusal
from xloud_image.stores.s3.location import Address
from xloud_image.stores.s3.signing import EMPTY, UNSIGNED, Keys, escaped_query, signed

T = TypeVar("T")

_PIECE: Final = 256 * 1024  # bytes handed over at a time, so that progress is seen
_ATTEMPTS: Final = 6
_PAUSE: Final = 0.2  # seconds, doubled with each attempt
_WINDOW: Final = 30.0  # seconds of attempts after the first failure
_HOPS: Final = 3  # to where a young bucket is for now
_DIGESTS: Final = frozenset({"InvalidRequest", "MissingContentMD5", "MissingDigest"})


class Hung(StoreUnavailable):
    """No answer at all: asking at once again would wait as long again."""


class Client:
    """`patience`: seconds; `sign_bodies`: whether the server verifies the SHA-256 of each body. `known`: see there."""

    def __init__(
        self, name: str, web: Web, address: Address, keys: Keys, *, patience: float, sign_bodies: bool
    ) -> None:
        self.name, self.address, self.patience = name, address, patience
        self._web, self._keys, self._sign_bodies = web, keys, sign_bodies
        self.known = Known(name)

    @contextlib.asynccontextmanager
    async def asking(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: Sequence[Piece] = (),
        patience: float | None = None,
        digest: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status, its body not yet read. `digest`: with Content-MD5, where there is a body.

        A temporary redirect is followed, signed anew, but never from https to http. `StoreUnavailable`, `Hung`.
        """
        host, path = self.address.request(key)
        scheme = "https" if self.address.tls else "http"
        text = escaped_query(query or {})
        size = sum(map(len, body))
        sent = dict(headers or {})
        if method in ("PUT", "POST"):
            sent["content-length"] = str(size)
        payload = EMPTY
        if size:
            payload = await asyncio.to_thread(_sha256, body) if self._sign_bodies else UNSIGNED
            if digest or self.known.digests:
                sent["content-md5"] = await asyncio.to_thread(_md5, body)
        wait = patience or self.patience
        async with contextlib.AsyncExitStack() as stack:
            for hop in range(_HOPS + 1):
                where = {**sent, "host": host}
                signature = signed(self._keys, self.address.region, method, path, text, where, payload)
                signature["accept-encoding"] = "identity"  # unsigned: proxies like to change it
                url = URL(f"{scheme}://{host}{path}{'?' if text else ''}{text}", encoded=True)
                limit = asyncio.timeout(wait)
                data = _moving(body, limit, wait) if size else None
                step = await stack.enter_async_context(contextlib.AsyncExitStack())
                try:
                    async with limit:
                        opened = self._web.answer(method, url, headers=signature, data=data)
                        response = await step.enter_async_context(opened)
                except TimeoutError:
                    raise self._hung(wait) from None
                there = _redirected(response, url) if response.status in (307, 308) and hop < _HOPS else None
                if there is None:
                    break
                await step.aclose()
                scheme, host, path = there.scheme, _host(there), there.raw_path
                text = escaped_query(dict(parse_qsl(there.raw_query_string, keep_blank_values=True)))
            yield response

    async def ask(self, method: str, key: str = "", query: Mapping[str, str] | None = None, **how: Any) -> Answer:
        """The whole answer, whatever its status. `StoreUnavailable`, `Hung`."""
        async with self.asking(method, key, query, **how) as response:
            answer = await self.answer(response)
        if answer.status == 400 and how.get("body") and not self.known.digests and answer.code in _DIGESTS:
            # some servers and settings of buckets take no body without a digest of the old kind
            async with self.asking(method, key, query, **how, digest=True) as response:
                second = await self.answer(response)
            self.known.digests = second.good
            answer = answer if second.code in _DIGESTS else second
        if method == "HEAD" and answer.status in (301, 400, 403, 405, 501):  # has no body that could say why: this has
            reason = await self.ask("GET", "", {"max-keys": "1"})
            answer = dataclasses.replace(answer, code=reason.code, body=reason.body, said=reason.said)
        return answer

    async def surely(
        self, method: str, key: str = "", query: Mapping[str, str] | None = None, *, lost: bool = False, **how: Any
    ) -> Answer:
        """As `ask`, and asked again while the server says that this may help; `lost`: also when no answer came.
        `StoreUnavailable` when it never helped."""

        async def once() -> Answer:
            answer = await self.ask(method, key, query, **how)
            if not answer.good and isinstance(error := self.refusal(answer), Busy):
                raise error
            return answer

        return await self.again(once, lost=lost)

    async def head(self, key: str, *, writing: bool = False) -> Answer:
        """The object's headers, or 404. Other refusals are raised. `writing`: as in `refusal`, and asked again also
        when no answer came."""
        found = await self.surely("HEAD", key, lost=writing)
        if not found.good and not found.missing:
            raise self.refusal(found, writing=writing)
        return found

    async def answer(self, response: aiohttp.ClientResponse) -> Answer:
        """The rest of an answer that is no object."""
        body = b""
        try:
            async with asyncio.timeout(self.patience):
                async for chunk in self._web.chunks(response):
                    body += chunk
                    if len(body) > MOST:
                        raise StoreUnavailable("an answer of the server has no end")
        except TimeoutError:
            raise self._hung(self.patience) from None
        return Answer.of(response.status, response.headers, body)

    def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The bytes of an object, as they come."""
        return self._web.chunks(response)

    async def again(self, call: Callable[[], Awaitable[T]], *, hung: int = 0, lost: bool = True) -> T:
        """`call` until it ends well, with growing pauses; an error that is not temporary ends it, as do six attempts,
        thirty seconds, more than `hung` waits in vain, or without `lost` that no answer came."""
        end = 0.0

        def may(error: StoreUnavailable) -> bool:
            nonlocal end, hung
            end = end or time.monotonic() + _WINDOW
            hung -= isinstance(error, Hung)
            return hung >= 0 and time.monotonic() < end and (lost or isinstance(error, Busy))

        # by chance a little earlier or later: many writers should not come at once
        pauses = (_PAUSE * 2**number * random.uniform(0.7, 1.3) for number in range(_ATTEMPTS - 1))  # noqa: S311
        return await retry(call, pauses, again=may)

    def refusal(self, answer: Answer, *, writing: bool = False) -> ImageServiceError:
        """What an answer that is not good means; the sentence says what to do."""
        return refusal(self.address, answer, writing=writing)

    def _hung(self, seconds: float) -> Hung:
        return Hung(f"it does not answer: nothing within {seconds:g} seconds")


async def _moving(body: Sequence[Piece], limit: asyncio.Timeout, wait: float) -> AsyncIterator[Piece]:
    """The body in small pieces; each one that is taken winds the clock up again."""
    for piece in body:
        view = memoryview(piece)
        for start in range(0, len(view), _PIECE):
            wind(limit, wait)
            yield view[start : start + _PIECE]


def _sha256(body: Sequence[Piece]) -> str:
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _md5(body: Sequence[Piece]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in body:
        digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


def _redirected(response: aiohttp.ClientResponse, asked: URL) -> URL | None:
    """Where to ask instead; None when that is not said, or is less safe."""
    try:
        there = asked.join(URL(response.headers.get("location", ""), encoded=True))
    except ValueError:
        return None
    if not response.headers.get("location") or there.scheme not in ("http", "https") or not there.host:
        return None
    return there if asked.scheme == "http" or there.scheme == "https" else None


def _host(url: URL) -> str:
    return url.raw_authority.rpartition("@")[2]
