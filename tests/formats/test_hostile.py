"""What is hostile is refused whatever it claims to be; its harmless sibling is taken."""

import pytest

from tests.formats import build, hostile
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection

ALLOWED = ("streamOptimized", "monolithicSparse")
CONTAINERS = ("bare", "ova", "compressed", "docker", "ovf", "aki", None)


def judge(
    data: bytes, claim: str | None, *, step: int = 65536, match: bool = True, container: str | None = "bare"
) -> int | None:
    """The virtual size; raises `FormatRefused`."""
    inspection = Inspection(claim, container, vmdk_types=ALLOWED, match=match)
    for at in range(0, len(data), step):
        inspection.eat(data[at : at + step])
    inspection.end()
    return inspection.virtual_size(len(data))


@pytest.mark.parametrize("name", hostile.SAMPLES)
def test_hostile(name: str) -> None:
    """Whatever disk and container format is claimed, and none; whether claims are compared or not."""
    data = hostile.SAMPLES[name]
    for claim in ("raw", "vmdk", "qcow2", "vhd", "ami", None):
        with pytest.raises(FormatRefused):
            judge(data, claim)
        with pytest.raises(FormatRefused):
            judge(data, claim, match=False)
    for container in CONTAINERS:
        with pytest.raises(FormatRefused):
            judge(data, "raw", container=container)
    with pytest.raises(FormatRefused):
        judge(data, "raw", step=777)


@pytest.mark.parametrize("name", hostile.CLAIMED)
def test_hostile_where_the_claim_is_believed(name: str) -> None:
    for container in CONTAINERS:
        for match in (True, False):
            with pytest.raises(FormatRefused):
                judge(hostile.CLAIMED[name], "vmdk", container=container, match=match)


@pytest.mark.parametrize("name", hostile.CLAIMED_VHD)
def test_hostile_where_a_vhd_is_claimed(name: str) -> None:
    for container in CONTAINERS:
        for match in (True, False):
            with pytest.raises(FormatRefused):
                judge(hostile.CLAIMED_VHD[name], "vhd", container=container, match=match)


def test_what_is_claimed_and_is_none() -> None:
    """Where claims are not compared, data that no reader takes for the format claimed are harmless; but for a VMDK in
    no container, for which any text may be a descriptor."""
    others = (build.vdi(), build.vhdx(), build.qcow2(), bytes(1 << 20), b"RW 2 VMFS", b"conectix"[:7] * 100)
    for data in others:
        for claim in ("vmdk", "vhd"):
            for container in CONTAINERS[1:]:
                for match in (True, False):
                    assert judge(data, claim, container=container, match=match) is None
        assert judge(data, "vhd", match=False) is None
        with pytest.raises(FormatRefused):
            judge(data, "vmdk", match=False)
    assert judge(build.fixed_vhd(), "vhd", container="ova") is None
    assert judge(build.fixed_vhd(), "vhd", match=False) is None


HARMLESS = {
    "qcow2": ("qcow2", build.qcow2()),
    "qcow2 of version 2": ("qcow2", build.qcow2(version=2)),
    "qcow2 with extensions": ("qcow2", build.qcow2(extensions=[(0x6803F857, bytes(48)), (0x12345678, b"later")])),
    "qcow2 with a long header": ("qcow2", build.qcow2(length=112, raw_extensions=bytes(8))),
    "qcow2 with all features": (
        "qcow2",
        build.qcow2(incompatible=0b11011, length=112, raw_extensions=b"\1" + bytes(15)),
    ),
    "vhd": ("vhd", build.vhd()),
    "fixed vhd": ("vhd", build.fixed_vhd()),
    "vhdx": ("vhdx", build.vhdx()),
    "vhdx whose older header has a log": ("vhdx", build.vhdx(logs=(b"log-guid-16bytes", b""))),
    "vdi": ("vdi", build.vdi()),
    "fixed vdi": ("vdi", build.vdi(kind=2)),
    "vmdk": ("vmdk", build.vmdk()),
}


@pytest.mark.parametrize("step", [1000, 65536])
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str, step: int) -> None:
    """The siblings of the hostile ones, so that it is not the builder that is refused."""
    claim, data = HARMLESS[name]
    assert judge(data, claim, step=step) == 1 << 20
    for container in CONTAINERS[1:]:
        assert judge(data, claim, container=container) is None


def test_harmless_others() -> None:
    for data in (build.luks(), build.bochs(b"Growing")):
        assert judge(data, "raw") is None


@pytest.mark.parametrize("step", [1, 511, 4096, 65536])
def test_vmdk(step: int) -> None:
    for data in (
        build.vmdk(),
        build.vmdk(footer=build.stream_footer()),
        build.vmdk(build.DESCRIPTOR.replace(b"\n", b"\r\n")),
        build.vmdk(build.DESCRIPTOR.replace(b"RW ", b"RDONLY ")),
        build.vmdk(
            build.DESCRIPTOR + b'encoding="windows-1252"\nddb.uuid.parent="00000000-0000-0000-0000-000000000000"\n'
        ),
    ):
        assert judge(data, "vmdk", step=step) == 1 << 20
        assert judge(data, "raw", step=step) is None
