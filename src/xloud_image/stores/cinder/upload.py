"""One volume that is being written: made, attached, filled, grown, finished, or given up. Reading is not here.

Who wins when several write one key: each makes a volume of the same name. A finished one beats all others; of the
others the oldest by Cinder's own clock, of equals the lower id. A writer looks when its volume is there, and once more
at the end, at least `_SETTLED` seconds after Cinder made it: whoever could still be older is to be seen by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

from xloud_image.errors import (
    AlreadyExists,
    BlobNotFound,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
)
from xloud_image.stores.cinder.attachments import Attachment, Attachments
from xloud_image.stores.cinder.client import Volume, Volumes
from xloud_image.stores.cinder.owners import Marks
from xloud_image.stores.kit.chunks import Exactly, Piece, in_batches
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.sentences import was_discarded
from xloud_image.stores.kit.threads import Job, Threads

BATCH: Final = 4 << 20
GIB: Final = 1 << 30
WRITER: Final = "xloud_writer"  # metadata of a draft: whose it is
DISCARDED: Final = "xloud_discarded"  # metadata of a draft whose writer has to stop
_MARK: Final = "xloud_writer_mark"
_AGAIN: Final = (0.5, 2.0)  # seconds before the last steps are tried again
_SETTLED: Final = 1.5
_LOOK: Final = 1.0  # seconds between two looks whether somebody discarded what is being written


def finished(volume: Volume) -> int | None:
    """The bytes of the image in a volume; None for a draft."""
    size = volume.metadata.get("image_size", "")
    return int(size) if size.isdecimal() and WRITER not in volume.metadata else None


def of_key(volumes: Iterable[Volume], key: str, volume_type: str | None) -> list[Volume]:
    """Those that belong to a key. Stores of other types may hold the same key in the same project."""
    return [
        one
        for one in volumes
        if one.metadata.get("glance_image_id") == key and (volume_type is None or one.type in (None, volume_type))
    ]


class Draft:
    """`token` tells this attempt from every other one."""

    def __init__(
        self,
        key: str,
        volumes: Volumes,
        attachments: Attachments,
        threads: Threads,
        *,
        volume_type: str | None,
        owner: str,
        extend_attached: bool,
        mark: Marks,
    ) -> None:
        self.key, self.name = key, f"image-{key}"
        self.token = secrets.token_hex(8)
        self.volumes = volumes
        self.discarded = asyncio.Event()
        self._type, self._owner = volume_type, owner
        self._attachments, self._threads, self._marks = attachments, threads, mark
        self._extend_attached = extend_attached
        self._volume: Volume | None = None
        self._made = 0.0
        self._room = 0  # bytes
        self._attachment: Attachment | None = None
        self._job: Job[None] | None = None
        self._at = 0

    async def write(self, source: AsyncIterator[bytes], size: int | None) -> tuple[str, int]:
        """(id of the volume, bytes). Raises as `Store.write`; whoever calls removes what is left then."""
        await self._make(size)
        filling = asyncio.ensure_future(self._fill(source, size))
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait((filling, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not filling.done():
                filling.cancel()
                await asyncio.wait((filling,))
        if filling.cancelled() or self.discarded.is_set():
            if not filling.cancelled():
                filling.exception()
            raise was_discarded()
        filling.result()
        await self._end()
        assert self._volume is not None
        return self._volume.id, self._at

    # the volume

    async def _make(self, size: int | None) -> None:
        await self._attachments.begin()
        self._lose(await self.find(), everyone=True)
        gib = 1 if not size else -(-size // GIB)
        metadata = {"glance_image_id": self.key, WRITER: self.token, _MARK: self._marks.mine}
        if self._owner:
            metadata["image_owner"] = self._owner
        made = await self.volumes.create(self.name, gib, metadata, volume_type=self._type)
        self._made = time.monotonic()
        self._volume = await self.volumes.until(made.id, "available")
        self._room = gib * GIB
        self._lose(await self.find(), everyone=False)

    async def find(self) -> list[Volume]:
        """The volumes that hold data of our key, or shall, in this store; ours too."""
        return of_key(await self.volumes.find(self.name), self.key, await self.volumes.type_name(self._type))

    def _lose(self, found: list[Volume], *, everyone: bool, ties: bool = False) -> None:
        """`AlreadyExists` when another volume of the name stands above ours. `everyone`: any that is alive does;
        `ties`: also one of the same second."""
        mine = self._volume
        for other in found:
            if mine is not None and other.id == mine.id:
                continue
            if DISCARDED in other.metadata:
                continue
            if other.status == "deleting" or other.status.startswith("error"):
                continue
            if finished(other) is None:
                if self._marks.dead(other.metadata.get(_MARK, "")):
                    continue
                if not everyone and mine is not None:
                    older = other.created < mine.created
                    if not older and not (ties and (other.created, other.id) < (mine.created, mine.id)):
                        continue
            raise AlreadyExists("it has data of this name already, or it is being written")

    async def _watch(self) -> None:
        """Ends when the draft was discarded, here or by another process."""
        assert self._volume is not None
        while not self.discarded.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.discarded.wait(), _LOOK)
                return
            try:
                if DISCARDED in (await self.volumes.show(self._volume.id)).metadata:
                    self.discarded.set()
            except BlobNotFound:
                self.discarded.set()
            except ImageServiceError:
                pass  # Cinder is away for a while: the data goes on

    # the bytes

    async def _fill(self, source: AsyncIterator[bytes], size: int | None) -> None:
        """While one batch is being written the next is being received."""
        await in_batches(Exactly(source, size), BATCH, self._put)
        await self._settle()

    async def _put(self, pieces: list[Piece]) -> None:
        batch = b"".join(pieces)
        await self._settle()
        if self._at + len(batch) > self._room:
            await self._grow()
        if self._attachment is None:
            await self._attach()
        assert self._attachment is not None
        self._job = self._threads.submit(functools.partial(self._attachment.device.write, self._at, batch))
        self._at += len(batch)

    async def _settle(self) -> None:
        """Until the batch before this one is written."""
        job, self._job = self._job, None
        if job is not None:
            with self._as_store_errors():
                await job.result()

    @contextlib.contextmanager
    def _as_store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise StoreFull("it has no room for this data") from error
            why = (error.strerror or "failure").lower()
            raise StoreUnavailable(f"it cannot write its data now ({why})") from error

    async def _attach(self) -> None:
        assert self._volume is not None
        self._attachment = await self._attachments.attach(self.volumes, self._volume.id, write=True)

    async def _grow(self) -> None:
        """Double the volume: few steps, however large the image becomes."""
        assert self._volume is not None
        gib = 2 * self._room // GIB
        if self._attachment is not None and self._extend_attached:
            await self.volumes.act(self._volume.id, "os-extend", new_size=gib)
            await self._until_size(gib)
            with self._as_store_errors():
                await self._threads.run(self._attachment.device.grown)
        else:
            await self.let_go(flush=True)
            await self.volumes.until(self._volume.id, "available")
            await self.volumes.act(self._volume.id, "os-extend", new_size=gib)
            await self._until_size(gib)
        self._room = gib * GIB

    async def _until_size(self, gib: int) -> None:
        assert self._volume is not None
        while True:
            volume = await self.volumes.until(self._volume.id, "available", "in-use")
            if volume.size >= gib:
                return
            await asyncio.sleep(0.2)  # not begun yet, or refused: Cinder says so by a state of error

    async def let_go(self, *, flush: bool = False) -> None:
        """Detach, if attached."""
        attachment, self._attachment = self._attachment, None
        if attachment is None:
            return
        try:
            if self._job is not None:
                await self._job.ended(self._threads.limit)
            if flush:
                with self._as_store_errors():
                    await self._threads.run(attachment.device.flush)
        finally:
            await self._attachments.detach(self.volumes, attachment)

    # the end

    async def _make_read_only(self, identity: str) -> None:
        """One answer that fails does not throw the whole image away: asked again, it does the same."""
        await retry(lambda: self.volumes.act(identity, "os-update_readonly_flag", readonly=True), _AGAIN)

    async def _end(self) -> None:
        """From a draft to an image: nothing but the last call makes it one."""
        assert self._volume is not None
        identity = self._volume.id
        await self.let_go(flush=True)
        await self.volumes.until(identity, "available")
        await self._make_read_only(identity)
        await asyncio.sleep(max(0.0, self._made + _SETTLED - time.monotonic()))
        found = await self.find()
        self._lose(found, everyone=False, ties=True)
        ours = next((one for one in found if one.id == identity), None)
        if ours is None or DISCARDED in ours.metadata or self.discarded.is_set():
            raise was_discarded()
        metadata = {"glance_image_id": self.key, "image_size": str(self._at)}
        if self._owner:
            metadata["image_owner"] = self._owner
        await self.volumes.set_metadata(identity, metadata, all_of_it=True)
