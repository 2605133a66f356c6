"""What runs beside requests: one store's work holds up no other's, and reading registered data no upload."""

import asyncio
import dataclasses
import functools
from collections.abc import Callable

import pytest

from tests.services.conftest import ADMIN, House
from xloud_image.db import claims
from xloud_image.services import deletions, images, reaper


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has to come."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_store_that_hangs_holds_up_no_others_deletions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pending deletions are more than one look brings, and older."""
    monkeypatch.setattr(deletions, "_LAST_RETRY", 0)
    monkeypatch.setattr(claims, "expired", functools.partial(claims.expired, each=2))
    service = house.service
    service.settings = dataclasses.replace(service.settings, reaper_interval=1)
    one, two = house.store("one"), house.store("two")
    one.needed = two.needed = True
    for name in ("one", "one", "one", "one", "two"):
        await images.delete(service, ADMIN, (await house.new(b"data", name)).id)
    assert len(await service.db.read(claims.list_all)) == 5
    one.needed = two.needed = False
    one.ill = "deleting hangs"
    monkeypatch.setitem(service.stores._stores, "one", one)  # without limits of time: it hangs for ever
    cleaning = asyncio.create_task(reaper.run(service))
    try:
        await until(lambda: len(two.deleted) == 1 and one.most_deleting > 0)
        two.needed = True
        await images.delete(service, ADMIN, (await house.new(b"data", "two")).id)
        two.needed = False
        await until(lambda: len(two.deleted) == 2)
        assert not one.deleted
        assert one.most_deleting == 1, "a store is asked for one removal at a time"
    finally:
        cleaning.cancel()
        await asyncio.gather(cleaning, return_exceptions=True)
