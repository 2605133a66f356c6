"""Images, members and lists as JSON, and JSON bodies as Python values. No rights but to see locations
and properties.

Source: Image API reference, sections "Common rules", "Image entity", "Images".
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from multidict import MultiMapping
from yarl import URL

from xloud_image.api import receiving
from xloud_image.api.state import RUNTIME
from xloud_image.db.query import Page
from xloud_image.errors import BadRequest, TooLarge
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location, Member, shown_url
from xloud_image.policy import images as rights
from xloud_image.services import downloads, external
from xloud_image.services.runtime import Runtime

JSON: Final = "application/json"
VALUES: Final = 16384
_SIGNS: Final = (b",", b"[", b"{")  # of JSON: there is one for each value, or for the first of several
PAGE_BYTES: Final = 8 << 20  # of the images in one answer to a list
# Written by a Glance that shares the database, for itself.
_INTERNAL: Final = frozenset({"os_glance_stage_host", "os_glance_hash_op_host"})


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=orjson.dumps(value), status=status, headers={hdrs.CONTENT_TYPE: JSON, **(headers or {})})


async def body(request: web.Request) -> Any:
    """The JSON value of the body. `BadRequest` when there is none, or it is malformed, too deep or not UTF-8."""
    server = request.app[RUNTIME].settings.server
    raw = await receiving.whole(request, server.client_socket_timeout, server.max_request_body_size)
    if not raw:
        raise BadRequest("Body expected in request.")
    if len(raw) > receiving.LARGE:
        _require_few_values(raw)
        await asyncio.sleep(0)  # others have a turn before it is read
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}") from None


def _require_few_values(raw: bytes) -> None:
    """A large body is large by its texts: many small values would take much more memory and time than they have bytes.

    `TooLarge` when there are more than VALUES of them.
    """
    if sum(raw.count(sign) for sign in _SIGNS) <= VALUES:
        return
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # now each quotation mark begins or ends a text
    if plain.count(b'"') <= 4 * VALUES:
        between = b"".join(plain.split(b'"')[::2])
        if sum(between.count(sign) for sign in _SIGNS) <= VALUES:
            return
    raise TooLarge(f"A body of more than {receiving.LARGE} bytes may hold {VALUES} values.")


async def body_object(request: web.Request) -> dict[str, Any]:
    """The same where only an object makes sense."""
    value = await body(request)
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def warning(text: str | None) -> dict[str, str]:
    """A sentence for whoever reads headers, beside an answer that says that all is well; none without a sentence.

    `Warning` with code 299 (miscellaneous) is what other services say such things in, so that clients show it.
    """
    if text is None:
        return {}
    plain = text.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    return {"Warning": f'299 - "{plain}"'}


def moment(value: dt.datetime) -> str:
    """UTC time as the API writes it."""
    return value.isoformat(timespec="seconds")[:19] + "Z"


def image(runtime: Runtime, ctx: Context, value: Image) -> dict[str, Any]:
    """One image as the caller may see it."""
    path = f"/v2/images/{value.id}"
    shown: dict[str, Any] = {
        name: text if text is not None else "" for name, text in value.properties.items() if name not in _INTERNAL
    }
    if runtime.policy.protects_properties:
        shown = {name: text for name, text in shown.items() if runtime.policy.may_touch(ctx, "read", name)}
    shown |= {
        "id": value.id,
        "name": value.name,
        "status": value.status,
        "visibility": value.visibility,
        "owner": value.owner,
        "protected": value.protected,
        "os_hidden": value.os_hidden,
        "container_format": value.container_format,
        "disk_format": value.disk_format,
        "min_disk": value.min_disk,
        "min_ram": value.min_ram,
        "size": value.size,
        "virtual_size": value.virtual_size,
        "checksum": value.checksum,
        "os_hash_algo": value.os_hash_algo,
        "os_hash_value": value.os_hash_value,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
        "tags": list(value.tags),
        "self": path,
        "file": f"{path}/file",
        "schema": "/v2/schemas/image",
    }
    settings = runtime.settings
    known = rights.known_locations(ctx, value)
    if settings.multi_store and known:
        shown["stores"] = ",".join(_stores(runtime, value))
    exposure = settings.exposure
    exposed = exposure.show_multiple_locations or exposure.show_image_direct_url
    if exposed and rights.may_see_locations(runtime.policy, ctx, value):
        _expose(runtime, value if known else value.replace(locations=()), shown)
    return shown


def _stores(runtime: Runtime, value: Image) -> dict[str, None]:
    found: dict[str, None] = {}
    for place in value.locations:
        if external.NOTES in place.metadata and not external.counts(place) and value.status != "queued":
            continue
        name = place.store
        if name is None or runtime.stores.get(name) is None:
            store = runtime.stores.of(place)
            name = store.name if store is not None else name
        if name is not None:
            found[name] = None
    return found


def _expose(runtime: Runtime, value: Image, shown: dict[str, Any]) -> None:
    ordered = [place for _, place in downloads.in_order(runtime, value)] if value.locations else []
    if runtime.settings.exposure.show_multiple_locations:
        shown["locations"] = [location(place) for place in ordered]
    if runtime.settings.exposure.show_image_direct_url and ordered:
        shown["direct_url"] = shown_url(ordered[0].url)


def location(value: Location) -> dict[str, Any]:
    """One location, without a login that its URL may hold."""
    return {"url": shown_url(value.url), "metadata": external.without_notes(value.metadata)}


def member(value: Member) -> dict[str, Any]:
    """One membership."""
    return {
        "member_id": value.member,
        "image_id": value.image_id,
        "status": value.status,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
        "schema": "/v2/schemas/member",
    }


def page(runtime: Runtime, ctx: Context, found: Page, query: MultiMapping[str]) -> dict[str, Any]:
    """A page of images with the links to the first and the next one; `next` where more may follow.

    It ends early when its images are PAGE_BYTES of JSON, with one image at the least.
    """
    kept = [(name, text) for name, text in query.items() if name != "marker"]
    images: list[Any] = []
    room, more, end = PAGE_BYTES, found.more, found.end
    if found.most is not None and found.most <= PAGE_BYTES:
        images = [image(runtime, ctx, value) for value in found]
    else:
        for number, value in enumerate(found):
            text = orjson.dumps(image(runtime, ctx, value))
            room -= len(text)
            if room < 0 and images:
                more, end = True, found[number - 1].id
                break
            images.append(orjson.Fragment(text))
    result: dict[str, Any] = {
        "images": images,
        "first": _link(kept),
        "schema": "/v2/schemas/images",
    }
    if more and end is not None:
        result["next"] = _link([*kept, ("marker", end)])
    return result


def _link(query: list[tuple[str, str]]) -> str:
    return str(URL("/v2/images").with_query(query)) if query else "/v2/images"
