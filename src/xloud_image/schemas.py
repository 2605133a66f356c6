"""JSON schemas: the dict that the API publishes is the dict that it enforces. No I/O but the one declared file.

Source: Image API reference, sections "Image entity" and "Schemas".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from xloud_image.checking import Check, explain
from xloud_image.config.settings import Formats
from xloud_image.errors import BadRequest, ConfigError
from xloud_image.model import MEMBER_STATUSES, STATUSES, TASK_STATUSES, TASK_TYPES, VISIBILITIES

Json = dict[str, Any]

UUID_PATTERN: Final = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
MAX_NAME: Final = 255
MAX_URL: Final = 8192
MAX_INT: Final = 2**31 - 1
# The value of every property that has no schema of its own.
PROPERTY: Final[Json] = {"type": "string", "maxLength": 65535}

# Fields that only the service writes; a client that names them gets 403.
READ_ONLY: Final = frozenset(
    "status checksum os_hash_algo os_hash_value size virtual_size created_at updated_at".split()
)
# Names that can never be properties.
RESERVED: Final = frozenset("location deleted deleted_at direct_url self file schema stores".split())
RESERVED_PREFIX: Final = "os_glance"
# Fields of the image row itself: they can be changed but not removed.
BASE: Final = frozenset(
    "id name owner visibility protected os_hidden container_format disk_format min_disk min_ram tags locations".split()
)


def _text(description: str, *, null: bool = True, **more: Any) -> Json:
    return {"type": ["null", "string"] if null else "string", "description": description, **more}


def _read_only(description: str, kind: Any = "string", **more: Any) -> Json:
    return {"type": kind, "readOnly": True, "description": description, **more}


def location() -> Json:
    """One location as clients give and see it."""
    return {
        "type": "object",
        "properties": {
            "url": {"type": "string", "maxLength": 65535, "description": "Where the data lies."},
            "metadata": {"type": "object", "description": "Facts about the place; `store` names the store."},
            "validation_data": validation_data(),
        },
        "required": ["url", "metadata"],
        "additionalProperties": False,
    }


def validation_data() -> Json:
    """Digests that the data behind a new location must have."""
    return {
        "type": "object",
        "writeOnly": True,
        "description": "Digests to be taken over with the location.",
        "properties": {
            "checksum": {"type": "string", "minLength": 32, "maxLength": 32, "pattern": "^[0-9a-fA-F]{32}$"},
            "os_hash_algo": {"type": "string", "maxLength": 64},
            "os_hash_value": {"type": "string", "maxLength": 128, "pattern": "^[0-9a-fA-F]+$"},
        },
        "required": ["os_hash_algo", "os_hash_value"],
        "additionalProperties": False,
    }


def image_properties(formats: Formats) -> Json:
    """Every field of an image by name."""
    digest = "of the data; empty until there is data."
    return {
        "id": _text("The image's UUID; chosen by the service unless given.", null=False, pattern=UUID_PATTERN),
        "name": _text("A name for people; need not be unique.", maxLength=MAX_NAME),
        "status": _read_only("Where the image is in its life.", enum=list(STATUSES)),
        "visibility": _text("Who can see the image.", null=False, enum=list(VISIBILITIES)),
        "protected": {"type": "boolean", "description": "A protected image cannot be deleted."},
        "os_hidden": {"type": "boolean", "description": "A hidden image is left out of lists unless asked for."},
        "owner": _text("The project that owns the image.", maxLength=MAX_NAME),
        "container_format": _text("What is wrapped around the disk image.", enum=[None, *formats.container_formats]),
        "disk_format": _text("The format of the disk image.", enum=[None, *formats.disk_formats]),
        "min_disk": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_INT,
            "description": "GB of disk that a server needs to boot the image.",
        },
        "min_ram": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_INT,
            "description": "MB of memory that a server needs to boot the image.",
        },
        "tags": {
            "type": "array",
            "items": {"type": "string", "maxLength": MAX_NAME},
            "description": "Words to find the image by.",
        },
        "checksum": _read_only(f"md5 {digest}", ["null", "string"], maxLength=32),
        "os_hash_algo": _read_only("The algorithm of os_hash_value.", ["null", "string"], maxLength=64),
        "os_hash_value": _read_only(f"Secure digest {digest}", ["null", "string"], maxLength=128),
        "size": _read_only("Bytes of data.", ["null", "integer"]),
        "virtual_size": _read_only("Bytes of the disk that a server sees.", ["null", "integer"]),
        "created_at": _read_only("When the image was made, UTC."),
        "updated_at": _read_only("When it was last changed, UTC."),
        "self": _read_only("The path of the image."),
        "file": _read_only("The path of its data."),
        "schema": _read_only("The path of its schema."),
        "direct_url": _read_only("The URL of the data in its first store."),
        "stores": _read_only("The stores that hold the data, separated by commas."),
        "locations": {"type": "array", "items": location(), "description": "Where the data lies."},
    }


MEMBER_PROPERTIES: Final[Json] = {
    "member_id": {"type": "string", "description": "The project with which the image is shared."},
    "image_id": {"type": "string", "pattern": UUID_PATTERN, "description": "The image."},
    "status": {"type": "string", "enum": list(MEMBER_STATUSES), "description": "The answer of that project."},
    "created_at": {"type": "string", "description": "When it was shared, UTC."},
    "updated_at": {"type": "string", "description": "When the membership last changed, UTC."},
    "schema": {"type": "string", "readOnly": True, "description": "The path of the member schema."},
}

_LIST_LINKS: Final = [
    {"href": "{first}", "rel": "first"},
    {"href": "{next}", "rel": "next"},
    {"href": "{schema}", "rel": "describedby"},
]


def member() -> Json:
    """The schema of one member."""
    return {"name": "member", "properties": MEMBER_PROPERTIES}


def members() -> Json:
    """The schema of a list of members."""
    return {
        "name": "members",
        "properties": {
            "members": {"type": "array", "items": member()},
            "schema": {"type": "string"},
        },
        "links": [{"href": "{schema}", "rel": "describedby"}],
    }


# The bodies of the member and location calls.
NEW_MEMBER: Final[Json] = {
    "type": "object",
    "properties": {
        "member": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "description": "The project's id."}
    },
    "required": ["member"],
}
MEMBER_ANSWER: Final[Json] = {
    "type": "object",
    "properties": {"status": {"type": "string", "enum": list(MEMBER_STATUSES)}},
    "required": ["status"],
}


def new_location() -> Json:
    """The body of the locations API; clients that have no digests send an empty object."""
    return {
        "type": "object",
        "properties": {
            "url": {"type": "string", "minLength": 1, "maxLength": 65535, "description": "Where the data lies."},
            "validation_data": {"anyOf": [{"type": "null"}, {"type": "object", "maxProperties": 0}, validation_data()]},
        },
        "required": ["url"],
    }


def new_import() -> Json:
    """The body of an import. What the methods want besides their names is told by `services.imports`."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
    url = {**text, "maxLength": MAX_URL}
    method = {
        "name": {**text, "description": "One of the methods of /v2/info/import."},
        "uri": {**url, "description": "Of web-download: where the data is fetched from."},
        "os_hash_algo": {**text, "description": "Of web-download: the algorithm of the next; md5 to sha512."},
        "os_hash_value": {**text, "description": "Of web-download: the digest that the file at the URL must have."},
        "checksums_uri": {**url, "description": "Of web-download: its vendor's file of checksums (SHA256SUMS)."},
        "signature_uri": {**url, "description": "Of web-download: the signature of that file."},
        "glance_region": {**text, "description": "Of glance-download: the region whose image service has the image."},
        "glance_image_id": {**text, "description": "Of glance-download: the image there."},
        "glance_service_interface": {
            **text,
            "description": "Of glance-download: public (as it stands), internal, admin.",
        },
    }
    return {
        "type": "object",
        "properties": {
            "method": {"type": "object", "properties": method, "required": ["name"]},
            "stores": {"type": "array", "items": text, "minItems": 1, "maxItems": 100, "description": "Stores by id."},
            "all_stores": {"type": "boolean", "description": "Every store that takes data."},
            "all_stores_must_succeed": {"type": "boolean", "description": "Without one of them none; true."},
        },
        "required": ["method"],
    }


def new_move() -> Json:
    """The body of a move from one store to another."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
    return {
        "type": "object",
        "properties": {
            "from": {**text, "description": "The store, by id, that has the data and shall have it no more."},
            "to": {**text, "description": "The store, by id, that shall have it."},
        },
        "required": ["from", "to"],
    }


_TASK: Final[Json] = {
    "id": _read_only("The task's UUID.", pattern=UUID_PATTERN),
    "type": _text("What is done.", null=False, enum=list(TASK_TYPES)),
    "status": _read_only("How far it is.", enum=list(TASK_STATUSES)),
    "owner": _read_only("The project that asked for it."),
    "expires_at": _read_only("Until when it is kept, UTC; empty as long as it has not ended.", ["null", "string"]),
    "created_at": _read_only("When it was asked for, UTC."),
    "updated_at": _read_only("When it last changed, UTC."),
    "image_id": _read_only("The image.", ["null", "string"]),
    "request_id": _read_only("The request that asked for it.", ["null", "string"]),
    "user_id": _read_only("The user who asked for it.", ["null", "string"]),
    "self": _read_only("The path of the task."),
    "schema": _read_only("The path of its schema."),
}
TASK_PROPERTIES: Final[Json] = {
    **_TASK,
    "input": {"type": ["null", "object"], "description": "What was asked for."},
    "result": _read_only("What came of it.", ["null", "object"]),
    "message": _read_only("What to know about it, in words."),
}


def task() -> Json:
    """The schema of one task."""
    return {"name": "task", "properties": TASK_PROPERTIES}


def new_task() -> Json:
    """The body of a new task: what clients cannot say of it is taken and has no effect, as in the reference."""
    return {
        "type": "object",
        "properties": TASK_PROPERTIES,
        "required": ["type", "input"],
        "additionalProperties": False,
    }


def tasks() -> Json:
    """The schema of a list of tasks, which leaves out what was asked for and what came of it."""
    return {
        "name": "tasks",
        "properties": {
            "tasks": {"type": "array", "items": {"name": "task", "properties": _TASK}},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": _LIST_LINKS,
    }


class Shape:
    """One of these schemas as a check of values."""

    def __init__(self, schema: Json) -> None:
        self._check = Check(schema)

    def require(self, value: Any) -> None:
        """`BadRequest` says what does not fit."""
        if not self._check.is_valid(value):
            raise BadRequest(f"The body does not fit: {explain(self._check, value)}.")


class ImageSchema:
    """The schema of an image in this deployment, and the check against it.

    `declared` are the operator's own properties (schema-image.json): name → schema.
    """

    def __init__(self, formats: Formats, declared: Mapping[str, Any] | None = None) -> None:
        base = image_properties(formats)
        self.declared: Json = {k: {**v, "is_base": False} for k, v in (declared or {}).items() if k not in base}
        self.properties: Json = {**base, **self.declared}
        self._checks = {name: Check(schema) for name, schema in self.properties.items()}
        self._extra = Check(PROPERTY)

    @classmethod
    def load(cls, formats: Formats, file: str | None) -> ImageSchema:
        """With the declared properties of a schema-image.json; ConfigError names what is wrong with the file."""
        if file is None:
            return cls(formats)
        try:
            declared = json.loads(Path(file).read_text("utf-8"))
            if not isinstance(declared, dict):
                raise ValueError("it must be an object: property name → schema")
            for schema in declared.values():
                Draft202012Validator.check_schema(schema)
        except (OSError, ValueError, SchemaError) as error:
            raise ConfigError(f"{file} cannot be used as image schema: {error}") from None
        return cls(formats, declared)

    @functools.cached_property
    def image(self) -> Json:
        """As published at /v2/schemas/image."""
        return {
            "name": "image",
            "properties": self.properties,
            "additionalProperties": {"type": "string"},
            "links": [
                {"href": "{self}", "rel": "self"},
                {"href": "{file}", "rel": "enclosure"},
                {"href": "{schema}", "rel": "describedby"},
            ],
        }

    @functools.cached_property
    def images(self) -> Json:
        """As published at /v2/schemas/images."""
        return {
            "name": "images",
            "properties": {
                "images": {"type": "array", "items": self.image},
                "first": {"type": "string"},
                "next": {"type": "string"},
                "schema": {"type": "string"},
            },
            "links": _LIST_LINKS,
        }

    @functools.cached_property
    def new(self) -> Json:
        """The body of a create request: what `services.image_patch` takes, field by field with `check`."""
        fields = {name: one for name, one in self.properties.items() if self.may_give(name)}
        taken = sorted({*READ_ONLY, *RESERVED, "locations"})
        return {
            "type": "object",
            "properties": fields,
            "additionalProperties": PROPERTY,
            "propertyNames": {
                "minLength": 1,
                "maxLength": MAX_NAME,
                "not": {"anyOf": [{"enum": taken}, {"pattern": f"^{RESERVED_PREFIX}"}]},
            },
        }

    def may_give(self, name: str) -> bool:
        """Whether a create request may have this field."""
        return name in self.declared or (name in BASE and name != "locations")

    def check(self, name: str, value: Any) -> None:
        """Raise `BadRequest` with a sentence when `value` cannot be field or property `name`."""
        check = self._checks.get(name)
        if check is None:
            if len(name) > MAX_NAME:
                raise BadRequest(f"the property name '{name[:40]}…' has more than {MAX_NAME} characters")
            if not name:
                raise BadRequest("a property needs a name")
            check = self._extra
        if not check.is_valid(value):
            raise BadRequest(f"'{name}': {explain(check, value)}")
        if name in self.declared and not (value is None or isinstance(value, str)):
            raise BadRequest(f"'{name}': properties are kept as texts, whatever the operator's schema allows")
