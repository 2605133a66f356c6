"""What the answers of web servers mean: sizes, ranges, versions, redirects, errors. Nothing is asked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from yarl import URL

from xloud_image.errors import BadRequest, BlobNotFound, ImageServiceError, StoreUnavailable

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]+")  # what a URL may consist of
_RANGE: Final = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_EMPTY: Final = re.compile(r"bytes\s+\*/(\d{1,19})", re.ASCII | re.IGNORECASE)
# later the same request may be answered
_TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def parsed(url: str) -> URL | None:
    """An http or https URL as it will be asked; None when it is none. Percent-encodings stay as they are, signed URLs
    depend on them; what may not stand in a URL is encoded, and names of other scripts become ASCII."""
    if _UNSAFE.search(url):
        return None
    try:
        found = URL(url, encoded=_PLAIN.fullmatch(url) is not None)
        good = found.scheme in ("http", "https") and found.raw_host and found.port and found.raw_host.isascii()
    except ValueError:
        return None
    return found if good else None


def next_url(url: URL, headers: Mapping[str, str], *, downgrade: bool) -> URL:
    """Where a redirect leads. `BadRequest` when it leads nowhere, to another scheme, or from https to http unless
    `downgrade`. Credentials in a URL go nowhere else than to the server that they are for."""
    place = headers.get("Location", "").strip()
    target = None
    if place and not _UNSAFE.search(place):
        try:
            joined = url.join(URL(place, encoded=_PLAIN.fullmatch(place) is not None))
            target = parsed(str(joined))
        except ValueError:
            target = None
    if target is None:
        raise BadRequest("the server of the URL redirects to something that is no http or https URL")
    if url.scheme == "https" and target.scheme == "http" and not downgrade:
        raise BadRequest("the server of the URL redirects from https to http, where anybody could change the data")
    if url.raw_user is not None and target.raw_user is None and url.origin() == target.origin():
        target = target.with_user(url.user).with_password(url.password)
    return target


def length(headers: Mapping[str, str]) -> int | None:
    """`Content-Length` in bytes, None when there is none that makes sense."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, last byte and total (None: not told) of a partial answer; None when it says no such thing."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) > int(match[2]):
        return None
    total = None if match[3] == "*" else int(match[3])
    return None if total is not None and int(match[2]) >= total else (int(match[1]), int(match[2]), total)


def total_of_416(headers: Mapping[str, str]) -> int | None:
    """The size that a refused range tells, None when it does not."""
    match = _EMPTY.fullmatch(headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def version(headers: Mapping[str, str], size: int | None, *, elsewhere: bool) -> str | None:
    """What changes when the file does: the strong ETag, else time of change and size, None when neither is told.

    `elsewhere`: a redirect led to another host. Mirrors give ETags of their own, so there the ETag says nothing.
    """
    tag = headers.get("ETag", "").strip()
    if tag.startswith('"') and len(tag) > 2 and not elsewhere:
        return tag
    changed = headers.get("Last-Modified", "").strip()
    return f"{changed}; {size} bytes" if changed and size is not None else None


def failure(name: str, status: int) -> ImageServiceError:
    """The error that a status means which is none of those expected."""
    if status in (404, 410):
        return BlobNotFound(f"store {name}: the server of the URL has no such file (it answers {status})")
    if status in _TEMPORARY:
        return StoreUnavailable(f"store {name}: the server of the URL cannot give the file now (it answers {status})")
    return BadRequest(f"store {name}: the server of the URL does not give the file (it answers {status})")
