"""One URL as its server answers it: good answers, and the errors that all others mean. Nothing is asked twice here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
from yarl import URL

from xloud_image.errors import ImageServiceError, SourceChanged, SourceRefused, SourceSilent, SourceUnavailable
from xloud_image.fetching.rules import Limits
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.addresses import Reach
from xloud_image.stores.kit.chunks import Pace
from xloud_image.stores.kit.guarded import Guarded
from xloud_image.stores.kit.web import is_distrusted, is_no_http, reason

_GONE: Final = frozenset({404, 410})
_REFUSED: Final = _GONE | {401, 403}  # what a signed URL answers when its time is over
_CONDITION: Final = 200  # characters of a validator that is sent back


class NoRanges(Exception):
    """The server answers a range with something that is neither the range nor all of the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. `part`: it brings the range that was asked for, else all of the file, of `size` bytes (None: not
    told). `validator`: what changes when the file does; `condition`: the same as `If-Range` takes it."""

    part: bool
    size: int | None
    validator: str | None
    condition: str | None
    chunks: AsyncIterator[bytes]


class Source:
    """A URL, which may lead as far as `reach`. What redirects led to is kept: a site that spreads its clients over
    mirrors would send each request to another one. `own`: headers for the server that the URL names."""

    def __init__(self, guarded: Guarded, url: URL, reach: Reach, limits: Limits, own: Mapping[str, str]) -> None:
        self._guarded, self._url, self._reach, self._limits, self._own = guarded, url, reach, limits, own
        self._at = url
        self._seen = False  # a good answer

    def forget(self) -> None:
        """Begin at the first URL again."""
        self._at = self._url

    @contextlib.asynccontextmanager
    async def get(
        self, wanted: tuple[int, int] | None = None, *, condition: str | None = None
    ) -> AsyncIterator[Answer]:
        """The file, or the range `wanted` (first and last byte) of it. Leaving closes the connection unless the whole
        answer was read. `UrlRefused`, `SourceUnavailable`, `SourceRefused`, `SourceChanged`, `NoRanges`."""
        headers = {} if wanted is None else {"Range": f"bytes={wanted[0]}-{wanted[1]}"}
        if wanted is not None and condition is not None:
            headers["If-Range"] = condition
        async with contextlib.AsyncExitStack() as stack:
            seconds = 2 * self._limits.connect + self._limits.first_byte
            try:
                async with asyncio.timeout(seconds):
                    own = self._own if self._at.origin() == self._url.origin() else {}
                    asked = self._guarded.ask("GET", self._at, self._reach, headers=headers, own=own)
                    response, found = await stack.enter_async_context(asked)
            except TimeoutError:
                raise SourceSilent(f"the server of the URL does not answer within {seconds:g} seconds") from None
            if response.status in (200, 206):
                self._at, self._seen = found, True
            elif response.status in _REFUSED and self._seen and found is not self._url:
                raise _unavailable(response.status)  # where redirects led: signed URLs end, mirrors differ
            elsewhere = found.raw_host != self._url.raw_host
            part, size = _judged(response, wanted)
            validator = answers.version(response.headers, size, elsewhere=elsewhere)
            yield Answer(part, size, validator, _condition(response.headers, validator), self._paced(response))

    async def _paced(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        seconds = self._limits.rate_seconds
        pace = Pace(self._limits.rate * seconds, seconds)
        chunks = self._guarded.chunks(response)
        while True:
            begun = time.monotonic()
            chunk = await anext(chunks, None)
            if chunk is None:
                return
            if pace.is_slow(time.monotonic() - begun, len(chunk)):
                raise SourceSilent(
                    f"the server of the URL sends too slowly: fewer than {self._limits.rate} bytes a second"
                )
            yield chunk


def failed(what: str, error: BaseException) -> ImageServiceError:
    """The error of a request that no answer, or not all of one, came to."""
    text = f"the server of the URL {what}: {reason(error)}"
    if isinstance(error, TimeoutError):
        return SourceSilent(text)
    return SourceRefused(text) if is_distrusted(error) or is_no_http(error) else SourceUnavailable(text)


def _judged(response: aiohttp.ClientResponse, wanted: tuple[int, int] | None) -> tuple[bool, int | None]:
    """Whether an answer is the range that was asked for, and the size of the whole."""
    status, headers = response.status, response.headers
    size = None if status != 206 or wanted is None else _size_of_part(headers, *wanted)
    if wanted is not None and size is None:
        if status == 412:
            raise SourceChanged("the file at the URL was changed while it was fetched: begin anew")
        if status == 200 and not answers.is_whole(headers):
            raise NoRanges
        if status != 200 and status not in _GONE and status not in answers.TEMPORARY:
            raise NoRanges
    if status in answers.TEMPORARY:
        raise _unavailable(status)
    if status != 200 and size is None:
        refused = SourceRefused(f"the server of the URL does not give the file: it answers {status}")
        refused.answered = status
        raise refused
    if odd := answers.oddity(headers, part=size is not None):
        raise SourceRefused(f"the server of the URL {odd}")
    return (True, size) if size is not None else (False, answers.length(headers))


def _size_of_part(headers: Mapping[str, str], first: int, last: int) -> int | None:
    """The size of the whole, told with the range that was asked for; None when it is another one."""
    found = answers.content_range(headers)
    if found is None or found[2] is None:
        return None
    return found[2] if found[:2] == (first, min(last, found[2] - 1)) else None


def _condition(headers: Mapping[str, str], validator: str | None) -> str | None:
    """What `If-Range` takes for a validator: the very header that it was made from."""
    if validator is None:
        return None
    told = headers.get("ETag" if validator.startswith('"') else "Last-Modified", "").strip()
    return told if told and told.isascii() and told.isprintable() and len(told) <= _CONDITION else None


def _unavailable(status: int) -> SourceUnavailable:
    error = SourceUnavailable(f"the server of the URL cannot give the file now: it answers {status}")
    error.answered = status
    return error
