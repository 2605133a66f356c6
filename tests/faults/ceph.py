"""What stands in ceph.conf, what a Ceph user may not do, and workers that a native library ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.faults.rows import Site, row
from tests.servers.ceph import Ceph
from tests.servers.place import ROOT
from tests.servers.process import Stuck
from tests.servers.service import Service
from tests.stores.pool import Pool

OCTETS = {"Content-Type": "application/octet-stream"}


def _two_stores(site: Site, conf: Path, *, start: bool = True, **more: str) -> Service:
    """A file store, the default one, and a store `fast` in Ceph."""
    fast = {"rbd_store_ceph_conf": conf, "rbd_store_user": "glance", "rbd_store_pool": "images", **more}
    one = site.service({"DEFAULT": {"enabled_backends": "files:file, fast:rbd"}, "fast": fast}, start=False)
    one.prepare()
    if start:
        one.start()
    return one


def _put(service: Service, store: str) -> int:
    body = {"disk_format": "raw", "container_format": "bare"}
    image = service.request("POST", "/v2/images", json=body).json()["id"]
    headers = {**OCTETS, "X-Image-Meta-Store": store}
    return service.request("PUT", f"/v2/images/{image}/file", body=b"data", headers=headers).status


def _checked(service: Service, *words: str) -> str:
    try:
        return service.run(*words)
    except Stuck as failed:
        return str(failed)


def _odd_conf(site: Site, *, before: bytes = b"", after: bytes = b"") -> Path:
    ceph: Ceph = site.server("ceph")
    path = site.directory() / "ceph.conf"
    kept = [line for line in ceph.conf.read_bytes().splitlines() if line.startswith((b"fsid", b"mon_host"))]
    lines = [b"[global]", *kept, f"keyring = {ceph.keyring('glance')}".encode()]
    path.write_bytes(before + b"\n".join(lines) + b"\n" + after)
    return path


def _serves_the_others(site: Site, conf: Path) -> str:
    service = _two_stores(site, conf)
    said = "says where" if "outside ASCII" in service.log or "byte order mark" in service.log else "says nothing"
    checks = sum(
        "does not survive" in _checked(service, *words) for words in (("config", "check"), ("stores", "check"))
    )
    deaths = service.log.count("ended by SIGABRT")
    return (
        f"disk {_put(service, 'files')}, fast {_put(service, 'fast')}, {said}, {checks} checks say it, {deaths} deaths"
    )


@row("a byte above 0x7f in ceph.conf", "disk 204, fast 503, says where, 2 checks say it, 0 deaths")
def byte(site: Site) -> str:
    return _serves_the_others(site, _odd_conf(site, after="crush_location = host=zürich\n".encode()))


@row("a byte order mark in ceph.conf", "disk 204, fast 503, says where, 2 checks say it, 0 deaths")
def mark(site: Site) -> str:
    return _serves_the_others(site, _odd_conf(site, before=b"\xef\xbb\xbf"))


@row("workers that die at once again and again", re.compile(r"ended with 3 and a sentence after \d+ deaths"))
def crash_loop(site: Site) -> str:
    # with a Ceph that is not there a worker takes seconds to be ready: it is killed before
    nowhere = site.directory() / "ceph.conf"
    nowhere.write_text("[global]\nmon_host = 127.0.0.1:9\n")
    service = _two_stores(site, nowhere, start=False)
    service.launch()
    killed: set[int] = set()
    end = threading.Event()

    def kill() -> None:
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children")
        while not end.wait(0.01):
            with contextlib.suppress(OSError):
                for pid in map(int, children.read_text().split()):
                    if pid not in killed:
                        os.kill(pid, signal.SIGABRT)
                        killed.add(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        code = service.wait(180)
    finally:
        end.set()
        thread.join()
    said = "a sentence" if "no worker was ever ready" in service.log else "nothing"
    return f"ended with {code} and {said} after {len(killed)} deaths"


@row("images of Ceph that are looked at and left at once", "0 after thousands of calls")
def opening(site: Site) -> str:
    """16 tasks; what was closed too early ended the process, or hung it, within some 2,000 calls."""
    ceph: Ceph = site.server("ceph")
    pool = Pool(ceph)
    try:
        urls = [pool.put(f"left-at-once-{features}", b"12345", features=features) for features in (1, 3, 61, 125)]
        calls = "4000" if site.quick else "10000"
        done = subprocess.run(
            [sys.executable, "-m", "tests.stores.rbd_loop", ceph.conf, calls, "600", *urls],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        made = done.stdout.split()[-1:] or ["0"]
        told = "" if done.returncode == 0 else f": {done.stdout[-2000:]}{done.stderr[-8000:]}"
        count = "thousands of" if made[0].isdecimal() and int(made[0]) > 2000 else made[0]
        return f"{done.returncode} after {count} calls{told}"
    finally:
        pool.empty()
        pool.close()


def _deep(site: Site, conf: Path, **more: str) -> str:
    service = _two_stores(site, conf, start=False, **more)
    said = _checked(service, "stores", "check", "--deep")
    return next((line for line in said.splitlines() if line.startswith("fast")), said)


@row("stores check --deep by a Ceph user who may only read", "the line for its rights")
def reader(site: Site) -> str:
    ceph: Ceph = site.server("ceph")
    ceph.add_user("onlooker", {"mon": "profile rbd", "osd": "profile rbd-read-only pool=images"})
    said = _deep(site, ceph.conf, rbd_store_user="onlooker")
    wanted = "ceph auth caps client.onlooker" in said and "stores check" not in said
    return "the line for its rights" if wanted else said


@row("rbd_default_data_pool on which the Ceph user has no rights", "both pools in the line for its rights")
def data_pool(site: Site) -> str:
    ceph: Ceph = site.server("ceph")
    conf = ceph.with_conf("elsewhere", "[client]\nrbd_default_data_pool = volumes\n")
    said = _deep(site, conf)
    wanted = "profile rbd pool=images, profile rbd pool=volumes" in said and "stores check" not in said
    return "both pools in the line for its rights" if wanted else said


@row("rbd_store_user = client.glance", "leave 'client.' away")
def prefixed(site: Site) -> str:
    said = _deep(site, site.server("ceph").conf, rbd_store_user="client.glance")
    return "leave 'client.' away" if "leave 'client.' away in rbd_store_user" in said else said


@row("rbd_store_pool = POOL/NAMESPACE", "namespaces are not used")
def namespaced(site: Site) -> str:
    said = _deep(site, site.server("ceph").conf, rbd_store_pool="nspool/imgs")
    wanted = "namespaces of a pool" in said and "pool create" not in said
    return "namespaces are not used" if wanted else said
