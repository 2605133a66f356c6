"""Which addresses a URL of a stranger may lead to, and a resolver that gives no others. No request is made here.

A name is resolved once; every address that it has must be public, and the connection goes to one of these very
addresses. What a second look-up would answer cannot matter.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

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


def not_public() -> BadRequest:
    """The same words whatever the reason, so that nobody can look around with it."""
    return BadRequest(
        "the host of the URL has no public address, or also others; only an administrator may register data there"
    )


class Resolver(AbstractResolver):
    """Names by the system's resolver in threads of its own. `strict`: a name with any address that is not public is
    refused (`BadRequest`), and so is one that does not exist. aiohttp never asks for literal addresses: ask `literal`.
    """

    def __init__(self, name: str, *, limit: float, strict: bool, lookup: Lookup = socket.getaddrinfo) -> None:
        self._threads = Threads(name, _THREADS, limit=limit)
        self._strict = strict
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`, each as a literal. `OSError` when there are none, `StoreUnavailable` in no time."""
        try:
            found = await self._threads.run(self._lookup, host, port, family, socket.SOCK_STREAM)
        except OSError:
            if self._strict:
                raise not_public() from None
            raise
        results = list(_results(host, port, found))
        if self._strict and not (results and all(public(ipaddress.ip_address(one["host"])) for one in results)):
            raise not_public()
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
