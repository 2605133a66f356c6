"""The configured stores: opened, and found by their ids and by URLs. No bytes move here.

Per process: each worker opens its own stores after the fork, so health, limits and connections are a process's own.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from xloud_image.config.settings import StoreSettings
from xloud_image.errors import ConfigError, ImageServiceError
from xloud_image.stores import TYPES
from xloud_image.stores.base import Can, Health, Store
from xloud_image.stores.layers import LayerSettings, wrap

_log = logging.getLogger(__name__)

_START: Final = 10.0  # seconds that start and close wait for one store


class Placed(Protocol):
    """What is needed of a location to find its store; `model.Location` is one."""

    @property
    def url(self) -> str: ...
    @property
    def store(self) -> str | None: ...


def backend(type_name: str) -> type[Store]:
    """The class of a store type. `ConfigError` for a type that does not exist."""
    if type_name not in TYPES:
        raise ConfigError(f"'{type_name}' is no store type; the types are {', '.join(sorted(TYPES))}")
    module, _, name = TYPES[type_name].store.partition(":")
    found: type[Store] = getattr(importlib.import_module(module), name)
    return found


class Stores:
    """The configured stores by id, in the order of the configuration. `default` is the id of the default store.

    Raises `ConfigError` for a type that does not exist, options that contradict each other, a default that does not
    exist, a library that is not installed, and two stores in one place. Does no I/O before `start`.
    """

    def __init__(self, settings: Sequence[StoreSettings], default: str, *, layers: LayerSettings | None = None) -> None:
        self.settings: dict[str, StoreSettings] = {one.id: one for one in settings}
        self._stores: dict[str, Store] = {}
        places: dict[str, str] = {}
        for one in settings:
            try:
                store = backend(one.type)(one.id, one.options)  # type: ignore[call-arg]
            except ConfigError as error:
                raise ConfigError(f"store {one.id}: {error.message}") from None
            for place in store.places:
                if place in places:
                    raise ConfigError(f"stores {places[place]} and {one.id} share the {place}: give each its own")
                places[place] = one.id
            self._stores[one.id] = wrap(store, layers)
        if default not in self.settings or self.settings[default].reserved:
            known = ", ".join(one.id for one in settings if not one.reserved)
            raise ConfigError(f"the default store '{default}' is not configured; the stores are {known}")
        self.default_id = default
        # Reading tries the highest weight first; of equals, the order of the configuration
        self.public: tuple[Store, ...] = tuple(
            self._stores[one.id] for one in sorted(settings, key=lambda one: -one.weight) if not one.reserved
        )

    def __getitem__(self, store_id: str) -> Store:
        """Any store, reserved ones included; KeyError for an id that is not configured."""
        return self._stores[store_id]

    def __contains__(self, store_id: object) -> bool:
        return store_id in self._stores

    def __iter__(self) -> Iterator[str]:
        return iter(self._stores)

    def get(self, store_id: str) -> Store | None:
        """The store that a client or a location row means by this id; None when there is none or it is reserved."""
        one = self.settings.get(store_id)
        return self._stores[store_id] if one is not None and not one.reserved else None

    def reserved(self, store_id: str) -> Store | None:
        """The service's own store of this id; None when there is none, or it is one for images."""
        one = self.settings.get(store_id)
        return self._stores[store_id] if one is not None and one.reserved else None

    @property
    def names(self) -> tuple[str, ...]:
        """The ids that clients may name, in the order of the configuration."""
        return tuple(one.id for one in self.settings.values() if not one.reserved)

    def takes_images(self, store_id: str) -> bool:
        """Whether new images can be put into this store; KeyError for an id that is not configured."""
        return Can.WRITE in self._stores[store_id].can and not self.settings[store_id].read_only

    @property
    def default(self) -> Store:
        return self._stores[self.default_id]

    def notes(self) -> list[str]:
        """What each store says of itself before the service starts, from files only. Blocks."""
        return [note for store in self._stores.values() for note in store.notes()]

    def weight(self, store_id: str) -> int:
        """Higher is tried first; 0 for a store that is not configured (any more)."""
        one = self.settings.get(store_id)
        return one.weight if one else 0

    def of(self, location: Placed) -> Store | None:
        """The store of a location: the one that the row names if it owns the URL, else the first public one that does.

        Rows outlive configurations: a store's id may be missing in the row, be gone, or mean another store by now; the
        URL decides then. It is looked up at each use and the row stays as it is, so that an older service on the same
        database, or an id that comes back, finds what it wrote. A URL that nobody owns: the store that the row names,
        which says why it cannot; None when there is no such store either. A row that names a reserved store names none:
        those hold no locations.
        """
        named = self.get(location.store or "")
        if named is not None and named.owns(location.url):
            return named
        owner = next((store for store in self.public if store is not named and store.owns(location.url)), None)
        return named if owner is None else owner

    def describe(self, *, detail: bool = False) -> list[dict[str, Any]]:
        """The body of `GET /info/stores` (with `detail`: of `/info/stores/detail`), reserved stores left out.

        Flags are the text "true" and absent otherwise, as the Image API has them.
        """
        described: list[dict[str, Any]] = []
        for store_id, one in self.settings.items():
            if one.reserved:
                continue
            store = self._stores[store_id]
            entry: dict[str, Any] = {"id": store_id}
            if one.description:
                entry["description"] = one.description
            if store_id == self.default_id:
                entry["default"] = "true"
            if not self.takes_images(store_id):
                entry["read-only"] = "true"
            if detail:
                entry |= {"type": one.type, "weight": one.weight, "properties": dict(store.facts)}
            described.append(entry)
        return described

    async def start(self) -> None:
        """All at once, each within ten seconds; a store that cannot start stops no other: its calls say why."""
        await asyncio.gather(*(self._bounded("start", store) for store in self._stores.values()))

    async def aclose(self) -> None:
        """All at once, each within ten seconds."""
        await asyncio.gather(*(self._bounded("aclose", store) for store in self._stores.values()))

    async def _bounded(self, what: str, store: Store) -> None:
        try:
            async with asyncio.timeout(_START):
                await getattr(store, what)()
        except Exception as error:  # noqa: BLE001 - one sick store must not stop the others
            _log.error("store %s: %s failed: %s", store.name, what, str(error) or type(error).__name__)

    async def sick(self, timeout: float = 5.0) -> dict[str, str]:
        """Those that cannot be used now, and why; as `health`."""
        return {name: found for name, found in (await self.health(timeout)).items() if isinstance(found, str)}

    async def health(self, timeout: float) -> dict[str, Health | str]:
        """Of each store, reserved ones included: its health, or why it cannot be used now, as the administrator may
        know it (paths and cures, no secret). All are asked at once, each for `timeout` seconds."""
        found = await asyncio.gather(*(self._health(store, timeout) for store in self._stores.values()))
        return dict(zip(self._stores, found, strict=True))

    async def _health(self, store: Store, timeout: float) -> Health | str:
        try:
            async with asyncio.timeout(timeout):
                return await store.check()
        except TimeoutError:
            return f"store {store.name}: it does not answer within {timeout:g} seconds"
        except ImageServiceError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - one sick store must not stop the others
            _log.exception("store %s: check failed", store.name)
            return f"store {store.name}: {type(error).__name__}; see the log"
