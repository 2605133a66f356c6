"""The way to every URL that a user can give. How a file is read: `resource`; what an answer means: `source`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from yarl import URL

from xloud_image.errors import UrlRefused
from xloud_image.fetching.resource import Resource
from xloud_image.fetching.rules import Limits, Rules
from xloud_image.fetching.source import Source, failed
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.addresses import Filters, Lookup, Reach
from xloud_image.stores.kit.guarded import Guarded


class Fetcher:
    """The connections of one process and event loop; enter it once, open as many URLs at once as you like.

    `trusted`: whoever gave the URL may make the service ask private addresses (the right `register_private_address`);
    loopback and its link only where the operator lists them. No URL is logged, and none is in an error.
    """

    def __init__(self, rules: Rules, limits: Limits | None = None, *, lookup: Lookup = socket.getaddrinfo) -> None:
        """`lookup` is for tests. `ConfigError` for a CA file or proxies that make no sense."""
        self._limits = limits or Limits()
        self._filters = Filters(rules.filters, always=True)
        self._guarded = Guarded(
            "of URLs",
            self._filters,
            ca_file=rules.ca_file,
            insecure=rules.insecure,
            proxies=rules.proxies,
            connect=self._limits.connect,
            idle=self._limits.silence,
            keep=True,
            lookup=lookup,
            failure=failed,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._guarded.aclose()

    def require(self, url: str, *, trusted: bool) -> None:
        """`UrlRefused` as far as the URL itself says so, at once: nothing is resolved and nobody asked."""
        self._allowed(url, trusted=trusted)

    async def look_up(self, url: str, *, trusted: bool) -> None:
        """As `require`, and its host has addresses, all of which may be asked."""
        await self._guarded.look_up(*self._allowed(url, trusted=trusted))

    @contextlib.asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        trusted: bool,
        plain: bool = False,
        most: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Resource]:
        """The file at `url`. `plain`: in one request whatever the server could, for a source that was seen to change
        between two (mirrors behind one name that differ). `most`: bytes it may have, when fewer than the limits allow.
        `headers`: for its server alone; where redirects lead to another, they are left out.

        `UrlRefused`; `SourceRefused`; `SourceUnavailable` (`SourceSilent`) after some attempts; `TooLarge`.
        """
        at, reach = self._allowed(url, trusted=trusted)
        cap = self._limits.size if most is None else min(most, self._limits.size)
        resource = Resource(Source(self._guarded, at, reach, self._limits, headers or {}), self._limits, cap)
        try:
            await resource.begin(plain=plain)
            yield resource
        finally:
            await resource.aclose()

    def _allowed(self, url: str, *, trusted: bool) -> tuple[URL, Reach]:
        at = answers.parsed(url)
        if at is None:
            raise UrlRefused("this is no http or https URL")
        reach = self._filters.reach(trusted=trusted)
        self._filters.require(at)
        self._guarded.require(at, reach)
        return at, reach
