"""The http store against what web servers out there do: each is read right, or refused with a true sentence."""

import asyncio
import contextlib
import re
import resource
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.odd_web import OddWeb
from xloud_image.errors import ImageServiceError
from xloud_image.stores.base import Caller, Store
from xloud_image.stores.http import store as http
from xloud_image.stores.http.store import HttpStore
from xloud_image.stores.layers import LayerSettings, wrap
from xloud_image.stores.suite import collect, noise

DATA = noise(50_000)
ADMIN = Caller(trusted=True)


@pytest.fixture(scope="module")
def web() -> Iterator[OddWeb]:
    server = OddWeb(DATA)
    yield server
    server.close()


@contextlib.asynccontextmanager
async def opened(seconds: float) -> AsyncIterator[Store]:
    options: dict[str, Any] = {option.dest: option.default for option in HttpStore.TYPE.options}
    made = HttpStore("web", options, connect=20, idle=20)
    yield wrap(made, LayerSettings(store_timeout=seconds, retries=0))
    await made.aclose()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with opened(60) as made:
        yield made


@pytest.fixture
async def impatient() -> AsyncIterator[Store]:
    """For servers that never come to an end."""
    async with opened(4) as made:
        yield made


async def read(store: Store, url: str, **how: Any) -> bytes:
    async with store.open(url, caller=ADMIN, **how) as reader:
        return await collect(reader)


async def told(call: Any) -> object:
    """What a call gives, or its sentence."""
    try:
        return await call
    except ImageServiceError as error:
        return error.message


ALL = len(DATA)
# mode: the size that is told; all of it; bytes 1000 to 1099: right, or words of the refusal
RIGHT = [
    *("good", "head403", "head404", "head405", "head500", "headcut", "r206none", "r200part", "r416", "r501"),
    *("rangeignored", "multipart", "tag", "changed", "longtag", "weak", "chain", "toblank", "r416told"),
]
REFUSED = {
    "wrongstart": (ALL, DATA, "another range"),
    "changing": (ALL, DATA, DATA[1000:1100]),
    "chunked": ("does not tell the size", DATA, DATA[1000:1100]),
    "http10": ("does not tell the size", DATA, DATA[1000:1100]),
    "parts": ("does not give the file .it answers 206", "a part where the whole", "another range"),
    "packed": ("sends the file packed", "sends the file packed", "sends the file packed"),
    "page": ("web page", None, None),
    "loop": ("more than 5 times", "more than 5 times", "more than 5 times"),
    "cookies": ("more than 5 times", "more than 5 times", "more than 5 times"),
    "tofile": ("redirects to something", "redirects to something", "redirects to something"),
    "tonode": ("own node", "own node", "own node"),
    "tometadata": ("own node", "own node", "own node"),
    "slowheaders": ("nothing within 4 seconds", "nothing within 4 seconds", "nothing within 4 seconds"),
    "slowbody": (ALL, "too slowly", None),
    "cut": ("closed the connection", "closed the connection", "closed the connection"),
    "notext": ("no proper HTTP", "no proper HTTP", "no proper HTTP"),
    "less": (ALL + 10, "ended too early", DATA[1000:1100]),
    "more": (ALL - 10, None, None),  # what comes behind the end is noticed, or left unread
    "huge": ("does not tell the size", None, None),
    "astronomic": ("does not tell the size|no proper HTTP", None, None),
    "twolengths": ("no proper HTTP", "no proper HTTP", "no proper HTTP"),
    "nothing": ("does not give the file .it answers 204", "answers 204", "answers 204"),
}


@pytest.mark.parametrize("mode", [*RIGHT, *REFUSED])
async def test_an_odd_server(
    store: Store, impatient: Store, web: OddWeb, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "slowbody":
        monkeypatch.setattr(http, "PACE", 1.0)
    if mode == "slowheaders":
        store = impatient
    url = web.url(mode)
    expected = REFUSED.get(mode, (ALL, DATA, DATA[1000:1100]))

    async def size() -> int:
        return (await store.stat(url, caller=ADMIN)).size

    calls = (size(), read(store, url), read(store, url, offset=1000, length=100))
    for got, want in zip([await told(call) for call in calls], expected, strict=True):
        if isinstance(want, str):
            assert isinstance(got, str), got
            assert re.search(want, got), got
            assert str(web.port) not in got, "no address for clients"
        elif want is not None:
            assert got == want, str(got)[:200]


@pytest.mark.parametrize("mode", ["good", "r206none", "r416", "r501", "tag", "weak"])
async def test_the_whole_is_asked_for_without_a_range(store: Store, web: OddWeb, mode: str) -> None:
    web.seen.clear()
    assert await read(store, web.url(mode)) == DATA
    assert web.asked(mode) == ["GET"]


async def test_a_second_look_takes_no_body(web: OddWeb, store: Store) -> None:
    """The size of a large file where HEAD is refused: only what fits into buffers is sent."""
    large = OddWeb(bytes(32 << 20))
    try:
        assert (await store.stat(large.url("head404"), caller=ADMIN)).size == 32 << 20
        assert large.asked("head404") == ["HEAD", "GET"]
    finally:
        large.close()


@pytest.mark.parametrize("mode", ["tag", "changed", "longtag"])
async def test_any_bytes_in_a_header_become_text_that_a_database_takes(store: Store, web: OddWeb, mode: str) -> None:
    version = (await store.stat(web.url(mode), caller=ADMIN)).version
    assert version is not None
    assert version.isascii()
    assert version.isprintable()
    assert len(version) < 1000
    async with store.open(web.url(mode), caller=ADMIN) as reader:
        assert reader.version == version


@pytest.mark.parametrize("mode", ["endlessheaders", "endlessline", "endlessstatus", "endlesshints"])
async def test_headers_without_end_cost_neither_memory_nor_time(impatient: Store, web: OddWeb, mode: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in (impatient.stat(web.url(mode), caller=ADMIN), read(impatient, web.url(mode))):
        begun = time.monotonic()
        assert "no proper HTTP" in str(await told(call))
        assert time.monotonic() - begun < quiet(60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


async def test_servers_by_ipv6(store: Store) -> None:
    server = OddWeb(DATA, host="::1")
    try:
        url = server.url("good")
        async with store.open(url, caller=Caller(older=True)) as reader:
            assert await collect(reader) == DATA
        assert "own node" in str(await told(store.stat(url, caller=ADMIN)))
    finally:
        server.close()


async def test_many_at_once(store: Store, web: OddWeb) -> None:
    modes = ["good", "head404", "r206none", "r416", "weak", "chain"] * 5
    got = await asyncio.gather(*(read(store, web.url(mode), offset=10, length=10) for mode in modes))
    assert set(got) == {DATA[10:20]}
