"""What the OpenAPI document says of metadata definitions: parameters, bodies and answers."""

from __future__ import annotations

from typing import Any, Final

from xloud_image.db.metadef_parts import TAG_SORT_KEYS
from xloud_image.db.metadefs import SORT_KEYS
from xloud_image.metadefs import schemas

Json = dict[str, Any]

_STRING: Final = {"type": "string"}


def _path(name: str, text: str, **schema: Any) -> Json:
    shape = {"type": "string", **(schema or {"minLength": 1, "maxLength": schemas.MAX_NAME})}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": shape}


def _query(name: str, text: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string", **schema}}


PARAMETERS: Final[Json] = {
    "namespace": _path("namespace", "The namespace's name."),
    "object": _path("object", "The object's name."),
    "property": _path("property", "The property's name."),
    "metadef_tag": _path("metadef_tag", "The tag."),
    "resource_type": _path("resource_type", "The type of resources."),
    "metadef_schema": _path("metadef_schema", "The schema's name.", enum=list(schemas.PUBLISHED)),
    "by_resource_types": _query("resource_types", "Namespaces that are about one of these types, comma between."),
    "by_resource_type": _query("resource_type", "Names of properties as they are among the metadata of this type."),
    "by_metadef_visibility": _query("visibility", "Of one visibility.", enum=list(schemas.VISIBILITIES)),
    "metadef_limit": _query("limit", "At most so many.", type="integer", minimum=0),
    "metadef_marker": _query("marker", "The name of the last namespace of the page before."),
    "metadef_sort_key": _query("sort_key", "By what to sort; created_at.", enum=list(SORT_KEYS)),
    "metadef_sort_dir": _query("sort_dir", "In which direction; desc.", enum=["asc", "desc"]),
    "tag_marker": _query("marker", "The last tag of the page before."),
    "tag_sort_key": _query("sort_key", "By what to sort; created_at.", enum=list(TAG_SORT_KEYS)),
    "append": {
        "name": "X-Openstack-Append",
        "in": "header",
        "description": "true: besides the tags that are there.",
        "schema": _STRING,
    },
}
# body → the name of its schema, and words
BODIES: Final = {
    "namespace": ("NewNamespace", "The namespace; when it is changed, what it holds is passed over."),
    "object": ("NewMetadefObject", "The object."),
    "property": ("NewMetadefProperty", "The property."),
    "tags": ("NewMetadefTags", "The tags."),
    "metadef_tag": ("NewMetadefTag", "The new name."),
    "association": ("NewAssociation", "The type of resources."),
}


def _given(schema: Json, *read_only: str) -> Json:
    """A schema without the fields that only the service writes."""
    fields = {name: one for name, one in schema["properties"].items() if name not in read_only}
    return {**schema, "properties": fields}


_TIMES: Final = ("created_at", "updated_at")
BODY_SCHEMAS: Final[Json] = {
    "NewNamespace": _given(schemas.NAMESPACE, *schemas.READ_ONLY),
    "NewMetadefObject": _given(schemas.OBJECT, *schemas.READ_ONLY),
    "NewMetadefProperty": schemas.PROPERTY,
    "NewMetadefTags": schemas.TAGS,
    "NewMetadefTag": _given(schemas.TAG, *_TIMES),
    "NewAssociation": _given(schemas.ASSOCIATION, *_TIMES),
}


def _all(schema: Json, *words: str) -> Json:
    return {**schema, "required": list(words)}


def _list(name: str, item: str, **more: Json) -> Json:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}}
    return {"type": "object", "properties": {name: items, **more}, "required": [name, *(set(more) - {"next"})]}


# Rows that a Glance or a file of an operator's brought may break rules that the calls have.
_ANY: Final[Json] = {"type": "object", "additionalProperties": {"type": "object"}}


def _kept(schema: Json, **more: Json) -> Json:
    fields = {**schema["properties"], **({"properties": _ANY} if "properties" in schema["properties"] else {}), **more}
    return {"type": "object", "properties": fields}


ANSWERS: Final[Json] = {
    "Namespace": {
        **_kept(schemas.NAMESPACE, objects={"type": "array", "items": {"$ref": "#/components/schemas/MetadefObject"}}),
        "required": ["namespace", "visibility", "protected", "owner", "self", "schema", "created_at"],
    },
    "Namespaces": _list("namespaces", "Namespace", first=_STRING, next=_STRING, schema=_STRING),
    "MetadefObject": {
        **_kept(schemas.OBJECT),
        "required": ["name", "required", "properties", "self", "schema", "created_at"],
    },
    "MetadefObjects": _list("objects", "MetadefObject", schema=_STRING),
    "MetadefProperty": {"type": "object", "properties": {"name": _STRING}, "required": ["name"]},
    "MetadefProperties": {"type": "object", "properties": {"properties": _ANY}, "required": ["properties"]},
    "MetadefTag": _all(schemas.TAG, "name", "created_at"),
    "MetadefTags": {
        "type": "object",
        "properties": {"tags": {"type": "array", "items": schemas.TAG}},
        "required": ["tags"],
    },
    "ResourceTypes": {
        "type": "object",
        "properties": {"resource_types": {"type": "array", "items": schemas.RESOURCE_TYPE}},
        "required": ["resource_types"],
    },
    "Association": _all(schemas.ASSOCIATION, "name", "created_at"),
    "Associations": _list("resource_type_associations", "Association"),
}
