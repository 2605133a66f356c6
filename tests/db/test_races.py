"""Several connections and several processes at once on one database: nothing is lost, nothing happens twice."""

import asyncio
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import claims, images, listing, members
from xloud_image.db.engine import Database
from xloud_image.db.query import Query
from xloud_image.errors import Duplicate, Forbidden, ImageServiceError, NotFound, QuotaExceeded
from xloud_image.model import Claim, Image, Location


def new_id() -> str:
    return str(uuid.uuid4())


def adds(name: str) -> Any:
    """A step of `change` that counts up the property `name`."""

    def step(image: Image) -> Image:
        count = int(image.properties.get(name) or "0") + 1
        return image.replace(properties={**image.properties, name: str(count)}, min_ram=image.min_ram + 1)

    return step


async def outcomes(*work: Any) -> Sequence[Any]:
    """Results and errors of all at once; an error that is none of ours fails the test."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, ImageServiceError):
            raise one
    return found


async def test_no_change_is_lost(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id(), tags=("keep",))))

    async def worker(database: Database, n: int) -> None:
        for _ in range(10):
            await database.write(lambda conn: images.change(conn, image.id, adds(f"by {n}")))

    await asyncio.gather(*(worker((db, other_db)[n % 2], n) for n in range(8)))
    found = await db.read(lambda conn: images.get(conn, image.id))
    assert found is not None
    assert found.properties == {f"by {n}": "10" for n in range(8)}
    assert (found.min_ram, found.tags) == (80, ("keep",))


async def test_no_change_is_lost_between_processes(db: Database, settings: DatabaseSettings) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id())))
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "tests.db.counter", settings.connection, image.id, f"by {n}", "15",
            cwd=Path(__file__).parents[2],
        )
        for n in range(4)
    ]  # fmt: skip
    assert [await worker.wait() for worker in workers] == [0, 0, 0, 0]
    found = await db.read(lambda conn: images.get(conn, image.id))
    assert found is not None
    assert found.properties == {f"by {n}": "15" for n in range(4)}
    assert found.min_ram == 60


async def test_one_of_many_creates_wins(db: Database, other_db: Database) -> None:
    for _ in range(5):
        image = Image(id=new_id(), properties={"a": "1"}, tags=("t",))
        found = await outcomes(
            *(
                (db, other_db)[n % 2].write(lambda conn, n=n: images.create(conn, image.replace(name=f"n{n}")))  # type: ignore[misc]
                for n in range(8)
            )
        )
        won = [one for one in found if isinstance(one, Image)]
        assert len(won) == 1
        assert sum(isinstance(one, Duplicate) for one in found) == 7
        assert await db.read(lambda conn: images.get(conn, image.id)) == won[0]


async def test_deleted_once_and_never_changed_after(db: Database, other_db: Database) -> None:
    for _ in range(5):
        image = await db.write(lambda conn: images.create(conn, Image(id=new_id())))
        found = await outcomes(
            *(db.write(lambda conn: images.hide(conn, image.id)) for _ in range(3)),
            *(other_db.write(lambda conn: images.change(conn, image.id, adds("n"))) for _ in range(5)),
            *(db.write(lambda conn: images.hide(conn, image.id)) for _ in range(3)),
        )
        hidden = [one for one in (*found[:3], *found[-3:]) if isinstance(one, Image)]
        assert len(hidden) == 1
        changed = [one for one in found[3:-3] if isinstance(one, Image)]
        assert all(isinstance(one, NotFound) for one in found if not isinstance(one, Image))
        # the one who hid it saw all that was changed before
        assert int(hidden[0].properties.get("n") or 0) == len(changed)


async def test_a_location_is_added_beside_others_changes(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id(), status="saving")))

    def activate(found: Image) -> Image:
        location = Location("file:///x", {"store": "s"})
        return found.replace(status="active", size=5, locations=(*found.locations, location))

    await asyncio.gather(
        db.write(lambda conn: images.change(conn, image.id, activate)),
        *(other_db.write(lambda conn: images.change(conn, image.id, adds("n"))) for _ in range(5)),
    )
    found = await db.read(lambda conn: images.get(conn, image.id))
    assert found is not None
    assert (found.status, found.size, len(found.locations), found.properties) == ("active", 5, 1, {"n": "5"})


async def test_a_membership_is_added_once(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id())))
    found = await outcomes(
        *((db, other_db)[n % 2].write(lambda conn: members.add(conn, image.id, "p2")) for n in range(8))
    )
    assert sum(isinstance(one, Duplicate) for one in found) == 7
    assert len(await db.read(lambda conn: members.list_all(conn, image.id))) == 1


async def test_a_claim_is_begun_once_and_taken_once(db: Database, other_db: Database) -> None:
    for _ in range(5):
        image_id = new_id()

        def claim(n: int, image_id: str = image_id) -> Claim:
            return Claim(id=new_id(), kind="write", image_id=image_id, store="s", holder=f"first {n}")

        begun = await outcomes(
            *((db, other_db)[n % 2].write(lambda conn, n=n: claims.begin(conn, claim(n), lease=0)) for n in range(6))  # type: ignore[misc]
        )
        assert sorted(type(one).__name__ for one in begun) == ["Duplicate"] * 5 + ["NoneType"]
        [one] = await db.read(lambda conn: claims.list_all(conn, image_id=image_id))
        taken = await outcomes(
            *(
                (db, other_db)[n % 2].write(lambda conn, n=n: claims.take(conn, one.id, f"then {n}", lease=60))  # type: ignore[misc]
                for n in range(6)
            )
        )
        won = [found for found in taken if found is not None]
        assert len(won) == 1
        assert won == await db.read(lambda conn: claims.list_all(conn, image_id=image_id))


async def test_two_that_wait_for_each_other_both_finish(db: Database, other_db: Database, engine: str) -> None:
    """A deadlock: the database ends one of the two, which is then run again."""
    first, second = sorted(new_id() for _ in range(2))
    for image_id in (first, second):
        await db.write(lambda conn, image_id=image_id: images.create(conn, Image(id=image_id)))  # type: ignore[misc]
    runs = 0
    both = asyncio.Barrier(2)

    def crossing(one: str, two: str) -> Any:
        met = False

        async def work(conn: AsyncConnection) -> None:
            nonlocal met, runs
            runs += 1
            await images.change(conn, one, adds("n"))
            if not met and engine != "sqlite":  # there the second begins when the first has ended
                met = True
                await both.wait()
            await images.change(conn, two, adds("n"))

        return work

    await asyncio.gather(db.write(crossing(first, second)), other_db.write(crossing(second, first)))
    for image_id in (first, second):
        found = await db.read(lambda conn, image_id=image_id: images.get(conn, image_id))  # type: ignore[misc]
        assert found is not None
        assert found.properties == {"n": "2"}
    # PostgreSQL may end both, when both look at the same moment
    assert runs in {"sqlite": (2,), "postgresql": (3, 4)}.get(engine, (3,))


async def test_readers_never_see_half_a_change(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id(), properties={"a": "0", "b": "0"})))
    ended = asyncio.Event()

    async def writer() -> None:
        for n in range(30):
            both = {"a": str(n), "b": str(n)}
            await db.write(
                lambda conn, both=both, n=n: images.change(  # type: ignore[misc]
                    conn, image.id, lambda found: found.replace(properties=both, tags=(f"t{n}",), min_disk=n)
                )
            )
        ended.set()

    async def reader() -> int:
        count = 0
        while not ended.is_set():
            found = await other_db.read(lambda conn: images.get(conn, image.id))
            assert found is not None
            assert found.properties["a"] == found.properties["b"]
            if found.tags:
                assert found.tags == (f"t{found.properties['a']}",)
                assert found.min_disk == int(found.properties["a"] or "")
            count += 1
        return count

    _, *counts = await asyncio.gather(writer(), reader(), reader())
    assert sum(counts) > 10


async def test_a_walk_misses_nothing_while_others_write(db: Database, other_db: Database) -> None:
    there = [await db.write(lambda conn: images.create(conn, Image(id=new_id(), owner="p1"))) for _ in range(40)]
    ended = asyncio.Event()

    async def writer() -> None:
        while not ended.is_set():
            image = await other_db.write(lambda conn: images.create(conn, Image(id=new_id(), owner="p1")))
            await other_db.write(lambda conn: images.hide(conn, image.id))

    async def walk() -> None:
        found: list[str] = []
        marker = None
        while True:
            asked = Query(project="p1", marker=marker, limit=3)
            page = await db.read(lambda conn: listing.find(conn, asked))
            found += [image.id for image in page]
            if len(page) < 3:
                break
            marker = page[-1].id
        assert {image.id for image in there} <= set(found)
        assert len(found) == len(set(found))
        ended.set()

    await asyncio.gather(writer(), walk())


async def test_what_fails_leaves_nothing(db: Database) -> None:
    image_id = new_id()

    async def work(conn: AsyncConnection) -> None:
        await images.create(conn, Image(id=image_id, properties={"a": "1"}))
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await db.write(work)
    assert await db.read(lambda conn: images.get(conn, image_id)) is None
    await db.write(lambda conn: images.create(conn, Image(id=image_id)))


async def test_a_cancelled_write_leaves_nothing_and_no_lock(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id())))
    changed = asyncio.Event()

    async def work(conn: AsyncConnection) -> None:
        await images.change(conn, image.id, adds("n"))
        changed.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(db.write(work))
    await changed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        found = await other_db.write(lambda conn: images.change(conn, image.id, adds("m")))
    assert found.properties == {"m": "1"}


async def test_the_quota_of_members_holds_for_those_that_come_at_once(db: Database, other_db: Database) -> None:
    image = await db.write(lambda conn: images.create(conn, Image(id=new_id())))
    adding = [
        (db, other_db)[n % 2].write(lambda conn, n=n: members.add(conn, image.id, f"p{n}", quota=5)) for n in range(16)
    ]
    found = await outcomes(*adding)
    assert sum(isinstance(one, QuotaExceeded) for one in found) == 11
    assert len(await db.read(lambda conn: members.list_all(conn, image.id))) == 5
    # who is one already is told so, not that there is no room
    there = next(one.member for one in found if not isinstance(one, ImageServiceError))
    with pytest.raises(Duplicate):
        await db.write(lambda conn: members.add(conn, image.id, there, quota=5))
    await db.write(lambda conn: members.add(conn, image.id, "one more"))
