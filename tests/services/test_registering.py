"""What is registered and does not count before it was read: said twice, found wrong, refused."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.identity.keystone_callers import headers, settings_for, started
from tests.servers.keystone import Keystone
from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from tests.services.conftest import ADMIN, House
from xloud_image.db import claims
from xloud_image.db import images as rows
from xloud_image.errors import BadRequest, Forbidden, QuotaExceeded
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.patch import V21, parse
from xloud_image.services import deletions, external, hashing, images, lanes, locations, reaper
from xloud_image.stores.kit import addresses

MEMBER = Context(user="u", project="p", roles=frozenset({"member", "reader"}))
SERVICE = Context(user="nova", project="p", roles=frozenset({"service", "member", "reader"}))
GOOD, EVIL = b"the bytes of the image", b"other bytes, same size"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """A URL at which such bytes lie."""
    folder = tmp_path / "www"
    folder.mkdir()
    tmp_path.chmod(0o755)
    server = Nginx(host=private_address(), server=f"root {folder};")

    def lay(content: bytes, name: str = "image") -> str:
        (folder / name).write_bytes(content)
        return f"http://{server.host}:{server.port}/{name}"

    try:
        server.start()
        yield lay
    finally:
        server.close()


async def patched(house: House, image: Image, url: str, **more: Any) -> Image:
    change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}, **more}}]
    return await images.change(house.service, ADMIN, image.id, parse(change, V21))


async def nothing(*_: Any) -> None: ...


async def settled(house: House) -> None:
    """Until nothing waits to be read."""
    for _ in range(400):
        await hashing.look(house.service)
        if not await house.service.db.read(claims.list_all):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await house.service.db.read(claims.list_all))


@pytest.mark.parametrize("way", ["POST", "PATCH"])
@pytest.mark.parametrize("ended", [False, True])
async def test_saying_it_twice_proves_nothing(
    house: House, web: Any, monkeypatch: pytest.MonkeyPatch, way: str, ended: bool
) -> None:
    image = await house.new(GOOD, "one")
    url = web(EVIL)
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "look", nothing)
        patch.setattr(locations, "_PATIENCE", 0.1)
        await patched(house, image, url)
        (claim,) = await house.service.db.read(claims.list_all)
        if ended:  # as an older release left it
            await house.service.db.write(lambda conn: claims.end(conn, claim.id))
        for _ in range(2):
            if way == "PATCH":
                await patched(house, image, url)
            else:
                await locations.register(house.service, ADMIN, image.id, url, {})
        now = await house.get(image)
        assert [external.counts(location) for location in now.locations] == [True, False]
        assert [claim.kind for claim in await house.service.db.read(claims.list_all)] == ["hash"]
    await settled(house)
    assert [location.url for location in (await house.get(image)).locations] == [image.locations[0].url]


async def test_the_list_that_was_shown_can_be_sent_back(
    house: House, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a location waits that nobody sees."""
    image = await house.new(GOOD, "one")
    monkeypatch.setattr(hashing, "look", nothing)
    monkeypatch.setattr(locations, "_PATIENCE", 0.1)
    await patched(house, image, web(GOOD))
    shown = [{"url": image.locations[0].url, "metadata": {"zone": "north"}}]
    change = parse([{"op": "replace", "path": "/locations", "value": shown}], V21)
    now = await images.change(house.service, ADMIN, image.id, change)
    assert [external.counts(one) for one in now.locations] == [True, False]
    assert now.locations[0].metadata["zone"] == "north"
    more = [*shown, {"url": now.locations[1].url, "metadata": {}}]
    with pytest.raises(BadRequest, match="only change their metadata"):
        await images.change(
            house.service, ADMIN, image.id, parse([{"op": "replace", "path": "/locations", "value": more}], V21)
        )


async def test_what_counts_and_is_found_wrong_is_not_read_any_more(house: House, web: Any) -> None:
    image = await images.create(house.service, ADMIN, {"disk_format": "raw", "container_format": "bare"})
    url = web(GOOD)
    await locations.register(house.service, ADMIN, image.id, url, {})
    await settled(house)
    web(EVIL)
    await locations.register(house.service, ADMIN, image.id, url, {})
    await settled(house)
    assert external.is_wrong((await house.get(image)).locations[0])
    web(GOOD)
    await patched(house, image, url)
    await settled(house)
    assert not external.is_wrong((await house.get(image)).locations[0])
    assert (await house.download(image))[1] == GOOD


# the queue


async def test_one_look_is_due_however_many_register(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    real = house.service.spawn

    def spawn(work: Any, name: str) -> Any:
        begun.append(name)
        return real(work, name)

    monkeypatch.setattr(house.service, "spawn", spawn)
    for _ in range(100):
        hashing.soon(house.service)
    assert len(begun) == 1
    await settled(house)
    hashing.soon(house.service)
    assert len(begun) == 2


async def test_so_many_wait_for_one_project(house: House, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "look", nothing)
    monkeypatch.setattr(hashing, "WAITING", 2)
    monkeypatch.setattr(addresses, "public", lambda _: True)

    async def register(ctx: Context, number: int) -> None:
        url = web(GOOD, f"image-{number}")
        made = await images.create(house.service, ctx, {"disk_format": "raw", "container_format": "bare"})
        await locations.register(house.service, ctx, made.id, url, {})

    for number in range(2):
        await register(MEMBER, number)
    with pytest.raises(QuotaExceeded, match="2 registered locations"):
        await register(MEMBER, 2)
    await register(dataclasses.replace(MEMBER, project="q"), 3)
    await register(SERVICE, 4)
    assert len(await house.service.db.read(claims.list_all)) == 4


async def waits(house: House, owner: str, store: str) -> Image:
    """An image of that project whose data wait to be read."""
    image = await house.new(GOOD, store)
    await house.service.db.write(
        lambda conn: rows.change(conn, image.id, lambda now: now.replace(owner=owner, os_hash_value=None))
    )
    claim = deletions.new_claim(house.service, "hash", image.id, store, url=image.locations[0].url)
    await house.service.db.write(lambda conn: claims.begin(conn, dataclasses.replace(claim, holder=None), lease=0))
    return image


async def read(house: House, image: Image) -> bool:
    """Whether the data are read before long."""
    for _ in range(200):
        await hashing.look(house.service)
        if (await house.get(image)).os_hash_value:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_the_last_place_is_for_who_has_none(house: House) -> None:
    house.store("one").ill = "hangs"
    for owner in ("a", "b", "a", "b", "a"):
        await waits(house, owner, "one")
    await hashing.look(house.service)
    await hashing.look(house.service)
    assert sorted(str(one.owner) for one in house.service.hashing.taken.values()) in (["a", "a", "b"], ["a", "b", "b"])
    assert await read(house, await waits(house, "c", "two"))


async def test_who_is_long_at_it_makes_room_for_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "LOOK", 0.05)
    house.store("one").ill = "hangs"
    slow = [await waits(house, owner, "one") for owner in "abcd"]
    await hashing.look(house.service)
    assert house.service.hashing.full
    other = await waits(house, "e", "two")
    await hashing.look(house.service)
    assert not any(one.aside for one in house.service.hashing.taken.values()), "not before its share is over"
    for one in house.service.hashing.taken.values():
        one.share = 0.0
    assert await read(house, other)
    assert 2 * lanes.SHARE in house.service.hashing._shares.values()
    house.store("one").ill = ""
    left = await house.service.db.read(claims.list_all)
    assert {claim.image_id for claim in left} == {image.id for image in slow}
    assert all(claim.attempts == 0 for claim in left)


def test_the_pace_grows_with_the_size() -> None:
    assert hashing.pace(None) == hashing.pace(1000) == hashing.PACE
    assert hashing.pace(1 << 40) * hashing.MOST == 1 << 40


async def test_what_a_dead_process_read_is_read_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    image = await waits(house, "a", "one")
    (claim,) = await house.service.db.read(claims.list_all)
    await house.service.db.write(lambda conn: claims.take(conn, claim.id, "dead", lease=3600))
    await reaper.once(house.service)
    assert not await read_now(house, image)
    monkeypatch.setattr(reaper, "is_dead", lambda holder: holder == "dead")
    await reaper.once(house.service)
    assert await read(house, image)


async def read_now(house: House, image: Image) -> bool:
    await hashing.look(house.service)
    await asyncio.sleep(0.2)
    return bool((await house.get(image)).os_hash_value)


# who names data of our own stores


async def test_a_service_token_of_keystone_names_what_a_user_may_not(house: House, keystone: Keystone) -> None:
    """As Nova and Cinder send it, with the token of their user beside."""
    user, service, other = (keystone.token(name) for name in ("demo", "glance", "alt"))
    async with started(settings_for(keystone, service_token_roles_required=False)) as identity:
        for beside, may in ((None, False), (other, False), (service, True)):
            ctx = await identity.authenticate(headers(user, beside))
            made = await images.create(house.service, ctx, {"disk_format": "raw", "container_format": "bare"})
            house.store("one").blobs[made.id] = GOOD
            url = f"memory://one/{made.id}"
            if may:
                image = await locations.register(house.service, ctx, made.id, url, {})
                assert external.notes(image.locations[0]) == {}, "made for the image, and goes with it"
                await settled(house)
                await images.delete(house.service, ctx, made.id)
                assert made.id not in house.store("one").blobs
            else:
                with pytest.raises(Forbidden):
                    await locations.register(house.service, ctx, made.id, url, {})


# what is refused


@pytest.mark.parametrize("ours", [True, False])
async def test_bytes_of_ours_that_are_refused_are_removed(house: House, ours: bool) -> None:
    """A service made them for this image and nobody else names them."""
    made = await images.create(house.service, SERVICE, {"disk_format": "raw", "container_format": "bare"})
    key = made.id if ours else "of-somebody"
    house.store("one").blobs[key] = EVIL
    announced = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(GOOD).hexdigest()}
    await locations.register(house.service, SERVICE, made.id, f"memory://one/{key}", announced)
    await settled(house)
    assert (await house.service.db.read(lambda conn: rows.get(conn, made.id))).status == "queued"  # type: ignore[union-attr]
    assert house.store("one").blobs == ({} if ours else {key: EVIL})


async def test_bytes_of_ours_that_cannot_be_read_stay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be right."""
    monkeypatch.setattr(deletions, "_LAST_RETRY", 0)
    made = await images.create(house.service, SERVICE, {"disk_format": "raw", "container_format": "bare"})
    house.store("one").blobs[made.id] = GOOD
    house.store("one").ill = "open"
    announced = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(GOOD).hexdigest()}
    await locations.register(house.service, SERVICE, made.id, f"memory://one/{made.id}", announced)
    await settled(house)
    assert (await house.service.db.read(lambda conn: rows.get(conn, made.id))).status == "queued"  # type: ignore[union-attr]
    assert house.store("one").blobs == {made.id: GOOD}
