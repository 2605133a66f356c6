"""Both JSON-patch dialects of the Image API turned into one list of changes. Knows shapes, not images or rights.

Source: Image API reference, section "PATCH": `application/openstack-images-v2.1-json-patch` (draft 10: op, path,
value) and `…-v2.0-json-patch` (draft 4: the operation is the key).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from xloud_image.errors import BadRequest

V21: Final = "application/openstack-images-v2.1-json-patch"
V20: Final = "application/openstack-images-v2.0-json-patch"
MEDIA_TYPES: Final = (V21, V20)
_OPS: Final = ("add", "replace", "remove")
MAX_OPERATIONS: Final = 10000
MAX_LOCATIONS: Final = 20  # operations on locations: each is a look at a store and a transaction
_DEPTH: Final = 8  # parts of a path that are looked at; no path has more than two

# What `parse` takes, as schemas to publish; beyond them it says where a pointer may lead.
_PATH: Final = {"type": "string", "pattern": r"^(/([^/~]|~[01])+)+$"}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    V21: {
        "type": "array",
        "maxItems": MAX_OPERATIONS,
        "items": {
            "type": "object",
            "properties": {"op": {"enum": list(_OPS)}, "path": _PATH, "value": {}},
            "required": ["op", "path"],
            "anyOf": [{"properties": {"op": {"const": "remove"}}}, {"required": ["value"]}],
        },
    },
    V20: {
        "type": "array",
        "maxItems": MAX_OPERATIONS,
        "items": {
            "type": "object",
            "oneOf": [
                {"properties": {"add": _PATH, "replace": False, "remove": False}, "required": ["add", "value"]},
                {"properties": {"replace": _PATH, "add": False, "remove": False}, "required": ["replace", "value"]},
                {"properties": {"remove": _PATH, "add": False, "replace": False}, "required": ["remove"]},
            ],
        },
    },
}


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One operation: `op` is add, replace or remove; `path` has the pointer's parts, unescaped.

    `overwrite`: an add may meet an existing property (true in v2.1, false in v2.0, where that is 409).
    """

    op: str
    path: tuple[str, ...]
    value: Any = None
    overwrite: bool = True


def parse(document: Any, media_type: str) -> list[Change]:
    """The changes of a request body. `BadRequest` says which operation is malformed."""
    if not isinstance(document, list):
        raise BadRequest("the body of a PATCH is an array of operations")
    if len(document) > MAX_OPERATIONS:
        raise BadRequest(f"at most {MAX_OPERATIONS} operations fit in one PATCH")
    read = _read_v21 if media_type == V21 else _read_v20
    changes = [_check(read(item, number), number) for number, item in enumerate(document)]
    if sum(change.path[0] == "locations" for change in changes) > MAX_LOCATIONS:
        raise BadRequest(f"at most {MAX_LOCATIONS} operations on locations fit in one PATCH")
    return changes


def _read_v21(item: Any, number: int) -> Change:
    if not isinstance(item, dict):
        raise BadRequest(f"operation {number} is not an object")
    op, path = item.get("op"), item.get("path")
    if op not in _OPS:
        raise BadRequest(f"operation {number}: 'op' must be add, replace or remove")
    if not isinstance(path, str):
        raise BadRequest(f"operation {number}: 'path' must be a string")
    if op == "remove":
        return Change(op, _pointer(path, number))
    if "value" not in item:
        raise BadRequest(f"operation {number}: '{op}' needs a 'value'")
    return Change(op, _pointer(path, number), item["value"])


def _read_v20(item: Any, number: int) -> Change:
    if not isinstance(item, dict):
        raise BadRequest(f"operation {number} is not an object")
    ops = [op for op in _OPS if op in item]
    if len(ops) != 1:
        raise BadRequest(f"operation {number} must have exactly one of add, replace, remove")
    op = ops[0]
    path = item[op]
    if not isinstance(path, str):
        raise BadRequest(f"operation {number}: the path must be a string")
    if op == "remove":
        return Change(op, _pointer(path, number), overwrite=False)
    if "value" not in item:
        raise BadRequest(f"operation {number}: '{op}' needs a 'value'")
    return Change(op, _pointer(path, number), item["value"], overwrite=False)


def _pointer(path: str, number: int) -> tuple[str, ...]:
    if not path.startswith("/"):
        raise BadRequest(f"operation {number}: a path begins with '/'")
    if path.rstrip("/") == "" or path.endswith("/") or "//" in path:
        raise BadRequest(f"operation {number}: the path '{path[:80]}' has an empty part")
    if path.count("/") > _DEPTH:
        raise BadRequest(f"operation {number}: the path '{path[:80]}' is too deep")
    parts = []
    for part in path[1:].split("/"):
        rest = part.replace("~0", "").replace("~1", "")
        if "~" in rest:
            raise BadRequest(f"operation {number}: '~' is written '~0', and '/' in a name '~1'")
        parts.append(part.replace("~1", "/").replace("~0", "~"))
    return tuple(parts)


def _check(change: Change, number: int) -> Change:
    if change.path[0] == "tags" and len(change.path) > 1:
        raise BadRequest(f"operation {number}: single tags are changed at /v2/images/ID/tags/TAG")
    if change.path[0] == "locations":
        if len(change.path) > 2:
            raise BadRequest(f"operation {number}: a location is changed as a whole")
        if len(change.path) == 1 and change.op != "replace":
            raise BadRequest(f"operation {number}: use /locations/- to add, /locations/N to remove")
        if len(change.path) == 2 and change.op == "replace":
            raise BadRequest(f"operation {number}: one location cannot be replaced; replace /locations")
    elif len(change.path) > 1:
        raise BadRequest(f"operation {number}: the path '{'/'.join(change.path)[:80]}' is too deep")
    return change
