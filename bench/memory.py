"""Resident memory: after start and a few requests, and with sixteen uploads in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.processes import Watch, memory, tree
from bench.report import LOWER
from bench.runs import MIB, Broken, Run

if TYPE_CHECKING:
    from bench.peers import Server

Sizes = dict[int, tuple[float, float]]


def resident(run: Run) -> None:
    """Of the largest process (shared pages counted in full) and of all (proportional)."""
    seen = {server.role: _server(run, server) for server in run.both()}
    peer, ours = seen["peer"], seen.get("ours")

    def line(work: str, which: int, at_most: float | None = None) -> None:
        run.report.add(
            "memory",
            work,
            "MiB",
            LOWER,
            peer=peer[which],
            ours=ours[which] if ours else None,
            at_most=at_most,
        )

    line("idle, largest process", 0, at_most=120)
    line("idle, all processes (PSS)", 1)
    line("16 uploads in flight, largest growth of a process", 2, at_most=64)
    line("16 uploads in flight, all processes (PSS)", 3)


def _server(run: Run, server: Server) -> tuple[float, float, float, float]:
    server.restart()
    for _ in range(3):
        run.client(server, "load", steps=[["GET", "/v2/images", {}, None]], connections=8, count=10, seconds=10)
    idle = _now(server)
    images = [run.create(server) for _ in range(16)]
    with Watch(server.pid) as watch:
        seen = run.client(
            server,
            "upload",
            paths=[f"/v2/images/{image}/file" for image in images],
            size=(32 if run.quick else 256) * MIB,
            file=str(run.source),
        )
    if seen["failures"]:
        raise Broken(f"{server.name}: {seen['failures']}")
    run.delete(server, images)
    growth = max(rss - idle[pid][0] if pid in idle else rss for pid, (rss, _) in watch.peak.items())
    return (
        max(rss for rss, _ in idle.values()),
        sum(pss for _, pss in idle.values()),
        growth,
        sum(pss for _, pss in watch.peak.values()),
    )


def _now(server: Server) -> Sizes:
    return {pid: size for pid in tree(server.pid) if (size := memory(pid)) is not None}
