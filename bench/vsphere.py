"""The vmware store beside plain aiohttp and curl on the same simulator: 1 GiB in and out, a range at the end of 4 GiB.

Glance is left out: its driver opens only as the single store of a configuration, and its client library only with the
description of the interface (WSDL) that a vCenter serves and the simulator does not.
"""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

import aiohttp

from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run
from tests.servers.place import new_directory
from tests.servers.vsphere import Vsphere
from xloud_image.stores.vmware.store import VmwareStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path
    from typing import Any

CHUNK = 256 * 1024  # what the API hands to a store
WORKS = ("put, size known", "put, size unknown", "get")
FOLDER = "openstack_glance"


def row(run: Run) -> None:
    """1 GiB to and from a vCenter's simulator over TLS, and the first byte of a range at the end of 4 GiB."""
    server = Vsphere(datacenters=1, datastores=1)
    server.start()
    try:
        asyncio.run(_Row(run, server).measure())
    finally:
        server.close()


class _Row:
    def __init__(self, run: Run, server: Vsphere) -> None:
        self._run, self._server = run, server
        self._size = 128 * MIB if run.quick else GIB
        self._block = os.urandom(MIB)
        options = {option.name: option.default for option in VmwareStore.TYPE.options}
        options |= {"vmware_server_host": server.host, "vmware_datastores": ["DC0:LocalDS_0"]}
        options |= {"vmware_server_username": server.user, "vmware_server_password": server.password}
        self._store = VmwareStore("esx", options | {"vmware_ca_file": str(server.ca_file)})
        # wall and processor seconds by work and by who did it
        self._seen: dict[tuple[str, str], list[tuple[float, float]]] = {}

    async def measure(self) -> None:
        """Everything in turn on each; the middle of the turns counts."""
        await self._store.start()
        self._cookie = (await self._store._session.login()).cookie
        for turn in range(self._run.repeats + 1):
            for work, known in zip(WORKS[:2], (True, False), strict=True):
                await self._timed(work, "ours", lambda known=known: self._put(known))
                await self._timed(work, "aiohttp", lambda known=known: self._plain_put(known))
            await self._timed(WORKS[0], "curl", self._curl_put)
            await self._timed(WORKS[2], "ours", self._get)
            await self._timed(WORKS[2], "aiohttp", self._plain_get)
            await self._timed(WORKS[2], "curl", self._curl_get)
            if not turn:
                self._seen.clear()  # it only warmed things
        self._told()
        await self._range()
        await self._store.aclose()

    async def _timed(self, work: str, who: str, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        os.sync()  # what was written before is not written now
        kind = resource.RUSAGE_CHILDREN if who == "curl" else resource.RUSAGE_SELF
        before, begun = resource.getrusage(kind), time.perf_counter()
        await call()
        wall, after = time.perf_counter() - begun, resource.getrusage(kind)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._seen.setdefault((work, who), []).append((wall, cpu))

    async def _source(self) -> AsyncIterator[bytes]:
        view = [self._block[start : start + CHUNK] for start in range(0, MIB, CHUNK)]
        for _ in range(self._size // MIB):
            for chunk in view:
                yield chunk

    @property
    def _url(self) -> str:
        return f"https://{self._server.host}/folder/{FOLDER}/plain?dcPath=DC0&dsName=LocalDS_0"

    async def _put(self, known: bool) -> None:
        await self._store.discard("ours")
        await self._store.write("ours", self._source(), size=self._size if known else None)

    def _location(self, key: str) -> str:
        return f"vsphere://{self._server.host}/folder/{FOLDER}/{key}?dsName=LocalDS_0&dcPath=DC0"

    async def _get(self) -> None:
        async with self._store.open(self._location("ours")) as reader:
            self._whole(sum([len(chunk) async for chunk in reader.chunks]))

    def _client(self) -> aiohttp.ClientSession:
        trusted = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._server.ca_file)))
        headers = {"Cookie": self._cookie}
        return aiohttp.ClientSession(connector=trusted, cookie_jar=aiohttp.DummyCookieJar(), headers=headers)

    async def _plain_put(self, known: bool) -> None:
        headers = {"Content-Length": str(self._size)} if known else {}
        async with self._client() as client, client.put(self._url, data=self._source(), headers=headers) as answer:
            if answer.status not in {200, 201}:
                raise Broken(f"aiohttp: HTTP {answer.status}")

    async def _plain_get(self) -> None:
        async with self._client() as client, client.get(self._url) as answer:
            self._whole(sum([len(chunk) async for chunk in answer.content.iter_any()]))

    async def _curl(self, *words: str) -> None:
        trusted = ("--noproxy", "*", "--cacert", str(self._server.ca_file), "--cookie", self._cookie)
        await asyncio.to_thread(subprocess.run, ["curl", "-sSf", *trusted, *words, self._url], check=True)

    def _file(self) -> Path:
        file = new_directory("bench") / "file"
        with file.open("wb") as output:
            for _ in range(self._size // MIB):
                output.write(self._block)
        return file

    async def _curl_put(self) -> None:
        if not hasattr(self, "_given"):
            self._given = self._file()
        await self._curl("-o", os.devnull, "-T", str(self._given))

    async def _curl_get(self) -> None:
        await self._curl("-o", os.devnull)

    def _whole(self, size: int) -> None:
        if size != self._size:
            raise Broken(f"{size} bytes came, not {self._size}")

    def _told(self) -> None:
        for work in WORKS:
            middle = {}
            for who in ("ours", "aiohttp", "curl"):
                some = self._seen.get((work, who))
                if some:
                    middle[who] = tuple(statistics.median(column) for column in zip(*some, strict=True))
            rate = {who: self._size / MIB / wall for who, (wall, _) in middle.items()}
            cpu = {who: seconds * GIB / self._size for who, (_, seconds) in middle.items()}
            for who in ("aiohttp", "curl"):
                if who in rate:
                    bound = {"times": 0.8, "target": "≥ 80 % of the bare client"} if who == "aiohttp" else {}
                    told = f"{work}, peer: {who}"
                    add = self._run.report.add
                    add("vsphere", told, "MiB/s", HIGHER, peer=rate[who], ours=rate["ours"], **bound)
                    add("vsphere", told, "CPU-s/GiB of the client", LOWER, peer=cpu[who], ours=cpu["ours"])

    async def _range(self) -> None:
        size = 4 * GIB
        with (self._server.directory() / FOLDER / "large").open("wb") as file:
            file.truncate(size)
        seen: dict[int, list[float]] = {0: [], size - MIB: []}
        for _ in range(20):
            for offset, times in seen.items():
                begun = time.perf_counter()
                length = MIB if offset else None
                async with self._store.open(self._location("large"), offset=offset, length=length) as reader:
                    await anext(aiter(reader.chunks))
                    times.append(1000 * (time.perf_counter() - begun))
        plain, ranged = (statistics.median(times) for times in seen.values())
        work = "first byte of the last MiB of 4 GiB, peer: of a plain read"
        self._run.report.add(
            "vsphere", work, "ms", LOWER, peer=plain, ours=ranged, times=0.1, target="≤ 10× a plain read"
        )
