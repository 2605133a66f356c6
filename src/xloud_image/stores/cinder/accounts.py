"""Who the cinder store is in Cinder: the service account or the caller, and where Cinder is. No volumes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xloud_image.errors import ConfigError, StoreRefused
from xloud_image.stores.base import Caller
from xloud_image.stores.kit.keystone import Account, Catalogue, Grant, Login, Projects, identity_url
from xloud_image.stores.kit.web import Web

_SOON: Final = 60.0  # a token is renewed so many seconds before it ends
_FOUR: Final = ("auth_address", "user_name", "password", "project_name")


class Accounts:
    """`own`: there is a service account. `ConfigError` for half of one, and where no endpoint could ever be found."""

    def __init__(self, web: Web, options: Mapping[str, Any]) -> None:
        login = _login(options)
        service, _, rest = (options["cinder_catalog_info"] or "").partition(":")
        interface = rest.partition(":")[2].removesuffix("URL")
        if not service or not interface:
            raise ConfigError("cinder_catalog_info must be written as type:name:interface")
        template, address = options["cinder_endpoint_template"], options["cinder_store_auth_address"]
        if login is None and not template and not address:
            raise ConfigError(
                "nothing says where Cinder is: give cinder_endpoint_template, or with"
                " cinder_store_auth_address a catalogue to look it up in, or a whole service account"
            )
        cure = "correct cinder_catalog_info or cinder_os_region_name, or give cinder_endpoint_template"
        catalogue = Catalogue(service, interface, options["cinder_os_region_name"], template, cure)
        self._account = None if login is None else Account(web, login, catalogue, soon=_SOON)
        self._projects = Projects(web, identity_url(address) if address else None, catalogue)

    @property
    def own(self) -> bool:
        return self._account is not None

    async def grant(self, caller: Caller | None, refused: Grant | None = None) -> Grant:
        """What to use now; not again the one that Cinder `refused`. `StoreRefused`, `StoreUnavailable`."""
        if self._account is not None:
            return await self._account.grant(refused)
        if caller is None or not caller.token or refused is not None:
            why = "needs a caller's token and has none here" if refused is None else "does not take the caller's token"
            raise StoreRefused(
                f"it has no service account and Cinder {why}: give it one (cinder_store_user_name and the other three)"
            )
        return Grant(await self._projects.url(caller.token, caller.project or ""), caller.token)


def _login(options: Mapping[str, Any]) -> Login | None:
    """The service account; None when the options name none, but perhaps where Keystone is."""
    values = {key.removeprefix("cinder_store_"): options[key] or "" for key in options if "cinder_store_" in key}
    wanted = ("auth_address", "application_credential_secret") if values["application_credential_id"] else _FOUR
    if wanted is _FOUR and not any(values[field] for field in _FOUR[1:]):
        return None
    if missing := [f"cinder_store_{field}" for field in wanted if not values[field]]:
        raise ConfigError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: a service account"
            " needs all of cinder_store_auth_address, _user_name, _password, _project_name; without any of these"
            " volumes belong to each caller"
        )
    return Login(
        auth=identity_url(values["auth_address"]),
        source="the cinder_store_ options of the account",
        user=values["user_name"],
        key=values["password"],
        project=values["project_name"],
        user_domain={"name": values["user_domain_name"] or "Default"},
        project_domain={"name": values["project_domain_name"] or "Default"},
        credential_id=values["application_credential_id"],
        credential_secret=values["application_credential_secret"],
    )
