"""Imports that end in another format than the data comes in: the plugin image_conversion. How a disk is read and made
is `conversion`; here is where its bytes come from, and what the image is judged by.

A source that gives ranges is read by qemu as it needs it, without a temporary file. What gives none, is compressed, or
has to have a digest, is first kept whole in a file that has no name, so that nothing is left of it whatever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from xloud_image.conversion import convert, sandbox
from xloud_image.conversion.disk import DRIVERS, Limits, open_disk
from xloud_image.conversion.source import File, Source
from xloud_image.errors import ConfigError
from xloud_image.model import Image
from xloud_image.services import formats
from xloud_image.services.holder import is_dead
from xloud_image.services.runtime import Runtime

_PIECE: Final = 1 << 20  # bytes that are read at a time
_PREFIX: Final = "xloud-work-"


@dataclasses.dataclass(frozen=True, slots=True)
class Ranges:
    """A source of `size` bytes whose parts `ask` gives."""

    size: int
    ask: Callable[[int, int], Awaitable[bytes]]

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes."""
        return await self.ask(offset, length)


@dataclasses.dataclass(frozen=True, slots=True)
class Converted:
    """The data in its new format: `size` bytes, None unknown; the disk has `virtual_size`."""

    chunks: AsyncIterator[bytes]
    size: int | None
    virtual_size: int


def target(runtime: Runtime, image: Image) -> str | None:
    """The format that an import of this image ends in; None: that in which its data comes."""
    settings = runtime.settings.imports
    wanted = settings.output_format
    if "image_conversion" not in settings.image_import_plugins or image.container_format not in ("bare", "compressed"):
        return None
    return wanted if image.disk_format in DRIVERS and image.disk_format != wanted else None


def prepare(runtime: Runtime) -> None:
    """Make the place for work under way, and remove what processes left there that run no more. Blocks. `ConfigError`
    when it cannot be made."""
    root = Path(runtime.settings.imports.work_dir)
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in root.glob(f"{_PREFIX}*"):
            if is_dead(path.name.removeprefix(_PREFIX).replace("+", "/")):
                shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"the directory {root} for work under way cannot be used: {error.strerror}") from None


def _place(runtime: Runtime) -> Path:
    path = Path(runtime.settings.imports.work_dir) / f"{_PREFIX}{runtime.holder.replace('/', '+')}"
    path.mkdir(mode=0o711, exist_ok=True)  # qemu, as another user, passes through to its own directory
    return path


@contextlib.asynccontextmanager
async def spooled(runtime: Runtime, chunks: AsyncIterator[bytes]) -> AsyncIterator[File]:
    """All of the stream in a file without a name. Raises what the stream raises, `OSError` when there is no room."""
    place = await asyncio.to_thread(_place, runtime)
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        async for chunk in chunks:
            await asyncio.to_thread(_write, file.fileno(), chunk)
        yield File(file.fileno())


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.asynccontextmanager
async def converted(runtime: Runtime, image: Image, source: Source, wanted: str) -> AsyncIterator[Converted]:
    """The disk in `source`, which is of the format that the image claims, as `wanted`.

    `FormatRefused` for what is not that format, or dangerous; `TooLarge`; `CannotConvert`; what the source raises.
    """
    settings = runtime.settings
    assert image.disk_format is not None
    wall = await asyncio.to_thread(sandbox.which, required=settings.imports.conversion_sandbox != "none")
    limits = Limits(virtual_size=settings.limits.image_size_cap)
    declared = await _judged(runtime, image, source)
    if wanted == "raw":
        async with open_disk(source, image.disk_format, limits, wall, declared=declared) as disk:
            yield Converted(disk.chunks, disk.virtual_size, disk.virtual_size)
        return
    place = await asyncio.to_thread(_place, runtime)
    cap = settings.limits.image_size_cap
    made = await convert.to_file(source, image.disk_format, wanted, place, limits, wall, most=cap, declared=declared)
    try:
        with made.open("rb", buffering=0) as file:
            done = File(file.fileno())
            virtual_size = await _judged(runtime, image.replace(disk_format=wanted), done)
            yield Converted(_pieces(done), done.size, virtual_size or 0)
    finally:
        made.unlink(missing_ok=True)


async def _judged(runtime: Runtime, image: Image, source: Source) -> int | None:
    """What the inspection says of the data before qemu sees it: the size of the disk. `FormatRefused`.

    None where the two sizes that a header has may differ, and qemu goes by the other one.
    """
    inspection = formats.claimed(runtime, image)
    at = 0
    while at < source.size and not inspection.decided:
        length = min(_PIECE, source.size - at)
        inspection.eat(bytes(await source.read(at, length)))
        at += length
    inspection.end()
    return None if image.disk_format == "vhd" else inspection.virtual_size(source.size)


async def _pieces(source: File) -> AsyncIterator[bytes]:
    at = 0
    while at < source.size:
        length = min(_PIECE, source.size - at)
        yield await source.read(at, length)
        at += length
