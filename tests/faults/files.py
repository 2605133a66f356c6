"""What callers and administrators may do to the directories of the file store."""

import contextlib
import os
import socket
from pathlib import Path

from tests.crash.points import wait_until
from tests.faults.rows import Site, row
from tests.servers.place import HOST
from tests.servers.service import Service
from tests.stores import mounts

MIB = 1 << 20
OCTETS = {"Content-Type": "application/octet-stream"}


def new(service: Service) -> str:
    """The id of a queued raw image."""
    body = {"name": "r", "disk_format": "raw", "container_format": "bare"}
    return str(service.request("POST", "/v2/images", json=body).json()["id"])


def free(path: Path) -> int:
    """Bytes that others can still take there."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@row("one connection that announces a large length takes no room", "204, less than 1 MiB was held")
def announced(site: Site) -> str:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(mounts.tmpfs(site.directory() / "disk", "253m"))
        service = site.service({"files": {"filesystem_store_datadir": disk}})
        before = free(disk)
        sender = stack.enter_context(socket.create_connection((HOST, service.port)))
        sender.sendall(
            f"PUT /v2/images/{new(service)}/file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
            "Content-Length: 222000000\r\n\r\nx".encode()
        )
        wait_until(lambda: any(path.name.endswith(".part") for path in disk.iterdir()))
        held = before - free(disk)
        other = service.request("PUT", f"/v2/images/{new(service)}/file", body=bytes(30 * MIB), headers=OCTETS)
        service.kill()
        return f"{other.status}, {'less than 1 MiB' if held < MIB else held} was held"


@row("an announced length that cannot fit is refused as «full», at once", "413 full, 0 bytes held")
def too_large(site: Site) -> str:
    with mounts.tmpfs(site.directory() / "disk", "64m") as disk:
        service = site.service({"files": {"filesystem_store_datadir": disk}})
        before = free(disk)
        with socket.create_connection((HOST, service.port)) as sender:
            sender.sendall(
                f"PUT /v2/images/{new(service)}/file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
                "Content-Length: 222000000\r\n\r\n".encode()
            )
            answer = sender.recv(4096).decode()
        service.kill()
        return f"{answer.split()[1]} {'full' if 'is full' in answer else answer}, {before - free(disk)} bytes held"
