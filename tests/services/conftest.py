"""A service inside the process of the test, with stores that fall ill as told."""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.memory import MEMORY
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.services.former import ENGINES, Former
from tests.services.ill import IllStore
from xloud_image.api import app
from xloud_image.config.loader import load
from xloud_image.db import images as rows
from xloud_image.db import schema
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location
from xloud_image.services import data, downloads, images
from xloud_image.services.runtime import ALL, Runtime
from xloud_image.stores import TYPES
from xloud_image.stores.layers import Layer

ADMIN = Context(user="admin", project="p", roles=frozenset({"admin", "manager", "member", "reader"}), is_admin=True)


class House:
    """The service behind its API. Stores in the order of their weights: `one`, `two` (memory), `disk` (files), and
    `web` (http)."""

    def __init__(self, service: Runtime, url: str, disk: Path) -> None:
        self.service, self.url, self.disk = service, url, disk

    def store(self, name: str) -> IllStore:
        store = self.service.stores[name]
        while isinstance(store, Layer):
            store = store.inner
        assert isinstance(store, IllStore)
        return store

    async def new(self, content: bytes, *names: str) -> Image:
        """An image with its data in these stores."""
        made = await images.create(self.service, ADMIN, {"disk_format": "raw", "container_format": "bare"})

        async def source() -> AsyncIterator[bytes]:
            yield content

        image = await data.upload(self.service, ADMIN, made.id, source(), declared=None, store_id=names[0])
        for name in names[1:]:
            if name == "disk":
                (self.disk / image.id).write_bytes(content)
                await self.add(image, Location(f"file://{self.disk / image.id}", {"store": name}))
            else:
                self.store(name).blobs[image.id] = content
                await self.add(image, Location(f"memory://{name}/{image.id}", {"store": name}))
        return await self.get(image)

    async def add(self, image: Image, location: Location) -> None:
        await self.service.db.write(
            lambda conn: rows.change(conn, image.id, lambda now: now.replace(locations=(*now.locations, location)))
        )

    async def get(self, image: Image) -> Image:
        return await downloads.downloadable(self.service, ADMIN, image.id)

    async def download(self, image: Image, *, query: str = "", **headers: str) -> tuple[int, bytes]:
        """Status and body; raises aiohttp.ClientPayloadError when the answer is cut."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/v2/images/{image.id}/file{query}", headers=headers) as answer,
        ):
            return answer.status, await answer.read()

    async def ask(self, method: str, path: str, **how: Any) -> tuple[int, Mapping[str, str]]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, **how) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers


@pytest.fixture
def connection(tmp_path: Path) -> str:
    """The database of the house. A module may have another of its own."""
    return f"sqlite:///{tmp_path / 'image.sqlite'}"


@pytest.fixture
async def house(tmp_path: Path, connection: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    ill = dataclasses.replace(MEMORY, store="tests.services.ill:IllStore")
    monkeypatch.setitem(TYPES, MEMORY.name, ill)
    disk = tmp_path / "disk"
    disk.mkdir()
    file = tmp_path / "xloud-image.conf"
    file.write_text(
        f"""
[DEFAULT]
enabled_backends = one:memory, two:memory, disk:file, web:http
show_multiple_locations = true
[glance_store]
default_backend = one
[one]
weight = 20
[two]
weight = 10
[disk]
filesystem_store_datadir = {disk}
[database]
connection = {connection}
[xloud]
auth = none
store_timeout = 2
"""
    )
    settings = load([file], env={}).settings
    await schema.upgrade(settings.database)
    async with Runtime.open(settings, *ALL) as service:
        runner = web.AppRunner(app.build(service))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        yield House(service, f"http://127.0.0.1:{port}", disk)
        await runner.cleanup()


@pytest.fixture(params=ENGINES)
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Former:
    engine: str = request.param
    if engine == "sqlite":
        connection = f"sqlite:///{tmp_path / 'glance.sqlite'}"
    elif engine == "postgresql":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        connection = postgresql.create_database()
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        connection = mariadb.create_database(charset="utf8").replace("charset=utf8", "charset=utf8mb4")
    return Former(engine, connection, tmp_path)
