"""Which addresses strangers can make the http store reach: none but public ones, whatever they write."""

import ipaddress
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from yarl import URL

from tests.servers.names import SPELLINGS, Names
from tests.servers.nginx import Nginx
from tests.servers.place import HOST, private_address
from xloud_image.errors import BadRequest, StoreUnavailable
from xloud_image.stores.base import Caller
from xloud_image.stores.http.store import HttpStore
from xloud_image.stores.kit import addresses, answers
from xloud_image.stores.kit.filters import UrlFilters
from xloud_image.stores.suite import collect

STRANGER = Caller(trusted=False)
ADMIN = Caller(trusted=True)
OLDER = Caller(trusted=True, older=True)
OTHER = private_address()  # counts as public where a test says so


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
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
async def store(names: Names) -> AsyncIterator[HttpStore]:
    options = {option.dest: option.default for option in HttpStore.TYPE.options}
    made = HttpStore("web", options, connect=2, idle=2, lookup=names)
    yield made
    await made.aclose()


@pytest.fixture
def other_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.public
    monkeypatch.setattr(addresses, "public", lambda address: str(address) == OTHER or real(address))


async def where(store: HttpStore, url: str, caller: Caller | None = STRANGER) -> str:
    async with store.open(url, caller=caller) as reader:
        return (await collect(reader)).decode()


@pytest.mark.parametrize(
    "address",
    """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1
    203.0.113.1 168.63.129.16 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::8.8.8.8
    2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe::1 2001::1 2001:0:53aa:64c:0:0:80ff:fffe 2001:db8::1 3fff::1
    2001:4860::5efe:7f00:1 2001:4860::200:5efe:a00:1
    100::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%1 fec0::1 ff02::1 ff0e::1 4000::1 e000::1
    """.split(),
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not addresses.public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.0.1 169.255.0.1
    172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.0.1 198.20.0.1 223.255.255.255
    2001:4860:4860::8888 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
    2001:4860::5efe:808:808
    """.split(),
)
def test_addresses_that_are_public(address: str) -> None:
    assert addresses.public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_of_this_machine_is_reached(
    store: HttpStore, server: Nginx, names: Names, scheme: str, host: str
) -> None:
    """Told from an address where nobody listens by nothing: the answer is the same and no connection is made."""
    url = f"{scheme}://{host}:{server.port}/where"
    if not store.owns(url):
        return
    for call in (store.stat(url, caller=STRANGER), where(store, url)):
        with pytest.raises(BadRequest, match=r"public address|unusual spelling"):
            await call


@pytest.mark.parametrize(
    "found", [[HOST], ["8.8.8.8", HOST], [HOST, OTHER], ["::1"], ["::ffff:127.0.0.1"], []], ids=str
)
async def test_every_address_of_a_name_has_to_be_public(
    store: HttpStore, server: Nginx, names: Names, other_is_public: None, found: list[str]
) -> None:
    names.answers["images.example"] = [found]
    with pytest.raises(BadRequest, match="no public address"):
        await where(store, f"http://images.example:{server.port}/where")


async def test_what_does_not_exist_is_refused_in_the_same_words(store: HttpStore, names: Names) -> None:
    said = set()
    for host in ("localhost", "no-such-name.invalid", HOST):
        with pytest.raises(BadRequest) as caught:
            await store.stat(f"http://{host}/", caller=STRANGER)
        said.add(caught.value.message)
    assert len(said) == 1
    with pytest.raises(StoreUnavailable, match="cannot be resolved"):
        await store.stat("http://no-such-name.invalid/")


async def test_the_address_that_was_checked_is_the_one_connected_to(
    store: HttpStore, server: Nginx, names: Names, other_is_public: None
) -> None:
    """The name means something else whenever it is asked again (DNS rebinding)."""
    url = f"http://rebind.example:{server.port}/where"
    names.answers["rebind.example"] = [[OTHER], [HOST]]
    assert await where(store, url) == OTHER
    assert names.asked == ["rebind.example"], "asked once for one request"
    store._guarded._webs[addresses.Reach.PUBLIC].session.connector.clear_dns_cache()  # type: ignore[union-attr]
    for _ in range(2):
        with pytest.raises(BadRequest, match="no public address"):
            await where(store, url)
    assert set(names.asked) == {"rebind.example"}


async def test_each_redirect_is_looked_at(store: HttpStore, server: Nginx, names: Names, other_is_public: None) -> None:
    names.answers["inside.example"] = [[HOST]]
    names.answers["outside.example"] = [[OTHER]]
    start = f"http://outside.example:{server.port}/to?url="
    assert await where(store, f"{start}http://{OTHER}:{server.port}/where") == OTHER
    for inside in (HOST, "inside.example", "localhost", "[::1]", "0x7f.1", "2130706433"):
        with pytest.raises(BadRequest):
            await where(store, f"{start}http://{inside}:{server.port}/where")
    inner = f"http://{OTHER}:{server.port}/to?url=http://{HOST}:{server.port}/where"
    with pytest.raises(BadRequest, match="no public address"):
        await where(store, f"{start}{inner}")


@pytest.mark.parametrize("caller", [None, OLDER], ids=["nobody", "of an older row"])
async def test_older_rows_are_read_wherever_they_lead(
    store: HttpStore, server: Nginx, names: Names, caller: Caller | None
) -> None:
    names.answers["inside.example"] = [[HOST]]
    for host in (HOST, "localhost", "inside.example", OTHER):
        assert await where(store, f"http://{host}:{server.port}/where", caller) == (OTHER if host == OTHER else HOST)
    with pytest.raises(BadRequest, match="no public address"):
        await where(store, f"http://inside.example:{server.port}/where")


async def test_redirects_of_older_rows_lead_to_no_place_of_this_node(
    store: HttpStore, server: Nginx, names: Names
) -> None:
    """The row names a server, and that one may send elsewhere on itself; nobody else chooses what this node asks."""
    names.answers["inside.example"] = [[HOST]]
    same = f"http://{HOST}:{server.port}"
    assert await where(store, f"{same}/to?url={same}/where", OLDER) == HOST
    assert await where(store, f"{same}/to?url=http://{OTHER}:{server.port}/where", OLDER) == OTHER
    for host in (HOST, "localhost", "inside.example", "[::1]", "169.254.169.254", f"[64:ff9b::{HOST}]"):
        with pytest.raises(BadRequest, match="own node"):
            await where(store, f"http://{OTHER}:{server.port}/to?url=http://{host}:{server.port}/where", OLDER)
    back = f"http://{OTHER}:{server.port}/to?url={same}/where"
    with pytest.raises(BadRequest, match="own node"):  # there and back: what is asked was chosen elsewhere
        await where(store, f"{same}/to?url={back}", OLDER)


async def test_redirects_of_older_rows_are_looked_at_by_the_lists(server: Nginx, names: Names) -> None:
    names.answers["inside.example"] = [[HOST]]
    start = f"http://{OTHER}:{server.port}/to?url="
    for lists, reached, refused in (
        ({"networks": ("127.0.0.0/8",)}, (HOST, "inside.example"), ()),
        ({"chosen": True, "allowed_hosts": (HOST,)}, (HOST,), ("inside.example",)),
        ({"chosen": True, "disallowed_hosts": (HOST,), "networks": ("127.0.0.0/8",)}, (), (HOST, "inside.example")),
        ({"chosen": True, "allowed_ports": (80, 443)}, (), ("mirror.example",)),
    ):
        store = filtered(names, **lists)  # type: ignore[arg-type]
        try:
            for host in reached:
                assert await where(store, f"{start}http://{host}:{server.port}/where", OLDER) == HOST
            for host in refused:
                with pytest.raises(BadRequest):
                    await where(store, f"{start}http://{host}:{server.port}/where", OLDER)
        finally:
            await store.aclose()


async def test_administrators_reach_private_addresses_and_never_this_node(
    store: HttpStore, server: Nginx, names: Names
) -> None:
    names.answers["mirror.example"] = [[OTHER]]
    names.answers["inside.example"] = [[HOST]]
    names.answers["both.example"] = [[OTHER, HOST]]
    for host in (OTHER, "mirror.example"):
        assert await where(store, f"http://{host}:{server.port}/where", ADMIN) == OTHER
    for host in (HOST, "localhost", "inside.example", "both.example", "169.254.169.254", "[fe80::1]", "[::1]", "0"):
        for start in ("", f"http://{OTHER}:{server.port}/to?url="):
            with pytest.raises(BadRequest, match=r"own node|unusual spelling"):
                await where(store, f"{start}http://{host}:{server.port}/where", ADMIN)


@pytest.mark.parametrize(
    "address",
    """
    0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 169.254.169.254 224.0.0.1 240.0.0.1 255.255.255.255 100.100.100.200
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::127.0.0.1 2002:7f00:1::
    2001:4860::5efe:7f00:1 fe80::1 fe80::1%1 ff02::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 192.0.0.192 168.63.129.16
    fd00:42::42 ::ffff:0:127.0.0.1 64:ff9b:1::7f00:1 64:ff9b:1:7f00:0:100:: 64:ff9b:1:0:7f:0:100:0 64:ff9b::a83f:8110
    2001:0:53aa:64c:0:0:80ff:fffe 2001:0:7f00:1::1
    """.split(),
)
def test_addresses_of_this_node_and_its_link(address: str) -> None:
    assert addresses.inner(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    """
    10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 fc00::1 ::ffff:10.0.0.1 64:ff9b::a00:5 2002:a00:5:: 64:ff9b:1::a00:5
    """.split(),
)
def test_private_addresses(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert not addresses.inner(found)
    assert not addresses.public(found)


EMBEDDED = """
    10.0.0.5 ::ffff:10.0.0.5 ::10.0.0.5 ::ffff:0:10.0.0.5 64:ff9b::a00:5 64:ff9b:1::a00:5 64:ff9b:1:a00:0:500::
    64:ff9b:1:0:a:0:500:0 2002:a00:5:: 2002:a00:5::1 2001:0:a00:5:0:0:f5ff:ff00 2001:0:53aa:64c:0:0:f5ff:fffa
    2001:4860::5efe:a00:5
""".split()


@pytest.mark.parametrize("written", ["10.0.0.5", "64:ff9b::a00:5", "[::ffff:10.0.0.5]"])
@pytest.mark.parametrize("reached", EMBEDDED)
def test_a_host_that_is_refused_is_refused_in_any_form(written: str, reached: str) -> None:
    address = ipaddress.ip_address(reached)
    refusing = addresses.Filters(UrlFilters(chosen=True, disallowed_hosts=(written,)))
    for reach in (addresses.Reach.PUBLIC, addresses.Reach.PRIVATE):
        assert not refusing.permits("any.example", address, reach)
    assert addresses.Filters(UrlFilters(chosen=True)).permits("any.example", address, addresses.Reach.PRIVATE)


def test_a_network_that_is_listed_is_reached_in_the_forms_that_mean_it() -> None:
    filters = addresses.Filters(UrlFilters(networks=("10.0.0.0/24",)))
    reached = [one for one in EMBEDDED if filters.permits("x", ipaddress.ip_address(one), addresses.Reach.PUBLIC)]
    assert {"10.0.0.5", "::ffff:10.0.0.5", "64:ff9b::a00:5", "2002:a00:5::"} <= set(reached)
    assert not {"2001:0:a00:5:0:0:f5ff:ff00", "2001:0:53aa:64c:0:0:f5ff:fffa", "2001:4860::5efe:a00:5"} & set(reached)


def test_an_address_of_this_nodes_own_interfaces_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever address it is: what the node asks itself passes no firewall. Administrators reach it."""
    ours, others = ipaddress.ip_address(OTHER), ipaddress.ip_address("8.8.8.8")
    assert addresses.own(ours)
    assert addresses.own(ipaddress.ip_address(HOST))
    assert not addresses.own(others)
    monkeypatch.setattr(addresses, "own", lambda address: address == others)
    filters = addresses.Filters(UrlFilters())
    for address in (others, ipaddress.ip_address("64:ff9b::808:808")):
        assert not filters.permits("x", address, addresses.Reach.PUBLIC)
        assert filters.permits("x", address, addresses.Reach.PRIVATE)


def filtered(names: Names, **lists: Any) -> HttpStore:
    options = {option.dest: option.default for option in HttpStore.TYPE.options}
    return HttpStore("web", {**options, "url_filters": UrlFilters(**lists)}, connect=2, idle=2, lookup=names)


async def test_what_the_operator_lists_is_reached_by_everybody(server: Nginx, names: Names) -> None:
    """Loopback too, and nothing else is opened with it."""
    names.answers["inside.example"] = [[HOST]]
    names.answers["other.example"] = [[HOST]]
    for lists, reached, refused in (
        ({"networks": ("127.0.0.0/8",)}, (HOST, "inside.example"), (OTHER, "[::1]", "169.254.169.254")),
        ({"networks": (f"{OTHER}/32",)}, (OTHER,), (HOST, "inside.example", "169.254.169.254")),
        ({"chosen": True, "allowed_hosts": (HOST,)}, (HOST,), ("inside.example", "169.254.169.254")),
        ({"chosen": True, "allowed_hosts": ("inside.example.",)}, ("inside.example",), ("other.example", HOST)),
        ({"chosen": True}, (OTHER,), (HOST, "inside.example", "169.254.169.254")),
        ({"chosen": True, "disallowed_hosts": (OTHER,)}, (), (OTHER, HOST)),
    ):
        store = filtered(names, **lists)  # type: ignore[arg-type]
        try:
            for host in reached:
                assert await where(store, f"http://{host}:{server.port}/where")
            for host in refused:
                with pytest.raises(BadRequest):
                    await where(store, f"http://{host}:{server.port}/where")
        finally:
            await store.aclose()


async def test_a_host_that_is_refused_is_refused_under_any_name(server: Nginx, names: Names) -> None:
    names.answers["alias.example"] = [[OTHER]]
    store = filtered(names, chosen=True, disallowed_hosts=(OTHER,))
    try:
        for host in (OTHER, "alias.example", f"[::ffff:{OTHER}]"):
            with pytest.raises(BadRequest):
                await where(store, f"http://{host}:{server.port}/where", ADMIN)
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("lists", "url", "right"),
    [
        ({}, "http://any.example:1234/x", True),
        ({"allowed_schemes": ("https",)}, "http://any.example/x", False),
        ({"allowed_schemes": ("https",), "disallowed_schemes": ("https",)}, "https://any.example/x", True),
        ({"disallowed_schemes": ("http",)}, "http://any.example/x", False),
        ({"allowed_hosts": ("a.example",)}, "http://A.EXAMPLE./x", True),
        ({"allowed_hosts": ("a.example",)}, "http://b.a.example/x", False),
        ({"disallowed_hosts": ("127.0.0.1",)}, "http://127.0.0.1:27599/x", False),
        ({"disallowed_hosts": ("127.0.0.1",)}, "http://[::ffff:7f00:1]/x", False),
        ({"disallowed_hosts": ("[::1]",)}, "http://[0:0:0:0:0:0:0:1]/x", False),
        ({"disallowed_hosts": ("a.example",)}, "http://b.example/x", True),
        ({"allowed_ports": (80, 443)}, "http://any.example/x", True),
        ({"allowed_ports": (80, 443)}, "https://any.example/x", True),
        ({"allowed_ports": (80, 443)}, "http://any.example:8080/x", False),
        ({"allowed_ports": (8080,)}, "http://any.example/x", False),
        ({"disallowed_ports": (8080,)}, "http://any.example:8080/x", False),
    ],
    ids=str,
)
def test_the_lists_of_the_operator(lists: dict[str, Any], url: str, right: bool) -> None:
    filters = addresses.Filters(UrlFilters(chosen=True, **lists))
    parsed = answers.parsed(url)
    assert parsed is not None
    if right:
        filters.require(parsed)
    else:
        with pytest.raises(BadRequest, match="not among those that are allowed"):
            filters.require(parsed)


async def test_each_redirect_is_looked_at_by_the_lists(server: Nginx, names: Names) -> None:
    store = filtered(names, chosen=True, allowed_hosts=(OTHER,))
    try:
        start = f"http://{OTHER}:{server.port}/to?url="
        assert await where(store, f"{start}http://{OTHER}:{server.port}/where", ADMIN) == OTHER
        with pytest.raises(BadRequest, match="host of the URL"):
            await where(store, f"{start}http://localhost:{server.port}/where", ADMIN)
    finally:
        await store.aclose()


async def test_a_name_server_that_hangs_holds_up_its_asker_only(server: Nginx) -> None:

    gate = threading.Event()

    def hanging(host: str, *how: Any) -> Any:
        gate.wait(20)
        return []

    options = {option.dest: option.default for option in HttpStore.TYPE.options}
    store = HttpStore("web", options, connect=0.5, lookup=hanging)
    try:
        with pytest.raises(StoreUnavailable):
            await store.stat("http://hangs.example/", caller=STRANGER)
        assert await where(store, f"http://{HOST}:{server.port}/where", None) == HOST
    finally:
        gate.set()
        await store.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://" + "ü." * 32700,
        "http://" + "ü" * 260,
        "http://login@" + "ü." * 200 + "/path",
        "HTTPS://" + "a" * 65000,
        "http://" + "ü" * 65000 + "@example.com/",
        "http://example.com/" + "a" * 8192,
    ],
    ids=["labels", "a label", "behind a login", "ASCII", "a login", "a path"],
)
def test_what_is_too_long_is_no_url_at_once(url: str) -> None:
    """Names of other scripts become ASCII in a time that a stranger must not choose."""
    begun = time.process_time()
    for _ in range(100):
        assert answers.parsed(url) is None
        with pytest.raises(BadRequest):
            answers.next_url(URL("http://example.com/"), {"Location": url}, downgrade=True)
    assert time.process_time() - begun < 0.5


def test_long_urls_are_taken() -> None:
    """Signed ones have some hundreds of characters; slashes in a path begin no host."""
    assert answers.parsed("https://example.com/a//" + "b" * 4000 + "?signature=" + "c" * 2000) is not None
    target = answers.next_url(URL("http://example.com/"), {"Location": "/a//" + "b" * 4000}, downgrade=True)
    assert target.host == "example.com"
