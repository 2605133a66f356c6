"""Asking Keystone whether a token is valid, with the service's own token. Nothing is remembered here but that
one.

keystoneauth keeps the service's token, finds Keystone in the catalogue and gets a new token when Keystone
refuses the old one. It blocks, so it works in a few threads of its own; a validation costs about 3 ms of
processor time and happens once per token and `token_cache_time`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from keystoneauth1 import adapter, exceptions, loading, session

from xloud_image.errors import ConfigError, IdentityUnavailable, Unauthorized
from xloud_image.identity.tokens import Token, Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keystoneauth1.loading import opts

    from xloud_image.config.settings import KeystoneSettings

_LOG = logging.getLogger(__name__)

THREADS: Final = 8
_DOWN_FOR: Final = 1.0  # seconds for which nobody waits for a Keystone that just failed
_REFUSED_FOR: Final = 5.0  # the same after it refused our own user: trying often gets the user locked


class Validator:
    """One per process. Raises ConfigError when the auth plugin cannot be made of the options."""

    def __init__(self, settings: KeystoneSettings) -> None:
        self._settings = settings
        self._plugin = plugin(settings)
        self._deadline = 2.0 * settings.http_connect_timeout
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._adapter: adapter.Adapter | None = None
        self._down_until = 0.0
        self.failing = False  # whether the last question stayed without an answer

    async def validate(self, text: str, *, expired: bool) -> Token:
        """The token; `expired`: also one past its expiry, while Keystone remembers it.

        Raises Unauthorized when Keystone does not know it, IdentityUnavailable (within twice the connect
        timeout, and at once for a second after a failure) when Keystone cannot tell.
        """
        if time.monotonic() < self._down_until:
            raise _unavailable()
        threads, adapter = self._opened()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline):
                token = await loop.run_in_executor(threads, self._work, adapter, text, expired)
            self.failing = False
            return token
        except Unauthorized:
            self.failing = False
            raise
        except TimeoutError:
            failure = _Failure(f"no answer within {self._deadline:g} s")
        except _Failure as error:
            failure = error
        now = time.monotonic()
        if now >= self._down_until:
            _LOG.error("Keystone cannot validate a token: %s", failure)
        if failure.wait:
            self.failing = True
            self._down_until = now + failure.wait
        raise _unavailable() from None

    def _opened(self) -> tuple[concurrent.futures.ThreadPoolExecutor, Any]:
        """The threads that wait for Keystone, and the connection to it; made when first asked for."""
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "keystone")
        if self._adapter is None:
            self._adapter = connect(self._settings, self._plugin)
        return self._threads, self._adapter

    async def catalogue(self) -> Sequence[Mapping[str, Any]]:
        """The services that the service's own token lists. IdentityUnavailable."""
        threads, adapter = self._opened()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline):
                return await loop.run_in_executor(threads, _catalogue, adapter)
        except (TimeoutError, exceptions.ClientException):
            raise _unavailable() from None

    def close(self) -> None:
        """Threads that still wait for Keystone end with their own timeouts."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        keystone, self._adapter = self._adapter, None
        if keystone is not None:
            keystone.session.session.close()

    def _work(self, keystone: adapter.Adapter, text: str, expired: bool) -> Token:
        """In a thread. One that comes back after `close` has opened connections anew, and closes them."""
        try:
            return _ask(keystone, text, expired)
        finally:
            if keystone is not self._adapter:
                keystone.session.session.close()


def _catalogue(keystone: adapter.Adapter) -> Sequence[Mapping[str, Any]]:
    login: Any = keystone.auth
    access = login.get_access(keystone.session)
    return access.service_catalog.catalog if access.has_service_catalog() else ()


def connect(settings: KeystoneSettings, login: Any) -> adapter.Adapter:
    """Keystone, asked with this plugin's login. Opens nothing yet."""
    cert: tuple[str, str] | str | None = settings.certfile
    if settings.certfile and settings.keyfile:
        cert = (settings.certfile, settings.keyfile)
    return adapter.Adapter(
        session.Session(
            verify=False if settings.insecure else settings.cafile or True,
            cert=cert,
            timeout=settings.http_connect_timeout,
            app_name="xloud-image",
        ),
        auth=login,
        service_type="identity",
        interface=settings.interface,
        region_name=settings.region_name,
        min_version="3.0",
        max_version="3.latest",
        connect_retries=settings.http_request_max_retries,
    )


class _Failure(Exception):
    """Keystone cannot tell. `wait`: seconds for which nobody else is made to wait for the same."""

    def __init__(self, why: str, wait: float = _DOWN_FOR) -> None:
        super().__init__(why)
        self.wait = wait


def _unavailable() -> IdentityUnavailable:
    return IdentityUnavailable(
        "The identity service (Keystone) cannot be asked about your token now; try again.",
        headers={"Retry-After": "2"},
    )


def _ask(keystone: adapter.Adapter, text: str, expired: bool) -> Token:
    """Raises Unauthorized and _Failure.

    What the caller's token alone can bring about (an odd answer of Keystone to it) makes nobody else wait.
    """
    headers = {"X-Subject-Token": text, "OpenStack-Identity-Access-Rules": "1"}
    try:
        response = keystone.get(
            "/auth/tokens?nocatalog" + ("&allow_expired=1" if expired else ""),
            headers=headers,
            raise_exc=False,
        )
    except exceptions.Unauthorized:
        raise _Failure(_OWN_USER, _REFUSED_FOR) from None
    except (exceptions.EndpointNotFound, exceptions.DiscoveryFailure) as error:
        keystone.invalidate()
        raise _Failure(f"its endpoint is not found: {error}") from None
    except exceptions.ClientException as error:
        raise _Failure(str(error) or type(error).__name__) from None
    match response.status_code:
        case 200:
            try:
                return Token.from_keystone(response.content)
            except Unreadable as error:
                raise _Failure(f"it answered with {error}", 0) from None
        case 401:
            raise _Failure(_OWN_USER, _REFUSED_FOR)
        case 403:
            raise _Failure(_OWN_RIGHTS, _REFUSED_FOR)
        case 404 if "json" in response.headers.get("Content-Type", ""):
            raise Unauthorized("unknown to Keystone")
        case 400 | 414 | 431:
            raise Unauthorized("not readable for Keystone")
    raise _Failure(f"it answered {response.status_code} to {response.url}", 0)


_OWN_USER: Final = (
    "it refuses the service's own user; check username, password, project and domains in [keystone_authtoken]"
)
_OWN_RIGHTS: Final = (
    "it does not let the service's own user validate tokens; the user of [keystone_authtoken] needs the role"
    " service or admin in its project"
)


def plugin(settings: KeystoneSettings, section: str = "keystone_authtoken") -> Any:
    """The auth plugin; the options are taken by their names or older names, unknown ones are left alone. `section`:
    where they stand."""

    def option(opt: opts.Opt) -> Any:
        for name in (opt.dest, *(old.dest for old in opt.deprecated)):
            if settings.auth.get(name) is not None:
                return opt.type(settings.auth[name])
        return opt.default

    try:
        loader: Any = loading.get_plugin_loader(settings.auth_type)
        if any(opt.dest == "auth_url" for opt in loader.get_options()) and not settings.auth.get("auth_url"):
            raise ConfigError(f"[{section}] auth_url is missing: the address of Keystone")
        return loader.load_from_options_getter(option)
    except exceptions.NoMatchingPlugin:
        raise ConfigError(f"[{section}] auth_type: there is no '{settings.auth_type}'") from None
    except exceptions.MissingRequiredOptions as error:
        names = ", ".join(opt.dest for opt in error.options)
        raise ConfigError(f"[{section}] lacks {names}") from None
    except (exceptions.ClientException, ValueError) as error:
        raise ConfigError(f"[{section}] cannot be used: {error}") from None
