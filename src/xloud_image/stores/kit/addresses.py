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

from xloud_image.errors import StoreUnavailable, UrlRefused
from xloud_image.stores.kit.filters import UrlFilters
from xloud_image.stores.kit.threads import Threads

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# of socket.getaddrinfo: (family, type, protocol, name, (address, port, …)) for each
Lookup = Callable[..., Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]]

_THREADS: Final = 8  # look-ups at once; one that hangs holds up no other part of the service
_NUMBER: Final = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")  # as a last label it makes an IPv4 address of any spelling

_GLOBAL6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64_WITHIN: Final = ipaddress.IPv6Network("64:ff9b:1::/48")  # of a network's own
# the IPv4 address that a packet to such an address ends at, by its place in the 128 bits
_EMBEDDED: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # translated
    (ipaddress.IPv6Network("::/96"), 0),  # compatible
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (_NAT64_WITHIN, 0),
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ITSELF: Final = (ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1"))  # no compatible ones
# in addition to what the library of this Python knows as not global
_CLOSED: Final[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]] = (
    ipaddress.IPv4Network("0.0.0.0/8"),
    ipaddress.IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    ipaddress.IPv4Network("169.254.0.0/16"),  # link-local; metadata of instances
    ipaddress.IPv4Network("168.63.129.16/32"),  # what a cloud's nodes ask about themselves
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv4Network("198.18.0.0/15"),
    ipaddress.IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
    ipaddress.IPv6Network("::ffff:0:0:0/96"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("2001::/23"),  # Teredo and other protocols
    ipaddress.IPv6Network("2001:db8::/32"),
    ipaddress.IPv6Network("3fff::/20"),
)


def plain(address: Address) -> Address:
    """The address that a packet to this one ends at, as far as its form alone says so: an IPv4 one within an IPv6 one
    (mapped, translated, compatible, NAT64, 6to4) is meant by it. Without the name of an interface."""
    if isinstance(address, ipaddress.IPv6Address):
        address = ipaddress.IPv6Address(int(address))
        for network, shift in _EMBEDDED:
            if address in network and address not in _ITSELF:
                found = _inside(address, shift)
                # zeros at this place of a network's own NAT64: the address stands at another one
                return address if network is _NAT64_WITHIN and not int(found) >> 24 else found
    return address


def forms(address: Address) -> list[Address]:
    """This address, and every other one that a packet to it may end at: besides `plain` also what may be no more than
    numbers that look alike (Teredo, ISATAP, the longer forms of NAT64). For judgements that refuse."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    number = int(address)
    bare = ipaddress.IPv6Address(number)
    found: list[Address] = [bare]
    if (meant := plain(bare)) != bare:
        found.append(meant)
    if number >> 32 & 0xFDFFFFFF == 0x00005EFE:  # ISATAP: in the last bits
        found.append(_inside(bare, 0))
    if bare in _TEREDO:  # the server, and the client with all bits turned over
        found += [_inside(bare, 64), ipaddress.IPv4Address(~number & 0xFFFFFFFF)]
    if bare in _NAT64_WITHIN:  # prefixes of 48, 56 and 64 bits, with eight bits in between that are left out
        for before in (48, 56, 64):
            bits = number & ((1 << 128 - before) - 1)
            head, tail = bits >> 64, bits & (1 << 56) - 1
            count = before - 32  # bits of the address behind the gap
            inside = ipaddress.IPv4Address((head << count | tail >> 56 - count) & 0xFFFFFFFF)
            if int(inside) >> 24:
                found.append(inside)
    return found


def _inside(address: ipaddress.IPv6Address, shift: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)


def public(address: Address) -> bool:
    """Whether anybody on the internet could reach it in the same way: global unicast, also of the IPv4 address within
    an IPv6 one, and none of this node's own: a firewall before the node sees nothing of what the node asks itself."""
    if any(address in network for network in _CLOSED if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if (meant := plain(address)) != ipaddress.IPv6Address(int(address)):
            return public(meant)
        if address.scope_id is not None or address not in _GLOBAL6:
            return False
        if not all(public(other) for other in forms(address)[1:]):
            return False
    unicast = not (address.is_multicast or address.is_reserved or address.is_unspecified)
    return address.is_global and unicast and not own(address)


def own(address: Address) -> bool:
    """Whether an interface of this node has the address: packets to it are sent from it. Nothing is sent here."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except (OSError, ValueError):
        return False  # no way leads there


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
    ipaddress.IPv4Network("192.0.0.192/32"),
    ipaddress.IPv4Network("168.63.129.16/32"),
    ipaddress.IPv6Network("fd00:ec2::/64"),
    ipaddress.IPv6Network("fd00:42::42/128"),
    ipaddress.IPv6Network("fd20:ce::/64"),
)


def inner(address: Address) -> bool:
    """Whether it leads to this node itself or stays on its link: loopback, link-local, multicast, metadata services."""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return True
    found = forms(address)
    return any(other in network for other in found for network in _INNER if network.version == other.version)


class Reach(enum.Enum):
    """How far a URL may lead. What the operator lists by name or network is within every reach."""

    PUBLIC = "public"  # addresses that anybody on the internet reaches
    PRIVATE = "private"  # also those of private networks and of this node in them; not loopback and its link
    ANY = "any"  # rows that were there before this service, and proxies that the operator named


class Filters:
    """What the operator said about URLs: `UrlFilters` made fit for comparing. `always`: the lists count although the
    operator set none, which then are upstream's (http and https, ports 80 and 443)."""

    def __init__(self, given: UrlFilters, *, always: bool = False) -> None:
        self.given = given
        self._always = always
        self._networks = [ipaddress.ip_network(one) for one in given.networks]
        self._allowed = {_host(one) for one in given.allowed_hosts}
        self._disallowed = {_host(one) for one in given.disallowed_hosts}

    def require(self, url: URL) -> None:
        """`UrlRefused` when the operator's lists refuse the scheme, host or port of a URL."""
        given = self.given
        if not (given.chosen or self._always):
            return
        for what, value, allowed, refused in (
            ("scheme", url.scheme, given.allowed_schemes, given.disallowed_schemes),
            ("host", _host(url.raw_host or ""), self._allowed, self._disallowed),
            ("port", url.port, given.allowed_ports, given.disallowed_ports),
        ):
            if value not in allowed if allowed else value in refused:
                raise UrlRefused(f"the {what} of the URL ({value}) is not among those that are allowed here")

    def reach(self, *, trusted: bool) -> Reach:
        """How far a URL may lead that somebody gives: where the operator has lists, these decide about private
        addresses."""
        return Reach.PRIVATE if trusted or self.given.chosen else Reach.PUBLIC

    def permits(self, host: str, address: Address, reach: Reach) -> bool:
        """Whether a URL that names `host` may lead to `address`."""
        if reach is Reach.ANY:
            return True
        if self.given.chosen and not self._allowed and any(str(one) in self._disallowed for one in forms(address)):
            return False  # under any name, in any form
        if public(address) or (self.given.chosen and _host(host) in self._allowed):
            return True
        meant = (address, plain(address))
        if any(one in network for one in meant for network in self._networks if network.version == one.version):
            return True
        return reach is Reach.PRIVATE and not inner(address)


def _host(text: str) -> str:
    """A host as it is compared: an address in its one spelling, a name in small letters without the last dot."""
    bare = text.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare
    return str(address if getattr(address, "scope_id", None) else plain(address))


def literal(host: str) -> Address | None:
    """The address that `host` (of a URL, without brackets) spells out; None: it is a name to resolve.

    `UrlRefused` for a number in any other spelling than the usual ones (127.1, 0x7f.0.0.1, 2130706433): some
    libraries take them for addresses.
    """
    bare = host.rstrip(".")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    if not bare or "%" in bare or ":" in bare or _NUMBER.fullmatch(bare.rpartition(".")[2]):
        raise UrlRefused("the host of the URL is an address in an unusual spelling; write it as usual, or a name")
    return None


def out_of_reach(reach: Reach) -> UrlRefused:
    """The same words whatever the reason, so that nobody can look around with it."""
    if reach is Reach.PUBLIC:
        return UrlRefused(
            "the host of the URL has no public address, or also others; only an administrator may name data there"
        )
    return UrlRefused(
        "the host of the URL is the service's own node, or on its link (loopback, link-local): nobody may name data"
        " there unless the operator lists it (location_networks, or allowed_hosts of [import_filtering_opts])"
    )


class Resolver(AbstractResolver):
    """Names by the system's resolver in threads of its own. A name with any address beyond `reach` is refused
    (`UrlRefused`), and with PUBLIC so is one that does not exist. aiohttp never asks for literal addresses: ask
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
        """The addresses of `host`, each as a literal. `OSError` when there are none, `TimeoutError` in no time."""
        secret = self._reach is Reach.PUBLIC
        try:
            found = await self._threads.run(self._lookup, host, port, family, socket.SOCK_STREAM)
        except StoreUnavailable as error:
            raise TimeoutError from error
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
