"""Imports that end in another format than the data comes in: the plugin image_conversion. How a disk is read and made
is `conversion`; here is where its bytes come from, and what the image is judged by.

A source that gives ranges is read by qemu as it needs it, without a temporary file. What gives none, is compressed, or
has to have a digest, is first kept whole in a file that has no name, so that nothing is left of it whatever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from xloud_image.config.stores import AS_IS
from xloud_image.conversion import convert, sandbox
from xloud_image.conversion.disk import DRIVERS, Limits, open_disk
from xloud_image.conversion.source import File, Source
from xloud_image.errors import ConfigError, Conflict, StoreFull, Unavailable
from xloud_image.model import Image
from xloud_image.services import formats
from xloud_image.services.runtime import Runtime

_PIECE: Final = 1 << 20  # bytes that are read at a time
_PREFIX: Final = "xloud-work-"
_RESERVE: Final = 1 << 30  # bytes of the file system that work under way leaves to others


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
    """The data in its new format: `size` bytes; the disk has `virtual_size`."""

    chunks: AsyncIterator[bytes]
    size: int
    virtual_size: int


def target(runtime: Runtime, image: Image, stores: Sequence[str]) -> str | None:
    """The format that an import of this image, nothing packed any more, into these stores ends in; None: that in which
    its data comes. `Conflict` when they want several: an image has one."""
    settings = runtime.settings.imports
    if "image_conversion" not in settings.image_import_plugins or image.container_format not in ("bare", "compressed"):
        return None
    if image.disk_format not in DRIVERS:
        return None
    wanted: dict[str, list[str]] = {}
    for store in stores:
        named = runtime.stores.settings[store].import_format if store in runtime.stores.settings else ""
        form = image.disk_format if named == AS_IS else named or settings.output_format
        wanted.setdefault(form, []).append(store)
    if len(wanted) > 1:
        said = "; ".join(f"{form} in {', '.join(names)}" for form, names in wanted.items())
        raise Conflict(
            f"An image has one disk format, and this one would have several: {said}. Import it into stores that want "
            "the same, and make another image for the others."
        )
    (form,) = wanted
    return form if form != image.disk_format else None


def prepare(runtime: Runtime) -> None:
    """Make the place for work under way, and remove what processes left there that run no more: a directory of one that
    runs is locked. Blocks. `ConfigError` when it cannot be made."""
    root = Path(runtime.settings.imports.work_dir)
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in root.glob(f"{_PREFIX}*"):
            if (descriptor := _locked(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"the directory {root} for work under way cannot be used: {error.strerror}") from None


def _locked(path: Path) -> int | None:
    """The directory, open and locked; None when another process has it, or has removed it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@functools.cache
def _place(root: str) -> Path:
    """The directory of this process, locked as long as it runs. Blocks."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        descriptor = _locked(path)
        # before it was locked, one that just begins may have taken it for left over
        if descriptor is not None and path.exists():
            path.chmod(0o711)  # qemu, as another user, passes through to its own directory
            return path
        if descriptor is not None:
            os.close(descriptor)


@contextlib.asynccontextmanager
async def spooled(runtime: Runtime, chunks: AsyncIterator[bytes]) -> AsyncIterator[File]:
    """All of the stream in a file without a name. Raises what the stream raises; `StoreFull` when there is no room."""
    place = await asyncio.to_thread(_place, runtime.settings.imports.work_dir)
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        async for chunk in chunks:
            try:
                await asyncio.to_thread(_write, file.fileno(), chunk)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StoreFull("There is no room for work under way on the node that does this import.") from error
                raise Unavailable("What comes cannot be kept on the node that does this import.") from error
        yield File(file.fileno())


def _write(descriptor: int, chunk: bytes) -> None:
    room = os.fstatvfs(descriptor)
    if room.f_bavail * room.f_frsize < _RESERVE:
        raise OSError(errno.ENOSPC, "no room is left but the reserve")
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
    place = await asyncio.to_thread(_place, settings.imports.work_dir)
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
