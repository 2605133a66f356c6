"""Keystone, for backends of services that take its tokens: logging in, the token that is kept, and where the catalogue
says that the service is. Who may call this service is `identity`'s.

Keystone is asked over the store's own connections, so a hung Keystone holds up this store only. A refused login is not
repeated for ten seconds: Keystone may lock a user after several of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from xloud_image.errors import StoreRefused, StoreUnavailable
from xloud_image.stores.kit.web import Web

_AGAIN: Final = 10.0  # seconds for which a refused login stays refused
_CATALOGUE: Final = 300.0  # seconds for which the address for a project is remembered
_REMEMBERED: Final = 1024  # projects


def identity_url(address: str) -> str:
    """Keystone's URL with version 3, whichever version or none was written."""
    address = address.strip().rstrip("/")
    if "://" not in address:
        address = f"https://{address}"
    base = re.sub(r"/v(2[.]0|3)\Z", "", address)
    return f"{base}/v3"


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """An account. `auth` is Keystone's URL up to its version; `project` is "" where only its id or an application
    credential is known. `source` names the options for whoever has to correct them."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """Access to one project: the service's URL for it, and a token, None for access as nobody. `expires`: by
    `time.monotonic`."""

    url: str
    token: str | None = dataclasses.field(repr=False)
    expires: float = float("inf")
    project: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """Which entry of the service catalogue is the service; `endpoint` replaces it: with %(project_id)s, %(tenant_id)s,
    or the whole URL for one project. `cure`: what to correct when it is not there."""

    service_type: str
    interface: str
    region: str | None
    endpoint: str | None
    cure: str

    def find(self, catalog: Any, project: str) -> str:
        """The service's URL for a project, out of the catalogue that came with its token. `StoreRefused`."""
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
        raise StoreRefused(
            f"the service catalogue has no {interface} address of type {self.service_type}"
            + (f" in region {self.region}" if self.region else "")
            + f": {self.cure}"
        )

    def fixed(self, project: str) -> str:
        """`endpoint` for a project."""
        assert self.endpoint is not None
        return re.sub(r"[%$]\((?:project|tenant)_id\)s", project, self.endpoint).rstrip("/")


class Account:
    """The store's own account by one `Login`. Its token is fetched when needed, `soon` seconds before it ends."""

    def __init__(self, web: Web, login: Login, catalogue: Catalogue, *, soon: float) -> None:
        self.login = login
        self._web, self._catalogue, self._soon = web, catalogue, soon
        self._grant: Grant | None = None
        self._lock = asyncio.Lock()
        self._refusal: tuple[float, str] | None = None

    async def grant(self, refused: Grant | None = None) -> Grant:
        """A grant to use now; never again the one that the service `refused`. `StoreRefused`, `StoreUnavailable`."""
        async with self._lock:
            known = self._grant
            stale = known is None or (refused is not None and known.token == refused.token)
            if known is None or stale or known.expires - self._soon <= time.monotonic():
                if self._refusal is not None and time.monotonic() < self._refusal[0] + _AGAIN:
                    raise StoreRefused(self._refusal[1])
                self._grant = known = await self._log_in()
            return known

    async def _log_in(self) -> Grant:
        auth = self.login.auth
        status, headers, body = await ask_keystone(self._web, "POST", f"{auth}/auth/tokens", self.login.body())
        if status == 201:
            self._refusal = None
            token = body["token"]
            project = str(token.get("project", {}).get("id", ""))
            lives = _seconds(token["expires_at"]) - _seconds(token["issued_at"])
            url = self._catalogue.find(token.get("catalog"), project)
            return Grant(url, headers["X-Subject-Token"], time.monotonic() + lives, project)
        if status in (400, 401, 403, 404):
            what = "is no identity service (version 3)" if status == 404 else "refuses the login"
            message = f"{auth} {what}: correct {self.login.source}"
            self._refusal = time.monotonic(), message
            raise StoreRefused(message)
        raise StoreUnavailable(f"the identity service fails now ({status})")


class Projects:
    """The service's URLs for callers' projects, by the catalogue that Keystone (`auth`) gives for their tokens."""

    def __init__(self, web: Web, auth: str | None, catalogue: Catalogue) -> None:
        self._web, self.auth, self._catalogue = web, auth, catalogue
        self._known: dict[str, tuple[float, str]] = {}

    async def url(self, token: str, project: str) -> str:
        """`StoreRefused` when the token or the catalogue is no good; `StoreUnavailable`."""
        if self._catalogue.endpoint:
            return self._catalogue.fixed(project)
        assert self.auth is not None
        at, known = self._known.get(project, (0.0, ""))
        if known and time.monotonic() < at + _CATALOGUE:
            return known
        status, _, body = await ask_keystone(self._web, "GET", f"{self.auth}/auth/catalog", token=token)
        if status in (401, 403, 404):
            raise StoreRefused("the identity service does not take the caller's token (any more)")
        if status != 200:
            raise StoreUnavailable(f"the identity service fails now ({status})")
        found = self._catalogue.find((body or {}).get("catalog"), project)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[project] = time.monotonic(), found
        return found


async def ask_keystone(
    web: Web, method: str, url: str, body: Any = None, *, token: str | None = None
) -> tuple[int, Mapping[str, str], Any]:
    """As `Web.json`."""
    headers = {} if token is None else {"X-Auth-Token": token}
    return await web.json("its identity service", method, url, headers=headers, limit=web.idle, body=body)


def _seconds(when: str) -> float:
    """A time as tokens have it, as Unix time."""
    return datetime.fromisoformat(when).timestamp()
