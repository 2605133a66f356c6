"""The swift store against a real Swift and Keystone keeps every promise of the contract."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.servers.swift import Swift
from tests.stores.drivers import BY_ITSELF, READING, THROUGH_LAYERS, all_but, tried_above
from tests.stores.swift_hooks import PATIENCE, AsCaller, Behind, SwiftHooks, swift_options
from xloud_image.stores.base import Caller, Store
from xloud_image.stores.layers import wrap
from xloud_image.stores.swift.store import SwiftStore


class TestSwift(SwiftHooks):
    pass


class TestSwiftByReferenceInLayers(SwiftHooks):
    """The account stands in a reference file, and its name in each URL."""

    WRAPPED = True
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(
        SwiftHooks,
        "test_usable",
        "test_reads_what_is_there",
        "test_missing_is_not_found_at_entry",
        "test_no_secret_in_a_url",
        THROUGH_LAYERS,
    )

    @pytest.fixture
    def prepared(self, swift: Swift, tmp_path: Path) -> None:
        SwiftHooks.prepared.__wrapped__(self, swift)  # type: ignore[attr-defined]
        self.file = tmp_path / "swift.conf"
        self.file.write_text(
            f"[other]\nauth_address = {swift.keystone.url}\nuser = demo:demo\nkey = demopass\n"
            f"[mine]\nauth_address = '{swift.keystone.url}'\nuser = \"service:glance\"\nkey = 'servicepass'\n"
            "user_domain_name = Default\nproject_domain_name = Default\n"
        )

    def options(self) -> dict[str, Any]:
        return swift_options(
            swift_store_config_file=str(self.file),
            default_swift_reference="mine",
            swift_store_container=self.container,
            swift_store_create_container_on_put=True,
            **self.OPTIONS,
        )

    async def put_behind(self, key: str, data: bytes) -> str:
        return (await super().put_behind(key, data)).replace("ref1", "mine")


class TestSwiftOfTheUploaders(SwiftHooks):
    """Each image in a container of its own, in the account of the caller."""

    SECRETS: ClassVar[list[str]] = ["demopass"]
    NOT_APPLICABLE: ClassVar[dict[str, str]] = tried_above(*READING, *BY_ITSELF, "test_empty_chunks_mean_nothing")

    @pytest.fixture
    def prepared(self, swift: Swift) -> None:
        SwiftHooks.prepared.__wrapped__(self, swift)  # type: ignore[attr-defined]
        self.behind = Behind(swift, "demo")

    async def make(self) -> Store:
        options = swift_options(
            swift_store_auth_address=self.swift.keystone.url,
            swift_store_multi_tenant=True,
            swift_store_container=self.container,
            **self.OPTIONS,
        )
        store = SwiftStore("objects", options, patience=PATIENCE)
        return AsCaller(wrap(store), Caller(project=self.behind.project, token=self.behind.token))

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        await self.store.discard("never")  # a caller came: now the store knows its Swift, so `check` can ask it
        async with super().hang():
            yield

    async def peek(self, key: str) -> bytes | None:
        return self.behind.get(f"{self.container}_{key}/{key}")

    async def put_behind(self, key: str, data: bytes) -> str:
        self.behind.put(f"{self.container}_{key}/{key}", data)
        return f"swift+{self.behind.storage}/{self.container}_{key}/{key}"

    async def leftovers(self) -> list[str]:
        """Names beside their images, and containers without one."""
        left: list[str] = []
        for container in self.behind.containers(self.container):
            names = self.behind.names(container)
            left += self.behind.unfinished(container) if names else [container]
        return left

    async def leave_behind(self, key: str) -> bool:
        for name in ("open", "publishing", "00001", "00002"):
            self.behind.put(f"{self.container}_{key}/{key}/0123456789abcdef/{name}", b"half")
        return True
