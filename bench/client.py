"""The load: one process beside the servers, as light as sockets allow. `python -m bench.client` reads a
specification (JSON) from its standard input and writes what it saw to its standard output.

Nothing is judged here: an answer that was not asked for is counted and named, and the row decides.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
PIECE = 1 << 20
# as long as the id that takes its place: the length of a body is known before
NEW = "@NEW" + "@" * 32


class Closed(Exception):
    """The server closed the connection before a whole answer."""


class Connection:
    """One HTTP/1.1 connection, made again when the server closed it (or for each request, if not `keep`)."""

    def __init__(self, spec: Spec) -> None:
        self._address = (spec["host"], spec["port"])
        self._keep = spec.get("keep", True)
        self._timeout = spec.get("timeout", 300)
        self._sock: socket.socket | None = None
        self._buffer = memoryview(bytearray(PIECE))

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def open(self) -> socket.socket:
        if self._sock is None:
            sock = socket.create_connection(self._address, self._timeout)
            # blocking, with the kernel's own timeout: no poll before each call
            sock.setblocking(True)
            limit = struct.pack("ll", self._timeout, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock = sock
        return self._sock

    def request(self, head: bytes) -> tuple[int, int]:
        """Send a whole request and read the whole answer; (status, bytes of its body)."""
        fresh = self._sock is None
        try:
            self.open().sendall(head)
            return self.answer()
        except (Closed, ConnectionError):
            self.close()
            if fresh:
                raise
            self.open().sendall(head)
            return self.answer()

    def answer(self) -> tuple[int, int]:
        """Read one answer to its end."""
        sock = self.open()
        head = b""
        while True:
            piece = sock.recv(65536)
            if not piece:
                self.close()
                raise Closed
            head += piece
            end = head.find(b"\r\n\r\n")
            if end >= 0:
                break
        body = len(head) - end - 4
        lines = head[:end].lower().split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        length: int | None = None
        keep, chunked = self._keep, False
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                keep = keep and b"close" not in value
            elif name == b"transfer-encoding":
                chunked = b"chunked" in value
        if status == 204:
            length = 0
        if chunked:
            text = head[end + 4 :]
            while not text.endswith(b"0\r\n\r\n"):
                piece = sock.recv(65536)
                if not piece:
                    raise Closed
                text += piece
            body = len(text)
        elif length is None:
            while count := sock.recv_into(self._buffer):
                body += count
            keep = False
        else:
            while body < length:
                wanted = min(length - body, PIECE)
                count = sock.recv_into(self._buffer, wanted, socket.MSG_WAITALL)
                if not count:
                    raise Closed
                body += count
        if not keep:
            self.close()
        return status, body


def head(spec: Spec, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    """The bytes of a request, its small body included."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {spec['host']}:{spec['port']}", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in {**spec.get("headers", {}), **headers}.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not spec.get("keep", True):
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return values[min(len(values) - 1, int(len(values) * share))]


def load(spec: Spec) -> Spec:
    """Requests one after another on each connection for `seconds` (or `count` each); `steps` in a circle.

    In a step, @NEW@ is a new id for each round, @MINE@ the connection's own entry of `mine`. `range`:
    (length, whole) asks for a random piece. An answer later than `timeout` counts as one of that time.
    """
    latencies: list[float] = []
    odd: dict[str, int] = {}
    lock = threading.Lock()
    gate = threading.Barrier(spec["connections"] + 1)
    seconds, most = spec.get("seconds", 5), spec.get("count", 1 << 60)
    expect = set(spec.get("expect", [200]))

    def run(number: int) -> None:
        connection = Connection(spec)
        mine = spec.get("mine") or [""]
        times: list[float] = []
        strange: dict[str, int] = {}
        fixed = []
        for method, path, headers, body in spec["steps"]:
            words = [
                None if word is None else word.replace("@NEW@", NEW).replace("@MINE@", mine[number % len(mine)])
                for word in (path, body)
            ]
            content = None if words[1] is None else words[1].encode()
            fixed.append(head(spec, method, words[0] or "", headers, content))
        changing = [NEW.encode() in text for text in fixed]
        gate.wait()
        end = time.perf_counter() + seconds
        new = b""
        while time.perf_counter() < end and len(times) < most:
            for place, text in enumerate(fixed):
                if place == 0:
                    new = str(uuid.uuid4()).encode()
                if changing[place]:
                    text = text.replace(NEW.encode(), new)  # noqa: PLW2901
                if "range" in spec:
                    length, whole = spec["range"]
                    first = random.randrange((whole - length) // 4096) * 4096
                    mark = f"\r\nRange: bytes={first}-{first + length - 1}\r\n\r\n".encode()
                    text = text[:-4] + mark  # noqa: PLW2901
                began = time.perf_counter()
                try:
                    status, size = connection.request(text)
                    what = "" if status in expect else f"status {status}"
                    if "size" in spec and size != spec["size"]:
                        what = f"{size} bytes"
                except (BlockingIOError, TimeoutError):
                    what = "timeout"
                    connection.close()
                except (Closed, OSError) as error:
                    what = type(error).__name__
                    connection.close()
                times.append(time.perf_counter() - began)
                if what:
                    strange[what] = strange.get(what, 0) + 1
        connection.close()
        with lock:
            latencies.extend(times)
            for what, count in strange.items():
                odd[what] = odd.get(what, 0) + count

    threads = [threading.Thread(target=run, args=(n,)) for n in range(spec["connections"])]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    latencies.sort()
    return {
        "count": len(latencies),
        "wall": wall,
        "rate": len(latencies) / wall,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "max": latencies[-1],
        "odd": odd,
    }


def at_once(count: int, work: Any) -> tuple[float, list[str]]:
    """Run `work(number)` in as many threads; (seconds from the common start to the last end, failures)."""
    gate = threading.Barrier(count + 1)
    failures: list[str] = []

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except (Closed, OSError, ValueError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, failures


def upload(spec: Spec) -> Spec:
    """PUT `size` bytes to each of `paths` at once, from `file` (read again and again, by sendfile)."""
    size, whole = spec["size"], Path(spec["file"]).stat().st_size
    # what the common clients send at a time when they do not announce a length
    step = 65536 if spec.get("chunked") else PIECE
    extra = {"Transfer-Encoding": "chunked"} if spec.get("chunked") else {"Content-Length": str(size)}

    def work(number: int) -> None:
        connection = Connection({**spec, "keep": False})
        sock = connection.open()
        headers = {"Content-Type": "application/octet-stream", **extra}
        sock.sendall(head(spec, "PUT", spec["paths"][number], headers))
        source = os.open(spec["file"], os.O_RDONLY)
        sent = 0
        try:
            while sent < size:
                count = min(step, size - sent, whole - sent % whole)
                if spec.get("chunked"):
                    sock.send(f"{count:x}\r\n".encode(), socket.MSG_MORE)
                start, left = sent % whole, count
                while left:
                    done = os.sendfile(sock.fileno(), source, start, left)
                    start, left = start + done, left - done
                if spec.get("chunked"):
                    sock.sendall(b"\r\n")
                sent += count
            if spec.get("chunked"):
                sock.sendall(b"0\r\n\r\n")
        finally:
            os.close(source)
        status, _ = connection.answer()
        if status != 204:
            raise ValueError(f"status {status}")

    wall, failures = at_once(len(spec["paths"]), work)
    return {"wall": wall, "failures": failures}


def download(spec: Spec) -> Spec:
    """GET each of `paths` at once, `size` bytes each; every byte is copied to us and forgotten."""

    def work(number: int) -> None:
        connection = Connection(spec)
        status, size = connection.request(head(spec, "GET", spec["paths"][number], {}))
        connection.close()
        if status != 200 or size != spec["size"]:
            raise ValueError(f"status {status}, {size} bytes of {spec['size']}")

    wall, failures = at_once(len(spec["paths"]), work)
    return {"wall": wall, "failures": failures}


def main() -> None:
    # many threads that mostly wait: give the interpreter over quickly
    sys.setswitchinterval(0.0005)
    spec = json.loads(sys.stdin.readline())
    if spec["do"] == "slow":
        from bench.slow import slow as work
    else:
        work = {"load": load, "upload": upload, "download": download}[spec["do"]]
    json.dump(work(spec), sys.stdout)


if __name__ == "__main__":
    main()
