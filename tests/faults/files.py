"""What callers and administrators may do to the directories of the file store."""

import contextlib
import os
import socket
import sqlite3
import subprocess
from pathlib import Path

from tests.crash.points import wait_until
from tests.faults.rows import Site, row
from tests.servers.place import HOST
from tests.servers.service import Sections, Service, command
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


def filled(site: Site, sections: Sections) -> tuple[Service, str]:
    """A service with one image of a few bytes, and its id."""
    service = site.service(sections)
    image = new(service)
    assert service.request("PUT", f"/v2/images/{image}/file", body=b"data", headers=OCTETS).status == 204
    return service, image


def say(service: Service, image: str, url: str) -> None:
    """Have the row of an image name another URL, as an older service wrote it."""
    file = service.sections["database"]["connection"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        statement = "UPDATE image_locations SET value = ?, meta_data = '{}' WHERE image_id = ?"
        connection.execute(statement, (url, image))


@row("a row names a directory by a link, and the other way round", "200 b'data'; 200 b'data'; deleted, deleted")
def linked_directory(site: Site) -> str:
    told, left = [], []
    for configured, named in (("real", "link"), ("link", "real")):
        place = site.directory()
        (place / "real").mkdir()
        (place / "link").symlink_to("real")
        service, image = filled(site, {"files": {"filesystem_store_datadir": place / configured}})
        say(service, image, f"file://{place}/{named}/{image}")
        answer = service.request("GET", f"/v2/images/{image}/file")
        told.append(f"{answer.status} {answer.body!r}")
        service.request("DELETE", f"/v2/images/{image}")
        left.append("left" if (place / "real" / image).exists() else "deleted")
    return f"{'; '.join(told)}; {', '.join(left)}"


@row("a single image moved to a larger disk and linked back", "503 is a link; the log names both; kept")
def linked_file(site: Site) -> str:
    place = site.directory()
    service, image = filled(site, {"files": {"filesystem_store_datadir": place / "real"}})
    (place / "real" / image).rename(place / "moved")
    (place / "real" / image).symlink_to(place / "moved")
    answer = service.request("GET", f"/v2/images/{image}/file")
    body = answer.body.decode()
    words = "is a link" if "is a link" in body and str(place) not in body else body
    both = f"{place}/real/{image} is a link to {place}/moved" in service.log
    kept = "kept" if (place / "moved").read_bytes() == b"data" else "lost"
    return f"{answer.status} {words}; the log {'names both' if both else 'does not'}; {kept}"


@row("a URL, or a relative path, where a directory belongs", "file:///…: refused with the path; images: says the place")
def no_directory(site: Site) -> str:
    url = site.service({"files": {"filesystem_store_datadir": "file:///srv/images"}}, start=False)
    relative = site.service({"files": {"filesystem_store_datadir": "images"}}, start=False)
    told = []
    for service, words in ((url, "is written as it is: /srv/images"), (relative, f"{relative.directory}/images")):
        for check in (("config", "check"), ("stores", "check")):
            done = subprocess.run(
                [*command(), *check, "--config-file", service.configuration],
                capture_output=True, text=True, cwd=service.directory, check=False,
            )  # fmt: skip
            told.append(words in done.stdout + done.stderr and (done.returncode != 0) == (service is url))
    first = "refused with the path" if all(told[:2]) else f"{told[:2]}"
    return f"file:///…: {first}; images: {'says the place' if all(told[2:]) else told[2:]}"
