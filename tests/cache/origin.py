"""A web server that has the data of images, counts who reads them, and gives no more bytes than it was told to."""

import contextlib
import hashlib
import http.server
import threading
import time
import uuid
from typing import Any

from tests.load import quiet
from tests.servers.place import private_address
from tests.servers.service import Service

ALL = 1 << 60


class Origin:
    """`reads`: the GETs so far, as (name, first byte). `give`: bytes that each answer may have by now; -1 breaks it
    off. `wrong`: names whose last byte is another one now; `cut`: bytes after which an answer with all of it ends.
    """

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.reads: list[tuple[str, int]] = []
        self.give = ALL
        self.down = False
        self.wrong: set[str] = set()
        self.cut = ALL
        self._changed = threading.Condition()
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    origin._answer(self)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients leave."""

        self._server = Server((private_address(), 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://{private_address()}:{self.port}/{name}"

    def close(self) -> None:
        self.allow(-1)
        self._server.shutdown()
        self._server.server_close()

    def allow(self, count: int = ALL) -> None:
        """So many bytes of each answer, from now on."""
        with self._changed:
            self.give = count
            self._changed.notify_all()

    def whole(self, name: str) -> int:
        """How often all of it was asked for."""
        return self.reads.count((name, 0))

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.strip("/")
        if self.down:
            handler.send_response(503)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        data = self.data[name]
        wanted = handler.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted is not None:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        handler.send_response(200 if wanted is None else 206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(last - first + 1))
        if wanted is not None:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        self.reads.append((name, first))
        body = data[first : last + 1]
        if name in self.wrong:
            body = body[:-1] + bytes([body[-1] ^ 1])
        at = 0
        while at < len(body):
            with self._changed:
                while 0 <= self.give <= at:
                    if not self._changed.wait(60):
                        return
                if self.give < 0:
                    handler.connection.close()
                    return
                count = min(self.give, at + (64 << 10), len(body))
            if wanted is None and at >= self.cut:
                handler.connection.close()
                return
            handler.connection.sendall(body[at:count])
            at = count


def image_of(service: Service, origin: Origin, data: bytes) -> str:
    """An image whose data the web server has, and which the service has compared; its id."""
    name = uuid.uuid4().hex
    origin.data[name] = data
    made = service.request("POST", "/v2/images", json={"name": name, "disk_format": "raw", "container_format": "bare"})
    assert made.status == 201, made
    image = str(made.json()["id"])
    check = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(data).hexdigest()}
    body = {"url": origin.url(name), "validation_data": check}
    assert service.request("POST", f"/v2/images/{image}/locations", json=body).status == 202
    begun = time.monotonic()
    while service.request("GET", f"/v2/images/{image}").json()["status"] != "active":
        assert time.monotonic() - begun < quiet(20)
        time.sleep(0.02)
    origin.reads[:] = [read for read in origin.reads if read[0] != name]
    return image


def name_of(service: Service, image: str) -> str:
    """The name of the web server's file that an image has."""
    return str(service.request("GET", f"/v2/images/{image}").json()["name"])
