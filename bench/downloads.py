"""Downloads: one and sixteen clients beside Glance and nginx with the same file; ranged reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.peers import Glance
from bench.processes import Meter
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run, Seen, middle, together
from tests.servers.nginx import Nginx
from tests.servers.place import HOST

if TYPE_CHECKING:
    from pathlib import Path


def whole(run: Run) -> None:
    """The whole image of 1 GiB, by one client and by sixteen at once."""
    size = 128 * MIB if run.quick else GIB
    servers = run.both()
    paths = {server.role: f"/v2/images/{run.uploaded(server, size)}/file" for server in servers}
    file = _file(servers[-1].store, size)
    nginx = Nginx(files=file.parent, workers=2)
    nginx.start()
    try:
        for count in (1, 16):
            seen: dict[str, list[Seen]] = {name: [] for name in ("nginx", *paths)}
            for _ in range(run.repeats + 1):
                for server in servers:
                    seen[server.role].append(
                        run.measure(server, "download", paths=[paths[server.role]] * count, size=size)
                    )
                seen["nginx"].append(_nginx(run, nginx, f"/{file.name}", count, size))
            # the first one only warmed the page cache
            best = {name: middle(some[1:]) for name, some in seen.items()}
            _lines(run, count, size, best)
    finally:
        nginx.stop()


def _lines(run: Run, count: int, size: int, best: dict[str, Seen]) -> None:
    work = f"{count} client{'s' if count > 1 else ''}"
    rate = {name: count * size / MIB / seen.wall for name, seen in best.items()}
    cpu = {name: seen.cpu * GIB / (count * size) for name, seen in best.items()}
    run.report.add("download", work, "MiB/s", HIGHER, peer=rate["peer"], ours=rate.get("ours"), note=f"CPU: {cpu}")
    run.report.add(
        "download",
        work,
        "CPU-s/GiB",
        LOWER,
        peer=cpu["peer"],
        ours=cpu.get("ours"),
        times=1 / 0.6,
        target="≤ 0.6× the peer",
    )
    if run.peer is not Glance:
        return
    run.report.add(
        "download",
        f"{work}, peer: nginx",
        "MiB/s",
        HIGHER,
        peer=rate["nginx"],
        ours=rate.get("ours"),
        times=0.8,
        target="≥ 80 % of nginx",
    )
    run.report.add("download", f"{work}, peer: nginx", "CPU-s/GiB", LOWER, peer=cpu["nginx"], ours=cpu.get("ours"))


def ranged(run: Run) -> None:
    """1 MiB from a random place of a large image, one client."""
    size = 128 * MIB if run.quick else GIB
    seen: dict[str, list[Seen]] = {server.role: [] for server in run.both()}
    for turn in range(run.repeats + 1):
        for server in run.both():
            image = run.uploaded(server, size)
            spec: dict[str, Any] = {
                "steps": [["GET", f"/v2/images/{image}/file", {}, None]],
                "range": [MIB, size],
                "expect": [206],
                "size": MIB,
                "connections": 1,
            }
            seconds = 1 if turn == 0 else 2 if run.quick else 4
            seen[server.role].append(run.measure(server, "load", **spec, seconds=seconds))
    # the first turn only warmed the caches
    both = {name: together(some[1:]) for name, some in seen.items()}
    peer, ours = both["peer"], both.get("ours")
    run.report.add(
        "range",
        "1 MiB, one client",
        "ms CPU",
        LOWER,
        peer=1000 * peer.cpu / peer.client["count"],
        ours=1000 * ours.cpu / ours.client["count"] if ours else None,
        times=5,
    )
    run.report.add(
        "range",
        "1 MiB, one client",
        "requests/s",
        HIGHER,
        peer=peer.client["rate"],
        ours=ours.client["rate"] if ours else None,
        times=5,
    )


def _file(store: Path, size: int) -> Path:
    """The file of the image that was uploaded."""
    for path in store.rglob("*"):
        if path.is_file() and path.stat().st_size == size:
            return path
    raise Broken(f"no file of {size} bytes below {store}")


def _nginx(run: Run, nginx: Nginx, path: str, count: int, size: int) -> Seen:
    with Meter(server=nginx.pid) as meter:
        seen = run.client({"host": HOST, "port": nginx.port}, "download", paths=[path] * count, size=size)
    if seen["failures"]:
        raise Broken(f"nginx: {seen['failures']}")
    return Seen(seen, meter.cpu["server"], 0.0)
