"""What image data is and may be, with the files that real tools make, harmless and dangerous ones."""

import contextlib
import gzip
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats import build
from tests.servers.place import program
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection

SIZE = 8 << 20  # bytes that a guest sees
ALLOWED = ("streamOptimized", "monolithicSparse")
PASSWD = 'version=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 100 FLAT "/etc/passwd" 0\n'


def judge(
    data: bytes, claim: str | None, *, step: int = 65536, match: bool = True, container: str | None = "bare"
) -> int | None:
    """The virtual size; raises `FormatRefused`."""
    inspection = Inspection(claim, container, vmdk_types=ALLOWED, match=match)
    for at in range(0, len(data), step):
        if inspection.decided:
            break
        inspection.eat(data[at : at + step])
    inspection.end()
    return inspection.virtual_size(len(data))


def sealed(data: bytes, claim: str | None, **how: Any) -> str:
    """The reason for which it is refused."""
    with pytest.raises(FormatRefused) as caught:
        judge(data, claim, **how)
    return str(caught.value)


Make = Callable[..., bytes]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    (folder / "content").mkdir()
    (folder / "content" / "file").write_bytes(b"content" * 1000)
    with (folder / "disk.raw").open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(
        [program("mkfs.ext4", "e2fsprogs"), "-q", "-d", folder / "content", folder / "disk.raw"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def convert(folder: Path) -> Make:
    """The file system in another format."""

    def make(name: str, options: str = "") -> bytes:
        new = folder / f"disk.{name}.{options.replace('=', '-')}"
        command = [program("qemu-img", "qemu-utils"), "convert", "-q", "-f", "raw", "-O", name]
        subprocess.run([*command, *(["-o", options] if options else []), folder / "disk.raw", new], check=True)
        return new.read_bytes()

    return make


@pytest.fixture(scope="session")
def create(folder: Path) -> Make:
    """An empty image with options of `qemu-img create`."""

    def make(*options: str, size: str = str(SIZE)) -> bytes:
        new = folder / "created"
        command = [program("qemu-img", "qemu-utils"), "create", "-q", *options, os.fspath(new), size]
        subprocess.run([word for word in command if word], check=True, cwd=folder)
        return new.read_bytes()

    return make


def disc(folder: Path, *options: str | Path) -> bytes:
    new = folder / "disc.iso"
    command = [program("xorriso", "xorriso"), "-as", "mkisofs", "-quiet", "-o", new, *options, folder / "content"]
    subprocess.run(command, check=True, capture_output=True)
    return new.read_bytes()


def partitioned(folder: Path, label: str) -> bytes:
    new = folder / f"partitioned.{label}"
    with new.open("wb") as file:
        file.truncate(SIZE)
    words = f"label: {label}\nsize=4M\n"
    subprocess.run([program("sfdisk", "fdisk"), "-q", new], input=words, text=True, check=True)
    return new.read_bytes()


@pytest.mark.parametrize("step", [65536, 1 << 20, 1000])
@pytest.mark.parametrize(
    ("tool", "options", "claim"),
    [
        ("qcow2", "", "qcow2"),
        ("qcow2", "compat=0.10", "qcow2"),
        ("vmdk", "subformat=monolithicSparse", "vmdk"),
        ("vmdk", "subformat=streamOptimized", "vmdk"),
        ("qcow2", "extended_l2=on,cluster_size=128k", "qcow2"),
        ("qcow2", "compression_type=zstd", "qcow2"),
        ("vpc", "force_size=on", "vhd"),
        ("vhdx", "", "vhdx"),
        ("vdi", "", "vdi"),
        ("raw", "", "raw"),
    ],
)
def test_formats_are_what_they_claim(convert: Make, tool: str, options: str, claim: str, step: int) -> None:
    data = convert(tool, options)
    assert judge(data, claim, step=step) == SIZE
    # the same as anything else is refused, but as raw
    for other in {"qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"} - {claim}:
        sealed(data, other)
    if claim != "raw":
        assert judge(data, "raw") is None, "a guest would not see the size of the file"
        assert claim in sealed(data, "ami")
        assert judge(data, "iso", match=False) is None


def test_formats_that_nobody_can_tell(convert: Make, folder: Path) -> None:
    """They take what looks like raw data."""
    for claim in ("ami", "ari", "aki", "ploop"):
        assert judge(convert("raw"), claim) is None
    assert judge(convert("parallels"), "ploop") is None
    assert judge(b"", "raw") == 0
    assert judge(partitioned(folder, "gpt"), "raw") == judge(partitioned(folder, "dos"), "raw") == SIZE


def test_nothing_at_all() -> None:
    """No byte endangers nobody: snapshots of servers that boot from volumes are empty, in whatever format."""
    for claim in ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "ploop"):
        assert judge(b"", claim) == 0
    assert judge(b"", "qcow2", container="ova") is None
    assert judge(b"", None, container=None) is None


def test_fixed_vhd(convert: Make, folder: Path) -> None:
    """Its footer is its end, before which the guest's own data lie: a file system, or a partition table."""
    data = convert("vpc", "subformat=fixed,force_size=on")
    assert data[:512] == convert("raw")[:512]
    for step in (1000, 65536, 1 << 23, 1 << 24):
        assert judge(data, "vhd", step=step) == SIZE
    for label in ("gpt", "dos"):
        inside = partitioned(folder, label)
        assert judge(inside + data[len(inside) :], "vhd") == SIZE
    assert judge(data, "raw") == len(data)
    assert "neither its first bytes nor its last" in sealed(data[:-512], "vhd")
    assert "neither its first bytes nor its last" in sealed(data + bytes(512), "vhd")
    assert "differencing" in sealed(data[:-449] + b"\4" + data[-448:], "vhd")
    # what the guest's data look like to who guesses is judged as well
    sealed(convert("qcow2")[:104] + data[104:], "vhd")


def test_discs(folder: Path) -> None:
    plain = disc(folder)
    assert judge(plain, "iso") == len(plain)
    both = disc(
        folder, "-part_like_isohybrid", "-appended_part_as_gpt", "-append_partition", "2", "0xef", folder / "disk.raw"
    )
    assert judge(both, "iso") is not None, "one that boots from a stick as well has a partition table too"
    assert judge(both, "raw") == len(both)
    sealed(partitioned(folder, "gpt"), "iso")


BOOT = ("-b", "file", "-no-emul-boot", "-boot-load-size", "4")


@pytest.mark.parametrize(
    "options",
    [
        ("-G", "mbr"), (*BOOT, "--grub2-mbr", "mbr"), (*BOOT, "--grub2-mbr", "mbr", "--mbr-force-bootable"),
        (*BOOT, "-isohybrid-mbr", "mbr"), (*BOOT, "-isohybrid-mbr", "mbr", "-isohybrid-gpt-basdat"),
        ("-G", "mbr", "--protective-msdos-label"),
    ],
)  # fmt: skip
def test_discs_that_boot_from_a_stick(folder: Path, options: tuple[str, ...]) -> None:
    """What their partition tables lack is nobody's danger: an ISO is judged as one, also where it is claimed raw."""
    (folder / "mbr").write_bytes(b"\xeb\x63" + b"\x90" * 430 + bytes(78) + b"\x55\xaa")
    data = disc(folder, *(folder / word if word == "mbr" else word for word in options))
    for step in (1000, 65536):
        assert judge(data, "iso", step=step) == judge(data, "raw", step=step) == len(data)
    table = bytes(510) + b"\x55\xaa"
    hybrid = table + disc(folder)[512:]
    assert judge(hybrid, "iso") == judge(hybrid, "raw") == len(hybrid)
    assert "gpt" in sealed(table + bytes(1 << 20), "raw")
    assert "gpt" in sealed(table, "raw")


def test_containers(convert: Make, folder: Path) -> None:
    """What a container holds is not unpacked, and need not be what is claimed; a table of its own means nothing."""
    squeezed = gzip.compress(convert("qcow2"))
    for container in ("compressed", "ova", "docker", "ovf", "aki", None):
        for claim in ("qcow2", "vmdk", "vhd", "raw", "iso", None):
            assert judge(squeezed, claim, container=container) is None
            assert judge(squeezed[:510] + b"\x55\xaa" + squeezed[512:], claim, container=container) is None
            assert judge(convert("vmdk", "subformat=streamOptimized"), claim, container=container) is None


def test_what_a_shorter_text_leaves_behind_its_end(convert: Make) -> None:
    """qemu's content id has as few digits as it needs: of 256 images one has a piece of the longer text behind it."""
    data = convert("vmdk", "subformat=monolithicSparse")
    end = data.index(b"\0", data.index(b"# Disk DescriptorFile"))

    def left(behind: bytes) -> bytes:
        return data[: end + 1] + behind + data[end + 1 + len(behind) :]

    for count in (1, 3, 7):
        assert judge(left(data[end - count : end]), "vmdk") == judge(data, "vmdk")
    for behind in (b"x", data[end - 8 : end], b'\nRW 1 FLAT "/etc/passwd"\n'):
        with pytest.raises(FormatRefused, match="behind the end"):
            judge(left(behind), "vmdk")


# dangerous content: refused whatever is claimed, and whether claims are compared or not


@pytest.fixture(scope="session")
def dangers(create: Make, convert: Make, folder: Path) -> dict[str, bytes]:
    outside = convert("vmdk", "subformat=monolithicSparse").replace(
        b'SPARSE "disk.vmdk.subformat-monolithicSparse"', b'SPARSE "/etc/passwd"'.ljust(45)
    )
    assert b"/etc/passwd" in outside
    return {
        "backing file": create("-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", size=""),
        "data file": create("-f", "qcow2", "-o", "data_file=outside,data_file_raw=on"),
        "QED": convert("qed"),
        "VMDK extent": outside,
        "VMDK descriptor": ("# Disk DescriptorFile\n" + PASSWD).encode(),
        "padded VMDK descriptor": ("# Disk DescriptorFile\r\n" + PASSWD).encode().ljust(1 << 20, b"\0"),
        "VMDK descriptor under another comment": ("# hello\n\n  \n#\n" + PASSWD).encode(),
        "two files of a VMDK": convert("vmdk", "subformat=twoGbMaxExtentSparse"),
    }


KINDS = (
    "backing file", "data file", "QED", "VMDK extent", "VMDK descriptor", "padded VMDK descriptor",
    "VMDK descriptor under another comment", "two files of a VMDK",
)  # fmt: skip


@pytest.mark.parametrize("match", [True, False])
@pytest.mark.parametrize("claim", ["raw", "qcow2", "vmdk", "iso", "ami"])
@pytest.mark.parametrize("kind", KINDS)
def test_dangerous_content(dangers: dict[str, bytes], kind: str, claim: str, match: bool) -> None:
    assert set(dangers) == set(KINDS)
    sealed(dangers[kind], claim, match=match)


@pytest.mark.parametrize("kind", ["monolithicFlat", "vmfs", "custom"])
def test_types_of_vmdk_that_are_not_allowed(convert: Make, kind: str) -> None:
    data = convert("vmdk", "subformat=monolithicSparse")
    changed = data.replace(b'createType="monolithicSparse"', f'createType="{kind}"'.encode().ljust(29))
    assert changed != data
    for claim in ("vmdk", "raw"):
        sealed(changed, claim)


def test_a_vmdk_must_have_its_signature() -> None:
    """Also when claims are not compared: what else could be in it is a descriptor behind a long comment."""
    hidden = ("#" * 600 + "\n" + PASSWD).encode()
    sealed(hidden, "vmdk", match=False)


def test_several_formats_at_once(convert: Make, folder: Path) -> None:
    """The first bytes of a qcow2 over a disc and over a partition table: refused as any of them, and as raw."""
    head = convert("qcow2")[:104]
    for other in (disc(folder), partitioned(folder, "gpt")):
        both = head + other[104:]
        for claim in ("qcow2", "iso", "raw", "ami"):
            sealed(both, claim)


@pytest.mark.parametrize("claim", ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"])
@pytest.mark.parametrize("data", [b"\0", bytes(1 << 20), os.urandom(1 << 20)], ids=["one", "zeros", "noise"])
def test_what_is_nothing_is_refused_soon(claim: str, data: bytes) -> None:
    inspection = Inspection(claim, vmdk_types=ALLOWED, match=True)

    def eat() -> None:
        for at in range(0, len(data), 65536):
            inspection.eat(data[at : at + 65536])
        inspection.end()

    with pytest.raises(FormatRefused, match="qemu-img info"):
        eat()


def test_it_stops_looking(convert: Make) -> None:
    """What follows the decision is not looked at any more, so that gigabytes cost nothing."""
    for name, most in (("qcow2", 1 << 19), ("raw", 1 << 19)):
        inspection = Inspection(name, vmdk_types=ALLOWED, match=True)
        data, at = convert(name), 0
        while not inspection.decided:
            inspection.eat(data[at : at + 65536])
            at += 65536
        assert at <= most


def test_its_price_is_linear() -> None:
    """A stream of single bytes, headers that are as long as they may be: no more work than for others, nothing kept."""
    hostile = [
        build.vmdk(b"#" * 65000 + b"\n", sectors=128),
        build.vmdk((b"#\n" * 32000), sectors=128),
        build.vmdk(build.DESCRIPTOR + b'ddb.x = "' + b"x = " * 15000 + b'"\n', sectors=128),
        build.qcow2(cluster_bits=21, raw_extensions=struct.pack(">II", 1, 0) * 20000),
        b"#" * 511 + b"\n" * 200_000,
        b"version=" * 30000,
        b" " * 200_000,
        b"A = b\n" * 30000,
    ]
    for data in hostile:
        for step in (1, 65536):
            begun = time.process_time()
            inspection = Inspection("raw", vmdk_types=ALLOWED, match=True)
            with contextlib.suppress(FormatRefused):
                for at in range(0, min(len(data), 200_000), step):
                    inspection.eat(data[at : at + step])
                inspection.end()
            # a hundred times of what it takes
            assert time.process_time() - begun < 5
