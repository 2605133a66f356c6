"""Images as files in one or several directories: local disks, NFS, any mounted file system. System calls: `syscalls`.

URLs are `file://<directory>/<key>` as the peer writes them (not percent-encoded); `filesystem://` is read as well.
Only plain files that lie directly in a configured directory are ever touched, whatever a URL says.

Times: each step (one batch of bytes, one fsync, one open) may take `filesystem_store_timeout` seconds; at 0 (no limit
of the operator's) ten minutes, after which a mount counts as hung. A whole transfer may take as long as it wants.
Memory of one write: two batches; of one read: two. A batch is one MiB, or `filesystem_store_chunk_size` when larger.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from xloud_image.errors import (
    BlobNotFound,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.base import Blob, Caller, Can, FileRange, Health, Reader, Store, finish, plain_key, span
from xloud_image.stores.file import errors, syscalls
from xloud_image.stores.file import options as file_options
from xloud_image.stores.file.directories import Places
from xloud_image.stores.file.download import OpenFile
from xloud_image.stores.file.options import FILE
from xloud_image.stores.file.upload import CannotCopy, Draft
from xloud_image.stores.kit.chunks import Exactly
from xloud_image.stores.kit.sentences import key_taken, no_data, was_discarded
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.kit.transfers import Discarded, Reading, Steps

_log = logging.getLogger(__name__)

_NO_LIMIT: Final = 600.0  # seconds that a step may take when the operator sets no limit
_GRACE: Final = 30.0  # seconds that a failed write waits for a thread that is still in its draft
_PIECE: Final = 64 << 20  # bytes that the kernel copies in one step
_ROOMY: Final = 1 << 30  # with an unknown size a directory with so many bytes free is preferred


class FileStore(Store):
    """See the module. Several processes and hosts may use the same directories at once."""

    TYPE = FILE

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.can = Can.WRITE
        self.paths = file_options.directories(options)  # the highest priority first
        self.places = tuple(f"directory {path}" for path in self.paths)
        self._places = Places(self.paths)
        self._relative = file_options.relative(options)
        self._mode = file_options.mode(options["filesystem_store_file_perm"])
        self._thin: bool = options["filesystem_thin_provisioning"]
        self._batch: int = max(syscalls.BATCH, options["filesystem_store_chunk_size"])
        self._metadata_file: str | None = options["filesystem_store_metadata_file"]
        self._metadata: Mapping[str, Mapping[str, Any]] = {}
        self._metadata_error: str | None = None
        self._threads = Threads(
            name,
            options["filesystem_store_thread_pool_size"],
            limit=options["filesystem_store_timeout"] or _NO_LIMIT,
            threshold=options["filesystem_store_threadpool_threshold"],
            option="filesystem_store_thread_pool_size",
        )
        self.facts = {
            "data_dir": self.paths[0] if len(self.paths) == 1 else list(self.paths),
            "chunk_size": options["filesystem_store_chunk_size"],
            "thin_provisioning": self._thin,
        }

    async def start(self) -> None:
        """Make missing directories and read the metadata file; what fails is told by `check` and by each write."""
        for path in self.paths:
            try:
                await self._threads.run(syscalls.make_directory, path)
            except (OSError, StoreUnavailable) as error:
                said = errors.cure(path, error) if isinstance(error, OSError) else error
                _log.warning("store %s: %s", self.name, said)
        if self._metadata_file:
            try:
                self._metadata = await self._threads.run(file_options.metadata, self._metadata_file, self.paths)
                self._metadata_error = None
            except (OSError, ValueError, StoreUnavailable) as error:
                self._metadata_error = f"filesystem_store_metadata_file {self._metadata_file}: {error}"
                _log.error("store %s: %s", self.name, self._metadata_error)

    async def check(self) -> Health:
        """Whether each directory takes data. Raises when none does; else `detail` names those that do not."""
        answers = await asyncio.gather(
            *(self._threads.run(syscalls.usable, path) for path in self.paths), return_exceptions=True
        )
        room: dict[int, int] = {}  # by file system: two directories may share one
        failures: list[ImageServiceError] = []
        for path, answer in zip(self.paths, answers, strict=True):
            if isinstance(answer, OSError):
                failures.append(errors.cure(path, answer))
            elif isinstance(answer, ImageServiceError):
                failures.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                room.update((answer,))
        if len(failures) == len(self.paths):
            raise failures[0]
        if self._metadata_error:
            raise WriteDenied(f"{self._metadata_error}: correct the file, restart the service")
        told = [failure.message for failure in failures]
        if self._relative:
            entries, places = ", ".join(self._relative), ", ".join(self.paths)
            told.append(f"{entries} is relative to where the service is started; now it is {places}: write that path")
        return Health("; ".join(told) or "ok", sum(room.values()), self.facts)

    async def keys(self, limit: int) -> list[str]:
        """By name, the directory of the highest priority first."""
        found: list[str] = []
        for path in self.paths:
            with self._reading(path):
                found += await self._threads.run(syscalls.names, path, limit - len(found))
        return found

    def owns(self, url: str) -> bool:
        """True also while that is not known: what is done with the URL then fails for now, not for good."""
        try:
            return self._parse(url) is not None
        except StoreUnavailable:
            return True

    def _split(self, url: str) -> tuple[str, str] | None:
        """(directory as it is written, name) of a URL that may be one of this store's."""
        scheme, _, path = url.partition("://")
        if scheme not in self.TYPE.schemes or "\0" in path:
            return None
        parent, _, name = path.rpartition("/")
        if not parent.startswith("/") or not name or name.startswith(".") or ".." in parent.split("/"):
            return None
        return file_options.normal(parent), name

    def _parse(self, url: str) -> tuple[str, str] | None:
        """(directory, name) of a URL directly below one of our directories, under any name of it; None of any other.
        `StoreUnavailable` while that is not known."""
        found = self._split(url)
        if found is None:
            return None
        place = self._places.find(found[0])
        return None if place is None else (place, found[1])

    def key(self, url: str) -> str | None:
        found = self._split(url)
        return found[1] if found is not None and self.owns(url) else None

    def forms(self, url: str) -> tuple[str, ...]:
        """As `Store.forms`. `StoreUnavailable` while it is not known which directory is meant: what other rows mean the
        same bytes cannot be told then."""
        found = self._parse(url)
        return (url,) if found is None else tuple(f"{scheme}://{'/'.join(found)}" for scheme in self.TYPE.schemes)

    def _locate(self, url: str) -> tuple[str, str]:
        found = self._parse(url)
        if found is None:
            raise BlobNotFound("it has no such data: the location lies outside its directories")
        return found

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        path, name = self._locate(url)
        with self._reading(path):
            return Blob(url, await self._threads.run(syscalls.size, path, name))

    async def opened(self, url: str) -> OpenFile:
        """The file itself, to be closed in a thread."""
        path, name = self._locate(url)
        with self._reading(path):
            return await self._threads.run(OpenFile, path, name, lost=OpenFile.close)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        opened = await self.opened(url)
        path, _ = self._locate(url)

        async def warm(at: int, count: int) -> None:
            with self._reading(path):
                await self._threads.run(opened.warm, at, count)

        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(lambda: finish(self._threads.close(opened.close)))
            offset, length = span(opened.size, offset, length)
            chunks = Reading(
                self._threads,
                opened.read,
                (offset, length),
                batch=self._batch,
                errors=lambda: self._reading(path),
            )
            stack.push_async_callback(lambda: finish(chunks.ended()))
            file = FileRange(opened.fd, offset, length, opened.resident, warm) if opened.sendable else None
            yield Reader(opened.size, chunks, file)

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        plain_key(key)
        if self._metadata_error:
            raise WriteDenied("it takes no data: its metadata file is wrong; see the service's log")
        steps = await self._begin(key, size)
        async with self._all_or_nothing(steps):
            await steps.take(Exactly(source, size), self._batch, steps.draft.write, cut=False)
            return await self._finished(steps)

    async def _finished(self, steps: Steps[Draft]) -> Blob:
        draft = steps.draft
        await steps.begin(draft.sync)
        await steps.begin(draft.publish)
        await steps.end()
        return Blob(f"file://{draft.path}/{draft.key}", draft.written, self._metadata.get(draft.path, {}))

    async def copy(self, key: str, origin: Store, url: str, *, size: int, caller: Caller | None = None) -> Blob | None:
        """By reference where the file system can (one for both), else by the kernel."""
        plain_key(key)
        if not isinstance(origin, FileStore) or self._metadata_error:
            return None
        opened = await origin.opened(url)
        async with contextlib.AsyncExitStack() as file:
            file.push_async_callback(lambda: finish(self._threads.close(opened.close)))
            if opened.size != size:
                return None
            steps = await self._begin(key, size)
            try:
                async with self._all_or_nothing(steps):
                    await steps.begin(functools.partial(steps.draft.clone, opened.fd, size))
                    await steps.end()
                    while steps.draft.written < size:
                        length = min(_PIECE, size - steps.draft.written)
                        await steps.begin(functools.partial(steps.draft.copy, opened.fd, length))
                        await steps.end()
                    await file.aclose()
                    return await self._finished(steps)
            except CannotCopy:
                return None

    async def _begin(self, key: str, size: int | None) -> Steps[Draft]:
        """A draft in the directory of the highest priority that has room; one that is broken is passed over."""
        failure: ImageServiceError | None = None
        for room in (_ROOMY, 1) if size is None and len(self.paths) > 1 else (1 if size is None else size,):
            for path in self.paths:
                others = [other for other in self.paths if other != path]
                draft = Draft(path, key, mode=self._mode, thin=self._thin, others=others)
                steps = Steps(self._threads, draft, functools.partial(self._writing, path))
                try:
                    async with self._all_or_nothing(steps):
                        await steps.begin(functools.partial(draft.create, size, room))
                        await steps.end()
                        return steps
                except (StoreFull, WriteDenied, StoreUnavailable) as error:
                    if failure is None or isinstance(error, StoreFull):
                        failure = error
        assert failure is not None
        raise failure

    @contextlib.asynccontextmanager
    async def _all_or_nothing(self, steps: Steps[Draft]) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await finish(self._abandon(steps))
            raise

    async def _abandon(self, steps: Steps[Draft]) -> None:
        """Nothing of the draft stays. A thread that hangs in it removes it whenever it comes back."""
        if not await steps.abandon(self._threads, min(self._threads.limit, _GRACE)):
            _log.warning(
                "store %s: a draft of %s stays for now: the file system does not answer", self.name, steps.draft.key
            )

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        failure: ImageServiceError | None = None
        for path in self.paths:
            try:
                with self._writing(path):
                    await self._threads.run(syscalls.discard, path, key)
            except ImageServiceError as error:
                failure = error
        if failure is not None:
            raise failure

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        path, name = self._locate(url)
        with self._writing(path, name):
            target = await self._threads.run(syscalls.remove, path, name)
        if target is not None:
            _log.warning("store %s: the link %s/%s is removed; what it led to stays: %s", self.name, path, name, target)

    async def aclose(self) -> None:
        await self._threads.aclose()

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """A missing file is `BlobNotFound`; a missing directory is not: its mount may be away for a while."""
        try:
            yield
        except syscalls.IsLink as error:
            raise errors.link(path, error) from None
        except OSError as error:
            if isinstance(error, FileNotFoundError) and error.filename != path:
                raise no_data() from None
            raise errors.unreadable(path, error) from error

    @contextlib.contextmanager
    def _writing(self, path: str, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except Discarded:
            raise was_discarded() from None
        except FileExistsError:
            raise key_taken() from None
        except syscalls.IsLink as error:
            raise errors.link(path, error) from None
        except OSError as error:
            if name is not None and isinstance(error, FileNotFoundError) and error.filename == name:
                raise no_data() from None
            raise errors.refusal(path, error) from error
