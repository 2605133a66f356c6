"""Three clients of one Swift, each in the environment it belongs to, as a process that does one thing and times it.

Run as a script: `python swift_clients.py WHO WORK SPEC`, SPEC as JSON. It imports nothing of the other two, so it works
in the environment of each. What is measured, and why, stands in `swift`.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import sys
import time
from typing import Any

CHUNK = 256 * 1024  # what the API hands to a store
MIB = 1 << 20


class Repeated(io.RawIOBase):
    """A file of `size` bytes, which repeats a block; reading costs a copy and no disk."""

    def __init__(self, size: int) -> None:
        self._block = os.urandom(4 * MIB)
        self._left = size
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        size = min(CHUNK if size < 0 else size, self._left)
        if self._at + size > len(self._block):
            self._at = 0
        size = min(size, len(self._block))
        piece = self._block[self._at : self._at + size]
        self._at += size
        self._left -= size
        return piece


class Timer:
    """Wall and processor seconds of this process between `begin` and `end`, its largest memory, and a first byte."""

    def begin(self) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu, self._wall = before.ru_utime + before.ru_stime, time.perf_counter()
        self.first: float | None = None

    def byte(self) -> None:
        if self.first is None:
            self.first = time.perf_counter() - self._wall

    def end(self) -> None:
        wall = time.perf_counter() - self._wall
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - self._cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024, "first": self.first}))


async def ours(work: str, spec: dict[str, Any], timer: Timer) -> None:
    """The store of this project, without layers and digests."""
    from xloud_image.stores.swift.store import SwiftStore

    store = SwiftStore("bench", {option.name: option.default for option in SwiftStore.TYPE.options} | spec["options"])
    await store.start()
    await store.check()
    file = Repeated(spec["size"])

    async def source() -> Any:
        while piece := file.read(CHUNK):
            yield piece

    url = f"swift+config://ref1/{spec['container']}/{spec['name']}"
    timer.begin()
    if work.startswith("put"):
        known = "unknown" not in work
        await store.write(spec["name"], source(), size=spec["size"] if known else None)
    else:
        async with store.open(url, offset=spec.get("offset", 0), length=spec.get("length")) as reader:
            seen = 0
            async for chunk in reader.chunks:
                timer.byte()
                seen += len(chunk)
        assert seen == spec.get("length", spec["size"])
    timer.end()
    await store.aclose()


def client(work: str, spec: dict[str, Any], timer: Timer) -> None:
    """python-swiftclient: its service with segments in parallel, and a plain download."""
    from swiftclient.client import Connection
    from swiftclient.service import SwiftService, SwiftUploadObject

    login = spec["login"]
    options = {
        "auth_version": "3",
        "os_auth_url": login["auth_url"],
        "os_username": login["user"],
        "os_password": login["key"],
        "os_project_name": login["project"],
        "os_user_domain_name": "Default",
        "os_project_domain_name": "Default",
        "segment_size": spec["segment"],
        "use_slo": True,
    }
    if work.startswith("put"):
        with SwiftService(options=options) as service:
            service.stat(spec["container"])
            timer.begin()
            upload = SwiftUploadObject(spec["file"], object_name=spec["name"])
            for result in service.upload(spec["container"], [upload]):
                assert result["success"], result
            timer.end()
        return
    domains = {"user_domain_name": "Default", "project_domain_name": "Default", "project_name": login["project"]}
    connection = Connection(login["auth_url"], login["user"], login["key"], auth_version="3", os_options=domains)
    connection.head_container(spec["container"])
    headers = {}
    if "length" in spec:
        headers["Range"] = f"bytes={spec['offset']}-{spec['offset'] + spec['length'] - 1}"
    timer.begin()
    _, body = connection.get_object(spec["container"], spec["name"], resp_chunk_size=CHUNK, headers=headers)
    seen = 0
    for chunk in body:
        timer.byte()
        seen += len(chunk)
    timer.end()
    assert seen == spec.get("length", spec["size"])


def glance(work: str, spec: dict[str, Any], timer: Timer) -> None:
    """Glance's driver. It computes md5 and sha256 besides; that cannot be switched off."""
    sys.path.append(spec["swiftclient"])  # the driver's client is not part of Glance's lock
    import glance_store
    from glance_store import location
    from oslo_config import cfg

    options = "\n".join(f"{name} = {value}" for name, value in spec["options"].items())
    with open(spec["conf"], "w") as file:
        file.write(
            f"[DEFAULT]\nenabled_backends = bench:swift\n[glance_store]\ndefault_backend = bench\n[bench]\n{options}\n"
        )
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.DictOpt("enabled_backends")])
    conf(args=[], default_config_files=[spec["conf"]])
    glance_store.register_store_opts(conf)
    glance_store.create_multi_stores(conf)
    store = location.SCHEME_TO_CLS_BACKEND_MAP["swift+config"]["bench"]["store"]
    url = f"swift+config://ref1/{spec['container']}/{spec['name']}"
    timer.begin()
    if work.startswith("put"):
        size = spec["size"] if "unknown" not in work else 0
        store.add(spec["name"], Repeated(spec["size"]), size, "sha256")
    else:
        where = location.get_location_from_uri_and_backend(url, "bench", conf=conf)
        body, _ = store.get(where)
        seen = 0
        for chunk in body:
            timer.byte()
            seen += len(chunk)
        assert seen == spec["size"]
    timer.end()


def main() -> None:
    """One piece of work of one client."""
    who, work, spec = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    timer = Timer()
    if who == "ours":
        asyncio.run(ours(work, spec, timer))
    elif who == "client":
        client(work, spec, timer)
    else:
        glance(work, spec, timer)


if __name__ == "__main__":
    main()
