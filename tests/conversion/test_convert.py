"""Files of another format, compared by qemu-img with what they were made from; and what must leave none."""

import asyncio
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conversion import disks
from tests.conversion.disks import LIMITS, MIB, Memory
from tests.formats import build
from tests.formats.test_hostile import judge
from tests.servers.place import new_directory, program
from tests.servers.process import run
from xloud_image.conversion.convert import to_file
from xloud_image.conversion.disk import Limits
from xloud_image.conversion.sandbox import Wall
from xloud_image.errors import FormatRefused, StoreUnavailable, TooLarge, Unavailable

ALL_WALLS = pytest.mark.parametrize("wall", disks.walls(), ids=lambda wall: wall.name)
MOST = 64 * MIB
SOON = 60  # seconds that any end takes at most, however loaded the machine is


def same(one: Path, kind: str) -> bool:
    qemu_img = program("qemu-img", "qemu-utils")
    return "identical" in run([qemu_img, "compare", "-f", kind, "-F", "raw", one, disks.made("raw")])


@pytest.mark.parametrize("layout", ["raw", "vmdk", "vmdk stream", "vhd", "vhd fixed", "vhdx", "vdi"])
async def test_to_qcow2(layout: str) -> None:
    folder = new_directory("scratch")
    told: list[float] = []
    async with disks.nothing_left():
        with disks.opened(disks.made(layout)) as source:
            made = await to_file(
                source, disks.LAYOUTS[layout][0], "qcow2", folder, LIMITS, disks.wall(), most=MOST,
                declared=len(disks.content()), progress=told.append,
            )  # fmt: skip
    assert [made] == list(folder.iterdir())
    assert same(made, "qcow2")
    assert (made.stat().st_mode & 0o777, made.stat().st_uid) == (0o600, os.geteuid())
    assert judge(made.read_bytes(), "qcow2") == len(disks.content())
    assert (told == sorted(told), told[-1]) == (True, 100.0)


@ALL_WALLS
async def test_to_vmdk_behind_every_wall(wall: Wall) -> None:
    folder = new_directory("scratch")
    folder.chmod(0o700)
    with disks.opened(disks.made("qcow2 zlib")) as source:
        made = await to_file(source, "qcow2", "vmdk", folder, LIMITS, wall, most=MOST)
    assert same(made, "vmdk")
    assert judge(made.read_bytes(), "vmdk") == len(disks.content())


async def test_holes_of_a_file_are_not_read() -> None:
    """A raw disk of 300 GiB with little data."""
    path = new_directory("sparse") / "raw"
    path.write_bytes(disks.content()[:MIB])
    os.truncate(path, 300 << 30)
    folder = new_directory("scratch")
    async with asyncio.timeout(SOON):
        with disks.opened(path) as source:
            made = await to_file(source, "raw", "qcow2", folder, LIMITS, disks.wall(), most=MOST)
    qemu_img = program("qemu-img", "qemu-utils")
    assert '"virtual-size": 322122547200' in run([qemu_img, "info", "--output", "json", "-f", "qcow2", made])


@ALL_WALLS
async def test_a_file_that_grows_too_large(wall: Wall) -> None:
    await fails(TooLarge, "larger than it may be", disks.made("qcow2").read_bytes(), wall=wall, most=4 * MIB)


async def test_a_full_directory() -> None:
    folder = new_directory("small")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root mounts a file system")
    try:
        with pytest.raises(Unavailable, match="no room"):
            await to_file(
                Memory(disks.made("qcow2").read_bytes()), "qcow2", "qcow2", folder, LIMITS, disks.wall(), most=MOST
            )
        assert not list(folder.iterdir())
    finally:
        run(["umount", folder])


async def fails(
    kind: type[Exception],
    words: str,
    data: bytes | Memory,
    *,
    wall: Wall | None = None,
    limits: Limits = LIMITS,
    most: int = MOST,
) -> None:
    """In a given time, and with nothing left."""
    folder = new_directory("scratch")
    source = Memory(data) if isinstance(data, bytes) else data
    async with asyncio.timeout(SOON), disks.nothing_left():
        with pytest.raises(kind, match=words):
            await to_file(source, "qcow2", "qcow2", folder, limits, wall or disks.wall(), most=most)
    assert not list(folder.iterdir())


async def test_bad_disks() -> None:
    whole = disks.made("qcow2").read_bytes()
    await fails(FormatRefused, "is it whole", whole[: 9 * len(whole) // 10])
    await fails(FormatRefused, "cannot be read as qcow2", disks.content()[:MIB])
    await fails(TooLarge, "more than the", whole, limits=Limits(MIB))
    await fails(FormatRefused, "cannot be read", build.qcow2(incompatible=4, extensions=[(0x44415441, b"/etc/passwd")]))


async def test_bad_sources() -> None:
    source = Memory(disks.made("qcow2").read_bytes())
    wrong = StoreUnavailable("the store is away")

    def fail(offset: int, length: int) -> None:
        if offset + length > 4 * MIB:
            raise wrong

    source.before = fail
    await fails(StoreUnavailable, "the store is away", source)
    source.before = lambda offset, length: asyncio.Event().wait() if offset + length > 4 * MIB else None
    await fails(Unavailable, "the source gave nothing", source, limits=Limits(1 << 40, silence=1.5))


@ALL_WALLS
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, None])
async def test_ended_in_the_middle(wall: Wall, number: int | None) -> None:
    """qemu-img killed; None: the conversion cancelled."""
    folder = new_directory("scratch")
    source = Memory(disks.made("qcow2").read_bytes())
    reached, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await gate.wait()

    source.before = lambda offset, length: wait() if offset + length > 4 * MIB else None
    async with asyncio.timeout(SOON), disks.nothing_left():
        task = asyncio.create_task(to_file(source, "qcow2", "qcow2", folder, LIMITS, wall, most=MOST))
        await reached.wait()
        (qemu,) = (
            one for one in disks.children() if re.match("/usr/bin/qemu-img\0", Path(f"/proc/{one}/cmdline").read_text())
        )
        if number is None:
            task.cancel()
        else:
            os.kill(qemu, number)
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    expected = {signal.SIGKILL: Unavailable, signal.SIGSEGV: FormatRefused, None: asyncio.CancelledError}
    assert isinstance(ended, expected[number])
    assert not list(folder.iterdir())
