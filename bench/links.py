"""A web server whose connections bring so many MiB a second each, as those over a wide network do; in its own process.

nginx's `limit_rate` is no such thing: it counts in whole seconds, and a window is there before the first one ends.
`python -m bench.links [MIB_A_SECOND [MILLISECONDS]]` reads 512 MiB over one connection and over four, by the fetcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from tests.servers.place import private_address
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.rules import Limits, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
_PIECE: Final = 256 << 10
_SIZE: Final = 512 * MIB


@contextlib.contextmanager
def link(path: str, rate: int, delay: int = 0) -> Iterator[str]:
    """The URL at which the file at `path` is served at `rate` MiB a second for each connection, and each request waits
    for `delay` milliseconds first."""
    words = [sys.executable, "-m", "bench.links", "serve", path, str(rate), str(delay)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://{private_address()}:{int(process.stdout.readline())}/image.raw"
        finally:
            process.terminate()


def _serve(path: str, rate: int, delay: int) -> None:
    size = os.stat(path).st_size

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        due = 0.0  # of this connection: what it has sent takes until then

        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            first, last = 0, size - 1
            time.sleep(delay / 1000)
            if wanted := self.headers.get("Range"):
                begin, _, end = wanted.removeprefix("bytes=").partition("-")
                first, last = int(begin), min(int(end), last)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            else:
                self.send_response(200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            with open(path, "rb") as file:
                while first <= last:
                    time.sleep(max(0.0, self.due - time.monotonic()))
                    sent = os.sendfile(self.connection.fileno(), file.fileno(), first, min(_PIECE, last - first + 1))
                    first += sent
                    self.due = max(self.due, time.monotonic() - 0.02) + sent / (rate * MIB)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Server((private_address(), 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


async def _read(url: str, connections: int, *, plain: bool) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    async with Fetcher(Rules(), Limits(connections=connections)) as fetcher:
        begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        async with fetcher.open(url, trusted=True, plain=plain) as found:
            got = 0
            async for chunk in found.chunks():
                got += len(chunk)
        assert got == found.size
        now = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic() - begun, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def _look(rate: int, delay: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(_SIZE)
        with link(file.name, rate, delay) as url:
            for _ in range(2):
                for connections, plain in ((1, True), (4, False)):
                    seconds, used = asyncio.run(_read(url, connections, plain=plain))
                    speed = _SIZE / MIB / seconds
                    print(f"{connections} connections: {speed:.0f} MiB/s, {used:.2f} s of processor time", flush=True)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _look(*(int(word) for word in (*sys.argv[1:], *("50", "0")[len(sys.argv) - 1 :])))
