"""What a server answered: its status, headers and XML, as far as they can be understood. Nothing is asked here.

Servers and what stands in front of them are taken as they come: XML without or with any namespace, with blanks before
it or rubbish behind it; ETags weak, without quotes or missing; bodies that were compressed though nobody asked for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

from xloud_image.stores.kit import answers

MOST: Final = 4 << 20  # bytes of an answer that is no object
_GIVEN: Final = ("gzip", "x-gzip", "deflate")  # codings that can be undone here


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `code` and `said` are those of the server's error, or ''."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    code: str = ""
    said: str = ""

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        """With the error that the body tells, also when the status is 200."""
        if body and headers.get("content-encoding", "").lower() in _GIVEN:
            body = _decoded(body)
        code = said = ""
        root = _element(body) if body.lstrip()[:1] == b"<" else None
        if root is not None and _plain(root.tag) == "Error":
            code = next((found.text or "" for found in _children(root, ("Code",))), "") or "Error"
            said = next((found.text or "" for found in _children(root, ("Message",))), "")
        return cls(status, headers, body, code, said)

    @property
    def good(self) -> bool:
        return self.status < 300 and not self.code

    @property
    def missing(self) -> bool:
        """Nothing is there, or not the bucket either."""
        return self.status == 404

    @property
    def unknown(self) -> bool:
        """The server has not implemented this. It will not have tomorrow."""
        return self.status == 501 or self.code == "NotImplemented"

    @property
    def misunderstood(self) -> bool:
        """Perhaps because of a header or a part of the query that this server does not know."""
        return self.unknown or (self.status in (400, 405) and self.code not in _OTHERWISE)

    @property
    def tag(self) -> str:
        """The ETag with its quotes, as if strong; '' when there is none."""
        return tag_of(self.headers)

    @property
    def size(self) -> int | None:
        """The object's bytes, by the headers of a HEAD; None where they do not say it."""
        return answers.length(self.headers)

    def is_a(self, name: str) -> bool:
        """Whether the body is an XML document of this kind, whole."""
        root = _element(self.body)
        return root is not None and _plain(root.tag) == name

    def texts(self, *path: str) -> list[str]:
        """The texts of all elements at this path below the root, whatever their namespace."""
        root = _element(self.body)
        return [] if root is None else [found.text or "" for found in _children(root, path)]


# refusals with 400 whose reason is known and is no header of ours
_OTHERWISE: Final = frozenset(
    {"InvalidBucketName", "AuthorizationHeaderMalformed", "InvalidToken", "ExpiredToken", "EntityTooLarge"}
    | {"NoSuchUpload", "NoSuchBucket", "InvalidPart", "InvalidPartOrder", "MalformedXML", "RequestTimeout", "BadDigest"}
)


def tag_of(headers: Mapping[str, str]) -> str:
    """As `Answer.tag`."""
    found = answers.tag(headers)
    return f'"{found}"' if found else ""


def coding_of(headers: Mapping[str, str]) -> str:
    """How the bytes of an object were changed on the way; '' when they come as they lie there.

    A Content-Encoding with a length was stored with the object and belongs to it; what compresses on the way does not
    know the length.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    return "" if coding in ("", "identity", "aws-chunked") or answers.length(headers) is not None else coding


class Undoing:
    """Undoes a coding, at most `most` bytes at a time. ValueError: an unknown coding, or damaged."""

    def __init__(self, coding: str, most: int = 1 << 20) -> None:
        if coding not in _GIVEN:
            raise ValueError(coding)
        self._most = most
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What comes out of it."""
        left = chunk
        try:
            while left and not self._stream.eof:
                yield self._stream.decompress(left, self._most)
                left = self._stream.unconsumed_tail
        except zlib.error as error:
            raise ValueError("damaged") from error

    @property
    def ended(self) -> bool:
        """Whether the end was seen."""
        return self._stream.eof


def _decoded(body: bytes) -> bytes:
    """A small body, uncompressed; as it is when it cannot be."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        return stream.decompress(body, MOST)
    except zlib.error:
        return body


def _element(body: bytes) -> ET.Element | None:
    """The first root of an answer; None when it is no XML, or does not end. What stands behind it is not looked at.

    The server is the operator's own, and at most 4 MiB are parsed.
    """
    parser: Any = ET.XMLPullParser(("start", "end"))
    root: ET.Element | None = None
    depth = 0
    with contextlib.suppress(ET.ParseError):
        parser.feed(body.lstrip())
    with contextlib.suppress(ET.ParseError):
        for event, element in parser.read_events():
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            if not depth:
                return root
    return None


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(root: ET.Element, path: Sequence[str]) -> Iterator[ET.Element]:
    if not path:
        yield root
        return
    for child in root:
        if _plain(child.tag) == path[0]:
            yield from _children(child, path[1:])
