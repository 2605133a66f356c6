"""Limits of a real Keystone: what each of the four means, counted exactly on each database, and Keystone away."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.db.conftest import empty, engine, settings  # noqa: F401 - fixtures
from tests.memory import MEMORY, MemoryStore
from tests.servers.keystone import REGION, Keystone
from tests.services.test_quotas import MIB, nodes, outcomes
from xloud_image import cli
from xloud_image.bootstrap import keystone as bootstrap
from xloud_image.config.loader import load
from xloud_image.config.settings import DatabaseSettings, Settings
from xloud_image.db.query import Query
from xloud_image.errors import ConfigError, IdentityUnavailable, QuotaExceeded
from xloud_image.identity.context import Context
from xloud_image.services import data, images, imports, locations, quotas, staging
from xloud_image.services.runtime import ALL, Runtime
from xloud_image.stores import TYPES
from xloud_image.stores.layers import Layer

ALL_FOUR = {
    "image_size_total": 10, "image_stage_total": 2, "image_count_total": 10, "image_count_uploading": 3,
}  # fmt: skip


def configuration(keystone: Keystone, folder: Path, connection: str, **oslo_limit: object) -> Settings:
    file = folder / "xloud-image.conf"
    own = "".join(f"{name} = {value}\n" for name, value in keystone.authtoken().items())
    more = "".join(f"{name} = {value}\n" for name, value in oslo_limit.items())
    file.write_text(
        f"""
[DEFAULT]
enabled_backends = mem:memory
use_keystone_limits = true
show_multiple_locations = true
node_staging_uri = file://{folder / "staging"}
[glance_store]
default_backend = mem
[database]
connection = {connection}
[xloud]
auth = keystone
limits_cache_time = 0
[keystone_authtoken]
{own}
[oslo_limit]
{more}
"""
    )
    return load([file], env={}).require()


@pytest.fixture(scope="module")
def limited(keystone: Keystone) -> Iterator[Keystone]:
    yield keystone
    token = keystone.token()
    for kind in ("limits", "registered_limits"):
        found, _ = keystone.call("GET", f"/{kind}", token=token)
        for row in found[kind]:
            keystone.call("DELETE", f"/{kind}/{row['id']}", token=token)


def register(keystone: Keystone, configured: Settings, **limits: int) -> list[str]:
    assert configured.auth.keystone is not None
    wanted = {**ALL_FOUR, **limits}
    return bootstrap.register_limits(configured.auth.keystone, wanted, "admin", "adminpass", "admin", region=REGION)


@pytest.fixture
def configured(
    limited: Keystone,
    settings: DatabaseSettings,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    monkeypatch.setitem(TYPES, MEMORY.name, MEMORY)
    made = configuration(limited, tmp_path, settings.connection)
    register(limited, made)
    return made


@pytest.fixture
def demo(limited: Keystone) -> Context:
    return Context(user="demo", project=limited.project_id("demo"), roles=frozenset({"member", "reader"}))


def _memory(runtime: Runtime) -> MemoryStore:
    store: Any = runtime.stores["mem"]
    while isinstance(store, Layer):
        store = store.inner
    assert isinstance(store, MemoryStore)
    return store


def new(runtime: Runtime, ctx: Context) -> Any:
    return images.create(runtime, ctx, {"disk_format": "raw", "container_format": "bare"})


async def source(size: int, gate: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    yield bytes(min(size, 1024))
    if gate is not None:
        await gate.wait()
    if size > 1024:
        yield bytes(size - 1024)


async def test_forty_at_once_against_ten(configured: Settings, demo: Context) -> None:
    async with nodes(configured) as (one, other):
        made, failed = await outcomes([new((one, other)[n % 2], demo) for n in range(40)])
        assert (made, len(failed)) == (10, 30)
        assert "10 of 10 images, 0 are left (image_count_total)" in str(failed[0])
        page = await images.find(one, demo, Query(project=demo.project, limit=100))
        # a store that waits: all are under way at once, and three may be
        gate = asyncio.Event()
        work = [
            data.upload((one, other)[n % 2], demo, image.id, source(MIB, gate), declared=(MIB, None)[n % 2])
            for n, image in enumerate(page)
        ]
        running = asyncio.gather(outcomes(work))
        async with asyncio.timeout(30):
            while (await quotas.told(one, demo))["image_count_uploading"]["usage"] < 3:
                await asyncio.sleep(0.05)
        gate.set()
        [(stored, failed)] = await running
        assert stored >= 3
        assert all("image_count_uploading" in str(error) for error in failed)
        said = await quotas.told(other, demo)
        assert said["image_size_total"] == {"usage": stored, "limit": 10}
        assert said["image_count_uploading"] == {"usage": 0, "limit": 3}
        assert said["image_count_total"] == {"usage": 10, "limit": 10}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_staging_imports_and_registered_data(configured: Settings, demo: Context, limited: Keystone) -> None:
    async with Runtime.open(configured, *ALL) as runtime:
        register(limited, configured, image_count_uploading=-1)
        first = await new(runtime, demo)
        await staging.stage(runtime, demo, first.id, source(2 * MIB), declared=None)
        assert (await quotas.told(runtime, demo))["image_stage_total"] == {"usage": 2, "limit": 2}
        second = await new(runtime, demo)
        for declared in (None, 1):
            with pytest.raises(QuotaExceeded, match="2 MiB of 2 MiB staged for imports, 0 bytes are left"):
                await staging.stage(runtime, demo, second.id, source(1), declared=declared)
        register(limited, configured, image_size_total=1, image_count_uploading=-1)
        body = {"method": {"name": "glance-direct"}}
        with pytest.raises(QuotaExceeded, match=r"2 MiB more are asked for \(image_size_total\)"):
            await imports.begin(runtime, demo, first.id, body, possible=["glance-direct"])
        register(limited, configured, image_size_total=2, image_count_uploading=-1)
        await imports.begin(runtime, demo, first.id, body, possible=["glance-direct"])
        # data that exist, named by a service
        nova = dataclasses.replace(demo, roles=frozenset({"service", "member", "reader"}))
        third = await new(runtime, demo)
        _memory(runtime).blobs["x"] = bytes(3 * MIB)
        with pytest.raises(QuotaExceeded, match="image_size_total"):
            await locations.register(runtime, nova, third.id, "memory://mem/x", {})


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_project_of_its_own_limits(configured: Settings, demo: Context, limited: Keystone) -> None:
    token = limited.token()
    services, _ = limited.call("GET", "/services?type=image", token=token)
    row = {
        "service_id": services["services"][0]["id"], "region_id": REGION, "resource_name": "image_count_total",
        "resource_limit": 1, "project_id": demo.project,
    }  # fmt: skip
    made, _ = limited.call("POST", "/limits", {"limits": [row]}, token)
    async with Runtime.open(configured, *ALL) as runtime:
        await new(runtime, demo)
        with pytest.raises(QuotaExceeded, match="1 of 1 images, 0 are left"):
            await new(runtime, demo)
        path = f"/limits/{made['limits'][0]['id']}"
        limited.call("PATCH", path, {"limit": {"resource_limit": -1}}, token)
        for _ in range(11):
            await new(runtime, demo)
        limited.call("DELETE", path, token=token)
        assert (await quotas.told(runtime, demo))["image_count_total"] == {"usage": 12, "limit": 10}
        with pytest.raises(QuotaExceeded):  # lowered below what it has
            await new(runtime, demo)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_keystone_away(configured: Settings, demo: Context) -> None:
    async with Runtime.open(configured, *ALL) as runtime:
        await new(runtime, demo)
        assert runtime.limits._adapter is not None
        runtime.limits._adapter.endpoint_override = "http://127.0.0.1:9/v3"  # nobody is there
        await new(runtime, demo)  # what it said last counts
        stranger = dataclasses.replace(demo, project="0" * 32)
        with pytest.raises(IdentityUnavailable, match="cannot be asked what this project may have"):
            await new(runtime, stranger)


def test_bootstrap(limited: Keystone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, MEMORY.name, MEMORY)
    made = configuration(limited, tmp_path, f"sqlite:///{tmp_path}/x")
    register(limited, made)
    assert register(limited, made, image_count_total=11) == ["changed the limit image_count_total from 10 to 11"]
    assert register(limited, made, image_count_total=11) == []
    assert made.auth.keystone is not None
    words = ["keystone", "limits", "--count-total", "12", "--config-file", str(tmp_path / "xloud-image.conf")]
    monkeypatch.setenv("XLOUD_IMAGE_ADMIN_PASSWORD", "adminpass")
    done = CliRunner().invoke(cli.app, words)
    assert "changed: changed the limit image_count_total from 11 to 12" in done.output
    assert "changed: changed the limit image_size_total from 10 to -1" in done.output
    assert CliRunner().invoke(cli.app, words).output == "Everything was there.\n"
    with pytest.raises(ConfigError, match="refuses its administrator"):
        bootstrap.register_limits(made.auth.keystone, {}, "admin", "wrong", "admin")
