"""Definitions as JSON documents and as values: the bodies of requests and the files that operators have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xloud_image.model import Association, MetadefObject, MetadefTag, Namespace


def association(body: Mapping[str, Any]) -> Association:
    """From a document that fits its schema, as the others here."""
    return Association(body["name"], body.get("prefix"), body.get("properties_target"))


def object_(body: Mapping[str, Any]) -> MetadefObject:
    """An object."""
    required = tuple(dict.fromkeys(body.get("required", ())))
    return MetadefObject(body["name"], body.get("description"), required, _definitions(body.get("properties", {})))


def definition(body: Mapping[str, Any]) -> dict[str, Any]:
    """A property as it was given. One that is posted by itself has its name in it, as Glance keeps it; one of a file
    or of a namespace's body need not."""
    return dict(body)


def _definitions(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: definition(one) for name, one in body.items()}


def namespace(body: Mapping[str, Any], owner: str) -> Namespace:
    """A namespace with all that it holds; of `owner` unless it names one."""
    return Namespace(
        body["namespace"],
        body.get("owner") or owner,
        display_name=body.get("display_name"),
        description=body.get("description"),
        visibility=body.get("visibility") or "private",
        protected=bool(body.get("protected")),
        associations=tuple(association(one) for one in body.get("resource_type_associations", ())),
        properties=_definitions(body.get("properties", {})),
        objects=tuple(object_(one) for one in body.get("objects", ())),
        tags=tuple(MetadefTag(one["name"]) for one in body.get("tags", ())),
    )


def without_nothing(**fields: Any) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None}


def of_namespace(value: Namespace) -> dict[str, Any]:
    """The document of a file: what `namespace` reads, without owner and times."""
    return without_nothing(
        namespace=value.name,
        display_name=value.display_name,
        description=value.description,
        visibility=value.visibility,
        protected=value.protected,
        resource_type_associations=[
            without_nothing(name=one.name, prefix=one.prefix, properties_target=one.properties_target)
            for one in value.associations
        ]
        or None,
        properties=dict(value.properties) or None,
        objects=[
            without_nothing(
                name=one.name,
                description=one.description,
                required=list(one.required) or None,
                properties=dict(one.properties),
            )
            for one in value.objects
        ]
        or None,
        tags=[{"name": one.name} for one in value.tags] or None,
    )
