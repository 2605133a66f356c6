"""Requests to URLs that others chose: where they lead is looked at anew with each redirect and each connection.

What is asked and what an answer means is the business of whoever asks. No proxy of the environment is used; through an
operator's proxy the proxy decides what a name means, and only addresses written in the URL are looked at here.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
from yarl import URL

from xloud_image.errors import ConfigError, UrlRefused
from xloud_image.stores.kit import addresses, answers
from xloud_image.stores.kit.addresses import Filters, Reach
from xloud_image.stores.kit.web import Failure, Web

REDIRECTS: Final = 5
_WAYS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "xloud-image"}


class Guarded:
    """Connections to web servers, those of each `Reach` by themselves. `proxies` by the scheme of what is asked through
    them; `connect` and `idle` in seconds; `lookup` as `socket.getaddrinfo`. The rest is as in `Web`."""

    def __init__(
        self,
        name: str,
        filters: Filters,
        *,
        ca_file: str | None = None,
        insecure: bool = False,
        proxies: Mapping[str, str] | None = None,
        connect: float,
        idle: float,
        keep: bool,
        lookup: addresses.Lookup = socket.getaddrinfo,
        failure: Failure | None = None,
    ) -> None:
        self.proxies = _proxies(proxies or {})
        self.downgrade = bool(insecure and not ca_file)
        self._filters = filters
        self._resolvers = {
            reach: addresses.Resolver(name, limit=connect, reach=reach, filters=filters, lookup=lookup)
            for reach in Reach
        }
        self._webs = {
            reach: Web(
                name,
                ca_file=ca_file,
                insecure=insecure,
                connect=connect,
                idle=idle,
                resolver=resolver,
                keep=keep,
                failure=failure,
            )
            for reach, resolver in self._resolvers.items()
        }

    @contextlib.asynccontextmanager
    async def ask(
        self,
        method: str,
        url: URL,
        reach: Reach,
        *,
        after: Reach | None = None,
        headers: Mapping[str, str],
        own: Mapping[str, str] | None = None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, URL]]:
        """The answer behind at most REDIRECTS redirects, and where it comes from. `after`: how far may be gone once a
        redirect leads to another server than `url` names; `own`: headers that such a one does not get. `UrlRefused`;
        what `Web.answer` raises."""
        at = url
        for _ in range(REDIRECTS + 1):
            web, more = self._way(at, reach)
            sent = {**_HEADERS, **headers, **(own or {})}
            async with web.answer(method, at, headers=sent, **more) as response:
                if response.status not in _WAYS:
                    yield response, at
                    return
                before, at = at, answers.next_url(at, response.headers, downgrade=self.downgrade)
                if at.origin() != before.origin():
                    own = None
                    reach = reach if after is None else after
                if reach is not Reach.ANY:
                    self._filters.require(at)
        raise UrlRefused(f"the server of the URL redirects more than {REDIRECTS} times")

    def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body, as by `Web.chunks`."""
        return self._webs[Reach.ANY].chunks(response)

    def require(self, url: URL, reach: Reach) -> None:
        """`UrlRefused` for an address, written in the URL, that is out of reach. Names are looked at when they are
        resolved."""
        assert url.raw_host is not None
        if reach is not Reach.ANY:
            address = addresses.literal(url.raw_host)
            if address is not None and not self._filters.permits(url.raw_host, address, reach):
                raise addresses.out_of_reach(reach)

    async def look_up(self, url: URL, reach: Reach) -> None:
        """As `require`, and a name is resolved, unless a proxy will do that: `UrlRefused` when it has no addresses, or
        one that is out of reach."""
        self.require(url, reach)
        assert url.raw_host is not None
        if url.scheme in self.proxies or addresses.literal(url.raw_host) is not None:
            return
        try:
            await self._resolvers[reach].resolve(url.raw_host, url.port or 0, socket.AF_UNSPEC)
        except TimeoutError:
            return  # whoever asks it later will see
        except OSError as error:
            raise UrlRefused("the host of the URL has no address") from error

    def _way(self, url: URL, reach: Reach) -> tuple[Web, dict[str, Any]]:
        """The connections to use for a URL, and its proxy."""
        self.require(url, reach)
        proxy = self.proxies.get(url.scheme)
        if proxy is not None:
            return self._webs[Reach.ANY], {"proxy": proxy}  # its own address is the operator's
        return self._webs[reach], {}

    async def aclose(self) -> None:
        """Close all connections."""
        for web in self._webs.values():
            await web.aclose()
        for resolver in self._resolvers.values():
            await resolver.close()


def _proxies(given: Mapping[str, str]) -> dict[str, URL]:
    """Proxies by the scheme of what is asked through them."""
    found = {}
    for scheme, place in given.items():
        text = place if "://" in place else f"http://{place}"
        proxy = answers.parsed(text)
        if scheme not in ("http", "https") or proxy is None or proxy.scheme != "http":
            raise ConfigError(
                "http_proxy_information is a list of scheme:proxy with the schemes http and https and "
                f"proxies written host:port, which '{scheme}:…' is not"
            )
        found[scheme] = proxy
    return found
