"""Parameters of the OpenAPI document; those of the list come from the columns that the list knows."""

from __future__ import annotations

from typing import Any, Final

from xloud_image.api.openapi import metadefs
from xloud_image.db.filters import COMPARE
from xloud_image.db.query import COLUMNS, FLAGS, LISTED, NUMBERS, SORT_KEYS, TIMES
from xloud_image.db.tasks import SORT_KEYS as TASK_KEYS
from xloud_image.model import MEMBER_STATUSES, TASK_STATUSES, TASK_TYPES, VISIBILITIES
from xloud_image.schemas import MAX_NAME, UUID_PATTERN
from xloud_image.services.runtime import Runtime

Json = dict[str, Any]

_PLAIN: Final = {"type": "string"}
_MOST: Final = 2**63 - 1
# Of every call.
ALWAYS: Final = ("request_id",)


def reference(name: str) -> Json:
    """The reference to one of `all_of`."""
    return {"$ref": f"#/components/parameters/{name}"}


def all_of(runtime: Runtime) -> dict[str, Json]:
    """Every parameter by the name under which calls refer to it."""
    limits = runtime.settings.limits
    limit = (
        f"At most so many images; {limits.limit_param_default} unless given, never more than {limits.api_limit_max}."
    )
    found = {
        "image_id": _in_path("image_id", "The image's UUID.", pattern=UUID_PATTERN),
        "member": _in_path("member", "The id of the project.", minLength=1, maxLength=MAX_NAME),
        "tag": _in_path("tag", "The tag.", minLength=1, maxLength=MAX_NAME),
        "store": _in_path("store", "The id of a store, from /v2/info/stores.", examples=list(runtime.stores.names)),
        "name": _in_path("name", "The schema's name.", enum=["image", "images", "member", "members", "task", "tasks"]),
        "upload_id": _in_path("upload_id", "The upload's UUID.", pattern=UUID_PATTERN),
        "task_id": _in_path("task_id", "The task's UUID.", pattern=UUID_PATTERN),
        "task_type": _query("type", "Tasks of one type.", {"enum": list(TASK_TYPES)}),
        "task_status": _query("status", "Tasks in one status.", {"enum": list(TASK_STATUSES)}),
        "task_sort_key": _query("sort_key", "By what to sort; created_at.", {"enum": list(TASK_KEYS)}),
        "task_sort_dir": _query("sort_dir", "In which direction; desc.", {"enum": ["asc", "desc"]}),
        "task_marker": _query(
            "marker", "The id of the last task of the page before.", {"type": "string", "maxLength": 36}
        ),
        "request_id": _header(
            "x-openstack-request-id",
            "An id of the client's own; only its length is looked at.",
            maxLength=runtime.settings.server.max_request_id_length,
        ),
        "clear_target": _header(
            "x-image-cache-clear-target", "What to empty; both unless given.", enum=["cache", "queue", "both"]
        ),
        "choose_store": _header("X-Image-Meta-Store", "The store to write to.", enum=list(runtime.stores.names)),
        "announced_size": _header(
            "x-openstack-image-size",
            "The bytes to come; 0 when unknown. Other than what comes is an error.",
            pattern="^[0-9]{1,18}$",
        ),
        "upload_complete": _header(
            "Upload-Complete", "?1: nothing comes after this; ?0: more is to come. Anything else is passed over."
        ),
        # no pattern: with a plain upload it is passed over, whatever it says
        "upload_length": _header("Upload-Length", "The bytes of all data; it counts with Upload-Complete only."),
        "upload_offset": _header("Upload-Offset", "The byte at which this piece begins.", pattern="^[0-9]{1,15}$"),
        "content_digest": _header("Content-Digest", "The digest of this piece, as sha-256=:BASE64:; it must have it."),
        "whole_digest": _header("Repr-Digest", "The digest of all data, as sha-256=:BASE64:; it must have it."),
        "range": _header(
            "Range", "One range of bytes, as bytes=0-99. Other units are passed over: the whole is given."
        ),
        "old_range": _header("Content-Range", "The older way to ask for a range: bytes 0-99/*."),
        "if_none_match": _header("If-None-Match", "ETags that the client has; a hit is answered with 304."),
        "if_range": _header("If-Range", "The ETag for which the range is meant; another gives the whole."),
        "prefer": _query("prefer", "Stores to be tried first, separated by commas; only with several stores.", _PLAIN),
        "limit": _query("limit", limit, {"type": "integer", "minimum": 0}),
        "marker": _query("marker", "The id of the last image of the page before.", {"type": "string", "maxLength": 36}),
        "sort": _query("sort", "key[:asc|desc], separated by commas; not together with the two others.", _sort()),
        "sort_key": _query("sort_key", "May be repeated.", _several({"enum": list(SORT_KEYS)})),
        "sort_dir": _query("sort_dir", "One, or one for each key.", _several({"enum": ["asc", "desc"]})),
    }
    return found | {f"by_{one['name']}": one for one in filters()} | metadefs.PARAMETERS


LIST: Final = ("limit", "marker", "sort", "sort_key", "sort_dir")


def filters() -> list[Json]:
    """One for each filter of the list, and one for all extra properties."""
    found = [
        _query("visibility", "Images of one visibility.", {"enum": [*VISIBILITIES, "all"]}),
        _query("member_status", "Shared images by the caller's answer.", {"enum": [*MEMBER_STATUSES, "all"]}),
        _query("tag", "Images that have all these tags.", _several(_PLAIN)),
    ]
    signs = "|".join(sorted(COMPARE))
    for name in sorted(COLUMNS):
        if name in FLAGS:
            found.append(_query(name, f"By {name}.", {"enum": ["true", "false"]}))
        elif name in NUMBERS:
            number = {"type": "integer", "minimum": -_MOST, "maximum": _MOST}
            found.append(_query(name, f"By {name}.", number))
            found.append(_query(f"{name}_min", f"With at least this {name}.", number))
            found.append(_query(f"{name}_max", f"With at most this {name}.", number))
        elif name in TIMES:
            text = f"A time like 2030-01-31T12:00:00Z, with {signs} and a colon in front unless it must be equal."
            found.append(_query(name, text, _PLAIN))
        elif name in LISTED:
            found.append(_query(name, f'By {name}; several as in:a,"b,c".', _PLAIN))
        else:
            found.append(_query(name, f"By {name}.", _PLAIN))
    return [*found, _properties()]


def _properties() -> Json:
    return {
        **_query(
            "properties",
            "Any other name: images that have a property of this name with this value.",
            {"type": "object", "additionalProperties": _PLAIN},
        ),
        "style": "form",
        "explode": True,
    }


def _sort() -> Json:
    pair = f"({'|'.join(SORT_KEYS)})(:(asc|desc))?"
    return {"type": "string", "pattern": f"^{pair}(,{pair})*$"}


def _several(items: Json) -> Json:
    return {"type": "array", "items": {"type": "string", **items}}


def _query(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _header(name: str, text: str, **schema: Any) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string", **schema}}


def _in_path(name: str, text: str, **schema: Any) -> Json:
    return {
        "name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string", **schema}
    }  # fmt: skip
