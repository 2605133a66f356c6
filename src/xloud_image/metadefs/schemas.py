"""The JSON schemas of metadata definitions: what the API publishes is what it enforces.

Source: Image API reference, section "Metadata definitions". Patterns that definitions hold are kept, never run.
"""

from __future__ import annotations

from typing import Any, Final

from xloud_image.checking import Check, explain
from xloud_image.errors import BadRequest, ReadOnlyField, TooLarge

Json = dict[str, Any]

MAX_NAME: Final = 80
MAX_TEXT: Final = 10_000  # characters of what is for people to read
MOST: Final = 10_000  # values of one body
KINDS: Final = ("string", "integer", "number", "boolean", "array", "object")
VISIBILITIES: Final = ("public", "private")
# Fields that only the service writes.
READ_ONLY: Final = ("self", "schema", "created_at", "updated_at")
# A name is a part of a path: not empty, no step in it, no control character.
NAME_PATTERN: Final = r"^(?!\.\.?$)[^\x00-\x1f\x7f]+$"
NAME: Final[Json] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME_PATTERN}


def _text(description: str, most: int = MAX_TEXT) -> Json:
    return {"type": "string", "maxLength": most, "description": description}


def _name(description: str) -> Json:
    return {**NAME, "description": description}


def _times(what: str) -> Json:
    return {
        "created_at": {"type": "string", "readOnly": True, "description": f"When {what} was made, UTC."},
        "updated_at": {"type": "string", "readOnly": True, "description": f"When {what} last changed, UTC."},
    }


def _paths(what: str) -> Json:
    return {
        "self": {"type": "string", "readOnly": True, "description": f"The path of {what}."},
        "schema": {"type": "string", "readOnly": True, "description": "The path of its schema."},
    }


_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_CHOICE: Final[Json] = {"type": "array", "items": {"type": "string"}, "description": "The values to choose from."}
# A value as dashboards ask for it.
_DEFINITION: Final[Json] = {
    "name": _name("The name, where it is not said by the place."),
    "title": _text("A name for people.", 255),
    "description": _text("What it means."),
    "type": {"type": "string", "enum": list(KINDS), "description": "What kind of value it is."},
    "default": {"description": "The value when none is given."},
    "readonly": {"type": "boolean", "description": "Shown and not to be changed."},
    "confidential": {"type": "boolean", "description": "Not to be shown to everybody."},
    "operators": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The operators of extra specs that may stand before the value, such as <in>.",
    },
    "enum": _CHOICE,
    "minimum": {"type": "number", "description": "The least number."},
    "maximum": {"type": "number", "description": "The greatest number."},
    "minLength": {**_COUNT, "description": "The fewest characters."},
    "maxLength": {**_COUNT, "description": "The most characters."},
    "pattern": _text("A regular expression that the value matches."),
    "items": {
        "type": "object",
        "properties": {"type": {"type": "string", "enum": list(KINDS)}, "enum": _CHOICE},
        "required": ["type"],
        "additionalProperties": False,
        "description": "What the items of a list are.",
    },
    "minItems": {**_COUNT, "description": "The fewest items."},
    "maxItems": {**_COUNT, "description": "The most items."},
    "uniqueItems": {"type": "boolean", "description": "No item twice."},
    "additionalItems": {"type": "boolean", "description": "Whether there may be items of other kinds."},
}


def definition(*, named: bool = False) -> Json:
    """The schema of one property. named: it says its own name."""
    return {
        "type": "object",
        "properties": _DEFINITION,
        "required": ["title", "type", *(["name"] if named else [])],
        "additionalProperties": False,
    }


def _definitions(description: str) -> Json:
    return {"type": "object", "propertyNames": NAME, "additionalProperties": definition(), "description": description}


_ASSOCIATION: Final[Json] = {
    "name": _name("The type of resources, such as OS::Glance::Image; names are those of Heat where it has one."),
    "prefix": _text("What the properties' names begin with there, its separator included.", MAX_NAME),
    "properties_target": _text("Which of the resource's metadata is meant, where it has several.", MAX_NAME),
    **_times("it"),
}
_OBJECT: Final[Json] = {
    "name": _name("The name, unique in its namespace."),
    "description": _text("What it is for."),
    "required": {
        "type": "array",
        "items": {**NAME, "pattern": r"^(?!\.\.?$)[^\x00-\x1f\x7f,]+$"},
        "description": "The properties that must be given.",
    },
    "properties": _definitions("The properties that belong together."),
    **_times("it"),
    **_paths("the object"),
}
_TAG: Final[Json] = {"name": _name("The word, unique in its namespace."), **_times("it")}
_NAMESPACE: Final[Json] = {
    "namespace": _name("The unique name."),
    "display_name": _text("A name for people.", MAX_NAME),
    "description": _text("What it is about.", 500),
    "visibility": {"type": "string", "enum": list(VISIBILITIES), "description": "Who can see it: all, or its owner."},
    "protected": {"type": "boolean", "description": "A protected namespace and what it holds cannot be deleted."},
    "owner": {"type": "string", "maxLength": 255, "description": "The project that owns it."},
    **_times("it"),
    **_paths("the namespace"),
}
_TIME: Final = {"created_at", "updated_at"}


def _one(properties: Json, required: str = "name") -> Json:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


ASSOCIATION: Final[Json] = _one(_ASSOCIATION)
OBJECT: Final[Json] = _one(_OBJECT)
TAG: Final[Json] = _one(_TAG)
PROPERTY: Final[Json] = definition(named=True)
NAMESPACE: Final[Json] = _one(
    {
        **_NAMESPACE,
        "resource_type_associations": {"type": "array", "items": ASSOCIATION, "description": "What it is about."},
        "properties": _definitions("Its properties by name."),
        "objects": {"type": "array", "items": OBJECT, "description": "Its objects."},
        "tags": {"type": "array", "items": TAG, "description": "Its tags."},
    },
    "namespace",
)
TAGS: Final[Json] = _one({"tags": {"type": "array", "items": TAG, "description": "The tags."}}, "tags")
RESOURCE_TYPE: Final[Json] = _one({"name": _ASSOCIATION["name"], **_times("it")})

_LINKS: Final = [
    {"rel": "first", "href": "{first}"},
    {"rel": "next", "href": "{next}"},
    {"rel": "describedby", "href": "{schema}"},
]
_PAGE: Final = {"first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}}


def _published(name: str, schema: Json) -> Json:
    return {"name": name, **{word: value for word, value in schema.items() if word != "type"}}


def _several(name: str, items: Json) -> Json:
    return {"name": name, "properties": {name: items, **_PAGE}, "links": _LINKS}


def _list(name: str, item: Json) -> Json:
    return _several(name, {"type": "array", "items": item})


_ONE: Final = {
    "namespace": _published("namespace", NAMESPACE),
    "object": _published("object", OBJECT),
    "property": _published("property", PROPERTY),
    "tag": _published("tag", TAG),
    "resource_type": _published("resource_type_association", ASSOCIATION),
}
# Under /v2/schemas/metadefs/, by name.
PUBLISHED: Final[Json] = {
    **_ONE,
    "namespaces": _list("namespaces", _ONE["namespace"]),
    "objects": _list("objects", _ONE["object"]),
    "tags": _list("tags", _ONE["tag"]),
    "resource_types": _list("resource_type_associations", _ONE["resource_type"]),
    "properties": _several(
        "properties", {"type": "object", "additionalProperties": _published("property", definition())}
    ),
}


def _has_more(value: Any, most: int) -> bool:
    """Whether a JSON value holds more values than this, those within others included."""
    left, count = [value], 1
    while left:
        one = left.pop()
        if isinstance(one, list | dict):
            count += len(one)
            if count > most:
                return True
            left.extend(one.values() if isinstance(one, dict) else one)
    return False


class Shape:
    """One of these schemas as a check of bodies."""

    def __init__(self, schema: Json, *read_only: str) -> None:
        self._check = Check(schema)
        self._read_only = read_only

    def require(self, value: Any) -> None:
        """`ReadOnlyField` for a field that only the service writes; `BadRequest` says what else does not fit.
        `TooLarge`: more than MOST values, which would take long to look at."""
        for name in self._read_only:
            if isinstance(value, dict) and name in value:
                raise ReadOnlyField(f"'{name}' is written by the service only.")
        if _has_more(value, MOST):
            raise TooLarge(f"One request may hold {MOST} values of definitions.")
        if not self._check.is_valid(value):
            raise BadRequest(f"The body does not fit: {explain(self._check, value)}.")


_TIMES: Final = ("created_at", "updated_at")
NEW_NAMESPACE: Final = Shape(NAMESPACE, *READ_ONLY)
NEW_OBJECT: Final = Shape(OBJECT, *READ_ONLY)
NEW_PROPERTY: Final = Shape(PROPERTY, *_TIMES)
NEW_TAG: Final = Shape(TAG, *_TIMES)
NEW_TAGS: Final = Shape(TAGS)
NEW_ASSOCIATION: Final = Shape(ASSOCIATION, *_TIMES)
