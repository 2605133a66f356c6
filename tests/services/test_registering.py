"""What is registered and does not count before it was read: said twice, found wrong, refused."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from tests.services.conftest import ADMIN, House
from xloud_image.db import claims
from xloud_image.model import Image
from xloud_image.patch import V21, parse
from xloud_image.services import digests, foreign, images, locations

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
        await digests.look(house.service)
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
        patch.setattr(digests, "look", nothing)
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
        assert [foreign.counts(location) for location in now.locations] == [True, False]
        assert [claim.kind for claim in await house.service.db.read(claims.list_all)] == ["hash"]
    await settled(house)
    assert [location.url for location in (await house.get(image)).locations] == [image.locations[0].url]


async def test_what_counts_and_is_found_wrong_is_not_read_any_more(house: House, web: Any) -> None:
    image = await images.create(house.service, ADMIN, {"disk_format": "raw", "container_format": "bare"})
    url = web(GOOD)
    await locations.register(house.service, ADMIN, image.id, url, {})
    await settled(house)
    web(EVIL)
    await locations.register(house.service, ADMIN, image.id, url, {})
    await settled(house)
    assert foreign.is_wrong((await house.get(image)).locations[0])
    web(GOOD)
    await patched(house, image, url)
    await settled(house)
    assert not foreign.is_wrong((await house.get(image)).locations[0])
    assert (await house.download(image))[1] == GOOD
