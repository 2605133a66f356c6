"""Events are stored with their change or not at all, once, in order; one process at a time sends them."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator

import pytest

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import events, images
from xloud_image.db.engine import Database, Tx
from xloud_image.db.tables import events as table
from xloud_image.events import LONGEST, Event
from xloud_image.model import Image


@pytest.fixture
async def told(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """A database with an empty outbox, where all but one type of event is wanted."""
    database = Database(settings, lambda kind: kind != "image.send")
    await database.start()
    try:
        yield database
    finally:
        await database.write(lambda tx: tx.execute(table.delete()))
        await database.write(lambda tx: events.CHANGES.give_turn(tx, "a"))
        await database.aclose()


async def _emit(database: Database, *emitted: Event) -> None:
    async def work(tx: Tx) -> None:
        for event in emitted:
            tx.emit(event)

    await database.write(work)


async def _types(database: Database) -> list[str]:
    return [one.type for one in await database.read(lambda conn: events.CHANGES.first(conn, 100))]


async def test_what_is_emitted_is_stored_with_the_change_or_not_at_all(told: Database) -> None:
    image = Image(str(uuid.uuid4()), owner="o", name="ü and €", properties=dict.fromkeys("abc", "é" * 30000))
    rung = []
    told.told = lambda: rung.append(1)
    await told.write(lambda tx: images.create(tx, image))

    async def fails(tx: Tx) -> None:
        await images.change(tx, image.id, lambda now: now.replace(min_ram=1))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await told.write(fails)
    await told.write(lambda tx: images.change(tx, image.id, lambda now: now))  # changes nothing
    await _emit(told, Event("image.send", {}))  # not wanted
    assert rung == [1]
    [one] = await told.read(lambda conn: events.CHANGES.first(conn, 10))
    assert (one.type, one.level) == ("image.create", "info")
    assert isinstance(one.payload, dict)
    assert one.payload["name"] == image.name
    # two bytes a character become six in JSON: too long for a statement, so it is cut
    assert one.payload["properties"] == dict.fromkeys("abc", "é" * 255)
    assert len(Event("image.create", one.payload).text) < LONGEST


async def test_a_run_that_is_repeated_tells_nothing_twice(told: Database, engine: str) -> None:
    if engine == "sqlite":
        pytest.skip("there the transactions wait for each other")
    first, second = (Image(str(uuid.uuid4()), owner="o") for _ in range(2))
    for image in (first, second):
        await told.write(lambda tx, image=image: images.create(tx, image))  # type: ignore[misc]
    runs, meet = [], asyncio.Barrier(2)

    async def change(one: Image, other: Image) -> None:
        met = False

        async def work(tx: Tx) -> None:
            nonlocal met
            runs.append(one.id)
            await images.change(tx, one.id, lambda now: now.replace(min_ram=now.min_ram + 1))
            if not met:
                met = True
                await meet.wait()
            await images.change(tx, other.id, lambda now: now.replace(min_ram=now.min_ram + 1))

        await told.write(work)

    await asyncio.gather(change(first, second), change(second, first))
    assert len(runs) > 2  # one of them was given up by the database
    assert await _types(told) == ["image.create"] * 2 + ["image.update"] * 4


async def test_what_may_be_undone_is_held_until_it_is_certain(told: Database) -> None:
    await _emit(told, Event("one", {}, held_for="x"), Event("two", {}), Event("three", {}, held_for="y"))
    assert await _types(told) == ["two"]
    await told.write(lambda tx: events.forget(tx, "y"))
    for _ in range(2):
        await told.write(lambda tx: events.release(tx, "x"))
    assert await _types(told) == ["one", "two"]


async def test_the_turn_is_one_process_at_a_time(told: Database) -> None:
    async def take(holder: str, **how: object) -> bool:
        return await told.write(lambda tx: events.CHANGES.take_turn(tx, holder, **{"lease": 60, **how}))  # type: ignore[arg-type]

    got = await asyncio.gather(*(take(name) for name in "abcdef"))
    assert sum(got) == 1
    holder = "abcdef"[got.index(True)]
    assert await take(holder)
    turn = await told.read(events.CHANGES.whose_turn)
    assert (turn.holder, turn.free) == (holder, False)
    assert await take("g", was=holder)  # known to be dead
    assert not await take(holder)
    assert await take("g", lease=-1)  # run out
    assert (await told.read(events.CHANGES.whose_turn)).free
    assert await take("a")
    await told.write(lambda tx: events.CHANGES.give_turn(tx, "g"))  # not its own any more
    assert not await take("b")
    await told.write(lambda tx: events.CHANGES.give_turn(tx, "a"))
    assert await take("b")
    await told.write(lambda tx: events.CHANGES.give_turn(tx, "b"))


async def test_the_oldest_go_when_too_many_wait_or_for_too_long(told: Database) -> None:
    await _emit(told, *(Event(f"e{number}", {}) for number in range(10)))
    assert await events.CHANGES.drop(told, most=10, hours=1) == 0
    assert await events.CHANGES.drop(told, most=4, hours=1) == 6
    assert await _types(told) == ["e6", "e7", "e8", "e9"]
    old = table.update().where(table.c.type == "e7").values(made_at=dt.datetime(2020, 1, 1))
    await told.write(lambda tx: tx.execute(old))
    count, seconds = await told.read(events.CHANGES.waiting)
    assert count == 4
    assert seconds > 3600
    assert await events.CHANGES.drop(told, most=4, hours=1) == 2
    assert await _types(told) == ["e8", "e9"]
