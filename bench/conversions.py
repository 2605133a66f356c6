"""A vendor's qcow2 by URL, converted to raw on the way, into files and into Ceph; and what GET one image waits for
while that and imports are under way."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.ceph import GlanceInCeph, OursInCeph, in_ceph, modules_of_peer
from bench.imports import PATIENCE, until_imported
from bench.interference import median_get
from bench.peers import Glance, Ours, Server
from bench.processes import Meter
from bench.report import LOWER
from bench.runs import GIB, MIB, STATE, Broken, Run, Seen, middle
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory, private_address, program

if TYPE_CHECKING:
    from collections.abc import Mapping

IMPORTS = 8
PIECE = 64 * MIB  # of data, then as much of nothing


class _Converting(Server):
    """Web-download with the conversion to raw."""

    port_of_web: ClassVar[int] = 0

    def _common(self) -> dict[str, dict[str, str]]:
        sections = super()._common()
        sections["DEFAULT"]["enabled_import_methods"] = "[glance-direct,web-download]"
        sections["import_filtering_opts"] = {"allowed_ports": f"[{self.port_of_web}]"}
        sections["image_import_opts"] = {"image_import_plugins": "[image_conversion]"}
        sections["image_conversion"] = {"output_format": "raw"}
        sections["os_glance_staging_store"] = {"filesystem_store_datadir": str(self.directory / "staging")}
        return sections


class _GlanceConverting(_Converting, Glance):
    """uWSGI says that the interpreter is the system's, whose modules Glance then runs qemu-img with."""

    def _run(self, command: list[str | Path], env: dict[str, str]) -> None:
        super()._run(command, {**env, "PYTHONPATH": modules_of_peer()})


class GlanceConverting(_GlanceConverting):
    name = "glance_converting"


class OursConverting(_Converting, Ours):
    name = "ours_converting"


class GlanceConvertingInCeph(_GlanceConverting, GlanceInCeph):
    name = "glance_converting_rbd"


class OursConvertingInCeph(_Converting, OursInCeph):
    name = "ours_converting_rbd"


def row(run: Run) -> None:
    """web-download of a qcow2 with 1 GiB of data in 2 GiB, to raw, into files and into Ceph."""
    disk = _disk(run)
    web = _web(run, disk)
    alone = _alone(disk)
    run.report.add("convert", "qemu-img convert and both digests of the output: processor", "s", LOWER, ours=alone)
    in_ceph(run)
    for where, peer, ours in (
        ("file", GlanceConverting, OursConverting),
        ("rbd", GlanceConvertingInCeph, OursConvertingInCeph),
    ):
        kinds: list[type[Server]] = [peer, *([ours] if run.with_ours else [])]
        found = {}
        for kind in kinds:
            server = _ready(run, kind)
            found[server.role] = middle([_fetched(run, server, f"{web.url}/{disk.name}") for _ in range(run.repeats)])
        _report(run, where, found, alone)


def _report(run: Run, where: str, found: Mapping[str, Seen], alone: float) -> None:
    peer, ours = found["peer"], found.get("ours")
    what = f"qcow2 by URL → raw into {where}"
    run.report.add("convert", what, "s", LOWER, peer=peer.wall, ours=ours.wall if ours else None, times=2.5)
    run.report.add(
        "convert",
        f"{what}: processor",
        "s",
        LOWER,
        peer=peer.cpu,
        ours=ours.cpu if ours else None,
        at_most=alone + 1.5,
        target="qemu-img, digests and 1.5 s",
    )


def _disk(run: Run) -> Path:
    """A qcow2 whose disk is half data, half nothing."""
    size = 256 * MIB if run.quick else 2 * GIB
    made, raw = STATE / f"disk-{size // MIB}.qcow2", STATE / "disk.raw"
    if not made.exists():
        block = run.source.read_bytes()[:PIECE]
        with raw.open("wb") as file:
            file.truncate(size)
            for number, start in enumerate(range(0, size, 2 * PIECE)):
                file.seek(start)
                file.write(block[number:] + block[:number])
        words = [program("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "qcow2", str(raw), str(made)]
        subprocess.run(words, check=True)
        raw.unlink()
    return made


def _web(run: Run, disk: Path) -> Nginx:
    web = Nginx(server=f"location / {{ alias {disk.parent}/; }}", host=private_address())
    run.stack.callback(web.close)
    web.start()
    _Converting.port_of_web = web.port
    return web


def _alone(disk: Path) -> float:
    """Processor seconds of qemu-img from file to file, and of md5 and SHA-512 of what it wrote."""
    target = new_directory("bench-convert") / "disk.raw"
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    words = [program("qemu-img", "qemu-utils"), "convert", "-f", "qcow2", "-O", "raw", str(disk), str(target)]
    subprocess.run(words, check=True)
    converting = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    before = time.process_time()
    with target.open("rb") as file:
        digests = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        while piece := file.read(MIB):
            for digest in digests:
                digest.update(piece)
    target.unlink()
    return converting + time.process_time() - before


def _ready(run: Run, kind: type[Server]) -> Server:
    """One that can import: ours offers no method before a process for long work is there."""
    server, end = run.server(kind), time.monotonic() + 60
    while "web-download" not in server.call("GET", "/v2/info/import")["import-methods"]["value"]:
        if time.monotonic() > end:
            raise Broken(f"{server.name} does not import")
        time.sleep(0.1)
    return server


def _begin(run: Run, server: Server, url: str, disk_format: str) -> str:
    image = run.create(server, disk_format=disk_format)
    server.call("POST", f"/v2/images/{image}/import", {"method": {"name": "web-download", "uri": url}})
    return image


def _fetched(run: Run, server: Server, url: str) -> Seen:
    os.sync()
    with Meter(server=server.pid, mariadb=run.mariadb.pid) as meter:
        began = time.perf_counter()
        image = _begin(run, server, url, "qcow2")
        until_imported(server, image)
        wall = time.perf_counter() - began
    shown = server.call("GET", f"/v2/images/{image}")
    if shown["disk_format"] != "raw":
        raise Broken(f"{server.name}: {image} is {shown['disk_format']}")
    run.others.append(meter.others / meter.wall)
    run.delete(server, [image])
    return Seen({"wall": wall}, meter.cpu["server"], meter.cpu["mariadb"])


def busy(run: Run) -> None:
    """GET one image while a conversion and 8 imports by URL are under way."""
    if not run.with_ours:
        return
    disk = _disk(run)
    web = _web(run, disk)
    server = _ready(run, OursConverting)
    alone = median_get(run, server)
    images = [_begin(run, server, f"{web.url}/{disk.name}", "qcow2")]
    images += [_begin(run, server, f"{web.url}/{run.source.name}", "raw") for _ in range(IMPORTS)]
    seen, end = [], time.monotonic() + PATIENCE
    while any(server.call("GET", f"/v2/images/{image}")["status"] != "active" for image in images):
        seen.append(median_get(run, server))
        if time.monotonic() > end:
            raise Broken("the imports do not end")
    if not seen:
        raise Broken("the imports ended before anybody asked")
    run.delete(server, images)
    run.report.add("busy", "GET one image, alone", "ms p50", LOWER, ours=1000 * alone)
    run.report.add(
        "busy",
        f"GET one image, beside a conversion and {IMPORTS} imports",
        "ms p50",
        LOWER,
        ours=1000 * max(seen),
        at_most=1500 * alone,
        target="1.5× alone",
        note=f"the worst of {len(seen)} looks",
    )
