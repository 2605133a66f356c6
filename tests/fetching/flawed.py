"""A web server with ranges and kept connections on which one thing goes wrong. It counts what it sends."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.servers.place import private_address

CHANGED = "Wed, 21 Oct 2015 07:28:00 GMT"


class Flawed:
    """Gives `data`. What may be set at any time:

    `cut`: bytes of an answer after which the connection ends, `cuts` times. `width`: more requests at once get 503.
    `how`: a request's number (0 is the first) and its range → what is wrong with its answer, "" nothing:
    "whole" (200), "wrong" (another range), "416", "multipart", "more" (bytes behind the range), "bare" (no validator),
    "none" (of its bytes), "page", "packed", "late" (0.3 s), "drip" (a byte at a time), "hang" (in the middle), or a
    status. `tag` and `date`: the validators.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.cut = self.cuts = self.width = 0
        self.how: Callable[[int, tuple[int, int] | None], str] = lambda number, span: ""
        self.tag: Callable[[int], str] = lambda number: '"one"'
        self.other: dict[str, bytes] = {}  # by tag, what it has instead of `data`; as long as that
        self.date: str | None = CHANGED
        self.condition = True  # looks at If-Range; False: all of the file is the answer to it
        self.sent = self.most = 0
        self.seen: list[tuple[int, int] | None] = []
        self._busy = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        flawed = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words: Any) -> None:
                pass

            def do_GET(self) -> None:
                with flawed._lock:
                    flawed._busy += 1
                    flawed.most = max(flawed.most, flawed._busy)
                    number = len(flawed.seen)
                    span = flawed._span(self.headers.get("Range"))
                    flawed.seen.append(span)
                    full = bool(flawed.width) and flawed._busy > flawed.width
                try:
                    with contextlib.suppress(OSError):
                        flawed._answer(self, number, span, full)
                finally:
                    with flawed._lock:
                        flawed._busy -= 1

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients leave."""

        self._server = Server((private_address(), 0), Handler)
        self.url = f"http://{private_address()}:{self._server.server_port}/image.raw"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _span(self, wanted: str | None) -> tuple[int, int] | None:
        if wanted is None:
            return None
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        return int(first), min(int(last), len(self.data) - 1)

    def _answer(
        self, handler: http.server.BaseHTTPRequestHandler, number: int, span: tuple[int, int] | None, full: bool
    ) -> None:
        how = "503" if full else self.how(number, span)
        if how == "late":
            time.sleep(0.3)
        tag, told = self.tag(number), {}
        data = self.other.get(tag, self.data)
        if tag and how != "bare":
            told["ETag"] = tag
        if self.date and how != "bare":
            told["Last-Modified"] = self.date
        condition = handler.headers.get("If-Range")
        if condition is not None and (not self.condition or condition not in (tag, self.date)):
            span = None
        if how.isdigit():
            self._send(handler, int(how), {}, b"")
        elif how in ("page", "packed"):
            name, value = ("Content-Type", "text/html") if how == "page" else ("Content-Encoding", "gzip")
            self._send(handler, 200, {name: value}, data)
        elif span is None or how == "whole":
            self._send(handler, 200, told, data, how)
        elif how == "multipart":
            self._send(handler, 206, {**told, "Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n\r\n--x--")
        else:
            first, last = span
            if how == "wrong":
                first += 1
            told["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            body = data[first : last + 1]
            body = {"more": body + b"more", "none": b""}.get(how, body)
            self._send(handler, 206, told, body, how)

    def _send(
        self, handler: http.server.BaseHTTPRequestHandler, status: int, told: dict[str, str], body: bytes, how: str = ""
    ) -> None:
        handler.send_response(status)
        for name, value in told.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        step = 1 if how == "drip" else 16 << 10
        with self._lock:
            cut = len(body) > self.cut and self.cuts > 0
            self.cuts -= cut
        end = self.cut if cut else len(body)
        at = 0
        while at < end and not self._over.is_set():
            piece = body[at : min(at + step, end)]
            handler.connection.sendall(piece)
            at += len(piece)
            with self._lock:
                self.sent += len(piece)
            if how == "drip":
                time.sleep(0.02)
            if how == "hang" and at >= len(body) // 2:
                self._over.wait(60)
        if cut:
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
