"""Quotas under concurrency: two processes' runtimes on one database, each of the three engines, and a real Keystone.
Whatever asks at once, a project has exactly what it may have, and what failed is not counted."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.db.conftest import empty, engine, settings  # noqa: F401 - fixtures
from tests.memory import MEMORY
from xloud_image.config.loader import load
from xloud_image.config.settings import DatabaseSettings, Settings
from xloud_image.db import claims, quotas
from xloud_image.db.query import Query
from xloud_image.errors import QuotaExceeded
from xloud_image.identity.context import Context
from xloud_image.services import data, images, reaper, staging
from xloud_image.services import quotas as service
from xloud_image.services.runtime import ALL, Runtime
from xloud_image.stores import TYPES

MIB = 1 << 20
ANN = Context(user="ann", project="alpha", roles=frozenset({"member", "reader"}))


@pytest.fixture
def configured(settings: DatabaseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:  # noqa: F811
    monkeypatch.setitem(TYPES, MEMORY.name, MEMORY)
    file = tmp_path / "xloud-image.conf"
    file.write_text(
        f"""
[DEFAULT]
enabled_backends = mem:memory
user_storage_quota = 10MB
node_staging_uri = file://{tmp_path / "staging"}
[glance_store]
default_backend = mem
[database]
connection = {settings.connection}
[xloud]
auth = none
"""
    )
    loaded = load([file], env={})
    return loaded.require()


@contextlib.asynccontextmanager
async def nodes(configured: Settings) -> AsyncIterator[Sequence[Runtime]]:
    async with Runtime.open(configured, *ALL) as one, Runtime.open(configured, *ALL) as other:
        yield one, other


async def new(runtime: Runtime, ctx: Context = ANN) -> str:
    made = await images.create(runtime, ctx, {"disk_format": "raw", "container_format": "bare"})
    return made.id


async def upload(runtime: Runtime, image: str, size: int, *, told: bool, piece: int = 100_000) -> None:
    async def source() -> AsyncIterator[bytes]:
        for start in range(0, size, piece):
            yield bytes(min(piece, size - start))
            await asyncio.sleep(0)

    await data.upload(runtime, ANN, image, source(), declared=size if told else None)


async def outcomes(work: Sequence[Awaitable[Any]]) -> tuple[int, list[BaseException]]:
    done = await asyncio.gather(*work, return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    assert all(isinstance(one, QuotaExceeded) for one in failed), failed
    return len(done) - len(failed), failed


async def used(runtime: Runtime, owner: str = "alpha") -> quotas.Usage:
    return await runtime.db.read(lambda conn: quotas.usage(conn, owner))


@pytest.mark.parametrize("told", [True, False])
async def test_uploads_at_once_never_pass_the_quota(configured: Settings, told: bool) -> None:
    async with nodes(configured) as (one, other):
        made = [await new(one) for _ in range(40)]
        work = [upload((one, other)[n % 2], image, MIB, told=told) for n, image in enumerate(made)]
        stored, failed = await outcomes(work)
        assert stored <= 10
        # of announced sizes each that fits gets its place; of others some may have held room for each other
        assert stored == 10 if told else stored >= 1
        assert (await used(one)).size == stored * MIB
        assert "image_size_total" in str(failed[0])
        assert "The operator can raise" in str(failed[0])
        # what is over can still be used to the last byte, and what was deleted is free at once
        rest = 10 * MIB - stored * MIB
        last = await new(one)
        if rest:
            await upload(one, last, rest, told=told)
        with pytest.raises(QuotaExceeded, match="0 bytes are left"):
            await upload(other, await new(one), 1, told=told)
        page = await images.find(one, ANN, Query(project="alpha", limit=100))
        done = next(image for image in page if image.status == "active")
        await images.delete(one, ANN, done.id)
        await upload(other, await new(one), done.size or 0, told=told)
        assert (await used(one)).size == 10 * MIB


async def test_a_byte_too_many_is_cut_and_leaves_nothing(configured: Settings) -> None:
    async with nodes(configured) as (one, other):
        image = await new(one)
        with pytest.raises(QuotaExceeded, match="10 MiB"):
            await upload(one, image, 10 * MIB + 1, told=False)
        assert (await used(other)).size == 0
        with pytest.raises(QuotaExceeded):
            await upload(one, image, 10 * MIB + 1, told=True)
        await upload(one, image, 10 * MIB, told=False)
        assert (await used(other)).size == 10 * MIB


async def test_what_a_dead_process_reserved_counts_until_it_is_put_back(configured: Settings) -> None:
    async with nodes(configured) as (one, other):
        image, store = await new(one), one.stores["mem"]
        found = await data.load(one, ANN, image)
        room = await service.room(one, found, "size", 9 * MIB)
        claim, _ = await data.begin_write(one, ANN, image, store, "saving", room, lambda _: None)
        assert (await used(other)).size == 9 * MIB
        with pytest.raises(QuotaExceeded, match="9 MiB of 10 MiB in images and uploads, 1 MiB are left"):
            await upload(other, await new(other), 2 * MIB, told=True)
        await one.db.write(lambda conn: claims.give_back(conn, claim.id, one.holder))
        await reaper.once(other)
        assert (await used(other)).size == 0
        await upload(other, image, 10 * MIB, told=True)


async def test_staged_data_counts_for_itself(configured: Settings) -> None:
    async with nodes(configured) as (one, _):
        image = await new(one)

        async def source() -> AsyncIterator[bytes]:
            yield bytes(MIB)

        await staging.stage(one, ANN, image, source(), declared=None)
        assert await used(one) == quotas.Usage(stage=MIB, count=1, uploading=1)
        # a quota of bytes is one of images, and nothing is said of staged ones
        assert await service.told(one, ANN) == {"image_size_total": {"usage": 0, "limit": 10}}


async def test_without_quotas_not_one_statement_more(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = dataclasses.replace(configured, quotas=dataclasses.replace(configured.quotas, user_storage_quota=0))

    async def never(*_: object) -> None:
        raise AssertionError

    for name in ("lock", "usage", "reserve", "enlarge"):
        monkeypatch.setattr(quotas, name, never)
    async with Runtime.open(bare, *ALL) as runtime:
        image = await new(runtime)
        await upload(runtime, image, 20 * MIB, told=False)
        assert await service.told(runtime, ANN) == {}
