"""A memcached server for tests."""

import os
import socket

from tests.servers.place import HOST, free_port, new_directory, program
from tests.servers.process import Process


class Memcached:
    """`megabytes`: how much it may hold."""

    def __init__(self, port: int | None = None, *, megabytes: int = 64) -> None:
        self.port = port or free_port()
        self.megabytes = megabytes
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, empty."""
        as_root = ["-u", "root"] if os.geteuid() == 0 else []
        directory = new_directory("memcached")
        self._process = Process(
            "memcached",
            [
                program("memcached", "memcached"),
                *("-l", HOST, "-p", str(self.port), "-U", "0", "-m", str(self.megabytes)),
                *as_root,
            ],
            log=directory / "log",
            directory=directory,
        )
        self._process.wait_for(lambda: self.command("version").startswith("VERSION"))

    def stop(self) -> None:
        """Stop it; all it held is gone."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    close = stop

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        """host:port, as in `memcached_servers`."""
        return f"{HOST}:{self.port}"

    def command(self, line: str) -> str:
        """Send one line (`version`, `stats`, `flush_all`) and return the first part of the answer, or ""."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as sock:
                sock.sendall(line.encode() + b"\r\n")
                return sock.recv(65536).decode()
        except OSError:
            return ""
