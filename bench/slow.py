"""The slow clients: many uploads and downloads at a low, steady rate, from one thread.

Runs inside the client process (`bench.client`) until its standard input ends.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any

from bench.client import head

Spec = dict[str, Any]
BEAT = 0.1


class Transfer:
    """One slow connection: how much it may move by now, and how much it did."""

    def __init__(self, spec: Spec, kind: str, path: str) -> None:
        self.kind = kind
        self.moved = 0
        self.state = "connecting"
        self._rate = spec["rate"]
        self._piece = memoryview(bytes(os.urandom(self._rate)))
        self._space = bytearray(65536)
        self._open_since = 0.0
        self.sock = socket.socket()
        if kind == "download":
            # or the kernel would take the image for us
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            self._head = head(spec, "GET", path, {})
        else:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(spec["size"])}
            self._head = head(spec, "PUT", path, headers)
        self.sock.setblocking(False)
        self.sock.connect_ex((spec["host"], spec["port"]))

    def connected(self, now: float) -> None:
        """The connection is there: say what we want."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.state = f"not connected: {os.strerror(error)}"
            return
        self.sock.send(self._head)
        self._open_since = now
        self.state = "open"

    def beat(self, now: float) -> None:
        """Move what the rate allows by now, if the other side lets us."""
        allowed = int((now - self._open_since) * self._rate) - self.moved
        # whoever was held up does not make up for it in one burst
        allowed = min(allowed, int(self._rate * BEAT * 3))
        try:
            while allowed > 0:
                if self.kind == "download":
                    count = self.sock.recv_into(self._space, min(allowed, len(self._space)))
                    if not count:
                        self.state = "closed by the server"
                        return
                else:
                    count = self.sock.send(self._piece[: min(allowed, len(self._piece))])
                self.moved += count
                allowed -= count
        except BlockingIOError:
            return
        except OSError as error:
            self.state = f"broken: {error.strerror}"


def slow(spec: Spec) -> Spec:
    """Uploads to `uploads` and downloads from `downloads` (paths) at `rate` bytes per second each.

    Writes one line when all are started. The share is of what the rate allows from the start to the end;
    what the server has not read yet does not count.
    """
    transfers = [Transfer(spec, "upload", path) for path in spec["uploads"]]
    transfers += [Transfer(spec, "download", path) for path in spec["downloads"]]
    selector = selectors.DefaultSelector()
    for transfer in transfers:
        selector.register(transfer.sock, selectors.EVENT_WRITE, transfer)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    began = time.perf_counter()
    print("started", flush=True)
    running = True
    while running:
        until = time.perf_counter() + BEAT
        while (left := until - time.perf_counter()) > 0:
            for key, _ in selector.select(left):
                if key.data is None:
                    running = False
                    selector.unregister(sys.stdin)
                else:
                    selector.unregister(key.fileobj)
                    key.data.connected(time.perf_counter())
            if not running:
                break
        now = time.perf_counter()
        for transfer in transfers:
            if transfer.state == "open":
                transfer.beat(now)
    wall = time.perf_counter() - began
    unread = _unread(spec["port"])
    for transfer in transfers:
        if transfer.kind == "upload" and transfer.state == "open":
            transfer.moved -= unread.get(transfer.sock.getsockname()[1], 0)
    states: dict[str, int] = {}
    for transfer in transfers:
        states[transfer.state] = states.get(transfer.state, 0) + 1
        transfer.sock.close()
    share = {}
    for kind in ("upload", "download"):
        moved = [t.moved for t in transfers if t.kind == kind]
        if moved:
            share[kind] = max(0, sum(moved)) / (len(moved) * wall * spec["rate"])
            share[f"{kind}, the slowest"] = max(0, min(moved)) / (wall * spec["rate"])
    return {"wall": wall, "share": share, "states": states}


def _unread(port: int) -> dict[int, int]:
    """Bytes that wait in the kernel, on either side, for the server on `port`, by the port of the client."""
    waiting: dict[int, int] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
        sending, _, received = fields[4].partition(":")
        if local == port:
            waiting[remote] = waiting.get(remote, 0) + int(received, 16)
        elif remote == port:
            waiting[local] = waiting.get(local, 0) + int(sending, 16)
    return waiting
