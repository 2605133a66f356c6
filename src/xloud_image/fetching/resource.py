"""A file at a URL that is open: read in order over several connections, or in any order, and taken up where it broke.

In order, `Limits.connections` windows are under way; the next one begins when the first of them has been handed on, and
what comes ahead of its turn is held: never more than that many windows. A server that answers one of them with anything
but the range is read by one plain request from then on. All answers belong to one validator.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final

from xloud_image.errors import BadRange, SourceChanged, SourceUnavailable, TooLarge, Unsupported
from xloud_image.fetching.rules import Limits
from xloud_image.fetching.source import Answer, NoRanges, Source
from xloud_image.streams.tee import Branch

_log = logging.getLogger(__name__)

_LONGEST: Final = 30.0  # seconds between two attempts
_SMALL: Final = 64 * 1024  # bytes below which chunks that wait for their turn are joined
_PROBE: Final = (1, 1)  # not the first byte: it is what servers without ranges give as well


class Resource:
    """`size` in bytes, None when it is not told. `validator`: a text that changes when the file does, None when there
    is nothing of the kind. `ranges`: the server was seen to give a range as one, and there is a validator."""

    def __init__(self, source: Source, limits: Limits, most: int) -> None:
        self.size: int | None = None
        self.validator: str | None = None
        self.ranges = False
        self._source, self._limits, self._most = source, limits, most
        self._condition: str | None = None
        self._held: Answer | None = None  # to a plain request, unread
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._width = limits.connections  # windows at once; fewer once the server has refused one
        self._places = asyncio.Semaphore(limits.connections)

    async def begin(self, *, plain: bool) -> None:
        """Look what is there. `plain`: by one request for all of it, whatever the server could."""
        failures = 0
        while True:
            try:
                await self._look(plain=plain)
            except SourceUnavailable as error:
                await self._stack.aclose()
                failures += 1
                await self._pause(failures, error)
            else:
                return

    async def chunks(self, offset: int = 0, validator: str | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset` on, in order. `validator`: that of the bytes before `offset`.

        `SourceChanged` when they cannot be gone on with: the file is another one now, or cannot be had in parts.
        `SourceUnavailable` after as many attempts as are allowed, `TooLarge`.
        """
        if offset and (not self.ranges or validator != self.validator):
            raise SourceChanged("the file at the URL was changed, or its server gives no parts of it: begin anew")
        if offset < 0 or offset > (self.size or 0):
            raise BadRange(f"the range begins at byte {offset}, the file has {self.size} bytes")
        given = offset
        if self.ranges:
            try:
                async with contextlib.aclosing(self._windows(offset)) as windows:
                    async for chunk in windows:
                        given += len(chunk)
                        yield chunk
            except (NoRanges, SourceChanged) as error:
                if given and isinstance(error, SourceChanged):
                    raise
                self._without_ranges()
            else:
                return
        async with contextlib.aclosing(self._plain(given)) as rest:
            async for chunk in rest:
                yield chunk

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range, fewer at the end of the file. As many at once as there are connections; others wait.

        `Unsupported` without `ranges`; `BadRange` past the end; `SourceChanged`, `SourceUnavailable`.
        """
        if not self.ranges or self.size is None:
            raise Unsupported("the server of the URL gives no parts of the file")
        if offset < 0 or length < 0 or offset > self.size:
            raise BadRange(f"the range begins at byte {offset}, the file has {self.size} bytes")
        found = bytearray()
        try:
            async with self._places:
                await self._range(offset, min(offset + length, self.size), found.extend)
        except NoRanges:
            self._without_ranges()
            raise SourceChanged("the server of the URL does not give parts of the file any more: begin anew") from None
        return bytes(found)

    async def aclose(self) -> None:
        """End all requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _look(self, *, plain: bool) -> None:
        if not plain:
            try:
                answer = await self._stack.enter_async_context(self._source.get(_PROBE))
            except NoRanges:
                pass
            else:
                self._note(answer)
                if not answer.part:
                    self._held = answer
                    return
                self.ranges = self.validator is not None
                await anext(answer.chunks, None)
                await self._stack.aclose()
                if self.ranges:
                    return
        self._held = await self._stack.enter_async_context(self._source.get())
        self._note(self._held)

    def _note(self, answer: Answer) -> None:
        self.size, self.validator, self._condition = answer.size, answer.validator, answer.condition
        if answer.size is not None and answer.size > self._most:
            raise TooLarge(f"the file at the URL has {answer.size} bytes, {self._most} are allowed")

    async def _windows(self, offset: int) -> AsyncGenerator[bytes, None]:
        assert self.size is not None
        at, ahead = offset, deque[_Window]()
        try:
            while True:
                while at < self.size and len(ahead) < self._width:
                    end = min(at + self._limits.window, self.size)
                    window = _Window()
                    window.task = asyncio.create_task(self._fill(window, at, end))
                    self._tasks.add(window.task)
                    ahead.append(window)
                    at = end
                if not ahead:
                    return
                ahead[0].turn.set()
                async for chunk in ahead[0].branch:
                    yield chunk
                self._tasks.discard(ahead.popleft().task)
        finally:
            for window in ahead:
                window.task.cancel()
                self._tasks.discard(window.task)
            await asyncio.gather(*(window.task for window in ahead), return_exceptions=True)

    async def _fill(self, window: _Window, at: int, end: int) -> None:
        try:
            await self._range(at, end, window.give, turn=window.turn)
        except asyncio.CancelledError:
            window.end(SourceUnavailable("the file was closed while it was read"))
            raise
        except Exception as error:  # noqa: BLE001 - raised where the window is read
            window.end(error)
        else:
            window.end(None)

    async def _range(
        self, at: int, end: int, give: Callable[[bytes], object], *, turn: asyncio.Event | None = None
    ) -> None:
        """`give` the bytes from `at` to `end`, all of one file. A server that is there and refuses for now (too many
        connections, often) is asked again when it is the `turn` of this range, and for fewer at once."""
        failures = 0
        while at < end:
            condition = self._condition
            try:
                async with self._source.get((at, end - 1), condition=condition) as answer:
                    self._require_same(answer, condition)
                    async for chunk in answer.chunks:
                        if len(chunk) > end - at:
                            raise NoRanges
                        give(chunk)
                        at += len(chunk)
                if at < end:
                    raise SourceUnavailable("the server of the URL broke off: the data ended too early")
            except NoRanges:
                if condition is None:
                    raise
                self._condition = None  # some servers give ranges, and all of the file when there is a condition
            except SourceUnavailable as error:
                failures += 1
                if turn is not None and error.answered is not None:
                    self._width = max(1, self._width - 1)
                    await turn.wait()
                await self._pause(failures, error)

    def _require_same(self, answer: Answer, condition: str | None) -> None:
        """An answer to a condition may leave the validator out: that it is a part says the same."""
        if answer.size != self.size or answer.validator not in (None, self.validator):
            raise SourceChanged("the file at the URL was changed while it was fetched: begin anew")
        if not answer.part or (answer.validator is None and condition is None):
            raise NoRanges

    async def _plain(self, given: int) -> AsyncGenerator[bytes, None]:
        """What follows the first `given` bytes, by a plain request. Those are thrown away when they come again."""
        async with contextlib.AsyncExitStack() as stack:
            answer, self._held = self._held, None
            if answer is None:
                answer = await stack.enter_async_context(self._source.get())
                changed = given and (answer.validator is None or answer.validator != self.validator)
                if changed or (None not in (self.size, answer.size) and answer.size != self.size):
                    raise SourceChanged("the file at the URL was changed while it was fetched: begin anew")
                self._note(answer)
            at = 0
            async for chunk in answer.chunks:
                at += len(chunk)
                if at > self._most:
                    raise TooLarge(f"the file at the URL has more than the {self._most} bytes that are allowed")
                if at > given:
                    yield chunk[max(0, given - at + len(chunk)) :]
            if self.size is not None and at != self.size:
                raise SourceUnavailable("the server of the URL broke off: the data ended too early")

    def _without_ranges(self) -> None:
        if self.ranges:
            self.ranges = False
            _log.warning("a server that gave a part of a file does not give others; the file is read in one piece")

    async def _pause(self, failures: int, error: SourceUnavailable) -> None:
        """Before the next attempt; `error` when there is none."""
        if failures > self._limits.retries:
            raise error
        self._source.forget()
        await asyncio.sleep(min(_LONGEST, self._limits.pause * 2.0 ** (failures - 1)))


class _Window:
    """A part of the file on its way. `turn`: all that lies before it has been handed on."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self.branch = Branch(asyncio.Event())
        self._small = bytearray()

    def give(self, chunk: bytes) -> None:
        """Chunks of a few bytes each would take many times their size."""
        if self._small or len(chunk) < _SMALL:
            self._small += chunk
            if len(self._small) >= _SMALL:
                self._flush()
        else:
            self.branch.give(chunk)

    def end(self, error: BaseException | None) -> None:
        self._flush()
        self.branch.end(error)

    def _flush(self) -> None:
        if self._small:
            self.branch.give(bytes(self._small))
            self._small.clear()
