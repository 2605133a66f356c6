"""Images that may lead their readers to other files, or of which nobody can say that they do not.

Each is refused whatever it claims to be, in whatever container.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.formats import build

SECRET = b"/etc/passwd"
_TEXT = b'version=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/passwd" 0\n'
EXTENT = b'RW 2048 SPARSE "disk.vmdk"\n'


def _vmdk_lines() -> Iterator[tuple[str, bytes]]:
    """A line instead of the extent, or beside it."""
    lines = {
        "flat": b'RW 2 FLAT "/etc/passwd" 0',
        "flat neighbour": b'RW 2 FLAT "neighbour" 0',
        "tabs": b'RW\t2\tFLAT\t"/etc/passwd"\t0=',
        "tab at a header field": b'x=\tRW 2 FLAT "/etc/passwd" 0',
        "carriage return": b'RW\r2 FLAT "/etc/passwd" 0',
        "vertical tab": b'RW\x0b2\x0bFLAT\x0b"/etc/passwd"\x0b0',
        "indented": b'  RW 2 FLAT "/etc/passwd" 0',
        "over several lines": b'RW\n2\nFLAT\n"/etc/passwd"\n0',
        "signed": b'RW +2 FLAT "/etc/passwd" 0',
        "no blank before the name": b'RW 2 FLAT"/etc/passwd" 0',
        "vmfs": b'RW 2 VMFS "/etc/passwd"',
        "vmfssparse": b'RW 2 VMFSSPARSE "other"',
        "sesparse": b'RW 2 SESPARSE "other"',
        "zero": b"RW 2 ZERO",
        "raw device": b'RW 2 VMFSRDM "/dev/sda"',
        "noaccess": b'NOACCESS 2 SPARSE "other"',
        "lower case": b'rw 2 flat "/etc/passwd" 0',
        "slash": b'RW 2 SPARSE "/etc/passwd"',
        "relative": b'RW 2 SPARSE "../other"',
        "dots": b'RW 2 SPARSE ".."',
        "backslash": b'RW 2 SPARSE "c:\\\\other"',
        "protocol": b'RW 2 SPARSE "nbd:unix:socket"',
        "offset": b'RW 2 SPARSE "disk.vmdk" 0',
        "after it": b'RW 2 SPARSE "disk.vmdk" # RW 2 FLAT',
        "no size": b'RW 0 SPARSE "disk.vmdk"',
        "empty name": b'RW 2 SPARSE ""',
        "no ASCII": 'RW 2 SPARSE "dïsk.vmdk"'.encode(),
        "unknown word": b"hello",
        "unknown field": b'extents="/etc/passwd"',
        "change tracking": b'changeTrackPath="disk-ctk.vmdk"',
    }
    for name, line in lines.items():
        yield f"vmdk line: {name}", build.vmdk(build.DESCRIPTOR.replace(EXTENT, line + b"\n"))
        yield f"vmdk line beside: {name}", build.vmdk(build.DESCRIPTOR.replace(EXTENT, EXTENT + line + b"\n"))
    yield "vmdk line: none", build.vmdk(build.DESCRIPTOR.replace(EXTENT, b""))
    yield "vmdk line: twice", build.vmdk(build.DESCRIPTOR.replace(EXTENT, EXTENT * 2))


def _vmdk_fields() -> Iterator[tuple[str, bytes]]:
    kind, parent = b'createType="monolithicSparse"\n', b"parentCID=ffffffff\n"
    changes = {
        "type twice": (kind, kind * 2),
        "type twice in other case": (kind, b'CREATETYPE="monolithicSparse"\ncreateType="monolithicFlat"\n'),
        "type in a comment before": (kind, b'# createType="monolithicFlat"\n' + kind),
        "type in lower case": (kind, kind.lower()),
        "type with blanks": (kind, b'createType = "monolithicSparse"\n'),
        "no type": (kind, b""),
        "empty type": (kind, b'createType=""\n'),
        "flat": (kind, b'createType="monolithicFlat"\n'),
        "custom": (kind, b'createType="custom"\n'),
        "two files": (kind, b'createType="twoGbMaxExtentSparse"\n'),
        "vmfs": (kind, b'createType="vmfs"\n'),
        "parent": (parent, b'parentCID=12345678\nparentFileNameHint="/etc/passwd"\n'),
        "parent without id": (parent, parent + b'parentFileNameHint="/etc/passwd"\n'),
        "parent in a comment": (parent, parent + b'#parentFileNameHint="/etc/passwd"\n'),
        "parent id": (parent, b"parentCID=12345678\n"),
        "parent id twice": (parent, b"parentCID=12345678\n" + parent),
        "no parent id": (parent, b""),
        "native snapshot": (parent, parent + b'isNativeSnapshot="yes"\n'),
        "native parent": (b"#DDB\n", b'ddb.nativeParentHint = "other.vmdk"\n'),
        "parent object": (b"#DDB\n", b'ddb.objectParentUri = "vvol://other"\n'),
        "sidecar": (b"#DDB\n", b'ddb.sidecars = "other.vmfd"\n'),
        "parent's uuid": (b"#DDB\n", b'ddb.uuid.parent="1eea0e4f-8b1e-4a8e-a0e7-2f2f0d8b4d4f"\n'),
        "second descriptor": (b"#DDB\n", b"\0" + build.DESCRIPTOR),
        "text behind its end": (b"#DDB\n", b"#DDB\n" + bytes(5000) + b'RW 2 FLAT "/etc/passwd" 0\n'),
        "control character": (b"#DDB\n", b"#\x1b\n"),
    }
    for name, (old, new) in changes.items():
        assert old in build.DESCRIPTOR
        yield f"vmdk field: {name}", build.vmdk(build.DESCRIPTOR.replace(old, new))
    yield "vmdk descriptor: empty", build.vmdk(b"")
    yield "vmdk descriptor: without end", build.vmdk(build.DESCRIPTOR + b"#" * 20000)
    short = build.DESCRIPTOR.ljust(512, b"#")[:512]
    yield (
        "vmdk descriptor: goes on behind its sectors",
        build.vmdk(short, sectors=1)[:1024] + b'\nRW 2 FLAT "x" 0\n' * 99,
    )


def _vmdk_headers() -> Iterator[tuple[str, bytes]]:
    for name, fields in {
        "no capacity": {"capacity": 0},
        "huge capacity": {"capacity": 1 << 60},
        "version 0": {"version": 0},
        "version 4": {"version": 4},
        "no descriptor": {"sector": 0, "sectors": 0},
        "descriptor elsewhere": {"sector": 2},
        "descriptor far away": {"sector": 1 << 55},
        "huge descriptor": {"sectors": 1 << 40},
        "line ends": {"lines": b"\n\n\n\n"},
        "compression": {"compression": 2},
        "part of a disk": {"magic": b"COWD"},
        "footer that is not there": {"directory": build.AT_END},
    }.items():
        yield f"vmdk header: {name}", build.vmdk(**fields)  # type: ignore[arg-type]
    for name, other in {
        "no capacity": {"capacity": 0},
        "other capacity": {"capacity": 4096},
        "other descriptor": {"sector": 40},
        "other size of descriptor": {"sectors": 2},
        "other compression": {"compression": 0},
        "other flags": {"flags": 3},
        "other version": {"version": 1},
        "other magic": {"magic": b"COWD"},
        "another footer": {"directory": build.AT_END},
    }.items():
        yield f"vmdk footer: {name}", build.vmdk(footer=build.stream_footer(**other))  # type: ignore[arg-type]
    yield "vmdk footer: something behind it", build.vmdk(footer=build.stream_footer()) + b"\0"
    yield "vmdk footer: header without capacity", build.vmdk(footer=build.stream_footer(), capacity=0)


def _qcow2() -> Iterator[tuple[str, bytes]]:
    yield "qcow2: backing file", build.qcow2(backing=512, backing_length=len(SECRET), behind=SECRET)
    yield "qcow2: backing file, version 2", build.qcow2(version=2, backing=512, backing_length=11, behind=SECRET)
    yield "qcow2: backing file without a name", build.qcow2(backing=512)
    yield "qcow2: length of a backing file", build.qcow2(backing_length=11)
    yield (
        "qcow2: backing file with protocol",
        build.qcow2(backing=512, backing_length=19, behind=b"nbd://127.0.0.1:123"),
    )
    yield "qcow2: data file", build.qcow2(incompatible=4, extensions=[(0x44415441, SECRET)])
    yield "qcow2: data file without a name", build.qcow2(incompatible=4)
    yield "qcow2: name of a data file", build.qcow2(extensions=[(0x6803F857, bytes(48)), (0x44415441, SECRET)])
    yield "qcow2: name of a data file, version 2", build.qcow2(version=2, extensions=[(0x44415441, SECRET)])
    yield "qcow2: unknown feature", build.qcow2(incompatible=1 << 5)
    yield "qcow2: highest feature", build.qcow2(incompatible=1 << 63)
    yield "qcow2: version 4", build.qcow2(version=4)
    yield "qcow2: version 1", build.qcow1()
    yield "qcow2: version 1 with backing file", build.qcow1(SECRET)
    yield "qcow2: short header", build.qcow2(length=72)
    yield "qcow2: header over its cluster", build.qcow2(length=1 << 20)
    yield "qcow2: tiny clusters", build.qcow2(cluster_bits=8)
    yield "qcow2: huge clusters", build.qcow2(cluster_bits=32)
    yield "qcow2: unknown encryption", build.qcow2(encryption=3)
    yield "qcow2: endless extensions", build.qcow2(cluster_bits=21, raw_extensions=struct.pack(">II", 1, 0) * 20000)
    yield "qcow2: larger than anything", build.qcow2(size=1 << 63)
    yield "qcow2: under a sector", build.qcow2(backing=200, backing_length=11, behind=SECRET)[:300]
    yield "qcow2: of 104 bytes", build.qcow2(backing=80, backing_length=11)[:104]


def _others() -> Iterator[tuple[str, bytes]]:
    yield "qed", build.qed()
    yield "qed: backing file", build.qed(backing=SECRET, features=1)
    yield "qed: under a sector", build.qed(backing=SECRET, features=1)[:100]
    yield "cow", build.cow(SECRET)
    yield "cow: other order of bytes", build.cow(SECRET, b"MOOO")
    yield "bochs: undoable", build.bochs(b"Undoable")
    yield "bochs: volatile", build.bochs(b"Volatile")
    yield "vhd: differencing", build.vhd(kind=4)
    yield "vhd: parent's id", build.vhd(parent=b"parent-uuid-16by")
    yield "vhd: locator of a parent", build.vhd(locator=b"W2ku" + bytes(8) + b"\0\0\2\0")
    yield "vhd: differencing at its end", build.vhd(tail=build.vhd_footer(kind=4))
    yield "vhd: another disk at its end", build.vhd(tail=build.vhd_footer(size=1 << 21))
    yield "vhd: fixed at its end", build.vhd(tail=build.vhd_footer(kind=2))
    yield "vhd: without its end", build.vhd(tail=b"")
    yield "vhd: fixed with the footer in front", build.vhd(kind=2)
    yield "vhd: kind 5", build.vhd(kind=5)
    yield "vhd: no dynamic header", build.vhd(place=1024)
    yield "vhd: dynamic header far away", build.vhd(place=1 << 62)
    yield "vhd: larger than anything", build.vhd(size=(1 << 64) - 512)
    yield "vhd: under a sector", build.vhd(kind=4)[:100]
    yield "vhdx: has a parent", build.vhdx(bits=2)
    yield "vhdx: locator of a parent", build.vhdx(items={"parent": (65600, 64, 4)})
    yield "vhdx: odd length of its size", build.vhdx(items={"size": (65544, 0xFFFFFFFF, 6)})
    yield "vhdx: short size", build.vhdx(items={"size": (65544, 4, 6)})
    yield "vhdx: size within the table", build.vhdx(items={"size": (64, 8, 6)})
    yield "vhdx: size far away", build.vhdx(items={"size": (0xFFFFFFF0, 8, 6)})[: 4 << 20]
    yield "vhdx: unknown item that is required", build.vhdx(items={"unknown": (65600, 8, 4)})
    yield "vhdx: unknown region", build.vhdx(region=struct.pack("<16sQII", build.GUIDS["unknown"], 5 << 20, 1 << 20, 1))
    yield (
        "vhdx: metadata twice",
        build.vhdx(region=struct.pack("<16sQII", build.GUIDS["metadata"], 9 << 20, 1 << 20, 1)),
    )
    yield "vhdx: tables differ", build.vhdx(second_table=bytes(65536))
    yield "vhdx: log", build.vhdx(logs=(b"", b"log-guid-16bytes"))
    yield (
        "vhdx: log behind a header that readers pass over",
        build.vhdx(logs=(b"log-guid-16bytes", b""), versions=(1, 2)),
    )
    yield "vhdx: larger than anything", build.vhdx(size=1 << 63)
    yield "vhdx: only its beginning", build.vhdx()[:300]
    yield "vhdx: no headers", build.vhdx()[:65536]
    yield "vdi: differencing", build.vdi(kind=4)
    yield "vdi: undo", build.vdi(kind=3)
    yield "vdi: kind 5", build.vdi(kind=5)
    yield "vdi: link", build.vdi(link=b"link-uuid-16byte")
    yield "vdi: parent", build.vdi(parent=b"parent-uuid-16by")
    yield "vdi: old version", build.vdi(version=1)
    yield "vdi: larger than anything", build.vdi(size=1 << 63)
    yield "vdi: under a sector", build.vdi(kind=4)[:400]
    yield "luks: version 2", build.luks(version=2)
    yield "luks: header of data elsewhere", build.luks(payload=0)
    yield "descriptor", b"# Disk DescriptorFile\n" + _TEXT
    yield "descriptor: blank before", b"#DISK DESCRIPTORFILE\n" + _TEXT
    yield "descriptor: other comments", b"# hello\n\n  \n#\n" + _TEXT
    yield "descriptor: padded", (b"# Disk DescriptorFile\r\n" + _TEXT).ljust(1 << 20, b"\0")
    yield "descriptor: comment with zeros", b"#\0\0\n" + _TEXT
    yield "descriptor: only a version", b"version=3\r\n"
    both = bytearray(build.vdi())
    both[:4] = b"KDMV"
    yield "two at once: vmdk and vdi", bytes(both)
    both[:72] = build.qcow2()[:64] + both[64:72]
    yield "two at once: qcow2 and vdi", bytes(both)
    both = bytearray(build.qcow2())
    both[0x8001:0x8006] = b"CD001"
    yield "two at once: qcow2 and iso", bytes(both)
    both = bytearray(build.qcow2())
    both[510:512] = b"\x55\xaa"
    yield "two at once: qcow2 and partition table", bytes(both)


SAMPLES: dict[str, bytes] = dict([*_vmdk_lines(), *_vmdk_fields(), *_vmdk_headers(), *_qcow2(), *_others()])


def _over(data: bytes, text: bytes, at: int = 0) -> bytes:
    return data[:at] + text + data[at + len(text) :]


_SHORT = b'createType="vmfs"\nparentCID=f\nRW 2 VMFS "/etc/passwd"\n'
# Only who believes the claim reads these as descriptors: refused where vmdk is claimed, in every container.
CLAIMED: dict[str, bytes] = {
    "descriptor in front of a VDI's magic": _over(build.vdi(), _SHORT.ljust(64, b"\n")),
    "descriptor in front of a fixed VDI's magic": _over(build.vdi(kind=2), _SHORT.ljust(64, b"\0")),
    "descriptor in the creator's name of a VHDX": _over(build.vhdx(), b"\n" + _SHORT, 8),
    "descriptor behind a comment in a VHDX": _over(build.vhdx(), b"\n#" + b"#" * 2000 + b"\n" + _TEXT, 8),
    "descriptor on a disc": _over(bytes(0x8001) + b"CD001".ljust(4096, b"\0"), _SHORT),
    "descriptor in front of a partition table": _over(bytes(510) + b"\x55\xaa" + bytes(65536), _SHORT),
    "descriptor on a fixed VHD": build.fixed_vhd(_SHORT.ljust(1 << 20, b"\0")),
    "descriptor in a Parallels disk": (b"WithoutFreeSpace" + _SHORT).ljust(65536, b"\0"),
    "descriptor behind a long comment": b"#" * 600 + b"\n" + _TEXT,
    "descriptor behind a very long comment": b"#" * 900_000 + b"\n" + _TEXT,
    "descriptor across pieces": b"#" * (4096 - 50) + b"\n" + _TEXT,
    "descriptor in the name of a member of a tar": _TEXT[:90].ljust(257, b"\0") + b"ustar\00000".ljust(1000, b"\0"),
}
# Only who believes the claim looks for a footer at the end: refused where vhd is claimed, in every container.
CLAIMED_VHD: dict[str, bytes] = {
    "differencing, known by its end": build.fixed_vhd(kind=4),
    "dynamic, known by its end": build.fixed_vhd(kind=3),
    "differencing, behind a VDI": build.vdi() + build.vhd_footer(kind=4),
    "differencing, behind a qcow2": build.qcow2() + build.vhd_footer(kind=4),
    "differencing, of 511 bytes": build.fixed_vhd(kind=4)[:-1],
    "differencing, in no whole sector": b"\0" * 77 + build.fixed_vhd(kind=4),
    "differencing, for who takes the last 512 bytes": (
        bytes(1 << 20) + build.vhd_footer(kind=4)[:100] + build.vhd_footer(kind=2)[:412]
    ),
}
