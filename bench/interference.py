"""GET one image while slow clients upload and download: nobody may notice them.

Each GET comes on a connection of its own, so that no lucky worker answers them all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench import load
from bench.peers import PROJECT, Glance
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run, new_ids
from tests.servers.process import answers

if TYPE_CHECKING:
    from bench.peers import Server

RATE = 200 * 1024
# longer than any measurement at that rate; a store may reserve it for each of them
UPLOAD = 64 * MIB
# the peer may not answer at all while the slow ones last
PATIENCE = 15
KINDS = {"uploads": (1, 0), "downloads": (0, 1), "uploads and downloads": (1, 1)}


def slow(run: Run) -> None:
    """8 and 200 of each kind, at 200 KiB/s each."""
    peer, ours = run.pair()
    servers = {"peer": peer} | ({"ours": ours} if ours else {})
    if run.peer is Glance:
        servers["threads"] = run.server(Glance, threads=8)
    alone = {name: _p50(run, server)["p50"] for name, server in servers.items()}
    run.report.add(
        "slow",
        "alone",
        "ms p50",
        LOWER,
        peer=1000 * alone["peer"],
        ours=_ms(alone.get("ours")),
        note=_threads(alone),
    )
    for count in (8, 200):
        for kind in KINDS:
            seen = {name: _beside(run, server, count, kind) for name, server in servers.items()}
            p50 = {name: one[0]["p50"] for name, one in seen.items()}
            run.report.add(
                "slow",
                f"{count} slow {kind}",
                "ms p50",
                LOWER,
                peer=1000 * p50["peer"],
                ours=_ms(p50.get("ours")),
                at_most=2000 * alone["ours"] if "ours" in alone else None,
                target="2× alone",
                note=f"{_threads(p50)}; peer waits at most {PATIENCE} s",
            )
            shares = {name: _share(one[1]) for name, one in seen.items()}
            run.report.add(
                "slow",
                f"{count} slow {kind}: rate the slowest gets",
                "%",
                HIGHER,
                peer=shares["peer"],
                ours=shares.get("ours"),
                at_least=90,
                note=f"threads=8: {shares['threads']:.0f} %" if "threads" in shares else "",
            )


def _beside(run: Run, server: Server, count: int, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    up, down = (count * share for share in KINDS[kind])
    images = new_ids(up)
    if up:
        load.queued(run.mariadb, server.database, images, PROJECT)
    big = run.uploaded(server, 128 * MIB if run.quick else GIB)
    with run.slow(
        server,
        uploads=[f"/v2/images/{image}/file" for image in images],
        downloads=[f"/v2/images/{big}/file"] * down,
        rate=RATE,
        size=UPLOAD,
    ) as fared:
        seen = _p50(run, server)
    cut = {state: number for state, number in fared["states"].items() if state != "open"}
    if cut and server.role == "ours":
        raise Broken(f"ours: slow {kind}: {cut}")
    # until it has noticed that they went away
    end = time.monotonic() + 120
    while not answers(f"http://127.0.0.1:{server.port}/versions"):
        if time.monotonic() > end:
            raise Broken(f"{server.name} does not answer after the slow clients went")
    _p50(run, server)
    return seen, fared


def _p50(run: Run, server: Server) -> dict[str, Any]:
    run.fill(server)
    seen = run.client(
        server,
        "load",
        steps=[["GET", f"/v2/images/{load.image_id(4240)}", {}, None]],
        connections=1,
        keep=False,
        seconds=2 if run.quick else 6,
        timeout=PATIENCE,
    )
    odd = {what: number for what, number in seen["odd"].items() if what != "timeout"}
    if odd or (seen["odd"] and server.role == "ours"):
        raise Broken(f"{server.name}: {seen['odd']}")
    return seen


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _threads(p50: dict[str, float]) -> str:
    return f"peer with threads=8: {1000 * p50['threads']:.1f} ms" if "threads" in p50 else ""


def _share(fared: dict[str, Any]) -> float:
    """Per cent of its rate that the slowest of the slow got."""
    return 100.0 * min(float(share) for what, share in fared["share"].items() if "slowest" in what)
