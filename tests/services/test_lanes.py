"""What runs beside requests: one store's work holds up no other's, and reading registered data no upload."""

import asyncio
import dataclasses
import functools
import os
import threading
from collections.abc import Callable

import pytest

from tests.services.conftest import ADMIN, House
from xloud_image.db import claims
from xloud_image.db import images as rows
from xloud_image.model import Image
from xloud_image.services import deletions, hashing, images, lanes, reaper


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


async def waits(house: House, number: int) -> Image:
    """An image of a project of its own whose data wait to be read."""
    image = await house.new(b"data", "one")
    await house.service.db.write(
        lambda conn: rows.change(conn, image.id, lambda now: now.replace(owner=str(number), os_hash_value=None))
    )
    claim = deletions.new_claim(house.service, "hash", image.id, "one", url=image.locations[0].url)
    await house.service.db.write(lambda conn: claims.begin(conn, dataclasses.replace(claim, holder=None), lease=0))
    return image


async def test_so_many_registered_locations_are_read_at_once(house: House) -> None:
    waiting = [await waits(house, number) for number in range(24)]
    one, lane = house.store("one"), house.service.hashing
    one.ill = "hangs"
    for _ in range(3):
        await hashing.look(house.service)
    await until(lambda: one.opened == lane.places)
    await hashing.look(house.service)
    assert (one.opened, len(lane.taken)) == (4, 4)
    one.ill = ""
    async with asyncio.timeout(60):
        while await house.service.db.read(claims.list_all):
            await hashing.look(house.service)
            assert len(lane.taken) <= lane.places
            await asyncio.sleep(0.02)
    assert all([(await house.get(image)).os_hash_value for image in waiting])


async def test_reading_registered_data_takes_nothing_from_the_digests_of_uploads(house: House) -> None:
    """Neither needs a thread of the other, and the one that reads stands back behind all others."""
    service = house.service
    image = await waits(house, 1)
    assert service.hashing.pool.submit(_niceness).result() == _niceness() + lanes.NICE
    assert service.digest_pool.submit(_niceness).result() == _niceness()
    go = threading.Event()
    service.hashing.pool.submit(go.wait)
    try:
        await hashing.look(service)
        assert (await house.get(await house.new(b"other data", "two"))).status == "active"
        assert not (await house.get(image)).os_hash_value
    finally:
        go.set()
    service.digest_pool.shutdown()
    async with asyncio.timeout(30):
        while not (await house.get(image)).os_hash_value:
            await hashing.look(service)
            await asyncio.sleep(0.02)


def _niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_last_place_and_shares() -> None:
    lane = lanes.Lane("test", places=3, each=2)
    lane.begin("a1", "a")
    lane.begin("a2", "a")
    assert not lane.admits("a")
    assert lane.admits("b")
    lane.begin("b1", "b")
    assert lane.full
    assert not lane.admits("c")
    lane.make_room(["c"])
    assert not any(map(lane.must_leave, ("a1", "a2", "b1"))), "nobody is over his share"
    for work, share in (("a1", 0.0), ("a2", -5.0)):
        lane.taken[work].share = share
    lane.make_room(["a", "b"])
    assert not lane.must_leave("a2"), "who waits has places"
    lane.make_room(["c"])
    assert lane.must_leave("a2")
    assert not lane.must_leave("a1")
    lane.make_room(["d"])
    assert not lane.must_leave("a1"), "one after the other"
    for twice in (2, 4):
        lane.leave("a2", aside=True)
        lane.begin("a2", "a")
        assert lane.taken["a2"].share == twice * lanes.SHARE
    lane.leave("a2")
    lane.forget("a2")
    lane.begin("a2", "a")
    assert lane.taken["a2"].share == lanes.SHARE
    lane.close()
