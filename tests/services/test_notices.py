"""What is told of a deletion that a store refuses, or cannot do now."""

import pytest

from tests.services.conftest import ADMIN, House
from xloud_image.db import events
from xloud_image.errors import InUse
from xloud_image.services import images


async def _told(house: House) -> list[str]:
    return [one.type for one in await house.service.db.read(lambda conn: events.CHANGES.first(conn, 100))]


@pytest.fixture(autouse=True)
def wanted(house: House) -> None:
    """Of deletions alone."""
    house.service.db._wanted = lambda kind: kind == "image.delete"


async def test_a_deletion_that_is_undone_was_never_told(house: House) -> None:
    image = await house.new(b"data", "one")
    house.store("one").in_use = True
    with pytest.raises(InUse):
        await images.delete(house.service, ADMIN, image.id)
    assert (await house.get(image)).status == "active"
    house.store("one").in_use = False
    assert await _told(house) == []
    await images.delete(house.service, ADMIN, image.id)
    assert await _told(house) == ["image.delete"]


async def test_a_deletion_whose_bytes_stay_for_now_is_told(house: House) -> None:
    image = await house.new(b"data", "one")
    house.store("one").needed = True
    await images.delete(house.service, ADMIN, image.id)
    assert await _told(house) == ["image.delete"]


async def test_one_without_bytes_is_told_at_once(house: House) -> None:
    image = await images.create(house.service, ADMIN, {})
    await images.delete(house.service, ADMIN, image.id)
    assert await _told(house) == ["image.delete"]
