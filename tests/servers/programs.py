"""Programs of Python as forks of a process that has imported them: see `imported`. For starts that no test is about."""

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers import imported
from tests.servers.place import new_directory
from tests.servers.process import Process

_SCRIPT = Path(imported.__file__)
_serving: list[Process] = []


class Programs:
    """A set of `imported`. `python`: of the environment in which they are installed, asked for at the first start.
    `options`: of that Python."""

    def __init__(self, name: str, python: Callable[[], Path], *options: str) -> None:
        self._name, self._python, self._options = name, python, options
        self._socket = ""

    @property
    def socket(self) -> str:
        """Its place; from the first call on there is a process that has imported everything."""
        if not self._socket:
            directory = new_directory(self._name)
            path = directory / "socket"
            words = [self._python(), "-P", *self._options, _SCRIPT, "serve", path.name, self._name]
            one = Process(self._name, words, log=directory / "log", directory=directory)
            _serving.append(one)
            one.wait_for(path.exists, 120)
            # a short path: those of sockets are limited
            self._socket = f"/proc/{one.pid}/cwd/socket"
        return self._socket

    def command(self, program: str) -> list[str]:
        """The words that begin a command of it."""
        return [sys.executable, "-IS", str(_SCRIPT), "call", self.socket, program]


def end() -> None:
    """The end of every set; at the end of the session."""
    while _serving:
        _serving.pop().kill()


class Forked(Process):
    """A server that is a program of a set; as a `Process`."""

    def __init__(
        self,
        programs: Programs,
        program: str,
        words: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        directory: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.log = program, log
        surroundings = {**os.environ, "no_proxy": "127.0.0.1,localhost", **environment}
        with log.open("ab") as output, open(os.devnull, "rb") as nothing:
            streams = [nothing.fileno(), output.fileno(), output.fileno()]
            given = [os.fspath(word) for word in words]
            connection = imported.ask(programs.socket, program, given, str(directory), surroundings, streams)
        self._popen = _Child(connection)


class _Child:
    """What `subprocess.Popen` is for a child of our own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = imported.receive(connection)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = imported.receive(self._connection)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)
