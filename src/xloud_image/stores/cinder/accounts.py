"""Who the cinder store is in Cinder: the service account or the caller, tokens, and the endpoint. No volumes here.

A refused login is not repeated for ten seconds: Keystone may lock a user after several of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from xloud_image.errors import ConfigError, StoreUnavailable
from xloud_image.stores.base import Caller
from xloud_image.stores.kit.keystone import ask_keystone, identity_url, seconds
from xloud_image.stores.kit.web import Web

_SOON: Final = 60.0  # a token is renewed so many seconds before it ends
_AGAIN: Final = 10.0  # seconds for which a refused login stays refused
_KNOWN: Final = 1024  # projects whose endpoint is remembered
_FOUR: Final = ("auth_address", "user_name", "password", "project_name")


class Refused(StoreUnavailable):
    """Keystone or Cinder does not let us in; trying again cannot help before somebody changes something."""

    temporary = False


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """`endpoint`: Cinder's URL with its version and project. `own`: the service account's. `expires`: monotonic."""

    endpoint: str
    token: str = dataclasses.field(repr=False)
    own: bool
    expires: float = float("inf")


class Accounts:
    """`own`: there is a service account. `ConfigError` for half of one, and where no endpoint could ever be found."""

    def __init__(self, name: str, web: Web, options: Mapping[str, Any]) -> None:
        self._name, self._web = name, web
        values = {key.removeprefix("cinder_store_"): options[key] or "" for key in options if "cinder_store_" in key}
        self._credential: str = values["application_credential_id"]
        given = [field for field in _FOUR if values[field]]
        if self._credential:
            missing = [field for field in ("auth_address", "application_credential_secret") if not values[field]]
        else:
            missing = [field for field in _FOUR if not values[field]] if set(given) - {"auth_address"} else []
        if missing:
            names = " and ".join(f"cinder_store_{field}" for field in missing)
            raise ConfigError(
                f"store {name}: {names} {'is' if len(missing) == 1 else 'are'} missing: a service account needs all of"
                " cinder_store_auth_address, _user_name, _password, _project_name; without any of these volumes"
                " belong to each caller"
            )
        self.own = bool(self._credential or set(given) - {"auth_address"})
        self._values = values
        self._auth = identity_url(values["auth_address"]) if values["auth_address"] else None
        self._template: str | None = options["cinder_endpoint_template"]
        self._service: str
        self._service, _, rest = (options["cinder_catalog_info"] or "").partition(":")
        _, _, interface = rest.partition(":")
        self._interface = interface.removesuffix("URL")
        if not self._service or not self._interface:
            raise ConfigError(f"store {name}: cinder_catalog_info must be written as type:name:interface")
        self._region: str | None = options["cinder_os_region_name"]
        if not self.own and not self._template and not self._auth:
            raise ConfigError(
                f"store {name}: nothing says where Cinder is: give cinder_endpoint_template, or with"
                " cinder_store_auth_address a catalogue to look it up in, or a whole service account"
            )
        self._grant: Grant | None = None
        self._lock = asyncio.Lock()
        self._refusal: tuple[float, str] | None = None
        self._endpoints: dict[str, str] = {}  # by project, in the callers' catalogues

    async def grant(self, caller: Caller | None, refused: Grant | None = None) -> Grant:
        """What to use now; not again the one that Cinder `refused`. `Refused`, `StoreUnavailable`."""
        if not self.own:
            return await self._callers(caller, refused)
        async with self._lock:
            known = self._grant
            if known is None or known is refused or known.expires - _SOON <= time.monotonic():
                if self._refusal is not None and time.monotonic() < self._refusal[0] + _AGAIN:
                    raise Refused(self._refusal[1])
                self._grant = known = await self._login()
            return known

    async def _callers(self, caller: Caller | None, refused: Grant | None) -> Grant:
        if caller is None or not caller.token or refused is not None:
            why = "needs a caller's token and has none here" if refused is None else "does not take the caller's token"
            raise Refused(
                f"store {self._name} has no service account and Cinder {why}: give it one (cinder_store_user_name and"
                " the other three)"
            )
        project = caller.project or ""
        if self._template:
            return Grant(_filled(self._template, project), caller.token, False)
        if project not in self._endpoints:
            status, _, body = await ask_keystone(self._web, "GET", f"{self._auth}/auth/catalog", token=caller.token)
            if status != 200:
                raise Refused(f"store {self._name}: the identity service does not take the caller's token ({status})")
            if len(self._endpoints) >= _KNOWN:
                self._endpoints.clear()
            self._endpoints[project] = self._find(body.get("catalog"))
        return Grant(self._endpoints[project], caller.token, False)

    async def _login(self) -> Grant:
        status, headers, body = await ask_keystone(self._web, "POST", f"{self._auth}/auth/tokens", self._body())
        if status == 201:
            self._refusal = None
            token = body["token"]
            project = str(token.get("project", {}).get("id", ""))
            lives = seconds(token["expires_at"]) - seconds(token["issued_at"])
            endpoint = _filled(self._template, project) if self._template else self._find(token.get("catalog"))
            return Grant(endpoint, headers["X-Subject-Token"], True, time.monotonic() + lives)
        if status in (400, 401, 403, 404):
            what = "is no identity service (version 3)" if status == 404 else "refuses the login"
            message = f"store {self._name}: {self._auth} {what}: correct the cinder_store_ options of the account"
            self._refusal = time.monotonic(), message
            raise Refused(message)
        raise StoreUnavailable(f"store {self._name}: the identity service fails now ({status})")

    def _body(self) -> dict[str, Any]:
        values = self._values
        if self._credential:
            secret = {"id": self._credential, "secret": values["application_credential_secret"]}
            return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": secret}}}
        user = {
            "name": values["user_name"],
            "password": values["password"],
            "domain": {"name": values["user_domain_name"] or "Default"},
        }
        project = {"name": values["project_name"], "domain": {"name": values["project_domain_name"] or "Default"}}
        return {
            "auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}
        }

    def _find(self, catalog: Any) -> str:
        for service in catalog or ():
            if service.get("type") != self._service:
                continue
            for endpoint in service.get("endpoints", ()):
                where = endpoint.get("region_id") or endpoint.get("region")
                if endpoint.get("interface") == self._interface and self._region in (None, "", where):
                    return str(endpoint["url"]).rstrip("/")
        raise Refused(
            f"store {self._name}: the service catalogue has no {self._interface} address of type {self._service}"
            + (f" in region {self._region}" if self._region else "")
            + ": correct cinder_catalog_info or cinder_os_region_name, or give cinder_endpoint_template"
        )


def _filled(template: str, project: str) -> str:
    return re.sub(r"[%$]\((?:project|tenant)_id\)s", project, template).rstrip("/")
