"""Metadata definitions as JSON, and what the queries of their lists mean. Fields that say nothing are left out.

Source: Image API reference, section "Metadata definitions".
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from aiohttp import web

from xloud_image.api.state import runtime
from xloud_image.api.wire import moment
from xloud_image.errors import BadRequest
from xloud_image.metadefs.documents import without_nothing
from xloud_image.model import Association, MetadefObject, MetadefTag, Namespace

ROOT: Final = "/v2/metadefs/namespaces"
_SCHEMAS: Final = "/v2/schemas/metadefs"


def path(*parts: str) -> str:
    """Below the list of namespaces."""
    return "/".join([ROOT, *[urllib.parse.quote(part, safe=":") for part in parts]])


def namespace(value: Namespace) -> dict[str, Any]:
    """One namespace, with what it holds."""
    return without_nothing(
        namespace=value.name,
        display_name=value.display_name,
        description=value.description,
        visibility=value.visibility,
        protected=value.protected,
        owner=value.owner,
        **_times(value),
        resource_type_associations=[association(one) for one in value.associations] or None,
        properties=value.properties or None,
        objects=[object_(value.name, one) for one in value.objects] or None,
        tags=[{"name": one.name} for one in value.tags] or None,
        self=path(value.name),
        schema=f"{_SCHEMAS}/namespace",
    )


def namespaces(found: Sequence[Namespace], query: list[tuple[str, str]], following: str | None) -> dict[str, Any]:
    """A page of them. query: how the first page was asked for; following: the marker of the next one."""

    def link(words: list[tuple[str, str]]) -> str:
        return f"{ROOT}?{urllib.parse.urlencode(words)}" if words else ROOT

    return without_nothing(
        namespaces=[namespace(one) for one in found],
        first=link(query),
        next=None if following is None else link([*query, ("marker", following)]),
        schema=f"{_SCHEMAS}/namespaces",
    )


def prefixed(value: Mapping[str, Any], resource_type: str) -> dict[str, Any]:
    """A namespace's JSON with the names that its properties have among the metadata of such a resource."""
    known = value.get("resource_type_associations", ())
    prefix = next((one.get("prefix") for one in known if one["name"] == resource_type), None)
    if not prefix:
        return dict(value)
    shown = dict(value)
    if "properties" in value:
        shown["properties"] = _prefixed(value["properties"], prefix)
    if "objects" in value:
        shown["objects"] = [
            {
                **one,
                "required": [prefix + name for name in one["required"]],
                "properties": _prefixed(one["properties"], prefix),
            }
            for one in value["objects"]
        ]
    return shown


def _prefixed(properties: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: one for name, one in properties.items()}


def object_(namespace_name: str, value: MetadefObject) -> dict[str, Any]:
    """One object."""
    return without_nothing(
        name=value.name,
        description=value.description,
        required=list(value.required),
        properties=dict(value.properties),
        **_times(value),
        self=path(namespace_name, "objects", value.name),
        schema=f"{_SCHEMAS}/object",
    )


def objects(value: Namespace) -> dict[str, Any]:
    """All objects of a namespace."""
    return {"objects": [object_(value.name, one) for one in value.objects], "schema": f"{_SCHEMAS}/objects"}


def property_(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """One property."""
    return {**value, "name": name}


def tag(value: MetadefTag) -> dict[str, Any]:
    """One tag."""
    return {"name": value.name, **_times(value)}


def association(value: Association) -> dict[str, Any]:
    """What a namespace is about."""
    return without_nothing(
        name=value.name, prefix=value.prefix, properties_target=value.properties_target, **_times(value)
    )


def resource_type(value: Association) -> dict[str, Any]:
    """A type of resources."""
    return {"name": value.name, **_times(value)}


def _times(value: Any) -> dict[str, str]:
    updated = value.updated_at  # of what a file brought, none
    return without_nothing(created_at=moment(value.created_at), updated_at=moment(updated) if updated else None)


def page(request: web.Request, keys: Sequence[str]) -> tuple[str, Literal["asc", "desc"], int]:
    """Sort key, direction and size of a page, as the query says. `BadRequest`."""
    query, limits = request.query, runtime(request).settings.limits
    text = query.get("limit", "")
    if not (text == "" or (text.isascii() and text.isdigit() and len(text) <= 9)):
        raise BadRequest("'limit' is a number from 0 on.")
    limit = min(int(text) if text else limits.limit_param_default, limits.api_limit_max)
    key = one_of(request, "sort_key", keys) or keys[0]
    return key, "asc" if one_of(request, "sort_dir", ("asc", "desc")) == "asc" else "desc", limit


def one_of(request: web.Request, name: str, values: Sequence[str]) -> str | None:
    """A word of the query that is one of `values`; None without it. `BadRequest`."""
    text = request.query.get(name)
    if text is not None and text not in values:
        raise BadRequest(f"'{name}' is one of {', '.join(values)}.")
    return text
