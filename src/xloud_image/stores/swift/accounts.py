"""Who the swift store is in Swift: its own accounts, those of callers, and their storage URLs. No objects here."""

from __future__ import annotations

import configparser
import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Protocol

from xloud_image.errors import ConfigError, StoreRefused
from xloud_image.stores.kit import keystone
from xloud_image.stores.kit.keystone import Account, Catalogue, Grant, Login, identity_url
from xloud_image.stores.kit.web import Web

CURE: Final = (
    "correct swift_store_service_type, swift_store_endpoint_type, swift_store_region, or give swift_store_endpoint"
)


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
        found[section] = _login(fields, "{} in section [" + section + f"] of {path}")
    return found


def _login(fields: Mapping[str, str], source: str) -> Login:
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


class Access(Protocol):
    """Whoever can show a token."""

    async def grant(self, refused: Grant | None = None) -> Grant:
        """A grant to use now; never again the one that Swift `refused`. `StoreRefused`, `StoreUnavailable`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Elsewhere:
    """The store's own token for the account of somebody else (`storage`), who lets it in by an ACL, or whose Swift
    gives it the role for all accounts."""

    account: Account
    storage: str

    async def grant(self, refused: Grant | None = None) -> Grant:
        return dataclasses.replace(await self.account.grant(refused), url=self.storage)


@dataclasses.dataclass(frozen=True, slots=True)
class Borrowed:
    """A caller's token, which nobody can renew (None: as nobody), for the account `storage`."""

    storage: str
    token: str | None = dataclasses.field(repr=False)

    async def grant(self, refused: Grant | None = None) -> Grant:
        if refused is not None:
            raise StoreRefused(
                "Swift does not take the caller's token (any more). A token must be valid whenever"
                " a segment of the transfer begins: ask for a new one, or raise the lifetime of tokens in Keystone"
                if self.token
                else "Swift wants a token, and nobody's is at hand: give the store a service"
                " account (swift_store_user, swift_store_key)"
            )
        return Grant(self.storage, self.token)


class Projects(keystone.Projects):
    """The storage URLs of callers' projects; each shows where those of the others are."""

    def __init__(self, web: Web, auth: str | None, catalogue: Catalogue) -> None:
        super().__init__(web, auth, catalogue)
        self.roots: set[str] = set()  # what storage URLs of our Swift begin with, up to the project, as far as known
        if catalogue.endpoint and (found := catalogue.fixed("\0")).count("\0") == 1:
            self.roots.add(found.partition("\0")[0])

    def learn(self, storage: str, project: str) -> None:
        """From the storage URL of one project."""
        if project and project in storage:
            self.roots.add(storage.partition(project)[0])

    async def url(self, token: str, project: str) -> str:
        found = await super().url(token, project)
        if not self._catalogue.endpoint:
            self.learn(found, project)
        return found
