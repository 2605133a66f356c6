"""Rights on one image. Pure functions over caller, image and rules; nothing is loaded or changed here.

The order is always the same: an image that the caller cannot see is NotFound, whatever was asked; one that he
sees and may not do this to is Forbidden (API reference, sections "Common rules", "Visibility" and "Default
rights").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xloud_image.errors import Forbidden, NoSuchImage, NotFound

if TYPE_CHECKING:
    from xloud_image.model import Image, Location, Member
    from xloud_image.policy import Policy
    from xloud_image.policy.caller import Caller
    from xloud_image.policy.properties import Action

_FIELDS = (
    "id", "image_id", "name", "status", "visibility", "protected", "os_hidden", "container_format", "disk_format",
    "min_disk", "min_ram", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at",
    "updated_at", "tags",
)  # fmt: skip


class ImageTarget(Mapping[str, Any]):
    """An image as rules see it: `project_id` and `owner`, `member_id`, `visibility`, the other fields, its
    properties.

    `member`: the project whose membership is asked about. A key without a value is absent, so a rule that
    compares it refuses: no caller without a project ever matches an image without owner. Who reads such an image
    is for its visibility to say: private is administrators' alone.
    """

    __slots__ = ("image", "member")

    def __init__(self, image: Image, member: str | None = None) -> None:
        self.image = image
        self.member = member

    def __getitem__(self, key: str) -> Any:
        image = self.image
        if key in ("project_id", "owner", "tenant"):
            if image.owner is None:
                raise KeyError(key)
            return image.owner
        if key in ("member_id", "member"):
            if self.member is None:
                raise KeyError(key)
            return self.member
        if key == "image_id":
            return image.id
        if key in _FIELDS:
            return getattr(image, key)
        return image.properties[key]

    def __iter__(self) -> Iterator[str]:
        names = (*_FIELDS, "project_id", "owner", "tenant", "member_id", "member", *self.image.properties)
        return (name for name in dict.fromkeys(names) if name in self)

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return sum(1 for _ in self)


def image_target(image: Image, ctx: Caller | None = None) -> ImageTarget:
    """The target for a rule; with `ctx`, the caller's own membership counts as `member_id` while the image is
    shared. Whoever sees a shared image that has no owner counts as a member of it, as with Glance.
    """
    known = image.membership is not None or image.owner is None
    shared = ctx is not None and known and image.visibility == "shared"
    return ImageTarget(image, ctx.project if shared and ctx is not None else None)


def may_do(policy: Policy, ctx: Caller) -> Callable[[Action, str], bool]:
    """Whether the caller may do this to a property of this name, as a function."""
    return lambda action, name: policy.may_touch(ctx, action, name)


def owns(ctx: Caller, image: Image) -> bool:
    """Whether the image belongs to the caller's project."""
    return image.owner is not None and image.owner == ctx.project


def may_see(ctx: Caller, image: Image) -> bool:
    """The table of visibility, for a look-up by id: admin everything; public and community everybody; owner;
    shared also each member, whatever its answer was, and everybody when it has no owner, as with Glance. Private
    without an owner is administrators' alone, whatever the rules say. The rule `get_image` comes on top: see
    `require_see`.
    """
    if ctx.is_admin or image.visibility in ("public", "community"):
        return True
    if image.visibility == "shared" and (image.owner is None or image.membership is not None):
        return True
    return owns(ctx, image)


def may_read(policy: Policy, ctx: Caller, image: Image) -> bool:
    """Whether the rule `get_image` lets the caller read an image that its visibility does not keep from him."""
    return policy.allows(ctx, "get_image", image_target(image, ctx))


def require_see(policy: Policy, ctx: Caller, image: Image) -> None:
    """Raises NotFound when the caller cannot see the image, by the table or by the rule `get_image`."""
    if not may_see(ctx, image) or not may_read(policy, ctx, image):
        raise NoSuchImage(image.id)


def require(policy: Policy, ctx: Caller, rule: str, image: Image, *, message: str | None = None) -> None:
    """The visibility lets the caller know of the image (else NotFound), and the rule allows it.

    The rule stands alone: who may download need not be a reader too. When it refuses, `get_image` decides whether the
    caller may know that the image is there: Forbidden, or NotFound.
    With `enforce_new_defaults = false`, rules that change the image also want its owner or an administrator,
    because the older default rules left that to the code.
    """
    if not may_see(ctx, image):
        raise NoSuchImage(image.id)
    if not policy.allows(ctx, rule, image_target(image, ctx)):
        require_see(policy, ctx, image)
        raise Forbidden(message or policy.refusal(ctx, rule))
    if not policy.new_defaults and rule in _OWNERS and not (ctx.is_admin or owns(ctx, image)):
        raise Forbidden(message or "This image belongs to another project.")


_OWNERS = frozenset(
    {
        "delete_image", "modify_image", "upload_image", "communitize_image", "set_image_location",
        "delete_image_location", "deactivate", "reactivate", "add_member", "delete_member", "choose_store",
    }
)  # fmt: skip


def require_create(policy: Policy, ctx: Caller, image: Image) -> None:
    """A new image: `add_image` for its owner, and the right to its visibility. An image without owner is
    never made.
    """
    if ctx.read_only:
        raise Forbidden(policy.refusal(ctx, "add_image"))
    if image.owner is None:
        raise Forbidden("An image needs an owner; use a token for a project, or name the owner as administrator.")
    target = image_target(image)
    foreign = None
    if image.owner != ctx.project and not ctx.is_admin:
        foreign = f"You may not create images that belong to the project '{image.owner}'."
    policy.require(ctx, "add_image", target, message=foreign)
    if foreign and not policy.new_defaults:
        raise Forbidden(foreign)
    _require_visibility(policy, ctx, image, image.visibility)


def require_visibility(policy: Policy, ctx: Caller, image: Image, visibility: str) -> None:
    """A change of the visibility: `modify_image`, and the right to the new value."""
    require(policy, ctx, "modify_image", image)
    if visibility != image.visibility:
        _require_visibility(policy, ctx, image, visibility)


def _require_visibility(policy: Policy, ctx: Caller, image: Image, visibility: str) -> None:
    rule = {"public": "publicize_image", "community": "communitize_image"}.get(visibility)
    if rule:
        policy.require(ctx, rule, image_target(image, ctx))


def require_owner_change(policy: Policy, ctx: Caller, image: Image) -> None:
    """Only an administrator gives an image to another project, by any operation of PATCH."""
    require(policy, ctx, "modify_image", image)
    if not ctx.is_admin:
        raise Forbidden("Only an administrator may change the owner of an image.")


def require_download(policy: Policy, ctx: Caller, image: Image, *, chosen_store: bool = False) -> None:
    """Reading the data. A deactivated image gives its data to administrators only."""
    require(policy, ctx, "download_image", image)
    if chosen_store:
        policy.require(ctx, "download_from_store", image_target(image, ctx))
    if image.status == "deactivated" and not ctx.is_admin:
        raise Forbidden("This image is deactivated; its data cannot be downloaded.")


def require_upload(policy: Policy, ctx: Caller, image: Image, *, chosen_store: bool = False) -> None:
    """Writing the data; `chosen_store`: the request names a store (rule `choose_store`, of this service
    only).
    """
    require(policy, ctx, "upload_image", image)
    if chosen_store:
        require(policy, ctx, "choose_store", image)


def known_locations(ctx: Caller, image: Image) -> tuple[Location, ...]:
    """The locations that the caller may hear of: of a deactivated image none, but for an administrator."""
    return () if image.status == "deactivated" and not ctx.is_admin else image.locations


def may_see_locations(policy: Policy, ctx: Caller, image: Image) -> bool:
    """Whether `locations` (and `direct_url`) may be shown to the caller, those that `known_locations` leaves."""
    return policy.allows(ctx, "get_image_location", image_target(image, ctx))


def require_members(policy: Policy, ctx: Caller, rule: str, image: Image) -> None:
    """The member calls: the rule allows it (see `require`), and the image is shared.

    For `get_members`, `add_member`, `delete_member`; which rows he sees tells `may_see_member`.
    """
    require(policy, ctx, rule, image)
    _require_shared(image)


def may_see_member(policy: Policy, ctx: Caller, image: Image, member: Member) -> bool:
    """Owner and administrator see every row, a member its own. A row that is not seen is NotFound."""
    return policy.allows(ctx, "get_member", ImageTarget(image, member.member))


def require_member_seen(policy: Policy, ctx: Caller, image: Image, project: str, member: Member | None) -> Member:
    """One row by name, None when there is none: NotFound then, and for a row of somebody else."""
    if not may_see(ctx, image):
        raise NoSuchImage(image.id)
    if member is None or not may_see_member(policy, ctx, image, member):
        require_see(policy, ctx, image)
        _require_shared(image)
        raise no_such_member(image.id, project)
    _require_shared(image)
    return member


def _require_shared(image: Image) -> None:
    if image.visibility != "shared":
        raise Forbidden("Only shared images have members.")


def require_answer(policy: Policy, ctx: Caller, image: Image, project: str, member: Member | None) -> None:
    """Setting the status of a membership: the member project or an administrator, never the owner."""
    found = require_member_seen(policy, ctx, image, project, member)
    policy.require(
        ctx,
        "modify_member",
        ImageTarget(image, found.member),
        message="Only the project with which the image is shared may accept or reject it.",
    )


def no_such_member(image_id: str, member: str) -> NotFound:
    """The one answer for members that do not exist and for those that the caller cannot see."""
    return NotFound(f"No member {member} of the image {image_id} was found.")
