"""Answers of the OpenAPI document: their schemas, headers and the errors that can befall every call."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from xloud_image import schemas
from xloud_image.api.openapi import metadefs
from xloud_image.api.route import Route
from xloud_image.schemas import BASE, MEMBER_PROPERTIES, PROPERTY, ImageSchema

Json = dict[str, Any]

_JSON: Final = "application/json"
_TEXT: Final = "text/plain"
_STRING: Final = {"type": "string"}


def _header(text: str, **schema: Any) -> Json:
    return {"description": text, "schema": {"type": "string", **schema}}


HEADERS: Final[Json] = {
    "x-openstack-request-id": _header("The id under which the log has this request.", pattern="^req-"),
    "Location": _header("The URL of what is new."),
    "OpenStack-image-import-methods": _header("The enabled ways of import, separated by commas."),
    "OpenStack-image-store-ids": _header("The stores, separated by commas; only with several stores."),
    "X-Image-Meta-Store": _header("The store that has the data."),
    "Warning": _header("What the store advises for images of this format.", pattern='^299 - "'),
    "Accept-Patch": _header("The media types that a PATCH may have."),
    "Content-MD5": _header("The md5 of the whole data, in hex.", pattern="^[0-9a-f]{32}$"),
    "ETag": _header("The secure digest of the whole data, quoted."),
    "Accept-Ranges": _header("Ranges are served from every store.", enum=["bytes"]),
    "Content-Range": _header("Which bytes of how many.", pattern="^bytes "),
    "WWW-Authenticate": _header("How to log in."),
    "Upload-Offset": _header("Bytes of the data that are durable: where the next piece begins.", pattern="^[0-9]+$"),
    "Upload-Complete": _header("Whether nothing more is to come.", enum=["?0", "?1"]),
    "Upload-Length": _header("Bytes of all data, once they are known.", pattern="^[0-9]+$"),
    "Upload-Limit": _header("max-size: bytes of all data; max-age: seconds until the upload is given up."),
    "Repr-Digest": _header("The digest that all data must have."),
    "Vary": _header("The headers on which the answer depends."),
}
_REQUEST_ID: Final = "x-openstack-request-id"
# What can befall every call, and every call that needs a login.
_ANY: Final = {
    400: "The request is wrong; the message says what and why.",
    412: "A condition (If-Match and its like) is not met.",
    417: "The client expects what is not known here.",
    431: "A header is too long.",
    501: "A method, or a coding of the body, that is not known here.",
    503: "Something the service needs does not answer now; try again later.",
}
_LOGIN: Final = {
    401: "No valid credentials.",
    403: "A rule does not allow this to the caller.",
}
_BODY: Final = {413: "The body is too large."}
_OK: Final = {
    200: "Done.", 201: "Made.", 202: "Begun.", 204: "Done; nothing to say.", 206: "The range.",
    300: "The versions.", 304: "The client has it already.",
}  # fmt: skip


def responses() -> Json:
    """The error answers as they are when a call adds no words of its own."""
    texts = {**_ANY, **_LOGIN, **_BODY}
    return {_error_name(status): _error(status, texts[status]) for status in sorted(texts)}


def of(call: Route, linked: Sequence[str], *, head: bool = False) -> Json:
    """The responses object of one call. `linked`: the operations to which an answer with `links` leads."""
    found: dict[int, Json] = {status: _success(call, status, kind, linked) for status, kind in call.gives.items()}
    general = {**_ANY, **({} if call.open else _LOGIN), **(_BODY if call.body else {})}
    for status in sorted({*general, *call.fails}):
        if status in call.fails:
            found[status] = _error(status, call.fails[status], call.headers.get(status, ()))
        else:
            found[status] = {"$ref": f"#/components/responses/{_error_name(status)}"}
    if head:
        found = {status: _without_content(one, status) for status, one in found.items()}
    return {str(status): found[status] for status in sorted(found)}


def _error_name(status: int) -> str:
    return "".join(word.capitalize() for word in HTTPStatus(status).phrase.split())


def _error(status: int, text: str, headers: tuple[str, ...] = ()) -> Json:
    names = (*headers, "WWW-Authenticate") if status == 401 else headers
    content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}, _TEXT: {"schema": _STRING}}
    return {"description": text, "headers": _headers(names), "content": content}


def _success(call: Route, status: int, kind: str | None, linked: Sequence[str]) -> Json:
    answer: Json = {"description": _OK[status], "headers": _headers(call.headers.get(status, ()))}
    if kind is not None and "/" in kind:
        answer["content"] = {kind: {"schema": {"type": "string", "format": "binary"} if kind != _TEXT else _STRING}}
    elif kind is not None:
        answer["content"] = {_JSON: {"schema": {"$ref": f"#/components/schemas/{kind}"}}}
    if call.links:
        answer["links"] = _links(linked)
    return answer


def _without_content(answer: Json, status: int) -> Json:
    if "$ref" in answer:
        name = answer["$ref"].rpartition("/")[2]
        return _without_content(responses()[name], status)
    return {name: value for name, value in answer.items() if name not in ("content", "links")}


def _headers(names: tuple[str, ...]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, _REQUEST_ID)}


def _links(linked: Sequence[str]) -> Json:
    """From a new image to every call that takes its id."""
    return {name: {"operationId": name, "parameters": {"image_id": "$response.body#/id"}} for name in linked}


def _object(required: str, /, **properties: Any) -> Json:
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def all_of(image: ImageSchema) -> dict[str, Json]:
    """Schemas of all answers."""
    link = _object("rel href", rel=_STRING, href=_STRING)
    version = _object(
        "id status links",
        id={"type": "string", "pattern": r"^v2\.[0-9]+$"},
        status={"enum": ["CURRENT", "SUPPORTED"]},
        links=_list(link),
    )
    flag = {"const": "true", "description": "A string, and absent when it is not so."}
    store = {"id": _STRING, "description": _STRING, "default": flag, "read-only": flag}
    detail = {**store, "type": _STRING, "weight": {"type": "integer"}, "properties": {"type": "object"}}
    member = {"$ref": "#/components/schemas/Member"}
    number = {"type": "number", "description": "Seconds since 1970."}
    whole = {"type": "integer", "minimum": 0}
    cached = _object(
        "image_id hits last_accessed last_modified size",
        image_id=_STRING, hits=whole, last_accessed=number, last_modified=number, size=whole,
    )  # fmt: skip
    count = _object("usage limit", usage={"type": "integer"}, limit={"type": "integer"})
    methods = _object("description type value", description=_STRING, type={"const": "array"}, value=_list(_STRING))
    shown = sorted((BASE - {"locations"}) | {"self", "file", "schema", "status", "checksum", "size", "virtual_size"})
    error = _object("message code title", message=_STRING, code=_STRING, title=_STRING)
    return {
        "Error": {
            "description": "Within an object when the request did not ask for JSON by name.",
            "anyOf": [_object("error", error=error), error],
        },
        "Versions": _object("versions", versions=_list(version)),
        "Document": {"type": "object", "required": ["openapi", "paths"]},
        "Schema": _object("name properties", name=_STRING, properties={"type": "object"}),
        "Image": {
            "type": "object",
            "properties": image.properties,
            "required": [*shown, "created_at", "updated_at", "os_hash_algo", "os_hash_value"],
            "additionalProperties": PROPERTY,
        },
        "Images": _object(
            "images first schema",
            images=_list({"$ref": "#/components/schemas/Image"}),
            first=_STRING,
            next={"type": "string", "description": "Only after a full page."},
            schema=_STRING,
        ),
        "Member": {"type": "object", "properties": MEMBER_PROPERTIES, "required": sorted(MEMBER_PROPERTIES)},
        "Members": _object("members schema", members=_list(member), schema=_STRING),
        "Locations": _list(schemas.location()),
        "Stores": _object("stores", stores=_list(_object("id", **store))),
        "StoresInDetail": _object("stores", stores=_list(_object("id type weight properties", **detail))),
        "ImportMethods": {
            "type": "object",
            "properties": {"import-methods": methods},
            "required": ["import-methods"],
        },
        "Task": {"type": "object", "properties": schemas.TASK_PROPERTIES, "required": sorted(schemas.TASK_PROPERTIES)},
        "Tasks": _object(
            "tasks first schema",
            tasks=_list(schemas.tasks()["properties"]["tasks"]["items"]),
            first=_STRING,
            next={"type": "string", "description": "Only after a full page."},
            schema=_STRING,
        ),
        "ImageTasks": _object("tasks", tasks=_list({"type": "object", "properties": schemas.TASK_PROPERTIES})),
        "Cache": _object("cached_images queued_images", cached_images=_list(cached), queued_images=_list(_STRING)),
        "CachedImages": _object("cached_images", cached_images=_list(cached)),
        "QueuedImages": _object("queued_images", queued_images=_list(_STRING)),
        "Nodes": _list(_STRING),
        "Pruned": _object("total_files_pruned total_bytes_pruned", total_files_pruned=whole, total_bytes_pruned=whole),
        "Deleted": _object("num_deleted", num_deleted=whole),
        "Upload": _object(
            "id image_id kind offset length complete max_age",
            id=_STRING,
            image_id=_STRING,
            kind={"enum": ["file", "stage"]},
            offset={"type": "integer", "description": "Where the next piece begins."},
            length={"type": ["integer", "null"]},
            complete={"type": "boolean"},
            max_age={"type": "integer", "description": "Seconds until it is given up."},
        ),
        "Usage": _object("usage", usage={"type": "object", "additionalProperties": count}),
        **metadefs.ANSWERS,
    }
