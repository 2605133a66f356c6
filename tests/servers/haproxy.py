"""A HAProxy for tests: proxies as their file has them, below the `global` and `defaults` of an ordinary operator."""

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.servers.place import new_directory, program
from tests.servers.process import Process, run

_HEAD = """\
global
    log stdout format iso local0
defaults
    log global
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""
_STAMP = r"^(\d{4}-\S+T\S+) "
_CALL = re.compile(
    r"(?P<frontend>\S+) (?P<backend>\S+)/(?P<server>\S+) [-\d]+/[-\d]+/[-\d]+/[-\d]+/\+?(?P<took>\d+) "
    r"(?P<status>-?\d+) \+?\d+ \S+ \S+ (?P<ending>\S{4}) .* \"(?P<method>\S+) (?P<path>\S+)"
)
_TURN = re.compile(r"Server (?P<backend>\S+)/(?P<server>\S+) is (?P<state>UP|DOWN)")


class Call(NamedTuple):
    """A request as the log has it; `ended` and `began` in seconds since 1970. `ending`: HAProxy's four letters."""

    server: str
    method: str
    path: str
    status: int
    ending: str
    began: float
    ended: float


class Turn(NamedTuple):
    """A server that went up or down, and when."""

    server: str
    up: bool
    when: float


class HAProxy:
    """`proxies`: text of sections `frontend`, `backend` and `listen`. `ready`: what holds when it has started."""

    def __init__(self, proxies: str, *, ready: Callable[[], bool]) -> None:
        self._proxies, self._ready = proxies, ready
        self._process: Process | None = None
        self._log = Path()

    def start(self) -> None:
        """Start it; what it does not like is told with its words."""
        haproxy = program("haproxy", "haproxy")
        directory = new_directory("haproxy")
        file = directory / "haproxy.cfg"
        file.write_text(_HEAD + self._proxies)
        run([haproxy, "-c", "-q", "-f", file])
        self._log = directory / "log"
        # -db: in the foreground
        self._process = Process("haproxy", [haproxy, "-db", "-f", file], log=self._log, directory=directory)
        self._process.wait_for(self._ready)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    close = stop

    def log(self) -> list[tuple[float, str]]:
        """Its lines so far, each with its time."""
        return [
            (datetime.datetime.fromisoformat(stamp[1]).timestamp(), line)
            for line in self._log.read_text(errors="replace").splitlines()
            if (stamp := re.match(_STAMP, line))
        ]

    def calls(self) -> list[Call]:
        """Every request that has ended."""
        return [
            Call(one["server"], one["method"], one["path"], int(one["status"]), one["ending"],
                 when - int(one["took"]) / 1000, when)
            for when, line in self.log() if (one := _CALL.search(line))
        ]  # fmt: skip

    def turns(self) -> list[Turn]:
        """Every time that a server was found to be up or down."""
        return [
            Turn(one["server"], one["state"] == "UP", when) for when, line in self.log() if (one := _TURN.search(line))
        ]
