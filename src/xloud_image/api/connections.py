"""One client's connection below the requests: how long a request line with its headers may take to come, and the
answer to bytes that are no HTTP. No call of the API is answered here.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

log = structlog.get_logger(__name__)

# From the first byte of a request (of a connection: from its beginning) to the end of its headers; a client that drips
# one byte after the other is cut then. Shorter when `client_socket_timeout` is.
HEADER_SECONDS: Final = 60.0


class Connection(web.RequestHandler):
    """One connection. `header_seconds`: see HEADER_SECONDS. `unread_seconds`: a client that takes nothing of its
    answer for so long is cut by the kernel; 0: never.
    """

    __slots__ = ("_header_seconds", "_late", "_unread_seconds")

    def __init__(self, manager: web.Server, *, header_seconds: float, unread_seconds: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_seconds = header_seconds
        self._unread_seconds = unread_seconds
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the time of the first request."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if self._unread_seconds and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._unread_seconds * 1000))
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Begins the time of a further request, ends that of one whose headers are there."""
        known = self._request_count
        super().data_received(data)
        if self._request_count != known:
            self._stop_waiting()
        elif self._late is None and self._current_request is None and not self._messages:
            self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop_waiting()

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
            raise ConnectionError("the client is gone, or its answer has begun already") from exc
        if isinstance(exc, LineTooLong):
            status, message = 431, "The request line or a header is too long."
        elif isinstance(exc, HttpProcessingError):
            message = f"This is no HTTP request: {exc.message.strip()}"
        if status >= 500:
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


class _Server(web.Server):
    """Makes the connections."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


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
        return _Server(made.request_handler, request_factory=made.request_factory, loop=loop, **options)
