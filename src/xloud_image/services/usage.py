"""How much lies in each store as the database knows it, for operators who move from one to another. What lies there is
not looked at.

A store of which nothing is left here, neither an image nor bytes whose removal is pending, is needed by nobody.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final

from xloud_image.db import claims, locations, uploads
from xloud_image.db.engine import Database
from xloud_image.services.runtime import Runtime
from xloud_image.stores import type_of
from xloud_image.stores.registry import Stores

_PAGE: Final = 5000  # rows of one statement
_ALL: Final = 10**9


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


async def locations_of(runtime: Runtime) -> tuple[Counter[str], Counter[str]]:
    """How many locations each store owns, and of those that none owns, how many name which store, or are of which type.
    Our own tables are not needed. As `of_all`."""
    images, lost = await _count(runtime.db, runtime.stores)
    if lost:
        # some learn at their start only which cluster or account is theirs; one that is down costs some seconds
        await runtime.stores.start()
        images, lost = await _count(runtime.db, runtime.stores)
    return images, lost


async def _count(db: Database, stores: Stores) -> tuple[Counter[str], Counter[str]]:
    """Locations by the store that owns them, and those that none owns by the name in the row."""
    images: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    number = 0
    while page := await db.read(lambda conn: locations.after(conn, number, _PAGE)):  # noqa: B023 - awaited at once
        for location in page:
            store = stores.of(location)
            # a row may name a store that is there and whose place it is not
            if store is not None and store.owns(location.url):
                images[store.name] += 1
            else:
                lost[location.store or _type(location.url)] += 1
        number = page[-1].id or 0
    return images, lost


def _type(url: str) -> str:
    scheme = url.partition("://")[0].lower()
    return type_of(scheme) or scheme
