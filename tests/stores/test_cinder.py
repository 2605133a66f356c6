"""The cinder store against a real Cinder, its volumes attached to this host: in Ceph by librbd, and as files."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest

from tests.load import quiet
from tests.stores.cinder_hooks import GIB, Another, Hooks, Quick, all_options
from tests.stores.drivers import all_but
from xloud_image.errors import (
    BlobNotFound,
    ConfigError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    Unsupported,
    WriteDenied,
)
from xloud_image.stores.base import Caller
from xloud_image.stores.cinder import store as module
from xloud_image.stores.cinder import upload as draft_module
from xloud_image.stores.cinder.store import CinderStore
from xloud_image.stores.suite import MIB, SIZE, collect, feed, noise


class TestCinder(Hooks):
    """Volumes in Ceph, by a handle."""


class Own(Hooks):
    """The hooks and the store of the suite, without its tests."""

    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(Hooks)

    @pytest.fixture
    def another(self) -> Iterator[Any]:
        made: list[Another] = []

        def make(*what: str, **options: Any) -> Another:
            made.append(Another(self.options(**options), *what))
            return made[-1]

        yield make
        for one in made:
            one.kill()

    def attached(self, url: str) -> int:
        """Attachments of a volume, as Cinder has them."""
        found = self.cinder.call("GET", f"/attachments?volume_id={url.rpartition('/')[2]}")["attachments"]
        return len(found)

    async def until_detached(self, url: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while self.attached(url):
            assert time.monotonic() < end, "still attached"
            await asyncio.sleep(0.2)

    async def no_clones(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while any(one["name"].startswith("reading-") for one in self.cinder.volumes()):
            assert time.monotonic() < end, "a clone stays"
            await asyncio.sleep(0.2)


class TestVolumes(Own):
    async def test_what_a_volume_looks_like(self) -> None:
        async def source() -> AsyncIterator[bytes]:
            yield noise(SIZE)

        blob = await self.store.write("key", source(), size=SIZE, caller=Caller(user="u", project="p", token="t"))
        volume = self.cinder.volume(blob.url.rpartition("/")[2])
        assert (volume["name"], volume["size"], volume["volume_type"]) == ("image-key", 1, "image-store")
        assert volume["metadata"] == {
            "glance_image_id": "key", "image_owner": "p", "image_size": str(SIZE), "readonly": "True",
        }  # fmt: skip
        assert volume["status"] == "available"
        assert blob.url == f"cinder://volumes/{volume['id']}"

    async def test_a_draft_is_never_read(self) -> None:
        url = await self.put_behind("key", b"half")
        body = {"metadata": {"xloud_writer": "0123456789abcdef"}}
        self.cinder.call("POST", f"/volumes/{url.rpartition('/')[2]}/metadata", body)
        for call in (self.store.stat(url), self.read(url)):
            with pytest.raises(BlobNotFound):
                await call
        await self.store.discard("key")
        assert not [one for one in self.cinder.volumes() if one["status"] != "deleting"]

    async def test_urls(self) -> None:
        other = CinderStore("other", self.options())
        volume = uuid.uuid4()
        for url, here, there in (
            (f"cinder://volumes/{volume}", True, False),
            (f"cinder://other/{volume}", False, True),
            (f"cinder://{volume}", True, True),
            (f"cinder://renamed/{volume}", True, True),
            (f"cinder://volumes/{volume}/x", False, False),
            ("cinder://volumes/key", False, False),
            (f"rbd://volumes/{volume}", False, False),
        ):
            assert (self.store.owns(url), other.owns(url)) == (here, there), url
        await other.aclose()
        kept = (await self.put_behind("key", b"old")).rpartition("/")[2]
        for url in (f"cinder://{kept}", f"cinder://renamed/{kept}", f"cinder://other/{kept}"):
            assert await self.read(url) == b"old"

    async def test_one_key_in_stores_of_two_types(self) -> None:
        other = Quick("other", self.options(cinder_volume_type="image-store-multi"))
        await other.start()
        here, there = await asyncio.gather(
            self.store.write("key", feed(b"here"), size=4), other.write("key", feed(b"there"), size=5)
        )
        await self.store.discard("key")
        with pytest.raises(BlobNotFound):
            await self.store.stat(here.url)
        async with other.open(there.url) as reader:
            assert await collect(reader) == b"there"
        assert not set(other.places) & set(self.store.places)
        await other.aclose()

    async def test_a_burst_attaches_once_and_lets_go(self) -> None:
        url = await self.put_behind("key", noise(SIZE))
        for offset in range(0, SIZE, MIB):
            await self.read(url, offset=offset, length=100)
            assert self.attached(url) == 1
        await self.until_detached(url)
        assert isinstance(self.store, Quick)
        assert self.store._attachments.held == 0
        assert self.cinder.volume(url.rpartition("/")[2])["status"] == "available"

    async def test_two_processes_read_one_volume(self, another: Any) -> None:
        """Of a type that cannot be attached twice: the second reads a clone, which goes afterwards."""
        data = noise(SIZE)
        url = await self.put_behind("key", data)
        async with self.store.open(url) as reader:
            first = await anext(reader.chunks)
            assert await another("read", url).line() == hashlib.sha256(data).hexdigest()
            assert first + await collect(reader) == data
        await self.no_clones()
        await self.store.delete(url)

    async def test_a_killed_reader_holds_nothing(self, another: Any) -> None:
        url = await self.put_behind("key", noise(SIZE))
        other = another("hold", url)
        assert await other.line() == "half"
        assert self.attached(url) == 1
        other.kill()
        second = await self.make()
        await second.start()
        await self.until_detached(url)
        other = another("hold", url)
        assert await other.line() == "half"
        other.kill()
        # and without a start: whoever wants it next finds it
        assert await self.read(url) == noise(SIZE)
        assert self.attached(url) == 1
        await second.aclose()

    async def test_a_killed_reader_of_a_clone_leaves_none(self, another: Any) -> None:
        """Gone once Ceph has forgotten the killed client, half a minute later."""
        url = await self.put_behind("key", noise(SIZE))
        async with self.store.open(url) as reader:
            other = another("hold", url)
            assert await other.line() == "half"
            assert any(one["name"].startswith("reading-") for one in self.cinder.volumes())
            other.kill()
            assert await collect(reader) == noise(SIZE)
        second = await self.make()
        await second.start()
        await self.no_clones(60)
        await second.aclose()

    async def test_deleting_waits_for_readers(self, monkeypatch: pytest.MonkeyPatch, another: Any) -> None:
        monkeypatch.setattr(module, "_READERS", 2.0)
        url = await self.put_behind("key", noise(SIZE))
        other = another("hold", url)
        assert await other.line() == "half"
        with pytest.raises(StoreUnavailable, match="still being read"):
            await self.store.delete(url)
        assert self.cinder.volume(url.rpartition("/")[2])["status"] == "in-use"
        async with self.store.open(url) as reader:  # by a clone
            with pytest.raises(StoreUnavailable, match="still being read"):
                await self.store.delete(url)
            assert await collect(reader) == noise(SIZE)
        other.kill()
        await self.no_clones()

    @pytest.mark.parametrize("attached", [True, False])
    async def test_grows_in_large_steps(self, attached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(draft_module, "GIB", 4 * MIB)  # as if a volume of so many GiB were full so early
        store = Quick("volumes", self.options(cinder_do_extend_attached=attached))
        await store.start()
        data = noise(9 * MIB)
        blob = await store.write("key", feed(data), size=None)
        assert blob.size == len(data)
        assert self.cinder.volume(blob.url.rpartition("/")[2])["size"] == 4
        assert await self.peek("key") == data
        await store.aclose()

    async def test_in_the_callers_own_account(self) -> None:
        given = {"cinder_store_auth_address": self.cinder.keystone.url, "cinder_volume_type": "image-store"}
        store = Quick("volumes", all_options(given, self.tmp))
        await store.start()
        assert "each caller" in (await store.check()).detail
        for call in (store.write("key", feed(b"x"), size=1), store.stat(f"cinder://{uuid.uuid4()}")):
            with pytest.raises(StoreRefused, match="no service account"):
                await call
        project = self.cinder.keystone.project_id("demo")
        token = self.cinder.keystone.token("demo")
        caller = Caller("demo", project, token)
        blob = await store.write("key", feed(noise(SIZE)), size=SIZE, caller=caller)
        found = next(one for one in self.cinder.volumes() if one["name"] == "image-key")
        assert found["os-vol-tenant-attr:tenant_id"] == project
        async with store.open(blob.url, caller=caller) as reader:
            assert await collect(reader) == noise(SIZE)
        assert (await store.stat(blob.url, caller=Caller("demo", project, token))).size == SIZE
        await store.delete(blob.url, caller=caller)
        await store.aclose()

    # what an operator is told

    @pytest.mark.parametrize(
        ("left_out", "told"),
        [
            ("cinder_store_password", "cinder_store_password is missing"),
            ("cinder_store_user_name", "cinder_store_user_name is missing"),
        ],
    )
    def test_half_an_account(self, left_out: str, told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            CinderStore("volumes", self.options(**{left_out: None}))

    def test_nowhere_to_go(self) -> None:
        with pytest.raises(ConfigError, match="cinder_endpoint_template"):
            CinderStore("volumes", all_options({}, self.tmp))

    async def test_check(self) -> None:
        found = await self.store.check()
        assert found.free is not None
        assert 0 < found.free < 64 * GIB
        for given, told in (
            ({"cinder_volume_type": "gone"}, "openstack volume type create gone"),
            ({"cinder_store_password": "wrong"}, "refuses the login"),
            ({"cinder_os_region_name": "Nowhere"}, "no public address of type volumev3 in region Nowhere"),
            ({"cinder_endpoint_template": "http://127.0.0.1:1/v3/%(project_id)s"}, "Cinder does not answer"),
            ({"cinder_mount_point_base": "/dev/null/mnt"}, "cinder_mount_point_base cannot be used"),
        ):
            store = Quick("volumes", self.options(**given))
            with pytest.raises((WriteDenied, StoreUnavailable), match=told) as raised:
                await store.check()
            assert "wrong" not in raised.value.message
            await store.aclose()

    # when Cinder fails

    async def test_no_backend_for_the_type(self) -> None:
        made = self.cinder.call("POST", "/types", {"volume_type": {"name": "nowhere"}})["volume_type"]["id"]
        self.cinder.call("POST", f"/types/{made}/extra_specs", {"extra_specs": {"volume_backend_name": "nowhere"}})
        store = Quick("volumes", self.options(cinder_volume_type="nowhere"))
        with pytest.raises(StoreUnavailable, match=r"into state error: .*backend"):
            await store.write("key", feed(b"x"), size=1)
        assert not await self.leftovers()
        await store.aclose()
        self.cinder.call("DELETE", f"/types/{made}")

    async def test_a_quota_that_is_used_up(self) -> None:
        project = self.cinder.keystone.project_id("service")
        self.cinder.call("PUT", f"/os-quota-sets/{project}", {"quota_set": {"gigabytes": 0}})
        try:
            with pytest.raises(StoreFull, match="quota"):
                await self.store.write("key", feed(b"x"), size=1)
        finally:
            self.cinder.call("PUT", f"/os-quota-sets/{project}", {"quota_set": {"gigabytes": -1}})
        await self.clean("key")

    async def test_a_volume_service_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_REMOVING", 2.0)
        store = Quick("volumes", self.options(cinder_state_transition_timeout=2))
        self.cinder.freeze("volume")
        begun = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable, match="cinder_state_transition_timeout"):
                await store.write("key", feed(b"x"), size=1)
            assert time.monotonic() - begun < quiet(15)
        finally:
            self.cinder.thaw("volume")
        await store.aclose()
        monkeypatch.undo()
        await self.store.discard("key")  # as the service does for an upload that failed
        assert not await self.leftovers()


class TestMultiattach(Own):
    TYPE = "image-store-multi"

    async def test_two_processes_read_one_volume(self, another: Any) -> None:
        data = noise(SIZE)
        url = await self.put_behind("key", data)
        other = another("hold", url)
        assert await other.line() == "half"
        assert await self.read(url) == data
        assert self.attached(url) == 2
        assert not [one for one in self.cinder.volumes() if one["name"].startswith("reading-")]
        other.kill()

    async def test_write(self) -> None:
        await self.clean("key")


class TestFiles(Hooks):
    """Volumes that come as files: the share of an NFS driver, mounted here by os-brick (the transport is FUSE)."""

    TYPE = "image-store-nfs"
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(
        Hooks,
        "test_every_range",
        "test_outlives_the_process",
        "test_writes_what_it_is_given",
        "test_leaving_early_closes",
        "test_discard_against_a_running_writer",
    )

    def bytes_of(self, volume: str, data: bytes | None = None, size: int = 0) -> bytes:
        path = self.cinder.share / f"volume-{volume}"
        with path.open("r+b" if data else "rb") as file:
            if data:
                file.write(data)
            return file.read(size)

    @pytest.mark.parametrize(
        ("more", "told"), [({"format": "qcow2"}, "nfs_qcow2_volumes"), ({"encrypted": True}, "encrypted volumes")]
    )
    async def test_what_is_not_plain_is_refused(self, more: dict[str, Any], told: str) -> None:
        """What Cinder would say of such a volume: before anything is mounted or opened."""
        assert isinstance(self.store, CinderStore)
        said = {"driver_volume_type": "nfs", "export": "127.0.0.1:/nowhere", "name": "volume-x", **more}
        with pytest.raises(Unsupported, match=told):
            self.store._brick.connect(said, write=True)

    async def test_a_full_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file system says so in the middle of the data."""
        import errno

        from xloud_image.stores.cinder.devices import Device

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Device, "write", full)
        with pytest.raises(StoreFull):
            await self.store.write("key", feed(noise(SIZE)), size=SIZE)
        monkeypatch.undo()
        await self.clean("key")
