"""Raw bytes out of every format, compared with what qemu-img makes of it; and disks, sources and ends that are bad."""

import asyncio
import contextlib
import os
import re
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conversion import disks
from tests.conversion.disks import LIMITS, MIB, Memory, raw_bytes, raw_of
from tests.formats import build, hostile
from tests.servers.place import new_directory, program
from tests.servers.process import run
from xloud_image.conversion import reader, sandbox
from xloud_image.conversion.disk import Limits, open_disk
from xloud_image.conversion.sandbox import Wall
from xloud_image.conversion.source import Source
from xloud_image.errors import CannotConvert, FormatRefused, StoreUnavailable, TooLarge, Unavailable

ALL_WALLS = pytest.mark.parametrize("wall", disks.walls(), ids=lambda wall: wall.name)
SOON = 60  # seconds that any end takes at most, however loaded the machine is


@pytest.mark.parametrize("layout", disks.LAYOUTS)
async def test_every_format(layout: str) -> None:
    path, disk_format = disks.made(layout), disks.LAYOUTS[layout][0]
    raw = new_directory("raw") / "raw"
    driver = "vpc" if disk_format == "vhd" else disk_format
    run([program("qemu-img", "qemu-utils"), "convert", "-f", driver, "-O", "raw", path, raw])
    data = await raw_of(path, disk_format, declared=len(disks.content()))
    assert data == raw.read_bytes() == disks.content()


@ALL_WALLS
async def test_every_wall(wall: Wall) -> None:
    async with disks.nothing_left():
        with disks.opened(disks.made("qcow2 zlib")) as source:
            async with open_disk(source, "qcow2", LIMITS, wall) as disk:
                assert await raw_bytes(disk) == disks.content()


async def test_holes_are_one_block_of_zeros() -> None:
    with disks.opened(disks.made("qcow2")) as source:
        async with open_disk(source, "qcow2", LIMITS, disks.wall()) as disk:
            chunks = [chunk async for chunk in disk.chunks]
    zeros = [chunk for chunk in chunks if chunk is reader.ZEROS]
    at = blocks = 0
    for chunk in chunks:
        blocks += at % MIB == 0 and len(chunk) == MIB and not any(chunk)
        at += len(chunk)
    assert len(zeros) == blocks > 5


@pytest.mark.parametrize("size", [512, 1000448, 3 * MIB - 512])
async def test_odd_sizes(size: int) -> None:
    folder = new_directory("odd")
    (folder / "raw").write_bytes(disks.content()[:size])
    run([program("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "disk"])
    assert await raw_of(folder / "disk", "qcow2") == disks.content()[:size]


async def test_several_at_once() -> None:
    async with disks.nothing_left():
        found = await asyncio.gather(*(raw_of(disks.made("qcow2 zstd"), "qcow2") for _ in range(4)))
    assert all(data == disks.content() for data in found)


async def test_a_disk_of_one_tebibyte_without_data() -> None:
    """Holes cost nothing but their references."""
    path = new_directory("sparse") / "disk"
    run([program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", path, "1T"])
    with disks.opened(path) as source:
        async with open_disk(source, "qcow2", LIMITS, disks.wall()) as disk:
            assert disk.virtual_size == 1 << 40
            count = 0
            async for chunk in disk.chunks:
                assert chunk is reader.ZEROS
                count += 1
                if count == 2000:
                    break


# disks that are bad


async def refused(data: bytes, disk_format: str, limits: Limits = LIMITS, **how: Any) -> str:
    """The sentence, in a given time, and with nothing left."""
    begun = time.monotonic()
    async with disks.nothing_left():
        with pytest.raises((FormatRefused, TooLarge)) as caught:
            async with open_disk(Memory(data), disk_format, limits, disks.wall(), **how) as disk:
                await raw_bytes(disk)
    assert time.monotonic() - begun < SOON
    assert caught.value.message.isprintable()
    return caught.value.message


@ALL_WALLS
async def test_backing_file(wall: Wall) -> None:
    """It is not opened, even where no wall stands: the disk is what the file itself holds."""
    for name in (b"/etc/hostname", b"/usr/bin/env", b"nbd:unix:/run/nbd.sock", b"json:{}"):
        data = build.qcow2(backing=512, backing_length=len(name), behind=name)
        async with open_disk(Memory(data), "qcow2", LIMITS, wall) as disk:
            assert await raw_bytes(disk) == bytes(MIB)


async def test_data_file() -> None:
    data = build.qcow2(incompatible=4, extensions=[(0x44415441, b"/etc/hostname")])
    assert "cannot be read as qcow2" in await refused(data, "qcow2")


async def test_extents_of_a_vmdk() -> None:
    text = build.DESCRIPTOR.replace(b'RW 2048 SPARSE "disk.vmdk"', b'RW 2048 FLAT "/etc/passwd" 0').replace(
        b"monolithicSparse", b"monolithicFlat"
    )
    assert "cannot be read as vmdk" in await refused(text.ljust(2 * MIB, b"\n"), "vmdk")
    await refused(build.vmdk(text, capacity=0), "vmdk")


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vhd", "vhdx", "vdi"])
async def test_hostile(disk_format: str) -> None:
    """What the inspection refuses, given to qemu all the same: nothing of the host comes out, and it ends."""
    samples = {
        name: data
        for name, data in hostile.SAMPLES.items()
        if re.match(f"{disk_format}(?! line beside)\\b", name.replace("descriptor", "vmdk"))
    }
    assert len(samples) > 5
    places = asyncio.Semaphore(4)

    async def give(name: str, data: bytes) -> None:
        async with places, asyncio.timeout(SOON):
            try:
                async with open_disk(Memory(data), disk_format, Limits(1 << 30, 10), disks.wall()) as disk:
                    assert b"root:" not in await raw_bytes(disk), name
            except (FormatRefused, TooLarge) as error:
                refused.append(error.message)

    refused: list[str] = []
    async with disks.nothing_left():
        await asyncio.gather(*(give(name, data) for name, data in samples.items()))
    assert refused
    assert min(map(len, refused)) > 30


async def test_tables_that_point_at_themselves() -> None:
    """The first table is its own second one, and its own data: bytes of the file, and an end."""
    data = bytearray(build.qcow2(size=8 * MIB))
    for at in range(0x30000, 0x40000, 8):
        data[at : at + 8] = struct.pack(">Q", 1 << 63 | 0x30000)
    async with asyncio.timeout(SOON), open_disk(Memory(bytes(data)), "qcow2", LIMITS, disks.wall()) as disk:
        assert bytes(data[0x30000:0x30100]) in await raw_bytes(disk)


@pytest.mark.parametrize(
    "fields",
    [
        {"l1_entries": 0x7FFFFFFF},
        {"l1_entries": 1 << 22, "size": 1 << 50},
        {"refcount_clusters": 0x7FFFFFFF},
        {"l1": 1 << 62},
        {"l1": 0x30001},
        {"snapshots": 0x7FFFFFFF, "snapshots_at": 0x20000},
        {"encryption": 2, "incompatible": 0},
    ],
)
async def test_giant_tables(fields: dict[str, int]) -> None:
    await refused(build.qcow2(**fields), "qcow2")


@pytest.mark.parametrize("layout", [name for name in disks.LAYOUTS if name != "raw"])
async def test_truncated(layout: str) -> None:
    """No part of a disk is taken for zeros because it did not come."""
    whole = disks.made(layout).read_bytes()
    for length in (100, len(whole) * 9 // 10):
        await refused(whole[:length], disks.LAYOUTS[layout][0])


async def test_nothing_at_all() -> None:
    for disk_format in ("qcow2", "vmdk", "vhd", "vhdx", "vdi"):
        await refused(b"", disk_format)


@pytest.mark.parametrize("size", [(1 << 40) + 512, 1 << 50])
async def test_too_large(size: int) -> None:
    """A disk of 1 PiB without a byte of data is a small file."""
    path = new_directory("large") / "disk"
    run([program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, str(size)])
    assert await refused(path.read_bytes(), "qcow2") == (
        f"the disk has {size} bytes, more than the {1 << 40} that one may have here"
    )


async def test_another_size_than_declared() -> None:
    data = disks.made("qcow2").read_bytes()
    assert "its header said 1000" in await refused(data, "qcow2", declared=1000)


async def test_a_size_that_changes_meanwhile() -> None:
    """The size counts that was read first: as many bytes come."""
    source = Memory(disks.made("qcow2").read_bytes())

    def change(offset: int, _: int) -> None:
        if offset:
            source.data = source.data[:24] + struct.pack(">Q", 1 << 50) + source.data[32:]

    source.before = change
    async with open_disk(source, "qcow2", LIMITS, disks.wall()) as disk:
        assert await raw_bytes(disk) == disks.content()


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vhd", "vhdx", "vdi"])
async def test_another_format(disk_format: str) -> None:
    assert f"cannot be read as {disk_format}" in await refused(disks.content()[: 8 * MIB], disk_format)


@pytest.mark.parametrize("disk_format", ["iso", "ploop", "qed", "file", "vpc", ""])
async def test_a_format_that_is_not_converted(disk_format: str) -> None:
    assert "cannot be converted" in await refused(build.qcow2(), disk_format)


# sources and ends that are bad


async def test_an_error_of_the_source_passes_through() -> None:
    for wrong in (StoreUnavailable("the store is away"), OSError("bad disk"), ValueError("a bug")):
        source = Memory(disks.made("qcow2").read_bytes())

        def fail(offset: int, length: int, wrong: Exception = wrong) -> None:
            if offset + length > 4 * MIB:
                raise wrong

        source.before = fail
        async with disks.nothing_left():
            with pytest.raises(type(wrong)) as caught:
                await _reads(source, LIMITS, disks.wall(), lambda: None)
        assert caught.value is wrong
        source.before = lambda *_: fail(1 << 40, 0)
        with pytest.raises(type(wrong)):
            async with open_disk(source, "qcow2", LIMITS, disks.wall()):
                pass


async def test_a_source_that_hangs() -> None:
    for begin in (1, 4 * MIB):
        source = Memory(disks.made("qcow2").read_bytes())
        source.before = lambda offset, length, begin=begin: asyncio.Event().wait() if offset + length > begin else None
        async with asyncio.timeout(SOON), disks.nothing_left():
            with pytest.raises(Unavailable, match=r"the source gave nothing for 1\.5 seconds") as caught:
                await _reads(source, Limits(1 << 40, silence=1.5), disks.wall(), lambda: None)
            assert caught.value.temporary


def qemu() -> int:
    """The process of qemu-nbd itself, among ours."""
    found = []
    for one in disks.children():
        with contextlib.suppress(FileNotFoundError):  # what began another disk may be just gone
            if Path(f"/proc/{one}/cmdline").read_text().startswith("/usr/bin/qemu-nbd\0"):
                found.append(one)
    (only,) = found
    return only


@ALL_WALLS
async def test_qemu_is_stopped(wall: Wall) -> None:
    async with asyncio.timeout(SOON), disks.nothing_left():
        words = "qemu gave nothing for 1 seconds"
        with disks.opened(disks.made("qcow2")) as source, pytest.raises(Unavailable, match=words):
            await _reads(source, Limits(1 << 40, silence=1), wall, lambda: os.kill(qemu(), signal.SIGSTOP))


@ALL_WALLS
@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGKILL, Unavailable, "from outside"),
        (signal.SIGTERM, Unavailable, "broke off"),
        # what fails takes its time to be gone on a busy machine, and then nobody waits for the reason
        (signal.SIGSEGV, (FormatRefused, Unavailable), "qemu failed|broke off"),
        (signal.SIGXCPU, FormatRefused, "too much processor time"),
    ],
)
async def test_qemu_is_killed(wall: Wall, number: int, error: Any, words: str) -> None:
    async with asyncio.timeout(SOON), disks.nothing_left():
        with disks.opened(disks.made("qcow2")) as source, pytest.raises(error, match=words):
            await _reads(source, LIMITS, wall, lambda: os.kill(qemu(), number))


async def _reads(source: Source, limits: Limits, wall: Wall, meanwhile: Callable[[], object]) -> None:
    async with open_disk(source, "qcow2", limits, wall) as disk:
        await anext(disk.chunks)
        meanwhile()
        await raw_bytes(disk)


@pytest.mark.parametrize("chunks", [0, 1, 5])
async def test_left_early(chunks: int) -> None:
    async with asyncio.timeout(SOON), disks.nothing_left():
        with disks.opened(disks.made("qcow2")) as source:
            async with open_disk(source, "qcow2", LIMITS, disks.wall()) as disk:
                for _ in range(chunks):
                    await anext(disk.chunks)


@ALL_WALLS
@pytest.mark.parametrize("begin", [0, 1024, 4 * MIB])
async def test_cancelled(wall: Wall, begin: int) -> None:
    """While it starts, while it is opened, while bytes come."""
    source = Memory(disks.made("qcow2").read_bytes())
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    source.before = lambda offset, length: hang() if offset + length > begin else None

    async def work() -> None:
        async with open_disk(source, "qcow2", LIMITS, wall) as disk:
            await raw_bytes(disk)

    async with asyncio.timeout(SOON), disks.nothing_left():
        task = asyncio.create_task(work())
        await reached.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


async def test_a_wall_that_does_not_stand() -> None:
    """qemu that does not start is nothing that the data did."""
    with pytest.raises(CannotConvert, match="does not start in its sandbox") as caught:
        async with open_disk(Memory(b""), "qcow2", Limits(1 << 40, memory=8 << 20), disks.wall()):
            pass
    assert caught.value.cure


async def test_without_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xloud_image.conversion.disk._QEMU_NBD", "/usr/bin/qemu-new")
    async with disks.nothing_left():
        with pytest.raises(CannotConvert, match="qemu-new is not installed"):
            async with open_disk(Memory(b""), "qcow2", LIMITS, sandbox.NONE):
                pass
