"""The parts of `Settings` about who is let in and by which rules. What can leave the service open is refused here."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oslo_config import cfg

from xloud_image.config.findings import Kind
from xloud_image.config.options.derived import AUTH_PLUGIN
from xloud_image.config.settings import (
    AuthSettings,
    HealthSettings,
    KeystoneSettings,
    PolicySettings,
)

if TYPE_CHECKING:
    from xloud_image.config.values import Values

TOKEN: Final = "keystone_authtoken"  # noqa: S105 - the name of a section
EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - Glance's default
_PASSWORD: Final = frozenset({"password", "v3password"})
_CREDENTIAL: Final = frozenset({"v3applicationcredential"})
_HEALTH: Final = "/healthcheck"
CACHES: Final = frozenset({"caching", "cachemanagement"})  # parts of a flavor that say nothing of who is let in


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def auth(values: Values, *, embedded: bool) -> AuthSettings:
    """How callers are known: [xloud] auth, else by the flavor, else Keystone if there is a section for it."""
    get = values.get
    method = _method(values)
    if method == "keystone" and _has_keystone(values):
        # who calls is checked, so that it is as with Glance; without a login, and with one of ours, it stays loopback
        values.default("DEFAULT", "bind_host", EVERY_ADDRESS)
    open_to_others = not is_loopback(get("DEFAULT", "bind_host"))
    if method == "none" and open_to_others:
        cure = "set HOST to 127.0.0.1" if embedded else "set bind_host to 127.0.0.1, or auth to keystone or http_basic"
        text = f"none lets every caller in as admin, so only a loopback address may be listened on; {cure}"
        values.refuse(text, "xloud", "auth", Kind.UNSAFE)
    anonymous, confirmed = get("DEFAULT", "allow_anonymous_access"), get("xloud", "anonymous_off_loopback")
    if anonymous and open_to_others and not confirmed:
        text = "on an address that others can reach it must be confirmed by [xloud] anonymous_off_loopback = true"
        values.refuse(text, "DEFAULT", "allow_anonymous_access", Kind.UNSAFE)
    users = get("xloud", "http_basic_user_file") or get("oslo_middleware", "http_basic_auth_user_file")
    projects = get("xloud", "http_basic_projects_file")
    if method == "http_basic":
        for option, file in (("http_basic_user_file", users), ("http_basic_projects_file", projects)):
            if not file:
                values.refuse("is missing; auth = http_basic needs it", "xloud", option)
            else:
                readable(values, Path(file), "xloud", option)
    return values.fill(
        AuthSettings,
        method=method,
        http_basic_user_file=users or None,
        keystone=_keystone(values) if method == "keystone" else None,
    )


def flavor_parts(values: Values) -> list[str]:
    """What the flavor is made of: words with plus signs between."""
    return [part.strip() for part in (values.get("paste_deploy", "flavor") or "").split("+") if part.strip()]


def _has_keystone(values: Values) -> bool:
    return values.is_set(TOKEN, "auth_url") or values.is_set(TOKEN, "auth_section")


def _method(values: Values) -> str:
    flavor = (values.get("paste_deploy", "flavor") or "").strip()
    parts = flavor_parts(values)
    for part in parts:
        if part not in ("keystone", "http_basic", *CACHES):
            text = f"'{part}' is no way to let callers in that is known here; keystone and http_basic are"
            values.refuse(text, "paste_deploy", "flavor", Kind.UNSAFE)
    asked = values.get("xloud", "auth")
    by_flavor = next((part for part in parts if part in ("keystone", "http_basic")), None)
    if asked:
        if by_flavor and asked == "none":
            # a door left open by a forgotten line would be noticed too late
            text = f"lets everybody in, flavor = {flavor} does not: remove one of the two"
            values.refuse(text, "xloud", "auth", Kind.UNSAFE)
        elif by_flavor and by_flavor != asked:
            values.guess(f"counts, not flavor = {flavor}", "xloud", "auth")
        return str(asked)
    if by_flavor:
        return by_flavor
    if _has_keystone(values):
        text = "names no way to let callers in; keystone is taken, because [keystone_authtoken] is there"
        values.guess(text, "paste_deploy", "flavor")
    else:
        text = (
            "nothing says who is let in: set flavor = keystone with a section [keystone_authtoken], or [xloud] auth = "
            "http_basic or none (none: loopback only)"
        )
        values.refuse(text, "paste_deploy", "flavor", Kind.UNSAFE)
    return "keystone"


def _keystone(values: Values) -> KeystoneSettings:
    def get(name: str) -> str | None:
        value = values.get(TOKEN, name)
        return value or None

    section = TOKEN
    if named := get("auth_section"):
        section = named
        values.register(section, [*AUTH_PLUGIN, cfg.StrOpt("auth_type", deprecated_name="auth_plugin")])
    auth_type = str((values.get(section, "auth_type") or get("auth_type")) if section != TOKEN else get("auth_type"))
    options = {opt.dest: values.get(section, opt.dest) for opt in AUTH_PLUGIN if values.get(section, opt.dest)}
    _complete(values, section, auth_type, options)
    shared = values.get(TOKEN, "memcached_servers")
    if values.get(TOKEN, "memcache_tls_enabled") or values.get(TOKEN, "memcache_sasl_enabled"):
        shared = []  # without the one tokens would cross the network in the clear, without the other nobody answers
    strategy = get("memcache_security_strategy")
    strategy = None if strategy is None or strategy.lower() == "none" else strategy.upper()
    if strategy and not get("memcache_secret_key"):
        values.refuse("is missing; memcache_security_strategy needs it", TOKEN, "memcache_secret_key")
    return values.fill(
        KeystoneSettings,
        auth_type=auth_type,
        auth=options,
        interface=(get("interface") or "internal").removesuffix("URL"),
        memcached_servers=tuple(shared),
        memcache_security_strategy=strategy,
        service_type=get("service_type") or "image",
    )


def _complete(values: Values, section: str, auth_type: str, options: dict[str, str]) -> None:
    """Refuses what can never get a token of its own; each missing option by name."""

    def missing(*names: str) -> None:
        if not any(options.get(name) for name in names):
            values.refuse(f"is missing; tokens cannot be checked without it (auth_type {auth_type})", section, names[0])

    missing("auth_url")
    if auth_type in _PASSWORD:
        missing("username", "user_id")
        missing("password")
        missing("project_name", "project_id", "domain_id", "domain_name", "system_scope", "trust_id")
    elif auth_type in _CREDENTIAL:
        missing("application_credential_id", "application_credential_name")
        missing("application_credential_secret")


def policy(values: Values) -> PolicySettings:
    """The operator's rules. A file that is not there is told of when it is named."""
    file = values.beside(values.get("oslo_policy", "policy_file"))
    named = values.is_set("oslo_policy", "policy_file")
    if named and file and not file.exists():
        # as Glance takes it; nothing of what it was to say can be known
        values.guess(f"{file} does not exist: the default rules are in force", "oslo_policy", "policy_file")
    if file and file.exists():
        readable(values, file, "oslo_policy", "policy_file")
    protection = values.beside(values.get("DEFAULT", "property_protection_file") or "")
    protected = protection is not None and values.is_set("DEFAULT", "property_protection_file")
    if protection is not None and protected:
        readable(values, protection, "DEFAULT", "property_protection_file")
    dirs = [values.beside(name) for name in values.get("oslo_policy", "policy_dirs")]
    return values.fill(
        PolicySettings,
        policy_file=str(file) if file and file.exists() else None,
        policy_dirs=tuple(str(path) for path in dirs if path and path.is_dir()),
        property_protection_file=str(protection) if protected else None,
        property_protection_rule_format=values.get("DEFAULT", "property_protection_rule_format").lower(),
    )


def readable(values: Values, path: Path, group: str, name: str) -> None:
    """Refuses a file that cannot be opened for reading."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        values.refuse(f"{path} cannot be read: {error.strerror}", group, name)


def health(values: Values) -> HealthSettings:
    """[healthcheck]."""
    path = values.get("healthcheck", "path")
    if not path.startswith("/"):
        # Glance does not read it: where its health check is, its paste file says
        values.guess(f"'{path}' does not begin with a slash: {_HEALTH} is taken", "healthcheck", "path")
        path = _HEALTH
    for one in values.get("healthcheck", "allowed_source_ranges"):
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            values.refuse(f"'{one}' is no network such as 10.1.2.0/24: {error}", "healthcheck", "allowed_source_ranges")
    file = values.get("healthcheck", "disable_by_file_path")
    return values.fill(HealthSettings, path=path, disable_by_file_path=file or None)
