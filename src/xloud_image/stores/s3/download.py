"""Reading a range of an object. One object for each reader.

From a server that honours ranges in windows, several requests ahead of the reader: those behind the current one wait in
the connection, at most 256 KiB each in this process, besides what the kernel takes (its socket buffers). A reader who
is slower than 8 MiB a second has windows of 16 MiB and one request ahead, a fast one has windows of up to 64 MiB and up
to three requests. A window that breaks off is asked for again from where it stopped.

From any other server by one plain GET, of which the bytes before the range are thrown away: right, and as slow as it
sounds (at most `SKIP` seconds for them). Nothing is taken for granted: what an answer says of itself decides what its
bytes are. An object that was changed meanwhile is noticed by its ETag (`BlobError`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

import aiohttp

from xloud_image.errors import BadRange, BlobError, StoreRefused, StoreUnavailable
from xloud_image.stores.kit.answers import content_range, length
from xloud_image.stores.kit.sentences import no_data
from xloud_image.stores.s3.answers import Answer, Undoing, coding_of, tag_of
from xloud_image.stores.s3.capabilities import MINUTES, Lack
from xloud_image.stores.s3.client import Client, Hung

WINDOW: Final = 16 << 20
_LARGE: Final = 4 * WINDOW  # bytes: a request costs as much processor time as two or three MiB
AHEAD: Final = 3
SKIP: Final = 45.0  # seconds to come to where a range begins, on a server that honours none
_FAST: Final = WINDOW / 2.0  # bytes a second
_AGAIN: Final = 3  # attempts to go on after a break, without a byte between them
_PAUSE: Final = 0.3
_NOT_OBEYED: Final = frozenset({400, 405, 416, 501})  # of a Range, perhaps


class Open:
    """An answer with the bytes `at` to `last` (of the object) in it, closed by `aclose`.

    Once begun: `size` of the whole object in bytes, `tag` its ETag or ''; `whole`: everything behind `at` comes from
    this answer, so `last` may be set to any later byte.
    """

    def __init__(self, client: Client, key: str, first: int, last: int, tag: str) -> None:
        self._client, self._key, self._expected = client, key, tag
        self.at, self.last = first, last
        self.size = 0
        self.tag = ""
        self.whole = False
        self.headers: Mapping[str, str] = {}
        self._stack = contextlib.AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None
        self._undoing: Undoing | None = None
        self._ready: Iterator[bytes] = iter(())  # what comes out of a chunk
        self._skip = 0

    async def begin(self) -> None:
        """Ask. `BlobNotFound`, `BadRange` when the object ends before `at` (an empty one has nothing at 0 either),
        `BlobError` when it has another ETag than expected, `StoreUnavailable`, `StoreRefused`."""
        known, asked, refused = self._client.known, False, None
        if not known.lacks(Lack.RANGES):
            asked = True
            response = await self._ask({"range": f"bytes={self.at}-{self.last}"})
            if response.status in _NOT_OBEYED:
                refused = await self._require_reach(response)
            elif response.status not in (200, 206):
                raise await self._refused(response)
            elif self._take_part(response) or await self._take_whole(response, asked=True):
                return
            await self._stack.aclose()
        response = await self._ask({})
        if response.status != 200 and not (response.status == 206 and self._is_whole(response)):
            raise await self._refused(response)
        if not await self._take_whole(response, asked=False):
            raise StoreRefused("its server gives a part of the data to a plain GET")
        if asked:
            known.refused(Lack.RANGES, refused)

    async def _ask(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        guard = {"if-match": self._expected} if self._expected and self._client.known.guards else {}
        asking = self._client.asking("GET", self._key, headers={**headers, **guard})
        response = await self._stack.enter_async_context(asking)
        if guard and response.status in (400, 412, 501):
            # another object, or a server that compares ETags in a way of its own: the answer's own ETag decides
            await self._stack.aclose()
            asking = self._client.asking("GET", self._key, headers=headers)
            response = await self._stack.enter_async_context(asking)
            if response.status in (200, 206) and tag_of(response.headers) == self._expected:
                self._client.known.guards = False
        if response.status in (200, 206):
            self.headers, self.tag = response.headers, tag_of(response.headers)
            if self._expected and self.tag and self.tag != self._expected:
                raise BlobError("the data was changed while it was being read")
        return response

    def _take_part(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the answer is what was asked for: some servers say 200 to that, with a Content-Range."""
        part = content_range(response.headers)
        if part is None or part[2] is None or coding_of(response.headers):
            return False
        first, last, size = part[0], part[1], part[2]
        if not first <= self.at <= last:
            return False
        self._client.known.has(Lack.RANGES)
        self.size, self._skip = size, self.at - first
        self.last = min(self.last, size - 1)  # should fewer come, they end too early and the rest is asked for
        self._chunks = self._client.chunks(response)
        return True

    def _is_whole(self, response: aiohttp.ClientResponse) -> bool:
        part = content_range(response.headers)
        return part is not None and part[2] is not None and part[:2] == (0, part[2] - 1)

    async def _take_whole(self, response: aiohttp.ClientResponse, *, asked: bool) -> bool:
        """Take the answer as the whole object; False when it may be something else. `asked`: for a range."""
        if asked and response.status != 200:
            return False
        coding, size = coding_of(response.headers), length(response.headers)
        if content_range(response.headers) is not None and not self._is_whole(response):
            return False
        if size is None or coding or (asked and (self.at or size == self.last + 1)):
            head = await self._client.head(self._key)
            if head.missing:
                raise no_data()
            found = head.size
            if asked and size is not None and found != size:
                return False  # a part that does not say so
            size = found if size is None or coding else size
        if size is None:
            raise StoreUnavailable("its server does not say how large the data is")
        if asked and (self.at or self.last < size - 1):
            self._client.known.learn(Lack.RANGES, time.monotonic() + MINUTES)  # it answered, and passed over it
        if self.at >= size:
            raise BadRange(f"the range begins at byte {self.at}, the data has {size} bytes")
        if coding:
            try:
                self._undoing = Undoing(coding)
            except ValueError:
                raise StoreRefused(
                    "what stands in front of its server compresses the data "
                    f"({coding[:20]}) although it was asked not to: switch that off there"
                ) from None
        self.size, self._skip, self.whole = size, self.at, True
        self.last = min(self.last, size - 1)
        self._chunks = self._client.chunks(response)
        return True

    async def _require_reach(self, response: aiohttp.ClientResponse) -> Answer:
        """After a refusal that may have its reason in the range: raise unless there are bytes at `at`."""
        answer = await self._client.answer(response)
        found = await self._client.head(self._key)
        if found.missing:
            raise no_data()
        if found.size is not None and self.at >= found.size:
            raise BadRange(f"the range begins at byte {self.at}, the data has {found.size} bytes")
        if answer.status == 400 and not answer.misunderstood:
            raise self._client.refusal(answer)
        return answer

    async def _refused(self, response: aiohttp.ClientResponse) -> Exception:
        answer = await self._client.answer(response)
        if answer.status == 412:
            return BlobError("the data was changed while it was being read")
        if answer.status == 416:
            return BadRange(f"the range begins at byte {self.at}, the data is shorter")
        if answer.good:
            return StoreRefused(f"its server answers {answer.status} to a plain GET")
        return self._client.refusal(answer)

    async def next(self) -> bytes:
        """The next bytes; `StoreUnavailable` when they do not come."""
        end = time.monotonic() + SKIP
        while True:
            chunk = await self._come()
            if self._skip:
                cut = min(self._skip, len(chunk))
                self._skip -= cut
                chunk = chunk[cut:]
                if time.monotonic() > end:
                    raise StoreRefused(
                        f"its server honours no ranges, and what lies before byte {self.at} "
                        f"did not come within {SKIP:g} seconds: read the image whole"
                    )
            if chunk:
                chunk = chunk[: self.last + 1 - self.at]
                self.at += len(chunk)
                return chunk

    async def _come(self) -> bytes:
        if self._undoing is not None and (piece := await self._undone()):
            return piece
        assert self._chunks is not None
        try:
            async with asyncio.timeout(self._client.patience):
                chunk = await anext(self._chunks, b"")
        except TimeoutError:
            raise Hung("it stopped in the middle of the data") from None
        if not chunk:
            raise StoreUnavailable("it broke off in the middle of the data")
        if self._undoing is None:
            return chunk
        self._ready = self._undoing.feed(chunk)
        return await self._undone()

    async def _undone(self) -> bytes:
        """The next piece out of the last chunk that came; b"" when there is none left."""
        try:
            return await asyncio.to_thread(next, self._ready, b"")
        except ValueError:
            raise StoreUnavailable("the data was damaged on the way") from None

    async def aclose(self) -> None:
        await self._stack.aclose()


class Windows:
    """The bytes from `current` on up to `end` (of the object). A class: a dropped generator would end only when
    collected. `aclose` ends all requests."""

    def __init__(self, client: Client, key: str, current: Open, end: int) -> None:
        self._client, self._key, self._tag = client, key, current.tag
        self._current: Open | None = current
        current.last = end - 1 if current.whole else min(current.last, end - 1)
        self._next, self._end = current.last + 1, end
        self._ahead: deque[asyncio.Task[Open]] = deque()
        self._room, self._size = 1, WINDOW
        self._since, self._from = time.monotonic(), current.at

    def __aiter__(self) -> Windows:
        return self

    async def __anext__(self) -> bytes:
        if self._current is None:
            raise StopAsyncIteration
        self._ask_ahead()
        chunk = await self._bytes(self._current)
        if self._current.at > self._current.last:
            await self._turn()
        return chunk

    def _ask_ahead(self) -> None:
        while self._next < self._end and len(self._ahead) < self._room:
            last = min(self._next + self._size, self._end) - 1
            self._ahead.append(asyncio.ensure_future(self._opened(self._next, last)))
            self._next = last + 1

    async def _turn(self) -> None:
        """On to the next window."""
        done, self._current = self._current, None
        if done is not None:
            await done.aclose()
            now = time.monotonic()
            if done.at - self._from > _FAST * (now - self._since):
                self._room, self._size = min(AHEAD, self._room + 1), min(_LARGE, 2 * self._size)
            else:
                self._room, self._size = 1, WINDOW
            self._since, self._from = now, done.at
        self._ask_ahead()
        if self._ahead:
            await asyncio.wait((self._ahead[0],))  # stays ours to close when we are cancelled here
            self._current = self._ahead.popleft().result()
            await self._look(self._current)

    async def _bytes(self, window: Open) -> bytes:
        for attempt in range(_AGAIN + 1):
            try:
                return await window.next()
            except StoreUnavailable as error:
                if attempt == _AGAIN or isinstance(error, Hung) or not error.temporary:
                    raise
            await asyncio.sleep(_PAUSE * attempt)
            await window.aclose()
            self._current = window = await self._opened(window.at, window.last)
            await self._look(window)
        raise AssertionError("unreachable")

    async def _look(self, window: Open) -> None:
        """An answer with everything makes all others needless."""
        if window.whole:
            window.last, self._next = self._end - 1, self._end
            await self._drop_ahead()

    async def _opened(self, first: int, last: int) -> Open:
        async def once() -> Open:
            window = Open(self._client, self._key, first, last, self._tag)
            try:
                await window.begin()
            except BadRange:
                await window.aclose()
                raise BlobError("the data was changed while it was being read") from None
            except BaseException:
                await window.aclose()
                raise
            return window

        return await self._client.again(once)

    async def _drop_ahead(self) -> None:
        for task in self._ahead:
            task.cancel()
        for found in await asyncio.gather(*self._ahead, return_exceptions=True):
            if isinstance(found, Open):
                await found.aclose()
        self._ahead.clear()

    async def aclose(self) -> None:
        """End all requests, also those ahead."""
        await self._drop_ahead()
        if self._current is not None:
            await self._current.aclose()
        await asyncio.sleep(0)  # the event loop closes the sockets one turn later
