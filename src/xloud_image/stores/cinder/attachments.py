"""Volumes attached to this process: for one writer, or shared by all readers and kept for a moment between them.

One attachment serves every reader of a volume in this process and is let go `linger` seconds after the last of them, so
that a burst of ranges attaches once. Further processes and nodes attach by themselves when the volume's type is
multiattach; otherwise, while somebody else has the volume, they read a clone that Cinder makes of it and delete it
afterwards. What a killed process of this node left is found by its mark and removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from xloud_image.errors import BlobNotFound, ImageServiceError, StoreUnavailable, WriteDenied
from xloud_image.stores.base import finish
from xloud_image.stores.cinder.client import NotNow, Volume, Volumes
from xloud_image.stores.cinder.devices import Brick, Device
from xloud_image.stores.cinder.owners import Marks
from xloud_image.stores.kit.threads import Threads

T = TypeVar("T")

_log = logging.getLogger(__name__)

# metadata of a clone that serves readers: of which volume it is, of which node, and whose
CLONE_OF: Final = "xloud_clone_of"
CLONE_NODE: Final = "xloud_clone_node"
CLONE_MARK: Final = "xloud_clone_mark"
_CLONE: Final = 60.0  # seconds within which a clone has to be gone
_CLOSE: Final = 8.0  # seconds that closing the store waits for what is to be let go


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    """`clone`: the volume to delete afterwards."""

    id: str
    volume: str
    device: Device
    clone: str | None = None


class _Shared:
    """The attachment of the readers of one volume."""

    def __init__(self, volume: str, volumes: Volumes) -> None:
        self.volume = volume
        self.volumes = volumes  # of the last reader: who may detach it
        self.lock = asyncio.Lock()
        self.attachment: Attachment | None = None
        self.users = 0
        self.broken = False  # its device failed: the next reader gets another
        self.timer: asyncio.TimerHandle | None = None

    def idle(self) -> bool:
        return self.users == 0


class Attachments:
    """Those of one store and process."""

    def __init__(
        self, name: str, brick: Brick, threads: Threads, marks: Marks, *, attempts: int, linger: float
    ) -> None:
        self._name, self._brick, self._threads, self._marks = name, brick, threads, marks
        self._attempts = attempts
        self._linger = linger
        self._shared: dict[str, _Shared] = {}
        self._every: set[_Shared] = set()  # those that were given up as well
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def users(self) -> int:
        """Readers under way."""
        return sum(shared.users for shared in self._every)

    @property
    def held(self) -> int:
        """Volumes that readers have, or had a moment ago."""
        return sum(shared.attachment is not None for shared in self._every)

    async def begin(self) -> None:
        """This process leaves marks of its own from now on; may be called again. `WriteDenied`."""
        await self._prepared(self._marks.begin)

    async def _prepared(self, call: Callable[[], T]) -> T:
        try:
            return await self._threads.run(call)
        except OSError as error:
            raise WriteDenied(
                f"cinder_mount_point_base cannot be used ({error}): make it, for the service's user"
            ) from error

    async def attach(self, volumes: Volumes, volume: str, *, write: bool) -> Attachment:
        """Attach a volume that must be free. `NotNow` when it is not; nothing stays behind after a failure."""
        await self.begin()
        properties = await self._prepared(self._brick.properties)
        identity: str | None = None
        try:
            request = {
                "volume_uuid": volume,
                "connector": properties | {"mountpoint": self._marks.mine, "mode": "rw" if write else "ro"},
                "mode": "rw" if write else "ro",
            }
            made = (await volumes.call("POST", "/attachments", {"attachment": request}))["attachment"]
            identity = made["id"]
            # so its mark is seen by others before this host has it
            await volumes.call("POST", f"/attachments/{identity}/action", {"os-complete": {}})
            device = await self._connect(made["connection_info"], write=write)
        except BaseException as error:
            if not isinstance(error, NotNow | BlobNotFound):
                await finish(self._undo(volumes, volume, identity))
            raise
        return Attachment(identity, volume, device)

    async def _connect(self, information: Any, *, write: bool) -> Device:
        try:
            return await self._threads.run(lambda: self._brick.connect(information, write=write), lost=Device.close)
        except OSError as error:
            raise StoreUnavailable(
                f"a volume cannot be attached to this host ({error}): see Cinder's documentation"
                " of os-brick for what this kind of volume needs here"
            ) from error
        except ImageServiceError:
            raise
        except Exception as error:
            _log.exception("store %s: os-brick failed", self._name)
            raise StoreUnavailable(f"a volume cannot be attached to this host ({type(error).__name__})") from error

    async def _undo(self, volumes: Volumes, volume: str, identity: str | None) -> None:
        """An attachment that came to nothing; its id may be unknown when the answer to its making was lost."""
        if identity is not None:
            await self._forget(volumes, identity)
            return
        with contextlib.suppress(ImageServiceError):
            seen = (await volumes.show(volume)).devices
            for one in await volumes.attachments(volume):
                if seen.get(one) == self._marks.mine or one not in seen:
                    await self._forget(volumes, one)

    async def detach(self, volumes: Volumes, attachment: Attachment) -> None:
        """Let it go, here and in Cinder; failures are logged, and found by the mark once this process has ended."""
        job = self._threads.submit(attachment.device.close, must=True)
        try:
            await job.result()
        except (OSError, StoreUnavailable) as error:
            _log.warning("store %s: volume %s: %s", self._name, attachment.volume, error)
        await self._forget(volumes, attachment.id)
        if attachment.clone is not None:
            await volumes.remove(attachment.clone, within=_CLONE, detach=True)

    async def _forget(self, volumes: Volumes, identity: str) -> None:
        try:
            await volumes.call("DELETE", f"/attachments/{identity}")
        except BlobNotFound:
            pass
        except ImageServiceError as error:
            _log.warning("store %s: attachment %s stays for now: %s", self._name, identity, error.message)

    # readers

    @contextlib.asynccontextmanager
    async def borrow(self, volumes: Volumes, volume: Volume) -> AsyncIterator[Device]:
        """The device of a volume, attached if need be."""
        shared = self._shared.setdefault(volume.id, _Shared(volume.id, volumes))
        self._every.add(shared)
        shared.volumes = volumes
        shared.users += 1
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None
        try:
            async with shared.lock:
                if shared.attachment is None:
                    shared.attachment = await self._for_reading(volumes, volume)
                device = shared.attachment.device
            yield device
        finally:
            shared.users -= 1
            if not shared.users:
                wait = 0.0 if shared.broken else self._linger
                loop = asyncio.get_running_loop()
                shared.timer = loop.call_later(wait, self._later, shared)

    def give_up(self, volume: str) -> None:
        """The device of a volume failed: the readers after these get another one."""
        if shared := self._shared.pop(volume, None):
            shared.broken = True

    def _later(self, shared: _Shared) -> None:
        task = asyncio.ensure_future(self._idle(shared))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _idle(self, shared: _Shared) -> None:
        """Let a volume go that nobody reads any more."""
        async with shared.lock:
            if not shared.idle():
                return
            attachment, shared.attachment = shared.attachment, None
            if attachment is not None:
                try:
                    await self.detach(shared.volumes, attachment)
                except ImageServiceError as error:
                    _log.warning("store %s: %s", self._name, error.message)
            if shared.idle():
                self._every.discard(shared)
                if self._shared.get(shared.volume) is shared:
                    del self._shared[shared.volume]

    async def release(self, volume: str) -> bool:
        """Let a volume go now if nobody reads it; whether nobody does."""
        shared = self._shared.get(volume)
        if shared is None:
            return True
        if shared.users:
            return False
        await self._release(shared)
        return True

    async def _release(self, shared: _Shared) -> None:
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None
        await self._idle(shared)

    async def _for_reading(self, volumes: Volumes, volume: Volume) -> Attachment:
        pause, refusal, cloned = 0.2, "", False
        for attempt in range(self._attempts + 1):
            try:
                return await self.attach(volumes, volume.id, write=False)
            except NotNow as error:
                refusal = error.message
            volume = await volumes.show(volume.id)
            if await self.remove_stale(volumes, volume):
                continue
            held = volume.status in {"in-use", "reserved", "attaching"}
            if attempt and held and not volume.multiattach and not cloned:
                cloned = True
                try:
                    return await self._clone(volumes, volume)
                except StoreUnavailable as error:  # not every backend clones what is attached
                    _log.info("store %s: no clone of %s: %s", self._name, volume.id, error.message)
                    refusal = error.message
            await asyncio.sleep(pause)
            pause *= 2
        raise StoreUnavailable(
            "somebody else has the volume attached and it cannot be attached twice; a volume type"
            f" with multiattach helps ({refusal})"
        )

    async def _clone(self, volumes: Volumes, volume: Volume) -> Attachment:
        metadata = {CLONE_OF: volume.id, CLONE_NODE: self._marks.node, CLONE_MARK: self._marks.mine}
        clone: Volume | None = None
        try:
            clone = await volumes.create(f"reading-{volume.id}", volume.size, metadata, source=volume.id)
            await volumes.until(clone.id, "available")
            return dataclasses.replace(await self.attach(volumes, clone.id, write=False), clone=clone.id)
        except BaseException:
            await finish(self._remove_clones(volumes, volume.id, mine=True))
            raise

    async def _remove_clones(self, volumes: Volumes, of: str, *, mine: bool) -> None:
        """Clones of a volume that came to nothing (`mine`), or of processes of this node that have ended."""
        with contextlib.suppress(ImageServiceError):
            in_use = {shared.attachment.clone for shared in self._every if shared.attachment}
            for one in await volumes.find(f"reading-{of}"):
                mark = one.metadata.get(CLONE_MARK, "")
                gone = mine and mark == self._marks.mine and one.id not in in_use
                if gone or await self._threads.run(self._marks.dead, mark):
                    await volumes.remove(one.id, within=_CLONE, detach=True)

    # what others left

    async def remove_stale(self, volumes: Volumes, volume: Volume) -> int:
        """Remove the attachments of a volume that processes of this node left when they were killed; how many."""
        removed = 0
        for identity, mark in volume.devices.items():
            if await self._threads.run(self._marks.dead, mark):
                _log.warning("store %s: volume %s: attachment of a killed process removed", self._name, volume.id)
                await self._forget(volumes, identity)
                removed += 1
        return removed

    async def remove_all_stale(self, volumes: Volumes) -> None:
        """The same for every volume, clones included; for the start of the service."""
        await self.begin()
        for volume in await volumes.find(status="in-use"):
            await self.remove_stale(volumes, volume)
        metadata = f"{{'{CLONE_NODE}': '{self._marks.node}'}}"
        for clone in await volumes.find(metadata=metadata):
            if await self._threads.run(self._marks.dead, clone.metadata.get(CLONE_MARK, "")):
                await volumes.remove(clone.id, within=_CLONE, detach=True)

    async def aclose(self) -> None:
        """Let everything go, within seconds."""
        work = [asyncio.ensure_future(self._release(shared)) for shared in list(self._every)]
        if pending := {*work, *self._tasks}:
            _, late = await asyncio.wait(pending, timeout=_CLOSE)
            for task in late:
                task.cancel()
