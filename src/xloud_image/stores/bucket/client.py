"""Requests to one bucket: signed, bounded in time, their refusals in the words of the contract. What to ask is decided
elsewhere.

A request gives up when nothing moved for `patience` seconds: no 256 KiB of its body taken, no answer. Memory: the
answer, of which at most 4 MiB are read (lists and errors; the bytes of objects are the caller's to read).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from xml.etree import ElementTree as ET

import aiohttp
from yarl import URL

from xloud_image.errors import (
    BlobError,
    BlobNotFound,
    Gone,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.bucket.address import Address
from xloud_image.stores.bucket.plan import Piece
from xloud_image.stores.bucket.signing import EMPTY, UNSIGNED, Keys, escaped_query, signed
from xloud_image.stores.web import Web

T = TypeVar("T")

_ANSWER: Final = 4 << 20  # bytes
_PIECE: Final = 256 * 1024  # bytes handed over at a time, so that progress is seen
_ATTEMPTS: Final = 6
_PAUSE: Final = 0.2  # seconds, doubled with each attempt
_WINDOW: Final = 30.0  # seconds of attempts after the first failure
_KEYS: Final = frozenset({"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "AuthFailure"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull"})
_REGION: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
# the server itself says that trying again helps; the digests: damaged on the way
_AGAIN: Final = frozenset(
    {"SlowDown", "RequestTimeout", "OperationAborted", "XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody"}
)


class Hung(StoreUnavailable):
    """No answer at all: asking at once again would wait as long again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `code` is that of the server's error, or ''."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    code: str = ""

    @property
    def good(self) -> bool:
        return self.status < 300 and not self.code

    def texts(self, *path: str) -> list[str]:
        """The texts of all elements at this path below the root, whatever their namespace."""
        root = _element(self.body)
        return [] if root is None else [found.text or "" for found in _children(root, path)]


class Client:
    """`patience`: seconds; `sign_bodies`: whether the server verifies the SHA-256 of each body."""

    def __init__(
        self, name: str, web: Web, address: Address, keys: Keys, *, patience: float, sign_bodies: bool
    ) -> None:
        self.name, self.address, self.patience = name, address, patience
        self._web, self._keys, self._sign_bodies = web, keys, sign_bodies
        self.quotes = True  # whether the server wants If-Match with quotes; learned by the first small write

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
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status, its body not yet read. `StoreUnavailable`, `Hung`."""
        host, path = self.address.request(key)
        text = escaped_query(query or {})
        size = sum(map(len, body))
        sent = {"host": host, **(headers or {})}
        if method in ("PUT", "POST"):
            sent["content-length"] = str(size)
        payload = EMPTY
        if size:
            payload = await asyncio.to_thread(_digest, body) if self._sign_bodies else UNSIGNED
        signature = signed(self._keys, self.address.region, method, path, text, sent, payload)
        signature["accept-encoding"] = "identity"  # unsigned: proxies like to change it
        scheme = "https" if self.address.tls else "http"
        url = URL(f"{scheme}://{host}{path}{'?' if text else ''}{text}", encoded=True)
        wait = patience or self.patience
        limit = asyncio.timeout(wait)
        data = _moving(body, limit, wait) if size else None
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with limit:
                    opened = self._web.answer(method, url, headers=signature, data=data)
                    response = await stack.enter_async_context(opened)
            except TimeoutError:
                raise self._hung(wait) from None
            yield response

    async def ask(self, method: str, key: str = "", query: Mapping[str, str] | None = None, **how: Any) -> Answer:
        """The whole answer, whatever its status. `StoreUnavailable`, `Hung`."""
        async with self.asking(method, key, query, **how) as response:
            answer = await self.answer(response)
        if method == "HEAD" and answer.status in (301, 400, 403):  # has no body that could say why: this has
            reason = await self.ask("GET", "", {"max-keys": "1"})
            answer = dataclasses.replace(answer, code=reason.code)
        return answer

    async def answer(self, response: aiohttp.ClientResponse) -> Answer:
        """The rest of an answer that is no object."""
        body = b""
        try:
            async with asyncio.timeout(self.patience):
                async for chunk in self._web.chunks(response):
                    body += chunk
                    if len(body) > _ANSWER:
                        raise StoreUnavailable(f"store {self.name}: an answer of the server has no end")
        except TimeoutError:
            raise self._hung(self.patience) from None
        code = ""
        if body.lstrip()[:1] == b"<":
            root = _element(body)
            if root is not None and _plain(root.tag) == "Error":
                code = next((found.text or "" for found in _children(root, ("Code",))), "Error")
        return Answer(response.status, response.headers, body, code)

    def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The bytes of an object, as they come."""
        return self._web.chunks(response)

    async def again(self, call: Callable[[], Awaitable[T]], *, hung: int = 0) -> T:
        """`call` until it ends well, with growing pauses; an error that is not temporary ends it, as do six attempts,
        thirty seconds, or more than `hung` waits in vain."""
        end, pause = 0.0, _PAUSE
        for attempt in range(_ATTEMPTS):
            try:
                return await call()
            except StoreUnavailable as error:
                end = end or time.monotonic() + _WINDOW
                hung -= isinstance(error, Hung)
                if hung < 0 or attempt == _ATTEMPTS - 1 or time.monotonic() + pause > end:
                    raise
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - many writers should not come at once
            pause *= 2
        raise AssertionError("unreachable")

    def refusal(self, answer: Answer, *, writing: bool = False) -> ImageServiceError:
        """What an answer that is not good means; the sentence says what to do."""
        who, code = f"store {self.name}", answer.code
        denied: type[ImageServiceError] = WriteDenied if writing else StoreUnavailable
        if code == "NoSuchUpload":
            return Gone(f"{who}: the data was discarded while it was being written")
        if code == "NoSuchBucket":
            return denied(
                f"{who}: there is no bucket {self.address.bucket}: make it, or set s3_store_create_bucket_on_put"
            )
        if code in _FULL or answer.status == 507:
            return StoreFull(f"{who} is full, or its quota is used up ({code or answer.status})")
        if code == "EntityTooLarge":
            return StoreFull(f"{who}: the server does not take objects of this size")
        if code == "RequestTimeTooSkewed":
            return denied(f"{who}: the clocks of this host and of {self.address.host} differ too much: set one of them")
        if code in _KEYS or answer.status == 401:
            return denied(f"{who}: its server refuses the keys ({code}): see s3_store_access_key, s3_store_secret_key")
        if code in _REGION or answer.status in (301, 302, 307, 308):
            return denied(f"{who}: the bucket is in another region: see s3_store_region_name and s3_store_host")
        if answer.status == 403:
            return denied(
                f"{who}: its server refuses this ({code or 403}): see s3_store_access_key, s3_store_secret_key and "
                f"what they may do in the bucket {self.address.bucket}"
            )
        if code in _AGAIN or answer.status in (408, 429) or answer.status >= 500:
            return StoreUnavailable(f"{who} cannot serve this now ({code or answer.status})")
        if answer.status == 404:
            return BlobNotFound(f"{who} has no such data")
        return BlobError(f"{who}: its server answered {answer.status} {code}".rstrip())

    def _hung(self, seconds: float) -> Hung:
        return Hung(f"store {self.name} does not answer: nothing within {seconds:g} seconds")


async def _moving(body: Sequence[Piece], limit: asyncio.Timeout, wait: float) -> AsyncIterator[Piece]:
    """The body in small pieces; each one that is taken winds the clock up again."""
    loop = asyncio.get_running_loop()
    for piece in body:
        view = memoryview(piece)
        for start in range(0, len(view), _PIECE):
            with contextlib.suppress(RuntimeError):  # the answer came before the end of the body
                limit.reschedule(loop.time() + wait)
            yield view[start : start + _PIECE]


def _digest(body: Sequence[Piece]) -> str:

    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _element(body: bytes) -> ET.Element | None:
    """The root of an answer; None when it is no XML. The server is the operator's own, and at most 4 MiB are parsed."""
    try:
        return ET.fromstring(body)  # noqa: S314
    except ET.ParseError:
        return None


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(root: ET.Element, path: Sequence[str]) -> Iterator[ET.Element]:
    if not path:
        yield root
        return
    for child in root:
        if _plain(child.tag) == path[0]:
            yield from _children(child, path[1:])
