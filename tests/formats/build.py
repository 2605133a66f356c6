"""Headers of the formats, field by field. Each builder makes a small harmless image that qemu opens, unless asked."""

from __future__ import annotations

import functools
import struct
from typing import Final
from uuid import UUID

SECTOR: Final = 512
AT_END: Final = (1 << 64) - 1
DESCRIPTOR: Final = (
    b"# Disk DescriptorFile\n"
    b"version=1\n"
    b"CID=7e5b80a7\n"
    b"parentCID=ffffffff\n"
    b'createType="monolithicSparse"\n'
    b"\n"
    b"# Extent description\n"
    b'RW 2048 SPARSE "disk.vmdk"\n'
    b"\n"
    b"# The Disk Data Base\n"
    b"#DDB\n"
    b"\n"
    b'ddb.adapterType = "ide"\n'
    b'ddb.geometry.cylinders = "2"\n'
    b'ddb.virtualHWVersion = "4"\n'
)
# what every VMDK header holds, in its order
VMDK_FIELDS: Final = {
    "magic": b"KDMV", "version": 1, "flags": 3, "capacity": 2048, "grain": 128, "sector": 1, "sectors": 20,
    "entries": 512, "spare": 21, "directory": 26, "overhead": 128, "unclean": 0, "lines": b"\n \r\n", "compression": 0,
}  # fmt: skip


def vmdk_header(**fields: int | bytes) -> bytes:
    """One sector."""
    return struct.pack("<4sIIQQQQIQQQB4sH", *(VMDK_FIELDS | fields).values()).ljust(SECTOR, b"\0")


def vmdk(descriptor: bytes = DESCRIPTOR, *, footer: bytes | None = None, **fields: int | bytes) -> bytes:
    """A monolithicSparse of 1 MiB of zeros; footer: its sector, which makes it a streamOptimized one."""
    if footer is not None:
        fields = {"version": 3, "flags": 0x30003, "compression": 1, "directory": AT_END} | fields
        descriptor = descriptor.replace(b"monolithicSparse", b"streamOptimized")
    head = vmdk_header(**fields)
    room = int(fields.get("sectors", 20)) % 4096 * SECTOR
    data = (head + descriptor[:room].ljust(room, b"\0")).ljust(128 * SECTOR, b"\0")
    if footer is not None:
        marker = struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0")
        data += marker + footer + bytes(SECTOR)
    return data


def stream_footer(**fields: int | bytes) -> bytes:
    """The footer's sector of a streamOptimized VMDK, as its header but for the directory."""
    return vmdk_header(**({"version": 3, "flags": 0x30003, "compression": 1, "directory": 26} | fields))


def qcow2(
    *,
    extensions: list[tuple[int, bytes]] | None = None,
    behind: bytes = b"",
    raw_extensions: bytes = b"",
    **fields: int,
) -> bytes:
    """Of 1 MiB; extensions: numbers and contents, as header extensions. behind: put where `backing` points to."""
    values = {
        "magic": 0x514649FB, "version": 3, "backing": 0, "backing_length": 0, "cluster_bits": 16, "size": 1 << 20,
        "encryption": 0, "l1_entries": 1, "l1": 0x30000, "refcounts": 0x10000, "refcount_clusters": 1, "snapshots": 0,
        "snapshots_at": 0,
    } | {name: value for name, value in fields.items() if name in QCOW2_FIELDS}  # fmt: skip
    head = struct.pack(">IIQIIQIIQQIIQ", *values.values())
    if values["version"] != 2:
        more = {"incompatible": 0, "compatible": 0, "autoclear": 0, "refcount_order": 4, "length": 104} | {
            name: value for name, value in fields.items() if name not in QCOW2_FIELDS
        }
        head += struct.pack(">QQQII", *more.values())
    for kind, content in extensions or []:
        head += struct.pack(">II", kind, len(content)) + content.ljust(len(content) + 7 & ~7, b"\0")
    data = bytearray((head + raw_extensions).ljust(0x40000, b"\0"))
    data[0x10000:0x10008] = struct.pack(">Q", 0x20000)
    data[0x20000:0x20008] = struct.pack(">HHHH", 1, 1, 1, 1)
    if behind:
        data[values["backing"] : values["backing"] + len(behind)] = behind
    return bytes(data)


QCOW2_FIELDS: Final = (
    "magic", "version", "backing", "backing_length", "cluster_bits", "size", "encryption", "l1_entries", "l1",
    "refcounts", "refcount_clusters", "snapshots", "snapshots_at",
)  # fmt: skip


def qed(*, backing: bytes = b"", features: int = 0) -> bytes:
    """Of 1 MiB."""
    head = struct.pack("<4sIIIQQQQQII", b"QED\0", 65536, 4, 1, features, 0, 0, 65536, 1 << 20, 64, len(backing))
    return (head + backing).ljust(5 * 65536, b"\0")


def vhd_footer(*, kind: int = 3, place: int = 512, size: int = 1 << 20, creator: bytes = b"win ") -> bytes:
    """One sector with its checksum."""

    def made(checksum: int) -> bytes:
        return struct.pack(
            ">8sIIQI4sHH4sQQHBBII16sB", b"conectix", 2, 0x10000, place, 0, creator, 5, 3, b"Wi2k", size, size,
            30, 4, 17, kind, checksum, bytes(16), 0,
        ).ljust(SECTOR, b"\0")  # fmt: skip

    return made(~sum(made(0)) & 0xFFFFFFFF)


def vhd(*, kind: int = 3, parent: bytes = b"", locator: bytes = b"", tail: bytes | None = None, **fields: int) -> bytes:
    """A dynamic disk of 1 MiB in one block that is not there. tail: another footer than the one in front."""
    footer = vhd_footer(kind=kind, **fields)  # type: ignore[arg-type]
    sparse = bytearray(
        struct.pack(">8sQQIIII", b"cxsparse", (1 << 64) - 1, 1536, 0x10000, 1, 1 << 21, 0).ljust(1024, b"\0")
    )
    sparse[40 : 40 + len(parent[:16])] = parent[:16]
    name = parent.decode().encode("utf-16-be")
    sparse[64 : 64 + len(name)] = name
    sparse[576 : 576 + len(locator)] = locator
    sparse[36:40] = struct.pack(">I", ~sum(sparse) & 0xFFFFFFFF)
    return footer + bytes(sparse) + (b"\xff" * 4).ljust(SECTOR, b"\xff") + (footer if tail is None else tail)


def fixed_vhd(content: bytes = bytes(1 << 20), *, kind: int = 2) -> bytes:
    """A fixed disk."""
    return content + vhd_footer(kind=kind, place=(1 << 64) - 1, size=len(content))


def vdi(*, kind: int = 1, version: int = 0x10001, size: int = 1 << 20, link: bytes = b"", parent: bytes = b"") -> bytes:
    """One block that is not there."""
    head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    head += struct.pack("<IIIII", 0xBEDA107F, version, 0x190, kind, 0) + bytes(256)
    head += struct.pack("<IIIIIIIQIIII", 512, 1024, 0, 0, 0, 512, 0, size, 1 << 20, 0, 1, 0)
    head += b"image-uuid-16byt" + b"snapshot-uuid-16" + link.ljust(16, b"\0") + parent.ljust(16, b"\0")
    return head.ljust(512, b"\0") + b"\xff" * 4 + bytes(2044)


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _summed(block: bytes) -> bytes:
    return block[:4] + struct.pack("<I", crc32c(block)) + block[8:]


@functools.cache
def _region_table(entries: bytes, count: int) -> bytes:
    return _summed((struct.pack("<4sIII", b"regi", 0, count, 0) + entries).ljust(65536, b"\0"))


@functools.cache
def _vhdx_header(sequence: int, log: bytes, version: int) -> bytes:
    body = struct.pack("<4sIQ", b"head", 0, sequence) + b"file-write-guid-" + b"data-write-guid-" + log.ljust(16, b"\0")
    return _summed((body + struct.pack("<HHIQ", 0, version, 1 << 20, 1 << 20)).ljust(4096, b"\0")).ljust(65536, b"\0")


GUIDS: Final = {
    "metadata": UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le,
    "bat": UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le,
    "parameters": UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le,
    "size": UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le,
    "page 83": UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le,
    "logical": UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le,
    "physical": UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le,
    "parent": UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le,
    "unknown": UUID("00000000-0000-4000-8000-000000000001").bytes_le,
}


def vhdx(
    *,
    size: int = 1 << 20,
    bits: int = 0,
    items: dict[str, tuple[int, int, int]] | None = None,
    logs: tuple[bytes, bytes] = (b"", b""),
    versions: tuple[int, int] = (1, 1),
    region: bytes | None = None,
    second_table: bytes | None = None,
) -> bytes:
    """A dynamic disk of 1 MiB. items: place, length and flags, over the usual ones; logs, versions: of both headers."""
    table = {
        "parameters": (65536, 8, 4), "size": (65544, 8, 6), "page 83": (65552, 16, 6), "logical": (65568, 4, 6),
        "physical": (65572, 4, 6),
    } | (items or {})  # fmt: skip
    regions = b"".join(
        struct.pack("<16sQII", GUIDS[name], place, 1 << 20, 1)
        for name, place in (("bat", 2 << 20), ("metadata", 3 << 20))
    )
    first = _region_table(regions + (region or b""), 2 + (region is not None))
    data = bytearray((3 << 20) + (96 << 10))
    data[:65536] = (b"vhdxfile" + "here".encode("utf-16-le")).ljust(65536, b"\0")
    data[65536 : 2 * 65536] = _vhdx_header(1, logs[0], versions[0])
    data[2 * 65536 : 3 * 65536] = _vhdx_header(2, logs[1], versions[1])
    data[3 * 65536 : 4 * 65536] = first
    data[4 * 65536 : 5 * 65536] = first if second_table is None else second_table
    metadata = struct.pack("<8sHH20x", b"metadata", 0, len(table))
    for name, (place, length, flags) in table.items():
        metadata += struct.pack("<16sIIII", GUIDS[name], place, length, flags, 0)
    base = 3 << 20
    data[base : base + len(metadata)] = metadata
    values = {
        "parameters": struct.pack("<II", 1 << 20, bits), "size": struct.pack("<Q", size),
        "page 83": b"page-83-16-bytes",
        "logical": struct.pack("<I", 512), "physical": struct.pack("<I", 512),
    }  # fmt: skip
    for name, value in values.items():
        at = base + table[name][0]
        if at + len(value) <= len(data):
            data[at : at + len(value)] = value
    return bytes(data)


def luks(*, version: int = 1, payload: int = 4096) -> bytes:
    """A header without key slots, and what could be the data."""
    head = struct.pack(
        ">6sH32s32s32sII20s32sI40s", b"LUKS\xba\xbe", version, b"aes", b"xts-plain64", b"sha256", payload, 64,
        bytes(20), bytes(32), 1000, b"1eea0e4f-8b1e-4a8e-a0e7-2f2f0d8b4d4f",
    )  # fmt: skip
    return head.ljust(4096 * 512 + 65536, b"\0")


def qcow1(backing: bytes = b"") -> bytes:
    """The format before qcow2."""
    head = struct.pack(
        ">4sIQIIQBBHIQ", b"QFI\xfb", 1, 48 if backing else 0, len(backing), 0, 1 << 20, 12, 9, 0, 0, 2048
    )
    return (head + backing).ljust(65536, b"\0")


def cow(backing: bytes, magic: bytes = b"OOOM") -> bytes:
    """User-mode Linux's."""
    return (magic + struct.pack(">I1024sIQI", 2, backing, 0, 1 << 20, 512)).ljust(65536, b"\0")


def bochs(subtype: bytes) -> bytes:
    """A redolog."""
    head = struct.pack(
        "<32s16s16sIIIIIIQ", b"Bochs Virtual HD Image", b"Redolog", subtype, 0x20000, 512, 1, 1, 512, 0, 512
    )
    return head.ljust(65536, b"\0")
