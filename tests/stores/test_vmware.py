"""The vmware store against a vCenter (its simulator): the suite, and what is this store's own."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.servers.vsphere import Vsphere
from tests.stores.drivers import BY_ITSELF, READING, THROUGH_LAYERS, all_but, tried_above
from xloud_image.stores.base import Store
from xloud_image.stores.layers import Layer, wrap
from xloud_image.stores.suite import StoreSuite
from xloud_image.stores.vmware.store import VmwareStore

FOLDER = "openstack_glance"
PATIENCE = 5.0  # seconds; thirty outside tests. A busy machine needs some of them


def options(server: Vsphere, **changed: Any) -> dict[str, Any]:
    """Every option: the defaults, the server's, and what is given by its name without `vmware_`."""
    values = {option.name: option.default for option in VmwareStore.TYPE.options}
    values |= {
        "vmware_server_host": server.host,
        "vmware_server_username": server.user,
        "vmware_server_password": server.password,
        "vmware_datastores": ["DC0:LocalDS_0:100"],
        "vmware_ca_file": str(server.ca_file),
    }
    for name, value in changed.items():
        assert f"vmware_{name}" in values
        values[f"vmware_{name}"] = value
    return values


class VmwareHooks(StoreSuite):
    """Files of the simulator's datastores are seen on its disk; each test has a folder of its own."""

    NAME: ClassVar[str] = "vmware"
    WRAPPED: ClassVar[bool] = False
    DATASTORES: ClassVar[list[str]] = ["DC0:LocalDS_0:100"]
    SECRETS: ClassVar[list[str]] = [Vsphere.password]
    server: Vsphere

    @pytest.fixture
    def prepared(self, vsphere: Vsphere) -> Iterator[None]:
        self.server = vsphere
        self.folder = f"suite/{secrets.token_hex(4)}"
        yield
        vsphere.knobs()

    @property
    def folders(self) -> list[Path]:
        found = []
        for line in self.DATASTORES:
            datacenter, datastore, _ = line.split(":")
            found.append(self.server.directory(datastore, datacenter) / self.folder)
        return found

    async def make(self) -> Store:
        changed = options(self.server, datastores=self.DATASTORES, store_image_dir=f"/{self.folder}/")
        store = VmwareStore(self.NAME, changed, patience=PATIENCE)
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        found = [folder / key for folder in self.folders if (folder / key).exists()]
        assert len(found) <= 1
        return found[0].read_bytes() if found else None

    async def put_behind(self, key: str, data: bytes) -> str:
        (self.folders[-1] / key).write_bytes(data)
        datacenter, datastore, _ = self.DATASTORES[-1].split(":")
        return f"vsphere://{self.server.host}/folder/{self.folder}/{key}?dsName={datastore}&dcPath={datacenter}"

    async def leftovers(self) -> list[str]:
        return [file.name for folder in self.folders for file in folder.iterdir() if "~" in file.name]

    async def leave_behind(self, key: str) -> bool:
        for folder in self.folders:
            (folder / f"{key}~{secrets.token_hex(8)}.part").write_bytes(b"half")
        (self.folders[0] / f"{key}~lock").mkdir()
        (self.folders[0] / key).write_bytes(b"whole")
        return True

    def handles(self) -> int:
        """Without the connections that wait to be used again: one that is cut off is one less of them."""
        store = getattr(self, "store", None)
        while isinstance(store, Layer):
            store = store.inner
        connector = store._web.session.connector if store is not None and store._web._session else None
        waiting = sum(map(len, connector._conns.values())) if connector is not None else 0
        return super().handles() - waiting

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()

    @contextlib.asynccontextmanager
    async def hold(self, url: str) -> AsyncIterator[None]:  # type: ignore[override]
        with self.server.wrong(locked=[url.partition("?")[0].rpartition("/")[2]]):
            yield


class TestVmware(VmwareHooks):
    pass


class TestVmwareOnSeveralDatastores(VmwareHooks):
    NAME = "cold-esx"
    DATASTORES: ClassVar[list[str]] = ["DC0:LocalDS_0:10", "DC0:LocalDS_1:10", "DC1:LocalDS_0:10"]
    NOT_APPLICABLE: ClassVar[dict[str, str]] = tried_above(
        *READING,
        *BY_ITSELF,
        "test_empty_chunks_mean_nothing",
        "test_an_error_of_the_source_passes_through",
        THROUGH_LAYERS,
    )


class TestVmwareInLayers(VmwareHooks):
    WRAPPED = True
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(VmwareHooks, THROUGH_LAYERS)
