"""What is the vmware store's own: URLs, choice of datastore, sessions, certificates, rights, servers that fail."""

import asyncio
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.certificates import Authority, authority
from tests.servers.place import HOST, ROOT, free_port
from tests.servers.vsphere import Vsphere
from tests.stores.meddler import Meddler
from tests.stores.test_vmware import options
from xloud_image.errors import (
    BlobNotFound,
    ConfigError,
    ImageServiceError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.base import Store
from xloud_image.stores.suite import MIB, SIZE, collect, feed, noise
from xloud_image.stores.vmware.store import VmwareStore

Make = Callable[..., Any]
PATIENCE = 3.0  # seconds; thirty outside tests
BOTH = ["DC0:LocalDS_0:0", "DC0:LocalDS_1:0"]


@pytest.fixture
def server(vsphere: Vsphere) -> Iterator[Vsphere]:
    yield vsphere
    vsphere.knobs()


@pytest.fixture
def own() -> Iterator[Callable[..., Vsphere]]:
    """Makes servers that a test may stop."""
    made: list[Vsphere] = []

    def one(**how: Any) -> Vsphere:
        made.append(Vsphere(**how))
        made[-1].start()
        return made[-1]

    yield one
    for server in made:
        server.close()


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes started stores, each in a folder of its own."""
    made: list[Store] = []

    async def one(server: Vsphere, **changed: Any) -> VmwareStore:
        values = options(server, **{"store_image_dir": f"own/{secrets.token_hex(4)}", **changed})
        made.append(store := VmwareStore("esx", values, patience=PATIENCE))
        await store.start()
        return store

    yield one
    for store in made:
        await store.aclose()


async def read(store: Store, url: str, **where: Any) -> bytes:
    async with store.open(url, **where) as reader:
        return await collect(reader)


def folder(store: VmwareStore, server: Vsphere, datastore: str = "LocalDS_0") -> Path:
    return server.directory(datastore) / str(store.facts["image_dir"]).strip("/")


# URLs and options


HOSTED = {"server_host": "vc.example", "datastores": ["DC 1/x:ds+1:5", "ha-datacenter:datastore1"]}


@pytest.mark.parametrize(
    ("url", "owned"),
    [
        ("vsphere://vc.example/folder/openstack_glance/KEY?dsName=ds%2B1&dcPath=DC+1%2Fx", True),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dcPath=DC%201/x&dsName=ds%2B1", True),
        ("vsphere://VC.Example:443/folder/openstack%5Fglance/KEY?dcPath=/DC%201/x/&dsName=ds%2B1", True),
        ("vsphere://user:secret@vc.example/folder/openstack_glance/KEY?dsName=datastore1", True),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dsName=datastore1&dcPath=ha-datacenter", True),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dsName=datastore1&dcPath=DC 1/x", False),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dsName=other&dcPath=ha-datacenter", False),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dsName=datastore1&dsName=other", False),
        ("vsphere://vc.example/folder/openstack_glance/KEY?dcPath=ha-datacenter", False),
        ("vsphere://vc.example/folder/openstack_glance/KEY", False),
        ("vsphere://vc.example:8443/folder/openstack_glance/KEY?dsName=datastore1", False),
        ("vsphere://other.example/folder/openstack_glance/KEY?dsName=datastore1", False),
        ("vsphere://vc.example@other.example/folder/openstack_glance/KEY?dsName=datastore1", False),
        ("https://vc.example/folder/openstack_glance/KEY?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/../vm/disk.vmdk?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/%2E%2E%2Fvm?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/..?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/below/KEY?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/KEY~0123456789abcdef.part?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance/?dsName=datastore1", False),
        ("vsphere://vc.example/folder/openstack_glance?dsName=datastore1", False),
        ("vsphere://vc.example/folder/vm/disk.vmdk?dsName=datastore1", False),
        ("vsphere://vc.example/openstack_glance/KEY?dsName=datastore1", False),
        ("vsphere:///folder/openstack_glance/KEY?dsName=datastore1", False),
    ],
)
def test_which_urls_are_its_own(vsphere: Vsphere, url: str, owned: bool) -> None:
    for name in ("vmware", "renamed"):
        assert VmwareStore(name, options(vsphere, **HOSTED)).owns(url) is owned


@pytest.mark.parametrize("host", ["2001:db8::1", "[2001:db8::1]", "[2001:0db8:0::1]:443"])
def test_an_address_of_version_6(vsphere: Vsphere, host: str) -> None:
    store = VmwareStore("esx", options(vsphere, server_host=host))
    url = "vsphere://[2001:db8::1]/folder/openstack_glance/KEY?dsName=LocalDS_0&dcPath=DC0"
    assert store._where.url(store._where.places[0], "KEY") == url
    assert store.owns(url)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"server_host": "https://vc.example"}, "without https://"),
        ({"server_host": ""}, "vmware_server_host"),
        ({"datastores": []}, "is empty"),
        ({"datastores": ["DC0"]}, "datacenter path:datastore:weight"),
        ({"datastores": ["DC0:ds:high"]}, "DC0:ds:high"),
        ({"datastores": ["DC0::5"]}, "DC0::5"),
        ({"datastores": ["DC0:ds:5", "/DC0/:ds"]}, "DC0:ds twice"),
        ({"store_image_dir": "/"}, "a folder of its own"),
        ({"store_image_dir": "/a/../b"}, "a folder of its own"),
        ({"ca_file": "/nowhere.pem"}, "vmware_ca_file /nowhere.pem"),
    ],
)
def test_options_that_mean_nothing(vsphere: Vsphere, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VmwareStore("esx", options(vsphere, **changed))


def test_a_colon_belongs_to_the_datacenter_and_the_weight_may_be_missing(vsphere: Vsphere) -> None:
    store = VmwareStore("esx", options(vsphere, datastores=["a:b/DC0:ds:7", " DC1:ds ", "DC2:ds:"]))
    assert store.facts["datastores"] == ["a:b/DC0:ds:7", "DC1:ds:0", "DC2:ds:0"]
    assert store.places[0] == f"folder {vsphere.host}/a:b/DC0:ds/openstack_glance"


async def test_a_datacenter_in_a_folder(own: Callable[..., Vsphere], make: Make) -> None:
    server = own(folders=1)
    store = await make(server, datastores=["F0/DC1:LocalDS_1:1"], store_image_dir="/with space/images/")
    url = (await store.write("key", feed(noise(SIZE)), size=None)).url
    assert url == f"vsphere://{server.host}/folder/with space/images/key?dsName=LocalDS_1&dcPath=F0%2FDC1"
    assert (server.directory("LocalDS_1", "DC1") / "with space/images/key").read_bytes() == noise(SIZE)
    assert await read(store, url.replace("%2F", "/").replace("with space", "with%20space")) == noise(SIZE)
    await store.delete(url)


# datastores


async def test_the_highest_weight_with_room_wins(server: Vsphere, make: Make) -> None:
    store = await make(server, datastores=["DC0:LocalDS_0:10", "DC0:LocalDS_1:99"])
    with server.wrong(room={"DC0/LocalDS_0": 1 << 40, "DC0/LocalDS_1": server_used(server) + 2 * MIB}):
        for key, size, where in (("small", MIB, "LocalDS_1"), ("large", 4 * MIB, "LocalDS_0"), ("any", None, None)):
            url = (await store.write(key, feed(noise(size or 10)), size=size)).url
            assert f"dsName={where or 'LocalDS_0'}&" in url  # of unknown size: where there is plenty
        found = await store.check()
        assert found.facts["free"]["DC0:LocalDS_1"] == MIB
    with server.wrong(inaccessible=["DC0/LocalDS_1"]):
        assert "dsName=LocalDS_0&" in (await store.write("passed", feed(b"x"), size=1)).url
        assert "DC0:LocalDS_1 is not accessible" in (await store.check()).detail
    with server.wrong(inaccessible=["DC0/LocalDS_0", "DC0/LocalDS_1"]):
        for call in (store.check(), store.write("none", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable, match="none of its datastores is accessible"):
                await call


def server_used(server: Vsphere, datastore: str = "LocalDS_1") -> int:
    return sum(file.stat().st_size for file in server.directory(datastore).rglob("*") if file.is_file())


@pytest.mark.parametrize("emptier", ["LocalDS_0", "LocalDS_1"])
async def test_of_equals_the_emptiest_wins(server: Vsphere, make: Make, emptier: str) -> None:
    store = await make(server, datastores=BOTH)
    room = {f"DC0/{name}": (1 << 40) * (1 + (name == emptier)) for name in ("LocalDS_0", "LocalDS_1")}
    with server.wrong(room=room):
        assert f"dsName={emptier}&" in (await store.write("key", feed(b"x"), size=1)).url


async def test_no_room_is_said_before_a_byte_is_asked_for(server: Vsphere, make: Make) -> None:
    store = await make(server)

    async def source() -> AsyncIterator[bytes]:
        pytest.fail("asked")
        yield b""

    with server.wrong(room={"DC0/LocalDS_0": server_used(server, "LocalDS_0") + MIB}):
        with pytest.raises(StoreFull, match=f"room for {2 * MIB} bytes: {MIB} bytes are free"):
            await store.write("key", source(), size=2 * MIB)
        assert list(folder(store, server).iterdir()) == []
    with server.wrong(room={"DC0/LocalDS_0": 0}), pytest.raises(StoreFull, match="full"):
        await store.check()


@pytest.mark.parametrize("status", [507, 500])
@pytest.mark.parametrize("known", [True, False])
async def test_a_datastore_that_fills_up(server: Vsphere, make: Make, status: int, known: bool) -> None:
    store = await make(server)
    # the server's numbers are old: it only learns of it when it is asked to look
    room = {"DC0/LocalDS_0": server_used(server, "LocalDS_0") + MIB}
    with server.wrong(told=False, room=room, full_status=status):
        with pytest.raises(StoreFull) as raised:
            await store.write("key", feed(noise(4 * MIB)), size=4 * MIB if known else None)
        assert raised.value.status == 413
        assert list(folder(store, server).iterdir()) == []
    server.knobs()
    await store._files.rooms(refresh=True)
    await store.write("key", feed(noise(4 * MIB)), size=None)


async def test_bytes_that_the_server_loses_are_missed(server: Vsphere, make: Make) -> None:
    store = await make(server)
    with server.wrong(swallow=MIB), pytest.raises(StoreUnavailable, match=f"kept {MIB} of {SIZE} bytes"):
        await store.write("key", feed(noise(SIZE)), size=None)
    assert list(folder(store, server).iterdir()) == []


@pytest.mark.parametrize("wrong", ["datacenter", "datastore"])
async def test_a_place_that_is_not_there(server: Vsphere, make: Make, wrong: str) -> None:
    store = await make(server, datastores=["DC7:LocalDS_0" if wrong == "datacenter" else "DC0:LocalDS_7"])
    names = "the datacenter DC7.*there are: DC0, DC1" if wrong == "datacenter" else "LocalDS_7.*LocalDS_0, LocalDS_1"
    for call in (store.check(), store.write("key", feed(b"x"), size=1), store.discard("key")):
        with pytest.raises(StoreUnavailable, match=names):
            await call


async def test_a_folder_is_never_deleted_as_data(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(b"x"), size=1)).url
    machine = folder(store, server) / "machine"
    machine.mkdir()
    (machine / "disk.vmdk").write_bytes(b"precious")
    with pytest.raises(BlobNotFound):
        await store.delete(url.replace("/key?", "/machine?"))
    assert (machine / "disk.vmdk").read_bytes() == b"precious"


# sessions and who may do what


async def test_an_ended_session_is_renewed(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(noise(SIZE)), size=SIZE)).url
    calls: list[Callable[[], Any]] = [
        lambda: store.stat(url),
        lambda: read(store, url, offset=10),
        store.check,
        lambda: store.write("other", feed(noise(SIZE)), size=None),
        lambda: store.discard("other"),
        lambda: store.delete(url),
    ]
    for call in calls:
        server.end_sessions()
        await call()
        assert server.count("sessions") == 1
    assert list(folder(store, server).iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
async def test_a_session_that_ends_during_a_transfer(server: Vsphere, make: Make, known: bool) -> None:
    store = await make(server)
    data = noise(4 * MIB)

    async def source() -> AsyncIterator[bytes]:
        yield data[:MIB]
        server.end_sessions()
        yield data[MIB:]

    url = (await store.write("key", source(), size=len(data) if known else None)).url
    async with store.open(url) as reader:
        first = await anext(reader.chunks)
        server.end_sessions()
        assert first + await collect(reader) == data


async def test_an_idle_session_is_renewed(own: Callable[..., Vsphere], make: Make) -> None:
    server = own(idle="500ms", datacenters=1)
    store = await make(server)
    for number in range(2):
        await store.write(f"key-{number}", feed(noise(MIB)), size=None)
        async with asyncio.timeout(10):
            while server.count("sessions"):
                await asyncio.sleep(0.1)


async def test_closing_ends_the_session(server: Vsphere, make: Make) -> None:
    before = server.count("sessions")
    store = await make(server)
    assert server.count("sessions") == before + 1
    await store.aclose()
    assert server.count("sessions") == before


async def test_a_wrong_password_is_tried_once(
    server: Vsphere, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await make(server, server_password="not-the-Password")
    assert any("vmware_server_password" in record.message for record in caplog.records)
    monkeypatch.setattr("pyVmomi.SoapStubAdapter", lambda **_: pytest.fail("tried again"))
    for call in (store.check(), store.write("key", feed(b"x"), size=1), store.discard("key")):
        with pytest.raises(StoreUnavailable, match="refuses the user or the password") as raised:
            await call
        assert "not-the-Password" not in raised.value.message
    assert "not-the-Password" not in caplog.text


async def test_without_the_right_to_change_anything(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(noise(SIZE)), size=SIZE)).url
    with server.wrong(denied=True):
        for call in (store.write("other", feed(b"x"), size=1), store.delete(url)):
            with pytest.raises(WriteDenied, match=r"Datastore\.FileManagement"):
                await call
        assert await read(store, url) == noise(SIZE)
    assert [file.name for file in folder(store, server).iterdir()] == ["key"]


async def test_without_the_right_to_look(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(b"x"), size=1)).url
    with server.wrong(status=403):
        for call in (store.check(), store.stat(url), read(store, url), store.write("other", feed(b"x"), size=1)):
            with pytest.raises(StoreRefused, match=r"grant Datastore\.Browse") as raised:
                await call
            assert not raised.value.temporary


async def test_only_trusted_certificates(server: Vsphere, make: Make) -> None:
    other = str(Authority("another").ca)
    for changed in ({"ca_file": None}, {"ca_file": other}, {"ca_file": other, "insecure": True}):
        store = await make(server, **changed)
        for call in (store.check(), store.write("key", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable, match=r"not trusted .* name its CA in vmware_ca_file"):
                await call
    store = await make(server, ca_file=None, insecure=True)
    url = (await store.write("key", feed(noise(SIZE)), size=SIZE)).url
    assert await read(store, url) == noise(SIZE)
    # another name than that of the certificate
    store = await make(server, server_host=f"127.0.0.2:{server.port}")
    with pytest.raises(StoreUnavailable):
        await store.check()


# servers that fail


async def test_a_server_that_is_stopped_and_started(own: Callable[..., Vsphere], make: Make) -> None:
    server = own(datacenters=1)
    store = await make(server)
    url = (await store.write("key", feed(noise(SIZE)), size=SIZE)).url
    server.stop()
    begun = time.monotonic()
    for call in (store.check(), store.stat(url), store.write("key", feed(b"x"), size=1), store.discard("key")):
        with pytest.raises(StoreUnavailable, match="does not answer") as raised:
            await call
        assert raised.value.temporary
    assert time.monotonic() - begun < quiet(10)
    server.start()  # with nothing in it
    with pytest.raises(BlobNotFound):
        await store.stat(url)
    assert await read(store, (await store.write("key", feed(noise(SIZE)), size=None)).url) == noise(SIZE)


async def test_nobody_listens(server: Vsphere, make: Make) -> None:
    store = await make(server, server_host=f"{HOST}:{free_port()}")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="connection refused"):
        await store.check()
    assert time.monotonic() - begun < quiet(4)


async def test_a_server_that_hangs_during_transfers(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("old", feed(noise(32 * MIB)), size=None)).url

    async def source() -> AsyncIterator[bytes]:
        yield noise(MIB)
        server.freeze()
        while True:
            yield bytes(MIB)

    async def read_on() -> None:
        async with store.open(url) as reader:
            await anext(reader.chunks)
            server.freeze()
            await collect(reader)

    for moment in ("write", "read"):
        begun = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable):
                await (store.write("key", source(), size=None) if moment == "write" else read_on())
            assert time.monotonic() - begun < quiet(5 * PATIENCE)
        finally:
            server.thaw()
    await store.discard("key")
    assert [file.name for file in folder(store, server).iterdir()] == ["old"]


async def test_a_slow_server_is_not_a_hanging_one(server: Vsphere, make: Make) -> None:
    store = await make(server)
    with server.wrong(rate=MIB * 2 // 3):
        url = (await store.write("key", feed(noise(3 * MIB), MIB), size=None)).url
        assert await read(store, url) == noise(3 * MIB)


@pytest.mark.parametrize("known", [True, False])
async def test_a_cut_upload_whose_file_appears_late(server: Vsphere, make: Make, known: bool) -> None:
    store = await make(server)
    with server.wrong(late=0.5):
        for error in (None, LookupError("gone")):
            here = asyncio.Event()

            async def source(error: Exception | None = error, here: asyncio.Event = here) -> AsyncIterator[bytes]:
                yield noise(MIB)
                here.set()
                if error is not None:
                    raise error
                await asyncio.sleep(60)

            task = asyncio.ensure_future(store.write("key", source(), size=SIZE if known else None))
            await here.wait()
            if error is None:
                task.cancel()
            with pytest.raises((LookupError, asyncio.CancelledError)):
                await task
            assert list(folder(store, server).iterdir()) == []
        await asyncio.sleep(1)
        assert list(folder(store, server).iterdir()) == []


async def test_bytes_come_as_they_are_stored(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(noise(SIZE)), size=None)).url
    with server.wrong(compress=True):
        assert (await store.stat(url)).size == SIZE
        assert await read(store, url) == noise(SIZE)


async def test_a_read_that_breaks_off(server: Vsphere, make: Make) -> None:
    store = await make(server)
    url = (await store.write("key", feed(noise(SIZE)), size=None)).url
    with server.wrong(**{"break": MIB}), pytest.raises(StoreUnavailable, match="broke off"):
        await read(store, url)


async def test_a_server_that_knows_no_ranges(server: Vsphere, make: Make) -> None:
    store = await make(server)
    data = noise(SIZE)
    url = (await store.write("key", feed(data), size=None)).url
    with server.wrong(no_ranges=True):
        for offset, length in ((0, 1), (MIB, None), (MIB + 1, MIB), (SIZE - 1, 5)):
            end = None if length is None else offset + length
            assert await read(store, url, offset=offset, length=length) == data[offset:end]


@pytest.mark.parametrize("fate", ["called200", "part", "whole"])
async def test_content_range_decides_which_bytes_came(server: Vsphere, make: Make, fate: str) -> None:
    store = await make(server)
    data = noise(SIZE)
    url = (await store.write("key", feed(data), size=None)).url
    certificate = authority().issue()
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(certificate.certificate, certificate.key)
    there = ssl.create_default_context(cafile=str(server.ca_file))
    async with Meddler(server.port, (here, there)) as meddler:
        behind = await make(server, server_host=f"{HOST}:{meddler.port}", store_image_dir=store.facts["image_dir"])
        url = url.replace(server.host, f"{HOST}:{meddler.port}")
        ranged: list[str] = []

        def once(number: int, line: str) -> str:
            """Of the first GET of each read."""
            if line.startswith("GET /folder") and not ranged:
                ranged.append(line)
                return fate
            return "pass"

        meddler.fate = once
        for offset, length in ((0, 1), (MIB, None), (MIB + 1, MIB), (SIZE - 1, 5)):
            ranged.clear()
            end = None if length is None else offset + length
            assert await read(behind, url, offset=offset, length=length) == data[offset:end]
            assert ranged


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_refuses_bytes(server: Vsphere, make: Make, status: int) -> None:
    store = await make(server)
    url = (await store.write("key", feed(b"x"), size=1)).url
    with server.wrong(status=status):
        for call in (store.stat(url), read(store, url), store.write("other", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable, match=f"HTTP {status}"):
                await call


@pytest.mark.parametrize("status", [400, 405, 501])
async def test_what_is_never_done_is_not_called_temporary(server: Vsphere, make: Make, status: int) -> None:
    store = await make(server)
    url = (await store.write("key", feed(b"x"), size=1)).url
    with server.wrong(status=status):
        for call in (store.stat(url), read(store, url), store.write("other", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable, match=f"HTTP {status}, so it will never") as caught:
                await call
            assert not caught.value.temporary


async def test_a_task_is_looked_at_no_more_often_than_the_interval(server: Vsphere, make: Make) -> None:
    store = await make(server, task_poll_interval=1)
    url = (await store.write("key", feed(b"x"), size=1)).url
    with server.wrong(task_seconds=3):
        begun = time.monotonic()
        await store.delete(url)
        assert 3 <= time.monotonic() - begun < quiet(3 + 1.5)
        # the search before it was one look; then 50 ms, twice as long each time, at most a second
        assert server.count("polls") <= 1 + 9


async def test_one_write_needs_one_chunk_of_memory(server: Vsphere, make: Make) -> None:
    store = await make(server)
    alive = most = 0

    class Chunk(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def source() -> AsyncIterator[bytes]:
        nonlocal alive, most
        for _ in range(100):
            alive += 1
            most = max(most, alive)
            yield Chunk(262144)

    await store.write("key", source(), size=None)
    assert most <= 3


WRITER = """
import asyncio, sys
from tests.servers.vsphere import Vsphere
from xloud_image.stores.suite import noise
from xloud_image.stores.vmware.store import VmwareStore

async def main():
    store = VmwareStore("esx", eval(sys.argv[1]))
    async def source():
        for _ in range(3):
            yield noise(1 << 20)
        print("half", flush=True)
        await asyncio.sleep(60)
    await store.write("key", source(), size=8 << 20)

asyncio.run(main())
"""


async def test_discard_takes_what_a_killed_process_left(server: Vsphere, make: Make) -> None:
    store = await make(server)
    changed = options(server, store_image_dir=store.facts["image_dir"])
    words = [sys.executable, "-c", WRITER, repr(changed)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        while not list(folder(store, server).iterdir()):  # the server takes what was sent when it comes to it
            await asyncio.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    (left,) = folder(store, server).iterdir()
    assert left.name.startswith("key~")
    await store.discard("key")
    assert list(folder(store, server).iterdir()) == []
    await store.write("key", feed(b"again"), size=5)


async def test_a_lock_that_was_left_goes_with_the_key(server: Vsphere, make: Make) -> None:
    store = await make(server, datastores=BOTH)
    (folder(store, server) / "key~lock").mkdir()
    with pytest.raises(ImageServiceError):
        await store.write("key", feed(b"x"), size=1)
    await store.discard("key")
    await store.write("key", feed(b"x"), size=1)
    assert not list(folder(store, server).glob("*~*"))
