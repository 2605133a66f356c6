"""A source split into segments, and the requests that send them. What becomes of the segments decides `upload`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Coroutine
from typing import IO, Any, Final

from xloud_image.errors import BadRequest, StoreUnavailable
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.chunks import Exactly, Piece
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.swift.client import Answer, Body, Container

AHEAD: Final = 32 << 20  # bytes
PARALLEL: Final = 4  # segments being sent; the next begins while the ones before wait to be stored
MOST_SEGMENTS: Final = 1000  # of one manifest, Swift's default
LARGEST: Final = 5 << 30  # bytes of one object, Swift's default
_STEP: Final = 200  # with an unknown size, segments double after so many
_STUBBORN: Final = 10.0  # seconds that a cancelled write waits for an answer to what is sent already
_AGAIN: Final = (0.5, 1.0)  # seconds before a segment that is kept on disk is sent again
_PIECE: Final = 1 << 20  # bytes read from there at once


@dataclasses.dataclass(frozen=True, slots=True)
class Disk:
    """Where segments are kept until they are stored, so that they can be sent again: files without a name, at most
    `PARALLEL` of an upload. `threads` does the reading and writing."""

    directory: str
    threads: Threads


class _Feed:
    """The bytes of one segment on their way from the source to its request."""

    def __init__(self, name: str, room: int, length: int | None) -> None:
        self.name, self.room, self.length = name, room, length
        self.sent = 0
        self.queue: asyncio.Queue[Piece | None] = asyncio.Queue()


class Segments:
    """Splits a source into segments and sends them. While one waits to be stored the next ones are being sent; a
    segment smaller than what may be read ahead is sent beside its neighbours."""

    def __init__(
        self, container: Container, prefix: str, names: dict[str, int], segment: int, disk: Disk | None
    ) -> None:
        """`names` learns the name of each segment before it is sent, and its bytes once it is stored."""
        self._container, self._prefix = container, prefix
        self._names, self._segment, self._disk = names, segment, disk
        self.etags: dict[str, str] = {}
        self._left = AHEAD
        self._more = asyncio.Event()

    async def send(self, source: AsyncIterator[bytes], size: int | None) -> int:
        """All of it; its bytes. `BadRequest` for another size than announced; the source's errors."""
        slots = asyncio.Semaphore(PARALLEL)
        exactly = Exactly(source, size)
        feed: _Feed | None = None
        try:
            async with asyncio.TaskGroup() as group:
                async for chunk in exactly:
                    rest: Piece = chunk
                    while rest:
                        if feed is None:
                            await slots.acquire()
                            feed = self._begin(size, exactly.total - len(rest))
                            group.create_task(self._put(feed, slots))
                        piece = rest if len(rest) <= feed.room else memoryview(rest)[: feed.room]
                        await self._take(len(piece))
                        feed.queue.put_nowait(piece)
                        feed.room -= len(piece)
                        rest = memoryview(rest)[len(piece) :] if len(piece) < len(rest) else b""
                        if not feed.room:
                            feed.queue.put_nowait(None)
                            feed = None
                if feed is not None:
                    feed.queue.put_nowait(None)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return exactly.total

    def _begin(self, size: int | None, at: int) -> _Feed:
        """The next segment, which begins at byte `at`."""
        number = len(self._names)
        if number >= MOST_SEGMENTS:
            raise BadRequest(f"more data than {MOST_SEGMENTS} segments of 5 GiB can hold")
        name = f"{self._prefix}{number + 1:05}"
        self._names[name] = 0
        if size is None:
            return _Feed(name, min(self._segment << number // _STEP, LARGEST), None)
        each = max(self._segment, -(-size // MOST_SEGMENTS))
        length = min(each, size - at)
        return _Feed(name, length, length)

    async def _take(self, count: int) -> None:
        """Wait until so many bytes may be held besides those that wait to be sent."""
        while self._left < count and self._left < AHEAD:
            self._more.clear()
            await self._more.wait()
        self._left -= count

    def _give(self, count: int) -> None:
        self._left += count
        self._more.set()

    async def _put(self, feed: _Feed, slots: asyncio.Semaphore) -> None:
        if self._disk is None:
            await self._send(feed, Body(self._pieces(feed)), feed.length)
        else:
            await self._keep_and_send(feed, self._disk)
        self._names[feed.name] = feed.sent
        slots.release()

    async def _pieces(self, feed: _Feed) -> AsyncIterator[Any]:
        while (piece := await feed.queue.get()) is not None:
            yield piece
            feed.sent += len(piece)
            self._give(len(piece))

    async def _send(self, feed: _Feed, body: Body, length: int | None) -> None:
        headers = {} if length is None else {"Content-Length": str(length)}
        answer = await sent_whole(self._container.ask("PUT", feed.name, headers=headers, data=body), body)
        if answer.status == 404:
            raise StoreUnavailable(f"the container {self._container.name} went away")
        if not answer.ok:
            raise self._container.failure(answer.status)
        self.etags[feed.name] = answers.tag(answer.headers)

    async def _keep_and_send(self, feed: _Feed, disk: Disk) -> None:
        file = None
        try:
            file = await disk.threads.run(_new_file, disk.directory, lost=_close)
            async for piece in self._pieces(feed):
                await disk.threads.run(file.write, piece)
            await retry(lambda: self._send(feed, Body(_read(file, disk.threads)), feed.sent), _AGAIN)
        except OSError as error:
            raise StoreUnavailable(
                f"it cannot keep a segment in swift_upload_buffer_dir {disk.directory}:"
                f" {(error.strerror or type(error).__name__).lower()}"
            ) from error
        finally:
            if file is not None:
                with contextlib.suppress(StoreUnavailable):
                    disk.threads.submit(lambda: _close(file), must=True)


def _new_file(directory: str) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory)


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # the last bytes may not fit; they are of no use any more
        file.close()


async def _read(file: IO[bytes], threads: Threads) -> AsyncIterator[bytes]:
    await threads.run(file.seek, 0)
    while piece := await threads.run(file.read, _PIECE):
        yield piece


async def sent_whole(work: Coroutine[Any, Any, Answer], body: Body | None = None) -> Answer:
    """A PUT that is not given up once all of it is sent: Swift may still do it, and take it for later than the
    DELETE that follows. Cancelled before that, it ends at once and stores nothing. The cancellation is raised."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            waited, _ = await asyncio.wait((task,), timeout=None if cancelled is None else _STUBBORN)
            if not waited:
                task.cancel()
        except asyncio.CancelledError as error:
            cancelled = error
            if body is not None and not body.ended:
                task.cancel()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen
        raise cancelled
    return task.result()
