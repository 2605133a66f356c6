"""What the rbd store does beyond the contract: clones, failures with their cures, what stays of killed processes."""

import asyncio
import contextlib
import json
import re
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.ceph import Ceph
from tests.stores.pool import Pool
from tests.stores.test_rbd import TIMES, administrator, rbd_options, settled
from xloud_image.errors import (
    BlobNotFound,
    ConfigError,
    InUse,
    StillNeeded,
    StoreFull,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores import base
from xloud_image.stores.rbd import upload
from xloud_image.stores.rbd.store import RbdStore
from xloud_image.stores.suite import MIB, collect, feed, noise

__all__ = ["administrator"]
pytestmark = pytest.mark.timeout(480)  # longer than `settled` waits
Make = Callable[..., Awaitable[RbdStore]]


@pytest.fixture
def pool(administrator: Pool) -> Pool:
    administrator.empty()
    return administrator


@pytest.fixture
async def make(ceph: Ceph, pool: Pool) -> AsyncIterator[Make]:
    """Starts stores: `make(seconds)`, of one operation in them, and options; each has to be idle at the end."""
    stores: list[RbdStore] = []

    async def start(seconds: int = 30, **options: Any) -> RbdStore:
        conf = ceph.with_conf(f"of-{seconds}", TIMES.format(seconds))
        store = RbdStore("fast", rbd_options(ceph, **{"rbd_store_ceph_conf": str(conf), **options}))
        stores.append(store)
        await store.start()
        return store

    yield start
    for store in stores:
        await settled(store)
        await store.aclose()


async def read(store: RbdStore, url: str, **where: Any) -> bytes:
    async with store.open(url, **where) as reader:
        return await collect(reader)


async def gone(store: RbdStore, pool: Pool) -> None:
    """Nothing at all is left in the pool, once everybody is done."""
    await settled(store)
    assert pool.objects == []


# clones and others who depend on an image


async def test_an_image_with_new_clones_waits_in_the_trash_for_the_last_one(make: Make, pool: Pool) -> None:
    store = await make()
    url = (await store.write("parent", feed(noise(MIB)), size=MIB)).url
    for child in ("one", "two"):
        pool.clone("parent", child, form=2)
    with pytest.raises(StillNeeded):
        await store.delete(url)
    with pytest.raises(BlobNotFound):
        await store.stat(url)
    assert (pool.names, pool.trash) == ([], ["parent"])
    with pytest.raises(StillNeeded):
        await store.delete(url)
    pool.remove_clone("one")
    with pytest.raises(StillNeeded):
        await store.delete(url)
    assert pool.read_clone("two") == noise(MIB)
    pool.remove_clone("two")
    await store.delete(url)
    with pytest.raises(BlobNotFound):
        await store.delete(url)
    await gone(store, pool)


async def test_old_clones_hold_the_image_and_are_named_or_the_right_to_name_them_is(
    make: Make, pool: Pool, ceph: Ceph
) -> None:
    store = await make()
    url = (await store.write("parent", feed(noise(MIB)), size=None)).url
    pool.clone("parent", "old", form=1)
    pool.clone("parent", "new", form=2)
    with pytest.raises(InUse) as refused:
        await store.delete(url)
    line = re.search(r'"ceph (auth caps client\.glance .*)"', refused.value.message)
    assert line is not None, refused.value.message
    assert "1 in pool volumes" in refused.value.message
    assert (pool.names, pool.trash, pool.read("parent")) == (["parent"], [], noise(MIB))

    # the very line does what it says, for another user
    caps = dict(re.findall(r"(mon|osd|mgr) '([^']*)'", line[1]))
    ceph.add_user("seer", caps)
    seeing = await make(rbd_store_user="seer")
    with pytest.raises(InUse, match="volumes/new, volumes/old"):
        await seeing.delete(url)
    assert pool.read("parent") == noise(MIB)
    pool.remove_clone("old")
    with pytest.raises(StillNeeded):
        await store.delete(url)
    pool.remove_clone("new")
    await store.delete(url)


@pytest.mark.parametrize("unseen", ["made in between", "in a pool that may not be asked"])
async def test_an_old_clone_that_was_not_seen_brings_the_image_back(
    make: Make, pool: Pool, monkeypatch: pytest.MonkeyPatch, unseen: str
) -> None:
    store = await make()
    url = (await store.write("parent", feed(noise(MIB)), size=MIB)).url
    pool.clone("parent", "old", form=1)
    asked = store._images._old_clones
    calls = 0

    def old_clones(*args: Any) -> dict[str, int]:
        nonlocal calls
        calls += 1
        return asked(*args) if calls > 1 and unseen == "made in between" else {}

    monkeypatch.setattr(store._images, "_old_clones", old_clones)
    with pytest.raises(InUse):
        await store.delete(url)
    assert (pool.names, pool.trash, pool.read("parent")) == (["parent"], [], noise(MIB))
    pool.clone("parent", "another", form=1)
    pool.remove_clone("another")
    pool.remove_clone("old")
    await store.delete(url)
    assert pool.objects == []


async def test_a_clone_is_a_copy_of_nothing(make: Make, pool: Pool) -> None:
    """A clone of 256 MiB has its bytes at once, and no object of its own."""
    store = await make()
    data = noise(MIB) + bytes(255 * MIB)
    await store.write("parent", feed(data, 8 * MIB), size=len(data))
    pool.clone("parent", "child", form=2)
    assert pool.read_clone("child") == data
    prefix = pool.prefix("child")
    assert not [one.key for one in pool.volumes.list_objects() if one.key.startswith(prefix)]


async def test_snapshots_and_clients_of_others_hold_the_image(make: Make, pool: Pool) -> None:
    store = await make()
    url = (await store.write("key", feed(b"data"), size=4)).url
    with pool.image("key") as image:
        with pytest.raises(InUse, match="open for writing"):
            await store.delete(url)
        image.create_snap("backup")
    with pytest.raises(InUse, match="backup"):
        await store.delete(url)
    assert pool.read("key") == b"data"
    with pool.image("key") as image:
        image.remove_snap("backup")
    await store.delete(url)
    assert pool.objects == []


@pytest.mark.parametrize("features", [1, 61])
async def test_images_of_a_glance_are_read_and_deleted(make: Make, pool: Pool, features: int) -> None:
    store = await make()
    data = noise(9 * MIB + 5)
    url = pool.put("theirs", data, features=features)
    assert store.owns(url)
    assert await read(store, url) == data
    assert await read(store, url, offset=8 * MIB - 3, length=10) == data[8 * MIB - 3 : 8 * MIB + 7]
    await store.delete(url)
    pool.put("ancient", b"no snapshot", snapshot=False)
    assert store.owns("rbd://ancient")
    assert await read(store, "rbd://ancient") == b"no snapshot"
    await store.delete("rbd://ancient")
    assert pool.objects == []


async def test_images_are_what_clients_expect(make: Make, pool: Pool) -> None:
    store = await make()
    await store.write("key", feed(noise(MIB)), size=MIB)
    with pool.image("key") as image:
        assert image.stat()["order"] == 23
        assert image.features() & 1, "no layering: nobody could clone it"
        assert not image.old_format()
        assert [snap["name"] for snap in image.list_snaps()] == ["snap"]
        assert image.is_protected_snap("snap")


# urls


async def test_it_learns_its_cluster_before_it_compares_spellings(make: Make, ceph: Ceph) -> None:
    store = await make()
    full = f"rbd://{ceph.fsid}/images/x/snap"
    store._cluster.fsid = None
    assert not store.owns(full)
    await store.ready()
    assert store.owns(full)
    assert store.forms(full)[0] == store.forms("rbd://x")[0]


async def test_owns_its_own_urls_only(make: Make, ceph: Ceph) -> None:
    store = await make()
    other = "00000000-0000-0000-0000-000000000000"
    for url in (
        f"rbd://{ceph.fsid}/images/{other}/snap",
        f"rbd://{ceph.fsid}/images/a%2Fb/snap",
        f"rbd://{ceph.fsid}/%69mages/x/snap",
        f"rbd://{other}",
    ):
        assert store.owns(url), url
    for url in (
        f"rbd://{other}/images/x/snap",
        f"rbd://{ceph.fsid}/volumes/x/snap",
        f"rbd://{ceph.fsid}/images/x",
        f"rbd://{ceph.fsid}/images/x/snap/more",
        f"rbd://{ceph.fsid}/images//snap",
        "rbd://a%00b",
    ):
        assert not store.owns(url), url
        with pytest.raises(BlobNotFound):
            await store.stat(url)


async def test_advice_check_and_keys(make: Make, pool: Pool, ceph: Ceph) -> None:
    store = await make()
    assert store.advice("raw") is None
    assert "qemu-img convert" in (store.advice("qcow2") or "")
    pool.put("b", b"x")
    pool.put("a", b"x")
    pool.put("c.0123456789abcdef.part", b"x")
    assert await store.keys(10) == ["a", "b"]
    assert await store.keys(1) == ["a"]
    found = await store.check()
    assert found.facts["fsid"] == ceph.fsid
    assert found.free is not None
    assert 1 << 30 < found.free < 20 << 30


# sizes


async def test_an_image_of_unknown_size_grows_and_is_trimmed(
    make: Make, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await make(rbd_store_chunk_size=1)
    monkeypatch.setattr(upload, "_FIRST_STEP", 4 * MIB)
    for size in (0, 1, MIB, 9 * MIB + 1, 40 * MIB):
        blob = await store.write("key", feed(noise(size), 3 * MIB + 1), size=None)
        with pool.image("key") as image:
            assert image.size() == size
            assert image.stat()["order"] == 20
        data = [name for name in pool.objects if name.startswith("rbd_data.")]
        assert len(data) == -(-size // MIB)
        await store.delete(blob.url)
    await gone(store, pool)


async def test_zeros_take_no_room(make: Make, pool: Pool) -> None:
    data = bytes(20 * MIB) + noise(100) + bytes(12 * MIB) + noise(MIB) + bytes(7 * MIB + 3)
    for size in (len(data), None):
        store = await make(rbd_thin_provisioning=True)
        blob = await store.write("key", feed(data, MIB + 7), size=size)
        assert pool.read("key") == data
        assert len([name for name in pool.objects if name.startswith("rbd_data.")]) == 2
        await store.delete(blob.url)


async def test_a_reader_never_gets_zeros_for_deleted_bytes(make: Make) -> None:
    store = await make(rbd_store_chunk_size=1)
    url = (await store.write("key", feed(noise(40 * MIB), 8 * MIB), size=40 * MIB)).url
    async with store.open(url) as reader:
        first = await anext(reader.chunks)
        await store.delete(url)
        with pytest.raises(StoreUnavailable):
            async for _ in reader.chunks:
                pass
    assert first == noise(40 * MIB)[:MIB]


# what is wrong, and the cure


def other_client(ceph: Ceph, name: str, **options: Any) -> dict[str, Any]:
    """Options of a store whose ceph.conf ends in these lines."""
    text = "".join(f"{option} = {value}\n" for option, value in options.items())
    return {"rbd_store_ceph_conf": str(ceph.with_conf(name, f"[client]\n{text}"))}


async def told(store: RbdStore, words: str, error: type[Exception] = WriteDenied) -> None:
    """`check` names the cure; a client is told no path, and gets the same status."""
    await store.start()
    try:
        with pytest.raises(error, match=words):
            await store.check()
        with pytest.raises(error) as refused:
            await store.write("key", feed(b"x"), size=1)
        assert "/" not in str(refused.value)
        assert refused.value.status == 503  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailable):
            await store.stat("rbd://key")
    finally:
        await store.aclose()


async def test_a_wrong_key_a_missing_keyring_and_their_cures(ceph: Ceph, tmp_path: Path, pool: Pool) -> None:
    wrong = tmp_path / "keyring"
    wrong.write_text(f"[client.glance]\n\tkey = {ceph.key('cinder')}\n")
    options = other_client(ceph, "wrong", keyring=wrong)
    await told(RbdStore("fast", rbd_options(ceph, **options)), "refuses the key of client.glance.*ceph auth get")
    options = other_client(ceph, "none", keyring=tmp_path / "none")
    await told(RbdStore("fast", rbd_options(ceph, **options)), "no keyring of client.glance among .*none")
    options = {"rbd_store_ceph_conf": str(tmp_path / "ceph.conf")}
    await told(RbdStore("fast", rbd_options(ceph, **options)), "ceph.conf cannot be read")


async def test_a_missing_pool_and_missing_rights(ceph: Ceph, pool: Pool) -> None:
    store = RbdStore("fast", rbd_options(ceph, rbd_store_pool="nowhere"))
    await told(store, "pool nowhere does not exist.*ceph osd pool create nowhere")
    store = RbdStore("fast", rbd_options(ceph, rbd_store_pool="volumes"))
    await told(store, "ceph auth caps client.glance mon 'profile rbd' osd 'profile rbd pool=volumes'")


async def test_unreachable_monitors(ceph: Ceph, pool: Pool) -> None:
    options = other_client(ceph, "away", mon_host="127.0.0.1:1")
    store = RbdStore("fast", rbd_options(ceph, rados_connect_timeout=1, **options))
    await told(store, "no monitor of Ceph answers within 1 seconds.*127.0.0.1:1.*ceph -s", StoreUnavailable)


def test_without_the_bindings_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rados", None)
    options = {option.name: option.default for option in RbdStore.TYPE.options}
    with pytest.raises(ConfigError, match="python3-rbd and python3-rados"):
        RbdStore("fast", options)
    assert base  # the contract itself needs none of it


async def test_a_full_pool_refuses_at_once_and_takes_data_again(make: Make, pool: Pool, ceph: Ceph) -> None:
    store = await make()
    ceph.admin("osd", "pool", "set-quota", "images", "max_bytes", str(4 * MIB))
    try:
        pool.put("filler", noise(6 * MIB))
        async with asyncio.timeout(60):
            while "full_quota" not in ceph.admin("osd", "dump"):
                await asyncio.sleep(0.3)
        begun = time.monotonic()
        with pytest.raises(StoreFull) as refused:
            await store.write("key", feed(noise(30 * MIB), MIB), size=None)
        assert refused.value.status == 413
        assert time.monotonic() - begun < quiet(10)
        with pytest.raises(StoreFull, match="set-quota"):
            await store.check()
        await settled(store)
        assert pool.names == ["filler"]
        assert await read(store, f"rbd://{ceph.fsid}/images/filler/snap") == noise(6 * MIB)
    finally:
        ceph.admin("osd", "pool", "set-quota", "images", "max_bytes", "0")
    async with asyncio.timeout(60):
        while "full_quota" in ceph.admin("osd", "dump"):
            await asyncio.sleep(0.3)
    await store.write("key", feed(b"x"), size=1)


# a cluster that is sick for a while


@contextlib.contextmanager
def frozen(ceph: Ceph, daemon: str) -> Iterator[None]:
    ceph.freeze(daemon)
    try:
        yield
    finally:
        ceph.thaw(daemon)


async def test_snapshots_without_a_monitor_are_given_up_and_refused(make: Make, pool: Pool, ceph: Ceph) -> None:
    """No option of Ceph bounds that call. Data keeps flowing meanwhile, and afterwards nothing is left."""
    store = await make(rados_connect_timeout=1)
    store._threads.limit = store._guarded.limit = 3.0
    store._cluster.on_times = lambda: None
    url = (await store.write("kept", feed(b"data"), size=4)).url
    with frozen(ceph, "mon"):
        begun = time.monotonic()
        writes = (store.write(f"key-{n}", feed(noise(1000)), size=1000) for n in range(store._guarded.size))
        ends = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreUnavailable] * store._guarded.size, ends
        assert time.monotonic() - begun < quiet(10)
        await asyncio.sleep(3)
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="all its 8 threads"):
            await store.write("one-more", feed(b"x"), size=1)
        assert time.monotonic() - begun < quiet(3)
        assert await read(store, url) == b"data"
    await settled(store)
    assert pool.names == ["kept"]
    assert pool.trash == []
    await store.write("after", feed(b"x"), size=1)


_HELD_UP = """
import asyncio, json, os, sys, time
from xloud_image.errors import StoreUnavailable
from xloud_image.stores.rbd.store import RbdStore
async def source():
    print("created", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    yield b"x"
async def main():
    store = RbdStore("fast", json.loads(sys.argv[1]))
    await store.start()
    store._cluster.on_times = lambda: None
    store._threads.limit = store._guarded.limit = 1.0
    try:
        await store.write("key", source(), size=1)
    except StoreUnavailable:
        print("given up", flush=True)
    await store.aclose()
asyncio.run(main())
"""


async def start_writer(ceph: Ceph, program: str) -> asyncio.subprocess.Process:
    options = rbd_options(ceph)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"created\n"
    return process


async def test_a_hung_call_does_not_hold_up_the_end_of_the_process(make: Make, pool: Pool, ceph: Ceph) -> None:
    process = await start_writer(ceph, _HELD_UP)
    assert process.stdin is not None
    assert process.stdout is not None
    with frozen(ceph, "mon"):
        process.stdin.write(b"\n")
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"given up\n"
        begun = time.monotonic()
        code = await asyncio.wait_for(process.wait(), 30)
        assert time.monotonic() - begun < quiet(8)
    assert code == 0
    store = await make()
    await store.discard("key")
    await asyncio.sleep(0.5)
    await gone(store, pool)


async def test_what_a_killed_writer_left_is_found_by_its_key(make: Make, pool: Pool, ceph: Ceph) -> None:
    process = await start_writer(ceph, _HELD_UP)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert [name.partition(".")[0] for name in pool.names] == ["key"]
    assert pool.read("key") is None
    store = await make()
    await store.discard("key")
    assert pool.names == []
    await gone(store, pool)  # at the latest when the cluster forgets the dead client: here after ten seconds


async def test_a_death_in_the_middle_of_renaming(make: Make, pool: Pool) -> None:
    """Ceph renames in several steps; after the first one both names lead to the image."""
    pool.put("key.0123456789abcdef.part", noise(MIB))
    with pool.image("key.0123456789abcdef.part") as image:
        identity = image.id()
    pool.images.write_full("rbd_id.key", struct.pack("<I", len(identity)) + identity.encode())
    store = await make()
    await store.discard("key")
    await gone(store, pool)
    await store.write("key", feed(b"x"), size=1)


async def test_a_frozen_disk_in_the_middle_of_transfers(make: Make, pool: Pool, ceph: Ceph) -> None:
    store = await make(3)
    data = noise(30 * MIB)
    url = (await store.write("whole", feed(data, MIB), size=None)).url
    reached = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield data[: 9 * MIB]
        reached.set()
        for start in range(10):
            await asyncio.sleep(0.1)
            yield data[start * 2 * MIB : (start + 1) * 2 * MIB]

    writing = asyncio.ensure_future(store.write("half", source(), size=None))
    await reached.wait()
    async with store.open(url) as reader:
        assert await anext(reader.chunks) == data[: 8 * MIB]
        with frozen(ceph, "osd"):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await writing
            with pytest.raises(StoreUnavailable):
                await collect(reader)
            assert time.monotonic() - begun < quiet(15)
    await settled(store)
    assert (pool.names, pool.trash) == (["whole"], [])
    assert await read(store, url) == data


async def test_a_connection_that_was_shut_out_is_renewed(make: Make, pool: Pool, ceph: Ceph) -> None:
    store = await make(5)
    url = (await store.write("key", feed(b"data"), size=4)).url
    assert store._cluster._connection is not None
    ceph.admin("osd", "blocklist", "add", store._cluster._connection.address)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreUnavailable, WriteDenied):
                await store.write("other", feed(b"x"), size=1)
                break
            await asyncio.sleep(0.2)
    assert await read(store, url) == b"data"
    await settled(store)
    assert pool.names == ["key", "other"]


async def test_a_cluster_that_comes_later(ceph: Ceph, pool: Pool) -> None:
    pool.put("key", b"data")
    store = RbdStore("fast", rbd_options(ceph, rados_connect_timeout=1))
    with frozen(ceph, "mon"):
        await store.start()
        with pytest.raises(StoreUnavailable):
            await store.check()
    await asyncio.sleep(1.1)
    assert await read(store, f"rbd://{ceph.fsid}/images/key/snap") == b"data"
    await store.aclose()
