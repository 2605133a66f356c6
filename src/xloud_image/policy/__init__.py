"""Rights: the operator's rules in force, asked by name. Who the caller is stands in `identity`, images'
rights in `images`.

Reading the rules costs some milliseconds and happens at the start and on `reload`, never for a request;
asking one costs some microseconds.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final

from xloud_image.config.settings import PolicySettings
from xloud_image.errors import Forbidden
from xloud_image.policy import files, lists, properties
from xloud_image.policy.rules import BY_NAME, RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xloud_image.policy.caller import Caller
    from xloud_image.policy.checks import Compiled

_SIGHTS: Final = 4096  # what is remembered of them
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """A rule for the eye: its check in force, the default one, and the file and line that changed it (None:
    default).
    """

    name: str
    check: str
    default: str
    description: str
    calls: tuple[str, ...]
    source: str | None


class Policy:
    """The rules of one process. Safe to ask from any thread; `reload` swaps all rules at once.

    Raises ConfigError (a sentence with file and line) when the rules cannot be used.
    """

    def __init__(self, settings: PolicySettings | None = None) -> None:
        self._settings = settings or PolicySettings()
        self._loaded = files.load(self._settings)
        self._properties = _protection(self._settings, self._loaded)

    @property
    def protects_properties(self) -> bool:
        """Whether there may be properties that somebody may not read."""
        return self._properties is not None

    def may_touch(self, ctx: Caller, action: properties.Action, name: str) -> bool:
        """Whether the caller may do this to a property of an image (property protection)."""
        return self._properties is None or self._properties.allows(ctx, action, name)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know about the files: rules that nothing asks for, rules that stand twice."""
        return (*self._loaded.warnings, *(self._properties.warnings if self._properties else ()))

    @property
    def new_defaults(self) -> bool:
        """False: older, wider default rules count too, and `images` adds the owner's check that went with
        them.
        """
        return self._settings.enforce_new_defaults

    def reload(self) -> tuple[str, ...]:
        """Read the files again; the warnings. Raises ConfigError and keeps the rules in force when they
        cannot be used.
        """
        loaded = files.load(self._settings)
        self._properties = _protection(self._settings, loaded)
        self._loaded = loaded
        for warning in self.warnings:
            _LOG.warning("%s", warning)
        return self.warnings

    def allows(self, ctx: Caller, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether the rule lets this caller do it to `target` (keys as in `images.ImageTarget`; None: the own
        project).

        A read-only caller is refused by every rule that changes something, whatever the files say. With
        `enforce_scope`, a token for a domain or the system is refused by every rule that upstream ties to a
        project.
        """
        known = BY_NAME[rule]
        if ctx.read_only and not known.reads:
            return False
        if not known.base and self._settings.enforce_scope and (ctx.system_scope or ctx.domain):
            return False
        if target is None:
            target = {"project_id": ctx.project, "owner": ctx.project}
        return self._loaded.compiled[rule](target, credentials(ctx))

    def require(
        self, ctx: Caller, rule: str, target: Mapping[str, Any] | None = None, *, message: str | None = None
    ) -> None:
        """Raises Forbidden, with `message` or a sentence made from the rule, unless the rule allows it."""
        if not self.allows(ctx, rule, target):
            raise Forbidden(message or self.refusal(ctx, rule))

    def sight(self, ctx: Caller, rule: str, visibility: str, whose: str) -> lists.Sight:
        """What the rule says to this caller of a whole kind of images: see `lists.sight`. Answers are remembered."""
        loaded = self._loaded
        creds = credentials(ctx)
        key = (rule, visibility, whose, *creds.values())
        found = loaded.sights.get(key)
        if found is None:
            if len(loaded.sights) >= _SIGHTS:
                loaded.sights.clear()
            found = lists.sight(loaded.trees[rule], loaded.trees, creds, visibility, whose)
            loaded.sights[key] = found
        return found

    def refusal(self, ctx: Caller, rule: str) -> str:
        """The sentence for a refused caller."""
        does = BY_NAME[rule].does
        if ctx.read_only:
            return f"You may not {does}: without a token you may only read."
        if self._settings.enforce_scope and (ctx.system_scope or ctx.domain):
            scope = "the system" if ctx.system_scope else "a domain"
            return f"You may not {does} with a token for {scope}; use one for a project."
        return f"You may not {does} (rule {rule})."

    def is_admin(self, roles: Iterable[str], *, context: Caller | None = None) -> bool:
        """The rule `context_is_admin`, for a caller with these lower-case roles; `context` adds user and
        project.
        """
        creds: dict[str, Any] = credentials(context) if context else {}
        creds["roles"] = frozenset(roles)
        return self._loaded.compiled["context_is_admin"](creds, creds)

    def describe(self) -> tuple[Description, ...]:
        """Every known rule in the order of the API, then the operator's own building blocks."""
        loaded = self._loaded
        names = [*BY_NAME, *(name for name in loaded.stated if name not in BY_NAME)]
        rows = []
        for name in names:
            rule, stated = BY_NAME.get(name), loaded.stated.get(name)
            rows.append(
                Description(
                    name,
                    loaded.texts[name],
                    rule.check if rule else "",
                    rule.description if rule else "A rule of the operator's files.",
                    rule.calls if rule else (),
                    stated.place if stated else None,
                )
            )
        return tuple(rows)


def _protection(settings: PolicySettings, loaded: files.Loaded) -> properties.Protection | None:
    if settings.property_protection_file is None:
        return None

    def named(name: str) -> properties.Check | None:
        compiled: Compiled | None = loaded.compiled.get(name)
        return None if compiled is None else lambda ctx: compiled({}, credentials(ctx))

    return properties.load(settings.property_protection_file, settings.property_protection_rule_format, named)


def credentials(ctx: Caller) -> dict[str, Any]:
    """The caller as rules see it: the names on the left side of a check."""
    return {
        "roles": ctx.roles,
        "project_id": ctx.project,
        "user_id": ctx.user,
        "is_admin": ctx.is_admin,
        "service_roles": ctx.service_roles,
        "system_scope": ctx.system_scope,
        "system": ctx.system_scope,
        "domain_id": ctx.domain,
        "user_domain_id": ctx.user_domain,
        "project_domain_id": ctx.project_domain,
        "is_admin_project": True,
        "tenant": ctx.project,
        "project": ctx.project,
        "user": ctx.user,
    }


__all__ = ["RULES", "Description", "Policy", "credentials"]
