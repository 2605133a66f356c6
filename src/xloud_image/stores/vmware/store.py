"""Images as files on the datastores of a vCenter or an ESXi host.

Bytes go by https to and from `/folder` of the server, everything else by its SOAP interface, both in one session. An
upload goes under the name `<key>~<16 hex digits>.part` and is moved to its final name when all of it is there; with
several datastores a folder `<key>~lock` in the first one makes sure that one write of a key wins. So a killed upload
is found by its key, and no half image ever has a final name.

Times: a connection 10 s, each call of the interface and each stretch without a byte 30 s (`patience`); a task, and the
answer to an upload after its last byte, ten times that. A whole transfer may take as long as it wants.
Memory of one transfer: one chunk of the source, or 256 KiB received, and as much again inside TLS.
Durable is what the server has answered for: 201 to the upload, the size asked again, and the end of the move.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiohttp import ClientResponse, ClientTimeout

from xloud_image.errors import (
    BlobNotFound,
    ImageServiceError,
    InUse,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, finish, plain_key, span
from xloud_image.stores.kit.chunks import nothing
from xloud_image.stores.kit.download import Download
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.sentences import key_taken, no_data, was_discarded
from xloud_image.stores.kit.web import Web
from xloud_image.stores.vmware import location
from xloud_image.stores.vmware.files import Files
from xloud_image.stores.vmware.location import Locations, Place
from xloud_image.stores.vmware.options import VMWARE
from xloud_image.stores.vmware.session import Account, Session, context
from xloud_image.stores.vmware.upload import Upload

_log = logging.getLogger(__name__)

_AGAIN: Final = (0.2, 1.0, 3.0)  # seconds before a look at a whole upload is tried again
_NEVER: Final = frozenset({400, 405, 411, 501, 505})  # what stays refused however often it is asked
_LATE: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds in which the file of a cut upload may still appear
_CRUMBS: Final = 1 << 20  # with fewer bytes free than this an upload that failed failed for want of room


class VmwareStore(Store):
    """See the module. Several processes and hosts may use the same folders at once."""

    TYPE = VMWARE

    def __init__(self, name: str, options: Mapping[str, Any], *, patience: float = 30.0) -> None:
        self.name = name
        self.can = Can.WRITE
        server = location.server(options["vmware_server_host"])
        folder = location.image_dir(options["vmware_store_image_dir"])
        self._where = Locations(server, folder, location.places(options["vmware_datastores"]))
        self.places = tuple(f"folder {server}/{place}/{folder}" for place in self._where.places)
        self.facts = {
            "server": str(server),
            "image_dir": f"/{folder}",
            "datastores": [f"{place}:{place.weight}" for place in self._where.places],
        }
        ca_file, insecure = options["vmware_ca_file"], options["vmware_insecure"]
        self._patience = patience
        # after the last byte of an upload a server may still have much to write
        self._long = ClientTimeout(total=None, sock_connect=min(10.0, patience), sock_read=10 * patience)
        self._session = Session(
            name,
            server,
            Account(options["vmware_server_username"], options["vmware_server_password"]),
            context(ca_file, insecure),
            patience=patience,
            retries=options["vmware_api_retry_count"],
        )
        self._files = Files(
            self._session, self._where, interval=options["vmware_task_poll_interval"], patience=patience
        )
        self._web = Web(name, ca_file=ca_file, insecure=insecure, connect=min(10.0, patience), idle=patience)

    async def start(self) -> None:
        """Log in and make missing folders; what fails is told by `check` and by each call."""
        for place in self._where.places:
            try:
                await self._files.make_folder(place)
            except ImageServiceError as error:
                _log.warning("store %s: %s: %s", self.name, place, error.message)

    async def check(self) -> Health:
        """Whether each datastore is there and takes data. Raises when none does; else `detail` names those."""
        rooms = await self._files.rooms(refresh=True)
        remarks = []
        for place, room in rooms.items():
            if not room.usable:
                remarks.append(f"the datastore {place} is not accessible or in maintenance")
            elif not await self._there(place, ""):
                remarks.append(f"the folder /{self._where.folder} is not on {place} yet: the first upload makes it")
        usable = {place: room.free for place, room in rooms.items() if room.usable}
        if not usable:
            raise StoreUnavailable(f"none of its datastores is accessible: {'; '.join(remarks)}")
        if not any(usable.values()):
            raise StoreFull(f"its datastores are full: {', '.join(map(str, usable))}")
        free = {str(place): room.free for place, room in rooms.items()}
        return Health("; ".join(remarks) or "ok", sum(usable.values()), {**self.facts, "free": free})

    async def keys(self, limit: int) -> list[str]:
        """Of the first datastore, by name, then of the next."""
        found: list[str] = []
        for place in self._where.places:
            files = await self._files.listing(place, "*") if len(found) < limit else {}
            found += sorted(name for name, folder in files.items() if not folder and "~" not in name)
        return found[:limit]

    def owns(self, url: str) -> bool:
        return self._where.parse(url) is not None

    def key(self, url: str) -> str | None:
        found = self._where.parse(url)
        return found[1] if found is not None else None

    def forms(self, url: str) -> tuple[str, ...]:
        found = self._where.parse(url)
        return (url,) if found is None else (self._where.url(*found), url)

    def _locate(self, url: str) -> tuple[Place, str]:
        found = self._where.parse(url)
        if found is None:
            raise BlobNotFound("it has no such data: the location lies outside its folders")
        return found

    # reading

    @contextlib.asynccontextmanager
    async def _ask(
        self, method: str, place: Place, name: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ClientResponse]:
        """The answer of `/folder`; with a new session, once, when the server does not know ours any more."""
        login = await self._session.login()
        for again in (True, False):
            sent = {"Cookie": login.cookie, "Accept-Encoding": "identity", **(headers or {})}
            asked = self._web.answer(method, self._where.https(place, name), headers=sent)
            async with asked as response:
                if response.status != 401 or not again:
                    yield response
                    return
            login = await self._session.login(ended=login)

    async def _head(self, place: Place, name: str) -> int | None:
        """The size of a file in bytes; None when it is not there."""
        async with self._ask("HEAD", place, name) as response:
            if response.status == 404:
                return None
            if response.status != 200 or response.content_length is None:
                raise self._refusal(response.status, "tell the size")
            return response.content_length

    async def _kept(self, place: Place, part: str) -> int | None:
        """As `_head`, of an upload that is whole: one answer that fails does not throw it away."""
        return await retry(lambda: self._head(place, part), _AGAIN)

    async def _there(self, place: Place, name: str) -> bool:
        async with self._ask("HEAD", place, name) as response:
            if response.status >= 400 and response.status != 404:
                raise self._refusal(response.status, "look")
            return response.status < 400  # a folder may be answered for by a redirection

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        place, key = self._locate(url)
        size = await self._head(place, key)
        if size is None:
            raise no_data()
        return Blob(url, size)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        place, key = self._locate(url)
        if offset < 0 or (length is not None and length <= 0):  # no such range can be asked for by HTTP
            size = (await self.stat(url)).size
            span(size, offset, length)
            yield Reader(size, nothing())
            return

        def failure(status: int) -> ImageServiceError:
            return no_data() if status == 404 else self._refusal(status, "read")

        def get(headers: dict[str, str]) -> AbstractAsyncContextManager[ClientResponse]:
            return self._ask("GET", place, key, headers=headers)

        download = Download(self._web, get, lambda: self._head(place, key), failure, offset, length)
        async with download:
            yield Reader(download.size, download)

    # writing

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        plain_key(key)
        place = await self._files.choose(size)  # the session is proved by it: a source cannot be sent twice
        await self._files.make_folder(place)
        if await self._taken(key):
            raise key_taken()
        upload = Upload(source, size, self._patience)
        part = f"{key}~{secrets.token_hex(8)}.part"
        try:
            await self._send(place, part, upload, size)
        except BaseException:
            await finish(self._remove_part(place, part, cut=upload.begun and not upload.answered))
            raise
        publishing = asyncio.ensure_future(self._publish(place, part, key))
        try:
            await finish(publishing)
        except asyncio.CancelledError:
            if publishing.exception() is None:
                await finish(self._remove(place, key))
            raise
        return Blob(self._where.url(place, key), upload.sent)

    async def _send(self, place: Place, part: str, upload: Upload, size: int | None) -> None:
        """All bytes into the file `part`. `StoreFull`, `WriteDenied`, `StoreUnavailable`, and the source's errors."""
        login = await self._session.login()
        headers = {"Cookie": login.cookie, "Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        try:
            where = self._where.https(place, part)
            async with (
                upload.watched(),
                self._web.request("PUT", where, headers=headers, data=upload, timeout=self._long) as response,
            ):
                upload.answered = True
                if response.status not in {200, 201}:
                    raise self._refusal(response.status, "write")
            stored = await self._kept(place, part)
            if stored is None:
                raise was_discarded()
            if stored != upload.sent:
                raise StoreUnavailable(f"it has kept {stored} of {upload.sent} bytes")
        except StoreUnavailable as error:
            known = upload.error is not None or upload.stalled  # why it failed
            if not known and await self._full(place, part, size or upload.sent):
                raise StoreFull("the datastore became full during the upload") from error
            raise

    async def _full(self, place: Place, part: str, size: int) -> bool:
        """Whether an upload of so many bytes failed for want of room; no error of its own. What was sent tells nothing:
        some of it never arrived, and the server may have removed the rest by now."""
        try:
            room = (await self._files.rooms(refresh=True))[place]
            return room.free < _CRUMBS or room.free + (await self._head(place, part) or 0) < size
        except ImageServiceError:
            return False

    async def _taken(self, key: str) -> bool:
        """Whether any datastore has this key; one that is away is passed over."""
        for place in self._where.places:
            try:
                if await self._there(place, key):
                    return True
            except StoreUnavailable:
                if len(self._where.places) == 1:
                    raise
        return False

    async def _publish(self, place: Place, part: str, key: str) -> None:
        """The final name, for one write of the key only; else nothing of this one stays."""
        try:
            async with self._one_at_a_time(key):
                if len(self._where.places) > 1 and await self._taken(key):
                    raise key_taken()
                await self._files.move(place, part, key)
        except BlobNotFound:
            raise was_discarded() from None
        except BaseException:
            await self._remove_part(place, part, cut=False)
            raise

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self, key: str) -> AsyncIterator[None]:
        """Moves never overwrite within a datastore; between several ones a lock is needed."""
        if len(self._where.places) == 1:
            yield
            return
        rooms = await self._files.rooms()
        first = next((place for place, room in rooms.items() if room.usable), self._where.places[0])
        await self._files.make_folder(first)
        await self._files.make_folder(first, f"{key}~lock")
        try:
            yield
        finally:
            await self._remove(first, f"{key}~lock")

    async def _remove_part(self, place: Place, part: str, *, cut: bool) -> None:
        """`cut`: the server had not answered, so that it may still be about to make the file, or have it open."""
        for wait in (*_LATE, None) if cut else (None,):
            if await self._remove(place, part, final=wait is None):
                return
            await asyncio.sleep(wait or 0)

    async def _remove(self, place: Place, name: str, *, final: bool = True) -> bool:
        """Whether there is nothing more to do. What cannot be removed now is found by `discard`."""
        try:
            await self._files.delete(place, name)
        except BlobNotFound:
            return final
        except ImageServiceError as error:
            if isinstance(error, InUse) and not final:
                return False
            _log.warning("store %s: %s on %s stays for now: %s", self.name, name, place, error.message)
        return True

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        ends = await asyncio.gather(
            *(self._discard(place, key) for place in self._where.places), return_exceptions=True
        )
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _discard(self, place: Place, key: str) -> None:
        ours = re.compile(rf"{re.escape(key)}~([0-9a-f]{{16}}\.part|lock)")
        # parts first: a writer that is about to move one has then either moved it or fails
        names = sorted(filter(ours.fullmatch, await self._files.listing(place, f"{key}~*")))
        if names or await self._there(place, key):
            names.append(key)
        for name in names:
            try:
                await self._files.delete(place, name)
            except BlobNotFound:
                continue
            except InUse as error:
                raise StoreUnavailable(error.message) from error

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        place, key = self._locate(url)
        # a folder would go with all that is in it
        if (await self._files.listing(place, key)).get(key, True):
            raise no_data()
        await self._files.delete(place, key)

    async def aclose(self) -> None:
        await self._session.aclose()
        await self._web.aclose()

    def _refusal(self, status: int, what: str) -> ImageServiceError:
        if status == 403:
            kind = WriteDenied if what == "write" else StoreRefused
            return kind(
                f"the server does not let its user {what} (HTTP 403): grant Datastore.Browse and"
                " Datastore.FileManagement on the datastore"
            )
        if status in {413, 507}:
            return StoreFull("the datastore is full")
        if status in _NEVER:
            return StoreRefused(
                f"the server answers HTTP {status}, so it will never {what} here: vmware_server_host"
                " has to name the vCenter or ESXi itself, and what stands before it has to let /folder through"
            )
        return StoreUnavailable(f"the server answers HTTP {status}")
