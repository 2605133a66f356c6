"""One S3 transfer by one client, in a process of its own, so that its processor time and memory are its own.

Runs as a script in the environment of the client: a JSON object on standard input, one on standard output. Clients:
ours, obstore (with and without signed bodies), Glance's driver (as it is, and with its digests taken out).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MIB = 1 << 20
CHUNK = 256 * 1024  # what the API hands to a store


class Source:
    """`size` bytes of one random MiB again and again: as an iterator of chunks, and as a file for Glance."""

    def __init__(self, size: int) -> None:
        block = os.urandom(MIB)
        self._chunks = [block[start : start + CHUNK] for start in range(0, MIB, CHUNK)]
        self._left, self._at = size, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := self.read():
            yield chunk

    def read(self, _: int = 0) -> bytes:
        if not self._left:
            return b""
        self._at += 1
        self._left -= CHUNK
        return bytes(bytearray(self._chunks[self._at % len(self._chunks)]))  # memory of its own, as from a socket


async def ours(spec: dict[str, Any], measured: Callable[[], None]) -> int:
    from xloud_image.stores.s3.store import S3Store

    options = {option.name: option.default for option in S3Store.TYPE.options} | spec["options"]
    store = S3Store("bench", options)
    if not spec.get("signed", True):  # as over https, where TLS vouches for the bytes
        store._client._sign_bodies = False
    url = store.address.location(spec["key"])
    measured()
    try:
        if spec["do"] == "put":
            size = spec["size"] if spec["known"] else None
            return (await store.write(spec["key"], aiter(Source(spec["size"])), size=size)).size
        if spec["do"] == "first":
            async with store.open(url, offset=spec["offset"], length=spec["length"]) as reader:
                await anext(reader.chunks)
                return 1
        async with store.open(url) as reader:
            return sum([len(chunk) async for chunk in reader.chunks])
    finally:
        measured()
        await store.aclose()


async def obstore(spec: dict[str, Any], measured: Callable[[], None]) -> int:
    import obstore as library
    from obstore.store import S3Store

    store = S3Store(
        spec["options"]["s3_store_bucket"],
        endpoint=spec["options"]["s3_store_host"],
        access_key_id=spec["options"]["s3_store_access_key"],
        secret_access_key=spec["options"]["s3_store_secret_key"],
        region="us-east-1",
        unsigned_payload=not spec["signed"],
        client_options={"allow_http": True},
    )
    measured()
    try:
        if spec["do"] == "put":
            source = aiter(Source(spec["size"]))
            await library.put_async(
                store, spec["key"], source, use_multipart=True, chunk_size=10 * MIB, max_concurrency=10
            )
            return int(spec["size"])
        found = await library.get_async(store, spec["key"])
        return sum([len(chunk) async for chunk in found.stream(min_chunk_size=CHUNK)])
    finally:
        measured()


class NoDigest:
    """In the place of md5 and sha512."""

    def update(self, _: bytes) -> None:
        """Nothing."""

    def hexdigest(self) -> str:
        return ""


async def glance(spec: dict[str, Any], measured: Callable[[], None]) -> int:
    from glance_store import multi_backend
    from glance_store.common import utils
    from oslo_config import cfg

    conf = cfg.CONF  # the library asks the global one as well
    conf.register_opt(cfg.DictOpt("enabled_backends", default={"bench": "s3"}))
    conf([])
    multi_backend.register_store_opts(conf)
    for name, value in spec["options"].items():
        conf.set_override(name, value, group="bench")
    multi_backend.create_multi_stores(conf)
    if not spec["digests"]:
        utils.get_hasher = lambda *_: NoDigest()
    measured()
    try:
        if spec["do"] == "put":
            size = spec["size"] if spec["known"] else 0
            added = multi_backend.add_with_multihash(conf, spec["key"], Source(spec["size"]), size, "bench", "sha512")
            return int(added[1])
        place = spec["options"]["s3_store_host"].partition("://")[2]
        chunks, _ = multi_backend.get(f"s3://{place}/{spec['options']['s3_store_bucket']}/{spec['key']}", "bench")
        return sum(len(chunk) for chunk in chunks)
    finally:
        measured()


def main() -> None:
    """Do what standard input says."""
    spec = json.load(sys.stdin)
    marks: list[tuple[float, float, float]] = []

    def measured() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        marks.append((time.perf_counter(), used.ru_utime + used.ru_stime, _memory()))

    done = asyncio.run({"ours": ours, "obstore": obstore, "glance": glance}[spec["who"]](spec, measured))
    (wall, cpu, memory), (wall_end, cpu_end, memory_end) = marks
    json.dump({"done": done, "wall": wall_end - wall, "cpu": cpu_end - cpu, "memory": memory_end - memory}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # obstore's threads now and then abort the process at its end


def _memory() -> float:
    """MiB, the most it has been."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
