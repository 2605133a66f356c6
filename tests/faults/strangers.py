"""What somebody without a login may try."""

import os
from pathlib import Path

from tests.api import raw
from tests.faults.rows import Site, row


def spent(pid: int) -> float:
    """Processor seconds of a process and those that it started."""
    total = 0.0
    for process in [pid, *children(pid)]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@row("a path made to be dear to the log", "404 404 404 404, little processor time")
def path(site: Site) -> str:
    service = site.service()
    statuses = []
    before = spent(service.pid)
    for piece in ("=%3Fkey", "a://b:", "a://b:@", "%3D%3Ftoken"):
        target = "/" + piece * (16_000 // len(piece))
        statuses.append(str(raw.say(service.port, raw.head("GET", target, "Connection: close"), seconds=60).status))
    used = spent(service.pid) - before
    return f"{' '.join(statuses)}, {'little processor time' if used < 1 else f'{used:.1f} s of processor time'}"


@row("a range made to be dear to read", "416, little processor time")
def spaces(site: Site) -> str:
    service = site.service()
    image = service.request(
        "POST", "/v2/images", json={"name": "r", "disk_format": "raw", "container_format": "bare"}
    ).json()["id"]
    before = spent(service.pid)
    asked = raw.head("GET", f"/v2/images/{image}/file", "Range: bytes= " + " " * 15_000 + "x", "Connection: close")
    status = raw.say(service.port, asked, seconds=60).status
    used = spent(service.pid) - before
    return f"{status}, {'little processor time' if used < 0.5 else f'{used:.1f} s of processor time'}"
