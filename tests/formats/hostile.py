"""Images that may lead their readers to other files, or of which nobody can say that they do not.

Each is refused whatever it claims to be, in whatever container.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.formats import build

SECRET = b"/etc/passwd"
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


SAMPLES: dict[str, bytes] = dict([*_vmdk_lines(), *_vmdk_fields(), *_vmdk_headers()])
