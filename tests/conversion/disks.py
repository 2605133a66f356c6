"""Disks for the tests: what they hold, made into every format by real qemu, and sources that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from tests.servers.place import new_directory, program
from tests.servers.process import run
from xloud_image.conversion import sandbox
from xloud_image.conversion.disk import Disk, Limits, open_disk
from xloud_image.conversion.source import File

MIB = 1 << 20
LIMITS = Limits(1 << 40, silence=60)
# a name, and how qemu-img is told to write it: options after `-O`
LAYOUTS: dict[str, tuple[str, str]] = {
    "qcow2": ("qcow2", "qcow2"),
    "qcow2 zlib": ("qcow2", "qcow2 -c"),
    "qcow2 zstd": ("qcow2", "qcow2 -c -o compression_type=zstd"),
    "qcow2 out of order": ("qcow2", "qcow2 -W -m 16"),
    "qcow2 version 2": ("qcow2", "qcow2 -o compat=0.10"),
    "qcow2 small clusters": ("qcow2", "qcow2 -o cluster_size=4096"),
    "qcow2 subclusters": ("qcow2", "qcow2 -o extended_l2=on,cluster_size=131072"),
    "vmdk": ("vmdk", "vmdk"),
    "vmdk stream": ("vmdk", "vmdk -o subformat=streamOptimized"),
    "vhd": ("vhd", "vpc -o force_size"),
    "vhd fixed": ("vhd", "vpc -o subformat=fixed,force_size"),
    "vhdx": ("vhdx", "vhdx"),
    "vhdx fixed": ("vhdx", "vhdx -o subformat=fixed"),
    "vdi": ("vdi", "vdi"),
    "vdi fixed": ("vdi", "vdi -o static=on"),
    "raw": ("raw", "raw"),
}


@functools.cache
def content() -> bytes:
    """A disk of 24 MiB with data, holes of every size, text that packs well, and data at its end."""
    dice = random.Random(24)
    disk = bytearray(24 * MIB)
    for at, length in ((0, 3 * MIB + 4096), (5 * MIB + 512, 64 << 10), (8 * MIB, 6 * MIB), (24 * MIB - 70000, 70000)):
        disk[at : at + length] = dice.randbytes(length)
    disk[16 * MIB : 18 * MIB] = b"all work and no play".ljust(32) * (2 * MIB // 32)
    for at in range(19 * MIB, 21 * MIB, 128 << 10):
        disk[at : at + 512] = dice.randbytes(512)
    return bytes(disk)


@functools.cache
def made(layout: str) -> Path:
    """The file of `content` in this layout."""
    folder = new_directory("disks")
    raw = folder / "raw"
    with raw.open("wb") as file:
        for at in range(0, len(content()), 4096):
            if block := content()[at : at + 4096].strip(b"\0") and content()[at : at + 4096]:
                file.seek(at)
                file.write(block)
        file.truncate(len(content()))
    if layout == "raw":
        return raw
    qemu_img = program("qemu-img", "qemu-utils")
    run([qemu_img, "convert", "-f", "raw", raw, *f"-O {LAYOUTS[layout][1]}".split(), folder / "disk"])
    return folder / "disk"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[File]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield File(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def wall() -> sandbox.Wall:
    return sandbox.which()


def walls() -> list[sandbox.Wall]:
    """Each one, the operator's choice to do without included."""
    return [*sandbox._WALLS, sandbox.NONE]


async def raw_bytes(disk: Disk) -> bytes:
    return b"".join([chunk async for chunk in disk.chunks])


async def raw_of(path: Path, disk_format: str, limits: Limits = LIMITS, **how: object) -> bytes:
    with opened(path) as source:
        async with open_disk(source, disk_format, limits, wall(), **how) as disk:  # type: ignore[arg-type]
            data = await raw_bytes(disk)
            assert len(data) == disk.virtual_size
            return data


class Memory:
    """Bytes as a source. `reads`: what was asked. `before`: called before each read; may raise or wait."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)
        self.reads: list[tuple[int, int]] = []
        self.before: Callable[[int, int], object] | None = None

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        if self.before is not None:
            result = self.before(offset, length)
            if asyncio.iscoroutine(result):
                await result
        return self.data[offset : offset + length]


def processes(mark: str) -> list[int]:
    """Those whose command line has `mark`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return [number for number in found if number != os.getpid()]


def children() -> set[int]:
    """Our processes below this one, as far as they run: launchers, walls, qemu."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(place.name)] = int(parent)
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {os.getpid()}} - found:
        found |= more
    return found


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Whatever happened: no process, no descriptor, no task, no name of a socket."""
    await asyncio.to_thread(int)  # the threads' own pipe is there
    before = _held()
    yield
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while _held() != before:  # the loop closes pipes in its next turns
                await asyncio.sleep(0.01)
    after = _held()
    assert after == before, (before, after)


def _held() -> tuple[set[int], list[str], int]:
    files = []
    for place in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            files.append(re.sub(r"\d+", "N", str(place.readlink())))
    return children(), sorted(files), len(asyncio.all_tasks())
