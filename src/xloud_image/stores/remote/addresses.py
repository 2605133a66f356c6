"""Which addresses a URL may lead to, and a resolver that gives no others. No request is made here.

A name is resolved once; every address that it has must be allowed, and the connection goes to one of these very
addresses. What a second look-up would answer cannot matter.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from xloud_image.config.store_options import UrlFilters
from xloud_image.errors import BadRequest
from xloud_image.stores.threads import Threads

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# of socket.getaddrinfo: (family, type, protocol, name, (address, port, …)) for each
Lookup = Callable[..., Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]]

_THREADS: Final = 8  # look-ups at once; one that hangs holds up no other part of the service
_NUMBER: Final = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")  # as a last label it makes an IPv4 address of any spelling

_GLOBAL6: Final = ipaddress.IPv6Network("2000::/3")
# the IPv4 address that a packet to such an address ends at, by its place in the 128 bits
_EMBEDDED: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::/96"), 0),  # compatible
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 within a network
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
# in addition to what the library of this Python knows as not global
_CLOSED: Final[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]] = (
    ipaddress.IPv4Network("0.0.0.0/8"),
    ipaddress.IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    ipaddress.IPv4Network("169.254.0.0/16"),  # link-local; metadata of instances
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv4Network("198.18.0.0/15"),
    ipaddress.IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("2001::/23"),  # Teredo and other protocols
    ipaddress.IPv6Network("2001:db8::/32"),
    ipaddress.IPv6Network("3fff::/20"),
)


def public(address: Address) -> bool:
    """Whether anybody on the internet could reach it: global unicast, also of the IPv4 address within an IPv6 one."""
    if any(address in network for network in _CLOSED if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        for network, shift in _EMBEDDED:
            if address in network:
                return public(ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF))
        if address.scope_id is not None or address not in _GLOBAL6:
            return False
        if int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE:  # ISATAP: an IPv4 address in the last bits
            return public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)) and address.is_global
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


_INNER: Final = (
    ipaddress.IPv4Network("0.0.0.0/8"),
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv4Network("169.254.0.0/16"),
    ipaddress.IPv4Network("224.0.0.0/3"),
    ipaddress.IPv6Network("::/128"),
    ipaddress.IPv6Network("::1/128"),
    ipaddress.IPv6Network("fe80::/10"),
    ipaddress.IPv6Network("ff00::/8"),
    # where clouds put the metadata of instances beside the link-local address
    ipaddress.IPv4Network("100.100.100.200/32"),
    ipaddress.IPv6Network("fd00:ec2::254/128"),
)


def inner(address: Address) -> bool:
    """Whether it leads to this node itself or stays on its link: loopback, link-local, multicast, metadata services."""
    if any(address in network for network in _INNER if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return True
        if int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE:
            return inner(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        for network, shift in _EMBEDDED:
            if address in network:
                return inner(ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    return False


class Reach(enum.Enum):
    """How far a URL may lead. What the operator lists by name or network is within every reach."""

    PUBLIC = "public"  # addresses that anybody on the internet reaches
    PRIVATE = "private"  # also those of private networks; not this node and its link
    ANY = "any"  # rows that were there before this service, and proxies that the operator named


class Filters:
    """What the operator said about URLs: `UrlFilters` made fit for comparing."""

    def __init__(self, given: UrlFilters) -> None:
        self.given = given
        self._networks = [ipaddress.ip_network(one) for one in given.networks]
        self._allowed = {_host(one) for one in given.allowed_hosts}
        self._disallowed = {_host(one) for one in given.disallowed_hosts}

    def require(self, url: URL) -> None:
        """`BadRequest` when the operator's lists refuse the scheme, host or port of a URL."""
        given = self.given
        if not given.chosen:
            return
        for what, value, allowed, refused in (
            ("scheme", url.scheme, given.allowed_schemes, given.disallowed_schemes),
            ("host", _host(url.raw_host or ""), self._allowed, self._disallowed),
            ("port", url.port, given.allowed_ports, given.disallowed_ports),
        ):
            if value not in allowed if allowed else value in refused:
                raise BadRequest(f"the {what} of the URL ({value}) is not among those that are allowed here")

    def permits(self, host: str, address: Address, reach: Reach) -> bool:
        """Whether a URL that names `host` may lead to `address`."""
        if reach is Reach.ANY:
            return True
        mapped = getattr(address, "ipv4_mapped", None) or address
        if self.given.chosen and not self._allowed and str(mapped) in self._disallowed:
            return False  # under any name
        if public(address) or (self.given.chosen and _host(host) in self._allowed):
            return True
        if any(mapped in network for network in self._networks if network.version == mapped.version):
            return True
        return reach is Reach.PRIVATE and not inner(address)


def _host(text: str) -> str:
    """A host as it is compared: an address in its one spelling, a name in small letters without the last dot."""
    bare = text.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare
    return str(getattr(address, "ipv4_mapped", None) or address)


def literal(host: str) -> Address | None:
    """The address that `host` (of a URL, without brackets) spells out; None: it is a name to resolve.

    `BadRequest` for a number in any other spelling than the usual ones (127.1, 0x7f.0.0.1, 2130706433): some
    libraries take them for addresses.
    """
    bare = host.rstrip(".")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    if not bare or "%" in bare or ":" in bare or _NUMBER.fullmatch(bare.rpartition(".")[2]):
        raise BadRequest("the host of the URL is an address in an unusual spelling; write it as usual, or a name")
    return None


def out_of_reach(reach: Reach) -> BadRequest:
    """The same words whatever the reason, so that nobody can look around with it."""
    if reach is Reach.PUBLIC:
        return BadRequest(
            "the host of the URL has no public address, or also others; only an administrator may register data there"
        )
    return BadRequest(
        "the host of the URL is the service's own node, or on its link (loopback, link-local): nobody may register data"
        " there unless the operator lists it (location_networks, or allowed_hosts of [import_filtering_opts])"
    )


class Resolver(AbstractResolver):
    """Names by the system's resolver in threads of its own. A name with any address beyond `reach` is refused
    (`BadRequest`), and with PUBLIC so is one that does not exist. aiohttp never asks for literal addresses: ask
    `literal`.
    """

    def __init__(
        self, name: str, *, limit: float, reach: Reach, filters: Filters, lookup: Lookup = socket.getaddrinfo
    ) -> None:
        self._threads = Threads(name, _THREADS, limit=limit)
        self._reach, self._filters = reach, filters
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`, each as a literal. `OSError` when there are none, `StoreUnavailable` in no time."""
        secret = self._reach is Reach.PUBLIC
        try:
            found = await self._threads.run(self._lookup, host, port, family, socket.SOCK_STREAM)
        except OSError:
            if secret:
                raise out_of_reach(self._reach) from None
            raise
        results = list(_results(host, port, found))
        permits = all(self._filters.permits(host, ipaddress.ip_address(one["host"]), self._reach) for one in results)
        if not permits or (secret and not results):
            raise out_of_reach(self._reach)
        return results

    async def close(self) -> None:
        await self._threads.aclose()


def _results(host: str, port: int, found: Sequence[tuple[Any, ...]]) -> Iterator[ResolveResult]:
    for family, _, protocol, _, address in found:
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        text = str(address[0])
        if family == socket.AF_INET6 and len(address) > 3 and address[3] and "%" not in text:
            text = f"{text}%{address[3]}"  # link-local
        yield ResolveResult(
            hostname=host,
            host=text,
            port=port,
            family=family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
