"""What the answers of web servers mean: sizes, ranges, versions, redirects, errors. Nothing is asked here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from yarl import URL

from xloud_image.errors import BadRequest, BlobNotFound, ImageServiceError, StoreUnavailable, UrlRefused

_MOST: Final = (1 << 63) - 1  # bytes: the database holds no larger size
_URL: Final = 8192  # characters of a URL; longer ones are refused by most servers too
_HOST: Final = 253 + len(":65535")  # characters of a host, the longest name there is, with its port
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?//([^/?#]*)")
_LONG: Final = 200  # characters of a version that are noted as they are
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\\]|^ | \Z|://[^/?# ]* ")  # blanks only behind the host
_PLAIN: Final = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]+")  # what a URL may consist of
_RANGE: Final = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_EMPTY: Final = re.compile(r"bytes\s+(?:\*|\d{1,19}-\d{1,19})/(\d{1,19})", re.ASCII | re.IGNORECASE)
# later the same request may be answered
TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def parsed(url: str) -> URL | None:
    """An http or https URL as it will be asked; None when it is none. Percent-encodings stay as they are, signed URLs
    depend on them; what may not stand in a URL is encoded (old rows and redirects have blanks), and names of other
    scripts become ASCII. Longer ones than a server takes, and hosts longer than names can be, are none."""
    if not _is_short(url) or _UNSAFE.search(url):
        return None
    try:
        found = _url(url)
        good = found.scheme in ("http", "https") and found.raw_host and found.port and found.raw_host.isascii()
    except ValueError:
        return None
    return found if good else None


def _is_short(text: str) -> bool:
    """Whether a URL, or the rest of one, and its host are as long as they may be: names of other scripts cost a
    thousand times what they have of characters."""
    if len(text) > _URL:
        return False
    match = _AUTHORITY.match(text)
    return match is None or len(match[1].rpartition("@")[2]) <= _HOST


def _url(text: str) -> URL:
    text = text.replace(" ", "%20")
    return URL(text, encoded=_PLAIN.fullmatch(text) is not None)


def next_url(url: URL, headers: Mapping[str, str], *, downgrade: bool) -> URL:
    """Where a redirect leads. `UrlRefused` when it leads nowhere, to another scheme, or from https to http unless
    `downgrade`. Credentials in a URL go nowhere else than to the server that they are for."""
    place = headers.get("Location", "").strip()
    target = None
    if place and _is_short(place) and not _UNSAFE.search(place):
        try:
            joined = url.join(_url(place))
            target = parsed(str(joined))
        except ValueError:
            target = None
    if target is None:
        raise UrlRefused("the server of the URL redirects to something that is no http or https URL")
    if url.scheme == "https" and target.scheme == "http" and not downgrade:
        raise UrlRefused("the server of the URL redirects from https to http, where anybody could change the data")
    if url.raw_user is not None and target.raw_user is None and url.origin() == target.origin():
        target = target.with_user(url.user).with_password(url.password)
    return target


def length(headers: Mapping[str, str]) -> int | None:
    """`Content-Length` in bytes, None when there is none that makes sense."""
    return _bytes(headers.get("Content-Length", ""))


def _bytes(text: str) -> int | None:
    found = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    return found if found is not None and found <= _MOST else None


def oddity(headers: Mapping[str, str], *, page: bool = True, part: bool = False) -> str | None:
    """Why the body of an answer is not the file that was asked for, in words that follow «the server of the URL»; None:
    nothing says so. `page`: whether a web page counts as none; `part`: the answer brings the range that was wanted."""
    coding = headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return f"sends the file packed (Content-Encoding: {plain(coding)[:40]}), though it was asked not to"
    if not part and not is_whole(headers):
        return "gives a part where the whole was asked for"
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if page and kind in ("text/html", "application/xhtml+xml"):
        return f"answers with a web page ({kind}), not with an image: give the URL of the file itself"
    return None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, last byte and total (None: not told) of a partial answer; None when it says no such thing."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) > int(match[2]):
        return None
    total = None if match[3] == "*" else int(match[3])
    wrong = int(match[2]) >= (_MOST if total is None else total) or (total or 0) > _MOST
    return None if wrong or _has_parts(headers) else (int(match[1]), int(match[2]), total)


def is_whole(headers: Mapping[str, str]) -> bool:
    """Whether the body of an answer with status 200 is all of the file: its Content-Range, if it has one, says so."""
    if "Content-Range" not in headers:
        return not headers.get("Content-Type", "").strip().lower().startswith("multipart/byteranges")
    found = content_range(headers)
    return found is not None and found[0] == 0 and found[2] == found[1] + 1


def _has_parts(headers: Mapping[str, str]) -> bool:
    """Whether the body holds several ranges with lines about each between them."""
    return headers.get("Content-Type", "").strip().lower().startswith("multipart/")


def total_of_416(headers: Mapping[str, str]) -> int | None:
    """The size that a refused range tells, None when it does not."""
    match = _EMPTY.fullmatch(headers.get("Content-Range", "").strip())
    return _bytes(match[1]) if match else None


def tag(headers: Mapping[str, str]) -> str:
    """The ETag without its quotes, as if strong; '' when there is none. What compresses on the way makes `"x"` to
    `W/"x"`: the bytes behind it are the same."""
    return headers.get("ETag", "").strip().removeprefix("W/").removeprefix("w/").strip('"')


def version(headers: Mapping[str, str], size: int | None, *, elsewhere: bool) -> str | None:
    """What changes when the file does: the strong ETag, else time of change and size, None when neither is told.

    `elsewhere`: a redirect led to another host. Mirrors give ETags of their own, so there the ETag says nothing.
    Whatever bytes a server sends there: the text is printable ASCII, and a long one stands as its digest.
    """
    tag = headers.get("ETag", "").strip()
    if tag.startswith('"') and len(tag) > 2 and not elsewhere:
        return plain(tag)
    changed = headers.get("Last-Modified", "").strip()
    return f"{plain(changed)}; {size} bytes" if changed and size is not None else None


def plain(text: str) -> str:
    """A header of a stranger as text that databases and logs take: printable ASCII, never long."""
    data = text.encode("utf-8", "surrogateescape")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data[: _LONG + 1])
    return shown if len(data) <= _LONG else f"sha256:{hashlib.sha256(data).hexdigest()}"


def failure(status: int) -> ImageServiceError:
    """The error that a status means which is none of those expected."""
    if status in (404, 410):
        return BlobNotFound(f"the server of the URL has no such file (it answers {status})")
    if status in TEMPORARY:
        return StoreUnavailable(f"the server of the URL cannot give the file now (it answers {status})")
    return BadRequest(f"the server of the URL does not give the file (it answers {status})")
