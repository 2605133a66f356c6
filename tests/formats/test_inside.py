"""What is hostile is refused inside of what is unpacked, too: the inspection judges the bytes that come out of it."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.formats import build, hostile
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection
from xloud_image.streams.decoders import zstd
from xloud_image.streams.decompress import Decompress
from xloud_image.streams.ova import Ova
from xloud_image.streams.stages import Inspect, Stage, through

OVF = b"""<Envelope xmlns:o="http://schemas.dmtf.org/ovf/envelope/1">
<References><File o:id="1" o:href="disk"/></References><DiskSection><Disk o:fileRef="1"/></DiskSection></Envelope>"""


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk", data)
    return target.getvalue()


def ova(data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in (("disk.ovf", OVF), ("disk", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zip": zipped,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstd.compress,
    "bzip2": lambda data: bz2.compress(data, 1),
    "ova": ova,
    "ova in gzip": lambda data: gzip.compress(ova(data), 1),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def judged(pool: ThreadPoolExecutor, how: str, data: bytes, claim: str, *, match: bool) -> bytes:
    """What comes out; raises `FormatRefused`."""
    packed = PACKERS[how](data)
    inspect = Inspect(Inspection(claim, vmdk_types=("streamOptimized", "monolithicSparse"), match=match))
    stages: list[Stage] = [Decompress(pool), *([Ova((), pool)] if "ova" in how else []), inspect]

    async def source() -> AsyncIterator[bytes]:
        for at in range(0, len(packed), 65536):
            yield packed[at : at + 65536]

    return b"".join([piece async for piece in through(source(), stages)])


@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize("name", hostile.SAMPLES)
async def test_hostile(pool: ThreadPoolExecutor, how: str, name: str) -> None:
    with pytest.raises(FormatRefused) as caught:
        await judged(pool, how, hostile.SAMPLES[name], "raw", match=False)
    assert "OVA" not in caught.value.message
    assert "compress" not in caught.value.message.replace("compression", "")


@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize(("samples", "claim"), [(hostile.CLAIMED, "vmdk"), (hostile.CLAIMED_VHD, "vhd")])
async def test_hostile_where_the_claim_is_believed(
    pool: ThreadPoolExecutor, how: str, samples: dict[str, bytes], claim: str
) -> None:
    for data in samples.values():
        with pytest.raises(FormatRefused):
            await judged(pool, how, data, claim, match=True)


@pytest.mark.parametrize("how", PACKERS)
async def test_harmless(pool: ThreadPoolExecutor, how: str) -> None:
    for claim, data in (("qcow2", build.qcow2()), ("vmdk", build.vmdk()), ("vhd", build.vhd()), ("vhdx", build.vhdx())):
        assert await judged(pool, how, data, claim, match=True) == data
    assert await judged(pool, how, bytes(100_000), "raw", match=True) == bytes(100_000)
