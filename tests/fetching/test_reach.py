"""Where a URL may lead, for whom, whatever is written: as for external locations, but upstream's lists always count."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fetching.conftest import Make, fetched
from tests.fetching.flawed import Flawed
from tests.servers.names import SPELLINGS, Names
from tests.servers.nginx import Nginx
from tests.servers.odd_web import OddWeb
from tests.servers.place import HOST, private_address
from xloud_image.config import loader
from xloud_image.errors import SourceUnavailable, UrlRefused
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.rules import Rules
from xloud_image.stores.kit import addresses
from xloud_image.stores.kit.filters import UrlFilters

OTHER = private_address()  # counts as public where a test says so


@pytest.fixture(scope="module")
def server() -> Iterator[Nginx]:
    """It listens at both addresses and says at which one it was asked."""
    server = Nginx()
    server._server = (
        f"listen {OTHER}:{server.port}; location = /where {{ return 200 $server_addr; }} "
        "location = /to { return 302 $arg_url; }"
    )
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def other_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.public
    monkeypatch.setattr(addresses, "public", lambda address: str(address) == OTHER or real(address))


async def rest(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


async def where(fetcher: Fetcher, url: str, *, trusted: bool = False) -> str:
    async with fetcher.open(url, trusted=trusted) as resource:
        return b"".join([chunk async for chunk in resource.chunks()]).decode()


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("host", [*SPELLINGS, "169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
async def test_no_spelling_of_this_machine_or_its_link(make: Make, server: Nginx, host: str, trusted: bool) -> None:
    with pytest.raises((UrlRefused, SourceUnavailable)) as caught:
        await where(make(), f"http://{host}:{server.port}/where", trusted=trusted)
    words = "own node|cannot be resolved" if trusted else "no public address"  # not everywhere is each of them a name
    assert re.search(f"{words}|unusual spelling|no http or https", caught.value.message)


async def test_private_addresses_are_for_administrators(make: Make, server: Nginx, names: Names) -> None:
    names.answers["mirror.example"] = [[OTHER]]
    names.answers["both.example"] = [[OTHER, HOST]]
    fetcher = make(lookup=names)
    for host in (OTHER, "mirror.example"):
        url = f"http://{host}:{server.port}/where"
        assert await where(fetcher, url, trusted=True) == OTHER
        with pytest.raises(UrlRefused, match="no public address"):
            await where(fetcher, url)
    for trusted in (True, False):
        with pytest.raises(UrlRefused):
            await where(fetcher, f"http://both.example:{server.port}/where", trusted=trusted)


async def test_names_that_do_not_exist(make: Make) -> None:
    """Told users in the words of those that lead nowhere they may go."""
    with pytest.raises(UrlRefused, match="no public address"):
        await where(make(), "http://no-such-name.invalid/")
    with pytest.raises(SourceUnavailable, match="cannot be resolved"):
        await where(make(retries=0), "http://no-such-name.invalid/", trusted=True)


async def test_a_name_server_that_hangs(make: Make) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(*how: Any) -> Any:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(20)
        return []

    fetcher = make(lookup=hanging, connect=0.3, retries=0)
    with pytest.raises(SourceUnavailable, match="no answer in time"):
        await where(fetcher, "http://hangs.example/")
    gate.set()


async def test_each_redirect_is_looked_at(make: Make, server: Nginx, names: Names, other_is_public: None) -> None:
    names.answers["inside.example"] = [[HOST]]
    names.answers["outside.example"] = [[OTHER]]
    fetcher = make(lookup=names)
    start = f"http://outside.example:{server.port}/to?url="
    assert await where(fetcher, f"{start}http://{OTHER}:{server.port}/where") == OTHER
    for inside in (HOST, "inside.example", "localhost", "[::1]", "0x7f.1", "2130706433", "169.254.169.254"):
        for trusted in (True, False):
            with pytest.raises(UrlRefused):
                await where(fetcher, f"{start}http://{inside}:{server.port}/where", trusted=trusted)
    inner = f"http://{OTHER}:{server.port}/to?url=http://{HOST}:{server.port}/where"
    with pytest.raises(UrlRefused, match="no public address"):
        await where(fetcher, f"{start}{inner}")


async def test_a_name_that_means_something_else_when_it_is_asked_again(
    make: Make, names: Names, other_is_public: None
) -> None:
    """DNS rebinding: the address that was looked at is the one connected to, with each connection of a fetch."""
    flawed = Flawed(bytes(3_000_000))
    flawed.how = lambda number, span: "hang" if number > 3 else ""
    url = flawed.url.replace(OTHER, "rebind.example")
    names.answers["rebind.example"] = [[OTHER], [HOST]]
    fetcher = make(lookup=names, silence=2.0, retries=3)
    try:
        async with fetcher.open(url, trusted=False) as resource:
            assert names.asked == ["rebind.example"]
            chunks = resource.chunks()
            await anext(chunks)
            connector = fetcher._guarded._webs[addresses.Reach.PUBLIC].session.connector
            connector.clear_dns_cache()  # type: ignore[union-attr]
            with pytest.raises(UrlRefused, match="no public address"):
                await rest(chunks)
        assert len(names.asked) > 1
    finally:
        flawed.close()


# the operator's lists


def test_upstreams_lists_count_although_none_is_set(make: Make, tmp_path: Path) -> None:
    """The defaults of [import_filtering_opts]; for locations they count once one list is set."""
    file = tmp_path / "glance-api.conf"
    file.write_text("[DEFAULT]\nenabled_backends = a:file\n[glance_store]\ndefault_backend = a\n")
    fetcher = make(Rules(loader.load([file], {}).settings.url_filters))
    for url in ("http://images.example/x", "https://images.example/x", "http://images.example:443/x"):
        fetcher.require(url, trusted=False)
    for url in ("http://images.example:8080/x", "https://images.example:22/x"):
        with pytest.raises(UrlRefused, match="port of the URL"):
            fetcher.require(url, trusted=True)


def test_addresses_in_a_url_are_refused_at_once(make: Make) -> None:
    for host, trusted in (
        ("127.0.0.1", True),
        ("[::1]", True),
        ("0x7f.1", True),
        ("10.0.0.1", False),
        ("017.1", False),
    ):
        with pytest.raises(UrlRefused):
            make().require(f"http://{host}/x", trusted=trusted)
    make().require("http://10.0.0.1/x", trusted=True)


@pytest.mark.parametrize(
    ("lists", "right", "wrong"),
    [
        ({"allowed_schemes": ("https",), "disallowed_schemes": ("https",)}, "https://a/x", "http://a/x"),
        ({"allowed_hosts": ("a.example",), "disallowed_hosts": ("a.example",)}, "http://a.example/x", "http://b/x"),
        ({"disallowed_hosts": ("8.8.8.8",)}, "http://8.8.4.4/x", "http://[::ffff:808:808]/x"),
        ({"allowed_ports": (8080,), "disallowed_ports": (8080,)}, "http://a:8080/x", "http://a/x"),
        ({"disallowed_ports": (8080,)}, "http://a/x", "http://a:8080/x"),
    ],
)
def test_a_list_of_what_is_allowed_beats_the_other(make: Make, lists: dict[str, Any], right: str, wrong: str) -> None:
    fetcher = make(Rules(UrlFilters(chosen=True, **lists)))
    fetcher.require(right, trusted=False)
    with pytest.raises(UrlRefused, match="not among those that are allowed"):
        fetcher.require(wrong, trusted=False)


async def test_redirects_are_looked_at_by_the_lists(make: Make, server: Nginx) -> None:
    fetcher = make(Rules(UrlFilters(chosen=True, allowed_hosts=(OTHER,))))
    start = f"http://{OTHER}:{server.port}/to?url="
    assert await where(fetcher, f"{start}http://{OTHER}:{server.port}/where") == OTHER
    with pytest.raises(UrlRefused, match="host of the URL"):
        await where(fetcher, f"{start}http://localhost:{server.port}/where")


async def test_networks_that_the_operator_lists_are_for_everybody(make: Make, server: Nginx) -> None:
    fetcher = make(Rules(UrlFilters(networks=("127.0.0.0/8",))))
    assert await where(fetcher, f"http://{HOST}:{server.port}/where") == HOST
    with pytest.raises(UrlRefused):
        await where(fetcher, f"http://{OTHER}:{server.port}/where")


async def test_answers_of_many_at_once(make: Make, server: Nginx) -> None:
    fetcher = make()
    found = await asyncio.gather(*(fetched(fetcher, f"http://{OTHER}:{server.port}/where") for _ in range(20)))
    assert set(found) == {OTHER.encode()}


async def test_servers_by_ipv6(make: Make) -> None:
    server = OddWeb(b"by IPv6", host="::1")
    try:
        fetcher = make(Rules(UrlFilters(networks=("::1/128",))))
        assert await where(fetcher, server.url("good")) == "by IPv6"
        with pytest.raises(UrlRefused, match="own node"):
            await where(make(), server.url("good"), trusted=True)
    finally:
        server.close()
