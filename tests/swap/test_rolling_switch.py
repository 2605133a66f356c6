"""From Glance to this service and back, one node after the other, under load: no call fails, and both read it all.

Two nodes stand behind a balancer, on one database and the same directories of files. How long each mixture of them is
under load: XLOUD_IMAGE_ROLLING seconds (5).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import hashlib
import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.deploy import traffic
from tests.deploy.traffic import Client, Traffic
from tests.servers.glance import Glance, lay_out
from tests.servers.haproxy import HAProxy
from tests.servers.http import request
from tests.servers.mariadb import MariaDB
from tests.servers.place import HOST, free_port, new_directory
from tests.servers.process import Process, answers, run
from tests.servers.service import command, installed

ROLLING: Final = float(os.environ.get("XLOUD_IMAGE_ROLLING", "5"))
THREADS: Final = 16  # of each of Glance's two processes: it serves a transfer by a thread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 5 * ROLLING)]

_PROXY: Final = """\
global
    stats socket {socket} level admin
    stats timeout 1m
listen glance
    mode http
    option httplog
    option httpchk GET /healthcheck
    balance leastconn
    bind {host}:{port}
    default-server check inter 500ms rise 1 fall 2
"""


class Node(Glance):
    """A place where Glance runs, or this service; `name` is that of the balancer."""

    def __init__(self, name: str, directory: Path, connection: str, files: Path) -> None:
        self.name, self._files = name, files
        super().__init__(directory, connection)
        lay_out(directory, self.port, threads=THREADS)
        # a client that takes 26 KB/s is cut by Glance's server where it may not write for this long
        server = directory / "uwsgi.ini"
        server.write_text(server.read_text().replace("socket-timeout = 30", "socket-timeout = 900"))
        self._ours: Process | None = None

    def store(self, name: str) -> Path:
        """The directory of a store, which both nodes have."""
        return self._files / name

    def serve(self) -> None:
        """Ours, with Glance's configuration, in Glance's place."""
        words: list[str | Path] = [*installed(), "serve", "--config-file", self.configuration]
        self._ours = Process(f"ours {self.name}", words, log=self.directory / "ours", directory=self.directory)
        self._ours.wait_for(lambda: answers(f"{self.url}/healthcheck"), 60)

    @property
    def is_glance(self) -> bool:
        return self._ours is None

    def end(self) -> None:
        """Whichever runs."""
        if self._ours is None:
            self.stop()
            return
        assert self._ours.stop() == 0
        assert "Traceback" not in self._ours.output()
        self._ours = None

    def kill(self) -> None:
        super().kill()
        if self._ours is not None:
            self._ours.kill()


class Site:
    """Two nodes, their balancer, and when one was taken out of it (`away`)."""

    def __init__(self, connection: str) -> None:
        directory, self.port = new_directory("rolling"), free_port()
        (directory / "files").mkdir()
        self.nodes = [Node(name, directory / name, connection, directory / "files") for name in ("left", "right")]
        self._socket = str(directory / "admin")
        text = _PROXY.format(socket=self._socket, host=HOST, port=self.port)
        text += "".join(f"    server {node.name} {HOST}:{node.port}\n" for node in self.nodes)
        self.balancer = HAProxy(text, ready=lambda: answers(f"http://{HOST}:{self.port}/healthcheck"))
        self.away: list[float] = []

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self.balancer.close()

    def _say(self, words: str) -> str:
        """What the balancer answers to an administrator."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(self._socket)
            channel.sendall(words.encode() + b"\n")
            return b"".join(iter(lambda: channel.recv(65536), b"")).decode()

    def _row(self, node: Node) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO(self._say("show stat").removeprefix("# ")))
        return next(row for row in rows if row["pxname"] == "glance" and row["svname"] == node.name)

    def _await(self, node: Node, column: str, value: str) -> None:
        end = time.monotonic() + 120
        while not (found := self._row(node)[column]).startswith(value):
            assert time.monotonic() < end, (node.name, column, found)
            time.sleep(0.2)

    @contextlib.contextmanager
    def without(self, node: Node) -> Iterator[None]:
        """No call goes to a node within, and none is under way there."""
        self._say(f"set server glance/{node.name} state drain")
        self.away.append(time.time())
        self._await(node, "scur", "0")
        yield
        self._say(f"set server glance/{node.name} state ready")
        self._await(node, "status", "UP")

    def read(self, digests: dict[str, str]) -> None:
        """Each node gives out every image, whoever wrote it."""
        for node in self.nodes:
            client = Client(node.port, "")
            assert {image: client.download(image) for image in digests} == digests, node.name

    def race(self) -> None:
        """One image is given data by both nodes at once: one of them has it, and the other is told."""
        for number in range(6):
            image = Client(self.nodes[number % 2].port, "").create("race")
            data = [os.urandom(1 << 20) for _ in self.nodes]

            def put(which: int, image: str = image, data: list[bytes] = data) -> int:
                path = f"{self.nodes[which].url}/v2/images/{image}/file"
                return request("PUT", path, body=data[which], headers={"Content-Type": traffic.BYTES}).status

            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                said = list(pool.map(put, range(2)))
            refused = said[1 - said.index(204)]
            # the very same moment, for which Glance has another code
            of_glance = self.nodes[1 - said.index(204)].is_glance
            assert refused == 409 or (refused == 410 and of_glance), said
            self.read({image: hashlib.sha256(data[said.index(204)]).hexdigest()})


@pytest.fixture
def site(mariadb: MariaDB) -> Iterator[Site]:
    one = Site(mariadb.create_database(charset="utf8mb3").replace("charset=utf8mb3", "charset=utf8mb4"))
    with contextlib.closing(one):
        for node in one.nodes:
            node.start()
        one.balancer.start()
        yield one


def test_there_and_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = site.nodes
    monkeypatch.setattr(traffic, "LONGEST", 300 + 5 * ROLLING)
    load = Traffic(site.port, "", left.stores, lambda: list(site.away))
    with load.running():
        takeover(left, "run")  # both are Glance, and go on
        for node in (left, right):
            with site.without(node):
                node.end()
                node.serve()
            if node is left:
                _beside(site, load)
        time.sleep(ROLLING)
        for node in (left, right):
            with site.without(node):
                node.end()
                if node is right:  # the last of ours has gone
                    assert "gone" in takeover(node, "undo")
                node.start()
            if node is left:
                _beside(site, load)
        time.sleep(ROLLING)
    assert not load.failures, "\n".join(load.failures[:40])
    site.read(load.digests)
    wrong = [call for call in site.balancer.calls() if call.status >= 500 or call.ending != "----"]
    assert not wrong, wrong[:20]
    for kind, least in {"metadata": 100, "download": 5, "upload": 5}.items():
        assert load.counts[kind] >= least, load.counts


def takeover(node: Node, word: str) -> str:
    """`xloud-image takeover <word>` on a node."""
    return run([*command(), "takeover", word, "--config-file", node.configuration], seconds=120)


def _beside(site: Site, load: Traffic) -> None:
    """One node is Glance and the other is ours, for some time."""
    site.race()
    time.sleep(ROLLING)
    site.read(dict(load.digests))
