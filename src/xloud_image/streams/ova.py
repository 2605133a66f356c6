"""The stage that takes the first disk out of an OVA: a tar whose first file, the OVF, names the disks in it.

One pass, nothing on a disk. What tar could do besides holding files (links, devices, sparse files, places elsewhere) is
refused. The OVF is read by expat without a document type, so that it has no entities; OVF_SIZE and DEPTH bound it.
Sources: DSP0243 of DMTF (OVF), POSIX ustar and pax, the long names and sizes of GNU tar.

Memory of a stream: chunks as they come, OVF and manifest of 1 MiB each, and what digests of the disk lag behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat

from xloud_image.errors import BadRequest, FormatRefused
from xloud_image.streams.digest import Digest

OVF_SIZE: Final = 1024 * 1024  # bytes of an OVF or a manifest
DEPTH: Final = 64  # elements inside of each other in an OVF
MEMBERS: Final = 1024  # files in an OVA
_BLOCK: Final = 512
_NAME_SIZE: Final = 16 * 1024  # bytes of a header with a long name

_ALGORITHMS: Final = ("sha1", "sha256", "sha512")
_LINE: Final = re.compile(r"([A-Za-z0-9-]{1,10}) ?\((.+)\) ?= ?([0-9a-fA-F]{1,128})")
_PROCESSOR: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ProcessorAllocationSettingData"
# parts of the URLs by which OVFs name the formats of disks
_FORMATS: Final = {"vmdk": "vmdk", "qcow": "qcow2", "vhdspec": "vhd", "/bb676673": "vhd", "linkid=137171": "vhd"}
# what expat itself reads; for others Python would look for a codec
_ENCODINGS: Final = ("UTF-8", "UTF-16", "US-ASCII", "ISO-8859-1")


class Ova:
    """The bytes of the first disk that the OVF names. The pool's threads digest and read the OVF.

    wanted: names of properties to be found, as `cim_pasd` of ovf-metadata.json lists them.
    `BadRequest` for what is damaged, truncated or not as the manifest says, `FormatRefused` for what is no OVA as the
    standard has it or not supported.

    Found: `disk`, the name of its file; `disks`, how many there are; `disk_format` as the OVF says, None when it names
    another one than vmdk, qcow2 and vhd; `properties`, name (`cim_pasd_…`) and text of those wanted.
    """

    def __init__(self, wanted: Collection[str], pool: Executor) -> None:
        self._wanted, self._pool = wanted, pool
        self.disk = ""
        self.disks = 0
        self.disk_format: str | None = None
        self.properties: dict[str, str] = {}

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        tar = _Tar(source)
        descriptor = await tar.next()
        if descriptor is None or not descriptor.lower().endswith(".ovf"):
            raise FormatRefused(f"the first file of an OVA is its OVF; here it is {descriptor or 'none'!r}")
        text = await tar.whole()
        loop = asyncio.get_running_loop()
        ovf = await loop.run_in_executor(self._pool, read_ovf, text, self._wanted)
        self.disks, self.disk_format, self.properties = ovf.disks, ovf.disk_format, ovf.properties
        said: dict[str, tuple[str, str]] | None = None
        seen = {descriptor: {name: hashlib.new(name, text).hexdigest() for name in _ALGORITHMS}}
        while (name := await tar.next()) is not None:
            again = name.lower().endswith(".ovf") or (said is not None and name.lower().endswith(".mf"))
            if again or (self.disk and name in ovf.hrefs):
                raise FormatRefused(f"the OVA holds {name!r} beside another OVF, manifest or disk of that name")
            if name in ovf.hrefs:
                self.disk = name
                # a manifest may come behind the disks, and only it says by what they are digested
                digest = Digest(_ALGORITHMS if said is None else {said[name][0]} if name in said else (), self._pool)
                async for chunk in digest(tar.data()):
                    yield chunk
                seen[name] = await digest.hexes()
            elif name.lower().endswith(".mf"):
                said = await loop.run_in_executor(self._pool, _manifest, await tar.whole())
        if not self.disk:
            raise BadRequest(f"the OVF names the disk {ovf.hrefs[0]!r}, which is not in the OVA")
        for name, hexes in seen.items():
            if said is None:
                break
            if name not in said:
                raise BadRequest(f"the manifest of the OVA says nothing of {name!r}")
            if hexes[said[name][0]] != said[name][1]:
                raise BadRequest(f"{name!r} is not what the manifest of the OVA says; it is damaged")


def _manifest(text: bytes) -> dict[str, tuple[str, str]]:
    """Algorithm and digest in hex by name of file."""
    found = {}
    for line in filter(None, map(str.strip, text.decode(errors="replace").splitlines())):
        match = _LINE.fullmatch(line)
        if match is None or match[1].lower() not in _ALGORITHMS:
            raise FormatRefused(f"the manifest of the OVA says {line[:200]!r}; known are SHA1, SHA256 and SHA512")
        found[match[2]] = match[1].lower(), match[3].lower()
    return found


@dataclass
class Ovf:
    """What an OVF says. hrefs: names that the file of the first disk may have; the first one is as written."""

    hrefs: tuple[str, ...] = ()
    disks: int = 0
    disk_format: str | None = None
    properties: dict[str, str] = field(default_factory=dict)


def read_ovf(text: bytes, wanted: Collection[str]) -> Ovf:
    """`BadRequest` or `FormatRefused` when it is no OVF or has no disk with a file."""
    files: dict[str, dict[str, str]] = {}
    disks: list[dict[str, str]] = []
    ovf = Ovf()
    path: list[str] = []
    words: list[str] | None = None

    def doctype(*_: object) -> None:
        raise FormatRefused("the OVF has a document type, which none needs: entities are not read here")

    def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() not in _ENCODINGS:
            raise FormatRefused(f"the OVF is encoded as {encoding!r}; UTF-8 and UTF-16 are read")

    def start(tag: str, named: dict[str, str]) -> None:
        nonlocal words
        namespace, _, name = tag.rpartition(" ")
        path.append(name)
        if len(path) > DEPTH:
            raise FormatRefused(f"the OVF has more than {DEPTH} elements inside of each other")
        attributes = {key.rpartition(" ")[2]: value for key, value in named.items()}
        if path[-2:] == ["References", "File"]:
            files.setdefault(attributes.get("id", ""), attributes)
        elif name == "Disk" and path[-2:-1] in (["DiskSection"], ["Section"]):
            disks.append(attributes)
        words = [] if namespace == _PROCESSOR and name in wanted else None

    def end(_: str) -> None:
        nonlocal words
        name = path.pop()
        if words is not None:
            ovf.properties[f"cim_pasd_{name}"] = "".join(words).strip()
            words = None

    def characters(data: str) -> None:
        if words is not None:
            words.append(data)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = declaration
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise BadRequest(f"the OVF is no XML: {error}") from None
    ovf.disks = len(disks)
    disk = next((disk for disk in disks if disk.get("fileRef")), None)
    file = files.get(disk["fileRef"]) if disk else None
    if disk is None or file is None or not file.get("href"):
        raise FormatRefused("the OVF names no disk that has a file in the OVA")
    if disk.get("parentRef") or file.get("chunkSize") or file.get("compression", "identity") not in ("", "identity"):
        raise FormatRefused("the OVF names a disk that is compressed, in chunks or a difference; export it as one file")
    ovf.hrefs = tuple(map(_inside, dict.fromkeys((file["href"], unquote(file["href"])))))
    kind = disk.get("format", "").lower()
    ovf.disk_format = next((name for part, name in _FORMATS.items() if part in kind), None)
    return ovf


def _inside(name: str) -> str:
    """The name without `./` in front. `FormatRefused` when it leads out of the OVA."""
    if "://" in name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise FormatRefused(f"the name {name[:200]!r} leads out of the OVA")
    return name.removeprefix("./")


class _Tar:
    """The files of a tar, one behind the other; of each the data are taken or passed over."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._chunk = b""  # came, and is not taken yet
        self._left = self._padding = 0  # of the present file
        self._name = ""
        self._files = 0

    async def next(self) -> str | None:
        """The name of the next file, None behind the last one; then the stream has ended, too."""
        async for _ in self.data():
            pass
        long: str | None = None
        pax: dict[str, str] = {}
        while True:
            self._files += 1
            if self._files > MEMBERS:
                raise FormatRefused(f"the OVA holds more than {MEMBERS} files")
            header = (await self._exactly(self._padding + _BLOCK))[self._padding :]
            if not header.strip(b"\0"):
                await self._end()
                return None
            name, kind = self._header(header)
            if kind in b"Lxg":
                text = await self.whole(_NAME_SIZE)
                if kind == b"L":
                    long = _text(text.rstrip(b"\0"))
                else:
                    said = _pax(text)
                    if kind == b"g" and said:
                        raise FormatRefused("the OVA names files for all files at once (a global pax header)")
                    pax |= said
                continue
            if kind == b"5" and not self._left:
                long, pax = None, {}
                continue
            if kind not in (b"0", b"\0"):
                raise FormatRefused(
                    f"the OVA holds {name!r}, which is no file (type {kind!r}); a tar of plain files is read"
                )
            if "size" in pax:
                self._sized(int(pax["size"]))
            self._name = _inside(pax.get("path") or long or name)
            if not self._name:
                raise BadRequest("the OVA is damaged: a file has no name")
            return self._name

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the present file that were not taken yet."""
        while self._left:
            if not self._chunk and not await self._more():
                raise BadRequest(f"the OVA ends in the middle of {self._name!r}: a part is missing")
            piece, self._chunk = self._chunk[: self._left], self._chunk[self._left :]
            self._left -= len(piece)
            yield piece

    async def whole(self, limit: int = OVF_SIZE) -> bytes:
        """The present file. `FormatRefused` when it has more bytes."""
        if self._left > limit:
            raise FormatRefused(f"{self._name or 'a name'!r} in the OVA has more than {limit} bytes")
        return b"".join([piece async for piece in self.data()])

    def _header(self, header: bytes) -> tuple[str, bytes]:
        """Name and type; the size is noted."""
        magic, summed = header[257:265], _octal(header[148:156])
        if magic not in (b"ustar\00000", b"ustar  \0"):
            raise FormatRefused("this is no OVA: a tar (ustar) is expected")
        if summed != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
            raise BadRequest("the OVA is damaged: the checksum of a header is wrong")
        # the first bit is GNU's, for what does not fit into eleven octal digits
        size = int.from_bytes(header[125:136], "big") if header[124] == 0x80 else _octal(header[124:136])
        if size is None:
            raise BadRequest("the OVA is damaged: a header has no size")
        self._sized(size)
        name = _text(header[:100].partition(b"\0")[0])
        prefix = _text(header[345:500].partition(b"\0")[0]) if magic == b"ustar\00000" else ""
        return f"{prefix}/{name}" if prefix else name, header[156:157]

    def _sized(self, size: int) -> None:
        self._left, self._padding = size, -size % _BLOCK

    async def _exactly(self, count: int) -> bytes:
        """The next bytes of the tar itself; few."""
        while len(self._chunk) < count:
            if not await self._more():
                raise BadRequest("the OVA ends too early: a part is missing")
        data, self._chunk = self._chunk[:count], self._chunk[count:]
        return data

    async def _end(self) -> None:
        """Only zeros stand behind the block of zeros that ends a tar."""
        while self._chunk or await self._more():
            if self._chunk.strip(b"\0"):
                raise BadRequest("something stands behind the end of the OVA")
            self._chunk = b""

    async def _more(self) -> bool:
        """Wait for a chunk; False at the end of the stream."""
        async for chunk in self._source:
            self._chunk += chunk
            return True
        return False


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else None


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"the OVA has a name that is no UTF-8: {name[:200]!r}") from None


def _pax(text: bytes) -> dict[str, str]:
    """What a pax header says of path and size; `FormatRefused` for sparse files, `BadRequest` for wrong records."""
    found = {}
    while text:
        length, _, _ = text.partition(b" ")
        record = text[: int(length)] if length.isdigit() and len(length) < 8 else b""
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != int(length):
            raise BadRequest("the OVA is damaged: a pax header has a wrong record")
        text = text[len(record) :]
        if key.startswith(b"GNU.sparse"):
            raise FormatRefused("the OVA holds a sparse file; a tar of plain files is read")
        if key == b"path" or (key == b"size" and value[:-1].isdigit() and len(value) < 20):
            found[key.decode()] = _text(value[:-1])
        elif key == b"size":
            raise BadRequest("the OVA is damaged: a pax header has no size")
    return found
