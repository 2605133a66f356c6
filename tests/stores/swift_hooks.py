"""The swift store behind the hooks of the suite. Behind its back everything is done by plain requests."""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar, Final

import pytest

from tests.servers.http import Answer, request
from tests.servers.keystone import USERS
from tests.servers.swift import Swift
from tests.stores.drivers import NOTHING_DEPENDS
from xloud_image.stores.base import Blob, Caller, Reader, Store
from xloud_image.stores.layers import Layer, wrap
from xloud_image.stores.suite import StoreSuite
from xloud_image.stores.swift.store import SwiftStore

PATIENCE: Final = 3.0  # seconds for the server in tests


def swift_options(**given: Any) -> dict[str, Any]:
    """Every option of the swift store: the defaults, and what is given."""
    options = {option.name: option.default for option in SwiftStore.TYPE.options}
    assert set(given) <= set(options)
    return {**options, **given}


class Behind:
    """One account as a plain client sees it. The token is fetched once."""

    def __init__(self, swift: Swift, user: str = "glance") -> None:
        self.swift, self.user = swift, user
        self.project = swift.keystone.project_id(USERS[user].project)
        self.token = swift.keystone.token(user)
        self.storage = swift.account(USERS[user].project)

    def call(
        self, method: str, path: str = "", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return request(
            method, f"{self.storage}/{path}", body=body, headers={"X-Auth-Token": self.token, **(headers or {})}
        )

    def put(self, path: str, body: bytes = b"", **headers: str) -> None:
        """Put an object and, when there is none, its container."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.call("PUT", path, body, named)
        if answer.status == 404:
            assert self.call("PUT", path.partition("/")[0]).status in (201, 202)
            answer = self.call("PUT", path, body, named)
        assert answer.status == 201, answer

    def get(self, path: str) -> bytes | None:
        answer = self.call("GET", path)
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def names(self, container: str) -> list[str]:
        answer = self.call("GET", f"{container}?format=json")
        return [] if answer.status == 404 else [entry["name"] for entry in answer.json()]

    def containers(self, prefix: str) -> list[str]:
        return [entry["name"] for entry in self.call("GET", f"?format=json&prefix={prefix}").json()]

    def unfinished(self, container: str) -> list[str]:
        """Names with a slash that no manifest mentions."""
        names = self.names(container)
        mentioned: set[str] = set()
        for name in names:
            if "/" not in name:
                answer = self.call("GET", f"{container}/{name}?multipart-manifest=get")
                if answer.headers.get("x-static-large-object") == "True":
                    mentioned |= {entry["name"].split("/", 2)[2] for entry in json.loads(answer.body)}
        return [name for name in names if "/" in name and name not in mentioned]


class AsCaller(Layer):
    """Every call is this caller's."""

    def __init__(self, inner: Store, caller: Caller) -> None:
        super().__init__(inner)
        self.caller = caller

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        return await self.inner.stat(url, caller=caller or self.caller)

    def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> contextlib.AbstractAsyncContextManager[Reader]:
        return self.inner.open(url, offset=offset, length=length, caller=caller or self.caller)

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        return await self.inner.write(key, source, size=size, caller=caller or self.caller)

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        await self.inner.discard(key, caller=caller or self.caller)

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        await self.inner.delete(url, caller=caller or self.caller)


def bare(store: Store) -> SwiftStore:
    """The backend inside its layers."""
    while isinstance(store, Layer):
        store = store.inner
    assert isinstance(store, SwiftStore)
    return store


class SwiftHooks(StoreSuite):
    """One account, small segments. WRAPPED: with all layers."""

    SLOW = True
    WRAPPED: ClassVar[bool] = False
    SECRETS: ClassVar[Sequence[str]] = ("servicepass",)
    NOT_APPLICABLE: ClassVar[dict[str, str]] = NOTHING_DEPENDS
    OPTIONS: ClassVar[dict[str, Any]] = {"swift_store_large_object_size": 1, "swift_store_large_object_chunk_size": 1}

    swift: Swift
    behind: Behind
    container: str

    @pytest.fixture
    def prepared(self, swift: Swift) -> None:
        self.swift = swift
        self.behind = Behind(swift)
        self.container = f"images-{secrets.token_hex(4)}"

    def options(self) -> dict[str, Any]:
        return swift_options(**self.swift.options(swift_store_container=self.container, **self.OPTIONS))

    async def make(self) -> Store:
        store = SwiftStore("objects", self.options(), patience=PATIENCE)
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        return self.behind.get(f"{self.container}/{key}")

    async def put_behind(self, key: str, data: bytes) -> str:
        self.behind.put(f"{self.container}/{key}", data)
        return f"swift+config://ref1/{self.container}/{key}"

    async def leftovers(self) -> list[str]:
        return self.behind.unfinished(self.container)

    async def leave_behind(self, key: str) -> bool:
        for name in ("open", "publishing", "00001", "00002"):
            self.behind.put(f"{self.container}/{key}/0123456789abcdef/{name}", b"half")
        return True

    def handles(self) -> int:
        """Open files, but for connections that wait to be used again."""
        waiting = 0
        if hasattr(self, "store"):
            session = bare(self.store)._web._session
            if session is not None and session.connector is not None:
                waiting = sum(map(len, session.connector._conns.values()))
        return len(os.listdir("/proc/self/fd")) - waiting

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.swift.freeze()
        try:
            yield
        finally:
            self.swift.thaw()
            # what was sent before Swift hung is done now; the service discards what it could not clean
            await asyncio.sleep(0.5)
            await self.store.discard("other")
