"""GET one image while slow clients upload and download, and uploads while registered data are read: nobody may notice.

Each GET comes on a connection of its own, so that no lucky worker answers them all.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any

from bench import load
from bench.peers import PROJECT, Glance, Ours
from bench.processes import tree
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run, new_ids
from tests.servers.nginx import Nginx
from tests.servers.place import HOST
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


class WithWeb(Ours):
    """The same with a store for a web server on this machine, which listens on `port_of_web`."""

    name = "ours-web"
    port_of_web = 0

    def _common(self) -> dict[str, dict[str, str]]:
        sections = super()._common()
        sections["DEFAULT"]["enabled_backends"] += ", web:http"
        sections["import_filtering_opts"] = {"allowed_hosts": HOST, "allowed_ports": str(self.port_of_web)}
        return sections


def hashing(run: Run) -> None:
    """64 MiB by one client while 24 registered locations of 256 MiB are read for their digests.

    In turn with uploads while the web server that they lie on stands still: then nothing of them is read.
    """
    if not run.with_ours:
        return
    size, count, pairs = (16 * MIB, 8, 3) if run.quick else (64 * MIB, 24, 9)
    web = Nginx(server=f"location / {{ alias {run.source.parent}/; }}")
    run.stack.callback(web.close)
    web.start()
    WithWeb.port_of_web = web.port
    server = run.start(WithWeb, "bench_hashing", "none")
    images = new_ids(count)
    for image in images:
        run.create(server, id=image)
        url = f"{web.url}/{run.source.name}"
        server.call("POST", f"/v2/images/{image}/locations", {"url": url, "validation_data": {}})
    seen: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(pairs):
        for reading in (False, True):
            for pid in tree(web.pid):
                os.kill(pid, signal.SIGCONT if reading else signal.SIGSTOP)
            time.sleep(0.5)
            upload = run.create(server)
            path = f"/v2/images/{upload}/file"
            seen[reading].append(run.measure(server, "upload", paths=[path], size=size, file=str(run.source)).wall)
            run.delete(server, [upload])
    if all(server.call("GET", f"/v2/images/{image}").get("os_hash_value") for image in images):
        raise Broken("all registered locations were read before the end")
    server.stop()
    alone, beside = (statistics.median(seen[reading]) for reading in (False, True))
    run.report.add("hashing", f"upload of {size // MIB} MiB, nothing is read", "s", LOWER, ours=alone)
    run.report.add(
        "hashing",
        f"while {count} registered locations are read",
        "s",
        LOWER,
        ours=beside,
        at_most=1.5 * alone,
        target="1.5× alone",
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


def median_get(run: Run, server: Server) -> float:
    """Seconds of GET one image, the median of one client's for some seconds."""
    return float(_p50(run, server)["p50"])


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _threads(p50: dict[str, float]) -> str:
    return f"peer with threads=8: {1000 * p50['threads']:.1f} ms" if "threads" in p50 else ""


def _share(fared: dict[str, Any]) -> float:
    """Per cent of its rate that the slowest of the slow got."""
    return 100.0 * min(float(share) for what, share in fared["share"].items() if "slowest" in what)
