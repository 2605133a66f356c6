"""Files on datastores through the server's interface: finding the datastores, folders, listing, moving, deleting.

Bytes go another way (`upload`). Tasks are looked at after 50 ms, then after twice as long each time, at most every
`interval` seconds; one that has not ended after `patience` times ten seconds counts as hung.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote

from xloud_image.errors import (
    BlobNotFound,
    InUse,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.stores.kit.sentences import key_taken, no_data
from xloud_image.stores.vmware.location import Locations, Place
from xloud_image.stores.vmware.session import Login, Session

_log = logging.getLogger(__name__)

_FIRST_LOOK: Final = 0.05
_PATIENT: Final = 10
ROOMY: Final = 1 << 30  # with an unknown size a datastore with so many bytes free is preferred


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """A datastore as the server tells it. `usable`: accessible and not in maintenance."""

    free: int
    usable: bool


class Files:
    """See the module. Errors are those of the contract; file names are those within the folder of the store."""

    def __init__(self, session: Session, locations: Locations, *, interval: float, patience: float) -> None:
        self._session, self._locations = session, locations
        self._name = session.name
        self._interval, self._limit = interval, _PATIENT * patience

    # datastores

    async def rooms(self, *, refresh: bool = False) -> dict[Place, Room]:
        """Every configured datastore; `refresh`: after the server has looked at its disks again."""
        with self._errors(reads=True):
            return await self._session.call(lambda login: self._rooms(login, refresh), reads=True)

    def _rooms(self, login: Login, refresh: bool) -> dict[Place, Room]:
        refs = {place: self._ref(login, place)[1] for place in self._locations.places}
        if refresh:
            for place, ref in refs.items():
                try:
                    ref.RefreshDatastore()
                except self._session.vim.fault.NotAuthenticated:
                    raise
                except self._session.fault as error:  # what the server knew before will do
                    _log.debug("store %s: %s cannot be refreshed: %s", self._name, place, type(error).__name__)
        told = self._read(login, self._session.vim.Datastore, list(refs.values()), "summary")
        rooms = {}
        for place, ref in refs.items():
            summary = told[str(ref)]
            usable = bool(summary.accessible) and (summary.maintenanceMode or "normal") == "normal"
            rooms[place] = Room(max(0, int(summary.freeSpace or 0)), usable)
        return rooms

    async def choose(self, size: int | None) -> Place:
        """The datastore for so many bytes: of those with room that of the highest weight, of equals the emptiest.

        `StoreFull` when none has room, also after the server has looked again; `StoreUnavailable`."""
        for refresh in (False, True):
            rooms = await self.rooms(refresh=refresh)
            usable = [place for place, room in rooms.items() if room.usable]
            if not usable:
                raise StoreUnavailable("none of its datastores is accessible now")
            for wanted in (ROOMY, 1) if size is None else (size,):
                roomy = [place for place in usable if rooms[place].free >= wanted]
                if roomy:
                    return max(roomy, key=lambda place: (place.weight, rooms[place].free))
        most = max(rooms[place].free for place in usable)
        wish = "any data" if size is None else f"{size} bytes"
        raise StoreFull(f"it has no datastore with room for {wish}: {most} bytes are free at most")

    def _ref(self, login: Login, place: Place) -> tuple[Any, Any]:
        """(datacenter, datastore) as objects of the server, kept for the session; in a thread."""
        if place not in login.refs:
            vim = self._session.vim
            datacenter = login.content.searchIndex.FindByInventoryPath(place.datacenter)
            if not isinstance(datacenter, vim.Datacenter):
                raise StoreUnavailable(
                    f"vmware_datastores names the datacenter {place.datacenter}, which is not"
                    f" there or not shown to this user; there are: {', '.join(self._datacenters(login)) or 'none'}"
                )
            found = list(datacenter.datastore)
            names = self._read(login, vim.Datastore, found, "name")
            for ref in found:
                if place.datastore in {names[str(ref)], unquote(names[str(ref)])}:
                    login.refs[place] = (datacenter, ref)
                    break
            else:
                raise StoreUnavailable(
                    f"vmware_datastores names the datastore {place}, which is not there or not"
                    f" shown to this user; {place.datacenter} has: {', '.join(sorted(names.values())) or 'none'}"
                )
        found_before: tuple[Any, Any] = login.refs[place]
        return found_before

    def _read(self, login: Login, kind: type, objects: Sequence[Any], field: str) -> dict[str, Any]:
        """One property of many objects in one call, by the object's text; in a thread."""
        if not objects:
            return {}
        query = type(login.content.propertyCollector)
        wanted = query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=one) for one in objects],
            propSet=[query.PropertySpec(type=kind, pathSet=[field])],
        )
        answers = login.content.propertyCollector.RetrieveContents([wanted])
        # an ended session is no error of this call: the objects are left out, or have nothing but their fault
        for missing in (missing for answer in answers for missing in answer.missingSet):
            raise missing.fault
        found = {str(answer.obj): one.val for answer in answers for one in answer.propSet}
        if len(found) < len({str(one) for one in objects}):
            raise self._session.vim.fault.NotAuthenticated
        return found

    def _datacenters(self, login: Login) -> list[str]:
        """The paths of all datacenters, for a sentence; in a thread."""
        vim, paths = self._session.vim, []

        def walk(folder: Any, above: str) -> None:
            for child in folder.childEntity:
                path = above + child.name
                if isinstance(child, vim.Datacenter):
                    paths.append(path)
                elif isinstance(child, vim.Folder):
                    walk(child, path + "/")

        walk(login.content.rootFolder, "")
        return sorted(paths)

    # files

    async def make_folder(self, place: Place, name: str = "") -> None:
        """A folder in that of the store; without `name` the store's own with all above it, where it is missing.

        `AlreadyExists` for a named one that is there."""

        def make(login: Login) -> None:
            if name or place not in login.folders:
                datacenter, _ = self._ref(login, place)
                try:
                    login.content.fileManager.MakeDirectory(self._locations.path(place, name), datacenter, not name)
                except self._session.vim.fault.FileAlreadyExists:
                    if name:
                        raise
                if not name:
                    login.folders.add(place)

        with self._errors():
            await self._session.call(make)

    async def listing(self, place: Place, pattern: str) -> dict[str, bool]:
        """The names that fit (`*` any text), each with whether it is a folder. Nothing where the folder is missing."""
        vim = self._session.vim
        browser = vim.host.DatastoreBrowser
        details = browser.FileInfo.Details(fileType=True, fileSize=False, modification=False, fileOwner=False)

        def search(login: Login) -> Any:
            _, ref = self._ref(login, place)
            wanted = browser.SearchSpec(matchPattern=[pattern], details=details)
            return ref.browser.SearchDatastore_Task(self._locations.path(place), wanted)

        try:
            with self._errors(reads=True):
                found = await self._ended(search, reads=True)
        except BlobNotFound:
            return {}
        return {file.path: isinstance(file, browser.FolderInfo) for file in found.file}

    async def move(self, place: Place, name: str, to: str) -> None:
        """Another name, never that of a file that is there. `AlreadyExists`, `BlobNotFound`."""

        def move(login: Login) -> Any:
            datacenter, _ = self._ref(login, place)
            source, target = self._locations.path(place, name), self._locations.path(place, to)
            return login.content.fileManager.MoveDatastoreFile_Task(source, datacenter, target, datacenter, False)

        with self._errors():
            await self._ended(move)

    async def delete(self, place: Place, name: str) -> None:
        """`BlobNotFound`, `InUse` (a machine has it open, somebody writes it). A folder goes with what is in it."""

        def delete(login: Login) -> Any:
            datacenter, _ = self._ref(login, place)
            return login.content.fileManager.DeleteDatastoreFile_Task(self._locations.path(place, name), datacenter)

        with self._errors():
            await self._ended(delete)

    async def _ended(self, begin: Callable[[Login], Any], *, reads: bool = False) -> Any:
        """The result of the task that `begin` starts. Its error is raised as the server names it."""
        task = await self._session.call(begin, reads=reads)
        pause, end = 0.0, time.monotonic() + self._limit
        while True:
            info = await self._session.call(lambda login: self._info(login, task), reads=True)
            if info.state == "success":
                return info.result
            if info.state == "error":
                raise info.error
            if time.monotonic() > end:
                raise StoreUnavailable(f"a task has not ended within {self._limit:g} seconds")
            pause = min(self._interval, pause * 2 or _FIRST_LOOK)
            await asyncio.sleep(pause)

    def _info(self, login: Login, task: Any) -> Any:
        """Of the session that is now: the one that began the task may have ended."""
        return type(task)(task._GetMoId(), login.stub).info  # noqa: SLF001 - the library has no other way

    @contextlib.contextmanager
    def _errors(self, *, reads: bool = False) -> Iterator[None]:
        """What the server says in the words of the contract. `reads`: nothing was to be changed."""
        fault = self._session.vim.fault
        try:
            yield
        except fault.FileNotFound:
            raise no_data() from None
        except fault.FileAlreadyExists:
            raise key_taken() from None
        except (fault.FileLocked, fault.ResourceInUse):
            raise InUse("the file is open in a virtual machine or being written") from None
        except fault.NoDiskSpace:
            raise StoreFull("the datastore is full") from None
        except fault.NoPermission as error:
            denied = StoreRefused if reads else WriteDenied
            raise denied(
                f"its user lacks a right on the server: grant {error.privilegeId or 'it'} on the"
                " datastore (a role with Datastore.Browse, Datastore.FileManagement)"
            ) from error
        except self._session.fault as error:
            kind = type(error).__name__.rpartition(".")[2]
            _log.warning("store %s: the server answers %s: %s", self._name, kind, getattr(error, "msg", ""))
            if kind == "ManagedObjectNotFound":  # the datastore was removed or added anew
                self._session.forget()
            raise StoreUnavailable(f"the server answers {kind}; see the service's log") from error
