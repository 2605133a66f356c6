"""Digests that a file has to have: given with it, or published by its vendor in a file beside it (SHA256SUMS).

Sources of the forms: coreutils' manual, "md5 invocation" and "cksum output modes"; OpenPGP (RFC 9580), section 7.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from xloud_image.errors import BadRequest, SourceRefused, Unverified
from xloud_image.fetching import signatures
from xloud_image.fetching.fetcher import Fetcher

# digits in hexadecimal, weakest first
ALGORITHMS: Final[Mapping[str, int]] = {
    "md5": 32,
    "sha1": 40,
    "sha224": 56,
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
}
_BY_LENGTH: Final = {length: name for name, length in ALGORITHMS.items()}
_MOST: Final = 1 << 20  # bytes of a file of checksums
_SIGNATURE: Final = 64 << 10
_ENDINGS: Final = (".gpg", ".asc", ".sign", ".sig")  # of signatures, by the habits of vendors
_COREUTILS: Final = re.compile(r"(\\?)([0-9a-fA-F]{32,128}) [ *](.+)")
_BSD: Final = re.compile(r"(\\?)([A-Za-z0-9-]{2,12}) \((.+)\) = ([0-9a-fA-F]{8,128})")


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """A digest that a file has to have. `BadRequest` for one that none can have."""

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        length = ALGORITHMS.get(self.algorithm)
        if length is None:
            raise BadRequest(f"The algorithm of a checksum must be one of {', '.join(ALGORITHMS)}.")
        if len(self.value) != length or not re.fullmatch(r"[0-9a-fA-F]+", self.value):
            raise BadRequest(f"A checksum by {self.algorithm} has {length} hexadecimal digits.")

    def require(self, found: Mapping[str, str]) -> None:
        """`Unverified` unless the digests that were found, in hex by algorithm, have this one."""
        value = found[self.algorithm]
        if value.lower() != self.value.lower():
            raise Unverified(f"the {self.algorithm} of the data is {value}, not {self.value.lower()} as was expected")


async def published(
    fetcher: Fetcher, url: str, *, of: str, trusted: bool, signature: str | None = None, keyring: Path | None = None
) -> Expected:
    """What the file of checksums at `url` says about the file at the URL `of`, by its name.

    With a `keyring` it has to be signed: in itself, or by the file at the URL `signature`, which is looked for beside
    it when none is given. `Unverified` when nothing is said, or it is not signed; `BadRequest` for a signature without
    a keyring; what `Fetcher.open` raises.
    """
    name = unquote(urlsplit(of).path.rpartition("/")[2])
    if not name:
        raise BadRequest("The URL of the data ends without the name of a file, by which its checksum could be found.")
    if signature is not None and keyring is None:
        raise BadRequest("A signature of checksums was named, and the operator has no keyring to check it by.")
    data = await _small(fetcher, url, trusted, _MOST)
    if keyring is not None:
        inline = signature is None and signatures.is_clear_signed(data)
        beside = None if inline else await _beside(fetcher, url, signature, trusted)
        data = await signatures.verified(data, beside, keyring)
    if signatures.is_clear_signed(data):
        data = signatures.unsigned(data)
    return await asyncio.to_thread(_entry, data, name)


async def _beside(fetcher: Fetcher, url: str, signature: str | None, trusted: bool) -> bytes:
    if signature is not None:
        return await _small(fetcher, signature, trusted, _SIGNATURE)
    parts = urlsplit(url)
    for ending in _ENDINGS:
        try:
            place = parts._replace(path=parts.path + ending).geturl()
            return await _small(fetcher, place, trusted, _SIGNATURE)
        except SourceRefused as error:
            if error.answered not in (403, 404, 410):
                raise
    raise Unverified("the checksums are not signed, and no signature lies beside them; name its URL")


async def _small(fetcher: Fetcher, url: str, trusted: bool, most: int) -> bytes:
    async with fetcher.open(url, trusted=trusted, plain=True, most=most) as resource:
        return b"".join([chunk async for chunk in resource.chunks()])


def _entry(data: bytes, name: str) -> Expected:
    """The strongest digest of the file `name`. Every line has to be one of the forms, empty, or a remark (#)."""
    try:
        lines = data.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise Unverified("the file of checksums is no text") from error
    exact: dict[str, set[str]] = {}
    elsewhere: dict[str, set[str]] = {}  # the same name in some directory
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _line(line)
        if found is None:
            raise Unverified(f"line {number} of the file of checksums is in no form that is known here")
        algorithm, value, path = found
        if algorithm not in ALGORITHMS:
            continue
        path = path.removeprefix("./")
        if path.rpartition("/")[2] == name:
            (exact if path == name else elsewhere).setdefault(algorithm, set()).add(value)
    values = exact or elsewhere
    if not values:
        raise Unverified(f"the file of checksums says nothing about {name[:200]}")
    strongest = max(values, key=list(ALGORITHMS).index)
    if len(values[strongest]) > 1:
        raise Unverified(f"the file of checksums says different things about {name[:200]}")
    return Expected(strongest, values[strongest].pop())


def _line(line: str) -> tuple[str, str, str] | None:
    """Algorithm (also one that is not known here), value in small letters and path; None when the line has none of
    the forms."""
    if match := _COREUTILS.fullmatch(line):
        escaped, value, path = match.groups()
        if len(value) not in _BY_LENGTH:
            return None
        algorithm = _BY_LENGTH[len(value)]
    elif match := _BSD.fullmatch(line):
        escaped, algorithm, path, value = match.groups()
        algorithm = algorithm.lower().replace("-", "")
    else:
        return None
    if ALGORITHMS.get(algorithm, len(value)) != len(value):
        return None
    if escaped:
        path = path.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    return algorithm, value.lower(), path
