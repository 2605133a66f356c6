"""Claims and their leases, by the database's clock."""

import asyncio
import datetime as dt
import uuid

import pytest

from xloud_image.db import claims, images
from xloud_image.db.engine import Database
from xloud_image.errors import Duplicate
from xloud_image.model import Claim, Image, utcnow

KINDS = ["write", "delete", "hash"]


def a_claim(**values: object) -> Claim:
    return Claim(**({"id": str(uuid.uuid4()), "kind": "write", "image_id": "i", "store": "s"} | values))  # type: ignore[arg-type]


async def begin(db: Database, lease: float, **values: object) -> Claim:
    claim = a_claim(**values)
    await db.write(lambda conn: claims.begin(conn, claim, lease=lease))
    return claim


async def test_one_write_and_one_delete_of_each(db: Database) -> None:
    await begin(db, 60, holder="h")
    for other in (
        {"image_id": "other"},
        {"store": "other"},
        {"kind": "delete", "url": "u"},
        {"kind": "delete", "url": "v"},
    ):
        await begin(db, 60, holder="h", **other)
    for same in ({}, {"kind": "delete", "url": "u"}):
        with pytest.raises(Duplicate):
            await begin(db, 60, holder="h", **same)
    assert len(await db.read(lambda conn: claims.list_all(conn))) == 5
    assert len(await db.read(lambda conn: claims.list_all(conn, image_id="i", kind="delete"))) == 2


async def test_all_is_kept(db: Database) -> None:
    claim = await begin(db, 60, kind="delete", url="rbd://a/😀" + "x" * 3000, scope="location", holder="h")
    found = await db.read(lambda conn: claims.get(conn, claim.id))
    assert found is not None
    assert found == Claim(
        claim.id, "delete", "i", "s", claim.url, "location", "h", found.lease_until, found.begun_at, 0, None
    )
    # the database's clock is this machine's here
    assert abs(found.begun_at - utcnow()) < dt.timedelta(seconds=5)
    assert found.lease_until is not None
    assert abs(found.lease_until - found.begun_at - dt.timedelta(seconds=60)) < dt.timedelta(seconds=1)


async def test_a_lease_that_is_renewed_holds(db: Database) -> None:
    claim = await begin(db, 0.4, holder="h")
    for _ in range(5):
        await asyncio.sleep(0.15)
        assert await db.write(lambda conn: claims.renew(conn, claim.id, "h", lease=0.4))
        assert await db.write(lambda conn: claims.take(conn, claim.id, "other", lease=5)) is None
        assert await db.read(lambda conn: claims.expired(conn, KINDS)) == []


async def test_an_expired_lease_goes_to_the_next(db: Database) -> None:
    claim = await begin(db, 0.2, holder="h")
    assert await db.write(lambda conn: claims.take(conn, claim.id, "other", lease=5)) is None
    await asyncio.sleep(0.3)
    assert [one.id for one in await db.read(lambda conn: claims.expired(conn, KINDS))] == [claim.id]
    taken = await db.write(lambda conn: claims.take(conn, claim.id, "other", lease=5))
    assert taken is not None
    assert (taken.holder, taken.attempts) == ("other", 0), "a holder that died did not fail"
    # the first holder has lost it
    assert not await db.write(lambda conn: claims.renew(conn, claim.id, "h", lease=5))
    assert not await db.write(lambda conn: claims.end(conn, claim.id, "h"))
    assert await db.read(lambda conn: claims.expired(conn, KINDS)) == []
    assert await db.write(lambda conn: claims.end(conn, claim.id, "other"))
    assert await db.read(lambda conn: claims.list_all(conn)) == []
    assert not await db.write(lambda conn: claims.end(conn, claim.id))
    # and another write may begin
    await begin(db, 1, holder="h")


async def test_a_claim_without_lease_is_anyones(db: Database) -> None:
    claim = await begin(db, 0)
    assert [one.id for one in await db.read(lambda conn: claims.expired(conn, KINDS))] == [claim.id]
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=5)) is not None


async def test_what_did_not_work_waits_and_says_why(db: Database) -> None:
    claim = await begin(db, 5, holder="h")
    assert await db.write(lambda conn: claims.postpone(conn, claim.id, "h", seconds=0.3, error="e" * 5000))
    found = await db.read(lambda conn: claims.of_write(conn, "i", "s"))
    assert found is not None
    assert found.error == "e" * 1000
    assert found.attempts == 1
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=5)) is None
    await asyncio.sleep(0.4)
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=5)) is not None
    assert await db.write(
        lambda conn: claims.postpone(conn, claim.id, "h", seconds=-1, error="nobody's fault", failed=False)
    )
    taken = await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=5))
    assert taken is not None
    assert taken.attempts == 1


async def test_what_is_given_back_goes_to_anyone(db: Database) -> None:
    """At once, or after all that wait already."""
    image = await db.write(lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), owner="a")))
    first, second = [await begin(db, 60, kind="hash", url=url, holder="h", image_id=image.id) for url in "uv"]

    async def waiting() -> list[str]:
        return [claim.id for claim, _ in await db.read(lambda conn: claims.waiting(conn, "hash", each=5))]

    assert not await db.write(lambda conn: claims.give_back(conn, first.id, "another"))
    assert await db.write(lambda conn: claims.give_back(conn, second.id, "h"))
    assert await db.write(lambda conn: claims.give_back(conn, first.id, "h"))
    assert await waiting() == [first.id, second.id]
    assert await db.write(lambda conn: claims.take(conn, first.id, "h", lease=60)) is not None
    assert await db.write(lambda conn: claims.give_back(conn, first.id, "h", last=True))
    assert await waiting() == [second.id, first.id]
    assert await db.read(lambda conn: claims.count(conn, "hash", "a")) == 2
    assert await db.read(lambda conn: claims.count(conn, "hash", "b")) == 0
    assert await db.read(lambda conn: claims.count(conn, "delete", "a")) == 0


async def test_dead_holders_and_waiting_ones_are_taken_when_asked(db: Database) -> None:
    claim = await begin(db, 60, holder="dead")
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=60, was="another")) is None
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=60, was="dead")) is not None
    await db.write(lambda conn: claims.postpone(conn, claim.id, "h", seconds=60, error="later"))
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=60)) is None
    assert await db.write(lambda conn: claims.take(conn, claim.id, "h", lease=60, idle=True)) is not None


async def test_renewing_many_touches_only_ours(db: Database) -> None:
    ours = [await begin(db, 0.2, holder="h", image_id=f"i{n}") for n in range(3)]
    others = await begin(db, 0.2, holder="other")
    await db.write(lambda conn: claims.renew_all(conn, "h", [ours[0].id, ours[1].id, others.id], lease=60))
    await asyncio.sleep(0.3)
    found = {one.id for one in await db.read(lambda conn: claims.expired(conn, KINDS))}
    assert found == {ours[2].id, others.id}


async def test_those_who_wait_come_in_turn(db: Database) -> None:
    """One owner's many keep another's few not waiting; what is held or put off is not there."""
    owners: dict[str, str | None] = {}
    for owner in ("many", "many", "many", "many", "few", None):
        image = await db.write(lambda conn, owner=owner: images.create(conn, Image(id=str(uuid.uuid4()), owner=owner)))  # type: ignore[misc]
        claim = await begin(db, 0, kind="hash", image_id=image.id, url="u")
        owners[claim.id] = owner
    await begin(db, 0, kind="delete", url="v")
    await begin(db, 60, kind="hash", url="w", holder="h")
    gone = await begin(db, 0, kind="hash", image_id="gone", url="u")
    found = await db.read(lambda conn: claims.waiting(conn, "hash", each=2))
    assert [owner for _, owner in found].count("many") == 2
    assert [owner for _, owner in found].index("few") < 3
    assert {claim.id for claim, _ in found} <= {*owners, gone.id}
    assert all(owners.get(claim.id) == owner for claim, owner in found)
    first = next(claim for claim, owner in found if owner == "few")
    await db.write(lambda conn: claims.take(conn, first.id, "h", lease=60))
    found = await db.read(lambda conn: claims.waiting(conn, "hash", each=5))
    assert sorted(str(owner) for _, owner in found) == ["None", "None", "many", "many", "many", "many"]
    await db.write(lambda conn: claims.end_all(conn, first.image_id, "hash"))
    assert await db.read(lambda conn: claims.get(conn, first.id)) is None
    held = await db.read(claims.held)
    assert [claim.holder for claim in held] == ["h"]
    assert {claim.kind for claim in await db.read(lambda conn: claims.expired(conn, ["write", "delete"]))} == {"delete"}


async def test_a_stores_many_keep_no_others_from_sight(db: Database) -> None:
    for number in range(5):
        await begin(db, 0, kind="delete", url=f"u{number}", store="full")
    other = await begin(db, 0, kind="delete", url="v", store="other")
    await begin(db, 60, kind="delete", url="w", store="other", holder="h")
    found = await db.read(lambda conn: claims.expired(conn, KINDS, each=2))
    assert sorted(one.store for one in found) == ["full", "full", "other"]
    assert other.id in {one.id for one in found}
