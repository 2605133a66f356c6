"""The s3 store behind servers and proxies on which one thing is odd: it works or says why not; nothing is left."""

import asyncio
import contextlib
from typing import Any

import pytest

from tests.servers.odd import MODES, Odd
from tests.servers.rgw import Rgw
from tests.stores.buckets import Impatient, S3Hooks, boto, new_bucket, s3_options
from xloud_image.errors import AlreadyExists, BlobNotFound, ImageServiceError
from xloud_image.services.store_check import check_one
from xloud_image.stores.base import Store
from xloud_image.stores.layers import wrap
from xloud_image.stores.s3.capabilities import APART, Lack
from xloud_image.stores.s3.store import S3Store
from xloud_image.stores.suite import MIB, collect, feed, noise

CREATE, REPLACE, METADATA, LISTING, RANGES, PARTS, TAGS = (
    *(Lack.CREATE, Lack.REPLACE, Lack.METADATA, Lack.LISTING, Lack.RANGES, Lack.PARTS, Lack.TAGS),
)
# what a mode costs; one that is not named costs nothing
LACKS = {
    "cond501": {CREATE, REPLACE},
    "cond400": {CREATE, REPLACE},
    "condignored": {CREATE, REPLACE},
    "ifmatch501": {REPLACE},
    "norange": {RANGES},
    "range200silent": {RANGES},
    "range206silent": {RANGES},
    "range416": {RANGES},
    "range501": {RANGES},
    "gzipped": {RANGES},
    "nometa": {METADATA},
    "nolist501": {LISTING},
    "nolistbucket": {LISTING},
    "nolist403": {LISTING},
    "nometaparts": {METADATA},
}
# images up to one part work, larger ones are refused with this
SMALL = {
    "mpunsupported": (r"takes no uploads in parts, so an image may have at most 5 MiB", {PARTS}),
    "noetag": (r"gives no ETags to parts", {TAGS}),
    "http413": (r"what stands in front of its server .*client_max_body_size.*s3_store_large_object_chunk_size", set()),
}
# nothing works, and this is said
REFUSED = {
    "r301": r"in another region, eu-west-3: set s3_store_region_name = eu-west-3",
    "skewed": r"the clocks of this host and of .* differ too much",
    "noget": r"cannot be read back: .*see s3_store_access_key.*what they may do in the bucket",
    "wrongbytes": r"gives back other bytes than were written",
    "brotli": r"compresses the data \(br\)",
}
WORKS = sorted(set(MODES) - set(SMALL) - set(REFUSED))
OPTIONS = {"large_object_chunk_size": 5, "thread_pools": 2}


class Behind(S3Hooks):
    __test__ = False

    def __init__(self, rgw: Rgw) -> None:
        self.rgw = rgw
        self.boto = boto(rgw, tls=True)
        self.bucket = new_bucket(rgw, tls=True)


class Made:
    """A store behind the oddity, in its layers; `bare` is it without them."""

    def __init__(self, rgw: Rgw, mode: str) -> None:
        self.odd = Odd(rgw, mode)
        self.behind = Behind(rgw)
        options = s3_options(rgw, self.behind.bucket, host=self.odd.url, **OPTIONS)
        self.bare: S3Store = Impatient("cold", options)
        self.store: Store = wrap(self.bare)

    def lacks(self) -> set[Lack]:
        return set(self.bare._client.known.lacking)

    async def aclose(self) -> None:
        await self.store.aclose()
        await asyncio.to_thread(self.odd.close)


async def read(store: Store, url: str, **where: Any) -> bytes:
    async with store.open(url, **where) as reader:
        return await collect(reader)


async def there_and_back(store: Store, behind: Behind, data: bytes, key: str) -> None:
    """Written, seen behind the store's back, read whole and in parts, deleted."""
    blob = await store.write(key, feed(data), size=None)
    assert blob.size == len(data)
    assert await behind.peek(key) == data
    assert (await store.stat(blob.url)).size == len(data)
    assert await read(store, blob.url, length=len(data)) == data
    if data:
        middle = len(data) // 2
        assert await read(store, blob.url, offset=middle, length=100) == data[middle : middle + 100]
        assert await read(store, blob.url, offset=len(data) - 3) == data[-3:]
    with pytest.raises(AlreadyExists):
        await store.write(key, feed(b"other"), size=5)
    assert await read(store, blob.url) == data
    await store.delete(blob.url)
    with pytest.raises(BlobNotFound):
        await store.stat(blob.url)
    assert not await behind.leftovers()


async def fails(store: Store, behind: Behind) -> None:
    """An upload whose source breaks off, in one part and in several, leaves nothing; nor does one that is discarded."""
    for size in (1000, 6 * MIB):
        with pytest.raises(LookupError):
            await store.write("broken", feed(noise(size), error=LookupError("gone")), size=None)
        assert await behind.peek("broken") is None
        assert not await behind.leftovers()
    await store.discard("broken")


async def works(name: str, made: Made) -> None:
    for number, size in enumerate((1000, 6 * MIB, 0)):
        await there_and_back(made.store, made.behind, noise(size, number), f"key-{number}")
    await fails(made.store, made.behind)
    blob = await made.store.write("gone", feed(b"x"), size=1)
    await made.store.discard("gone")
    with pytest.raises(BlobNotFound):
        await read(made.store, blob.url)
    result = await check_one(made.store, "cold", "s3", deep=True, timeout=60)
    assert result.ok, result.detail
    assert set(result.lacks) == {lack.value for lack in LACKS.get(name, ())}
    assert made.lacks() == LACKS.get(name, set())
    made.odd.be("plain")
    assert not await made.behind.leftovers()
    assert not await made.store.keys(10)


async def small_ones_work(name: str, made: Made) -> None:
    said, lacks = SMALL[name]
    for number, size in enumerate((1000, 0)):
        await there_and_back(made.store, made.behind, noise(size, number), f"key-{number}")
    for size in (None, 7 * MIB):
        with pytest.raises(ImageServiceError, match=said) as raised:
            await made.store.write("large", feed(noise(7 * MIB)), size=size)
        assert (raised.value.status, raised.value.temporary) == (503, False)
        assert await made.behind.peek("large") is None
        assert not await made.behind.leftovers()
    result = await check_one(made.store, "cold", "s3", deep=True, timeout=60)
    assert not result.ok
    assert made.lacks() == lacks


async def nothing_is_acknowledged(name: str, made: Made) -> None:
    with pytest.raises(ImageServiceError, match=REFUSED[name]) as raised:
        await made.store.write("key", feed(b"data"), size=4)
    assert (raised.value.status, raised.value.temporary) == (503, False)
    assert not (await check_one(made.store, "cold", "s3", deep=True, timeout=60)).ok
    made.odd.be("plain")
    if name in ("r301", "skewed"):  # nobody is let in to clean up
        return
    assert await made.behind.peek("key") is None
    await made.behind.put_behind("old", b"old bytes")
    made.odd.be(name)
    if name != "wrongbytes":  # of bytes that somebody else put there only the image's digest can tell
        assert not (await check_one(made.store, "cold", "s3", deep=False, timeout=60)).ok


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, rgw: Rgw) -> dict[str, BaseException | None]:
    """What came of each mode that is to be tested; several at once, because most of the time goes by in waiting."""
    here = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    names = sorted({item.callspec.params["name"] for item in here if hasattr(item, "callspec")})

    async def one(name: str, at_once: asyncio.Semaphore) -> None:
        async with at_once, contextlib.aclosing(await asyncio.to_thread(Made, rgw, name)) as made:
            task = works if name in WORKS else small_ones_work if name in SMALL else nothing_is_acknowledged
            await task(name, made)

    async def every() -> list[BaseException | None]:
        at_once = asyncio.Semaphore(6)
        return await asyncio.gather(*(one(name, at_once) for name in names), return_exceptions=True)

    return dict(zip(names, asyncio.run(every()), strict=True))


def check(outcome: BaseException | None) -> None:
    if outcome is not None:
        raise outcome


@pytest.mark.parametrize(
    ("name", "lack"), [("range501", RANGES), ("mpunsupported", PARTS), ("cond501", CREATE), ("ifmatch501", REPLACE)]
)
async def test_what_was_refused_is_asked_for_again(rgw: Rgw, name: str, lack: Lack) -> None:
    """Twice, a while apart, before it counts; and once more after some minutes."""
    async with contextlib.aclosing(await asyncio.to_thread(Made, rgw, name)) as made:
        known = made.bare._client.known
        for number in range(3):
            with contextlib.suppress(ImageServiceError):
                url = (await made.store.write(f"key-{number}", feed(noise(6 * MIB)), size=None)).url
            with contextlib.suppress(ImageServiceError):
                small = (await made.store.write(f"small-{number}", feed(noise(1000)), size=None)).url
            assert await read(made.store, small, offset=500) == noise(1000)[500:]
            await asyncio.sleep(APART)
        assert known.lacks(lack)
        made.odd.be("plain")
        for each in known._lacks:
            known._lacks[each] = 0.0  # as if the minutes were over
        assert not known.lacks(lack)
        url = (await made.store.write("large", feed(noise(6 * MIB)), size=6 * MIB)).url
        await made.store.write("small", feed(noise(1000)), size=None)
        assert await read(made.store, url, offset=MIB, length=5) == noise(6 * MIB)[MIB : MIB + 5]
        assert not made.lacks()


async def test_one_refusal_teaches_nothing(rgw: Rgw) -> None:
    async with contextlib.aclosing(await asyncio.to_thread(Made, rgw, "range501")) as made:
        url = await made.behind.put_behind("key", noise(MIB))
        assert await read(made.store, made.bare.forms(url)[0].replace(str(rgw.port), str(made.odd.port)), offset=5)
        assert not made.lacks()
        made.odd.be("plain")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", WORKS)
def test_it_works(name: str, outcomes: dict[str, BaseException | None]) -> None:
    check(outcomes[name])


@pytest.mark.parametrize("name", sorted(SMALL))
def test_small_images_work_and_large_ones_are_refused(name: str, outcomes: dict[str, BaseException | None]) -> None:
    check(outcomes[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_it_says_what_is_wrong_before_anything_is_acknowledged(
    name: str, outcomes: dict[str, BaseException | None]
) -> None:
    check(outcomes[name])
