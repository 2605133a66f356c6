"""Where validated tokens are remembered: in this process, and in memcached for all processes. Nobody is
validated here.

The process forgets all at its end; memcached is shared by workers and nodes, so that a token is validated
once for all of them. Both keep a token until its own expiry, with the time until which it counts as fresh.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import aiomcache

from xloud_image.errors import ConfigError
from xloud_image.identity.tokens import Known, Unreadable

if TYPE_CHECKING:
    from xloud_image.identity.seal import Seal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOG = logging.getLogger(__name__)

Value = TypeVar("Value")

# A memcached that does not answer costs one request so long, and is then left alone for so long (seconds).
TIMEOUT: Final = 0.3
PENALTY: Final = 30.0
_MAX_TTL: Final = 30 * 86400  # memcached reads a larger number as a date


class Recent(Generic[Value]):
    """The `size` entries used last; the oldest goes first. Not for several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: collections.OrderedDict[bytes, Value] = collections.OrderedDict()

    def get(self, key: bytes) -> Value | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, key: bytes) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class _Server:
    """One memcached; `skip_until` is a monotonic time before which it is not asked."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("inet6:").rpartition(":")
        if not host:
            host, port = port, "11211"
        try:
            self.port = int(port)
        except ValueError:
            raise ConfigError(f"[keystone_authtoken] memcached_servers: '{address}' is not host:port") from None
        self.address = address
        self.host = host.strip("[]")
        self.skip_until = 0.0
        self.client = self._connect()

    def _connect(self) -> aiomcache.Client:
        return aiomcache.Client(self.host, self.port, pool_size=4, pool_minsize=1)

    async def call(self, operation: Callable[[aiomcache.Client], Awaitable[Value]]) -> Value | None:
        """The operation's result; None when the server failed or needed longer than TIMEOUT."""
        client = self.client
        try:
            async with asyncio.timeout(TIMEOUT):
                return await operation(client)
        except (OSError, TimeoutError, ValueError, EOFError, aiomcache.ClientException) as error:
            self._leave_alone(client, error)
            return None
        finally:
            if client is not self.client:
                await client.close()

    def _leave_alone(self, client: aiomcache.Client, error: Exception) -> None:
        """For a while. Its connections may be in the middle of an answer: none is used again."""
        if self.skip_until < time.monotonic():
            reason = str(error) or type(error).__name__
            _LOG.warning("memcached %s does not answer (%s); skipped for %d s", self.address, reason, PENALTY)
        self.skip_until = time.monotonic() + PENALTY
        if client is self.client:
            self.client = self._connect()


class Shared:
    """The memcached servers. No call raises and none takes longer than TIMEOUT; a cache that fails is no
    cache.

    An entry lives on one server, chosen by rendezvous hashing: when a server is gone, only its entries move.
    """

    def __init__(self, addresses: tuple[str, ...], seal: Seal) -> None:
        self._servers = tuple(_Server(address) for address in addresses)
        self._seal = seal

    async def get(self, token: str) -> Known | None:
        """What is known of the token; None when nothing is, or nothing that we wrote ourselves."""
        name, key = self._seal.keys(token)
        server = self._server_of(name)
        if server is None:
            return None
        stored = await server.call(lambda client: client.get(name))
        if stored is None:
            return None
        data = self._seal.open(name, key, stored)
        try:
            if data is not None:
                return Known.unpack(data)
        except Unreadable:
            pass
        _LOG.warning("memcached %s: an entry for a token was not written by this service; ignored", server.address)
        return None

    async def put(self, token: str, known: Known) -> None:
        """Remember it until the token expires."""
        ttl = min(int(known.token.expires - time.time()), _MAX_TTL)
        name, key = self._seal.keys(token)
        server = self._server_of(name)
        if ttl < 1 or server is None:
            return
        sealed = self._seal.close(name, key, known.pack())
        await server.call(lambda client: client.set(name, sealed, exptime=ttl))

    async def drop(self, token: str) -> None:
        """Forget it."""
        name, _key = self._seal.keys(token)
        server = self._server_of(name)
        if server is not None:
            await server.call(lambda client: client.delete(name))

    async def aclose(self) -> None:
        for server in self._servers:
            await server.client.close()
        await asyncio.sleep(0)  # the transports close in the next round of the loop

    def _server_of(self, name: bytes) -> _Server | None:
        now = time.monotonic()
        alive = [server for server in self._servers if server.skip_until <= now]
        if len(alive) < 2:
            return alive[0] if alive else None
        return max(alive, key=lambda server: hashlib.sha256(server.address.encode() + b"\0" + name).digest())
