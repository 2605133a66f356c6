"""A stranger's URL: registered while its name is public, and never followed inside, whatever it means later."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from tests.services.conftest import House
from xloud_image.db import claims
from xloud_image.errors import BadRequest, Conflict
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location
from xloud_image.patch import V21, parse
from xloud_image.services import external, images, locations
from xloud_image.stores.kit import addresses

OUTSIDE = private_address()  # counts as public here
MEMBER = Context(user="u", project="p", roles=frozenset({"member", "reader"}))
SERVICE = Context(user="nova", project="p", roles=frozenset({"service", "member", "reader"}))


@pytest.fixture
def url() -> Iterator[str]:
    server = Nginx(host=OUTSIDE, server="location = /image { return 200 'data of a stranger'; }")
    try:
        server.start()
        yield f"http://{OUTSIDE}:{server.port}/image"
    finally:
        server.close()


async def registered(house: House, ctx: Context, url: str, way: str) -> Image:
    made = await images.create(house.service, ctx, {"disk_format": "raw", "container_format": "bare"})
    if way == "POST":
        await locations.register(house.service, ctx, made.id, url, {})
    else:
        change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
        await images.change(house.service, ctx, made.id, parse(change, V21))
    return await house.get(made)


@pytest.mark.parametrize("way", ["POST", "PATCH"])
async def test_a_name_that_moves_inside(house: House, url: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        real = addresses.public
        patch.setattr(addresses, "public", lambda address: str(address) == OUTSIDE or real(address))
        image = await registered(house, MEMBER, url, way)
        assert image.locations[0].metadata["xloud"]["untrusted"] is True
        assert (await house.download(image))[1] == b"data of a stranger"
    # the address is inside now, for whoever asks: the answers are those of an administrator
    status, body = await house.download(image)
    assert status == 503
    assert b"stranger" not in body
    with pytest.raises(BadRequest, match="no public address"):
        await registered(house, MEMBER, url, way)
    again = await registered(house, SERVICE, url, way)
    assert "untrusted" not in again.locations[0].metadata.get("xloud", {})
    assert (await house.download(again))[1] == b"data of a stranger"


async def test_the_digests_of_a_strangers_url_are_read_no_further(
    house: House, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def once(address: object) -> bool:
        nonlocal looks
        looks += 1
        return looks == 1  # public for the one look when it is registered

    monkeypatch.setattr(addresses, "public", once)
    image = await registered(house, MEMBER, url, "POST")
    assert image.status == "active"

    async def seen() -> bool:
        left = await house.service.db.read(claims.list_all)
        return bool(left and left[0].error and "no public address" in left[0].error)

    for _ in range(100):
        if await seen():
            break
        await asyncio.sleep(0.05)
    assert await seen()
    assert (await house.get(image)).os_hash_value is None


@pytest.mark.parametrize("way", ["POST", "PATCH"])
async def test_what_is_registered_is_never_taken_for_an_older_row(house: House, url: str, way: str) -> None:
    """This server tells neither ETag nor time of change, so there is no version to note."""
    image = await registered(house, SERVICE, url, way)
    location = image.locations[0]
    assert "version" not in location.metadata["xloud"]
    for one in (location, external.proved(external.unproved(location))):
        assert not external.caller(Context(), one).older
    assert external.caller(Context(), Location(url, {})).older
    assert (await house.download(image))[1] == b"data of a stranger"


@pytest.mark.parametrize("way", ["POST", "PATCH"])
async def test_a_stranger_does_not_vouch_for_a_changed_file(
    house: House, url: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = addresses.public
    monkeypatch.setattr(addresses, "public", lambda address: str(address) == OUTSIDE or real(address))
    image = await registered(house, MEMBER, url, "POST")
    change = parse([{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}], V21)

    async def again(ctx: Context) -> None:
        if way == "POST":
            await locations.register(house.service, ctx, image.id, url, {})
        else:
            await images.change(house.service, ctx, image.id, change)

    with pytest.raises((BadRequest, Conflict), match=r"already|Only a queued image"):
        await again(MEMBER)
    assert (await house.get(image)).locations[0].metadata["xloud"]["untrusted"] is True
    await again(SERVICE)
    assert "untrusted" not in (await house.get(image)).locations[0].metadata.get("xloud", {})
