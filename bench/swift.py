"""The swift store beside python-swiftclient and Glance's driver on the same real Swift, all three without a service.

Each piece of work is a process of its own, in the environment that the client belongs to (`swift_clients`); only the
work is timed, after login and a first request. Swift runs on the same cores, so its own processor time bounds all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from typing import TYPE_CHECKING, Any

from bench.peers import Glance
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, STATE, Broken, Run
from tests.servers.place import ROOT, environment
from tests.servers.swift import ENVIRONMENT, Swift

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT = 200 * 1000 * 1024  # the default of the option, and what the client is told
SCRIPT = ROOT / "bench" / "swift_clients.py"
WORKS = ("put, size known", "put, size unknown", "get")


def row(run: Run) -> None:
    """1 GiB to and from Swift, and the first byte of a range at the end of 4 GiB."""
    swift = Swift(run.keystone, workers=2)
    swift.start()
    try:
        swift.call("PUT", "bench")
        _Row(run, swift).measure()
    finally:
        swift.close()


class _Row:
    def __init__(self, run: Run, swift: Swift) -> None:
        self._run, self._swift = run, swift
        self._size = 256 * MIB if run.quick else GIB
        library = environment(ENVIRONMENT, "python").parents[1] / "lib"
        found = list(library.glob("python3*/site-packages"))
        if not found:
            raise Broken(f"no packages under {library}")
        self._packages = found[0]
        self._python = {
            "ours": ROOT / ".venv" / "bin" / "python",
            "client": environment(ENVIRONMENT, "python"),
            "glance": Glance.python(),
        }
        self._seen: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def measure(self) -> None:
        """Everything in turn on each; the middle of the turns counts."""
        source = self._source()
        for _ in range(self._run.repeats):
            for work in WORKS[:2]:
                for who in ("client", "ours", "glance"):
                    if who == "client" and work != WORKS[0]:
                        continue  # it sends files, whose size it knows
                    self._remember(work, who, self._work(who, work, who, size=self._size, file=str(source)))
                    if who == "ours" and work == WORKS[1]:
                        self._remember("get, segments", who, self._work(who, "get", who, size=self._size))
                    self._get_and_remove(work, who)
        source.unlink()
        self._told()
        self._range()

    def _get_and_remove(self, work: str, who: str) -> None:
        """Each reads what it wrote in the first way."""
        if work == WORKS[0]:
            self._remember(WORKS[2], who, self._work(who, "get", who, size=self._size))
        self._swift.client("delete", "bench", who)

    def _source(self) -> Path:
        path = STATE / "swift-source"
        with path.open("wb") as file:
            for _ in range(self._size // MIB):
                file.write(os.urandom(MIB))
        return path

    def _remember(self, work: str, who: str, seen: dict[str, Any]) -> None:
        self._seen.setdefault((work, who), []).append(seen)

    def _work(self, who: str, work: str, name: str, **more: Any) -> dict[str, Any]:
        options = self._swift.options(swift_store_container="bench")
        spec = {
            "options": options,
            "login": {
                "auth_url": self._swift.keystone.url,
                "user": "glance",
                "key": "servicepass",
                "project": "service",
            },
            "container": "bench",
            "name": name,
            "segment": SEGMENT,
            "conf": str(STATE / "swift-glance.conf"),
            "swiftclient": str(self._packages),
            **more,
        }
        os.sync()  # what was written before is not written now
        done = subprocess.run(
            [self._python[who], SCRIPT, who, work, json.dumps(spec)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "no_proxy": "127.0.0.1"},
        )
        if done.returncode:
            raise Broken(f"{who}: {work}: {done.stderr[-1500:]}")
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return seen

    def _middle(self, work: str, who: str, what: str) -> float | None:
        seen = self._seen.get((work, who))
        return statistics.median(one[what] for one in seen) if seen else None

    def _told(self) -> None:
        report, gib = self._run.report, self._size / GIB
        for work in (*WORKS, "get, segments"):
            rates = {who: self._rate(work, who) for who in ("client", "glance", "ours")}
            bare = rates["client"] or self._rate(WORKS[2] if "get" in work else WORKS[0], "client")
            if bare is not None:
                report.add(
                    "swift",
                    f"{work}: of the bare client (it {'reads' if 'get' in work else 'knows the size'})",
                    "%",
                    HIGHER,
                    peer=100.0,
                    ours=None if rates["ours"] is None else 100 * rates["ours"] / bare,
                    at_least=80,
                )
            report.add(
                "swift",
                f"{work}, beside Glance's driver",
                "MiB/s",
                HIGHER,
                peer=rates["glance"],
                ours=rates["ours"],
                times=None if rates["glance"] is None else 1,
                note=f"the bare client: {bare:.0f}" if bare else "",
            )
            cpu = {who: self._middle(work, who, "cpu") for who in ("glance", "ours")}
            report.add(
                "swift",
                f"{work}, the client's processor time",
                "CPU-s/GiB",
                LOWER,
                peer=None if cpu["glance"] is None else cpu["glance"] / gib,
                ours=None if cpu["ours"] is None else cpu["ours"] / gib,
                note="Glance's driver digests besides",
            )
            memory = {who: self._middle(work, who, "rss") for who in ("glance", "ours")}
            report.add(
                "swift",
                f"{work}, largest memory of the process",
                "MiB",
                LOWER,
                peer=None if memory["glance"] is None else memory["glance"] / MIB,
                ours=None if memory["ours"] is None else memory["ours"] / MIB,
            )

    def _rate(self, work: str, who: str) -> float | None:
        wall = self._middle(work, who, "wall")
        return None if wall is None else self._size / MIB / wall

    def _range(self) -> None:
        """The last MiB of a large object: in segments, as an unknown size is written."""
        size = GIB if self._run.quick else 4 * GIB
        self._work("ours", WORKS[1], "large", size=size)
        firsts: dict[str, list[float]] = {"plain": [], "range": [], "client": []}
        where = {"offset": size - MIB, "length": MIB}
        for _ in range(max(3, self._run.repeats)):
            firsts["plain"].append(self._work("ours", "get", "large", size=size, offset=0, length=MIB)["first"])
            firsts["range"].append(self._work("ours", "get", "large", size=size, **where)["first"])
            firsts["client"].append(self._work("client", "get", "large", size=size, **where)["first"])
        self._swift.client("delete", "bench", "large")
        plain, ours, bare = (1000 * statistics.median(firsts[name]) for name in ("plain", "range", "client"))
        self._run.report.add(
            "swift",
            f"first byte of the last MiB of {size // GIB} GiB",
            "ms",
            LOWER,
            peer=bare,
            ours=ours,
            at_most=10 * plain,
            target="10× the first byte from the start",
            note=f"from the start: {plain:.1f} ms; the peer is the bare client, Glance's driver cannot",
        )
