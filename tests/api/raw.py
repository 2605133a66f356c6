"""Bytes on a socket as no client library would send them, and what comes back."""

import contextlib
import dataclasses
import select
import socket
import time
from collections.abc import Iterable, Iterator

from tests.servers.place import HOST


@dataclasses.dataclass
class Talk:
    """What a connection gave: everything received, the bytes that the kernel took from us, and when (seconds from the
    beginning) the first answer came and the other side closed; None: not within the time given."""

    received: bytes = b""
    sent: int = 0
    answered: float | None = None
    closed: float | None = None

    @property
    def status(self) -> int:
        """Of the first answer; 0 without one."""
        words = self.received.split(b" ", 2)
        return int(words[1]) if len(words) == 3 and words[0].startswith(b"HTTP/") else 0

    @property
    def text(self) -> str:
        return self.received.decode(errors="replace")


def talk(port: int, parts: Iterable[bytes], *, seconds: float = 5) -> Talk:
    """Send the parts (an endless iterable is fine) and listen, both at once, until the other side closes."""
    result = Talk()
    feed = iter(parts)
    with contextlib.closing(socket.create_connection((HOST, port))) as sock:
        sock.setblocking(False)
        begun = time.monotonic()
        left, sending = b"", True
        while (now := time.monotonic() - begun) < seconds:
            if sending and not left:
                left = next(feed, b"")
                sending = bool(left)
            readable, writable, _ = select.select([sock], [sock] if sending else [], [], min(0.2, seconds - now))
            if writable:
                try:
                    count = sock.send(left)
                    result.sent += count
                    left = left[count:]
                except OSError:
                    sending = False
            if readable:
                try:
                    data = sock.recv(1 << 16)
                except ConnectionError:
                    data = b""
                if not data:
                    result.closed = time.monotonic() - begun
                    break
                if result.answered is None:
                    result.answered = time.monotonic() - begun
                result.received += data
    return result


def say(port: int, data: bytes, *, seconds: float = 5) -> Talk:
    """One message, then wait for the end of the connection (ask for `Connection: close`)."""
    return talk(port, [data], seconds=seconds)


def head(method: str, path: str, *headers: str) -> bytes:
    """A request line and headers."""
    lines = [f"{method} {path} HTTP/1.1", "Host: image", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


def drip(first: bytes, byte: bytes, pause: float = 0.2) -> Iterator[bytes]:
    """`first`, then for ever one byte after the other."""
    yield first
    while True:
        time.sleep(pause)
        yield byte


def endless(first: bytes) -> Iterator[bytes]:
    """`first`, then zeros in chunks for ever."""
    yield first
    while True:
        yield b"10000\r\n" + bytes(0x10000) + b"\r\n"
