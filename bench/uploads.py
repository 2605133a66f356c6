"""Uploads: one large, four and sixteen at once; what the digests and the write alone would take."""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
from typing import TYPE_CHECKING

from bench.peers import OneDigest
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, STATE, Run, Seen, middle

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.peers import Server


def one(run: Run) -> None:
    """1 GiB by one client, with its length and chunked, beside the digests and the write alone."""
    size = 128 * MIB if run.quick else GIB
    gib = size / GIB
    digests, digests_cpu = _median(run, lambda: _digests(size))
    write, write_cpu = _median(run, lambda: _write(size))
    rate = size / MIB / digests
    run.report.add("upload", "md5 and sha512 alone, two threads", "MiB/s", HIGHER, ours=rate)
    run.report.add("upload", "md5 and sha512 alone", "CPU-s/GiB", LOWER, ours=digests_cpu / gib)
    run.report.add("upload", "bare write and fsync", "MiB/s", HIGHER, ours=size / MIB / write)
    run.report.add("upload", "bare write and fsync", "CPU-s/GiB", LOWER, ours=write_cpu / gib)
    for chunked in (False, True):
        how = "chunked" if chunked else "with length"
        peer, ours = _compare(run, 1, size, chunked)
        run.report.add(
            "upload",
            f"1 client, {how}",
            "MiB/s",
            HIGHER,
            peer=_rate(peer, size),
            ours=_rate(ours, size),
            times=2,
        )
        run.report.add(
            "upload",
            f"1 client, {how}",
            "CPU-s/GiB",
            LOWER,
            peer=peer.cpu / gib,
            ours=ours.cpu / gib if ours else None,
            at_most=(digests_cpu + write_cpu) / gib + 1.0,
            target="digests + write + 1.0",
        )
        share = _rate(ours, size)
        run.report.add(
            "upload",
            f"1 client, {how}: of the digests' rate",
            "%",
            HIGHER,
            peer=100 * size / MIB / peer.wall / rate,
            ours=100 * share / rate if share else None,
            at_least=65,
        )


def many(run: Run) -> None:
    """4 and 16 uploads of 256 MiB at once."""
    each = (16 if run.quick else 256) * MIB
    rates = {}
    for count in (4, 16):
        size = count * each
        peer, ours = _compare(run, count, each, chunked=False)
        rates[count] = _rate(ours, size)
        run.report.add(
            "uploads",
            f"{count} at once",
            "MiB/s",
            HIGHER,
            peer=_rate(peer, size),
            ours=rates[count],
            times=1.5,
        )
        run.report.add(
            "uploads",
            f"{count} at once",
            "CPU-s/GiB",
            LOWER,
            peer=peer.cpu * GIB / size,
            ours=ours.cpu * GIB / size if ours else None,
        )
    four, sixteen = rates[4], rates[16]
    run.report.add(
        "uploads",
        "16 at once beside 4 at once",
        "%",
        HIGHER,
        ours=100 * sixteen / four if four and sixteen else None,
        at_least=95,
        target="no slower, 5 % for noise",
    )


def one_digest(run: Run) -> None:
    """16 uploads of 256 MiB at once with sha256 alone, beside the peer's md5 and sha512."""
    each = (16 if run.quick else 256) * MIB
    seen: dict[str, list[Seen]] = {}
    for _ in range(run.repeats):
        for server in (run.server(run.peer), run.server(OneDigest)):
            seen.setdefault(server.role, []).append(_upload(run, server, 16, each, chunked=False))
    peer, ours, size = middle(seen["peer"]), middle(seen["ours"]), 16 * each
    work = "16 at once, sha256 alone"
    run.report.add("sha256", work, "MiB/s", HIGHER, peer=_rate(peer, size), ours=_rate(ours, size), times=3)
    run.report.add("sha256", work, "CPU-s/GiB", LOWER, peer=peer.cpu * GIB / size, ours=ours.cpu * GIB / size)


def _compare(run: Run, count: int, each: int, chunked: bool) -> tuple[Seen, Seen | None]:
    """Peer and ours in turn, the middle of each."""
    servers = run.both()
    seen: dict[str, list[Seen]] = {server.role: [] for server in servers}
    for _ in range(run.repeats):
        for server in servers:
            seen[server.role].append(_upload(run, server, count, each, chunked))
    return middle(seen["peer"]), middle(seen["ours"]) if "ours" in seen else None


def _upload(run: Run, server: Server, count: int, each: int, chunked: bool) -> Seen:
    images = [run.create(server) for _ in range(count)]
    paths = [f"/v2/images/{image}/file" for image in images]
    os.sync()
    seen = run.measure(server, "upload", paths=paths, size=each, chunked=chunked, file=str(run.source))
    run.delete(server, images)
    return seen


def _rate(seen: Seen | None, size: int) -> float | None:
    return size / MIB / seen.wall if seen else None


def _median(run: Run, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """The medians of (wall, processor) seconds."""
    seen = [work() for _ in range(run.repeats)]
    return statistics.median(wall for wall, _ in seen), statistics.median(cpu for _, cpu in seen)


def _digests(size: int) -> tuple[float, float]:
    """Both digests of the same bytes, a thread each."""
    piece = os.urandom(MIB)

    def work(name: str) -> None:
        digest = hashlib.new(name, usedforsecurity=False)
        for _ in range(size // MIB):
            digest.update(piece)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("md5", "sha512")]
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, time.process_time() - cpu


def _write(size: int) -> tuple[float, float]:
    """A new file on the disk of the stores."""
    piece = os.urandom(MIB)
    path = STATE / "written"
    os.sync()
    began, cpu = time.perf_counter(), time.process_time()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(piece)
        os.fsync(file.fileno())
    seen = time.perf_counter() - began, time.process_time() - cpu
    path.unlink()
    return seen
