"""Files of real servers, whole and in parts."""

import asyncio
import http.server
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from tests.fetching.conftest import DATA, Make, fetched
from tests.servers.certificates import Authority, authority
from tests.servers.nginx import Nginx
from tests.servers.place import free_port, private_address
from xloud_image.errors import (
    BadRange,
    ImageServiceError,
    SourceChanged,
    SourceRefused,
    SourceUnavailable,
    TooLarge,
    Unsupported,
    UrlRefused,
)
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.rules import Rules


@pytest.fixture(scope="module")
def simple(folder: Path) -> Iterator[str]:
    """`python -m http.server`: no ranges, no ETag, HTTP/1.0."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer((private_address(), 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://{private_address()}:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("place", "ranges", "validator"),
    [
        ("", True, '"'),
        ("no-tag/", True, f"; {len(DATA)} bytes"),
        ("no-ranges/", False, '"'),
        ("bare/", False, None),
        ("to?url=/", True, '"'),
    ],
)
async def test_nginx(fetcher: Fetcher, nginx: Nginx, place: str, ranges: bool, validator: str | None) -> None:
    async with fetcher.open(f"{nginx.url}/{place}file", trusted=True) as resource:
        assert (resource.size, resource.ranges) == (len(DATA), ranges)
        assert resource.validator is None if validator is None else validator in str(resource.validator)
        assert b"".join([chunk async for chunk in resource.chunks()]) == DATA
        assert b"".join([chunk async for chunk in resource.chunks()]) == DATA, "again"


async def test_pythons_own_server(fetcher: Fetcher, simple: str) -> None:
    async with fetcher.open(f"{simple}/file", trusted=True) as resource:
        assert (resource.size, resource.ranges) == (len(DATA), False)
        assert resource.validator is not None
        assert b"".join([chunk async for chunk in resource.chunks()]) == DATA
        with pytest.raises(Unsupported):
            await resource.read(0, 10)
        with pytest.raises(SourceChanged):
            await anext(resource.chunks(1000, resource.validator))


async def test_aiohttps_server(fetcher: Fetcher, folder: Path) -> None:
    """It looks at `If-Range`."""
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, private_address(), port).start()
    try:
        async with fetcher.open(f"http://{private_address()}:{port}/file", trusted=True) as resource:
            assert resource.ranges
            assert b"".join([chunk async for chunk in resource.chunks()]) == DATA
            assert await resource.read(1_000_000, 500_000) == DATA[1_000_000:1_500_000]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("place", ["empty", "no-ranges/empty"])
async def test_an_empty_file(fetcher: Fetcher, nginx: Nginx, place: str) -> None:
    async with fetcher.open(f"{nginx.url}/{place}", trusted=True) as resource:
        assert resource.size == 0
        assert [chunk async for chunk in resource.chunks()] == []


@pytest.mark.parametrize("size", [1, 2, 256 << 10, (256 << 10) + 1, 512 << 10])
async def test_sizes_around_a_window(fetcher: Fetcher, nginx: Nginx, folder: Path, size: int) -> None:
    (folder / "sized").write_bytes(DATA[:size])
    assert await fetched(fetcher, f"{nginx.url}/sized") == DATA[:size]


@pytest.mark.parametrize("connections", [1, 2, 7])
async def test_any_number_of_connections(make: Make, nginx: Nginx, connections: int) -> None:
    assert await fetched(make(connections=connections), f"{nginx.url}/file") == DATA


async def test_in_any_order(fetcher: Fetcher, nginx: Nginx) -> None:
    async with fetcher.open(f"{nginx.url}/file", trusted=True) as resource:
        places = [(0, 1), (2_999_000, 1000), (5, 1_000_000), (1_500_000, 0), (len(DATA) - 1, 1), (100, 10)] * 3
        found = await asyncio.gather(*(resource.read(at, length) for at, length in places))
        assert found == [DATA[at : at + length] for at, length in places]
        assert await resource.read(len(DATA) - 5, 100) == DATA[-5:], "fewer at the end"
        assert await resource.read(len(DATA), 100) == b""
        for wrong in ((len(DATA) + 1, 1), (-1, 1), (0, -1)):
            with pytest.raises(BadRange):
                await resource.read(*wrong)


async def test_gone_on_with_by_another_process(make: Make, nginx: Nginx) -> None:
    async with make().open(f"{nginx.url}/file", trusted=True) as resource:
        noted = resource.validator
    async with make().open(f"{nginx.url}/file", trusted=True) as resource:
        assert b"".join([chunk async for chunk in resource.chunks(1_234_567, noted)]) == DATA[1_234_567:]
        assert [chunk async for chunk in resource.chunks(len(DATA), noted)] == []
        for other in ('"another"', None):
            with pytest.raises(SourceChanged, match="begin anew"):
                await anext(resource.chunks(1000, other))
        with pytest.raises(BadRange):
            await anext(resource.chunks(len(DATA) + 1, noted))


async def gather(chunks: AsyncIterator[bytes], into: list[bytes]) -> None:
    while True:
        into.append(await anext(chunks))


async def test_a_file_that_was_replaced_is_noticed(fetcher: Fetcher, nginx: Nginx, folder: Path) -> None:
    (folder / "replaced").write_bytes(DATA)
    async with fetcher.open(f"{nginx.url}/replaced", trusted=True) as resource:
        chunks = resource.chunks()
        got = [await anext(chunks)]
        (folder / "new").write_bytes(DATA[::-1])
        os.utime(folder / "new", (1_700_000_000, 1_700_000_000))  # nginx tells files apart by second and size
        (folder / "new").rename(folder / "replaced")
        with pytest.raises(SourceChanged):
            await gather(chunks, got)
        assert DATA.startswith(b"".join(got)), "no byte of the other one"
        with pytest.raises(SourceChanged):
            await resource.read(0, 100)


async def test_a_server_that_is_left_early_is_left_at_once(fetcher: Fetcher, nginx: Nginx) -> None:
    before = asyncio.all_tasks()
    async with fetcher.open(f"{nginx.url}/file", trusted=True) as resource:
        chunks = resource.chunks()
        await anext(chunks)
        assert asyncio.all_tasks() != before
    assert asyncio.all_tasks() == before


# what is refused


@pytest.mark.parametrize("status", [204, 401, 403, 404, 410])
async def test_a_refusal_is_told_at_once(fetcher: Fetcher, nginx: Nginx, status: int) -> None:
    with pytest.raises(SourceRefused, match=f"it answers {status}") as caught:
        await fetched(fetcher, f"{nginx.url}/{status}")
    assert (caught.value.answered, caught.value.temporary, caught.value.status) == (status, False, 502)
    assert str(nginx.port) not in caught.value.message


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_ill_server_is_asked_again(make: Make, nginx: Nginx, status: int) -> None:
    with pytest.raises(SourceUnavailable, match=f"it answers {status}") as caught:
        await fetched(make(retries=2), f"{nginx.url}/{status}")
    assert (caught.value.answered, caught.value.temporary, caught.value.status) == (status, True, 503)


async def test_nobody_listens(make: Make) -> None:
    with pytest.raises(SourceUnavailable, match="connection refused"):
        await fetched(make(retries=1), f"http://{private_address()}:{free_port()}/x")


@pytest.mark.parametrize("place", ["file", "no-ranges/file"])
async def test_too_large_is_told_before_a_byte(make: Make, nginx: Nginx, place: str) -> None:
    url = f"{nginx.url}/{place}"
    with pytest.raises(TooLarge, match=f"has {len(DATA)} bytes, {len(DATA) - 1} are allowed"):
        async with make(size=len(DATA) - 1).open(url, trusted=True):
            pytest.fail("opened")
    assert await fetched(make(size=len(DATA)), url) == DATA
    with pytest.raises(TooLarge):
        await fetched(make(), url, most=1000)


async def test_five_redirects_and_no_more(fetcher: Fetcher, nginx: Nginx) -> None:
    assert await fetched(fetcher, f"{nginx.url}/down-5") == DATA
    with pytest.raises(UrlRefused, match="more than 5 times"):
        await fetched(fetcher, f"{nginx.url}/down-6")


async def test_headers_for_a_server_are_not_for_where_it_leads(fetcher: Fetcher, nginx: Nginx) -> None:
    secret = {"Authorization": "secret"}
    assert await fetched(fetcher, f"{nginx.url}/to?url=/login", headers=secret) == b"secret"

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"secret" in await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {nginx.url}/login\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(elsewhere, private_address(), 0)
    async with server:
        url = f"http://{private_address()}:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(SourceRefused, match="401"):
            await fetched(fetcher, url, headers=secret)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://example.org/x", "", "http://[::1", "gopher://h/"])
async def test_redirects_to_no_web_server(fetcher: Fetcher, nginx: Nginx, place: str) -> None:
    with pytest.raises(UrlRefused, match="redirects to something"):
        await fetched(fetcher, f"{nginx.url}/to?url={place}")


@pytest.mark.parametrize("url", ["", "x", "file:///etc/passwd", "ftp://h/x", "http://", "http://h:0/", "http://h/\n"])
async def test_what_is_no_url(fetcher: Fetcher, url: str) -> None:
    for trusted in (True, False):
        with pytest.raises(UrlRefused):
            fetcher.require(url, trusted=trusted)
        with pytest.raises(UrlRefused):
            async with fetcher.open(url, trusted=trusted):
                pytest.fail("opened")


async def test_a_login_is_used_and_told_nobody(
    fetcher: Fetcher, nginx: Nginx, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login = nginx.url.replace("://", "://me:hunter2@")
    assert await fetched(fetcher, f"{login}/login") == b"Basic bWU6aHVudGVyMg=="
    said = []
    for place in ("404", "503", f"to?url=http://localhost:{nginx.port}/", "to?url=ftp://x/"):
        with pytest.raises(ImageServiceError) as caught:
            await fetched(fetcher, f"{login}/{place}")
        said.append(f"{caught.value!r} {caught.value.__cause__!r}")
    assert "hunter2" not in caplog.text + "".join(said)


async def test_tls_is_verified(make: Make, folder: Path) -> None:
    certificate = authority().issue(private_address())
    server = Nginx(files=folder, certificate=tuple(certificate), server=PLAIN, host=private_address())
    try:
        server.start()
        url = f"{server.url}/file"
        assert await fetched(make(Rules(ca_file=str(authority().ca))), url) == DATA
        assert await fetched(make(Rules(insecure=True)), url) == DATA
        for rules in (Rules(), Rules(insecure=True, ca_file=str(Authority("another").ca))):
            with pytest.raises(SourceRefused, match="certificate is not trusted"):
                await fetched(make(rules), url)
        with pytest.raises(UrlRefused, match="from https to http"):
            await fetched(make(Rules(ca_file=str(authority().ca))), f"{server.url}/to?url=http://example.org/x")
    finally:
        server.close()


PLAIN = "location /to { return 302 $arg_url; }"


async def test_a_proxy(make: Make, nginx: Nginx) -> None:
    """nginx as a forward proxy, for whom names mean what they do there."""
    proxy = Nginx(server=f"location / {{ proxy_pass http://{nginx.host}:{nginx.port}$request_uri; }}")
    try:
        proxy.start()
        fetcher = make(Rules(proxies={"http": f"{proxy.host}:{proxy.port}"}))
        async with fetcher.open("http://images.invalid/file", trusted=False) as resource:
            assert b"".join([chunk async for chunk in resource.chunks()]) == DATA
        with pytest.raises(UrlRefused):
            await fetched(fetcher, "http://127.0.0.1/file")
        tunnel = make(Rules(proxies={"https": f"{proxy.host}:{proxy.port}"}), retries=0)
        with pytest.raises(SourceUnavailable, match=r"the proxy does not lead there .it answers 4"):
            await fetched(tunnel, "https://images.invalid/file")
    finally:
        proxy.close()
