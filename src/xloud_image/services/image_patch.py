"""The changes of a PATCH, or the fields of a new image, applied to an image value. Pure: no database, no store.

Source: Image API reference, sections "Image entity", "Create" and "PATCH".
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xloud_image.config.settings import Limits
from xloud_image.errors import BadRequest, Conflict, Forbidden, QuotaExceeded, ReadOnlyField
from xloud_image.model import Image
from xloud_image.patch import Change
from xloud_image.policy.properties import Action
from xloud_image.schemas import BASE, READ_ONLY, RESERVED, RESERVED_PREFIX, ImageSchema

_FORMATS: Final = ("container_format", "disk_format")
_NUMBERS: Final = ("min_disk", "min_ram")
# whether somebody may do this to a property of this name (`policy.properties`)
May = Callable[[Action, str], bool]


def anything(_action: Action, _name: str) -> bool:
    """The rights of somebody who may do all to all properties."""
    return True


def guard_name(name: str) -> None:
    """Raise `ReadOnlyField` for names that no client may set, change or remove."""
    if name in READ_ONLY:
        raise ReadOnlyField(f"'{name}' is read-only.")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise ReadOnlyField(f"'{name[:80]}' is a reserved name.")


def new_image(
    fields: Mapping[str, Any], *, owner: str | None, schema: ImageSchema, limits: Limits, may: May = anything
) -> Image:
    """The image of a create request; `owner` is the caller's project, `may` what he may do to properties.

    `BadRequest`, `ReadOnlyField`, `QuotaExceeded`. Locations are not taken on create (`Forbidden`).
    """
    for name in fields:
        guard_name(name)
    if "locations" in fields:
        raise Forbidden("Locations are added to an image that exists already.")
    properties: dict[str, str | None] = {name: value for name, value in fields.items() if name not in BASE}
    require_counts(limits, properties=len(properties))  # before each of very many is looked at
    values: dict[str, Any] = {"owner": owner}
    for name, value in fields.items():
        schema.check(name, value)
        if name in properties:
            _require(may, "create", name)
        if name in BASE:
            values[name] = _stored(name, value)
    values["id"] = fields["id"].lower() if "id" in fields else str(uuid.uuid4())
    values.setdefault("tags", ())
    image = Image(properties=properties, **values)
    require_counts(limits, tags=len(image.tags))
    return image


def _stored(name: str, value: Any) -> Any:
    """A checked value of a base field as images have it. JSON writes a whole number as 20 or 20.0: both are 20."""
    if name in _NUMBERS:
        return int(value)
    if name == "owner":
        return value if value and value.strip() else None
    return unique(value) if name == "tags" else value


def unique(tags: Sequence[str]) -> tuple[str, ...]:
    """Each tag once, in the order given."""
    return tuple(dict.fromkeys(tags))


def require_counts(limits: Limits, *, properties: int | None = None, tags: int | None = None) -> None:
    """`QuotaExceeded` when there are more properties or tags than the operator allows; None: not asked."""
    if properties is not None and 0 <= limits.image_property_quota < properties:
        raise QuotaExceeded(f"{properties} properties; an image may have {limits.image_property_quota} here")
    if tags is not None and 0 <= limits.image_tag_quota < tags:
        raise QuotaExceeded(f"{tags} tags; an image may have {limits.image_tag_quota} here")


def apply(
    image: Image, changes: Sequence[Change], *, schema: ImageSchema, limits: Limits, may: May = anything
) -> Image:
    """The image after all `changes` in order; the first that is not possible raises, and nothing was changed.

    Changes of `/locations` are not for this function. `BadRequest`, `Forbidden`, `Conflict`, `QuotaExceeded`.
    """
    properties = dict(image.properties)
    fields: dict[str, Any] = {}
    for change in changes:
        name = change.path[0]
        guard_name(name)
        if name == "id":
            raise ReadOnlyField("'id' is read-only.")
        if name in BASE:
            fields[name] = _base_value(image, name, change, schema)
        else:
            _apply_property(properties, name, change, schema, may)
    result = image.replace(properties=properties, **fields)
    if may is anything:
        before, after = len(image.properties), len(properties)
    else:
        # of properties that the caller may not read those count that he gives: nothing tells him of the others
        given = {change.path[0] for change in changes if change.op == "add"}
        before = sum(may("read", name) for name in image.properties)
        after = sum(name in given or may("read", name) for name in properties)
    if after > before:
        require_counts(limits, properties=after)
    if result.tags != image.tags:
        require_counts(limits, tags=len(result.tags))
    return result


def _require(may: May, action: Action, name: str) -> None:
    if not may(action, name):
        raise Forbidden(f"You may not {action} the property '{name[:80]}' (property protection).")


def _apply_property(
    properties: dict[str, str | None], name: str, change: Change, schema: ImageSchema, may: May
) -> None:
    seen = may("read", name)
    exists = seen and name in properties
    if change.op == "remove":
        if not exists:
            raise Conflict(f"The image has no property '{name[:80]}'.")
        _require(may, "delete", name)
        del properties[name]
        return
    schema.check(name, change.value)
    if change.op == "replace" and not exists:
        raise Conflict(f"The image has no property '{name[:80]}'.")
    if change.op == "add" and exists and not change.overwrite:
        raise Conflict(f"The image has the property '{name[:80]}' already.")
    # whoever cannot see whether it is there may add it where either would be allowed
    actions: Sequence[Action] = ("update",) if exists else ("create",) if seen else ("create", "update")
    for action in actions:
        _require(may, action, name)
    properties[name] = change.value


def _base_value(image: Image, name: str, change: Change, schema: ImageSchema) -> Any:
    if change.op == "remove":
        raise Forbidden(f"'{name}' belongs to every image and cannot be removed.")
    if change.op == "add" and not change.overwrite:
        raise Conflict(f"Every image has '{name}'; replace it.")
    schema.check(name, change.value)
    value = _stored(name, change.value)
    # While a location is examined, too: what is judged must be what becomes active.
    if name in _FORMATS and value != getattr(image, name) and image.status != "queued":
        raise Forbidden(f"'{name}' cannot be changed once the image has data.")
    return value


def require_formats(image: Image) -> None:
    """`BadRequest` when a format is missing that must be known before there is data."""
    missing = [name for name in _FORMATS if getattr(image, name) is None]
    if missing:
        raise BadRequest(f"Set {' and '.join(missing)} before giving the image its data.")
