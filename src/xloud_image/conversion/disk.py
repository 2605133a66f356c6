"""The raw bytes of a disk image, in order and without a temporary file: source → NBD → qemu-nbd in its sandbox → NBD.

qemu never chooses: the format is given, and no other file belongs to a disk, whatever its header says.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from xloud_image.conversion import sandbox
from xloud_image.conversion.nbd import Server
from xloud_image.conversion.reader import Closed, Reader, ReadFailed, Silent
from xloud_image.conversion.source import Source
from xloud_image.errors import CannotConvert, FormatRefused, TooLarge, Unavailable

# how qemu calls the formats that are converted, and no other
DRIVERS: Final = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}
_QEMU_NBD: Final = "/usr/bin/qemu-nbd"
# seconds of processor time: for the start, and bytes of source or disk a second
_START, _SOURCE_RATE, _DISK_RATE = 60, 16 << 20, 1 << 30
_HEADER: Final = 512
_AT_END: Final = b"\xff" * 8  # the directory of a streamOptimized VMDK
_WORDS: Final = 200  # characters of qemu's that are told
_OWN_END: Final = 5.0  # seconds that qemu has to say why it ends
_FROM_OUTSIDE: Final = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """virtual_size: most bytes of a disk. silence: seconds in which nothing need come. memory: bytes of qemu's."""

    virtual_size: int
    silence: float = 120.0
    memory: int = 1 << 30

    def bounds(self, source: Source, *, file: int = 0) -> sandbox.Bounds:
        """For a program that reads `source` and writes a file of `file` bytes."""
        seconds = _START + source.size // _SOURCE_RATE + self.virtual_size // _DISK_RATE
        return sandbox.Bounds(seconds, self.memory, file)


@dataclasses.dataclass(frozen=True, slots=True)
class Disk:
    """`virtual_size` bytes, which `chunks` brings in order, once; holes as parts of one block of zeros
    (`reader.ZEROS`). Raises what the source raises, `FormatRefused` and `Unavailable`."""

    virtual_size: int
    chunks: AsyncIterator[bytes]


@contextlib.asynccontextmanager
async def open_disk(
    source: Source, disk_format: str, limits: Limits, wall: sandbox.Wall, *, declared: int | None = None
) -> AsyncIterator[Disk]:
    """The disk that lies in `source`. declared: its size as the inspection found it.

    `FormatRefused` when it cannot be read as that format or has another size, `TooLarge` over the limit, `Unavailable`
    when the source or qemu stands still or is ended from outside; what the source raises passes through. When it is
    left there is no process, socket or file of it.
    """
    async with contextlib.AsyncExitStack() as stack:
        listener, ours = _pair()
        stack.callback(listener.close)
        reader = Reader(ours, limits.silence)
        stack.push_async_callback(reader.aclose)
        server, theirs = await serve(stack, source, disk_format, limits)
        program = await sandbox.start(
            [_QEMU_NBD, "--read-only", image(disk_format, 4)],
            wall,
            limits.bounds(source),
            descriptors=(listener.fileno(), theirs.fileno()),
            listening=True,
        )
        stack.push_async_callback(program.kill)
        listener.close()
        theirs.close()
        end = End(server, program, disk_format, limits)
        try:
            size = await reader.begin()
        except (Closed, Silent) as error:
            raise await end.of(error) from error
        check_size(size, declared, limits)
        yield Disk(size, await stack.enter_async_context(contextlib.aclosing(end.explained(reader.chunks()))))


def image(disk_format: str, descriptor: int) -> str:
    """What lies behind the NBD connection `descriptor`, as qemu's tools are told it: nothing is left to be guessed.
    `FormatRefused` for a format that is not converted."""
    if disk_format not in DRIVERS:
        raise FormatRefused(f"a disk of format {disk_format} cannot be converted; {', '.join(DRIVERS)} can")
    source = {"driver": "nbd", "server": {"type": "fd", "str": str(descriptor)}}
    return "json:" + json.dumps({"driver": DRIVERS[disk_format], "backing": None, "file": source})


async def serve(
    stack: contextlib.AsyncExitStack, source: Source, disk_format: str, limits: Limits
) -> tuple[Server, socket.socket]:
    """A server of `source` until the stack is left, and the socket of its client. Raises what the source raises."""
    try:
        async with asyncio.timeout(limits.silence):
            over = await _over(source, disk_format)
    except TimeoutError:
        raise _stands_still("the source", limits) from None
    mine, theirs = socket.socketpair()
    stack.callback(mine.close)
    stack.callback(theirs.close)
    server = Server(source, mine, over=over)
    task = asyncio.create_task(server.serve())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return server, theirs


async def _over(source: Source, disk_format: str) -> int | None:
    """By how much reads may pass the end of the data, which qemu takes for zeros: less than a cluster. A truncated
    image would become one with holes. None: readers of this format look for something at the end."""
    head = bytes(await source.read(0, min(_HEADER, source.size)))
    if disk_format == "qcow2":
        return int(1 << min(21, int.from_bytes(head[20:24], "big")))
    if disk_format == "vmdk" and head[56:64] != _AT_END:
        return 1 << 17  # of compressed clusters qemu asks for twice their size
    return 1 << 20 if disk_format == "vdi" else None


def check_size(size: int, declared: int | None, limits: Limits) -> None:
    """Raises `TooLarge` and `FormatRefused`."""
    if size > limits.virtual_size:
        raise TooLarge(f"the disk has {size} bytes, more than the {limits.virtual_size} that one may have here")
    if declared is not None and size != declared:
        raise FormatRefused(f"the disk has {size} bytes where its header said {declared}; refused")


class End:
    """Why a conversion ended before its end."""

    def __init__(self, server: Server, program: sandbox.Program, disk_format: str, limits: Limits) -> None:
        self._server, self._program = server, program
        self._format, self._limits = disk_format, limits

    async def explained(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The chunks, with the reason in place of what ended them."""
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except (Closed, Silent, ReadFailed) as error:
            raise await self.of(error) from error

    async def of(self, error: Exception) -> Exception:
        """What to raise instead of an error of the reader."""
        if self._server.failure is not None:
            return self._server.failure
        if isinstance(error, Silent):
            return self.silent()
        if isinstance(error, ReadFailed):
            return self.damaged()
        try:
            async with asyncio.timeout(_OWN_END):
                return self.ended(await self._program.ended())
        except TimeoutError:
            return self.ended(0)

    def damaged(self) -> FormatRefused:
        return FormatRefused(f"the data cannot be read as {self._format}: a part of it is missing or damaged")

    def silent(self) -> Unavailable:
        return _stands_still("the source" if self._server.asked else "qemu", self._limits)

    def ended(self, code: int) -> Exception:
        """Of a program that ended with `code` before its work was done."""
        if self._server.failure is not None:
            return self._server.failure
        if not code and self._format == "vmdk":  # at a compressed part that is damaged it drops its client, and leaves
            return self.damaged()
        if not code:
            return Unavailable("the conversion broke off; it may be tried again")
        number = -code if code < 0 else code - 128 if code > 128 else 0
        words = self._program.words
        if number == signal.SIGXCPU:
            return FormatRefused(f"the data takes too much processor time to be read as {self._format}; refused")
        if number == signal.SIGXFSZ:
            return TooLarge("the converted image is larger than it may be here")
        if number in _FROM_OUTSIDE:
            return Unavailable("the conversion was ended from outside; it may be tried again")
        if number:
            return FormatRefused(f"qemu failed to read the data as {self._format} (signal {number}); refused")
        if not words.startswith("qemu-"):
            error = CannotConvert("images cannot be converted here: qemu does not start in its sandbox")
            error.cure = words
            return error
        words = words.rpartition("': ")[2][:_WORDS]
        if words.endswith(os.strerror(errno.ENOSPC)):
            return Unavailable("there is no room for the converted image")
        if words.endswith(os.strerror(errno.EFBIG)):
            return TooLarge("the converted image is larger than it may be here")
        return FormatRefused(f"the data cannot be read as {self._format}: {words}")


def _stands_still(who: str, limits: Limits) -> Unavailable:
    return Unavailable(f"the conversion stands still: {who} gave nothing for {limits.silence:g} seconds")


def _pair() -> tuple[socket.socket, socket.socket]:
    """A listening socket with a client that nobody else can be; it has no name any more."""
    listener, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(prefix="disk-") as folder:
            listener.bind(f"{folder}/nbd")
            listener.listen(1)
            client.connect(f"{folder}/nbd")
    except BaseException:
        listener.close()
        client.close()
        raise
    return listener, client
