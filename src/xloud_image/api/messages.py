"""What the headers of a request say about the message itself, before anybody asks what it wants.

A header that changes what the request means, or whether it counts, is obeyed or the request is refused: 400, 412, 415,
417, 501, 505. Source: RFC 9110 (methods, preconditions, ranges, expectations), RFC 9112 (framing, Host). What is no
message at all has been refused by the parser: lengths that contradict each other, folded lines, bare line ends.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from xloud_image.errors import (
    BadRequest,
    ExpectationFailed,
    NoSuchCoding,
    NoSuchMethod,
    NoSuchVersion,
    PreconditionFailed,
    WrongMediaType,
)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]{0,255}", re.ASCII)
# Of two copies one reader takes the first and another one the last: nobody may live on that difference.
_ONCE: Final = frozenset(
    {
        b"accept-ranges", b"authorization", b"content-encoding", b"content-length", b"content-md5", b"content-range",
        b"content-type", b"expect", b"host", b"if-modified-since", b"if-range", b"if-unmodified-since",
        b"max-forwards", b"origin", b"range", b"transfer-encoding", b"x-auth-token", b"x-image-meta-store",
        b"x-openstack-image-size", b"x-service-token", b"upload-complete", b"upload-length", b"upload-offset",
    }
)  # fmt: skip
# Headers that most requests do not have, and that take a closer look.
_LOOKED_AT: Final = frozenset(
    {
        b"content-encoding", b"content-range", b"expect", b"if-match", b"if-none-match", b"if-unmodified-since",
        b"transfer-encoding",
    }
)  # fmt: skip


def require_sense(request: web.Request) -> None:
    """Raises the refusal of a request whose headers nobody may pass over. Costs microseconds."""
    if request.method not in METHODS:
        raise NoSuchMethod(f"The method {request.method} is not known here, only {', '.join(sorted(METHODS))}.")
    if request.version not in (HttpVersion11, HttpVersion10):
        raise NoSuchVersion("HTTP/1.1 and HTTP/1.0 are spoken here.")
    host = request.headers.get(hdrs.HOST)
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest("The header Host is no name or address of a host.")
    names = [name.lower() for name, _ in request.raw_headers]
    several = set(names)
    if len(several) != len(names):
        for name in several & _ONCE:
            if names.count(name) > 1:
                raise BadRequest(f"The header {name.decode()} may be sent once only.")
    if several & _LOOKED_AT:
        _look(request)


def _look(request: web.Request) -> None:
    headers = request.headers
    codings = headers.get(hdrs.TRANSFER_ENCODING)
    if codings is not None and request.version < HttpVersion11:
        request.protocol.close()  # nobody can tell where the next request begins
        raise BadRequest("HTTP/1.0 knows no Transfer-Encoding.")
    if codings is not None and codings.strip().lower() != "chunked":
        request.protocol.close()
        raise NoSuchCoding("The only transfer coding that is known here is 'chunked'.")
    if request.method not in _READING:
        if hdrs.CONTENT_RANGE in headers:
            raise BadRequest("A part of a body (Content-Range) is not taken here; send the whole.")
        if headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("identity", ""):
            raise WrongMediaType(
                "Bodies are sent as they are, without a Content-Encoding.",
                headers={hdrs.ACCEPT_ENCODING: "identity"},
            )
    if hdrs.EXPECT in headers and request.version >= HttpVersion11:
        expected = headers[hdrs.EXPECT].strip().lower()
        if expected != "100-continue":
            raise ExpectationFailed("The only expectation that is known here is '100-continue'.")
    # Data of an image has an entity tag, and its handler looks at what a reader asks of that.
    if request.method in _READING and request.path.endswith("/file"):
        return
    _require_conditions(request)


def _require_conditions(request: web.Request) -> None:
    """Of everything that has no entity tag and no date: a condition that cannot be affirmed is not met."""
    headers = request.headers
    match = ",".join(headers.getall(hdrs.IF_MATCH, ()))
    if match and (match.strip() != "*" or request.path.endswith("/file")):
        raise PreconditionFailed("If-Match: nothing here has such an entity tag; only the data of an image has one.")
    if request.method in _READING:
        return
    if not match and (since := _date(headers.get(hdrs.IF_UNMODIFIED_SINCE))) is not None and since < _now():
        raise PreconditionFailed("If-Unmodified-Since: it is not known when this was modified, so nothing was changed.")
    if not request.path.endswith("/file"):
        tags = ",".join(headers.getall(hdrs.IF_NONE_MATCH, ()))
        if tags.strip() == "*":
            raise PreconditionFailed("If-None-Match: there is something here already.")


def is_unmet(request: web.Request, tag: str | None, changed: dt.datetime) -> int | None:
    """What a reader's conditions make of data with this entity tag, last changed then: 412, 304, or None for an answer.

    In the order of RFC 9110, section 13.2.2. `changed`: UTC without a zone.
    """
    headers = request.headers
    match = headers.getall(hdrs.IF_MATCH, ())
    if match:
        if not _names(",".join(match), tag, strong=True):
            return 412
    elif (since := _date(headers.get(hdrs.IF_UNMODIFIED_SINCE))) is not None and changed.replace(microsecond=0) > since:
        return 412
    none_match = headers.getall(hdrs.IF_NONE_MATCH, ())
    if none_match:
        if _names(",".join(none_match), tag, strong=False):
            return 304
    elif (since := _date(headers.get(hdrs.IF_MODIFIED_SINCE))) is not None and changed.replace(microsecond=0) <= since:
        return 304
    return None


def may_be_a_part(request: web.Request, tag: str | None) -> bool:
    """Whether `If-Range` lets a range be answered; a date never does, as no exact one is known of the data."""
    wanted = request.headers.get(hdrs.IF_RANGE)
    return wanted is None or (tag is not None and wanted.strip() == tag)


def _names(condition: str, tag: str | None, *, strong: bool) -> bool:
    """Whether a list of entity tags names this one; `*` names any that is there."""
    for item in condition.split(","):
        text = item.strip()
        if text == "*":
            return True
        if not strong:
            text = text.removeprefix("W/")
        if tag is not None and text == tag:
            return True
    return False


def _date(text: str | None) -> dt.datetime | None:
    """UTC without a zone; None for what is no date, which then counts as not sent."""
    if text is None or len(text) > 100:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
        # a date at an end of the calendar has no time in UTC
        return found.astimezone(dt.UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)
