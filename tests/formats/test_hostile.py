"""What is hostile is refused whatever it claims to be; its harmless sibling is taken."""

import pytest

from tests.formats import build, hostile
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection

ALLOWED = ("streamOptimized", "monolithicSparse")


def judge(data: bytes, claim: str, *, step: int = 65536, match: bool = True) -> int | None:
    """The virtual size; raises `FormatRefused`."""
    inspection = Inspection(claim, vmdk_types=ALLOWED, match=match)
    for at in range(0, len(data), step):
        inspection.eat(data[at : at + step])
    inspection.end()
    return inspection.virtual_size(len(data))


@pytest.mark.parametrize("claim", ["raw", "vmdk", "qcow2", "ami"])
@pytest.mark.parametrize("name", hostile.SAMPLES)
def test_hostile(name: str, claim: str) -> None:
    for match in (True, False):
        with pytest.raises(FormatRefused):
            judge(hostile.SAMPLES[name], claim, match=match)


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
