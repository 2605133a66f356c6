"""Who asks: the one value that identity hands to everything behind it. No rights are decided here."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """A caller. `roles` are lower-case. `is_admin` is the rule `context_is_admin`, decided once at the door.

    `read_only` marks anonymous access. `token` is for stores that work in the caller's account; it is never logged.
    `user_name` is for those who read, and decides nothing.
    """

    user: str | None = None
    project: str | None = None
    roles: frozenset[str] = frozenset()
    is_admin: bool = False
    read_only: bool = False
    user_domain: str | None = None
    project_domain: str | None = None
    system_scope: str | None = None
    domain: str | None = None
    service_roles: frozenset[str] = frozenset()
    token: str | None = dataclasses.field(default=None, repr=False)
    user_name: str | None = None
