"""Images as RBD images in a pool of Ceph, each with a protected snapshot `snap` that clones are made of. What happens
inside Ceph: the other files here; only waiting, and what the contract asks, is here.

URLs are `rbd://<fsid>/<pool>/<image>/snap`, each part quoted; `rbd://<image>` (this pool, no snapshot) is read as well.
Never over an image that is there; a half-written one is called `<key>.<16 hex digits>.part` and has no other name.

Memory: a block is `rbd_store_chunk_size`. A write holds at most ten blocks (eight in flight, one waiting, one being
gathered), a read nine; all transfers of a store in one process have together 512 MiB in flight, but each may always
have two blocks. Times: connecting takes at most `rados_connect_timeout` seconds (10 when unset), an operation
`rados_osd_op_timeout` and `rados_mon_op_timeout` of ceph.conf (30 when unset there), and no step of a transfer more
than both and some seconds. Calls that hang all the same (a snapshot while no monitor answers) are given up: at most
eight of a store, then further ones are refused at once, and none holds up the end of the process. Removing a large
image goes on after `delete` has answered `StillNeeded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from xloud_image.errors import (
    BlobNotFound,
    ImageServiceError,
    StillNeeded,
    StoreFull,
    StoreUnavailable,
)
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, finish, library, plain_key, span
from xloud_image.stores.kit.chunks import Exactly
from xloud_image.stores.kit.sentences import key_taken, was_discarded
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.kit.transfers import Discarded, Reading, Steps
from xloud_image.stores.rbd import removal
from xloud_image.stores.rbd.download import OpenImage
from xloud_image.stores.rbd.errors import Sentences, Taken, Told, number
from xloud_image.stores.rbd.options import RBD
from xloud_image.stores.rbd.session import OPERATION, Cluster
from xloud_image.stores.rbd.upload import MIB, Budget, Draft

_log = logging.getLogger(__name__)
T = TypeVar("T")

_INSTALL: Final = "the Debian packages python3-rbd and python3-rados (and then `make install` again)"
_THREADS: Final = 16  # for bytes and look-ups
_GUARDED: Final = 8  # for calls that no option of Ceph bounds: so many may hang
_IN_FLIGHT: Final = 512 * MIB
_START: Final = 5.0  # seconds that start waits for the cluster
_GRACE: Final = 30.0  # seconds that a failed write waits for its remains to be removed …
_SILENT: Final = 1.0  # … and when the cluster did not answer
_SWEEP: Final = (1.0, 30.0)  # seconds between two attempts to remove what is held open
_FSID: Final = re.compile(r"^[ \t]*fsid[ \t]*=[ \t]*([0-9a-fA-F-]{36})", re.MULTILINE)


class RbdStore(Store):
    """See the module. Many processes and hosts, a Glance among them, may use the same pool at once."""

    TYPE = RBD

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.can = Can.WRITE
        rados = library("rados", install=_INSTALL)
        rbd = library("rbd", install=_INSTALL)
        self._pool: str = options["rbd_store_pool"]
        self._conf: str = options["rbd_store_ceph_conf"] or ""
        user: str | None = options["rbd_store_user"] or None
        self._block: int = options["rbd_store_chunk_size"] * MIB
        self._thin: bool = options["rbd_thin_provisioning"]
        sentences = Sentences(name, conf=self._conf, user=user or "admin", pool=self._pool)
        self._sentences = sentences
        self._cluster = Cluster(
            rados,
            rbd,
            sentences,
            conf=self._conf,
            user=user,
            pool=self._pool,
            connect=options["rados_connect_timeout"],
        )
        self._images = removal.Images(self._cluster)
        self._budget = Budget(self._block, _IN_FLIGHT)
        self._threads = Threads(name, _THREADS, limit=OPERATION)
        self._guarded = Threads(name, _GUARDED, limit=OPERATION)
        self._bound()
        self._cluster.on_times = self._bound
        self._going: set[str] = set()  # images whose removal is under way in a thread
        self._later: dict[str, Callable[[], bool]] = {}  # what must still be removed, by name or id
        self._sweeper: asyncio.Task[None] | None = None
        self.places = (f"pool {self._pool} of {self._conf or 'ceph.conf'}",)
        self.facts = {
            "pool": self._pool,
            "user": sentences.user,
            "chunk_size": self._block,
            "thin_provisioning": self._thin,
        }

    def notes(self) -> list[str]:
        """What is wrong with ceph.conf and the names in the options, as far as files tell."""
        sentences, found = self._sentences, []
        if sentences.user.startswith("client."):
            found.append(sentences.prefixed())
        if "/" in self._pool:
            found.append(sentences.namespaced())
        if wrong := self._cluster.trial.wrong(connect=False):
            found.append(sentences.deadly(wrong))
        return found

    async def start(self) -> None:
        """Learn which cluster it is, from ceph.conf at once and from the cluster itself within five seconds."""
        with contextlib.suppress(OSError):
            text = await asyncio.to_thread(Path(self._conf or "/etc/ceph/ceph.conf").read_text, errors="replace")
            if found := _FSID.search(text):
                self._cluster.fsid = found[1]
        try:
            async with asyncio.timeout(_START):
                for image_id in await self._run(self._images.parts_in_trash, writing=False):
                    self._remove_later(image_id, functools.partial(self._images.removed, image_id))
        except (ImageServiceError, TimeoutError) as error:
            _log.warning("store %s: its Ceph does not answer yet: %s", self.name, error)

    async def _run(self, call: Callable[..., T], *args: Any, writing: bool, guarded: bool = False) -> T:
        """A call in a thread, with the errors of the contract."""
        threads = self._guarded if guarded else self._threads
        with self._errors(writing=writing):
            return await threads.run(call, *args)

    def _bound(self) -> None:
        """The time limits follow those of ceph.conf."""
        for threads in (self._threads, self._guarded):
            threads.limit = self._cluster.connect_time + self._cluster.operation_time + 5

    async def check(self) -> Health:
        try:
            free, facts = await self._threads.run(self._look)
        except ImageServiceError:
            raise
        except Exception as error:
            raise self._sentences.cure(error) from error
        if free is not None and free <= 0:
            raise StoreFull(self._sentences.full())
        return Health("ok", free, {**self.facts, **facts})

    def _look(self) -> tuple[int | None, dict[str, Any]]:
        """Free bytes of the pool, its quota counted in, and what else an administrator wants to know."""
        with self._cluster.connection() as one:
            facts = {"fsid": one.fsid, "images": len(self._cluster.rbd.RBD().list(one.ioctx))}
            command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
            code, text, _ = one.handle.mon_command(command, b"")
            if code:
                if number(OSError(-code, "")) in {1, 13}:
                    return None, facts  # not told to this user
                raise Told(self._sentences.silent(), abs(code))
            pools = {pool["name"]: pool["stats"] for pool in json.loads(text)["pools"]}
            stats = pools.get(self._pool, {})
            free: int | None = stats.get("max_avail")
            if stats.get("quota_bytes"):
                left = int(stats["quota_bytes"]) - int(stats.get("stored", 0))
                free = left if free is None else min(free, left)
            return free, facts

    async def keys(self, limit: int) -> list[str]:
        """By name."""

        def look() -> list[str]:
            with self._cluster.connection() as one:
                return removal.names(self._cluster, one, limit)

        return await self._run(look, writing=False)

    def advice(self, disk_format: str) -> str | None:
        if disk_format == "raw":
            return None
        return (
            "it is Ceph: volumes and machines are cloned from it without copying only when the image is"
            f" raw, this one is {disk_format}; convert it with 'qemu-img convert -O raw' and upload the result"
        )

    async def ready(self) -> None:
        if self._cluster.fsid is None:
            await self._run(self._reach, writing=False)

    def owns(self, url: str) -> bool:
        parts = _parts(url)
        if parts is None:
            return False
        return len(parts) == 1 or (parts[0] == self._cluster.fsid and parts[1] == self._pool)

    def key(self, url: str) -> str | None:
        parts = _parts(url)
        return None if parts is None else parts[0 if len(parts) == 1 else 2]

    def forms(self, url: str) -> tuple[str, ...]:
        """All snapshots of an image are its data: none can be removed without the others."""
        key = self.key(url)
        if key is None:
            return (url,)
        short = f"rbd://{quote(key, safe='')}"
        if self._cluster.fsid is None:
            return (f"rbd:{self.name}/{key}", short, url)
        where = (self._cluster.fsid, self._pool, key, removal.SNAPSHOT)
        return (f"rbd://{'/'.join(quote(part, safe='') for part in where)}", short, url)

    async def _locate(self, url: str) -> tuple[str, str | None]:
        """(image, snapshot) of a URL of ours; which cluster is ours must be known by then."""
        parts = _parts(url)
        if parts is not None:
            await self.ready()
        if parts is None or not self.owns(url):
            raise BlobNotFound("it has no such data: the location lies outside its pool")
        return (parts[0], None) if len(parts) == 1 else (parts[2], parts[3])

    def _reach(self) -> None:
        with self._cluster.connection():
            pass

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        name, snapshot = await self._locate(url)
        size = await self._run(self._size, name, snapshot, writing=False)
        if size is not None:
            return Blob(url, size)
        opened = await self._open(url)
        try:
            return Blob(url, opened.size)
        finally:
            await finish(self._threads.close(opened.close))

    def _size(self, name: str, snapshot: str | None) -> int | None:
        with self._cluster.connection() as one:
            return removal.size(one, name, snapshot)

    async def _open(self, url: str) -> OpenImage:
        name, snapshot = await self._locate(url)
        make = functools.partial(OpenImage, self._cluster, name, snapshot, block=self._block, budget=self._budget)
        with self._errors(writing=False):
            return await self._threads.run(make, lost=OpenImage.close)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        opened = await self._open(url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(lambda: finish(self._threads.close(opened.close)))
            wanted = span(opened.size, offset, length)
            opened.aim(*wanted)
            chunks = Reading(
                self._threads,
                opened.read,
                wanted,
                batch=self._block,
                errors=lambda: self._errors(writing=False),
                ahead=False,
            )
            stack.push_async_callback(lambda: finish(chunks.ended()))
            yield Reader(opened.size, chunks)

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        plain_key(key)
        draft = Draft(self._cluster, self._images, key, block=self._block, thin=self._thin, budget=self._budget)
        steps = Steps(self._threads, draft, lambda: self._errors(writing=True))
        with self._budget.transfer():
            try:
                await steps.begin(functools.partial(draft.create, size))
                await steps.end()
                await steps.take(Exactly(source, size), self._block, draft.write)
                await steps.begin(draft.settle)
                await steps.begin(draft.protect, threads=self._guarded)
                await steps.begin(draft.publish)
                await steps.end()
            except BaseException as error:
                await finish(self._abandon(steps, _SILENT if isinstance(error, StoreUnavailable) else _GRACE))
                raise
        with contextlib.suppress(StoreUnavailable):
            await finish(self._threads.submit(draft.end, must=True).ended(_SILENT))
        return Blob(draft.url, draft.written)

    async def _abandon(self, steps: Steps[Draft], patience: float) -> None:
        """Nothing of the draft stays. What hangs removes it whenever it comes back; what fails is tried again later."""
        draft = steps.draft
        if not await steps.abandon(self._guarded, patience):
            _log.warning("store %s: what a write of %s left is removed later", self.name, draft.key)

            def again() -> bool:
                draft.remove()
                return True

            self._remove_later(draft.name, again)

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        for image_id in await self._run(self._images.discard, key, writing=True, guarded=True):
            self._remove_later(image_id, functools.partial(self._images.removed, image_id))

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        name, _ = await self._locate(url)
        if name in self._going:
            raise StillNeeded("the image is being removed")
        hidden = await self._run(self._images.hide, name, writing=True)
        self._going.add(name)
        try:
            job = self._guarded.submit(functools.partial(self._purge, name, hidden), must=True)
        except BaseException:
            self._going.discard(name)
            raise
        with self._errors(writing=True):
            if not await job.ended(self._guarded.limit):
                raise StillNeeded("the image is being removed")
            await job.result()

    def _purge(self, name: str, hidden: str | None) -> None:
        try:
            self._images.purge(name, hidden)
        finally:
            self._going.discard(name)

    def _remove_later(self, what: str, call: Callable[[], bool]) -> None:
        """Again and again, until `call` says that it is gone."""
        self._later[what] = call
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name=f"store {self.name}: remains")

    async def _sweep(self) -> None:
        pause, longest = _SWEEP
        while self._later:
            await asyncio.sleep(pause)
            pause = min(longest, pause * 1.5)
            for what, call in list(self._later.items()):
                try:
                    if await self._guarded.run(call):
                        self._later.pop(what, None)
                except Exception as error:  # noqa: BLE001 - tried again, whatever it was
                    _log.debug("store %s: %s is removed later: %s", self.name, what, error)

    async def aclose(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        with contextlib.suppress(StoreUnavailable):
            await self._threads.submit(self._cluster.close, must=True).ended(2)
        await asyncio.gather(self._threads.aclose(), self._guarded.aclose())

    @contextlib.contextmanager
    def _errors(self, *, writing: bool) -> Iterator[None]:
        try:
            yield
        except ImageServiceError:
            raise
        except Discarded:
            raise was_discarded() from None
        except Taken:
            raise key_taken() from None
        except Exception as error:
            raise self._sentences.answer(error, writing=writing) from error


def _parts(url: str) -> list[str] | None:
    """The unquoted parts of such a URL, one (image) or four (fsid, pool, image, snapshot); None of any other."""
    scheme, separator, rest = url.partition("://")
    if scheme != "rbd" or not separator or "?" in rest or "#" in rest:
        return None
    parts = [unquote(part) for part in rest.split("/")]
    if len(parts) not in {1, 4} or not all(parts) or any("\0" in part for part in parts):
        return None
    return parts


__all__ = ["RbdStore"]
