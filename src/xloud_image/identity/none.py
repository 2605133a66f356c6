"""No identity at all: everybody is the same administrator. Only for a service that listens on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xloud_image.errors import ConfigError
from xloud_image.identity.base import Identity
from xloud_image.identity.context import Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xloud_image.config.settings import AuthSettings
    from xloud_image.policy import Policy


class NoIdentity(Identity):
    """A fixed user in one project, with the roles that Keystone's bootstrap gives an administrator."""

    def __init__(self, settings: AuthSettings, policy: Policy) -> None:
        super().__init__(policy)
        if not settings.none_project:
            raise ConfigError("authentication 'none' needs a project: every image needs an owner")
        self._settings = settings

    async def authenticate(
        self,
        headers: Mapping[str, str],
        *,
        method: str | None = None,
        path: str | None = None,
        address: str | None = None,
    ) -> Context:
        """Always the administrator; the headers are not looked at."""
        roles = frozenset({"admin", "manager", "member", "reader"})
        return Context(
            user=self._settings.none_user,
            project=self._settings.none_project,
            roles=roles,
            is_admin=self._policy.is_admin(roles),
        )
