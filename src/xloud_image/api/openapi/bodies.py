"""Request bodies of the OpenAPI document, from the dicts that the handlers enforce."""

from __future__ import annotations

from typing import Any, Final

from xloud_image import patch, schemas
from xloud_image.api.openapi import metadefs
from xloud_image.schemas import BASE, ImageSchema

Json = dict[str, Any]

_JSON: Final = "application/json"
_OCTETS: Final = "application/octet-stream"
# body → its media types, each with the name of its schema; None: bytes
_BODIES: Final[dict[str, dict[str, str | None]]] = {
    "image": {_JSON: "NewImage"},
    "changes": {patch.V21: "Patch", patch.V20: "OldPatch"},
    "data": {_OCTETS: None},
    "piece": {"application/partial-upload": None},
    "member": {_JSON: "NewMember"},
    "answer": {_JSON: "MemberAnswer"},
    "location": {_JSON: "NewLocation"},
    "import": {_JSON: "Import"},
    "task": {_JSON: "NewTask"},
    **{name: {_JSON: schema} for name, (schema, _) in metadefs.BODIES.items()},
    "move": {_JSON: "Move"},
}
_WORDS: Final = {
    "image": "Any fields of the image that clients may set, and any further properties as strings.",
    "changes": "Operations, applied in order, all or none. Locations change in a request of their own.",
    "data": "The bytes of the image, with a length or chunked.",
    "piece": "The bytes that follow those that are there.",
    "member": "The project to share with.",
    "answer": "The answer of the project.",
    "location": "The place, and what its data must be; an empty validation_data says nothing.",
    "import": "The way of import and its stores.",
    "task": "Its type, import; as input import_from, import_from_format and image_properties.",
    **{name: words for name, (_, words) in metadefs.BODIES.items()},
    "move": "The two stores.",
}


def of(name: str) -> Json:
    """The requestBody object."""
    content = {kind: {"schema": _schema(schema)} for kind, schema in _BODIES[name].items()}
    return {"required": True, "description": _WORDS[name], "content": content}


def _schema(name: str | None) -> Json:
    return {"$ref": f"#/components/schemas/{name}"} if name else {"type": "string", "format": "binary"}


def _patches(image: ImageSchema) -> tuple[Json, Json]:
    """Both dialects of PATCH: for each field the values that it takes, beside the general shape."""
    fields = {name: one for name, one in image.properties.items() if image.may_give(name) and name != "id"}
    new, old = [], []
    for name, one in fields.items():
        fixed: Json = {"const": f"/{name}"}
        new.append(
            {
                "properties": {"op": {"enum": ["add", "replace"]}, "path": fixed, "value": one},
                "required": ["op", "path", "value"],
            }
        )
        op = "replace" if name in BASE else "add"
        old.append({"properties": {op: fixed, "value": one}, "required": [op, "value"]})
    return _changes(patch.V21, new), _changes(patch.V20, old)


def _changes(kind: str, known: list[Json]) -> Json:
    shape = patch.SHAPES[kind]
    items = {"anyOf": [*({"type": "object", **one} for one in known), shape["items"]]}
    return {**shape, "items": items}


def all_of(image: ImageSchema) -> dict[str, Json]:
    """Schemas of all bodies."""
    new, old = _patches(image)
    return {
        "NewImage": image.new,
        "Patch": new,
        "OldPatch": old,
        "NewMember": schemas.NEW_MEMBER,
        "MemberAnswer": schemas.MEMBER_ANSWER,
        "NewLocation": schemas.new_location(),
        "Import": schemas.new_import(),
        "NewTask": schemas.new_task(),
        **metadefs.BODY_SCHEMAS,
        "Move": schemas.new_move(),
    }
