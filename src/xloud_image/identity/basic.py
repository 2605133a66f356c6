"""Callers by HTTP Basic from two files: passwords, and who belongs to which project. For services without a
Keystone.

`http_basic_user_file` is what Apache's `htpasswd -B` writes; other hashes are refused.
`http_basic_projects_file` has a line `user:project:role,role` for each user. Both are read anew when they
change.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import dataclasses
import hmac
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bcrypt

from xloud_image.errors import ConfigError, Forbidden, IdentityUnavailable
from xloud_image.identity.base import Identity
from xloud_image.identity.cache import Recent
from xloud_image.identity.context import Context
from xloud_image.identity.queue import OTHERS, Queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xloud_image.config.settings import AuthSettings
    from xloud_image.policy import Policy

_LOG = logging.getLogger(__name__)

THREADS: Final = 2
REMEMBERED_FOR: Final = 60.0  # seconds for which a password that was right is right without hashing it again
REFUSED_FOR: Final = 5.0
TRUSTED_FOR: Final = 24 * 3600.0  # for which it need not wait behind others when it is hashed again
_LOOK_EVERY: Final = 1.0  # seconds between two looks at the files

_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_MAX_PASSWORD: Final = 72  # bytes: bcrypt knows no more, so a longer one cannot be the one of the file
_IMPLIED: Final = {
    "admin": ("manager", "member", "reader"),
    "manager": ("member", "reader"),
    "member": ("reader",),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a user belongs. `roles` include those that Keystone has a role imply: admin, manager, member,
    reader.
    """

    project: str
    roles: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Users:
    """Both files as read. `decoy` is a hash that no password has and that costs as much as the dearest real
    one.
    """

    hashes: Mapping[str, bytes]
    places: Mapping[str, Place]
    decoy: bytes
    stamp: tuple[object, ...]


class BasicIdentity(Identity):
    """Raises ConfigError, naming file and line, when one of the files cannot be used."""

    def __init__(self, settings: AuthSettings, policy: Policy) -> None:
        challenge = 'Basic realm="xloud-image", charset="UTF-8"'
        super().__init__(policy, anonymous=settings.allow_anonymous_access, challenge=challenge)
        if not settings.http_basic_user_file or not settings.http_basic_projects_file:
            raise ConfigError(
                "authentication 'http_basic' needs http_basic_user_file (from htpasswd -B)"
                " and http_basic_projects_file (lines like alice:project-id:member)"
            )
        self._files = (Path(settings.http_basic_user_file), Path(settings.http_basic_projects_file))
        self._users = read_users(*self._files)
        self._looked = time.monotonic()
        self._secret = os.urandom(32)
        self._right: Recent[float] = Recent(1024)
        self._wrong: Recent[float] = Recent(1024)
        self._trusted: Recent[float] = Recent(4096)
        self._flights: dict[bytes, asyncio.Future[bool]] = {}
        self._queue = Queue(THREADS)
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Opens nothing yet."""

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def authenticate(
        self,
        headers: Mapping[str, str],
        *,
        method: str | None = None,
        path: str | None = None,
        address: str | None = None,
    ) -> Context:
        """`Authorization: Basic …`; the user is its own id, the project the one of the projects file."""
        header = headers.get("Authorization")
        if not header:
            return self._without_credentials()
        try:
            user, password = parse(header)
        except ValueError:
            raise self._refused("The Authorization header is not 'Basic' with user and password.") from None
        await self._look()
        if not await self._check(user, password, address):
            raise self._refused("The user or the password is wrong.")
        place = self._users.places.get(user)
        if place is None:
            raise Forbidden(
                f"The user '{user}' belongs to no project; the operator can add it to {self._files[1].name}."
            )
        return Context(
            user=user,
            project=place.project,
            roles=place.roles,
            is_admin=self._policy.is_admin(place.roles),
        )

    async def _check(self, user: str, password: bytes, address: str | None) -> bool:
        """Whether the file has this password for this user. An unknown user costs as much as a wrong
        password.
        """
        key = hmac.digest(self._secret, user.encode() + b"\0" + password, "sha256")
        now = time.monotonic()
        if (self._right.get(key) or 0.0) > now:
            return True
        if (self._wrong.get(key) or 0.0) > now:
            return False
        flight = self._flights.get(key)
        if flight is None:
            users = self._users
            trusted = (self._trusted.get(key) or 0.0) > now
            flight = asyncio.ensure_future(self._hash(users, user, password, address, trusted=trusted))
            self._flights[key] = flight

            def landed(done: asyncio.Future[bool]) -> None:
                del self._flights[key]
                if done.cancelled() or done.exception() is not None or self._users is not users:
                    return
                if done.result():
                    self._right.put(key, time.monotonic() + REMEMBERED_FOR)
                    self._trusted.put(key, time.monotonic() + TRUSTED_FOR)
                else:
                    self._wrong.put(key, time.monotonic() + REFUSED_FOR)

            flight.add_done_callback(landed)
        return await asyncio.shield(flight)

    async def _hash(self, users: Users, user: str, password: bytes, address: str | None, *, trusted: bool) -> bool:
        stored = users.hashes.get(user)
        if not await self._queue.enter(user if stored is not None else OTHERS, address, trusted=trusted):
            raise IdentityUnavailable(
                "Too many passwords are being checked now; try again.", headers={"Retry-After": "1"}
            )
        try:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "password")
            known = stored is not None and len(password) <= _MAX_PASSWORD
            same = await asyncio.get_running_loop().run_in_executor(
                self._threads, bcrypt.checkpw, password[:_MAX_PASSWORD], stored or users.decoy
            )
        finally:
            self._queue.leave()
        self._queue.judge(address, right=same and known)
        return same and known

    async def _look(self) -> None:
        """Read the files again when they changed. When they cannot be used, the users read before stay in
        force.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        users = await asyncio.to_thread(_changed, self._files, self._users)
        if users is not self._users:
            self._users = users
            self._right.clear()
            self._wrong.clear()


def parse(header: str) -> tuple[str, bytes]:
    """User and password of an `Authorization` header; ValueError when it is not of that form."""
    scheme, _, rest = header.partition(" ")
    user, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    if scheme.lower() != "basic" or not colon:
        raise ValueError("no user and password")
    return user.decode(), password


def _changed(files: tuple[Path, Path], users: Users) -> Users:
    try:
        if _stamp(files) == users.stamp:
            return users
        new = read_users(*files)
    except (ConfigError, OSError) as error:
        _LOG.error("the users stay as they were: %s", error)
        return users
    _LOG.info("read %d users from %s", len(new.hashes), files[0])
    return new


def _stamp(files: tuple[Path, ...]) -> tuple[object, ...]:
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in (file.stat() for file in files))


def read_users(user_file: Path, projects_file: Path) -> Users:
    """Both files. Raises ConfigError with file and line, never with a hash."""
    try:
        stamp = _stamp((user_file, projects_file))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None
    hashes: dict[str, bytes] = {}
    cost = 5
    for number, line in _lines(user_file):
        user, _, stored = line.partition(":")
        match = _HASH.fullmatch(stored.strip())
        if not user or match is None:
            raise ConfigError(
                f"{user_file}, line {number}: not a user with a bcrypt password, as made by:"
                f" htpasswd -B {user_file} USER"
            )
        hashes[user] = stored.strip().encode()
        cost = max(cost, int(match[1]))
    places: dict[str, Place] = {}
    for number, line in _lines(projects_file):
        parts = [part.strip() for part in line.split(":")]
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"{projects_file}, line {number}: not of the form user:project:role,role")
        roles = {role.strip().lower() for role in parts[2].split(",") if role.strip()}
        implied = {more for role in roles for more in _IMPLIED.get(role, ())}
        places[parts[0]] = Place(parts[1], frozenset(roles | implied))
    decoy = f"$2b${cost:02}$" + "." * 53
    return Users(hashes, places, decoy.encode(), stamp)


def _lines(file: Path) -> list[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no UTF-8 text") from None
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]
