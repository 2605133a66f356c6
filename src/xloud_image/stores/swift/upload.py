"""One write to Swift: an object or segments and their manifest, all of it or nothing. Reading: `kit.download`.

Swift decides by time: of two that write one name at once the later wins, and `If-None-Match: *` is looked at when a
request begins, not when it ends. So a write keeps notes beside its data, under names that no key can have:

    <key>/<upload>/open         while it runs; `discard` takes it away, and then the write fails at its end
    <key>/<upload>/publishing   while it puts the final name: of two the one with the higher upload gives way
    <key>/<upload>/00001        a segment

The final name is put last, and only when no other upload is publishing. A manifest is a static one (SLO): Swift looks
at each segment before it takes it, and reading does not depend on a listing that may be late.

Memory: at most 32 MiB of one write wait to be sent (or one chunk of the source, when that is more), and what aiohttp
holds of four requests, 128 KiB each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from xloud_image.errors import ImageServiceError, StoreRefused, StoreUnavailable
from xloud_image.stores.base import finish
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.sentences import key_taken, was_discarded
from xloud_image.stores.swift.client import Body, Container
from xloud_image.stores.swift.segments import Disk, Segments, sent_whole

_log = logging.getLogger(__name__)

_CLEANING: Final = 30.0  # seconds that a failed write cleans up before it leaves the rest to `discard`
_AGAIN: Final = (0.2, 1.0, 3.0)  # seconds before a step that may fail is tried again
_GIVE_WAY: Final = 10.0  # seconds that a publisher waits for another one
_MANIFEST: Final = 300.0  # seconds: Swift looks at every segment
MARK: Final = "X-Object-Meta-Xloud-Upload"  # whose write an object is


class Upload:
    """`make` makes the container when it is missing (None: it may not). `large`: bytes from which
    on segments are used, `segment`: their size in bytes; `disk`: kept there while they are sent. Use it once."""

    def __init__(
        self,
        container: Container,
        key: str,
        *,
        large: int,
        segment: int,
        make: Callable[[], Coroutine[Any, Any, None]] | None,
        disk: Disk | None,
    ) -> None:
        self._container, self._key = container, key
        self._large, self._segment, self._make, self._disk = large, segment, make, disk
        self._id = secrets.token_hex(8)
        self._own = f"{key}/{self._id}/"
        self._segments: dict[str, int] = {}  # sent or being sent, with their sizes once they are stored
        self._notes: set[str] = set()
        self._published = False
        self.etag: str | None = None

    async def run(self, source: AsyncIterator[bytes], size: int | None) -> int:
        """The bytes written. Nothing is left after any failure but a refused cleaning, which is logged."""
        try:
            if size is not None and size < self._large:
                total = await self._whole(source, size)
            else:
                total = await self._in_segments(source, size)
            await self._settle()
        except BaseException:
            await finish(self._undo())
            raise
        return total

    async def _whole(self, source: AsyncIterator[bytes], size: int) -> int:
        await self._alone()
        body = Body(source, size)
        if not size:
            async for _ in body:  # raises: there is more
                pass
            await self._publish(b"", {"Content-Length": "0"}, {})
            return 0
        await self._publish(body, {"Content-Length": str(size)}, {})
        return body.sent

    async def _in_segments(self, source: AsyncIterator[bytes], size: int | None) -> int:
        opened, taken = await asyncio.gather(
            self._note("open"),
            self._container.ask("HEAD", self._key),
            return_exceptions=True,
        )
        for end in (opened, taken):
            if isinstance(end, BaseException):
                raise end
        if not isinstance(taken, BaseException) and taken.ok:
            raise key_taken()
        segments = Segments(self._container, self._own, self._segments, self._segment, self._disk)
        total = await segments.send(source, size)
        await self._alone()
        if not total:
            await self._publish(b"", {"Content-Length": "0"}, {})
            return 0
        manifest = [
            {"path": f"/{self._container.name}/{name}", "etag": segments.etags[name] or None, "size_bytes": length}
            for name, length in self._segments.items()
        ]
        await self._publish(json.dumps(manifest).encode(), {}, {"multipart-manifest": "put"})
        return total

    async def _note(self, kind: str) -> None:
        """Put a note; makes the container when that may be done."""
        name = self._own + kind
        for attempt in (True, False):
            self._notes.add(name)
            try:
                answer = await sent_whole(self._container.ask("PUT", name, headers={"Content-Length": "0"}, data=b""))
            except StoreRefused:
                self._notes.discard(name)
                raise
            if answer.ok:
                return
            self._notes.discard(name)
            if answer.status == 404 and attempt:
                if self._make is None:
                    raise self._container.denied()
                await self._make()
                continue
            raise self._container.failure(answer.status)

    async def _alone(self) -> None:
        """Return when no other upload of the key is publishing; our own note is there for the others to see."""
        await self._note("publishing")
        end = asyncio.get_running_loop().time() + _GIVE_WAY
        while True:
            others = [
                name.split("/")[-2]
                async for name in self._container.names(f"{self._key}/")
                if name.endswith("/publishing") and not name.startswith(self._own)
            ]
            if not others:
                return
            if min(others) < self._id or asyncio.get_running_loop().time() > end:
                raise key_taken()
            await asyncio.sleep(0.05)

    async def _publish(self, data: bytes | Body, headers: dict[str, str], query: dict[str, str]) -> None:
        """Put the final name, if there is none."""
        sent = {"If-None-Match": "*", "Content-Type": "application/octet-stream", MARK: self._id, **headers}
        patience = None if isinstance(data, Body) else _MANIFEST
        body = data if isinstance(data, Body) else None
        self._published = True  # may be, from here on
        answer = await sent_whole(
            self._container.ask("PUT", self._key, query=query, headers=sent, data=data, patience=patience),
            body,
        )
        self._published = answer.ok or answer.status >= 500  # a proxy may fail behind a server that has it
        if answer.ok:
            self.etag = answers.tag(answer.headers) or None
        elif answer.status in (409, 412):
            raise key_taken()
        elif answer.status == 400 and query and await self._discarded():
            raise was_discarded()
        else:
            raise self._container.failure(answer.status)

    async def _discarded(self) -> bool:
        answer = await self._container.ask("HEAD", self._own + "open")
        return answer.status == 404

    async def _settle(self) -> None:
        """Take the notes away; one that is gone was taken by `discard`, and the write with it. The data is complete:
        a note that cannot be taken away is tried again, then left, and only what Swift says undoes the write."""
        for end in await asyncio.gather(*map(self._take_away, sorted(self._notes)), return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    async def _take_away(self, name: str) -> None:
        why = ""
        for wait in (*_AGAIN, None):
            try:
                end = await self._container.ask("DELETE", name)
            except StoreUnavailable as error:
                why = error.message
            else:
                if end.ok:
                    return
                if end.status == 404:  # after an answer that was lost it may have been us
                    if why and await self._is_ours() is not False:
                        return
                    raise was_discarded()
                why = self._container.failure(end.status).message
            await asyncio.sleep(wait or 0)
        if await self._is_ours() is False:
            raise was_discarded()
        _log.warning("store %s: the note %s of a finished upload stays: %s", self._container.store, name, why)

    async def _is_ours(self) -> bool | None:
        """Whether the final name is there and of this upload; None: Swift does not tell now, asked for some seconds."""
        for wait in (*_AGAIN, None):
            with contextlib.suppress(StoreUnavailable):
                there = await self._container.ask("HEAD", self._key, headers={"X-Newest": "true"})
                mark = there.headers.get(MARK)
                if there.status == 404 or (there.ok and mark is not None):
                    return there.ok and mark == self._id
            if wait is not None:
                await asyncio.sleep(wait)
        return None

    async def _undo(self) -> None:
        try:
            async with asyncio.timeout(_CLEANING):
                ours = await self._is_ours() if self._published else False
                if ours is None:  # its segments may be those of an object that is there
                    raise StoreUnavailable("whether the object was made is not known")
                if ours:
                    await self._container.remove([self._key])
                await self._container.remove([*self._segments, *sorted(self._notes)])
        except (ImageServiceError, TimeoutError) as error:
            why = error.message if isinstance(error, ImageServiceError) else "no answer in time"
            _log.warning(
                "store %s: segments of a failed upload stay for now under %s in container %s: %s",
                self._container.store,
                self._own,
                self._container.name,
                why,
            )
