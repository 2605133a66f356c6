"""The image cache: downloads from it beside the file store, and what a hundred first readers cost the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.interference import WithWeb
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run, Seen, middle
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory

if TYPE_CHECKING:
    from bench.peers import Server

READERS = 100
RATE = 8  # MiB a second that a connection gets from the store whose first readers are counted


class WithCache(WithWeb):
    """The same with an image cache."""

    name = "ours-cache"

    def _common(self) -> dict[str, dict[str, str]]:
        sections = super()._common()
        sections["DEFAULT"] |= {
            "image_cache_dir": str(self.directory / "cache"),
            "image_cache_max_size": str(4 * GIB),
        }
        return sections


def row(run: Run) -> None:
    """Cached data to 16 clients beside a file store's; 100 first readers of a store that gives 8 MiB/s a connection."""
    if not run.with_ours:
        return
    folder = new_directory("bench-web")
    log = folder / "access.log"
    web = Nginx(
        server=f"location / {{ access_log {log}; alias {run.source.parent}/; }}\n"
        f"location /slow/ {{ access_log {log}; limit_rate {RATE}m; alias {run.source.parent}/; }}",
    )
    run.stack.callback(web.close)
    web.start()
    WithCache.port_of_web = web.port
    server = run.start(WithCache, "bench_cache", "none")
    try:
        _cached(run, server, web)
        _first(run, server, web, log)
    finally:
        server.stop()


def _registered(run: Run, server: Server, url: str) -> str:
    """An image whose data lies there, when its digest is known."""
    image = run.create(server)
    server.call("POST", f"/v2/images/{image}/locations", {"url": url, "validation_data": {}})
    _wait(lambda: server.call("GET", f"/v2/images/{image}").get("os_hash_value"))
    return image


def _wait(done: object) -> None:
    assert callable(done)
    end = time.monotonic() + 300
    while not done():
        if time.monotonic() > end:
            raise Broken("the cache does not get what it should")
        time.sleep(0.1)


def _has(server: Server, image: str) -> bool:
    return image in {one["image_id"] for one in server.call("GET", "/v2/cache")["cached_images"]}


def _cached(run: Run, server: Server, web: Nginx) -> None:
    size = run.source.stat().st_size
    images = {"file": run.uploaded(server, size), "cache": _registered(run, server, f"{web.url}/{run.source.name}")}
    server.call("PUT", f"/v2/cache/{images['cache']}")
    _wait(lambda: _has(server, images["cache"]))
    seen: dict[str, list[Seen]] = {name: [] for name in images}
    for _ in range(run.repeats + 1):
        for name, image in images.items():
            paths = [f"/v2/images/{image}/file"] * 16
            seen[name].append(run.measure(server, "download", paths=paths, size=size))
    # the first one only warmed the page cache
    best = {name: middle(some[1:]) for name, some in seen.items()}
    rate = {name: 16 * size / MIB / one.wall for name, one in best.items()}
    cpu = {name: one.cpu * GIB / (16 * size) for name, one in best.items()}
    work = "16 clients; peer: our file store"
    run.report.add("cache", work, "MiB/s", HIGHER, peer=rate["file"], ours=rate["cache"], times=0.9)
    run.report.add("cache", work, "CPU-s/GiB", LOWER, peer=cpu["file"], ours=cpu["cache"])


def _first(run: Run, server: Server, web: Nginx, log: Path) -> None:
    size = run.source.stat().st_size // 4
    part = run.source.parent / "random-64m"
    with run.source.open("rb") as source:
        part.write_bytes(source.read(size))
    image = _registered(run, server, f"{web.url}/slow/{part.name}")
    path = f"/v2/images/{image}/file"
    walls, cpu = {}, 0.0
    for count in (1, READERS):
        before = len(log.read_text().splitlines())
        seen = run.measure(server, "download", paths=[path] * count, size=size)
        walls[count], cpu = seen.wall, seen.cpu
        _wait(lambda: _has(server, image))
        reads = [line for line in log.read_text().splitlines()[before:] if '"GET ' in line]
        if len(reads) != 1:
            raise Broken(f"{count} readers read the store {len(reads)} times")
        server.call("DELETE", f"/v2/cache/{image}")
    work = f"{size // MIB} MiB from a store of {RATE} MiB/s, first read by"
    run.report.add("cache", f"{work} one", "s", LOWER, ours=walls[1])
    run.report.add(
        "cache",
        f"{work} {READERS} at once (one read of the store)",
        "s",
        LOWER,
        ours=walls[READERS],
        at_most=1.3 * walls[1],
        target="1.3× one",
        note=f"CPU-s/GiB: {cpu * GIB / (READERS * size):.2f}",
    )
