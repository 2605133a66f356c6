"""Imports and copies: from asking for one until the image has its data, and what that costs with all processes; and how
the next job is found among many."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from typing import TYPE_CHECKING

from bench.peers import Glance, Ours
from bench.processes import Meter
from bench.report import LOWER
from bench.runs import GIB, MIB, Broken, Run, Seen, middle
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import jobs, schema
from xloud_image.db.engine import Database
from xloud_image.db.tables import jobs as table
from xloud_image.model import utcnow

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.peers import Server

PATIENCE = 600.0  # seconds that an import may take
STORES = ("store1", "store2", "store3")
WAITING, WORKERS, TAKEN = 10_000, 4, 2_000


class _Several:
    """Three file stores, and imports into them."""

    def _common(self) -> dict[str, dict[str, str]]:
        sections: dict[str, dict[str, str]] = super()._common()  # type: ignore[misc]
        directory = self.directory  # type: ignore[attr-defined]
        sections["DEFAULT"]["enabled_backends"] = ", ".join(f"{name}:file" for name in STORES)
        sections["DEFAULT"]["enabled_import_methods"] = "[glance-direct,web-download,copy-image]"
        for name in STORES:
            sections[name] = {"filesystem_store_datadir": str(directory / name)}
        sections["os_glance_staging_store"] = {"filesystem_store_datadir": str(directory / "staging")}
        return sections


class GlanceSeveral(_Several, Glance):
    name = "glance_several"


class OursSeveral(_Several, Ours):
    name = "ours_several"


def _servers(run: Run) -> list[Server]:
    kinds = [GlanceSeveral, *([OursSeveral] if run.with_ours else [])]
    return [run.server(kind) for kind in kinds]


def until_imported(server: Server, image: str, stores: Collection[str] = ()) -> None:
    """Wait until it has its data, in these stores, and no import is under way. `Broken`: it failed."""
    end = time.monotonic() + PATIENCE
    while True:
        shown = server.call("GET", f"/v2/images/{image}")
        busy = shown.get("os_glance_import_task") or shown.get("os_glance_importing_to_stores")
        if shown["status"] == "active" and not busy and set(shown.get("stores", "").split(",")) >= set(stores):
            return
        if shown.get("os_glance_failed_import") or time.monotonic() > end:
            raise Broken(f"{server.name}: the import of {image} failed: {shown}")
        time.sleep(0.05)


def _import(run: Run, server: Server, image: str, method: str, stores: list[str], size: int | None) -> Seen:
    with Meter(server=server.pid, mariadb=run.mariadb.pid) as meter:
        began = time.perf_counter()
        if size is not None:
            path = f"/v2/images/{image}/stage"
            seen = run.client(server, "upload", paths=[path], size=size, file=str(run.source))
            if seen["failures"]:
                raise Broken(f"{server.name}: stage: {seen['failures']}")
        body = {"method": {"name": method}, "stores": stores}
        server.call("POST", f"/v2/images/{image}/import", body)
        until_imported(server, image, stores)
        wall = time.perf_counter() - began
    run.others.append(meter.others / meter.wall)
    return Seen({"wall": wall}, meter.cpu["server"], meter.cpu["mariadb"])


def copies(run: Run) -> None:
    """copy-image of 1 GiB from one file store to another of the same file system."""
    size = 64 * MIB if run.quick else GIB
    found = {}
    for server in _servers(run):
        seen = []
        for _ in range(run.repeats):
            image = run.create(server)
            run.client(server, "upload", paths=[f"/v2/images/{image}/file"], size=size, file=str(run.source))
            seen.append(_import(run, server, image, "copy-image", ["store2"], None))
            run.delete(server, [image])
        found[server.role] = middle(seen)
    _report(run, "copy", f"copy-image {size // MIB} MiB file → file", found)


def three(run: Run) -> None:
    """glance-direct of 1 GiB into three file stores, the staging counted in."""
    size = 64 * MIB if run.quick else GIB
    found = {}
    for server in _servers(run):
        seen = []
        for _ in range(run.repeats):
            image = run.create(server)
            seen.append(_import(run, server, image, "glance-direct", list(STORES), size))
            run.delete(server, [image])
        found[server.role] = middle(seen)
    _report(run, "import", f"glance-direct {size // MIB} MiB into three stores", found)


def _report(run: Run, row: str, what: str, found: dict[str, Seen]) -> None:
    peer, ours = found["peer"], found.get("ours")
    run.report.add(row, what, "s", LOWER, peer=peer.wall, ours=ours.wall if ours else None, times=2)
    run.report.add(row, f"{what}: processor", "s", LOWER, peer=peer.cpu, ours=ours.cpu if ours else None)


def queue(run: Run) -> None:
    """10,000 waiting jobs and 4 workers: what taking one costs."""
    if not run.with_ours:
        return
    name = "bench_queue"
    run.mariadb.sql(f"drop database if exists {name}")
    run.mariadb.sql(f"create database {name} character set utf8mb4")
    settings = DatabaseSettings(connection=run.mariadb.url(name))
    with Meter(mariadb=run.mariadb.pid) as meter:
        asyncio.run(_filled(settings))
    with Meter(mariadb=run.mariadb.pid) as meter:
        seconds = asyncio.run(_taken(settings))
    run.others.append(meter.others / meter.wall)
    each = 1000 * statistics.median(seconds)
    run.report.add("queue", "finding and taking a job of 10,000, 4 at once", "ms p50", LOWER, ours=each)
    cpu = 1000 * meter.cpu["mariadb"] / len(seconds)
    run.report.add("queue", "MariaDB's processor for it", "ms", LOWER, ours=cpu, at_most=5)


async def _filled(settings: DatabaseSettings) -> None:
    await schema.upgrade(settings)
    db = Database(settings)
    await db.start()
    rows = [
        {
            "id": str(uuid.uuid4()),
            "kind": "import",
            "image_id": str(uuid.uuid4()),
            "owner": f"project {number % 10}",
            "slot": str(number),
            "request": "{}",
            "begun_at": utcnow(),
            "turn": number // 10,
            **dict.fromkeys(("attempts", "epoch", "cancelled", "deaths"), 0),
        }
        for number in range(WAITING)
    ]
    for start in range(0, WAITING, 1000):
        some = rows[start : start + 1000]
        await db.write(lambda conn, some=some: conn.execute(table.insert(), some))  # type: ignore[misc]
    await db.aclose()


async def _taken(settings: DatabaseSettings) -> list[float]:
    """Seconds for each job, its share of the look counted in."""
    seconds: list[float] = []

    async def work(holder: str) -> None:
        db = Database(settings)
        await db.start()
        while len(seconds) < TAKEN:
            began = time.perf_counter()
            found = await db.read(lambda conn: jobs.waiting(conn, ["import"], deaths=5))
            look = time.perf_counter() - began
            for seen in found[int(holder) :: WORKERS]:
                began = time.perf_counter()
                if await db.write(lambda conn, seen=seen: jobs.take(conn, seen, holder, lease=600)) is not None:  # type: ignore[misc]
                    seconds.append(time.perf_counter() - began + look * WORKERS / max(1, len(found)))
        await db.aclose()

    await asyncio.gather(*(work(str(number)) for number in range(WORKERS)))
    return seconds
