"""The rbd store beside Glance's own driver and `rbd bench` on the same Ceph, without digests; both services on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from bench.peers import Earlier, Glance, Ours, Server
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run, Seen, middle
from tests.servers.ceph import Ceph
from xloud_image.stores.rbd.store import RbdStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path
    from typing import Any

CHUNK = 256 * 1024  # what the API hands to a store
WRITE, GROW, READ = "write, size known", "write, size unknown", "read"

# One process that does what it is told, line by line, through the driver as Glance calls it. Its digests are taken out.
_DRIVER = """
import json, os, resource, sys, time
import glance_store
from glance_store import backend, location
from glance_store.common import utils
from oslo_config import cfg

class Nothing:
    def update(self, data): pass
    def hexdigest(self): return ""

utils.get_hasher = lambda *_, **__: Nothing()
options, size = json.loads(sys.argv[1]), int(sys.argv[2])
conf = cfg.CONF
glance_store.register_opts(conf)
conf([], default_config_files=[])
for name, value in {"stores": ["rbd"], "default_store": "rbd", **options}.items():
    conf.set_override(name, value, group="glance_store")
glance_store.create_stores(conf)
glance_store.verify_default_store()
store = backend.get_store_from_scheme("rbd")
block = os.urandom(1 << 20) * 8

class Source:
    left = size
    def read(self, count=-1):
        count = min(self.left, len(block), count if count >= 0 else self.left)
        self.left -= count
        return block if count == len(block) else block[:count]

places = {}
for line in sys.stdin:
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work = line.strip()
    if work == "delete":
        for uri in places.values():
            store.delete(location.get_location_from_uri(uri, conf=conf))
        places.clear()
    elif work == "read":
        data, _ = store.get(location.get_location_from_uri(places["write, size known"], conf=conf))
        assert sum(map(len, data)) == size
    else:
        known = work.endswith("size known")
        store.size, store.resize_amount = 0, store.WRITE_CHUNKSIZE  # it would go on from the upload before
        places[work] = store.add(f"theirs-{known}", Source(), size if known else 0, "sha512")[0]
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([time.perf_counter() - begun, cpu]), flush=True)
"""


def row(run: Run) -> None:
    """1 GiB into and out of a pool, and a range of 1 MiB at the end of 4 GiB."""
    cluster = Ceph(gib=40)
    cluster.start()
    try:
        asyncio.run(_Row(run, cluster).measure())
    finally:
        cluster.close()


class _InCeph(Server):
    """A service whose only store is the pool of `cluster`."""

    cluster: Ceph

    def _common(self) -> dict[str, dict[str, str]]:
        sections = super()._common()
        sections["DEFAULT"]["enabled_backends"] = "store1:rbd"
        sections["store1"] = {"rbd_store_ceph_conf": str(self.cluster.conf), "rbd_store_user": "glance"}
        return sections


class GlanceInCeph(_InCeph, Glance):
    name = "glance_rbd"


class OursInCeph(_InCeph, Ours):
    name = "ours_rbd"


class EarlierInCeph(_InCeph, Earlier):
    name = "earlier_rbd"


def in_ceph(run: Run) -> None:
    """A cluster for the services whose store is in Ceph, until the end of the run."""
    if not hasattr(_InCeph, "cluster"):
        cluster = _InCeph.cluster = Ceph(gib=40)
        cluster.start()
        run.stack.callback(cluster.close)
        if run.peer is Glance:
            peer_python()


def services(run: Run) -> None:
    """1 GiB through both services into and out of a pool, digests and all, by one client."""
    in_ceph(run)
    peer: type[Server] = GlanceInCeph if run.peer is Glance else EarlierInCeph
    kinds: list[type[Server]] = [peer, *([OursInCeph] if run.with_ours else [])]
    servers = [run.server(kind) for kind in kinds]
    size = 128 * MIB if run.quick else GIB
    seen: dict[tuple[str, str], list[Seen]] = {}
    for turn in range(run.repeats + 1):
        for server in servers:
            image = run.create(server)
            path = f"/v2/images/{image}/file"
            os.sync()
            up = run.measure(server, "upload", paths=[path], size=size, file=str(run.source))
            down = run.measure(server, "download", paths=[path], size=size)
            run.delete(server, [image])
            if turn or run.quick:  # the first one only warmed things
                seen.setdefault(("upload", server.role), []).append(up)
                seen.setdefault(("download", server.role), []).append(down)
    for work in ("upload", "download"):
        best = [middle(seen[work, server.role]) for server in servers]
        rates: list[float | None] = [size / MIB / one.wall for one in best]
        costs: list[float | None] = [one.cpu * GIB / size for one in best]
        rates, costs = [*rates, None], [*costs, None]
        add = run.report.add
        add("rbd-api", f"{work}, 1 client", "MiB/s", HIGHER, peer=rates[0], ours=rates[1], times=2)
        add("rbd-api", f"{work}, 1 client", "CPU-s/GiB", LOWER, peer=costs[0], ours=costs[1])


def modules_of_peer() -> str:
    """The directory of the modules of the peer's environment."""
    words = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([Glance.python(), "-c", words], capture_output=True, text=True, check=True).stdout.strip()


def peer_python() -> Path:
    """The interpreter of the peer's environment, with Ceph's bindings linked into it as into ours."""
    python, place = Glance.python(), modules_of_peer()
    for name in ("rados", "rbd"):
        file = __import__(name).__file__
        link = f"{place}/{os.path.basename(file)}"
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.realpath(file), link)
    return python


class _Row:
    def __init__(self, run: Run, cluster: Ceph) -> None:
        self._run, self._cluster = run, cluster
        self._size = 128 * MIB if run.quick else GIB
        self._block = os.urandom(MIB)
        options = {"rbd_store_ceph_conf": str(cluster.conf), "rbd_store_user": "glance"}
        self._store = RbdStore("fast", {option.name: option.default for option in RbdStore.TYPE.options} | options)
        words = [peer_python(), "-W", "ignore", "-c", _DRIVER, json.dumps(options), str(self._size)]
        self._peer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # wall and processor seconds of the client by work and by who did it
        self._seen: dict[tuple[str, str], list[tuple[float, float]]] = {}

    async def measure(self) -> None:
        """Everything in turn on each; the middle of the turns counts."""
        await self._store.start()
        await self._store.check()
        try:
            for turn in range(self._run.repeats + 1):
                await self._timed(WRITE, "ours", lambda: self._put("known", self._size))
                self._driver(WRITE)
                self._bare(WRITE)
                await self._timed(GROW, "ours", lambda: self._put("grown", None))
                self._driver(GROW)
                await self._timed(READ, "ours", lambda: self._get("known"))
                self._driver(READ)
                self._bare(READ)
                for key in ("known", "grown"):
                    await self._store.delete(self._url(key))
                self._driver("delete")
                if not turn:
                    self._seen.clear()  # it only warmed things
            self._told()
            await self._range()
        finally:
            self._peer.kill()
            self._peer.communicate()
            await self._store.aclose()

    async def _timed(self, work: str, who: str, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        os.sync()  # what was written before is not written now
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await call()
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._seen.setdefault((work, who), []).append((wall, cpu))

    def _driver(self, work: str) -> None:
        os.sync()
        assert self._peer.stdin is not None
        assert self._peer.stdout is not None
        self._peer.stdin.write(f"{work}\n")
        self._peer.stdin.flush()
        answer = self._peer.stdout.readline()
        if not answer:
            raise Broken(f"Glance's driver ended at «{work}»")
        if work != "delete":
            wall, cpu = json.loads(answer)
            self._seen.setdefault((work, "glance_store"), []).append((wall, cpu))

    def _bare(self, work: str) -> None:
        """`rbd bench` with the same blocks and as many in flight, which fills its image before it reads it."""
        os.sync()
        kind = work.partition(",")[0]
        if kind == "write":
            self._cluster.admin("rbd", "create", "images/bench", "--size", f"{self._size}B", "--object-size", "8M")
        words = ("bench", "images/bench", "--io-type", kind, "--io-size", "8M", "--io-threads", "8")
        told = self._cluster.admin("rbd", *words, "--io-total", f"{self._size}B", "--io-pattern", "seq", seconds=300)
        found = re.search(r"bytes/sec:\s+([\d.]+) ([KMG])iB/s", told)
        if found is None:
            raise Broken(f"rbd bench: {told[-500:]}")
        speed = float(found[1]) * {"K": 1 << 10, "M": MIB, "G": GIB}[found[2]]
        self._seen.setdefault((work, "rbd bench"), []).append((self._size / speed, 0))
        if kind == "read":
            self._cluster.admin("rbd", "rm", "images/bench")

    async def _source(self, size: int) -> AsyncIterator[bytes]:
        view = [self._block[start : start + CHUNK] for start in range(0, MIB, CHUNK)]
        for _ in range(size // MIB):
            for chunk in view:
                yield chunk

    def _url(self, key: str) -> str:
        return f"rbd://{self._cluster.fsid}/images/{key}/snap"

    async def _put(self, key: str, size: int | None) -> None:
        await self._store.write(key, self._source(self._size), size=size)

    async def _get(self, key: str, **where: int) -> None:
        async with self._store.open(self._url(key), **where) as reader:
            count = sum([len(chunk) async for chunk in reader.chunks])
        if count != where.get("length", self._size):
            raise Broken(f"{count} bytes were read")

    def _told(self) -> None:
        for work in (WRITE, GROW, READ):
            middle = {
                who: tuple(statistics.median(column) for column in zip(*self._seen[work, who], strict=True))
                for who in ("ours", "glance_store", "rbd bench")
                if (work, who) in self._seen
            }
            rate = {who: self._size / MIB / wall for who, (wall, _) in middle.items()}
            cpu = {who: seconds * GIB / self._size for who, (_, seconds) in middle.items()}
            for who in list(rate)[1:]:
                told = f"{work}, peer: {who}"
                bound = {"times": 1.5} if who == "glance_store" else {"times": 0.8, "target": "≥ 80 % of rbd bench"}
                add = self._run.report.add
                add("rbd", told, "MiB/s", HIGHER, peer=rate[who], ours=rate["ours"], **bound)
                if who == "glance_store":
                    add("rbd", told, "CPU-s/GiB of the client", LOWER, peer=cpu[who], ours=cpu["ours"])

    async def _range(self) -> None:
        size = 4 * GIB
        name = "large"
        self._cluster.admin("rbd", "create", f"images/{name}", "--size", f"{size}B", "--object-size", "8M")
        self._cluster.admin("rbd", "bench", f"images/{name}", *("--io-type", "write", "--io-size", "8M"), seconds=300)
        self._cluster.admin("rbd", "snap", "create", f"images/{name}@snap")
        seen: dict[int, list[float]] = {0: [], size - MIB: []}
        for _ in range(20):
            for offset, times in seen.items():
                begun = time.perf_counter()
                length = MIB if offset else None
                async with self._store.open(self._url(name), offset=offset, length=length) as reader:
                    await anext(aiter(reader.chunks))
                    times.append(1000 * (time.perf_counter() - begun))
        plain, ranged = (statistics.median(times) for times in seen.values())
        work = "first byte of the last MiB of 4 GiB, peer: of a plain read"
        self._run.report.add("rbd", work, "ms", LOWER, peer=plain, ours=ranged, times=0.1, target="≤ 10× a plain read")
