"""Reading: the next location when a store fails before its first byte, a cut answer when it fails after that."""

import time

import aiohttp
import pytest

from tests.load import quiet
from tests.services.conftest import House
from tests.services.ill import CHUNK

DATA = bytes(range(256)) * 2000  # several chunks
EARLY = ["open", "hangs", "first chunk", "first chunk hangs"]
WHAT = [{}, {"Range": "bytes=1000-399999"}]


def part(headers: dict[str, str]) -> bytes:
    return DATA[1000:400_000] if headers else DATA


@pytest.mark.parametrize("ill", EARLY)
@pytest.mark.parametrize(("headers", "second"), [(WHAT[0], "two"), (WHAT[1], "disk")], ids=str)
async def test_the_next_location_before_the_first_byte(
    house: House, ill: str, headers: dict[str, str], second: str
) -> None:
    image = await house.new(DATA, "one", second)
    house.store("one").ill = ill
    begun = time.monotonic()
    status, body = await house.download(image, **headers)
    assert (status, body == part(headers)) == (206 if headers else 200, True)
    assert house.store("one").opened > 0, "it is the heavier one"
    assert time.monotonic() - begun < quiet(10)


@pytest.mark.parametrize("headers", WHAT, ids=str)
async def test_a_store_that_recovers_is_asked_first_again(house: House, headers: dict[str, str]) -> None:
    image = await house.new(DATA, "one", "two")
    house.store("one").ill = "open"
    await house.download(image, **headers)
    house.store("one").ill, house.store("two").opened = "", 0
    assert (await house.download(image, **headers))[1] == part(headers)
    assert house.store("two").opened == 0


@pytest.mark.parametrize("ill", EARLY)
async def test_no_location_is_left(house: House, ill: str) -> None:
    image = await house.new(DATA, "one", "two")
    house.store("one").ill = house.store("two").ill = ill
    status, body = await house.download(image)
    assert status == 503
    assert b"try again later" in body
    del house.store("one").blobs[image.id]
    house.store("one").ill = ""
    assert (await house.download(image))[0] == 503, "one lost it, the other may have it"
    del house.store("two").blobs[image.id]
    house.store("two").ill = ""
    status, body = await house.download(image)
    assert status == 404
    assert b"none of its stores" in body


async def test_data_with_another_size_than_the_image(house: House) -> None:
    image = await house.new(DATA, "one", "two")
    house.store("one").blobs[image.id] = DATA[:-1]
    for headers in WHAT:
        assert (await house.download(image, **headers))[1] == part(headers)
    house.store("one").blobs[image.id] = DATA[:500]
    for headers in WHAT:
        assert (await house.download(image, **headers))[1] == part(headers)


async def test_the_preferred_store_first_and_the_others_after_it(house: House) -> None:
    image = await house.new(DATA, "one", "two", "disk")
    assert (await house.download(image, query="?prefer=two"))[1] == DATA
    assert (house.store("one").opened, house.store("two").opened) == (0, 1)
    house.store("two").ill = "first chunk"
    assert (await house.download(image, query="?prefer=two"))[1] == DATA
    assert house.store("one").opened == 1
    house.store("one").ill = "open"
    assert (await house.download(image, query="?prefer=two,one"))[1] == DATA, "from the disk"


@pytest.mark.parametrize("ill", ["second chunk", "too short", "too long"])
async def test_after_the_first_byte_the_answer_is_cut(house: House, ill: str) -> None:
    """Another store could not go on where this one stopped: nobody knows that they hold the same bytes."""
    image = await house.new(DATA, "one", "two")
    house.store("one").ill = ill
    with pytest.raises(aiohttp.ClientPayloadError):
        await house.download(image)
    assert house.store("two").opened == 0


async def test_empty_chunks_are_not_the_end(house: House) -> None:
    image = await house.new(DATA, "one")
    house.store("one").ill = "empty chunks"
    assert (await house.download(image))[1] == DATA


@pytest.mark.parametrize("ill", ["too long", "too short"])
async def test_one_chunk_of_another_size_than_announced(house: House, ill: str) -> None:
    image = await house.new(DATA[:CHUNK], "one", "two")
    house.store("one").ill = ill
    if ill == "too long":  # an announced end ends the answer; what follows it goes nowhere
        assert (await house.download(image))[1] == DATA[:CHUNK]
    else:
        with pytest.raises(aiohttp.ClientPayloadError):
            await house.download(image)
    small = await house.new(DATA[:100], "one", "two")
    house.store("one").ill, house.store("two").opened = "too long", 0
    assert (await house.download(small))[1] == DATA[:100]
    assert house.store("two").opened == 1


async def test_an_image_without_data_of_its_size(house: House) -> None:
    image = await house.new(b"", "one", "two")
    house.store("one").ill = "open"
    assert await house.download(image) == (200, b"")


async def test_a_file_that_is_gone(house: House) -> None:
    image = await house.new(DATA, "two", "disk")
    house.store("two").ill = "first chunk"
    assert (await house.download(image))[1] == DATA
    (house.disk / image.id).unlink()
    assert (await house.download(image))[0] == 503
