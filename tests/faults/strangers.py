"""What somebody without a login may try."""

import base64
import contextlib
import os
import socket
import time
from pathlib import Path

import bcrypt

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


@row("a range made to be dear to read", "204, little processor time")
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


@row("a Host that is no text", "400 400")
def host(site: Site) -> str:
    service = site.usual()
    return " ".join(
        str(
            raw.say(service.port, f"GET {path} HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n".encode("latin-1"), seconds=10).status
        )
        for path in ("/versions", "/v2/images")
    )


@row("silent connections beyond the descriptors", "200 200 200 200, a short log")
def silent(site: Site) -> str:
    service = site.service(files=256)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", service.port), timeout=60)))
        statuses = [str(service.request("GET", "/healthcheck", seconds=30).status) for _ in range(4)]
    return f"{' '.join(statuses)}, {'a short log' if len(service.log) < 60_000 else 'a flood in the log'}"


@row("wrong passwords in great numbers", "200 for the honest one")
def passwords(site: Site) -> str:
    directory = site.directory()
    users, projects = directory / "users", directory / "projects"
    stored = {name: bcrypt.hashpw(b"right", bcrypt.gensalt(12)).decode() for name in ("alice", "bob")}
    users.write_text("".join(f"{name}:{one}\n" for name, one in stored.items()))
    projects.write_text("alice:p:member\nbob:p:member\n")
    service = site.service(
        {
            "paste_deploy": {"flavor": "http_basic"},
            "xloud": {"http_basic_user_file": users, "http_basic_projects_file": projects},
        }
    )

    def login(name: str, password: str) -> str:
        return "Authorization: Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    with contextlib.ExitStack() as stack:
        for number in range(100 if site.quick else 200):
            sock = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", service.port))))
            name = ("bob", f"nobody{number}")[number % 2]
            sock.sendall(raw.head("GET", "/v2/images", login(name, f"wrong{number}")))
        time.sleep(0.5)
        asked = raw.head("GET", "/v2/images", login("alice", "right"), "Connection: close")
        return f"{raw.say(service.port, asked, seconds=60).status} for the honest one"
