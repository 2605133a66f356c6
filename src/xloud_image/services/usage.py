"""How much lies in each store as the database knows it, for operators who move from one to another. What lies there is
not looked at.

A store of which nothing is left here, neither an image nor bytes whose removal is pending, is needed by nobody.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Final

from xloud_image.db import claims, locations, uploads
from xloud_image.db.image_children import WITHOUT_DATA
from xloud_image.model import Location
from xloud_image.services.runtime import Runtime
from xloud_image.stores import type_of
from xloud_image.stores.registry import Stores

_PAGE: Final = 5000  # rows of one statement
_ALL: Final = 10**9
_NAMES: Final = 100  # names of stores that only rows know; nobody who writes rows decides how many are held
_LONGEST: Final = 255  # characters of such a name
OTHERS: Final = "…"  # stands for all further ones
NO_URL: Final = "(no URL)"


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What lies in one store. `images`: locations of images that are there; `pending`: unfinished work (an upload,
    bytes that must go). `configured` False: rows name it (or their URLs its type), and no store here owns their URLs:
    they cannot be read."""

    store: str
    images: int
    pending: int
    configured: bool = True


async def of_all(runtime: Runtime) -> list[Content]:
    """The configured stores in their order, then the names that only rows know. Reads every location once, in pages.
    Stores that were not started are when it takes that to tell whose a location is.

    `DatabaseUnavailable`; `ConfigError`: the service would not start with these stores.
    """
    db, stores = runtime.db, runtime.stores
    images, lost = await locations_of(runtime)
    pending = Counter(claim.store for claim in await db.read(lambda conn: claims.list_all(conn, limit=_ALL)))
    pending.update(await db.read(uploads.parts_by_store))
    found = [Content(name, images[name], pending[name]) for name in stores.names]
    away = [name for name in dict.fromkeys((*lost, *pending)) if lost[name] or name not in stores]
    return found + [
        Content(name, lost[name], 0 if name in stores else pending[name], configured=False) for name in away
    ]


async def locations_of(
    runtime: Runtime, look: Callable[[locations.Row], None] | None = None
) -> tuple[Counter[str], Counter[str]]:
    """How many locations each store owns, and of those that none owns, how many name which store, or are of which type.
    `look` is given each row, also of images that are not there. Our own tables are not needed. As `of_all`."""
    stores = runtime.stores
    images: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    started = False
    number = 0
    while page := await runtime.db.read(lambda conn: locations.page(conn, number, _PAGE)):  # noqa: B023 - at once
        for row in page:
            if look is not None:
                look(row)
            place = row.location
            if place is None or place.status in WITHOUT_DATA:
                continue
            store = _owner(stores, place)
            if store is None and not started:
                # some learn at their start only which cluster or account is theirs; one that is down costs some seconds
                await stores.start()
                started = True
                store = _owner(stores, place)
            if store is not None:
                images[store] += 1
            else:
                name = (place.store or _type(place.url))[:_LONGEST]
                lost[name if name in lost or len(lost) < _NAMES else OTHERS] += 1
        number = page[-1].number
    return images, lost


def _owner(stores: Stores, place: Location) -> str | None:
    """The name of the store whose place it is: a row may name a store that is there and whose place it is not."""
    store = stores.of(place)
    return store.name if store is not None and store.owns(place.url) else None


def _type(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return (type_of(scheme.lower()) or scheme.lower()) if separator else NO_URL
