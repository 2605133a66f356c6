"""A disk image as a file of another format, by qemu-img in its sandbox, which writes to one directory and no other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xloud_image.conversion import sandbox
from xloud_image.conversion.disk import End, Limits, image, open_disk, serve
from xloud_image.conversion.nbd import Server
from xloud_image.conversion.source import Source

_QEMU_IMG: Final = "/usr/bin/qemu-img"
TARGETS: Final = ("qcow2", "vmdk")
_OUT: Final = "out"
_PERCENT: Final = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")


async def to_file(
    source: Source,
    disk_format: str,
    target: str,
    directory: Path,
    limits: Limits,
    wall: sandbox.Wall,
    *,
    most: int,
    declared: int | None = None,
    progress: Callable[[float], object] = lambda _: None,
) -> Path:
    """A new file in `directory`: the disk in `source` as qcow2 or vmdk (`target`), of `most` bytes at most.

    progress: called with per cent, now and then. Raises as `disk.open_disk` does, `TooLarge` when the file does not
    fit; then there is no file, process or socket of it.
    """
    assert target in TARGETS, target
    async with open_disk(source, disk_format, limits, wall, declared=declared):
        pass  # its size is judged before anything is written
    async with contextlib.AsyncExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="conversion-", dir=directory))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        server, theirs = await serve(stack, source, disk_format, limits)
        program = await sandbox.start(
            [_QEMU_IMG, "convert", "-p", "-O", target, image(disk_format, 3), _OUT],
            wall,
            limits.bounds(source, file=most),
            descriptors=(theirs.fileno(),),
            directory=place,
            output=True,
        )
        stack.push_async_callback(program.kill)
        theirs.close()
        end = End(server, program, disk_format, limits)
        await _watch(program, server, place / _OUT, limits, end, progress)
        if code := await program.ended():
            raise end.ended(code)
        made = place.with_suffix(f".{target}")
        os.chown(place / _OUT, os.geteuid(), os.getegid())  # root gave it to another
        (place / _OUT).chmod(0o600)
        (place / _OUT).rename(made)
        return made


async def _watch(
    program: sandbox.Program, server: Server, out: Path, limits: Limits, end: End, progress: Callable[[float], object]
) -> None:
    """Until it writes no more to its output. Raises `Unavailable` when nothing moves."""
    assert program.stdout is not None
    moved, written = time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(min(1.0, limits.silence)):
                told = await program.stdout.read(4096)
        except TimeoutError:
            blocks = await asyncio.to_thread(_blocks, out)
            if blocks != written:
                moved, written = time.monotonic(), blocks
            if time.monotonic() - max(moved, server.moved) > limits.silence:
                raise end.silent() from None
            continue
        if not told:
            return
        moved = time.monotonic()
        if percents := _PERCENT.findall(told):
            progress(float(percents[-1]))


def _blocks(path: Path) -> int:
    return path.stat().st_blocks if path.exists() else 0
