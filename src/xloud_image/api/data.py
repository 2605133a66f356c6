"""Handlers of image data. Source: Image API reference, section "Data"."""

from __future__ import annotations

from aiohttp import hdrs, web

from xloud_image.api import messages, receiving, sending, uploads, wire
from xloud_image.api.state import REQUEST_ID, context, image_id, import_methods, runtime
from xloud_image.errors import BadRequest, PreconditionFailed, WrongMediaType
from xloud_image.model import Image
from xloud_image.services import caching, data, downloads, hints, imports, notices, staging

OCTETS = "application/octet-stream"


async def upload(request: web.Request) -> web.Response:
    """PUT /v2/images/{id}/file → 204; 201 when more of the data is to come (`uploads`)."""
    _require_octets(request)
    if (taken := await uploads.begin(request, "file")) is not None:
        if taken.image is None:
            return uploads.begun(request, taken.upload)
        return web.Response(status=204, headers=received(request, taken.image) | uploads.COMPLETE)
    image = await data.upload(
        runtime(request),
        context(request),
        image_id(request),
        receiving.chunks(request, runtime(request).settings.server.client_socket_timeout),
        declared=receiving.declared_size(request),
        store_id=request.headers.get("X-Image-Meta-Store"),
    )
    return web.Response(status=204, headers=received(request, image))


def received(request: web.Request, image: Image) -> dict[str, str]:
    """The headers of the answer when an image has got its data."""
    return _store_headers(image) | wire.warning(hints.of(runtime(request), image))


def _require_octets(request: web.Request) -> None:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != OCTETS:
        raise WrongMediaType(f"Image data has the media type {OCTETS}.")


def _store_headers(image: Image) -> dict[str, str]:
    store = image.locations[-1].store if image.locations else None
    return {"X-Image-Meta-Store": store} if store else {}


async def download(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /v2/images/{id}/file → 200, 206, 204 (no data yet), 304, 412."""
    prefer = _preferred(request)
    image = await downloads.downloadable(runtime(request), context(request), image_id(request), prefer=prefer)
    if image.status in ("queued", "saving", "uploading", "importing", "killed") or not image.locations:
        return web.Response(status=204)
    headers = _headers(image)
    tag = headers.get(hdrs.ETAG)
    match messages.is_unmet(request, tag, image.updated_at):
        case 304:
            return web.Response(status=304, headers={hdrs.ETAG: tag} if tag else None)
        case 412:
            raise PreconditionFailed("The data is not what the condition of the request names.")
    span = sending.requested(request) if messages.may_be_a_part(request, tag) else None
    if request.method == "HEAD" and image.size is not None:
        response = web.StreamResponse(headers=headers)
        response.content_length = image.size
        return response
    async with caching.download(runtime(request), context(request), image, span=span, prefer=prefer) as opened:
        response = web.StreamResponse(status=200 if span is None else 206, headers=headers)
        response.content_length = opened.length
        if span is not None:
            response.headers["Content-Range"] = f"bytes {opened.start}-{opened.start + opened.length - 1}/{opened.size}"
            response.headers.pop("Content-MD5", None)
        if request.method == "HEAD":
            return response
        await sending.send(request, response, opened, runtime(request).settings.server.client_socket_timeout)
    notices.sent(runtime(request), context(request), image, opened.length)
    return response


def _headers(image: Image) -> dict[str, str]:
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: OCTETS, hdrs.ACCEPT_RANGES: "bytes"}
    if image.checksum:
        headers["Content-MD5"] = image.checksum
    digest = image.os_hash_value or image.checksum
    if digest:
        headers[hdrs.ETAG] = f'"{digest}"'
    return headers


def _preferred(request: web.Request) -> list[str]:
    text = request.query.get("prefer")
    if text is None:
        return []
    if not runtime(request).settings.multi_store:
        raise BadRequest("'prefer' needs several stores (enabled_backends).")
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadRequest("'prefer' is a list of store ids, separated by commas.")
    return names


async def stage(request: web.Request) -> web.Response:
    """PUT /v2/images/{id}/stage → 204; 201 when more of the data is to come (`uploads`)."""
    _require_octets(request)
    if (taken := await uploads.begin(request, "stage")) is not None:
        if taken.image is None:
            return uploads.begun(request, taken.upload)
        return web.Response(status=204, headers=uploads.COMPLETE)
    await staging.stage(
        runtime(request),
        context(request),
        image_id(request),
        receiving.chunks(request, runtime(request).settings.server.client_socket_timeout),
        declared=receiving.declared_size(request),
    )
    return web.Response(status=204)


async def append(request: web.Request) -> web.Response:
    """PATCH /v2/images/{id}/uploads/{upload} → 204, also when it was the last piece."""
    taken = await uploads.append(request)
    if taken.image is None:
        return web.Response(status=204, headers=uploads.headers(request, taken.upload))
    headers = received(request, taken.image) if taken.upload.kind == "file" else {}
    return web.Response(status=204, headers=headers | uploads.COMPLETE)


async def begin_import(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/import → 202."""
    await imports.begin(
        runtime(request),
        context(request),
        image_id(request),
        await wire.body_object(request),
        possible=await import_methods(request),
        store=request.headers.get("X-Image-Meta-Store"),
        request_id=request[REQUEST_ID],
    )
    return web.Response(status=202)


async def begin_move(request: web.Request) -> web.Response:
    """POST /v2/images/{id}/actions/move → 202."""
    await imports.move(
        runtime(request),
        context(request),
        image_id(request),
        await wire.body_object(request),
        possible=await import_methods(request),
        request_id=request[REQUEST_ID],
    )
    return web.Response(status=202)
