"""Who asks. What he may do stands in `policy`; no store, database or route is known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xloud_image.errors import ConfigError
from xloud_image.identity.base import Identity
from xloud_image.identity.context import Context

if TYPE_CHECKING:
    from xloud_image.config.settings import AuthSettings
    from xloud_image.policy import Policy


def build(settings: AuthSettings, policy: Policy) -> Identity:
    """The identity that the settings name, not yet started. Raises ConfigError (one sentence) when it cannot
    work.
    """
    match settings.method:
        case "none":
            from xloud_image.identity.none import NoIdentity

            return NoIdentity(settings, policy)
        case "http_basic":
            from xloud_image.identity.basic import BasicIdentity

            return BasicIdentity(settings, policy)
        case "keystone":
            from xloud_image.identity.keystone import KeystoneIdentity

            if settings.keystone is None:
                raise ConfigError("authentication 'keystone' needs the section [keystone_authtoken]")
            return KeystoneIdentity(settings.keystone, policy, anonymous=settings.allow_anonymous_access)
    raise ConfigError(f"there is no authentication '{settings.method}'; the ways are keystone, http_basic and none")


__all__ = ["Context", "Identity", "build"]
