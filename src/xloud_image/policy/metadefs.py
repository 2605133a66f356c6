"""Rights on metadata definitions: all that a namespace holds is as visible as itself. Pure functions.

Source: Image API reference, sections "Metadata definitions" and "Default rights".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xloud_image.errors import Forbidden, NoSuchNamespace

if TYPE_CHECKING:
    from xloud_image.model import Namespace
    from xloud_image.policy import Policy
    from xloud_image.policy.caller import Caller


def _target(namespace: Namespace) -> dict[str, Any]:
    """A namespace as rules see it."""
    owner = namespace.owner
    return {"project_id": owner, "owner": owner, "tenant": owner, "visibility": namespace.visibility}


def _by_table(ctx: Caller, namespace: Namespace) -> bool:
    if ctx.is_admin or namespace.visibility == "public":
        return True
    return bool(ctx.project) and ctx.project == namespace.owner


def may_see(policy: Policy, ctx: Caller, namespace: Namespace) -> bool:
    """Whether it is the caller's own, public, or he an administrator, and the rule `get_metadef_namespace` lets him."""
    return _by_table(ctx, namespace) and policy.allows(ctx, "get_metadef_namespace", _target(namespace))


def require_see(policy: Policy, ctx: Caller, namespace: Namespace) -> None:
    """`NoSuchNamespace` unless the caller may see it."""
    if not may_see(policy, ctx, namespace):
        raise NoSuchNamespace(namespace.name)


def allows(policy: Policy, ctx: Caller, rule: str, namespace: Namespace) -> bool:
    """Whether the rule allows it in this namespace."""
    return policy.allows(ctx, rule, _target(namespace))


def require(policy: Policy, ctx: Caller, rule: str, namespace: Namespace) -> None:
    """The rule allows it, else Forbidden; `NoSuchNamespace` for one that the caller may not know of."""
    if not _by_table(ctx, namespace):
        raise NoSuchNamespace(namespace.name)
    if not policy.allows(ctx, rule, _target(namespace)):
        require_see(policy, ctx, namespace)
        raise Forbidden(policy.refusal(ctx, rule))


def require_owner(ctx: Caller, owner: str) -> None:
    """Only administrators give a namespace to another project than their own."""
    if not ctx.is_admin and owner != ctx.project:
        raise Forbidden("Only administrators choose another project as owner.")
