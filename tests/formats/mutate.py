"""Images made by chance, from the grammar of each format. A case depends on its seed alone.

They are mostly what they should be, with a few fields, lines and lengths that are not.
"""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Callable
from typing import Final

from tests.formats import build

# How an image may name the file that it must never lead to; {} is the folder of the sandbox.
NAMES: Final = (
    "canary", "./canary", "{}/canary", "../canary", "/etc/canary", "nbd:unix:{}/canary", "file:canary",
    'json:{{"driver":"raw","file":{{"driver":"file","filename":"{}/canary"}}}}', "//canary", "canary.vmdk",
)  # fmt: skip
BOUNDS: Final = (
    0, 1, 2, 3, 4, 7, 8, 20, 21, 127, 128, 255, 256, 511, 512, 513, 1023, 1024, 4095, 4096, 65535, 65536, 1 << 20,
    1 << 21, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 53, 1 << 55, (1 << 63) - 1, 1 << 63, (1 << 64) - 512,
    (1 << 64) - 1,
)  # fmt: skip
CLAIMS: Final = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "ploop")
CONTAINERS: Final = ("bare", "bare", "bare", "ova", "compressed", "docker", None)
# every way in which an image may be declared, but for formats and containers that nobody tells from these
DECLARED: Final = tuple(
    (claim, container, match)
    for claim in CLAIMS
    for container in ("ova", "docker", "compressed", "ovf", "aki", None, "bare")
    for match in (False, True)
)


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """kind: the family it comes from. claim, container: what the image is declared to be. also: what else it may be
    declared to be and is taken."""

    seed: int
    kind: str
    claim: str
    container: str | None
    data: bytes
    also: tuple[str, ...] = ()


def case(seed: int, folder: str, kind: str | None = None) -> Case:
    """The case of that number. folder: of the canary. kind: only this family."""
    chance = random.Random(seed)
    kind = kind or chance.choices([*_FAMILIES], [weight for weight, _, _ in _FAMILIES.values()])[0]
    _, claim, make = _FAMILIES[kind]
    data = make(chance, lambda: chance.choice(NAMES).format(folder).encode())
    data = _scratch(chance, data)
    if chance.random() < 0.4:
        claim = chance.choice(CLAIMS)
    return Case(seed, kind, claim, chance.choice(CONTAINERS), data)


Name = Callable[[], bytes]


def _scratch(chance: random.Random, data: bytes) -> bytes:
    """Now and then some bytes of the first kilobyte, the length, or the beginning of another format."""
    roll = chance.random()
    if roll < 0.75 or not data:
        return data
    if roll < 0.87:
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(min(len(data), 1024))] = chance.choice((0, 1, 2, 4, 9, 10, 32, 34, 61, 128, 255))
        return bytes(changed)
    if roll < 0.95:
        return data[: chance.choice((4, 64, 100, 104, 300, 511, 512, 513, 1024, 1536, len(data) - 1, len(data) - 512))]
    magic = chance.choice(
        (b"KDMV", b"COWD", b"QFI\xfb", b"QED\0", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n")
    )
    if chance.random() < 0.5:
        return magic + data[len(magic) :]
    at = chance.choice((0x40, 510, 0x8001))
    return data[:at] + chance.choice((b"\x7f\x10\xda\xbe", b"\x55\xaa", b"CD001")) + data[at + 5 :]


def _bound(chance: random.Random, bits: int) -> int:
    return chance.choice(BOUNDS) & (1 << bits) - 1


_WIDTHS: Final = {
    "version": 32, "flags": 32, "capacity": 64, "grain": 64, "sector": 64, "sectors": 64, "entries": 32, "spare": 64,
    "directory": 64, "overhead": 64, "unclean": 8, "compression": 16,
}  # fmt: skip


def _vmdk_fields(chance: random.Random) -> dict[str, int | bytes]:
    fields: dict[str, int | bytes] = {}
    if chance.random() < 0.45:
        fields["capacity"] = 0
    for name in chance.sample([*_WIDTHS], chance.choice((0, 0, 0, 0, 1, 1, 2))):
        fields[name] = _bound(chance, _WIDTHS[name])
    return fields


def _vmdk(chance: random.Random, name: Name) -> bytes:
    fields = _vmdk_fields(chance)
    text = descriptor(chance, name)
    if chance.random() < 0.25:
        other = fields if chance.random() < 0.5 else _vmdk_fields(chance)
        footer = build.stream_footer(**{key: value for key, value in other.items() if key != "directory"})
        data = build.vmdk(text, footer=footer, **fields)
        return data + bytes(chance.choice((0, 0, 0, 1, 512)))
    return build.vmdk(text, **fields)


def _flat_type(chance: random.Random) -> bytes:
    return b'createType="' + chance.choice(_TYPES[2:9]) + b'"'


def _extent(chance: random.Random, name: Name) -> bytes:
    if chance.random() < 0.5:
        # what qemu takes for one, and others may not
        blank = chance.choice((b" ", b" ", b"\t", b"\r"))
        words = (b"RW", b"2", b"FLAT", b'"' + name() + b'"', chance.choice((b"0", b"0=")))
        return blank.join(words)
    blank = chance.choice((b" ", b" ", b" ", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"  "))
    access = chance.choice((b"RW", b"RW", b"RW", b"RDONLY", b"NOACCESS", b"rw"))
    kind = chance.choice((b"SPARSE", b"FLAT", b"FLAT", b"ZERO", b"VMFS", b"VMFSSPARSE", b"SESPARSE", b"sparse"))
    words = [access, chance.choice((b"2048", b"1", b"+1", b"0", b"01")), kind, b'"' + name() + b'"']
    if chance.random() < 0.5:
        words.append(chance.choice((b"0", b"0=", b"0 x", b"-1", b"1")))
    return chance.choice((b"", b"", b"", b"\t", b" ", b"x=")) + blank.join(words)


def _other_line(chance: random.Random, name: Name) -> bytes:
    return chance.choice(
        (
            lambda: b'createType="' + chance.choice(_TYPES) + b'"',
            lambda: b'CREATETYPE="' + chance.choice(_TYPES) + b'"',
            lambda: b'parentFileNameHint="' + name() + b'"',
            lambda: b"parentCID=" + chance.choice((b"ffffffff", b"12345678", b"FFFFFFFF", b"0")),
            lambda: b"#" + _extent(chance, name),
            lambda: b'#parentFileNameHint="' + name() + b'"',
            lambda: b'ddb.x = "' + name() + b'"',
            lambda: b'ddb.parent = "' + name() + b'"',
            lambda: b'changeTrackPath="' + name() + b'"',
            lambda: b"\0",
            lambda: b"NOACCESS 1 ZERO",
            lambda: b"",
        )
    )()


_TYPES: Final = (
    b"monolithicSparse", b"streamOptimized", b"monolithicFlat", b"monolithicFlat", b"vmfs", b"vmfsSparse", b"seSparse",
    b"twoGbMaxExtentSparse", b"twoGbMaxExtentFlat", b"custom", b"",
)  # fmt: skip


def descriptor(chance: random.Random, name: Name) -> bytes:
    """A VMDK descriptor, most often with some lines more, less, doubled, changed or in another order."""
    lines = build.DESCRIPTOR.splitlines()
    if chance.random() < 0.3:
        # two types, for readers that look for the word in different ways
        word = chance.choice(
            (b"createType", b"CREATETYPE", b"createtype", b"#createType", b"x.createType", b"createType ")
        )
        lines[4:5] = chance.sample((word + b'="' + chance.choice(_TYPES[:2]) + b'"', _flat_type(chance)), 2)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 4))):
        at = chance.randrange(len(lines))
        roll = chance.randrange(8)
        if roll <= 1:
            lines.insert(at, _extent(chance, name))
        elif roll == 2:
            lines[7 % len(lines)] = _extent(chance, name)
        elif roll == 3:
            lines.insert(at, _other_line(chance, name))
        elif roll == 4:
            lines[at] = chance.choice((lines[at].lower(), lines[at].upper(), lines[at].replace(b"=", b" = ")))
        elif roll == 5:
            lines.insert(at, chance.choice(lines))
        elif roll == 6 and len(lines) > 4:
            del lines[at]
        else:
            lines[4 % len(lines)] = b'createType="' + chance.choice(_TYPES) + b'"'
    end = chance.choice((b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\n\n"))
    text = end.join(lines) + end
    if chance.random() < 0.08:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice((b"\0", b"\0\0", b"\xff", b"\x1a", b'"')) + text[at:]
    if chance.random() < 0.08:
        text = text.ljust(chance.choice((511, 512, 513, 10239, 10240, 10241)), b"#") + _extent(chance, name) + b"\n"
    return text


def _text(chance: random.Random, name: Name) -> bytes:
    """A descriptor that is a file of its own."""
    before = chance.choice(
        (b"", b"# Disk DescriptorFile\n", b"\n", b" \n", b"#" * 600 + b"\n", b"\xef\xbb\xbf", b"#\0\n")
    )
    body = (
        b'version=1\nCID=1\nparentCID=ffffffff\ncreateType="'
        + chance.choice(_TYPES)
        + b'"\n'
        + _extent(chance, name)
        + b"\n"
    )
    return (before + chance.choice((body, descriptor(chance, name)))).ljust(chance.choice((0, 512, 4096)), b"\0")


def _qcow2(chance: random.Random, name: Name) -> bytes:
    fields: dict[str, int] = {}
    behind = b""
    if chance.random() < 0.3:
        behind = name()
        fields |= {"backing": chance.choice((112, 200, 512, 1024, 65000)), "backing_length": len(behind)}
    widths = {
        "version": 3, "cluster_bits": 5, "size": 64, "l1_entries": 32, "incompatible": 64, "compatible": 64,
        "autoclear": 64,
        "refcount_order": 32, "length": 32, "encryption": 2, "backing_length": 32, "snapshots": 32,
    }  # fmt: skip
    for field in chance.sample([*widths], chance.choice((0, 0, 1, 1, 2))):
        fields[field] = _bound(chance, widths[field])
    if chance.random() < 0.3:
        fields["incompatible"] = 1 << chance.choice((0, 1, 2, 2, 3, 4, 5, 40, 63))
    if chance.random() < 0.2:
        fields["version"] = chance.choice((1, 2, 2, 2, 4))
    extensions = []
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        kind = chance.choice((0xE2792ACA, 0x44415441, 0x6803F857, 0x23852875, 0x0537BE77, 0x12345678, 0))
        content = {0xE2792ACA: b"raw", 0x6803F857: bytes(48), 0x0537BE77: bytes(16)}.get(kind)
        extensions.append((kind, name() if content is None else content))
    return build.qcow2(extensions=extensions, behind=behind, **fields)


def _vhd(chance: random.Random, name: Name) -> bytes:
    kind = chance.choice((3, 3, 3, 2, 4, 5, 0))
    parent = name()[:100] if chance.random() < 0.3 else b""
    locator = b"W2ru" + struct.pack(">IIIQ", 512, len(parent), 0, 2048) if chance.random() < 0.3 else b""
    tail = build.vhd_footer(kind=chance.choice((2, 3, 4))) if chance.random() < 0.3 else None
    fields = {"size": _bound(chance, 64)} if chance.random() < 0.2 else {}
    if chance.random() < 0.1:
        fields["place"] = _bound(chance, 64)
    return build.vhd(kind=kind, parent=parent, locator=locator, tail=tail, **fields)


def _fixed(chance: random.Random, name: Name) -> bytes:
    content = chance.choice((bytes(65536), _mbr(chance, name), _text(chance, name), _qcow2(chance, name)[:4096]))
    content = content.ljust(65536, b"\0")
    return build.fixed_vhd(content, kind=chance.choice((2, 2, 2, 3, 4)))


def _vhdx(chance: random.Random, name: Name) -> bytes:
    del name
    items = {}
    if chance.random() < 0.5:
        which = chance.choice(("parameters", "size", "page 83", "logical", "parent", "unknown"))
        items[which] = (chance.choice((65536, 65544, 65600, 64, 1 << 19)), chance.choice((4, 8, 16, 0xFFFFFFFF)), 4)
    logs = (b"log" if chance.random() < 0.1 else b"", b"log" if chance.random() < 0.1 else b"")
    size = _bound(chance, 64) if chance.random() < 0.2 else 1 << 20
    return build.vhdx(size=size, bits=chance.choice((0, 0, 0, 1, 2, 3)), items=items, logs=logs)


def _vdi(chance: random.Random, name: Name) -> bytes:
    return build.vdi(
        kind=chance.choice((1, 1, 2, 3, 4, 5)),
        version=chance.choice((0x10001, 0x10001, 0x10001, 1, 0x20000)),
        size=chance.choice((1 << 20, 1 << 20, _bound(chance, 64))),
        link=name()[:16] if chance.random() < 0.2 else b"",
        parent=name()[:16] if chance.random() < 0.2 else b"",
    )


def _old(chance: random.Random, name: Name) -> bytes:
    """Formats that are never taken, and some that stand alone."""
    return chance.choice(
        (
            lambda: build.qed(backing=name(), features=chance.choice((0, 1, 2, 4, 5))),
            lambda: build.qed(),
            lambda: build.qcow1(name()),
            lambda: build.cow(name(), chance.choice((b"OOOM", b"MOOO"))),
            lambda: build.bochs(chance.choice((b"Growing", b"Undoable", b"Volatile"))),
            lambda: build.luks(version=chance.choice((1, 2)), payload=chance.choice((0, 8, 4096)))[:65536],
            lambda: (
                chance.choice((b"WithoutFreeSpace", b"WithouFreSpacExt"))
                + struct.pack("<IIIIIQ", 2, 16, 64, 2048, 1, 2048)
            ),
            lambda: b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n" + name(),
        )
    )()


def _mbr(chance: random.Random, name: Name) -> bytes:
    """A partition table, a disc, or both."""
    data = bytearray(70000)
    if chance.random() < 0.7:
        data[510:512] = b"\x55\xaa"
        for number in range(chance.choice((0, 1, 2, 4))):
            entry = struct.pack(
                "<B3sB3sII", chance.choice((0, 128, 1)), b"\0\2\0", chance.choice((0, 0xEE, 0x83)), b"", 1, 9
            )
            data[446 + 16 * number : 462 + 16 * number] = entry
    if chance.random() < 0.5:
        data[0x8000:0x8006] = chance.choice((b"\1CD001", b"\0NSR02", b"\2CD001"))
    if chance.random() < 0.4:
        what = chance.choice((_text, _vmdk, _qcow2, _vdi))(chance, name)[: chance.choice((40, 104, 400, 510))]
        data[: len(what)] = what
    return bytes(data)


def _over(data: bytes, part: bytes, at: int = 0) -> bytes:
    return data[:at].ljust(at, b"\0") + part + data[at + len(part) :]


def _short(chance: random.Random, name: Name) -> bytes:
    """A descriptor that fits into what other formats leave free, in front of their magic or behind it."""
    kind, extent = chance.choice(((b"vmfs", b"VMFS"), (b"monolithicFlat", b"FLAT"), (b"vmfsSparse", b"VMFSSPARSE")))
    size = chance.choice((b"2", b"1", b"2048"))
    where = chance.choice((b"canary", b"canary", name()))
    last = b" 0" if extent == b"FLAT" else b""
    lines = [b'createType="' + kind + b'"', b"parentCID=f", b"RW " + size + b" " + extent + b' "' + where + b'"' + last]
    if chance.random() < 0.2:
        chance.shuffle(lines)
    if chance.random() < 0.2:
        lines.insert(0, chance.choice((b"version=1", b"CID=1", b"#", b"", b" ")))
    return chance.choice((b"\n", b"\n", b"\n", b"\r\n")).join(lines) + b"\n"


def _blank(chance: random.Random, name: Name) -> bytes:
    """Nothing, or what only the name of a container is known by."""
    del name
    start = chance.choice((b"", b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"PK\3\4", b"disk.vmdk"))
    return start.ljust(chance.choice((512, 4096, 70000)), chance.choice((b"\0", b"\0", b"\n", b"#")))


def _parallels(chance: random.Random, name: Name) -> bytes:
    del name
    magic = chance.choice((b"WithoutFreeSpace", b"WithouFreSpacExt"))
    return (magic + struct.pack("<IIIIIQII", 2, 16, 64, 2048, 1, 2048, 0, 2048)).ljust(1 << 20, b"\0")


def _polyglot(chance: random.Random, name: Name) -> bytes:
    """One file that several readers know: a text in front of magics, behind them, and magics of others about it."""
    makers = (
        _blank, _blank, _vdi, lambda *_: build.vdi(kind=chance.choice((1, 2))), lambda *_: build.vhdx(), _qcow2, _vmdk,
        _vhd, lambda *_: build.vhd(), _fixed, _mbr, _parallels, lambda *_: build.luks()[:65536],
        lambda *_: build.bochs(b"Growing"), _old,
    )  # fmt: skip
    data = chance.choice(makers)(chance, name)
    while chance.random() < 0.45:
        part, at = chance.choice(
            (
                (build.vdi()[64:512], 64), (b"\x7f\x10\xda\xbe", 64), (b"vhdxfile", 0), (b"\x55\xaa", 510),
                (b"EFI PART", 512), (b"\1CD001\1", 0x8000), (b"ustar\00000", 257), (b"QFI\xfb", 0),
                (b"QFI\xfb\0\0\0\3", 0), (b"KDMV", 0), (b"conectix", 0), (b"LUKS\xba\xbe\0\1", 0),
                (b"WithoutFreeSpace", 0), (b"\x1f\x8b", 0),
            )
        )  # fmt: skip
        data = _over(data, part, at)
    if chance.random() < 0.85:
        before = chance.choice(
            (b"",) * 6
            + (b"\n", b" \n", b"\r\n", b"#\n", b"\n#\n", b"\xef\xbb\xbf", b"\0", b"# Disk DescriptorFile\n")
            + (b"#" * 600 + b"\n", b"#" * 5000 + b"\n", b"\n" * 700, b"\xff\xfe")
        )
        text = before + chance.choice((_short, _short, _short, _text))(chance, name)
        at = chance.choice((0, 0, 0, 0, 3, 4, 8, 8, 16, 64))
        room = chance.choice((0, 1, 64 - at, 64 - at, 256, 511))
        data = _over(data, text.ljust(max(room, 0), chance.choice((b"\n", b"\n", b"\0", b" ", b"#"))), at)
        if chance.random() < 0.25:  # the magic of a VDI is where it was
            data = _over(data, build.vdi()[64:512], 64)
    if chance.random() < 0.2:
        data += bytes(chance.choice((0, 0, 77))) + build.vhd_footer(
            kind=chance.choice((2, 2, 3, 4)), place=(1 << 64) - 1
        )
    return data


# weight, the claim that fits, how it is made
_FAMILIES: Final[dict[str, tuple[int, str, Callable[[random.Random, Name], bytes]]]] = {
    "vmdk": (40, "vmdk", _vmdk),
    "descriptor": (8, "vmdk", _text),
    "qcow2": (22, "qcow2", _qcow2),
    "vhd": (8, "vhd", _vhd),
    "fixed vhd": (3, "vhd", _fixed),
    "vhdx": (4, "vhdx", _vhdx),
    "vdi": (5, "vdi", _vdi),
    "mbr and iso": (5, "iso", _mbr),
    "others": (5, "raw", _old),
    "polyglot": (25, "vmdk", _polyglot),
}
KINDS: Final = tuple(_FAMILIES)
