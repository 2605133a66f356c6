"""HTTP for backends that speak it: one pool of connections of a store, its errors in the words of the contract, and a
source of bytes that remembers why it ended. What a server means by its statuses is the backend's business.

Memory of a transfer: one chunk sent, or a body as it is received (`body`); what aiohttp reads of an answer: 256 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from xloud_image.errors import ConfigError, ImageServiceError, StoreUnavailable, UrlRefused
from xloud_image.stores.kit.body import Body
from xloud_image.stores.kit.chunks import Exactly

_BUFFER: Final = 128 * 1024  # aiohttp stops reading from the socket at twice this
_INTERIM: Final = 100  # answers that may come before the one that counts, itself included
_TURNS: Final = 4  # of the event loop until a socket that was closed is closed, TLS included


# (what happened, such as "broke off"; the error of the library) → what is raised
Failure = Callable[[str, BaseException], ImageServiceError]


class Web:
    """The connections of one store and process. `connect` and `idle` in seconds: to open a connection, and without a
    byte either way while an answer is awaited. Redirects are never followed and no proxy of the environment is used.
    `keep`: connections are used again; False: each one ends with its answer."""

    def __init__(
        self,
        name: str,
        *,
        ca_file: str | None = None,
        insecure: bool = False,
        connect: float = 10.0,
        idle: float = 60.0,
        at_once: int = 0,
        resolver: AbstractResolver | None = None,
        keep: bool = True,
        failure: Failure | None = None,
    ) -> None:
        """`name`: of the store, for logs. `ca_file` wins over `insecure`; `at_once` 0: any number of connections.
        `failure`: what is raised in place of `StoreUnavailable`. `ConfigError` for a bad CA file."""
        self.name = name
        self._failure = failure or self._unavailable
        self.idle = idle
        self._tls = _context(ca_file, insecure)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, connect=None, sock_read=idle)
        self._at_once = at_once
        self._resolver = resolver
        self._keep = keep
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made when first asked for, in the event loop that uses it."""
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=self._at_once, resolver=self._resolver, force_close=not self._keep
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                read_bufsize=_BUFFER,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Response,
            )
        return self._session

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: str | URL, *, headers: Mapping[str, str] | None = None, data: Any = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status, for use at once. `StoreUnavailable` when none comes or it breaks off.

        An error of `data`, when it is an `Outgoing`, is raised as it is. Leaving closes the connection unless the
        whole answer was read.
        """
        async with self.answer(method, url, headers=headers, data=data, **more) as response:
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(data, Outgoing) and data.error is not None:
                    raise data.error from None
                raise self._failure("does not answer", error) from error

    @contextlib.asynccontextmanager
    async def answer(
        self, method: str, url: str | URL, *, headers: Mapping[str, str] | None = None, data: Any = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `request`, to be handed on: errors of the block are not the store's and pass as they are (a client that
        left is no sick store). Read the body by `chunks`."""
        try:
            response = await self.session.request(
                method, url, headers=headers, data=data, allow_redirects=False, **more
            )
        except aiohttp.InvalidURL as error:
            raise UrlRefused("this is no URL that can be asked") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(data, Outgoing) and data.error is not None:
                raise data.error from None
            raise self._failure("does not answer", error) from error
        try:
            yield response
        finally:
            ends = response.connection is not None or not self._keep
            transport = None if response.connection is None else response.connection.transport
            response.close()
            if transport is not None:
                transport.abort()  # TLS would wait until the other side has said goodbye as well
            if ends:
                # the loop closes the socket in its next turns; whoever counts handles counts them after that
                for _ in range(_TURNS):
                    await asyncio.sleep(0)

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it comes. `StoreUnavailable` when it breaks off before the announced end."""
        try:
            async for chunk in Body.of(response, self.idle) or response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failure("broke off", error) from error

    @staticmethod
    def _unavailable(what: str, error: BaseException) -> StoreUnavailable:
        return StoreUnavailable(f"it {what}: {reason(error)}")

    async def json(
        self, who: str, method: str, url: str, *, headers: Mapping[str, str], limit: float, body: Any = None
    ) -> tuple[int, Mapping[str, str], Any]:
        """(status, headers, what the JSON of the answer says: None where there is none), all within `limit` seconds.
        `body`: what to say in JSON. `StoreUnavailable` with `who` answers here."""
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(limit), self.request(method, url, headers=sent, data=data) as response:
                text = await response.read()
        except TimeoutError:
            raise StoreUnavailable(f"{who} does not answer within {limit:g} seconds") from None
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{who} does not answer: {error.message.partition(': ')[2]}") from error
        try:
            return response.status, response.headers, json.loads(text) if text else None
        except ValueError:
            if response.status < 400:
                raise StoreUnavailable(f"what answers as {who} is none") from None
            return response.status, response.headers, None

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _Response(aiohttp.ClientResponse):
    """An answer of which few interim ones (100, 103) come before: without end they would keep the event loop busy."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        assert protocol is not None
        read, left = protocol.read, _INTERIM

        async def counted() -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise aiohttp.http.HttpProcessingError(code=502, message="interim answers without end")
            return await read()

        protocol.read = counted  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            del protocol.read


class Outgoing:
    """A source as the body of a request: counts its bytes against `size` (None: any) and keeps its error.

    aiohttp hides what a body raises; `error` is that. More or fewer bytes than `size` are `BadRequest`.
    """

    def __init__(self, source: AsyncIterator[bytes], size: int | None = None) -> None:
        self._source = Exactly(source, size)
        self.error: BaseException | None = None

    @property
    def sent(self) -> int:
        """Bytes that the source brought."""
        return self._source.total

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._source:
                if chunk:  # an empty one would end a chunked body
                    yield chunk
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self.error = error
            raise


def wind(limit: asyncio.Timeout | None, seconds: float | None) -> None:
    """`limit` is over so many seconds from now (None: never). One that was left already stays as it is: an answer may
    come before the end of the body."""
    if limit is not None:
        with contextlib.suppress(RuntimeError):
            limit.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def reason(error: BaseException) -> str:
    """Why a request failed, in a few words without addresses or credentials."""
    if is_distrusted(error):
        return "its certificate is not trusted; name its CA file in the configuration"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "it does not speak TLS there, or not in a way that is understood here: https:// instead of http://?"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the data ended too early"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy does not lead there (it answers {error.status})"
    if is_no_http(error):
        return "its answer is no proper HTTP"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()  # the error's own text may name addresses
    return type(error).__name__


def is_distrusted(error: BaseException) -> bool:
    """Whether a request failed because nobody trusted says whose the server is."""
    return isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError)


def is_no_http(error: BaseException) -> bool:
    """Whether it failed because the answer cannot be understood, or has no end of headers."""
    return isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError)


def _context(ca_file: str | None, insecure: bool) -> ssl.SSLContext | bool:
    if ca_file:
        try:
            return ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the CA file {ca_file} cannot be used: {error}") from error
    return not insecure
