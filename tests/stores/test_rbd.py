"""The rbd store keeps the contract against a real Ceph. Its own ways: `test_rbd_ways`."""

import asyncio
import contextlib
import faulthandler
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest

from tests.servers.ceph import Ceph
from tests.stores.drivers import THROUGH_LAYERS, all_but
from tests.stores.pool import Pool
from xloud_image.stores.base import Store
from xloud_image.stores.layers import Layer, wrap
from xloud_image.stores.rbd.download import OpenImage
from xloud_image.stores.rbd.store import RbdStore
from xloud_image.stores.suite import StoreSuite

pytestmark = pytest.mark.timeout(480)  # longer than `settled` waits

TIMES = "[client]\nrados_osd_op_timeout = {0}\nrados_mon_op_timeout = {0}\n"


def rbd_options(ceph: Ceph, **given: Any) -> dict[str, Any]:
    """Every option of the store: the defaults, and what is given by its full name."""
    options = {option.name: option.default for option in RbdStore.TYPE.options}
    options |= {"rbd_store_ceph_conf": str(ceph.conf), "rbd_store_user": "glance"}
    assert given.keys() <= options.keys()
    return options | given


@pytest.fixture(scope="module")
def administrator(ceph: Ceph) -> Iterator[Pool]:
    pool = Pool(ceph)
    yield pool
    pool.empty()
    pool.close()


def bare(store: Store) -> RbdStore:
    while isinstance(store, Layer):
        store = store.inner
    assert isinstance(store, RbdStore)
    return store


async def settled(store: RbdStore) -> None:
    """Until nothing is left to be done behind anybody's back.

    Ceph forgets a watcher after 30 seconds, and what was held by one is tried again at most 30 seconds later.
    """
    try:
        async with asyncio.timeout(300):
            while store._later or store._threads.busy or store._guarded.busy:
                await asyncio.sleep(0.05)
    except TimeoutError:
        faulthandler.dump_traceback(sys.__stderr__)
        why = {what: repr(await asyncio.to_thread(_outcome, call)) for what, call in store._later.items()}
        raise AssertionError(
            f"to be removed: {why}, in calls: {store._threads.busy} and {store._guarded.busy} threads"
        ) from None


def _outcome(call: Callable[[], bool]) -> bool | Exception:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - told
        return error


class RbdHooks(StoreSuite):
    """A store in pool images; WRAPPED: with all layers."""

    WRAPPED: ClassVar[bool] = False
    OPTIONS: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def prepared(self, ceph: Ceph, administrator: Pool) -> None:
        self.ceph, self.pool = ceph, administrator
        self.pool.empty()

    async def make(self) -> Store:
        conf = self.ceph.with_conf("quick", TIMES.format(4))
        store = RbdStore("fast", rbd_options(self.ceph, **{"rbd_store_ceph_conf": str(conf), **self.OPTIONS}))
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        return self.pool.read(key)

    def handles(self) -> int:
        """Open images, and the files of connections; their sockets come and go, the administrator's too."""
        files = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                files += not os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        return files + sum(isinstance(one, OpenImage) and one.open for one in gc.get_objects())

    async def put_behind(self, key: str, data: bytes) -> str:
        return self.pool.put(key, data)

    async def leftovers(self) -> list[str]:
        await settled(bare(self.store))
        return [name for name in self.pool.names if name.endswith(".part")] + self.pool.trash + self.pool.claims

    async def leave_behind(self, key: str) -> bool:
        self.pool.put(f"{key}.0123456789abcdef.part", b"half", snapshot=False)
        self.pool.put(f"{key}.00112233445566ff.part", b"whole")
        # renamed, and then killed
        self.pool.put(key, b"whole")
        self.pool.images.write_full(f"xloud_image_claim.{key}", b"of a dead process")
        return True

    @contextlib.asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:
        name = url.split("/")[-2]
        self.pool.clone(name, "child", form=1)
        yield
        assert self.pool.read_clone("child") == b"data"
        self.pool.remove_clone("child")

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.ceph.freeze("osd")
        try:
            yield
        finally:
            self.ceph.thaw("osd")


class TestRbd(RbdHooks):
    SLOW = True


class TestRbdThin(RbdHooks):
    """What depends on the size of objects, and on zeros that are left out."""

    SLOW = True
    OPTIONS: ClassVar[dict[str, Any]] = {"rbd_store_chunk_size": 1, "rbd_thin_provisioning": True}
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(
        RbdHooks,
        "test_usable",
        "test_writes_what_it_is_given",
        "test_several_at_once_and_big_then_small",
        "test_another_size_than_announced",
        "test_an_error_of_the_source_passes_through",
        "test_cancelled_at_any_moment_leaves_nothing",
    )


class TestRbdInLayers(RbdHooks):
    SLOW = True
    WRAPPED = True
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(RbdHooks, THROUGH_LAYERS)
