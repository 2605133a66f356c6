"""The registry: which stores there are, which one a location means, what clients are told of them."""

from pathlib import Path
from typing import Any

import pytest

from tests.memory import MEMORY
from tests.stores.drivers import file_options
from xloud_image.config.settings import StoreSettings
from xloud_image.errors import ConfigError
from xloud_image.model import Location
from xloud_image.stores import TYPES
from xloud_image.stores.base import Store
from xloud_image.stores.registry import Stores, backend
from xloud_image.stores.suite import feed


def a_file_store(store_id: str, directory: Path, **more: Any) -> StoreSettings:
    return StoreSettings(store_id, "file", options=file_options(directory), **more)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StoreSettings]:
    monkeypatch.setitem(TYPES, MEMORY.name, MEMORY)
    return [
        a_file_store("cheap", tmp_path / "cheap", weight=-5, description="slow disks"),
        a_file_store("fast", tmp_path / "fast", weight=10),
        StoreSettings("ram", "memory"),
        a_file_store("os_glance_staging_store", tmp_path / "staging", reserved=True),
    ]


def test_every_type_is_a_class_of_this_name() -> None:
    for name, one in TYPES.items():
        assert issubclass(backend(name), Store)
        assert name == one.name
        assert backend(name).TYPE is one
    with pytest.raises(ConfigError, match="the types are"):
        backend("tape")


def test_the_store_is_named_where_something_is_wrong_with_it() -> None:
    with pytest.raises(ConfigError, match="store cold: 'tape' is no store type"):
        Stores([StoreSettings("cold", "tape")], "cold")


def test_order_default_and_weights(settings: list[StoreSettings]) -> None:
    stores = Stores(settings, "cheap")
    assert [store.name for store in stores.public] == ["fast", "ram", "cheap"]
    assert stores.names == ("cheap", "fast", "ram")
    assert list(stores) == ["cheap", "fast", "ram", "os_glance_staging_store"]
    assert stores.default.name == "cheap"
    assert (stores.weight("fast"), stores.weight("unknown")) == (10, 0)
    assert "fast" in stores
    assert stores.get("unknown") is None
    with pytest.raises(KeyError):
        stores["unknown"]
    # clients and rows cannot mean a reserved store
    assert stores.get("os_glance_staging_store") is None
    assert stores["os_glance_staging_store"].name == "os_glance_staging_store"


@pytest.mark.parametrize("default", ["unknown", "os_glance_staging_store", ""])
def test_a_default_that_is_none(settings: list[StoreSettings], default: str) -> None:
    with pytest.raises(ConfigError, match="cheap, fast, ram"):
        Stores(settings, default)


def test_two_stores_in_one_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"stores a and b share the directory {tmp_path}/x"):
        Stores([a_file_store("a", tmp_path / "x"), a_file_store("b", tmp_path / "x" / "")], "a")


def test_the_store_of_a_location(settings: list[StoreSettings], tmp_path: Path) -> None:
    stores = Stores(settings, "fast")
    for url, metadata, expected in (
        (f"file://{tmp_path}/fast/key", {"store": "fast"}, "fast"),
        (f"file://{tmp_path}/cheap/key", {}, "cheap"),
        (f"filesystem://{tmp_path}/cheap/key", {"store": "renamed"}, "cheap"),
        ("memory://ram/key", {"store": 3}, "ram"),
        (f"file://{tmp_path}/fast/key", {"store": "cheap"}, "fast"),
        ("file:///elsewhere/key", {"store": "cheap"}, "cheap"),
        ("file:///elsewhere/key", {"store": "gone"}, None),
        (f"file://{tmp_path}/staging/key", {}, None),
        (f"file://{tmp_path}/staging/key", {"store": "os_glance_staging_store"}, None),
        ("rbd://fsid/pool/key/snap", {"store": "gone"}, None),
        ("", {}, None),
    ):
        found = stores.of(Location(url, metadata))
        assert (found.name if found else None) == expected


def test_what_clients_are_told(settings: list[StoreSettings], tmp_path: Path) -> None:
    stores = Stores(settings, "fast")
    assert stores.describe() == [
        {"id": "cheap", "description": "slow disks"},
        {"id": "fast", "default": "true"},
        {"id": "ram"},
    ]
    assert stores.describe(detail=True)[0] == {
        "id": "cheap",
        "description": "slow disks",
        "type": "file",
        "weight": -5,
        "properties": {"data_dir": f"{tmp_path}/cheap", "chunk_size": 65536, "thin_provisioning": False},
    }


async def test_a_sick_store_stops_no_other(settings: list[StoreSettings], tmp_path: Path) -> None:
    (tmp_path / "cheap").write_text("not a directory")
    stores = Stores(settings, "fast")
    await stores.start()
    found = await stores.sick()
    assert found.keys() == {"cheap"}
    assert found["cheap"].startswith("store cheap: ")
    assert "is not a directory" in found["cheap"]
    await stores.default.write("key", feed(b"x"), size=1)
    await stores.aclose()
