"""Uploads that go on where they broke, as a client sends them: for commands that people run. Knows HTTP and a file.

Source: draft-ietf-httpbis-resumable-upload-12. The service's side is `api.uploads`.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import BinaryIO, Final
from urllib.parse import urljoin

import requests

PIECE: Final = 256 << 20  # bytes of one request; what is sent is durable by then, whatever stands in between
READ: Final = 1 << 20
SILENCE: Final = (30.0, 300.0)  # seconds for a connection, and for the answer to a piece
FINISHING: Final = 3600.0  # seconds for the answer to the last piece: by then all data has been read once more
_LONGEST: Final = 15.0  # seconds between two attempts
_TYPE: Final = "application/partial-upload"
_OCTETS: Final = "application/octet-stream"
# answers after which what was sent can be sent again
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)

Headers = Callable[[], Mapping[str, str]]


class UploadError(Exception):
    """An upload that has ended or stands still, with a sentence that says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(UploadError):
    """The service does not take it; sending it again cannot help. `status`: of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotOffered(UploadError):
    """The service knows no such uploads: a plain PUT is the way."""


class Differs(UploadError):
    """What is unfinished is an upload of other data."""


class GaveUp(UploadError):
    """Nothing went on for too long. `url`: of the upload, which can be gone on with later."""

    def __init__(self, message: str, url: str | None) -> None:
        super().__init__(message)
        self.url = url


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """How far an upload is. offset: bytes that need not be sent again; size: of all, None unknown; lives: seconds until
    it is given up, None unknown; digest: the field `Repr-Digest` that it was begun with."""

    offset: int
    size: int | None
    complete: bool
    lives: int | None
    digest: str | None = None


def state(session: requests.Session, url: str, *, headers: Headers) -> State:
    """What the service says of an upload; whoever else is sending it is stopped. `Refused`; errors of `requests`."""
    answer = _asked(session, "HEAD", url, headers, {})
    _require(answer)
    told = answer.headers
    limits = dict(part.strip().partition("=")[::2] for part in told.get("Upload-Limit", "").split(","))
    return State(
        _number(told.get("Upload-Offset")) or 0,
        _number(told.get("Upload-Length")),
        told.get("Upload-Complete") == "?1",
        _number(limits.get("max-age")),
        told.get("Repr-Digest"),
    )


def cancel(session: requests.Session, url: str, *, headers: Headers) -> None:
    """What came of an upload is removed, and its image is queued again. `Refused`; errors of `requests`."""
    _require(_asked(session, "DELETE", url, headers, {}))


def upload(
    session: requests.Session,
    target: str,
    file: BinaryIO,
    *,
    headers: Headers,
    size: int | None = None,
    digest: tuple[str, bytes] | None = None,
    known: str | None = None,
    begun: Callable[[str], None] = lambda url: None,
    progress: Callable[[int, int], None] = lambda done, size: None,
    patience: float = 600.0,
) -> None:
    """Give the image at `target` (the URL of its `file` or `stage`) the data of a file that can be sought in; returns
    when the image is active, or the data staged. What was sent before, by whomever, is not sent again.

    headers: asked before each request, so that a token may be renewed. size: bytes from the beginning of the file,
    None: all. digest: (sha-256 or sha-512, value) of all: the service compares it before the image is active. known:
    the upload's URL, from `begun` of an earlier run; without it the service tells of one that is unfinished. progress:
    bytes that were sent, of all. patience: seconds without a byte more until `GaveUp`.
    `Refused`, `NotOffered`, `Differs`, `GaveUp`. Anything that ends it in between (a signal, too) leaves what was sent.
    """
    if size is None:
        size = file.seek(0, 2)
    field = None if digest is None else f"{digest[0]}=:{base64.b64encode(digest[1]).decode()}:"
    _Upload(session, target, file, headers, size, field, begun, progress, patience).run(known)


class _Passing(Exception):
    """It broke in a way that may pass: it goes on with what the service has."""


@dataclasses.dataclass(slots=True)
class _Upload:
    session: requests.Session
    target: str
    file: BinaryIO
    headers: Headers
    size: int
    digest: str | None
    begun: Callable[[str], None]
    progress: Callable[[int, int], None]
    patience: float
    url: str | None = None

    def run(self, known: str | None) -> None:
        self.url = known
        furthest, moved, pause = -1, time.monotonic(), 0.5
        while True:
            try:
                self.url = self.url or self._new()
                now = state(self.session, self.url, headers=self.headers)
                self._require_same(now)
                if now.offset > furthest:
                    furthest, moved, pause = now.offset, time.monotonic(), 0.5
                self.progress(now.offset, self.size)
                if now.complete or self._send_rest(now.offset):
                    return
            except Refused as error:
                if error.status != HTTPStatus.NOT_FOUND or known is None or self.url != known:
                    raise
                self.url = known = None  # it was given up meanwhile
            except (_Passing, requests.RequestException) as error:
                if time.monotonic() - moved > self.patience:
                    raise GaveUp(f"Nothing went on for {self.patience:g} seconds: {error}", self.url) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)

    def _new(self) -> str:
        # others would take an empty body for all of the data
        offered = _asked(self.session, "OPTIONS", self.target, self.headers, {})
        if _TYPE not in offered.headers.get("Accept-Patch", ""):
            if offered.status_code in _PASSING:
                raise _Passing(_sentence(offered))
            raise NotOffered("This service takes an upload in one request only.")
        more = {"Content-Type": _OCTETS, "Upload-Complete": "?0", "Upload-Length": str(self.size)}
        if self.digest is not None:
            more["Repr-Digest"] = self.digest
        answer = _asked(self.session, "PUT", self.target, self.headers, more, b"")
        place = answer.headers.get("Location")
        if answer.status_code not in (HTTPStatus.CREATED, HTTPStatus.CONFLICT) or place is None:
            _require(answer)
            raise Refused(answer.status_code, "The service does not say where the upload goes on.")
        url = urljoin(self.target, place)
        self.begun(url)
        return url

    def _require_same(self, now: State) -> None:
        other = now.size is not None and now.size != self.size
        if other or (self.digest is not None and now.digest is not None and now.digest != self.digest):
            raise Differs("The unfinished upload of this image is of another file: cancel it, or send that file.")

    def _send_rest(self, offset: int) -> bool:
        """Piece after piece. True: all is there and the service has taken it."""
        assert self.url is not None
        while True:
            length = min(PIECE, self.size - offset)
            last = offset + length == self.size
            piece = _Piece(self.file, offset, length, lambda done: self.progress(done, self.size))
            more = {
                "Content-Type": _TYPE,
                "Upload-Offset": str(offset),
                "Upload-Complete": "?1" if last else "?0",
            }
            answer = _asked(self.session, "PATCH", self.url, self.headers, more, piece, FINISHING if last else None)
            if answer.status_code == HTTPStatus.CONFLICT:  # another request has gone on, or one that was thought lost
                raise _Passing(_sentence(answer))
            _require(answer)
            if last:
                return True
            offset += length


class _Piece:
    """A part of a file as the body of a request, with its length. `told`: how far the file has been read."""

    def __init__(self, file: BinaryIO, offset: int, length: int, told: Callable[[int], None]) -> None:
        self._file, self._at, self._end, self._told = file, offset, offset + length, told

    def __len__(self) -> int:
        return self._end - self._at

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        size = min(READ if size < 0 else max(size, READ), self._end - self._at)
        found = self._file.read(size)
        if len(found) < size:
            raise Differs("The file has become shorter.")
        self._at += len(found)
        self._told(self._at)
        return found


def _asked(
    session: requests.Session,
    method: str,
    url: str,
    headers: Headers,
    more: Mapping[str, str],
    body: bytes | _Piece | None = None,
    seconds: float | None = None,
) -> requests.Response:
    if isinstance(body, _Piece) and not len(body):
        body = b""
    sent = {**headers(), **more, "Accept": "application/json"}
    if body == b"":
        sent["Content-Length"] = "0"
    timeout = SILENCE if seconds is None else (SILENCE[0], seconds)
    return session.request(method, url, headers=sent, data=body or None, timeout=timeout, allow_redirects=False)


def _require(answer: requests.Response) -> None:
    if answer.status_code in _PASSING and answer.headers.get("Upload-Complete") != "?1":
        raise _Passing(_sentence(answer))
    if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
        raise Refused(answer.status_code, _sentence(answer))


def _sentence(answer: requests.Response) -> str:
    """What the service says, in its form or in any other."""
    try:
        told = answer.json()
        return str(told.get("detail") or told["message"])
    except (ValueError, KeyError, AttributeError):
        return f"{answer.status_code} {answer.reason}"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
