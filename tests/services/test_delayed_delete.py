"""Delayed deletion on each database: what goes at once, what comes back, and what is scrubbed; a Glance's rows too."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.db.conftest import empty, engine, settings  # noqa: F401 - fixtures
from tests.memory import MEMORY, MemoryStore
from xloud_image.config.loader import load
from xloud_image.config.settings import DatabaseSettings, Settings
from xloud_image.db import sql
from xloud_image.errors import Duplicate, Forbidden, NotFound
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.patch import Change
from xloud_image.services import data, downloads, images, lookup, members, scrubbing, usage
from xloud_image.services.runtime import ALL, Runtime
from xloud_image.stores import TYPES
from xloud_image.stores.layers import Layer

ANN = Context(user="ann", project="alpha", roles=frozenset({"member", "reader"}))
MAY = Context(user="may", project="alpha", roles=frozenset({"manager", "member", "reader"}))
BOB = Context(user="bob", project="beta", roles=frozenset({"manager", "member", "reader"}))
ADMIN = Context(user="adm", project="ops", roles=frozenset({"admin", "manager", "member", "reader"}), is_admin=True)


@pytest.fixture
async def runtime(
    settings: DatabaseSettings,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Runtime]:
    monkeypatch.setitem(TYPES, MEMORY.name, MEMORY)
    async with Runtime.open(configuration(settings, tmp_path, 3600), *ALL) as opened:
        yield opened


def configuration(database: DatabaseSettings, folder: Path, seconds: int) -> Settings:
    file = folder / f"xloud-image-{seconds}.conf"
    file.write_text(
        f"""
[DEFAULT]
enabled_backends = mem:memory
delayed_delete = true
scrub_time = {seconds}
[glance_store]
default_backend = mem
[database]
connection = {database.connection}
[xloud]
auth = none
"""
    )
    return load([file], env={}).require()


def blobs(runtime: Runtime) -> dict[str, bytes]:
    store: Any = runtime.stores["mem"]
    while isinstance(store, Layer):
        store = store.inner
    assert isinstance(store, MemoryStore)
    return store.blobs


async def new(runtime: Runtime, **fields: Any) -> Image:
    made = await images.create(runtime, ANN, {"disk_format": "raw", "container_format": "bare", **fields})

    async def source() -> AsyncIterator[bytes]:
        yield b"data"

    return await data.upload(runtime, ANN, made.id, source(), declared=4)


async def ask(runtime: Runtime, text: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await runtime.db.read(lambda conn: sql.fetch(conn, text))]


async def test_an_image_comes_back_as_it_was(runtime: Runtime) -> None:
    image = await new(runtime, name="x", tags=["b", "a"], color="red", gone="1")
    await members.add(runtime, ANN, image.id, "beta")
    await images.change(runtime, ANN, image.id, [Change("remove", ("gone",))])
    before = await lookup.get(runtime, ANN, image.id)
    await images.delete(runtime, ANN, image.id)
    with pytest.raises(NotFound):
        await lookup.get(runtime, ADMIN, image.id)
    with pytest.raises(NotFound):
        await images.delete(runtime, ANN, image.id)
    with pytest.raises(Duplicate):
        await images.create(runtime, ANN, {"id": image.id})
    assert blobs(runtime)[image.id] == b"data"
    assert (await usage.of_all(runtime))[0].images == 1  # the store is not empty
    rows = await ask(runtime, f"SELECT status, deleted_at IS NULL FROM images WHERE id = '{image.id}'")
    assert rows[0][0] == "pending_delete"
    assert not rows[0][1]
    assert await scrubbing.once(runtime) == 0  # not yet

    for who, error in ((BOB, NotFound), (ANN, Forbidden)):
        with pytest.raises(error):
            await scrubbing.restore(runtime, who, image.id)
    await scrubbing.restore(runtime, MAY, image.id)
    after = await lookup.get(runtime, ANN, image.id)
    assert after.replace(updated_at=before.updated_at) == before
    assert [one.member for one in await members.find(runtime, ANN, image.id)] == ["beta"]
    async with downloads.download(runtime, ANN, after) as opened:
        assert b"".join([chunk async for chunk in opened.reader.chunks]) == b"data"
    with pytest.raises(NotFound):  # it is not pending any more
        await scrubbing.restore(runtime, ADMIN, image.id)


async def test_a_deactivated_image_stays_deactivated(runtime: Runtime) -> None:
    image = await new(runtime)
    await images.deactivate(runtime, ADMIN, image.id)
    await images.delete(runtime, ANN, image.id)
    assert (await scrubbing.restore(runtime, ADMIN, image.id)).status == "deactivated"
    await images.reactivate(runtime, ADMIN, image.id)
    found = await lookup.get(runtime, ANN, image.id)
    assert dict(found.locations[0].metadata) == dict(image.locations[0].metadata)


async def test_scrubbing(runtime: Runtime, settings: DatabaseSettings, tmp_path: Path) -> None:  # noqa: F811
    first, second = await new(runtime), await new(runtime, color="red")
    bare = await images.create(runtime, ANN, {})
    for image in (first, second, bare):
        await images.delete(runtime, ANN, image.id)
    assert await ask(runtime, f"SELECT status FROM images WHERE id = '{bare.id}'") == [("deleted",)]
    async with Runtime.open(configuration(settings, tmp_path, 0), *ALL) as soon:
        found = await asyncio.gather(*(scrubbing.once(soon) for _ in range(3)))
        assert sum(found) == 2
        # its store has nothing; what the other process has is removed by it
        assert {row[0] for row in await ask(soon, "SELECT status FROM images")} == {"deleted"}
        assert await ask(soon, "SELECT count(*) FROM xloud_claims") == [(0,)]
        assert {row[0] for row in await ask(soon, "SELECT status FROM image_locations")} == {"deleted"}
        with pytest.raises(NotFound):
            await scrubbing.restore(soon, ADMIN, first.id)


async def test_bytes_go_with_the_last_image(runtime: Runtime, settings: DatabaseSettings, tmp_path: Path) -> None:  # noqa: F811
    image = await new(runtime)
    await images.delete(runtime, ANN, image.id)
    zero = configuration(settings, tmp_path, 0)
    runtime.settings = zero
    assert await scrubbing.once(runtime) == 1
    assert blobs(runtime) == {}


async def test_rows_of_a_glance(runtime: Runtime) -> None:
    """As its API and its scrubber write and read them: image, properties at one time, locations at their own."""
    image = await new(runtime, color="red")
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0) - dt.timedelta(hours=2)

    async def glance(conn: Any) -> None:
        gone = {"deleted": True, "deleted_at": now, "updated_at": now}
        await sql.update(conn, "images", {"status": "pending_delete", **gone}, id=image.id)
        early = now - dt.timedelta(seconds=1)
        await sql.update(
            conn,
            "image_locations",
            {"status": "pending_delete", "deleted": True, "deleted_at": early},
            image_id=image.id,
        )
        await sql.update(conn, "image_properties", gone, image_id=image.id)

    await runtime.db.write(glance)
    restored = await scrubbing.restore(runtime, ADMIN, image.id)
    assert (restored.status, restored.properties, len(restored.locations)) == ("active", {"color": "red"}, 1)
    await runtime.db.write(glance)
    assert await scrubbing.once(runtime) == 1
    assert blobs(runtime) == {}
