"""Why no connection to the database comes about, in a sentence for its operator: with the address, never a password.

`dialect_errors` says what an error means for a request, in words for clients; this says it to whoever starts the
service or runs `xloud-image db`. What will not pass by itself is a ConfigError: nobody is told to try again later.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from xloud_image.errors import ConfigError, DatabaseUnavailable, ImageServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from xloud_image.db.arguments import Target

_ACCOUNT: Final = {1044, 1045, 1130, 1698, 1862, 4151}  # MySQL: this account, or from this host, is not let in
_FULL: Final = {1040, 1203, 1226}
_NO_TLS: Final = {2026, 3159}


def where(target: Target) -> str:
    """How sentences name the server."""
    url = target.url
    if place := target.arguments.get("unix_socket"):
        return f"the database at the socket {place}"
    if hosts := url.query.get("host"):
        return f"the database at {', '.join(hosts if isinstance(hosts, tuple) else [hosts])}"
    port = url.port or (5432 if url.get_backend_name() == "postgresql" else 3306)
    return f"the database at {url.host or 'localhost'} port {port}"


def explain(error: BaseException, target: Target) -> ImageServiceError | None:
    """The sentence about a connection that failed; None: this error is not about connecting."""
    if target.url.get_backend_name() == "sqlite":
        return None
    at, chain = where(target), list(_chain(error))
    for one in chain:
        if isinstance(one, ImageServiceError):
            return None
        if found := _told(one, at, target.url, _seconds(target)):
            return found
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was made of, the innermost first: that is the one with a reason."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        orig: Any = getattr(error, "orig", None)
        error = orig if isinstance(orig, BaseException) else error.__cause__ or error.__context__
    yield from reversed(seen)


def _seconds(target: Target) -> Any:
    return target.arguments.get("connect_timeout") or target.arguments.get("timeout")


def _told(error: BaseException, at: str, url: sa.URL, seconds: Any) -> ImageServiceError | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of {at} is not accepted: {error.verify_message}; the CA is named by "
        name = "sslrootcert" if url.get_backend_name() == "postgresql" else "ssl_ca"
        return ConfigError(f"{text}{name} in [database] connection")
    if isinstance(error, ssl.SSLError):
        return ConfigError(f"TLS to {at} fails: {(error.reason or str(error)).replace('_', ' ').lower()}")
    if isinstance(error, socket.gaierror):
        return DatabaseUnavailable(f"The name of {at} is not found: {error.strerror}.")
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable(f"No answer from {at} within {seconds} seconds.")
    if isinstance(error, ConnectionRefusedError):
        return DatabaseUnavailable(f"Nobody listens: {at} refuses the connection.")
    if isinstance(error, FileNotFoundError) and "socket" in at:
        return DatabaseUnavailable(f"Nobody listens: {at} does not exist.")
    if isinstance(error, OSError):
        if "rejected SSL upgrade" in str(error):
            return ConfigError(f"{at} speaks no TLS, and [database] connection asks for it")
        if error.errno is not None:
            name = errno.errorcode.get(error.errno, "")
            return DatabaseUnavailable(f"No connection to {at}: {error.strerror or name}.")
        return None
    module = type(error).__module__.partition(".")[0]
    number = error.args[0] if error.args else None
    if module == "asyncmy" and isinstance(number, int):
        return _of_mysql(number, str(error.args[-1]), at, url)
    state = getattr(error, "sqlstate", None)
    if module == "asyncpg" and isinstance(state, str):
        return _of_postgresql(state, str(error), at, url)
    return None


def _of_mysql(number: int, text: str, at: str, url: sa.URL) -> ImageServiceError | None:
    if number in _ACCOUNT:
        return ConfigError(f"{at} refuses the user '{url.username}': {text}")
    if number == 1049:
        return ConfigError(f"{at} has no database '{url.database}'; make it (xloud-image db create)")
    if number in _FULL:
        return DatabaseUnavailable(f"{at[0].upper()}{at[1:]} takes no more connections: {text}.")
    if number in _NO_TLS or "SSL" in text:
        return ConfigError(f"TLS with {at} fails: {text}")
    return None


def _of_postgresql(state: str, text: str, at: str, url: sa.URL) -> ImageServiceError | None:
    if state in ("28P01", "28000"):
        return ConfigError(f"{at} refuses the user '{url.username}': {text}")
    if state == "3D000":
        return ConfigError(f"{at} has no database '{url.database}'; its administrator makes it: CREATE DATABASE")
    if state == "53300":
        return DatabaseUnavailable(f"{at[0].upper()}{at[1:]} takes no more connections: {text}.")
    if state == "57P03":
        return DatabaseUnavailable(f"{at[0].upper()}{at[1:]} is not ready: {text}.")
    return None
