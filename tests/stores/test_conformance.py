"""Every store of this package, bare and in its layers, keeps every promise of the contract."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.stores import mounts
from tests.stores.drivers import CANNOT_HANG, IN_ONE_PROCESS, NOTHING_DEPENDS, FileHooks, MemoryHooks
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.suite import ReadOnlySuite, StoreSuite


class Local(FileHooks):
    """On a file system that always answers."""

    NOT_APPLICABLE: ClassVar[dict[str, str]] = {**NOTHING_DEPENDS, **CANNOT_HANG}


class TestFile(Local):
    pass


class TestFileInLayers(Local):
    WRAPPED = True


class TestFileSlowly(Local):
    """The fewer cases that slow backends get."""

    SLOW = True
    TIMEOUT = 60


class TestThinFile(Local):
    OPTIONS: ClassVar[dict[str, Any]] = {"thin_provisioning": True}


class TestFileInSeveralDirectories(Local):
    def directories(self) -> list[Path]:
        return [self.tmp / "first", self.tmp / "second", self.tmp / "third"]


class TestFileUnderATimeLimit(Local):
    OPTIONS: ClassVar[dict[str, Any]] = {
        "store_timeout": 20,
        "store_thread_pool_size": 2,
        "store_chunk_size": 3 << 20,
        "store_file_perm": 640,
    }


class TestFileOnTmpfs(Local):
    @pytest.fixture
    def prepared(self, tmp_path: Path, enter: Callable[[Any], Path]) -> None:
        enter(mounts.tmpfs(tmp_path / "images", "128m"))


class TestFileOnFuse(FileHooks):
    """What NFS is to the store as well: no presence of pages can be asked, and the server may hang."""

    OPTIONS: ClassVar[dict[str, Any]] = {"store_timeout": 1}

    @pytest.fixture
    def prepared(self, hangable: mounts.Hangable) -> None:
        self.mount = hangable

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.mount.stop()
        try:
            yield
        finally:
            self.mount.go_on()
            assert isinstance(self.store, FileStore)
            while self.store._threads.busy:  # threads that had been given up come back and clean up
                await asyncio.sleep(0.01)


class TestMemory(MemoryHooks, StoreSuite):
    NOT_APPLICABLE: ClassVar[dict[str, str]] = {**NOTHING_DEPENDS, **CANNOT_HANG, **IN_ONE_PROCESS}


class TestMemoryInLayers(TestMemory):
    WRAPPED = True


class TestReadOnlyMemory(MemoryHooks, ReadOnlySuite):
    WRITABLE = False
    NOT_APPLICABLE: ClassVar[dict[str, str]] = CANNOT_HANG


class TestReadOnlyMemoryInLayers(TestReadOnlyMemory):
    WRAPPED = True
