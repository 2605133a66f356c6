"""One run: its database, identity, peers (started when first asked for), and how a load is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import amqp

from bench import load
from bench.peers import PROJECT, Everything, Glance, Ours, Server
from bench.processes import Meter
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.memcached import Memcached
from tests.servers.place import HOST, ROOT
from tests.servers.rabbitmq import PASSWORD, USER, RabbitMQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.report import Report

STATE = Path(__file__).parent / ".state"
MIB = 1 << 20
GIB = 1 << 30


class Broken(Exception):
    """A measurement cannot be made, or would not mean what its row says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What one load did: the client's own figures, and processor seconds of the service and of MariaDB."""

    client: dict[str, Any]
    cpu: float
    database_cpu: float

    @property
    def wall(self) -> float:
        return float(self.client["wall"])


@dataclasses.dataclass(slots=True)
class Run:
    """`quick`: small sizes and short loads, for a look; its figures are no results.
    `with_ours`: whether ours is measured, or only the peers. `peer`: what ours is measured beside; `kind`: which of
    ours it is."""

    report: Report
    quick: bool = False
    with_ours: bool = True
    peer: type[Server] = Glance
    kind: type[Server] = Ours
    repeats: int = 3
    # processor seconds a second that neither the load nor the measured servers used, of each load
    others: list[float] = dataclasses.field(default_factory=list)
    stack: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    _mariadb: MariaDB | None = None
    _keystone: Keystone | None = None
    _broker: RabbitMQ | None = None
    _memcached: Memcached | None = None
    _servers: dict[tuple[str, str, int], Server] = dataclasses.field(default_factory=dict)
    _filled: set[str] = dataclasses.field(default_factory=set)
    _tokens: dict[str, str] = dataclasses.field(default_factory=dict)
    _uploaded: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        STATE.mkdir(exist_ok=True)
        if self.quick:
            self.repeats = 1

    # what is shared

    @property
    def mariadb(self) -> MariaDB:
        """The database server of both, durable as in production."""
        if self._mariadb is None:
            server = MariaDB(
                durable=True,
                directory=STATE / "mariadb",
                options=["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"],
            )
            self.stack.callback(server.close)
            server.start()
            self._mariadb = server
        return self._mariadb

    @property
    def keystone(self) -> Keystone:
        """The identity service of both."""
        if self._keystone is None:
            server = Keystone()
            self.stack.callback(server.close)
            server.start()
            self._keystone = server
        return self._keystone

    @property
    def broker(self) -> RabbitMQ:
        """The message bus of a service that tells what it does, with somebody who takes it away."""
        if self._broker is None:
            server = RabbitMQ()
            self.stack.callback(server.close)
            server.start()
            self._broker = server
            self.stack.callback(consume(server))
        return self._broker

    def _authtoken(self) -> dict[str, str]:
        if self._memcached is None:
            self._memcached = Memcached()
            self.stack.callback(self._memcached.close)
            self._memcached.start()
        return self.keystone.authtoken(memcached_servers=self._memcached.address)

    def token(self, user: str) -> dict[str, str]:
        """The headers of one of the identity service's users, with one token for the whole run."""
        if user not in self._tokens:
            self._tokens[user] = self.keystone.token(user)
        return {"X-Auth-Token": self._tokens[user]}

    def who(self, auth: str) -> dict[str, str]:
        """Headers of the caller that a row is about: the fixed admin, or a member of a project."""
        return self.token("demo") if auth == "keystone" else {}

    # the peers

    def server(self, kind: type[Server], auth: str = "none", threads: int = 0) -> Server:
        """A running server of this kind, on a database of its own."""
        key = (kind.name, auth, threads)
        if key not in self._servers:
            name = "_".join(map(str, ("bench", *key)))
            self.mariadb.sql(f"drop database if exists {name}")
            self._servers[key] = self.start(kind, name, auth, threads)
        return self._servers[key]

    def start(self, kind: type[Server], database: str, auth: str, threads: int = 0) -> Server:
        """Start a server on a database (made if it is not there); it stops with the run."""
        self.mariadb.sql(f"create database if not exists `{database}` character set utf8mb4")
        server = kind(
            STATE / kind.name / database,
            database=self.mariadb.url(database),
            auth=auth,
            authtoken=self._authtoken() if auth == "keystone" else None,
            threads=threads,
        )
        if isinstance(server, Everything):
            server.switch_on(self.keystone, self.broker.url)
        server.database = database
        self.stack.callback(server.stop)
        server.start()
        return server

    def pair(self, auth: str = "none") -> tuple[Server, Server | None]:
        """The peer, and ours if it takes part."""
        return self.server(self.peer, auth), self.ours(auth)

    def ours(self, auth: str = "none") -> Server | None:
        """Ours, if it takes part."""
        return self.server(self.kind, auth) if self.with_ours else None

    def both(self, auth: str = "none") -> list[Server]:
        """As `pair`, without the one that is not there."""
        return [server for server in self.pair(auth) if server is not None]

    # what they hold

    def fill(self, server: Server, count: int = 10_000) -> None:
        """Have `count` images in its database."""
        if server.database not in self._filled:
            owner = self.keystone.project_id("demo") if server.auth == "keystone" else PROJECT
            load.fill(self.mariadb, server.database, count, owner)
            self._filled.add(server.database)

    def create(self, server: Server, headers: dict[str, str] | None = None, **fields: Any) -> str:
        """A new image, its id."""
        body = {"name": "bench", "disk_format": "raw", "container_format": "bare", **fields}
        made = server.call("POST", "/v2/images", body, headers)
        identity: str = made["id"]
        return identity

    def delete(self, server: Server, images: Iterable[str]) -> None:
        """Delete images and wait until what they wrote is off the disk's queue."""
        for image in images:
            server.call("DELETE", f"/v2/images/{image}")
        os.sync()

    def uploaded(self, server: Server, size: int) -> str:
        """An active image of `size` bytes (one for the whole run), its id."""
        key = (server.database, size)
        if key not in self._uploaded:
            image = self.create(server, name=f"data-{size}")
            seen = self.client(server, "upload", paths=[f"/v2/images/{image}/file"], size=size, file=str(self.source))
            if seen["failures"]:
                raise Broken(f"{server.name}: upload: {seen['failures']}")
            os.sync()
            self._uploaded[key] = image
        return self._uploaded[key]

    @property
    def source(self) -> Path:
        """A file of random bytes, which the client sends (again and again, for larger images)."""
        path = STATE / "random-256m"
        if not path.exists() or path.stat().st_size != 256 * MIB:
            with path.open("wb") as file:
                for _ in range(256):
                    file.write(os.urandom(MIB))
        return path

    # load

    def client(self, server: Server | dict[str, Any], do: str, **spec: Any) -> dict[str, Any]:
        """Run the load process to its end; what it saw."""
        address = server if isinstance(server, dict) else server.address
        done = subprocess.run(
            [sys.executable, "-m", "bench.client"],
            input=json.dumps({"do": do, **address, **spec}) + "\n",
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            raise Broken(f"the load process ended with {done.returncode}:\n{done.stderr[-2000:]}")
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    def measure(self, server: Server, do: str, **spec: Any) -> Seen:
        """A load, with what it costs the server and MariaDB; any odd answer breaks the row."""
        with Meter(server=server.pid, mariadb=self.mariadb.pid) as meter:
            seen = self.client(server, do, **spec)
        wrong = seen.get("failures") or seen.get("odd")
        if wrong:
            raise Broken(f"{server.name}: {do}: {wrong}")
        self.others.append(meter.others / meter.wall)
        return Seen(seen, meter.cpu["server"], meter.cpu["mariadb"])

    @contextlib.contextmanager
    def slow(self, server: Server, **spec: Any) -> Iterator[dict[str, Any]]:
        """Slow clients while the block runs; afterwards the yielded dict says how they fared."""
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        seen: dict[str, Any] = {}
        try:
            child.stdin.write(json.dumps({"do": "slow", **server.address, **spec}) + "\n")
            child.stdin.flush()
            if child.stdout.readline() != "started\n":
                raise Broken("the slow clients did not start")
            time.sleep(1 if self.quick else 3)
            yield seen
            child.stdin.close()
            seen.update(json.loads(child.stdout.read()))
            child.wait(30)
        finally:
            child.kill()
            child.wait()


def consume(broker: RabbitMQ) -> Callable[[], None]:
    """Take notifications away in a thread, as a consumer would; what is returned ends it."""
    over = threading.Event()
    connection = amqp.Connection(f"{HOST}:{broker.port}", userid=USER, password=PASSWORD, heartbeat=0)
    connection.connect()
    channel = connection.channel()
    channel.exchange_declare("glance", "topic", durable=False, auto_delete=False)
    for queue in ("notifications.info", "notifications.error"):
        channel.queue_declare(queue, durable=False, auto_delete=False)
        channel.queue_bind(queue, "glance", queue)
        channel.basic_consume(queue, no_ack=True, callback=lambda _: None)

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.5)
        connection.close()

    taker = threading.Thread(target=run, daemon=True)
    taker.start()

    def stop() -> None:
        over.set()
        taker.join(5)

    return stop


def middle(seen: list[Seen]) -> Seen:
    """The one with the median wall time."""
    wall = statistics.median_low(one.wall for one in seen)
    return next(one for one in seen if one.wall == wall)


def new_ids(count: int) -> list[str]:
    """So many new image ids."""
    return [str(uuid.uuid4()) for _ in range(count)]


def together(seen: list[Seen]) -> Seen:
    """All of them as one: what they cost and did is added up, rates and times are the medians."""
    client: dict[str, Any] = {"count": sum(one.client["count"] for one in seen)}
    for name in ("wall", "rate", "p50", "p99", "max"):
        client[name] = statistics.median(one.client[name] for one in seen)
    return Seen(client, sum(one.cpu for one in seen), sum(one.database_cpu for one in seen))
