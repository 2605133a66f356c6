"""Images as volumes of Cinder, one volume for each, attached to this host while bytes move.

A volume is called `image-<key>`, lies in the type `cinder_volume_type`, belongs to the service account or to the
caller, and carries glance_image_id, image_owner and, written last of all, image_size: without it (or with the mark of a
writer) a volume is a draft and is never read. Cinder has no unique names: of several drafts of one key the oldest wins,
and each writer looks once more, later than Cinder's clock can mistake, before it finishes.

URLs: written and read `cinder://<store>/<volume>`; `cinder://<volume>` and those of a store that is not configured are
read as well, by every cinder store, because any of them finds a volume of its Cinder by its id.

Memory of one write: two batches and what the source hands out at once; of one read: two batches. A batch is 4 MiB.
Times: a request to Cinder 65 s, a change of a volume's state `cinder_state_transition_timeout`, each batch, flush and
connecting 60 s. A whole transfer may take as long as it wants. Volumes cannot shrink: an image of unknown size may
leave up to half of its volume unused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from xloud_image.errors import (
    BlobNotFound,
    ImageServiceError,
    InUse,
    StillNeeded,
    StoreUnavailable,
    Unsupported,
    WriteDenied,
)
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, finish, plain_key, span
from xloud_image.stores.cinder.accounts import Accounts
from xloud_image.stores.cinder.attachments import Attachments
from xloud_image.stores.cinder.client import Client, StillDeleting, Volume, Volumes
from xloud_image.stores.cinder.devices import Brick
from xloud_image.stores.cinder.options import CINDER
from xloud_image.stores.cinder.owners import Marks
from xloud_image.stores.cinder.upload import BATCH, Draft, finished, of_key
from xloud_image.stores.kit.chunks import nothing
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.kit.transfers import Reading
from xloud_image.stores.kit.web import Web

_log = logging.getLogger(__name__)

_URL: Final = re.compile(r"cinder://(?:([^/]+)/)?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")
_THREADS: Final = 16
_STEP: Final = 60.0  # seconds of one batch, flush or connecting
_REMOVING: Final = 50.0  # seconds within which a volume has to be gone
_DELETING: Final = 30.0  # seconds that a deletion waits for Cinder
_READERS: Final = 15.0  # seconds that a deletion waits for readers elsewhere to let go
_all: Final[weakref.WeakSet[CinderStore]] = weakref.WeakSet()  # of this process


class CinderStore(Store):
    """See the module. Several processes and hosts may use the same volumes at once."""

    TYPE = CINDER
    LINGER: ClassVar[float] = 3.0  # seconds that a volume stays attached after its last reader
    ANSWER: ClassVar[float] = 65.0  # seconds for one request to Cinder

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.can = Can.WRITE
        self._type: str | None = options["cinder_volume_type"]
        where = options["cinder_endpoint_template"] or options["cinder_store_auth_address"]
        account = f"project {options['cinder_store_project_name']}, {where}"
        self.places = (f"volume type {self._type or '(default)'} ({account})",)
        base = Path(options["cinder_mount_point_base"])
        self._brick = Brick(
            base=base,
            locks=base / ".locks",
            multipath=options["cinder_use_multipath"],
            enforce=options["cinder_enforce_multipath"],
        )
        ca_file, insecure = options["cinder_ca_certificates_file"], options["cinder_api_insecure"]
        # servers of Python applications end idle connections at once, and a request that changes something cannot be
        # sent twice: each gets a connection of its own
        self._web = Web(name, ca_file=ca_file, insecure=insecure, idle=self.ANSWER, keep=False)
        self._accounts = Accounts(self._web, options)
        self._client = Client(
            self._web,
            self._accounts,
            retries=options["cinder_http_retries"],
            patience=options["cinder_state_transition_timeout"],
            limit=self.ANSWER,
        )
        self._threads = Threads(name, _THREADS, limit=_STEP)
        self._marks = Marks(base / ".xloud")
        self._attachments = Attachments(
            name,
            self._brick,
            self._threads,
            self._marks,
            attempts=options["cinder_attachment_retry_attempts"],
            linger=self.LINGER,
        )
        self._extend_attached: bool = options["cinder_do_extend_attached"]
        self._drafts: weakref.WeakSet[Draft] = weakref.WeakSet()
        self._tidying: asyncio.Task[None] | None = None
        self.facts = {"volume_type": self._type, "use_multipath": options["cinder_use_multipath"]}
        _all.add(self)

    async def start(self) -> None:
        """Remove, in the background, what a killed process of this node left attached."""
        try:
            await self._attachments.begin()
        except ImageServiceError as error:
            _log.warning("store %s: %s", self.name, error)
        if self._accounts.own:
            self._tidying = asyncio.ensure_future(self._tidy())

    async def _tidy(self) -> None:
        try:
            await self._attachments.remove_all_stale(self._client.of(None))
        except (ImageServiceError, OSError) as error:
            _log.warning("store %s: %s", self.name, error)

    async def check(self) -> Health:
        """Whether Cinder lets us in, has the type, and with how much room (administrators may ask)."""
        await self._attachments.begin()
        if not self._accounts.own:
            return Health("ok, as far as it can be asked: volumes belong to each caller", None, self.facts)
        volumes = self._client.of(None)
        backend: str | None = None
        if self._type:
            types = (await volumes.call("GET", "/types?is_public=None"))["volume_types"]
            found = next((one for one in types if one["name"] == self._type), None)
            if found is None:
                raise WriteDenied(
                    f"Cinder has no volume type '{self._type}', or hides it from our account: make"
                    f" it with 'openstack volume type create {self._type}' or correct cinder_volume_type"
                )
            backend = (found.get("extra_specs") or {}).get("volume_backend_name")
        else:
            await volumes.call("GET", "/volumes?limit=1")
        return Health("ok", await self._free(volumes, backend), self.facts)

    async def _free(self, volumes: Volumes, backend: str | None) -> int | None:
        try:
            pools = (await volumes.call("GET", "/scheduler-stats/get_pools?detail=true"))["pools"]
        except WriteDenied:
            return None
        rooms = [
            one["capabilities"].get("free_capacity_gb")
            for one in pools
            if backend in (None, one["capabilities"].get("volume_backend_name"))
        ]
        known = [room for room in rooms if isinstance(room, int | float)]
        return int(sum(known) * (1 << 30)) if known else None

    async def keys(self, limit: int) -> list[str]:
        """Of the first thousand volumes of the store's project."""
        if not self._accounts.own:
            raise Unsupported("it keeps its data in the projects of all callers")
        volumes = [one for one in await self._client.of(None).find() if finished(one) is not None]
        return [one.metadata["glance_image_id"] for one in volumes if "glance_image_id" in one.metadata][:limit]

    # URLs

    def owns(self, url: str) -> bool:
        found = _URL.fullmatch(url)
        if found is None:
            return False
        return found[1] in (None, self.name) or found[1] not in {store.name for store in _all}

    def forms(self, url: str) -> tuple[str, ...]:
        found = _URL.fullmatch(url)
        if found is None:
            return (url,)
        volume = found[2].lower()
        # any store finds a volume of its Cinder, whatever store its URL names
        return (
            f"cinder://{volume}",
            *(f"cinder://{name}/{volume}" for name in sorted({self.name, found[1] or ""} - {""})),
        )

    def _identity(self, url: str) -> str:
        found = _URL.fullmatch(url)
        if found is None or not self.owns(url):
            raise BlobNotFound("it has no such data: the location is not one of its own")
        return found[2]

    async def _finished(self, volumes: Volumes, url: str) -> tuple[Volume, int]:
        """The volume of a URL and the size of its image in bytes. `BlobNotFound` for none and for a draft."""
        volume = await volumes.show(self._identity(url))
        size = finished(volume)
        if size is None:
            raise BlobNotFound("it has no such data: the volume holds no finished image")
        return volume, size

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        volume, size = await self._finished(self._client.of(caller), url)
        image_id = volume.metadata.get("glance_image_id")
        # Cinder's own uploads and Glance's have both, whoever else notes something there may mean anything by it
        made_for = image_id if volume.name == f"image-{image_id}" else None
        return Blob(url, size, version=volume.id, made_for=made_for)

    # reading

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        volumes = self._client.of(caller)
        volume, size = await self._finished(volumes, url)
        offset, length = span(size, offset, length)
        if not length:
            yield Reader(size, nothing(), version=volume.id)
            return
        async with self._attachments.borrow(volumes, volume) as device:
            chunks = Reading(
                self._threads, device.read, (offset, length), batch=BATCH, errors=lambda: self._reading(volume.id)
            )
            try:
                yield Reader(size, chunks, version=volume.id)
            finally:
                await finish(chunks.ended())

    @contextlib.contextmanager
    def _reading(self, volume: str) -> Iterator[None]:
        """A device that failed is given up."""
        try:
            yield
        except (OSError, StoreUnavailable) as error:
            self._attachments.give_up(volume)
            if isinstance(error, StoreUnavailable):
                raise
            why = (error.strerror or "failure").lower()
            raise StoreUnavailable(f"it cannot read its data now ({why})") from error

    # writing

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        plain_key(key)
        volumes = self._client.of(caller)
        draft = Draft(
            key,
            volumes,
            self._attachments,
            self._threads,
            volume_type=self._type,
            owner=(caller.project if caller else None) or "",
            extend_attached=self._extend_attached,
            mark=self._marks,
        )
        self._drafts.add(draft)
        try:
            volume, written = await draft.write(source, size)
        except BaseException:
            await finish(self._abandon(draft))
            raise
        return Blob(f"cinder://{self.name}/{volume}", written, version=volume)

    async def _abandon(self, draft: Draft) -> None:
        """Nothing of a draft stays, whatever was under way."""
        try:
            await draft.let_go()
            for volume in await draft.volumes.find(draft.name):
                if volume.metadata.get("xloud_writer") == draft.token:
                    await draft.volumes.remove(volume.id, within=_REMOVING, detach=True)
        except ImageServiceError as error:
            _log.warning("store %s: a draft of %s stays for now: %s", self.name, draft.key, error.message)

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        volumes = self._client.of(caller)
        for draft in list(self._drafts):
            if draft.key == key:
                draft.discarded.set()
        name = await volumes.type_name(self._type)
        found = of_key(await volumes.find(f"image-{key}"), key, name)
        await asyncio.gather(*(self._discard(volumes, volume) for volume in found))

    async def _discard(self, volumes: Volumes, volume: Volume) -> None:
        with contextlib.suppress(BlobNotFound):
            if finished(volume) is None:
                await volumes.set_metadata(volume.id, {"xloud_discarded": "yes"})  # its writer looks for it
            await self._attachments.release(volume.id)
            await volumes.remove(volume.id, within=_REMOVING, detach=True)

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        volumes = self._client.of(caller)
        volume = await volumes.show(self._identity(url))
        if volume.status != "deleting":
            await self._may_go(volumes, volume)
        try:
            await volumes.remove(volume.id, within=min(_DELETING, self.store_timeout / 2), detach=False)
        except StillDeleting as error:
            raise StillNeeded(error.message) from error

    async def _may_go(self, volumes: Volumes, volume: Volume) -> None:
        """`InUse` when snapshots depend on a volume, `StoreUnavailable` while somebody reads it."""
        if names := await volumes.snapshots(volume.id):
            raise InUse(f"snapshots of the volume depend on it: {', '.join(names)}")
        identity = volume.id
        end = time.monotonic() + min(_READERS, self.store_timeout / 4)
        while True:
            free = await self._attachments.release(identity)
            volume = await volumes.show(identity)
            await self._attachments.remove_stale(volumes, volume)
            if free and not (await volumes.show(identity)).devices:
                return
            if time.monotonic() > end:
                raise StoreUnavailable("the volume is still being read")
            await asyncio.sleep(0.3)

    async def aclose(self) -> None:
        _all.discard(self)
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait((self._tidying,), timeout=2)
        await self._attachments.aclose()
        await self._threads.aclose()
        self._marks.end()
        await self._web.aclose()
