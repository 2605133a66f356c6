"""The session of one store and process with its server: login, renewing, calls in threads. No files here.

Times: each call of the server's interface may take `patience` seconds. A password that was refused is not tried again
for a minute: servers lock an account after a few wrong ones. Connections that broke are made again for calls that only
read; a call that changes something is sent once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final, TypeVar
from xml.parsers.expat import ExpatError

from xloud_image.errors import ConfigError, ImageServiceError, StoreRefused, StoreUnavailable
from xloud_image.stores.base import library
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.vmware.location import Place, Server

T = TypeVar("T")

_log = logging.getLogger(__name__)

_VERSION: Final = "vim.version.version10"  # of the interface: 6.0, which every later server still speaks
_THREADS: Final = 8
_AGAIN: Final = 2.0  # seconds within which a broken connection is made again
_REFUSED: Final = 60.0  # seconds for which a refused password stays refused
_IDLE: Final = 30.0  # seconds that an unused connection is kept
_LOGOUT: Final = 2.0
_BROKEN: Final = (OSError, HTTPException, ExpatError)


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Who logs in."""

    user: str
    password: str = dataclasses.field(repr=False)


@dataclasses.dataclass(eq=False, slots=True)
class Login:
    """One session of the server. `refs`: what `Files` has found in it, by place; `folders`: where its folder is."""

    stub: Any
    content: Any
    cookie: str = dataclasses.field(repr=False)
    refs: dict[Place, Any] = dataclasses.field(default_factory=dict)
    folders: set[Place] = dataclasses.field(default_factory=set)

    def close(self) -> None:
        """Log out; in a thread."""
        with contextlib.suppress(Exception):
            self.content.sessionManager.Logout()
        self.stub.DropConnections()


class Session:
    """See the module. `retries`: how often at most a call that reads is sent again."""

    def __init__(
        self, name: str, server: Server, account: Account, tls: ssl.SSLContext, *, patience: float, retries: int
    ) -> None:
        self.name = name
        self._pyvmomi = library("pyVmomi", install="the Python package pyvmomi")
        self._server, self._account, self._tls = server, account, tls
        self._patience, self._retries = patience, retries
        self._threads = Threads(name, _THREADS, limit=patience)
        self._login: Login | None = None
        self._making = asyncio.Lock()
        self._refused: tuple[float, str] | None = None

    @property
    def vim(self) -> Any:
        return self._pyvmomi.vim

    @property
    def fault(self) -> type[Exception]:
        """What every error of the server's interface is."""
        found: type[Exception] = self._pyvmomi.vmodl.MethodFault
        return found

    async def login(self, ended: Login | None = None) -> Login:
        """The session; a new one when there is none yet or it is the one that `ended`. `StoreUnavailable`."""
        if self._login is None or self._login is ended:
            async with self._making:
                if self._login is None or self._login is ended:
                    if ended is not None:
                        ended.stub.DropConnections()
                        _log.info("store %s: its session has ended, a new one is opened", self.name)
                    self._login = None
                    self._login = await self._run(self._open, retries=self._retries, lost=Login.close)
        return self._login

    async def call(self, work: Callable[[Login], T], *, reads: bool = False) -> T:
        """`work` in a thread, with a session; with a new one, once, when the server has ended it. `reads`: nothing
        is changed by it. `StoreUnavailable`; errors of the server's interface pass as they are."""
        login = await self.login()
        try:
            return await self._perform(work, login, reads)
        except self._pyvmomi.vim.fault.NotAuthenticated:
            login = await self.login(ended=login)
        try:
            return await self._perform(work, login, reads)
        except self._pyvmomi.vim.fault.NotAuthenticated as error:
            raise StoreUnavailable("its sessions end at once; see the server's log") from error

    async def _perform(self, work: Callable[[Login], T], login: Login, reads: bool) -> T:
        return await self._run(lambda: work(login), retries=self._retries if reads else 0)

    async def _run(self, work: Callable[[], T], *, retries: int, lost: Callable[[T], object] | None = None) -> T:
        begun = time.monotonic()

        async def once() -> T:
            try:
                return await self._threads.run(work, lost=lost)
            except _BROKEN as error:
                raise self._unavailable(error) from error

        def again(error: StoreUnavailable) -> bool:
            cause, final = error.__cause__, (TimeoutError, ssl.SSLCertVerificationError)
            return isinstance(cause, _BROKEN) and not isinstance(cause, final) and time.monotonic() - begun < _AGAIN

        return await retry(once, (0.1 * (number + 1) for number in range(retries)), again=again)

    def _open(self) -> Login:
        """Log in; in a thread."""
        if self._refused is not None and time.monotonic() < self._refused[0]:
            raise StoreRefused(self._refused[1])
        stub = self._pyvmomi.SoapStubAdapter(
            host=self._server.host,
            port=self._server.port,
            path="/sdk",
            version=_VERSION,
            sslContext=self._tls,
            httpConnectionTimeout=self._patience,
            poolSize=_THREADS,
            connectionPoolTimeout=_IDLE,
        )
        try:
            content = self.vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
            content.sessionManager.Login(self._account.user, self._account.password)
        except self.fault as error:
            stub.DropConnections()
            raise self._not_let_in(error) from error
        self._refused = None
        name, _, value = stub.cookie.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        return Login(stub, content, f"{name.strip()}={value}")

    def _not_let_in(self, error: Exception) -> ImageServiceError:
        if isinstance(error, self.vim.fault.InvalidLogin):
            sentence = (
                f"{self._server} refuses the user or the password; correct vmware_server_username"
                f" and vmware_server_password (tried again after {_REFUSED:.0f} seconds)"
            )
            self._refused = (time.monotonic() + _REFUSED, sentence)
            return StoreRefused(sentence)
        return StoreUnavailable(f"{self._server} lets nobody in ({type(error).__name__})")

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self._server} {self._reason(error)}")

    def _reason(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in {62, 64}:  # of OpenSSL: another name, another address
                return "shows a certificate of another name: write the name it has into vmware_server_host"
            return f"shows a certificate that is not trusted ({error.verify_message}): name its CA in vmware_ca_file"
        if isinstance(error, TimeoutError):
            return f"does not answer within {self._patience:g} seconds"
        if isinstance(error, ExpatError):
            return "answers with something that is not the vSphere interface"
        if isinstance(error, ssl.SSLError):
            plain = error.reason == "WRONG_VERSION_NUMBER"
            return "does not speak TLS there" if plain else "does not answer: the connection was cut"
        if isinstance(error, OSError) and error.strerror:
            return f"does not answer: {error.strerror.lower()}"
        return f"does not answer: {type(error).__name__}"

    def forget(self) -> None:
        """Find the datastores anew at the next call."""
        if self._login is not None:
            self._login.refs.clear()
            self._login.folders.clear()

    async def aclose(self) -> None:
        """Log out, within seconds."""
        login, self._login = self._login, None
        if login is not None:
            with contextlib.suppress(StoreUnavailable):
                await self._threads.submit(login.close).ended(_LOGOUT)
        await self._threads.aclose()
        if login is not None:
            login.stub.DropConnections()


def context(ca_file: str | None, insecure: bool) -> ssl.SSLContext:
    """For calls of the interface; made here because the library trusts any certificate of the local host.

    `ca_file` wins over `insecure`. `ConfigError` for one that cannot be used."""
    try:
        made = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"vmware_ca_file {ca_file} cannot be used: {error}") from error
    if insecure and not ca_file:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
