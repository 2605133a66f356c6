"""The hooks of the cinder store for the suite, and a process beside the tests that has a store of its own."""

import asyncio
import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import rados

from tests.servers.cinder import Cinder
from tests.servers.place import ROOT
from tests.stores.pool import opened
from xloud_image.errors import BlobNotFound
from xloud_image.stores.base import Store
from xloud_image.stores.cinder.store import CinderStore
from xloud_image.stores.suite import StoreSuite

GIB = 1 << 30


class Quick(CinderStore):
    """With less patience than in service."""

    LINGER = 1.0


def all_options(given: dict[str, Any], base: Path) -> dict[str, Any]:
    options = {option.name: option.default for option in CinderStore.TYPE.options}
    return options | {"cinder_mount_point_base": str(base), "cinder_state_transition_timeout": 60} | given


# a process with a store of its own: `write KEY` never ends, `read URL` reads all, `hold URL` keeps it open
PROGRAM = """\
import asyncio, hashlib, json, sys
from xloud_image.stores.cinder.store import CinderStore
from xloud_image.stores.suite import noise

async def endless():
    while True:
        yield noise(1 << 20)
        await asyncio.sleep(0.01)

async def main(options, what, which):
    store = CinderStore("volumes", json.loads(options))
    await store.start()
    if what == "write":
        async def source():
            for number in range(6):
                yield noise(1 << 20)
            await asyncio.sleep(0.5)
            print("half", flush=True)
            await asyncio.sleep(600)
        await store.write(which, source(), size=8 << 20)
    async with store.open(which) as reader:
        digest = hashlib.sha256()
        async for chunk in reader.chunks:
            digest.update(chunk)
            if what == "hold":
                print("half", flush=True)
                await asyncio.sleep(600)
    print(digest.hexdigest(), flush=True)
    await store.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Another:
    """Another process of the same node. Leaving kills it as kill -9 does, if it still runs."""

    def __init__(self, options: dict[str, Any], what: str, which: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(options), what, which],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Hooks(StoreSuite):
    """What lies behind the store's back is asked of Cinder as an administrator, and of Ceph by librbd."""

    SLOW = True
    TIMEOUT = 300
    BOUND = 30.0
    TYPE: ClassVar[str] = "image-store"
    SECRETS = ("servicepass",)

    @pytest.fixture
    def prepared(self, cinder: Cinder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.cinder = cinder
        for name, value in cinder.nfs_environment.items():
            monkeypatch.setenv(name, value)
        self.opened_stores: list[CinderStore] = []
        yield
        for volume in cinder.volumes():
            if volume["status"] == "deleting":
                continue
            for attachment in volume["attachments"]:  # of processes that were killed
                cinder.call("DELETE", f"/attachments/{attachment['attachment_id']}")
            answer = cinder.ask("DELETE", f"/volumes/{volume['id']}?cascade=true")
            assert answer.status in (202, 404), (volume, answer.body)

    def options(self, **more: Any) -> dict[str, Any]:
        return all_options(self.cinder.store_options(self.TYPE, **more), self.cinder.directory / "node")

    async def make(self) -> Store:
        store = Quick("volumes", self.options())
        self.opened_stores.append(store)
        return store

    def handles(self) -> int:
        """Readers under way, and of stores that are closed also what is still attached."""
        stores = self.opened_stores
        return sum(one._attachments.users + (one._attachments.held if one._threads._closed else 0) for one in stores)

    # bytes of a volume, behind the store's back

    def bytes_of(self, volume: str, data: bytes | None = None, size: int = 0) -> bytes:
        """Reads `size` bytes, or writes `data`."""
        with (
            rados.Rados(conffile=str(self.cinder.ceph.conf), rados_id="admin") as cluster,
            cluster.open_ioctx("volumes") as pool,
            opened(pool, f"volume-{volume}", read_only=data is None) as image,
        ):
            if data:
                image.write(data, 0)
            return image.read(0, size) if size else b""

    def finished(self, volume: dict[str, Any]) -> bool:
        return "image_size" in volume["metadata"] and not any("xloud" in name for name in volume["metadata"])

    def put(self, key: str, data: bytes) -> str:
        metadata = {"glance_image_id": key, "image_owner": "somebody", "image_size": str(len(data))}
        body = {"name": f"image-{key}", "size": 1, "volume_type": self.TYPE, "metadata": metadata}
        volume = self.cinder.call("POST", "/volumes", {"volume": body})["volume"]["id"]
        self.cinder.await_status(volume, "available")
        self.bytes_of(volume, data)
        return f"cinder://volumes/{volume}"

    def look(self, key: str) -> bytes | None:
        found = [one for one in self.cinder.volumes() if one["name"] == f"image-{key}" and self.finished(one)]
        found = [one for one in found if one["status"] != "deleting"]
        assert len(found) <= 1
        if not found:
            return None
        assert found[0]["status"] == "available" or self.opened_stores[0]._attachments.held
        return self.bytes_of(found[0]["id"], size=int(found[0]["metadata"]["image_size"]))

    async def put_behind(self, key: str, data: bytes) -> str:
        return await asyncio.to_thread(self.put, key, data)

    async def peek(self, key: str) -> bytes | None:
        return await asyncio.to_thread(self.look, key)

    async def leftovers(self) -> list[str]:
        volumes = await asyncio.to_thread(self.cinder.volumes)
        return [one["name"] for one in volumes if not self.finished(one) and one["status"] != "deleting"]

    async def leave_behind(self, key: str) -> bool:
        other = Another(self.options(), "write", key)
        try:
            assert await other.line() == "half"
        finally:
            other.kill()
        return True

    @contextlib.asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        snapshot = {"volume_id": url.rpartition("/")[2], "name": "kept", "force": True}
        made = self.cinder.call("POST", "/snapshots", {"snapshot": snapshot})["snapshot"]["id"]
        while self.cinder.call("GET", f"/snapshots/{made}")["snapshot"]["status"] != "available":
            await asyncio.sleep(0.1)
        try:
            yield
        finally:
            self.cinder.call("DELETE", f"/snapshots/{made}")
            while self.cinder.ask("GET", f"/snapshots/{made}").status != 404:
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        assert isinstance(self.store, CinderStore)
        self.store._client.limit = 3  # in service it is 65
        self.cinder.freeze("api")
        try:
            yield
        finally:
            self.cinder.thaw("api")
            self.store._client.limit = 65

    async def test_missing_is_not_found_at_entry(self) -> None:
        url = f"cinder://volumes/{uuid.uuid4()}"
        for call in (self.store.stat(url), self.read(url), self.store.delete(url)):
            with pytest.raises(BlobNotFound):
                await call
