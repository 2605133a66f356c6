"""Who the swift store is in Swift: accounts, their tokens and their storage URLs. Nothing of objects here.

Keystone is asked over the store's own connections, so a hung Keystone holds up this store only. A refused login is not
repeated for ten seconds: Keystone may lock a user after several of them.
"""

from __future__ import annotations

import asyncio
import configparser
import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from xloud_image.errors import ConfigError, StoreUnavailable
from xloud_image.stores.kit.keystone import ask_keystone, identity_url, seconds
from xloud_image.stores.kit.web import Web

_AGAIN: Final = 10.0  # seconds for which a refused login stays refused
_CATALOGUE: Final = 300.0  # seconds for which the storage URL of a project is remembered
_REMEMBERED: Final = 1024  # projects


class Refused(StoreUnavailable):
    """Keystone or Swift does not let us in; trying again cannot help before somebody changes something."""

    temporary = False


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """One account reference. `auth` is Keystone's URL up to its version; `project` is "" where only its id or an
    application credential is known. `source` names the options for whoever has to correct them."""

    reference: str
    auth: str
    source: str
    user: str = ""
    key: str = dataclasses.field(default="", repr=False)
    project: str = ""
    project_id: str = ""
    user_domain: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"id": "default"})
    project_domain: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"id": "default"})
    credential_id: str = ""
    credential_secret: str = dataclasses.field(default="", repr=False)

    def body(self) -> dict[str, Any]:
        """What is sent to `POST /v3/auth/tokens`."""
        if self.credential_id:
            secret = {"id": self.credential_id, "secret": self.credential_secret}
            return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": secret}}}
        project: dict[str, Any] = {"id": self.project_id}
        if not self.project_id:
            project = {"name": self.project, "domain": dict(self.project_domain)}
        user = {"name": self.user, "password": self.key, "domain": dict(self.user_domain)}
        return {
            "auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}
        }


def from_options(options: Mapping[str, Any]) -> Login | None:
    """The account that the options themselves describe; None when they describe none. `ConfigError`: half of one."""
    address = options["swift_store_auth_address"]
    user, key = options["swift_store_user"] or "", options["swift_store_key"] or ""
    credential = options["swift_store_application_credential_id"] or ""
    secret = options["swift_store_application_credential_secret"] or ""
    if not (user or key or credential or secret):
        return None
    return _login(
        {
            "auth_address": address or "",
            "user": user,
            "key": key,
            "application_credential_id": credential,
            "application_credential_secret": secret,
            "project_name": options["swift_store_project_name"] or "",
            "project_id": options["swift_store_project_id"] or "",
        },
        options["default_swift_reference"],
        "swift_store_{}",
    )


def from_file(text: str, path: str) -> dict[str, Login]:
    """The accounts of a reference file by the names of their sections. `ConfigError` for what cannot be used."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ConfigError(f"swift_store_config_file {path} is no INI file: {type(error).__name__}") from None
    found = {}
    for section in parser.sections():
        fields = {name: _unquoted(value) for name, value in parser.items(section)}
        found[section] = _login(fields, section, "{} in section [" + section + f"] of {path}")
    return found


def _login(fields: Mapping[str, str], reference: str, source: str) -> Login:
    def require(*names: str) -> None:
        for name in names:
            if not fields.get(name):
                raise ConfigError(f"{source.format(name)} is missing")

    credential = fields.get("application_credential_id") or ""
    require("auth_address")
    project, user = fields.get("project_name") or "", fields.get("user") or ""
    if credential:
        require("application_credential_secret")
    else:
        require("user", "key")
        if ":" in user:
            project, _, user = user.partition(":")
        elif not project and not fields.get("project_id"):
            raise ConfigError(f"{source.format('user')} must be written as project:user")
    wrong = ("application_credential_id", "application_credential_secret") if credential else ("user", "key")
    return Login(
        reference=reference,
        auth=identity_url(fields["auth_address"]),
        source=" and ".join(source.format(name) for name in wrong),
        user=user,
        key=fields.get("key") or "",
        project=project,
        project_id=fields.get("project_id") or "",
        user_domain=_domain(fields, "user"),
        project_domain=_domain(fields, "project"),
        credential_id=credential,
        credential_secret=fields.get("application_credential_secret") or "",
    )


def _domain(fields: Mapping[str, str], of: str) -> dict[str, str]:
    if value := fields.get(f"{of}_domain_id"):
        return {"id": value}
    if value := fields.get(f"{of}_domain_name"):
        return {"name": value}
    return {"id": "default"}


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """Access to one account: its storage URL and a token, None for access as nobody. `expires`: by `time.monotonic`."""

    storage: str
    token: str | None = dataclasses.field(repr=False)
    expires: float
    project: str = ""


class Access(Protocol):
    """Whoever can show a token."""

    async def grant(self, refused: Grant | None = None) -> Grant:
        """A grant to use now; never again the one that Swift `refused`. `Refused`, `StoreUnavailable`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """Which entry of the service catalogue is the storage; `endpoint` replaces it: with %(project_id)s, %(tenant_id)s,
    or the whole storage URL of the account."""

    service_type: str
    interface: str
    region: str | None
    endpoint: str | None

    def storage(self, name: str, catalog: Any, project: str) -> str:
        """The storage URL of a project, out of the catalogue that came with its token."""
        if self.endpoint:
            return self.fixed(project)
        interface = self.interface.removesuffix("URL")
        for service in catalog or ():
            if service.get("type") != self.service_type:
                continue
            for endpoint in service.get("endpoints", ()):
                where = endpoint.get("region_id") or endpoint.get("region")
                if endpoint.get("interface") == interface and self.region in (None, "", where):
                    return str(endpoint["url"]).rstrip("/")
        raise Refused(
            f"store {name}: the service catalogue has no {interface} address of type {self.service_type}"
            + (f" in region {self.region}" if self.region else "")
            + ": correct swift_store_service_type, swift_store_endpoint_type, swift_store_region, or give"
            " swift_store_endpoint"
        )

    def fixed(self, project: str) -> str:
        """`endpoint` for a project."""
        assert self.endpoint is not None
        found = re.sub(r"[%$]\((?:project|tenant)_id\)s", project, self.endpoint)
        return found.rstrip("/")


class Account:
    """The store's own account by one `Login`. Its token is fetched when needed, `soon` seconds before it ends."""

    def __init__(self, web: Web, login: Login, catalogue: Catalogue, *, soon: int) -> None:
        self.login = login
        self._web, self._catalogue, self._soon = web, catalogue, soon
        self._grant: Grant | None = None
        self._lock = asyncio.Lock()
        self._refusal: tuple[float, str] | None = None

    async def grant(self, refused: Grant | None = None) -> Grant:
        async with self._lock:
            known = self._grant
            stale = known is None or known is refused or (refused is not None and known.token == refused.token)
            if known is None or stale or known.expires - self._soon <= time.monotonic():
                if self._refusal is not None and time.monotonic() < self._refusal[0] + _AGAIN:
                    raise Refused(self._refusal[1])
                self._grant = known = await self._login()
            return known

    async def _login(self) -> Grant:
        status, headers, body = await ask_keystone(
            self._web, "POST", f"{self.login.auth}/auth/tokens", self.login.body()
        )
        if status == 201:
            self._refusal = None
            token = body["token"]
            project = str(token.get("project", {}).get("id", ""))
            lives = seconds(token["expires_at"]) - seconds(token["issued_at"])
            storage = self._catalogue.storage(self._web.name, token.get("catalog"), project)
            return Grant(storage, headers["X-Subject-Token"], time.monotonic() + lives, project)
        if status in (400, 401, 403, 404):
            what = "is no identity service (version 3)" if status == 404 else "refuses the login"
            message = f"store {self._web.name}: {self.login.auth} {what}: correct {self.login.source}"
            self._refusal = time.monotonic(), message
            raise Refused(message)
        raise StoreUnavailable(f"store {self._web.name}: the identity service fails now ({status})")


@dataclasses.dataclass(frozen=True, slots=True)
class Elsewhere:
    """The store's own token for the account of somebody else (`storage`), who lets it in by an ACL, or whose Swift
    gives it the role for all accounts."""

    account: Account
    storage: str

    async def grant(self, refused: Grant | None = None) -> Grant:
        given = await self.account.grant(dataclasses.replace(refused, storage="") if refused else None)
        return dataclasses.replace(given, storage=self.storage)


@dataclasses.dataclass(frozen=True, slots=True)
class Borrowed:
    """A caller's token, which nobody can renew (None: as nobody), for the account `storage`."""

    name: str
    storage: str
    token: str | None = dataclasses.field(repr=False)

    async def grant(self, refused: Grant | None = None) -> Grant:
        if refused is not None:
            raise Refused(
                f"store {self.name}: Swift does not take the caller's token (any more). A token must be valid whenever"
                " a segment of the transfer begins: ask for a new one, or raise the lifetime of tokens in Keystone"
                if self.token
                else f"store {self.name}: Swift wants a token, and nobody's is at hand: give the store a service"
                " account (swift_store_user, swift_store_key)"
            )
        return Grant(self.storage, self.token, float("inf"))


class Projects:
    """The storage URLs of callers' projects, by the catalogue that Keystone gives for their tokens."""

    def __init__(self, web: Web, auth: str | None, catalogue: Catalogue) -> None:
        self._web, self.auth, self._catalogue = web, auth, catalogue
        self._known: dict[str, tuple[float, str]] = {}
        self._roots: set[str] = set()
        if catalogue.endpoint and (found := catalogue.fixed("\0")).count("\0") == 1:
            self._roots.add(found.partition("\0")[0])

    def roots(self) -> set[str]:
        """What storage URLs of our Swift begin with, up to the project; empty while it is not known."""
        return self._roots

    def learn(self, storage: str, project: str) -> None:
        """The storage URL of one project shows where those of the others are."""
        if project and project in storage:
            self._roots.add(storage.partition(project)[0])

    async def storage(self, token: str, project: str) -> str:
        """`Refused` when the token or the catalogue is no good."""
        if self._catalogue.endpoint:
            return self._catalogue.fixed(project)
        assert self.auth is not None
        at, known = self._known.get(project, (0.0, ""))
        if known and time.monotonic() < at + _CATALOGUE:
            return known
        status, _, body = await ask_keystone(self._web, "GET", f"{self.auth}/auth/catalog", token=token)
        if status in (401, 403, 404):
            raise Refused(f"store {self._web.name}: the identity service does not take the caller's token (any more)")
        if status != 200:
            raise StoreUnavailable(f"store {self._web.name}: the identity service fails now ({status})")
        found = self._catalogue.storage(self._web.name, body.get("catalog"), project)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[project] = time.monotonic(), found
        self.learn(found, project)
        return found
