"""What a project may have, as the files say it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oslo_config import cfg

from xloud_image.config.options.derived import AUTH_PLUGIN
from xloud_image.config.settings import AuthSettings, LimitSettings, QuotaSettings

if TYPE_CHECKING:
    from xloud_image.config.values import Values

SECTION: Final = "oslo_limit"
_UNITS: Final = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def quotas(values: Values, auth: AuthSettings) -> QuotaSettings:
    """`auth`: whose account asks Keystone where [oslo_limit] has none of its own."""
    keystone = None
    if values.get("DEFAULT", "use_keystone_limits"):
        keystone = _limits(values, auth)
        if values.is_set("DEFAULT", "user_storage_quota") and _size(values):
            values.guess("does not count: use_keystone_limits is on", "DEFAULT", "user_storage_quota")
    return values.fill(QuotaSettings, user_storage_quota=_size(values), keystone=keystone)


def _size(values: Values) -> int:
    text = values.get("DEFAULT", "user_storage_quota").strip()
    match = re.fullmatch(r"(\d{0,18}) ?([KMGT]?B|)", text.upper())
    if match is None:
        values.refuse(f"'{text}' is no size like 500GB (B, KB, MB, GB or TB)", "DEFAULT", "user_storage_quota")
        return 0
    return min(int(match[1] or 0) * _UNITS[match[2]], 2**63 - 1)


def _limits(values: Values, auth: AuthSettings) -> LimitSettings:
    section = SECTION
    if named := values.get(SECTION, "auth_section"):
        section = named
        values.register(section, [*AUTH_PLUGIN, cfg.StrOpt("auth_type", deprecated_name="auth_plugin")])
    options = {opt.dest: values.get(section, opt.dest) for opt in AUTH_PLUGIN if values.get(section, opt.dest)}
    auth_type = str(values.get(section, "auth_type") or values.get(SECTION, "auth_type"))
    own_type = auth_type if values.is_set(SECTION, "auth_type") else None
    theirs = auth.keystone
    if not options and not named and theirs is not None:
        same = {name: getattr(theirs, name) for name in ("cafile", "certfile", "keyfile", "insecure", "region_name")}
        own = {name: value for name in same if (value := values.get(SECTION, name))}
        return values.fill(
            LimitSettings,
            auth_type=own_type or theirs.auth_type,
            auth=theirs.auth,
            **{**same, **own},
        )
    if not options.get("auth_url"):
        values.refuse("is missing; limits cannot be asked for without it", SECTION, "auth_url")
    return values.fill(LimitSettings, auth_type=auth_type, auth=options)
