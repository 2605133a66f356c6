"""A way to a server on which connections break: bytes pass both ways until so many have, and then the connection is
reset. A server from outside, for clients that must go on.
"""

import contextlib
import select
import socket
import struct
import threading

from tests.servers.place import HOST


class Relay:
    """To a port of this machine. `cuts`: the next connection that has passed so many bytes one way is reset; then the
    next number counts, and when the list is empty nothing breaks. `gate`: not set: nothing passes that
    is beyond `until` bytes of a way. `passed`: bytes to the server, of all connections; `back`: from it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.cuts: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.until = 0
        self.broken = self.passed = self.back = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://{HOST}:{self.port}"

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection((HOST, self._target)) as far:
            counts = {near: 0, far: 0}
            while True:
                for source in select.select((near, far), (), ())[0]:
                    chunk = source.recv(65536)
                    if not chunk:
                        return
                    counts[source] += len(chunk)
                    if self._cuts(counts[source], len(chunk), to_server=source is near):
                        for one in (near, far):
                            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if counts[source] > self.until:
                        self.gate.wait(60)
                    (far if source is near else near).sendall(chunk)

    def _cuts(self, count: int, new: int, *, to_server: bool) -> bool:
        with self._lock:
            self.passed += new if to_server else 0
            self.back += 0 if to_server else new
            if not self.cuts or count <= self.cuts[0]:
                return False
            self.cuts.pop(0)
            self.broken += 1
            return True
