"""Uploads that go on where they broke, as HTTP has them: the header fields of draft-ietf-httpbis-resumable-upload-12
(interop version 8), and handlers of an upload's own resource. What is done with the data is told by `services.uploads`.

Only a request with `Upload-Complete` is one of them; any other PUT is what it always was.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from aiohttp import hdrs, web

from xloud_image.api import proxies, receiving, wire
from xloud_image.api.state import context, image_id, runtime
from xloud_image.errors import BadRequest, Conflict, NotFound, TooLarge, WrongMediaType
from xloud_image.fetching.checksums import Expected
from xloud_image.model import Upload
from xloud_image.services import uploads
from xloud_image.services.arriving import Piece
from xloud_image.services.uploads import Taken

PARTIAL: Final = "application/partial-upload"
COMPLETE: Final = {"Upload-Complete": "?1"}
_VERSIONS: Final = ("6", "7", "8")  # of drafts whose fields mean what they mean here
_BOOLEAN: Final = re.compile(r" *\?([01]) *(?:;.*)?", re.ASCII)
_INTEGER: Final = re.compile(r" *([0-9]{1,15}) *(?:;.*)?", re.ASCII)
_DIGEST: Final = re.compile(r" *([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):(?:;.*)? *", re.ASCII)
# of the registry of RFC 9530; the first one of a request that is known here counts
_ALGORITHMS: Final = {"sha-512": "sha512", "sha-256": "sha256", "md5": "md5", "sha": "sha1"}
_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CALLS: Final = re.compile(r"/v2/images/[^/]+/(?:file|stage|uploads/[^/]+)")


async def begin(request: web.Request, kind: str) -> Taken | None:
    """A new upload, or all of one; None when the request is a plain one."""
    last = _flag(request)
    if last is None:
        return None
    version = request.headers.get("Upload-Draft-Interop-Version")
    if version is not None and version.strip() not in _VERSIONS:
        raise BadRequest(f"Uploads of the draft's interop version {_VERSIONS[-1]} are taken here; this is another.")
    if last and kind == "file" and not uploads.is_offered(runtime(request)):
        return None  # without a place for parts it is a plain one
    piece = _piece(request, last)
    store = request.headers.get("X-Image-Meta-Store")
    try:
        return await uploads.begin(runtime(request), context(request), image_id(request), kind, piece, store_id=store)
    except Conflict as error:
        if hdrs.LOCATION in error.headers:
            error.headers[hdrs.LOCATION] = proxies.way(request).base + error.headers[hdrs.LOCATION]
        raise
    except TooLarge as error:
        error.headers["Upload-Limit"] = _limit(request, runtime(request).settings.imports.upload_lifetime * 3600)
        raise


def begun(request: web.Request, upload: Upload) -> web.Response:
    """The answer to a request after which more is to come."""
    return web.Response(status=201, headers={"Location": _url(request, upload), **headers(request, upload)})


def headers(request: web.Request, upload: Upload) -> dict[str, str]:
    """What is told of an upload: where it goes on, and until when."""
    over = upload.state in ("staged", "over")
    found = {"Upload-Offset": str(upload.received), "Upload-Complete": "?1" if over else "?0"}
    if upload.size is not None:
        found["Upload-Length"] = str(upload.size)
    return {**found, "Upload-Limit": _limit(request, upload.lives), hdrs.CACHE_CONTROL: "no-store"}


def _limit(request: web.Request, seconds: int) -> str:
    return f"max-size={runtime(request).settings.limits.image_size_cap}, max-age={seconds}"


def offered(request: web.Request) -> dict[str, str]:
    """What OPTIONS tells of calls that can begin an upload or go on with one."""
    if not _CALLS.fullmatch(request.path) or not uploads.is_offered(runtime(request)):
        return {}
    lifetime = runtime(request).settings.imports.upload_lifetime * 3600
    return {"Accept-Patch": PARTIAL, "Upload-Limit": _limit(request, lifetime)}


async def show(request: web.Request) -> web.Response:
    """GET and HEAD /v2/images/{id}/uploads/{upload} → 200."""
    stop = request.method == "HEAD"  # its client wants to go on; GET only looks
    upload = await uploads.state(runtime(request), context(request), image_id(request), _upload_id(request), stop=stop)
    shown: dict[str, Any] = {
        "id": upload.id,
        "image_id": upload.image_id,
        "kind": upload.kind,
        "offset": upload.received,
        "length": upload.size,
        "complete": upload.state in ("staged", "over"),
        "max_age": upload.lives,
    }
    answered = headers(request, upload)
    if upload.digest is not None:
        answered["Repr-Digest"] = _field(upload.digest)
    return wire.answer(shown, 200, answered)


async def append(request: web.Request) -> Taken:
    """A further piece."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != PARTIAL:
        raise WrongMediaType(f"A piece of an upload has the media type {PARTIAL}.", headers={"Accept-Patch": PARTIAL})
    last = _flag(request)
    if last is None:
        raise BadRequest("Upload-Complete is missing: ?1 for the last piece, ?0 for any other.")
    offset = _number(request, "Upload-Offset")
    if offset is None:
        raise BadRequest("Upload-Offset is missing: the byte at which this piece begins.")
    return await uploads.add(
        runtime(request), context(request), image_id(request), _upload_id(request), offset, _piece(request, last)
    )


async def cancel(request: web.Request) -> web.Response:
    """DELETE /v2/images/{id}/uploads/{upload} → 204."""
    await uploads.cancel(runtime(request), context(request), image_id(request), _upload_id(request))
    return web.Response(status=204)


def _piece(request: web.Request, last: bool) -> Piece:
    length = request.content_length if request.body_exists else 0
    if not last and "x-openstack-image-size" in request.headers:
        raise BadRequest("'x-openstack-image-size' is of a whole upload; the size of all data is Upload-Length here.")
    size = _number(request, "Upload-Length")
    if size is None and last and length is None:
        size = receiving.declared_size(request)
    return Piece(
        receiving.chunks(request, runtime(request).settings.server.client_socket_timeout),
        length,
        last,
        size=size,
        content=_digest(request, "Content-Digest"),
        whole=_digest(request, "Repr-Digest"),
    )


def _upload_id(request: web.Request) -> str:
    text = request.match_info["upload_id"].lower()
    if not _UUID.fullmatch(text):
        raise NotFound("There is no such upload.")
    return text


def _url(request: web.Request, upload: Upload) -> str:
    return f"{proxies.way(request).base}{uploads.place_of(upload)}"


def _flag(request: web.Request) -> bool | None:
    """`Upload-Complete`; as the draft has it, what is none counts as not sent."""
    found = _BOOLEAN.fullmatch(request.headers.get("Upload-Complete", ""))
    return None if found is None else found[1] == "1"


def _number(request: web.Request, name: str) -> int | None:
    """A number of bytes; what is none counts as not sent."""
    found = _INTEGER.fullmatch(request.headers.get(name, ""))
    return None if found is None else int(found[1])


def _digest(request: web.Request, name: str) -> Expected | None:
    """The strongest digest of a field that is known here. `BadRequest` when there are others only: nobody relies on a
    check that is not made."""
    given = request.headers.getall(name, ())
    if not given:
        return None
    found: dict[str, str] = {}
    for member in ",".join(given).split(","):
        match = _DIGEST.fullmatch(member)
        try:
            if match is None:
                raise ValueError
            found[match[1]] = base64.b64decode(match[2], validate=True).hex()
        except (ValueError, binascii.Error):
            raise BadRequest(f"{name} is made of members like sha-256=:BASE64:, with commas between them.") from None
    for algorithm, ours in _ALGORITHMS.items():
        if algorithm in found:
            return Expected(ours, found[algorithm])
    raise BadRequest(f"{name}: the algorithms that are known here are {', '.join(_ALGORITHMS)}.")


def _field(digest: str) -> str:
    ours, _, value = digest.partition(":")
    name = next(name for name, known in _ALGORITHMS.items() if known == ours)
    return f"{name}=:{base64.b64encode(bytes.fromhex(value)).decode()}:"
