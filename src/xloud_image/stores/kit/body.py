"""The body of an answer whose length is known, received beside aiohttp's parser: its protocol is taken from the
connection for the length of the body and put back at its end, when the connection may be used again.

What the socket gives is handed on as it is: no copy, and no turn of the event loop for each packet. While data flows,
the kernel gathers a chunk (SO_RCVLOWAT) before the process is woken; what comes slower is handed on `_SOON` after it
was waited for. Memory: one chunk that waits for the reader, while there is one no more is received. A chunk has up to
1 MiB when the reader is faster than the server, 256 KiB when he is slower, and over TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Final

import aiohttp

from xloud_image.stores.kit import answers

_LARGE: Final = 1024 * 1024  # bytes of a chunk
_SMALL: Final = 256 * 1024  # what asyncio reads at once if not told otherwise
_WORTH: Final = 1024 * 1024  # bytes of a body that is received so
_SOON: Final = 0.1  # seconds of waiting for a whole chunk


class Body(asyncio.Protocol):
    """The chunks of what is left of a body, with at most `idle` seconds of silence between them. See `of`.

    Raises what aiohttp raises: `ClientPayloadError` when the connection ends before the body, `SocketTimeoutError`.
    """

    def __init__(self, response: aiohttp.ClientResponse, length: int, idle: float) -> None:
        connection = response.connection
        assert connection is not None
        assert connection.protocol is not None
        assert connection.transport is not None
        self._loop = asyncio.get_running_loop()
        self._content, self._before, self._transport = response.content, connection.protocol, connection.transport
        self._idle = idle
        self._ready: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._since = 0.0  # when the waiter began to wait
        self._clock: asyncio.TimerHandle | None = None
        self._sock: socket.socket | None = self._transport.get_extra_info("socket")
        self._tls = self._transport.get_extra_info("sslcontext") is not None
        self._paused = False
        self._least = 1  # bytes that are there when the process is woken
        self._pieces = 0  # bytes that are taken as they come, before whole chunks are waited for again
        self._error: Exception | None = None
        self._before.read_timeout = None  # silence is looked at here
        self._before.start_timeout()
        while chunk := self._content.read_nowait():
            self._ready.append(chunk)
        self._left = length - self._content.total_bytes
        if self._left:
            self._transport.set_protocol(self)
            self._transport.resume_reading()
            self._expect(_SMALL)

    @classmethod
    def of(cls, response: aiohttp.ClientResponse, idle: float) -> Body | None:
        """The body of an answer of which nothing was read yet; None where it is the parser's, or too small for this."""
        connection, length = response.connection, answers.length(response.headers)
        if length is None or "Transfer-Encoding" in response.headers or response.content.is_eof():
            return None
        if length - response.content.total_bytes < _WORTH or response.content.exception() is not None:
            return None
        if connection is None or connection.transport is None or connection.transport.is_closing():
            return None
        return cls(response, length, idle)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if self._error is not None:
                raise self._error
            if not self._left:
                raise StopAsyncIteration
            await self._more()
        chunk = self._ready.popleft()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    async def _more(self) -> None:
        """Wait for a chunk, or for the end."""
        self._waiter = self._loop.create_future()
        self._since = self._loop.time()
        if self._clock is None:
            self._tick()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _tick(self) -> None:
        """One timer for many chunks: it looks how long the reader has been waiting."""
        self._clock = None
        if self._waiter is None or self._waiter.done():
            return
        waited = self._loop.time() - self._since
        if self._least > 1 and waited >= _SOON:
            self._pieces = _WORTH
            self._expect(1)
        if waited >= self._idle:
            self._fail(aiohttp.SocketTimeoutError("no data came"))
        else:
            self._clock = self._loop.call_later((_SOON if self._least > 1 else self._idle) - waited, self._tick)

    def _expect(self, size: int) -> None:
        """Chunks of `size` bytes. Of the last ones, where less may come, and after a silence whatever is there."""
        if not self._tls:
            self._transport.max_size = max(size, _SMALL)  # type: ignore[attr-defined]
        if self._pieces or self._left < 2 * size:  # over TLS a part of the next record may have been received
            size = 1
        if self._sock is not None and size != self._least:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)  # wakes at once when there is more
                self._least = size
            self._stop_clock()  # it goes slower or faster from here on

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # what the connection tells

    def data_received(self, data: bytes) -> None:
        """A chunk. After the last one the connection is aiohttp's again; more than the last one ends it."""
        if len(data) > self._left:
            data = data[: self._left]
            self._before.force_close()
        self._left -= len(data)
        self._ready.append(data)
        self._pieces = max(0, self._pieces - len(data))
        if not self._left:
            self._finish()
        elif self._waiter is not None:
            self._expect(_SMALL if self._tls else _LARGE)
        else:
            self._expect(_SMALL)
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _finish(self) -> None:
        self._expect(1)
        self._stop_clock()
        self._transport.set_protocol(self._before)
        self._content.feed_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end of the body."""
        self._stop_clock()
        self._before.connection_lost(exc)
        self._fail(aiohttp.ClientPayloadError("the connection ended before the body"))

    def pause_writing(self) -> None:
        """Nothing more is written, but what was written may still be on its way."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """As above."""
        self._before.resume_writing()
