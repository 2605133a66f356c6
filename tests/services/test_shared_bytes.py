"""Bytes that are still needed: by a clone, or by another image. And what stores advise."""

import asyncio
from typing import Any

import pytest

from tests.formats.build import qcow2
from tests.services.conftest import ADMIN, House
from xloud_image.db import claims, tables
from xloud_image.errors import Conflict, StoreUnavailable
from xloud_image.model import Claim, Image, Location
from xloud_image.services import deletions, hints, images, locations, reaper

DATA = b"some data"


async def pending_of(house: House) -> list[Claim]:
    return await house.service.db.read(claims.list_all)


async def sharing(house: House) -> tuple[Image, Image]:
    """Two images with the same bytes in store one."""
    first, second = await house.new(DATA, "one"), await house.new(DATA, "two")
    await house.add(second, Location(first.locations[0].url, {"store": "one"}))
    return first, await house.get(second)


async def test_what_a_clone_needs_is_owed_until_it_is_gone(house: House) -> None:
    image = await house.new(DATA, "one")
    house.store("one").needed = True
    assert (await house.ask("DELETE", f"/v2/images/{image.id}"))[0] == 204
    assert (await house.download(image))[0] == 404
    for attempts in range(4):
        (entry,) = await pending_of(house)
        assert (entry.kind, entry.attempts) == ("delete", attempts + 1)
        assert entry.error is not None
        assert "the volumes a and b are clones" in entry.error, "stores pending shows the reason"
        await at_once(house, entry)
        await reaper.once(house.service)
    house.store("one").needed = False
    await at_once(house, entry)
    await reaper.once(house.service)
    assert await pending_of(house) == []
    assert house.store("one").blobs == {}


async def at_once(house: House, entry: Claim) -> None:
    """The time of the next attempt has come."""
    taken = await house.service.db.write(lambda conn: claims.take(conn, entry.id, "test", lease=5, idle=True))
    if taken is not None:  # the test's own is no attempt
        await house.service.db.write(
            lambda conn: claims.postpone(conn, entry.id, "test", seconds=-1, error=entry.error)
        )  # type: ignore[arg-type]

        async def back(conn: Any) -> None:
            await conn.execute(tables.claims.update().values(attempts=entry.attempts))

        await house.service.db.write(back)


@pytest.mark.parametrize(
    ("attempts", "least", "most"), [(0, 20, 40), (3, 200, 300), (7, 3600, 3600), (500, 3600, 3600)]
)
async def test_it_is_asked_at_most_hourly_in_the_end(
    house: House, attempts: int, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def postponed(conn: Any, claim_id: str, holder: str, *, seconds: float, error: str, failed: bool) -> bool:
        assert failed
        waits.append(seconds)
        return True

    monkeypatch.setattr(claims, "postpone", postponed)
    claim = Claim(id="c", kind="delete", image_id="i", store="one", url="memory://one/x", attempts=attempts)
    await deletions.postpone(house.service, claim, Conflict("a clone"))
    assert least <= waits[0] <= most


async def test_the_last_image_takes_the_bytes_with_it(house: House) -> None:
    first, second = await sharing(house)
    await images.delete(house.service, ADMIN, first.id)
    assert DATA in house.store("one").blobs.values()
    assert await pending_of(house) == []
    await images.delete(house.service, ADMIN, second.id)
    assert house.store("one").blobs == {}
    assert house.store("two").blobs == {}


@pytest.mark.parametrize("turn", range(4))
async def test_two_deleted_at_once(house: House, turn: int) -> None:
    """Neither counts on the other to do it."""
    first, second = await sharing(house)
    await asyncio.gather(*(images.delete(house.service, ADMIN, image.id) for image in (first, second)))
    assert house.store("one").blobs == {}
    assert await pending_of(house) == []


async def test_bytes_that_were_owed_and_found_a_new_image(house: House) -> None:
    """Nothing but an older service on the same database would do this; then they stay."""
    image = await house.new(DATA, "one")
    house.store("one").needed = True
    await images.delete(house.service, ADMIN, image.id)
    (entry,) = await pending_of(house)
    other = await house.new(DATA, "two")
    await house.add(other, Location(image.locations[0].url, {"store": "one"}))
    house.store("one").needed = False
    await at_once(house, entry)
    await reaper.once(house.service)
    assert await pending_of(house) == []
    assert DATA in house.store("one").blobs.values()


async def test_nothing_is_removed_while_the_store_does_not_know_its_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another image may name the same bytes in a spelling that the store cannot compare yet."""
    image = await house.new(DATA, "one")

    async def unknown() -> None:
        raise StoreUnavailable("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(house.store("one"), "ready", unknown)
        await images.delete(house.service, ADMIN, image.id)
        (entry,) = await pending_of(house)
        assert entry.error == "store one: nobody answers"
        assert DATA in house.store("one").blobs.values()
    await at_once(house, entry)
    await reaper.once(house.service)
    assert await pending_of(house) == []
    assert house.store("one").blobs == {}


async def test_bytes_that_are_leaving_cannot_be_registered(house: House) -> None:
    image = await house.new(DATA, "one")
    house.store("one").needed = True
    await images.delete(house.service, ADMIN, image.id)
    url = image.locations[0].url
    made = await images.create(house.service, ADMIN, {"disk_format": "raw", "container_format": "bare"})
    with pytest.raises(Conflict, match="is being removed"):
        await locations.register(house.service, ADMIN, made.id, url, {})
    status, _ = await house.ask("POST", f"/v2/images/{made.id}/locations", json={"url": url})
    assert status == 409
    assert (await house.ask("GET", f"/v2/images/{made.id}"))[0] == 200


async def test_advice_is_in_the_answer_and_in_the_log(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    octets = {"Content-Type": "application/octet-stream"}
    for disk_format, data, said in (("raw", DATA, False), ("qcow2", qcow2(), True)):
        fields = {"disk_format": disk_format, "container_format": "bare"}
        image = await images.create(house.service, ADMIN, fields)
        status, headers = await house.ask("PUT", f"/v2/images/{image.id}/file", data=data, headers=octets)
        assert status == 204
        expected = "299 - \"store one: it likes 'raw' ? not qcow2\"" if said else None
        assert headers.get("Warning") == expected
        url = (await house.get(image)).locations[0].url
        for way in ("POST", "PATCH"):
            other = await images.create(house.service, ADMIN, fields)
            if way == "POST":
                status, headers = await house.ask("POST", f"/v2/images/{other.id}/locations", json={"url": url})
                assert status == 202
            else:
                status, headers = await house.ask(
                    "PATCH",
                    f"/v2/images/{other.id}",
                    json=[{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}],
                    headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
                )
                assert status == 200
            assert headers.get("Warning") == expected
            assert (hints.of(house.service, await house.get(other)) is not None) is said
    assert "advice of a store" in capfd.readouterr().out
