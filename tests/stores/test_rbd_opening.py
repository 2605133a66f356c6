"""Opening and closing images of Ceph as often as one likes never ends the process, nor hangs it; and an image's size
without opening it. What would end the process runs in one of its own. (Thousands of openings: tests/faults/ceph.py)"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.load import quiet
from tests.servers.ceph import Ceph
from tests.servers.place import ROOT
from tests.stores.pool import Pool
from tests.stores.test_rbd import TIMES, administrator, rbd_options
from xloud_image.errors import BlobNotFound, StoreUnavailable
from xloud_image.stores.rbd import opening, removal
from xloud_image.stores.rbd.errors import Missing, Sentences, Told
from xloud_image.stores.rbd.session import Cluster
from xloud_image.stores.rbd.store import RbdStore
from xloud_image.stores.suite import feed

__all__ = ["administrator"]

FEATURES = (1, 3, 61, 125)  # layering; and more and more that opening has to look at


@pytest.fixture
def pool(administrator: Pool) -> Iterator[Pool]:
    administrator.empty()
    yield administrator
    administrator.empty()


def connected(ceph: Ceph) -> Cluster:
    import rados
    import rbd

    conf = ceph.with_conf("opening", TIMES.format(4))
    sentences = Sentences("fast", conf=str(conf), user="glance", pool="images")
    return Cluster(rados, rbd, sentences, conf=str(conf), user="glance", pool="images", connect=10)


async def test_one_thread_of_librados_in_ceph_conf_is_not_taken(
    ceph: Ceph, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    conf = ceph.with_conf("one-thread", "[client]\nlibrados_thread_count = 1\n")
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    await store.start()
    url = (await store.write("image", feed(b"data"), size=4)).url
    await store.delete(url)  # with one thread it waits for ever
    await store.aclose()
    assert "librados_thread_count" in caplog.text
    assert pool.objects == []


LEAVING = """
import asyncio, sys
from xloud_image import deaths
from xloud_image.stores.rbd.store import RbdStore

async def read(store, url):
    async with store.open(url) as reader:
        async for _ in reader.chunks:
            pass

async def main(conf, url, pause):
    options = {option.name: option.default for option in RbdStore.TYPE.options}
    more = {"rbd_store_ceph_conf": conf, "rbd_store_user": "glance", "rbd_store_chunk_size": 1}
    store = RbdStore("fast", options | more)
    await store.start()
    tasks = [asyncio.create_task(read(store, url)) for _ in range(6)]
    await asyncio.sleep(float(pause))

asyncio.new_event_loop().run_until_complete(main(*sys.argv[1:]))
deaths.leave(7)
"""


def test_a_process_that_ends_in_the_middle_of_reads_ends_as_it_wanted(ceph: Ceph, pool: Pool) -> None:
    """Ceph's threads call back into an interpreter that goes away: half of such ends were by SIGABRT."""
    url = pool.put("image", bytes(64 << 20))
    for pause in ("0.2", "0.3", "0.4", "0.5", "0.6"):
        words = [sys.executable, "-c", LEAVING, ceph.conf, url, pause]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 7, f"{done.returncode}: {done.stderr[-4000:]}"


# an image that nothing is heard of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_GRACE", -3.9)  # of four seconds


@pytest.mark.usefixtures("quick")
def test_an_image_of_which_nothing_is_heard_is_kept_and_closed_later(ceph: Ceph, pool: Pool) -> None:
    pool.put("image", b"12345")
    cluster = connected(ceph)
    with cluster.connection() as one:
        found = opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True)
        found._heard = threading.Event()  # as if the answer had not come
        found.close()
        assert cluster.abandoned == [found]
        assert found.image.size() == 5  # still open
        assert one.retired
    assert one.users == 1
    with cluster.connection() as other:  # and others go on, by a new connection
        assert other is not one
        with opening.opened(cluster, other, name="image", snapshot="snap", read_only=True) as image:
            assert image.size() == 5
        assert cluster.abandoned == [found]
        found._heard.set()
        with opening.opened(cluster, other, name="image", snapshot="snap", read_only=True):
            pass
    assert (cluster.abandoned, found.image, one.users) == ([], None, 0)
    cluster.close()


def test_a_read_that_could_not_be_asked_for_is_asked_for_at_closing(ceph: Ceph, pool: Pool) -> None:
    pool.put("image", b"12345")
    cluster = connected(ceph)
    with cluster.connection() as one:
        found = opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True)
        found._heard, found._asked = threading.Event(), False
        found.close()
        assert (found.image, found._heard.is_set(), cluster.abandoned) == (None, True, [])
    cluster.close()


@pytest.mark.usefixtures("quick")
def test_only_so_many_images_are_kept(ceph: Ceph, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_ABANDONED", 2)
    pool.put("image", b"12345")
    cluster = connected(ceph)
    kept = []
    for _ in range(2):
        with cluster.connection() as one:
            kept.append(opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True))
            kept[-1]._heard = threading.Event()
            kept[-1].close()
    with pytest.raises(Told, match="does not answer in time"), cluster.connection() as one:
        opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True)
    for each in kept:
        each._heard.set()
    with cluster.connection() as one, opening.opened(cluster, one, name="image", snapshot="snap", read_only=True):
        assert cluster.abandoned == []
    cluster.close()


def test_closing_waits_no_longer_than_a_frozen_cluster_may_take(ceph: Ceph, pool: Pool) -> None:
    pool.put("image", b"12345")
    cluster = connected(ceph)
    with cluster.connection() as one:
        ceph.freeze("osd")
        try:
            begun = time.monotonic()
            found = None
            with contextlib.suppress(Exception):
                found = opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True)
            assert found is None
            ceph.thaw("osd")
            found = opening.Opened(cluster, one, name="image", snapshot="snap", read_only=True)
            ceph.freeze("osd")
            found._heard, found._asked = threading.Event(), False
            found.close()  # the read ends by Ceph's own limit, and then it is closed
            assert (found.image, cluster.abandoned) == (None, [])
            assert time.monotonic() - begun < quiet(60)
        finally:
            ceph.thaw("osd")
    cluster.close()


@pytest.mark.parametrize("features", FEATURES)
def test_what_is_asked_before_closing_lies_with_the_image(ceph: Ceph, pool: Pool, features: int) -> None:
    """Not in one object for all images, whose disks may be away while the image's are there."""
    pool.put("image", b"12345", features=features)
    with pool.image("image") as image:
        image_id = image.id()
    cluster = connected(ceph)
    with cluster.connection() as one:
        for which in ({"name": "image", "snapshot": "snap"}, {"image_id": image_id}):
            found = opening.Opened(cluster, one, read_only=True, **which)
            assert found._object in (*pool.objects, f"rbd_header.{image_id}")
            assert one.ioctx.stat(found._object)
            found.close()
            assert found.image is None
    cluster.close()


# the size without opening


@pytest.mark.parametrize("features", FEATURES)
def test_the_size_is_that_of_the_snapshot(ceph: Ceph, pool: Pool, features: int) -> None:
    pool.put("image", b"12345", features=features)
    with pool.image("image") as image:
        image.resize(1 << 20)
        image.create_snap("other")
    cluster = connected(ceph)
    with cluster.connection() as one:
        assert removal.size(one, "image", "snap") == 5
        assert removal.size(one, "image", "other") == removal.size(one, "image", None) == 1 << 20
        for name in ("none", "sna", "snap\0", ""):
            with pytest.raises(Missing):
                removal.size(one, "image", name)
        assert removal.size(one, "nobody", "snap") is None
        # a name that leads to no image
        pool.images.write_full("rbd_id.half", (4).to_bytes(4, "little") + b"abcd")
        with pytest.raises(Missing):
            removal.size(one, "half", "snap")
    cluster.close()


async def test_images_that_only_opening_tells_the_size_of(ceph: Ceph, pool: Pool) -> None:
    """Format 1, and many snapshots."""
    pool.rbd.create(pool.images, "old", 7, order=22, old_format=True)
    url = pool.put("many", b"12345")
    with pool.image("many") as image:
        for number in range(12):
            image.create_snap(f"more-{number}")
    store = RbdStore("fast", rbd_options(ceph))
    assert (await store.stat("rbd://old")).size == 7
    assert (await store.stat(url)).size == 5
    for missing in ("rbd://nobody", url.removesuffix("snap") + "none", url.replace("many", "nobody")):
        with pytest.raises(BlobNotFound):
            await store.stat(missing)
    await store.aclose()


async def test_a_size_from_a_frozen_cluster_is_refused_in_time(ceph: Ceph, pool: Pool) -> None:
    url = pool.put("image", b"12345")
    conf = ceph.with_conf("opening", TIMES.format(2))
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    assert (await store.stat(url)).size == 5
    ceph.freeze("osd")
    try:
        with pytest.raises(StoreUnavailable):
            await store.stat(url)
    finally:
        ceph.thaw("osd")
    assert (await store.stat(url)).size == 5
    await store.aclose()


def test_images_are_opened_only_where_closing_waits() -> None:
    """By the store, and by the tests that look behind its back: one that is closed too early ends either process."""
    places = {"src/xloud_image/stores/rbd/opening.py", "tests/stores/pool.py"}
    call = "rbd" + ".Image("
    found = {
        str(path.relative_to(ROOT))
        for folder in ("src", "tests", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if call in path.read_text()
    }
    assert found == places
