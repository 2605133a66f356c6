"""What others change between the first look at an image and the lock: only the image under the lock decides. On each
database, with the change made exactly there."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.db.conftest import empty, engine, settings  # noqa: F401 - fixtures
from tests.services.conftest import ADMIN, House
from xloud_image import patch
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import claims
from xloud_image.db import images as rows
from xloud_image.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    FormatRefused,
    ImageServiceError,
    NotFound,
    QuotaExceeded,
)
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location
from xloud_image.services import data, images, locations, tags
from xloud_image.streams.signatures import NAMES

OWNER = Context(user="ann", project="alpha", roles=frozenset({"member", "reader"}))
BACKED = b"QFI\xfb\0\0\0\3" + (104).to_bytes(8, "big") + (11).to_bytes(4, "big") + bytes(80) + b"/etc/passwd"
Step = Callable[[], Awaitable[Any]]


@pytest.fixture
def connection(settings: DatabaseSettings) -> str:  # noqa: F811
    return settings.connection


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Step], None]:
    """`meanwhile(module, point, step)`: `step` is done once when `module` reaches `point`, which is before its lock."""

    def arm(module: Any, point: str, step: Step) -> None:
        done = False

        async def reach(name: str) -> None:
            nonlocal done
            if name == point and not done:
                done = True
                await step()

        monkeypatch.setattr(module, "reach", reach)

    return arm


async def new(house: House, **fields: Any) -> Image:
    return await images.create(house.service, OWNER, {"disk_format": "raw", "container_format": "bare", **fields})


async def change(house: House, image: Image, *, who: Context = ADMIN, **values: Any) -> None:
    changes = [{"op": "add", "path": f"/{name}", "value": value} for name, value in values.items()]
    await images.change(house.service, who, image.id, patch.parse(changes, patch.V21))


async def stored(house: House, image: Image, **values: Any) -> None:
    """Change what no client may change."""
    await house.service.db.write(lambda conn: rows.change(conn, image.id, lambda now: now.replace(**values)))


async def upload(house: House, image: Image, content: bytes, *, who: Context = OWNER) -> Image:
    async def source() -> AsyncIterator[bytes]:
        yield content.ljust(1024, b"\0")

    return await data.upload(house.service, who, image.id, source(), declared=None)


async def refused(work: Awaitable[Any], kind: type[ImageServiceError], house: House, image: Image) -> Image:
    """The image as it is after `work` was refused; no bytes and no claim are left."""
    with pytest.raises(kind):
        await work
    assert await house.service.db.read(claims.list_all) == []
    found = await house.service.db.read(lambda conn: rows.get(conn, image.id))
    assert found is not None
    assert house.store("one").blobs == {}
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"container_format": "ova", "disk_format": "qcow2"}, {"container_format": "bare"}),
        ({"container_format": "bare", "disk_format": "iso"}, {"disk_format": "qcow2"}),
        ({"container_format": "ova", "disk_format": "iso"}, {"disk_format": "raw", "container_format": "bare"}),
    ],
)
async def test_content_is_judged_by_the_formats_under_the_lock(
    house: House, meanwhile: Any, before: dict[str, str], after: dict[str, str]
) -> None:
    image = await new(house, **before)
    meanwhile(data, "upload.begin", lambda: change(house, image, who=OWNER, **after))
    found = await refused(upload(house, image, BACKED), FormatRefused, house, image)
    assert found.status == "queued"


async def test_formats_stay_while_the_data_comes(house: House, meanwhile: Any) -> None:
    image = await new(house, container_format="ova", disk_format="qcow2")
    came: list[str] = []

    async def late() -> None:
        try:
            await change(house, image, who=OWNER, container_format="bare")
        except ImageServiceError as error:
            came.append(error.message)

    meanwhile(data, "upload.claimed", late)
    try:
        done = await upload(house, image, b"PK")
    except FormatRefused:
        pass
    else:
        assert done.container_format == "ova"
    assert "cannot be changed" in came[0]


async def test_a_signature_that_came_meanwhile(house: House, meanwhile: Any) -> None:
    image = await new(house)
    signed = dict(zip(NAMES, ("AAAA", "SHA-256", "DSA", "c1"), strict=True))
    meanwhile(data, "upload.begin", lambda: change(house, image, who=OWNER, **signed))
    await refused(upload(house, image, b"x"), Conflict, house, image)


async def test_formats_that_went_meanwhile(house: House, meanwhile: Any) -> None:
    image = await new(house)
    meanwhile(data, "upload.begin", lambda: change(house, image, who=OWNER, disk_format=None))
    await refused(upload(house, image, b"x"), BadRequest, house, image)


@pytest.mark.parametrize("visibility", ["shared", "private"])
async def test_an_image_that_was_given_away_meanwhile(house: House, meanwhile: Any, visibility: str) -> None:
    """Each call that changes something, by an owner who is none any more when it happens."""
    image = await new(house, visibility=visibility)
    filled = await upload(house, await new(house, visibility=visibility), b"x")
    house.store("one").blobs.clear()

    def given(which: Image) -> Step:
        return lambda: change(house, which, owner="beta")

    meanwhile(data, "upload.begin", given(image))
    await refused(upload(house, image, b"x"), NotFound, house, image)
    for module, point, call in (
        (images, "delete.begin", lambda: images.delete(house.service, OWNER, filled.id)),
        (images, "change.begin", lambda: images.deactivate(house.service, OWNER, filled.id)),
        (images, "change.begin", lambda: images.reactivate(house.service, OWNER, filled.id)),
        (images, "change.begin", lambda: change(house, filled, who=OWNER, name="mine")),
        (tags, "change.begin", lambda: tags.add(house.service, OWNER, filled.id, "mine")),
        (tags, "change.begin", lambda: tags.remove(house.service, OWNER, filled.id, "mine")),
    ):
        await stored(house, filled, owner="alpha")
        meanwhile(module, point, given(filled))
        found = await refused(call(), NotFound, house, filled)
        assert (found.status, found.owner, found.name, found.tags) == ("active", "beta", None, ())


async def test_an_image_that_was_protected_meanwhile(house: House, meanwhile: Any) -> None:
    image = await upload(house, await new(house), b"x")
    meanwhile(images, "delete.begin", lambda: change(house, image, who=OWNER, protected=True))
    with pytest.raises(ImageServiceError, match="protected"):
        await images.delete(house.service, OWNER, image.id)
    assert house.store("one").blobs


async def test_tags_over_the_quota_at_once(house: House, meanwhile: Any) -> None:
    limits = dataclasses.replace(house.service.settings.limits, image_tag_quota=2)
    house.service.settings = dataclasses.replace(house.service.settings, limits=limits)
    image = await new(house, tags=["a"])
    meanwhile(tags, "change.begin", lambda: change(house, image, who=OWNER, tags=["a", "b"]))
    with pytest.raises(QuotaExceeded):
        await tags.add(house.service, OWNER, image.id, "c")


async def test_two_uploads_at_once(house: House, meanwhile: Any) -> None:
    image = await new(house)
    meanwhile(data, "upload.begin", lambda: upload(house, image, b"first"))
    with pytest.raises(Conflict):
        await upload(house, image, b"second")
    assert [blob[:5] for blob in house.store("one").blobs.values()] == [b"first"]


# locations

SERVICE = Context(user="nova", project="services", roles=frozenset({"service", "member", "reader"}))


def add(url: str) -> list[Any]:
    return patch.parse([{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}], patch.V21)


def by_patch(house: House, image: Image, url: str, who: Context) -> Awaitable[Any]:
    return images.change(house.service, who, image.id, add(url))


def by_post(house: House, image: Image, url: str, who: Context) -> Awaitable[Any]:
    return locations.register(house.service, who, image.id, url, {})


WAYS = pytest.mark.parametrize("way", [by_patch, by_post])


async def in_two(house: House) -> str:
    """A URL of data in the store `two` that no image has."""
    house.store("two").blobs["there"] = b"data"
    return "memory://two/there"


@WAYS
async def test_formats_that_went_before_a_location(house: House, meanwhile: Any, way: Any) -> None:
    image, url = await new(house), await in_two(house)
    meanwhile(locations, "location.begin", lambda: change(house, image, who=OWNER, disk_format=None))
    found = await refused(way(house, image, url, ADMIN), BadRequest, house, image)
    assert (found.status, found.locations) == ("queued", ())


@WAYS
async def test_an_upload_that_came_before_a_location(house: House, meanwhile: Any, way: Any) -> None:
    image, url = await new(house), await in_two(house)
    meanwhile(locations, "location.begin", lambda: upload(house, image, b"first"))
    with pytest.raises(Conflict):
        await way(house, image, url, ADMIN)
    found = await house.get(image)
    assert [place.store for place in found.locations] == ["one"]


@WAYS
async def test_a_location_by_who_is_no_owner_any_more(house: House, meanwhile: Any, way: Any) -> None:
    exposure = dataclasses.replace(house.service.settings.exposure, users_register_store_urls=True)
    house.service.settings = dataclasses.replace(house.service.settings, exposure=exposure)
    image, url = await new(house, visibility="private"), await in_two(house)
    meanwhile(locations, "location.begin", lambda: change(house, image, owner="beta"))
    found = await refused(way(house, image, url, OWNER), NotFound, house, image)
    assert (found.status, found.locations) == ("queued", ())


@WAYS
async def test_data_that_became_those_of_another_project(house: House, meanwhile: Any, way: Any) -> None:
    """Looked at when they were nobody's, registered when they were another's."""
    exposure = dataclasses.replace(house.service.settings.exposure, users_register_store_urls=True)
    house.service.settings = dataclasses.replace(house.service.settings, exposure=exposure)
    image, url = await new(house), await in_two(house)
    other = await images.create(
        house.service, dataclasses.replace(OWNER, project="beta"), {"disk_format": "raw", "container_format": "bare"}
    )
    meanwhile(locations, "location.begin", lambda: house.add(other, Location(url, {"store": "two"})))
    found = await refused(way(house, image, url, OWNER), Forbidden, house, image)
    assert (found.status, found.locations) == ("queued", ())


async def test_the_last_location_but_one_went(house: House, meanwhile: Any) -> None:
    image = await house.new(b"data", "one", "two")

    async def remove(store: str) -> None:
        await locations.delete_from_store(house.service, ADMIN, store, image.id)

    meanwhile(locations, "delete.begin", lambda: remove("two"))
    with pytest.raises(Forbidden):
        await remove("one")
    assert [place.store for place in (await house.get(image)).locations] == ["one"]
    assert list(house.store("one").blobs.values()) == [b"data"]


async def test_locations_over_the_quota_at_once(house: House, meanwhile: Any) -> None:
    limits = dataclasses.replace(house.service.settings.limits, image_location_quota=2)
    house.service.settings = dataclasses.replace(house.service.settings, limits=limits)
    image = await house.new(b"data", "one")
    for name in ("a", "b"):
        house.store("two").blobs[name] = b"data"
    meanwhile(locations, "location.begin", lambda: by_patch(house, image, "memory://two/a", ADMIN))
    with pytest.raises(QuotaExceeded):
        await by_patch(house, image, "memory://two/b", ADMIN)


async def test_the_same_location_twice_at_once(house: House, meanwhile: Any) -> None:
    image, url = await house.new(b"data", "one"), await in_two(house)
    meanwhile(locations, "location.begin", lambda: by_patch(house, image, url, ADMIN))
    with pytest.raises(BadRequest, match="already"):
        await by_patch(house, image, url, ADMIN)
    assert len((await house.get(image)).locations) == 2
