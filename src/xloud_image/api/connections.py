"""One client's connection below the requests: how long a request line with its headers may take to come, and the
answer to bytes that are no HTTP. No call of the API is answered here.
"""

from __future__ import annotations

import asyncio
import errno
import re
import resource
import socket
import traceback
import uuid
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE
from multidict import CIMultiDict, CIMultiDictProxy

from xloud_image.api import messages

# the parser's words about a request line that is one, but for its method
_METHOD: Final = re.compile(r"\AInvalid method encountered:\s{1,8}b['\"][A-Za-z-]{1,64} [/*]")
log = structlog.get_logger(__name__)

# From the first byte of a request (of a connection: from its beginning) to the end of its headers; a client that drips
# one byte after the other is cut then. Shorter when `client_socket_timeout` is.
HEADER_SECONDS: Final = 60.0

# After an answer that came before the end of its request, what the client still sends is read and thrown away, so that
# clients that write before they read get the answer: at most for so long in all and in silence, so many bytes, and
# for so many connections of this process at once. Beyond that the connection is cut.
LAST_SECONDS: Final = 60.0
LAST_SILENCE: Final = 5.0
LAST_BYTES: Final = 1024 * 1024 * 1024
LAST_AT_ONCE: Final = 64
_LAST_SHORT: Final = 0.5  # seconds, when there are more than that, or the process ends

# Connections without a request hold a descriptor each. There may be so many of them in a process, and never more than
# half of its descriptors; those that have waited longest go first.
SILENT: Final = 4096
_RESERVE: Final = 32  # descriptors for the rest of a small process
_TELL_EVERY: Final = 60.0  # seconds between two lines of the log about it

# Bytes of a large body that the kernel is asked for at once, because each answer costs a turn of the loop: PIECE after
# an answer of USUAL, which is what asyncio asks for. Room that stays empty costs more than it spares.
PIECE: Final = 1024 * 1024
USUAL: Final = 256 * 1024


def let_go(error: BaseException | None) -> None:
    """Let go of all that an error holds, once nobody asks it any more: by its frames that have ended, by its causes."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        before = error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = before


class Connection(web.RequestHandler):
    """One connection. `header_seconds`: see HEADER_SECONDS. `unread_seconds`: a client that takes nothing of its
    answer for so long is cut by the kernel; 0: never. `keepidle`: seconds of silence until the kernel asks whether
    the client is still there. `since`: when it began to wait for a request (the loop's time).
    """

    __slots__ = (
        "_body", "_gone", "_header_seconds", "_keepidle", "_last", "_late", "_missing", "_over", "_thrown",
        "_unread_seconds", "since",
    )  # fmt: skip

    def __init__(
        self, manager: web.Server, *, header_seconds: float, unread_seconds: float, keepidle: int, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._body: StreamReader | None = None
        self._missing = 0
        self._keepidle = keepidle
        self._last = False
        self._gone: ConnectionError | None = None
        self._thrown = 0
        self._over: asyncio.Future[None] | None = None
        self.since = self._loop.time()
        self._header_seconds = header_seconds
        self._unread_seconds = unread_seconds
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the time of the first request."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._keepidle)
            if self._unread_seconds:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._unread_seconds * 1000))
        self._expect_headers()
        if isinstance(self._manager, _Server):
            self._manager.crowd.joined()

    async def start(self) -> None:
        """Serves until the connection ends. What an aborted request held is let go at once: in a circle with its error
        it would wait for the collector, and thousands of them would stop the loop for a quarter of a second."""
        try:
            await super().start()
        finally:
            let_go(self._gone)
            self._gone = None

    def data_received(self, data: bytes) -> None:
        """Begins the time of a further request, ends that of one whose headers are there."""
        if self._last:
            self._thrown += len(data)
            if self._thrown > LAST_BYTES:
                self._end()
            return
        if self._body is not None:
            if data:  # aiohttp gives nothing when its parser may go on
                self._go_on(self._body, data)
            return
        known = self._request_count
        super().data_received(data)
        if self._request_count != known:
            self._stop_waiting()
            self.since = self._loop.time()
        elif self._late is None and self._current_request is None and not self._messages:
            self._expect_headers()

    def receive_rest(self, body: StreamReader, missing: int) -> None:
        """The next `missing` bytes, one at least, are the rest of `body`: they go to it in pieces of at most PIECE and
        past the parser, which would copy them. What `body` promises stays as it is. Once for a request, whose length
        is known and which asks for no other protocol.
        """
        if self.transport is not None:
            self._body, self._missing = body, missing

    def _go_on(self, body: StreamReader, data: bytes) -> None:
        rest = b""
        if len(data) > self._missing:
            data, rest = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        body.feed_data(data)
        if self.transport is not None:
            size = PIECE if self._missing and len(data) >= USUAL else USUAL
            self.transport.max_size = size  # type: ignore[attr-defined]
        if self._missing:
            return
        assert isinstance(self._manager, _Server)
        body.feed_eof()
        # the parser so far still waits for the bytes that went past it
        self._body, self._parser = None, self._manager.parser(self)
        if rest:
            self.data_received(rest)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._body = None
        self._stop_waiting()
        self._end()

    @property
    def is_silent(self) -> bool:
        """Whether it waits for a request, or for the end of its client's last words."""
        return self._last or (self._waiter is not None and not self._waiter.done())

    async def end_in_stages(self, *, short: bool = False) -> None:
        """The answer has been written and is the last one: say that nothing more comes, then throw away what the client
        still sends, until it closes or a limit is reached. A connection that closes with unread bytes is reset, and
        its client would lose the answer.
        """
        transport = self.transport
        if transport is None or self._last or not isinstance(self._manager, _Server):
            return
        crowd = self._manager.crowd
        self.close()
        self._last = True
        self._over = self._loop.create_future()
        seconds = LAST_SECONDS
        if short or crowd.lasting >= LAST_AT_ONCE:
            seconds = _LAST_SHORT
        crowd.lasting += 1
        try:
            if transport.can_write_eof():
                transport.write_eof()
            transport.resume_reading()
            end, known, silent = self._loop.time() + seconds, -1, 0.0
            while not self._over.done() and (now := self._loop.time()) < end:
                if self._thrown != known:
                    known, silent = self._thrown, now
                elif now - silent >= LAST_SILENCE:
                    break
                await asyncio.wait([self._over], timeout=min(1.0, end - now))
        except (OSError, RuntimeError):
            pass  # it went meanwhile
        finally:
            crowd.lasting -= 1

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _make_error_handler(self, err_info: Any) -> Any:
        """Answers what is no request, and reads on until the client has seen the answer."""
        plain = super()._make_error_handler(err_info)

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            response = await plain(request)
            await response.prepare(request)
            await response.write_eof()
            await self.end_in_stages()
            return response

        return handler

    def end_if_idle(self) -> None:
        """Close it if it waits for a request, after what it was answered has been sent.

        aiohttp's `close` would take no more data of a request that is being sent, and leaves an idle socket open.
        """
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def _expect_headers(self) -> None:
        self._late = self._loop.call_later(self._header_seconds, self._cut)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        self._late = None
        if self._current_request is None and not self._messages:
            log.info("a client was cut: its headers did not come", seconds=self._header_seconds)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, and to failures outside of the application.

        The log gets the kind of the fault only: what the parser says quotes the client's headers, tokens included.
        """
        request_id = f"req-{uuid.uuid4()}"
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            self._gone = ConnectionError("the client is gone, or its answer has begun already")
            raise self._gone from exc
        if isinstance(exc, LineTooLong):
            status, message = 431, "The request line or a header is too long."
        elif isinstance(exc, HttpProcessingError) and _METHOD.search(exc.message):
            status, message = 501, f"The methods that are known here are {', '.join(sorted(messages.METHODS))}."
        elif isinstance(exc, HttpProcessingError):
            # the lines after the first one quote what was sent
            message = f"This is no HTTP request: {exc.message.strip().partition(chr(10))[0]}"
        if not isinstance(exc, HttpProcessingError) and status >= 500:
            log.error("a request failed outside of the application", request=request_id, exc_info=exc)
            message = f"The service failed; the log says more under {request_id}."
        else:
            log.info("not a request", request=request_id, client=request.remote, kind=type(exc).__name__)
        answer = web.Response(
            status=status,
            text=f"{message}\n",
            headers={"x-openstack-request-id": request_id, "Server": "xloud-image"},
        )
        answer.force_close()
        return answer


class Crowd:
    """The connections of a process: how many may be silent, and what happens when descriptors run out."""

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._silent = SILENT if limit < 0 else max(8, min(SILENT, (limit - _RESERVE) // 2))
        self._cut = 0
        self._told = -_TELL_EVERY
        self.lasting = 0  # connections that are in the last stage of being closed

    def joined(self) -> None:
        """One more connection: room for it is made when too many are silent."""
        connections = self._server.connections
        if len(connections) > self._silent:
            silent = self._waiting()
            if len(silent) > self._silent:
                # several at once, so that not every further one looks through all of them
                self._end(silent[: len(silent) - self._silent + self._silent // 16], "too many wait without a request")

    def no_more(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the loop says when something failed below our code, above all that there is no descriptor left."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            silent = self._waiting()
            self._end(silent[: max(1, len(silent) // 4)], f"the process has no descriptor left ({error.strerror})")
        else:
            self._loop.default_exception_handler(context)

    def _waiting(self) -> list[Connection]:
        found = [one for one in self._server.connections if isinstance(one, Connection) and one.is_silent]
        return sorted(found, key=lambda one: one.since)

    def _end(self, silent: list[Connection], why: str) -> None:
        for one in silent:
            one.force_close()
        self._cut += len(silent)
        now = self._loop.time()
        if now - self._told >= _TELL_EVERY:
            log.warning("connections without a request were cut", reason=why, cut=self._cut)
            self._told, self._cut = now, 0


class _Server(web.Server):
    """Makes the connections."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.crowd = Crowd(self, self._loop)
        self._loop.set_exception_handler(self.crowd.no_more)

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def parser(self, connection: Connection) -> HttpRequestParser:
        """One that waits for a request of the connection, as that had it at its beginning."""
        return HttpRequestParser(
            connection,
            self._loop,
            self._kwargs["read_bufsize"],
            max_line_size=connection.max_line_size,
            max_headers=connection.max_headers,
            max_field_size=connection.max_field_size,
            payload_exception=web.RequestPayloadError,
            auto_decompress=self._kwargs["auto_decompress"],
            max_msg_queue_size=MAX_MSG_QUEUE_SIZE,
        )


def end_idle(server: web.Server) -> None:
    """Close every connection that has no request; the others go on."""
    for connection in server.connections:
        if isinstance(connection, Connection):
            connection.end_if_idle()


class Runner(web.AppRunner):
    """aiohttp's runner, with our connections. Options: those of aiohttp's RequestHandler, and those of `Connection`."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        # aiohttp has no other way to give a server its kind of connection
        loop, options = made._loop, made._kwargs  # noqa: SLF001
        return _Server(made.request_handler, request_factory=_plainly(made.request_factory), loop=loop, **options)


def _plainly(factory: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """The same factory for messages that aiohttp looks at before every handler of ours, where it fails on some.

    A target with a host (`GET http://host/path`) is its path under a header Host (RFC 9112, section 3.2.2): aiohttp
    would decode the name. An expectation is ASCII: aiohttp's answer to most of them quotes it.
    """

    def made(message: Any, *args: Any) -> web.BaseRequest:
        if message.url.absolute or hdrs.EXPECT in message.headers:
            headers = CIMultiDict(message.headers)
            if message.url.absolute:
                headers[hdrs.HOST] = message.url.host_port_subcomponent or ""
            for expected in headers.popall(hdrs.EXPECT, ()):
                headers.add(hdrs.EXPECT, expected.encode("ascii", "replace").decode())
            url = message.url.relative() if message.url.absolute else message.url
            message = message._replace(url=url, headers=CIMultiDictProxy(headers))
        return factory(message, *args)

    return made
