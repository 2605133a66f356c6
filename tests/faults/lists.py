"""Lists, filters, JSON bodies and the rows behind them."""

import contextlib
import json
import sqlite3
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from tests.faults.rows import Site, row
from tests.servers.service import Service
from tests.stores import mounts

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
DATABASES = ("sqlite", "postgresql", "mariadb")


def new(service: Service, **fields: Any) -> str:
    body = {"name": "r", "disk_format": "raw", "container_format": "bare", **fields}
    made: str = service.request("POST", "/v2/images", json=body).json()["id"]
    return made


def count(service: Service, **query: str) -> str:
    answer = service.request("GET", f"/v2/images?{urllib.parse.urlencode(query)}")
    return str(len(answer.json()["images"])) if answer.status == 200 else str(answer.status)


def memory(service: Service) -> int:
    """MB that the service's processes hold."""
    total = 0
    for process in Path("/proc").iterdir():
        try:
            status = (process / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if str(service.pid) in (process.name, fields.get("PPid", "").strip()):
            total += int(fields.get("VmRSS", "0 kB").split()[0]) // 1024
    return total


@row("an image id with a newline", "400 400, listed 1")
def newline(site: Site) -> str:
    service = site.service()
    plain = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    given = (f"{plain}\n", f"\n{plain}")
    answers = [str(service.request("POST", "/v2/images", json={"id": one}).status) for one in given]
    new(service, id=plain)
    return f"{' '.join(answers)}, listed {count(service)}"


@row("members beyond the quota, 16 calls at once", "128 128 128")
def quota(site: Site) -> str:
    found = []
    for database in DATABASES:
        service = site.usual(database)
        image = new(service)
        path = f"/v2/images/{image}/members"
        for n in range(127):
            service.request("POST", path, json={"member": f"m{n}"})
        together = threading.Barrier(16)

        def add(n: int, service: Service = service, path: str = path, together: threading.Barrier = together) -> None:
            together.wait()
            service.request("POST", path, json={"member": f"z{n}"})

        threads = [threading.Thread(target=add, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append(str(len(service.request("GET", path).json()["members"])))
    return " ".join(found)


@row("110 KB of tags that are numbers", "400, the loop stood for less than 200 ms")
def tags(site: Site) -> str:
    service = site.service()
    before = _processor(service)
    body = b'{"tags":[' + b"1," * 55_000 + b"1]}"
    status = service.request("POST", "/v2/images", body=body).status
    spent = _processor(service) - before
    return f"{status}, the loop stood for {'less' if spent < 0.2 else 'more'} than 200 ms"


def _processor(service: Service) -> float:
    """Seconds of processor time of the service's processes."""
    total = 0
    for process in Path("/proc").iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if str(service.pid) in (process.name, fields[1]):
            total += int(fields[11]) + int(fields[12])
    return total / 100


@row("six lists of images with 8 MB of properties each", "each page under 9 MB, less than 450 MB more, all 8 found")
def fat(site: Site) -> str:
    service = site.service()
    images = [new(service, name="fat") for _ in range(8)]
    value = [{"op": "add", "path": "/p0", "value": "x" * 65_000}]
    for image in images:
        service.request("PATCH", f"/v2/images/{image}", json=value, headers=PATCH)
    with contextlib.closing(sqlite3.connect(service.directory / "xloud-image.sqlite")) as database, database:
        # what the same PATCH of /p1, /p2, … would store, a thousand calls sooner
        columns = "image_id, value, created_at, updated_at, deleted"
        for n in range(1, 126):
            words = f"INSERT INTO image_properties (name, {columns}) SELECT 'p{n}', {columns} FROM image_properties"
            database.execute(f"{words} WHERE name = 'p0'")
    sizes: list[int] = []

    def ask() -> None:
        sizes.append(len(service.request("GET", "/v2/images?name=fat&limit=1000").body))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    most = before = memory(service)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, memory(service))
        time.sleep(0.02)
    found, path = set(), "/v2/images?name=fat&limit=1000"
    while path:
        page = service.request("GET", path).json()
        found |= {one["id"] for one in page["images"]}
        path = page.get("next")
    size = "under 9 MB" if max(sizes) < 9_000_000 else f"of {max(sizes)} bytes"
    held = "less than 450" if most - before < 450 else str(most - before)
    return f"each page {size}, {held} MB more, all {len(found)} found"


@row("more filters than a list takes", "400 400 400, 200 200 200")
def filters(site: Site) -> str:
    services = [site.usual(database) for database in DATABASES]
    many, some = ("&".join(f"k{n}=v" for n in range(number)) for number in (1001, 128))
    first, then = (
        " ".join(str(service.request("GET", f"/v2/images?{query}").status) for service in services)
        for query in (many, some)
    )
    return f"{first}, {then}"


@row("the disk of SQLite is full", "503, the answer says disk, the log says disk, reading 200")
def full(site: Site) -> str:
    place = site.directory() / "small"
    with mounts.tmpfs(place, "2m"):
        service = site.service({"database": {"connection": f"sqlite:///{place / 'image.sqlite'}"}})
        for _ in range(200):
            answer = service.request("POST", "/v2/images", json={f"k{n}": "x" * 1000 for n in range(50)})
            if answer.status != 201:
                break
        told = "disk" if b"disk of the database is full" in answer.body else answer.body.decode()
        log = "disk" if "disk of the database is full" in service.log else "nothing of it"
        reading = service.request("GET", "/v2/images?limit=1").status
        service.kill()
    return f"{answer.status}, the answer says {told}, the log says {log}, reading {reading}"


@row("times are found as they are shown", "1 1 0, 1 1 0, 1 1 0")
def times(site: Site) -> str:
    found = []
    for database in DATABASES:
        service = site.usual(database)
        image = new(service)
        shown = service.request("GET", f"/v2/images/{image}").json()["created_at"]
        found.append(" ".join(count(service, id=image, created_at=one + shown) for one in ("", "lte:", "gt:")))
    return ", ".join(found)


@row("a backslash before a quotation mark in a list of values", "1 1 400")
def quoted(site: Site) -> str:
    service = site.usual()
    new(service, name='e"f')
    return " ".join(count(service, name=value) for value in ('in:"e\\"f"', 'in:"e""f"', 'in:"e\\"'))


@row("20.0 is the whole number 20", "201 20, 200 20, 400")
def whole(site: Site) -> str:
    service = site.usual()
    made = service.request("POST", "/v2/images", body=b'{"name":"f","min_disk":20.0}')
    path = f"/v2/images/{made.json()['id']}"
    body = b'[{"op":"replace","path":"/min_ram","value":2e1}]'
    changed = service.request("PATCH", path, body=body, headers=PATCH)
    half = service.request("PATCH", path, body=body.replace(b"2e1", b"20.5"), headers=PATCH)
    first, then = (json.dumps(one.json()[name]) for one, name in ((made, "min_disk"), (changed, "min_ram")))
    return f"{made.status} {first}, {changed.status} {then}, {half.status}"


@row("an owner without a name", "403 403 403, 403")
def owner(site: Site) -> str:
    service = site.usual()
    made = [service.request("POST", "/v2/images", json={"owner": one}).status for one in ("", None, "  ")]
    value = [{"op": "replace", "path": "/owner", "value": ""}]
    changed = service.request("PATCH", f"/v2/images/{new(service)}", json=value, headers=PATCH).status
    return f"{' '.join(map(str, made))}, {changed}"


@row("percent signs that are no UTF-8", "400 400 400")
def percent(site: Site) -> str:
    service = site.usual()
    image = new(service)
    asked = (("GET", "/v2/images?name=%FF"), ("PUT", f"/v2/images/{image}/tags/%FF"), ("GET", "/v2/images/%FF"))
    return " ".join(str(service.request(method, path).status) for method, path in asked)


@row("the collection with a slash at its end", "404 404")
def slash(site: Site) -> str:
    service = site.usual()
    return " ".join(str(service.request(method, "/v2/images/").status) for method in ("GET", "DELETE"))


@row("a deleted image as marker: a walk that deletes as it goes ends at the end", "5 of 5")
def marker(site: Site) -> str:
    service = site.service()
    for _ in range(5):
        new(service)
    path, seen = "/v2/images?limit=2", 0
    while path:
        page = service.request("GET", path).json()
        for one in page["images"]:
            seen += 1
            service.request("DELETE", f"/v2/images/{one['id']}")
        path = page.get("next")
    return f"{seen} of 5"
