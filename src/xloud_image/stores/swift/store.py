"""Images as objects in Swift, in one account or in those of the uploaders.

One account (the default): `swift_store_auth_address`, `_user` and `_key` (or an application credential), or the
account references of `swift_store_config_file`. Written are `swift+config://<reference>/<container>/<key>`, without
credentials; a peer with the same options reads them: options without a file are its `default_swift_reference`.
`swift_store_multi_tenant`: in the account of each uploader by the caller's token, a container for each image, which
the projects may read with whom the image is shared. Sizes in the options are in units of 1000 x 1024 bytes.

Times: Swift and Keystone have 60 seconds to say something, each time; a source may take as long as it wants.
Memory of a write: see `upload` (32 MiB in segments, two chunks of the source in one object); of a read:
a chunk received and one with the reader (`kit.body`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import ClientResponse
from yarl import URL

from xloud_image.errors import BlobNotFound, ConfigError, StoreRefused, StoreUnavailable, Unsupported
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, finish, plain_key, span
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.chunks import nothing
from xloud_image.stores.kit.download import Download
from xloud_image.stores.kit.keystone import Account, Catalogue, Login, ask_keystone, identity_url
from xloud_image.stores.kit.threads import Threads
from xloud_image.stores.kit.web import Web
from xloud_image.stores.swift import accounts, location
from xloud_image.stores.swift.accounts import Access, Borrowed, Elsewhere
from xloud_image.stores.swift.client import Answer, Container
from xloud_image.stores.swift.options import SWIFT
from xloud_image.stores.swift.removal import remove_object
from xloud_image.stores.swift.segments import PARALLEL, Disk
from xloud_image.stores.swift.upload import Upload

UNIT: Final = 1000 * 1024  # bytes
_DISK: Final = 600.0  # seconds for one step on the disk of `swift_upload_buffer_dir`


class SwiftStore(Store):
    """See the module. `patience`: seconds for Swift or Keystone to say something. Several processes and hosts may use
    the same container at once."""

    TYPE = SWIFT

    def __init__(self, name: str, options: Mapping[str, Any], *, patience: float = 60.0) -> None:
        self.name = name
        self._options = options
        self._multi: bool = options["swift_store_multi_tenant"]
        self._file: str | None = options["swift_store_config_file"]
        self._default: str = options["default_swift_reference"]
        self._container: str = options["swift_store_container"]
        self._seed: int = options["swift_store_multiple_containers_seed"]
        self._admins: Sequence[str] = [project.strip() for project in options["swift_store_admin_tenants"]]
        self._catalogue = Catalogue(
            options["swift_store_service_type"],
            options["swift_store_endpoint_type"],
            options["swift_store_region"],
            options["swift_store_endpoint"],
            accounts.CURE,
        )
        self._web = Web(
            name,
            ca_file=options["swift_store_cacert"],
            insecure=options["swift_store_auth_insecure"],
            connect=min(10.0, patience),
            idle=patience,
        )
        self._accounts: dict[str, Account] = {}
        self._broken: str | None = None  # what is wrong with the reference file
        own = None if self._file else accounts.from_options(options)
        if own is not None:
            self._accounts = self._all({self._default: own})
        address: str | None = options["swift_store_auth_address"]
        if self._multi and self._file:
            raise ConfigError("swift_store_multi_tenant and swift_store_config_file exclude each other")
        if self._multi and not (address or self._catalogue.endpoint):
            raise ConfigError(
                "swift_store_multi_tenant needs swift_store_auth_address (for the service catalogue) or"
                " swift_store_endpoint with %(project_id)s in it"
            )
        if not self._multi and not self._file and own is None:
            raise ConfigError(
                "the account is missing: give swift_store_auth_address, swift_store_user (project:user) and"
                " swift_store_key, or swift_store_config_file"
            )
        self._disk: Disk | None = None
        if options["swift_buffer_on_upload"]:
            if not options["swift_upload_buffer_dir"]:
                raise ConfigError("swift_buffer_on_upload needs a directory: swift_upload_buffer_dir")
            self._disk = Disk(options["swift_upload_buffer_dir"], Threads(name, 2 * PARALLEL, limit=_DISK))
        auth = identity_url(address) if address else None
        self._projects = accounts.Projects(self._web, auth, self._catalogue)
        self.can = Can.WRITE | Can.SHARE if self._multi else Can.WRITE
        self.places = (f"swift container {self._account_name(own, auth)}/{self._container}",)
        self.facts = {
            "container": self._container,
            "large_object_size": options["swift_store_large_object_size"],
            "large_object_chunk_size": options["swift_store_large_object_chunk_size"],
            "multi_tenant": self._multi,
        }

    def _account_name(self, own: Login | None, auth: str | None) -> str:
        if self._multi:
            return f"of every project at {auth or self._catalogue.endpoint}"
        if own is None:
            return f"{self._file}:{self._default}"
        return f"{location.comparable(own.auth)}:{own.project or own.project_id or own.credential_id}"

    def _all(self, logins: Mapping[str, Login]) -> dict[str, Account]:
        soon: int = self._options["swift_store_expire_soon_interval"]
        return {name: Account(self._web, login, self._catalogue, soon=soon) for name, login in logins.items()}

    async def start(self) -> None:
        """Read the reference file; what is wrong with it is told by `check` and by each call."""
        if not self._file:
            return
        try:
            text = await asyncio.to_thread(Path(self._file).read_text)
            self._accounts = self._all(accounts.from_file(text, self._file))
            if self._default not in self._accounts:
                raise ConfigError(f"default_swift_reference {self._default} is no section of {self._file}")
            self._broken = None
        except (OSError, ValueError, ConfigError) as error:
            why = error.message if isinstance(error, ConfigError) else (getattr(error, "strerror", "") or "no text")
            self._broken = why if isinstance(error, ConfigError) else f"swift_store_config_file {self._file}: {why}"

    async def aclose(self) -> None:
        await self._web.aclose()
        if self._disk is not None:
            await self._disk.threads.aclose()

    async def check(self) -> Health:
        """Asks for the container, with several accounts' containers for the account."""
        if self._multi and not self._accounts:
            return await self._check_without_account()
        access = self._own()
        grant = await access.grant()
        container = Container(self._web, access, "" if self._multi or self._seed else self._container)
        found = await container.ask("HEAD")
        if found.status == 404 and container.name:
            if not self._options["swift_store_create_container_on_put"]:
                raise container.denied()
            return Health(f"the container {container.name} will be made by the first upload", None, self.facts)
        if not found.ok:
            raise container.failure(found.status)
        return Health("ok", _room(found), {**self.facts, "account": grant.url})

    async def _check_without_account(self) -> Health:
        """Where Swift is says a caller's catalogue; until one came, Keystone alone can be asked."""
        if self._projects.auth is not None:
            status, _, _ = await ask_keystone(self._web, "GET", self._projects.auth)
            if status >= 400:
                raise StoreUnavailable("swift_store_auth_address gives no identity service")
        for root in self._projects.roots:
            await Container(self._web, Borrowed(str(URL(root).origin()), None), "info").ask("GET")
        asked = "Swift and the identity service answer" if self._projects.roots else "the identity service answers"
        return Health(f"{asked}; each upload uses the caller's own account", None, self.facts)

    async def keys(self, limit: int) -> list[str]:
        """By name, container by container; segments left out. Not in the accounts of uploaders, who are not known."""
        if self._multi:
            raise Unsupported("it keeps its data in the accounts of all projects")
        account = Container(self._web, self._own(), "")
        containers = [self._container]
        if self._seed:
            containers = [name async for name in account.names(f"{self._container}_")]
        found: list[str] = []
        for container in containers:
            async for name in account.beside(container).names("", delimiter="/"):
                if len(found) == limit:
                    return found
                whole, _, number = name.rpartition("-")
                if len(number) >= 5 and number.isdigit() and whole in found[-1:]:
                    continue  # a segment of the dynamic object before it
                found.append(name)
        return found

    # which object of which account a URL means

    def owns(self, url: str) -> bool:
        place = location.parse(url)
        return place is not None and self._ours(place)

    def key(self, url: str) -> str | None:
        place = location.parse(url)
        return place.name if place is not None else None

    def forms(self, url: str) -> tuple[str, ...]:
        """By container and name alone: in which of several accounts they are, old URLs do not say for certain."""
        place = location.parse(url)
        if place is None:
            return (url,)
        where = f"{quote(place.container)}/{quote(place.name)}"
        return (f"swift:{self.name}/{where}", *(f"swift+config://{name}/{where}" for name in self._accounts), url)

    def _ours(self, place: location.Place) -> bool:
        """Only names and addresses are compared; the storage of an uploader is compared when it is used."""
        rest = place.container.removeprefix(self._container)
        if rest == place.container or not (rest == "" or (rest[0] == "_" and place.name.startswith(rest[1:]))):
            return False
        if place.reference is not None:
            return place.reference in self._accounts
        if place.auth is not None:
            return any(
                location.comparable(account.login.auth) == place.auth
                and (not account.login.project or place.project in (None, account.login.project))
                for account in self._accounts.values()
            )
        assert place.storage is not None
        return self._multi and rest == f"_{place.name}" and self._near(place.storage) is not False

    def _near(self, storage: str) -> bool | None:
        """Whether a storage URL is one of our Swift; None: not known before the catalogue was read."""
        known = self._projects.roots
        return None if not known else any(_same_swift(storage, root) for root in known)

    async def _locate(self, url: str, caller: Caller | None) -> tuple[Container, str]:
        """(container, object). `BlobNotFound` for what is not ours: no token goes to a foreign server."""
        place = location.parse(url)
        if place is None or not self._ours(place):
            if self._broken:
                raise StoreUnavailable(f"{self._broken}: correct it and restart the service")
            raise BlobNotFound("it has no such data: the location is not of its account and container")
        if place.storage is None:
            for reference, account in self._accounts.items():
                one = account.login
                if place.reference == reference or (
                    location.comparable(one.auth) == place.auth and place.project in (None, "", one.project)
                ):
                    break
            else:
                account = next(iter(self._accounts.values()))
            return Container(self._web, account, place.container), place.name
        if self._near(place.storage) is None:
            await self._root(caller)
        if not self._near(place.storage):
            raise BlobNotFound("it has no such data: the location is of another Swift")
        return Container(self._web, self._tenant(place.storage, caller), place.container), place.name

    def _own(self) -> Account:
        """The account for new images."""
        if self._broken or self._default not in self._accounts:
            why = self._broken or "it was not started"
            raise StoreRefused(f"{why}: correct it and restart the service")
        return self._accounts[self._default]

    def _tenant(self, storage: str, caller: Caller | None) -> Access:
        """Whoever may use the account of a project: the caller, else the service account, else nobody."""
        if caller is not None and caller.token:
            return Borrowed(storage, caller.token)
        if self._accounts:
            return Elsewhere(self._own(), storage)
        return Borrowed(storage, None)

    async def _root(self, caller: Caller | None) -> None:
        """Learn where our Swift is."""
        if caller is not None and caller.token and caller.project:
            await self._projects.url(caller.token, caller.project)
        elif self._accounts:
            grant = await self._own().grant()
            self._projects.learn(grant.url, grant.project)
        else:
            raise StoreRefused(_NOBODY)

    async def _account_of(self, caller: Caller | None) -> Access:
        """The account that takes the data of this caller."""
        if not self._multi:
            return self._own()
        if caller is None or not caller.project:
            raise StoreRefused(_NOBODY)
        if caller.token:
            storage = await self._projects.url(caller.token, caller.project)
        elif self._accounts:
            grant = await self._own().grant()
            storage = grant.url.replace(grant.project, caller.project)
        else:
            raise StoreRefused(_NOBODY)
        return self._tenant(storage, caller)

    async def _container_for(self, key: str, caller: Caller | None) -> Container:
        """Where the data of this caller's go."""
        return Container(self._web, await self._account_of(caller), self._container_of(key))

    def _container_of(self, key: str) -> str:
        if self._multi:
            return f"{self._container}_{key}"
        return f"{self._container}_{key[: self._seed]}" if self._seed else self._container

    # reading

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        container, name = await self._locate(url, caller)
        found = await container.done("HEAD", name)
        size = answers.length(found.headers)
        if size is None:
            raise StoreUnavailable("Swift does not say how long the object is")
        return Blob(url, size, version=answers.tag(found.headers) or None)

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        container, name = await self._locate(url, caller)
        if offset < 0 or (length is not None and length <= 0):  # no header can say that
            size = (await self.stat(url, caller=caller)).size
            span(size, offset, length)
            yield Reader(size, nothing())
            return

        def get(headers: dict[str, str]) -> AbstractAsyncContextManager[ClientResponse]:
            return container.answer("GET", name, headers=headers)

        async def size_of() -> int | None:
            found = await container.ask("HEAD", name)
            return answers.length(found.headers) if found.ok else None

        retries: int = self._options["swift_store_retry_get_count"]
        download = Download(self._web, get, size_of, container.failure, offset, length, retries=retries)
        async with download:
            yield Reader(download.size, download, version=download.version)

    # writing

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        plain_key(key)
        container = await self._container_for(key, caller)
        storage = (await container.access.grant()).url  # asked now: nothing may fail when the data is there
        may_make = self._multi or self._options["swift_store_create_container_on_put"]
        upload = Upload(
            container,
            key,
            large=self._options["swift_store_large_object_size"] * UNIT,
            segment=self._options["swift_store_large_object_chunk_size"] * UNIT,
            make=(lambda: self._make(container)) if may_make else None,
            disk=self._disk,
        )
        try:
            written = await upload.run(source, size)
        except BaseException:
            await finish(self._drop(container))
            raise
        url = f"swift+config://{self._default}/{container.name}/{key}"
        if self._multi:
            url = location.storage_url(storage, container.name, key)
        return Blob(url, written, version=upload.etag)

    async def _make(self, container: Container) -> None:
        await container.done("PUT", headers={"Content-Length": "0", **self._rights(())})

    async def _drop(self, container: Container) -> None:
        """The container of one image, when nothing is in it; leaves it otherwise, and those of many images."""
        if self._multi:
            with contextlib.suppress(StoreUnavailable):
                await container.ask("DELETE")

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        container = await self._container_for(key, caller)
        # first the notes of running uploads, so that they fail; then what is finished
        await container.remove([name async for name in container.names(f"{key}/")])
        await container.remove([key])
        await container.remove([name async for name in container.names(f"{key}/")])
        await self._drop(container)

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        container, name = await self._locate(url, caller)
        try:
            await remove_object(container, name)
        except StoreRefused:
            # an administrator deletes the image of somebody else; the service account may be let in
            if not isinstance(container.access, Borrowed) or not self._accounts:
                raise
            container = self._as_service(container, container.access)
            await remove_object(container, name)
        if container.name == self._container_of(name):  # not an old one that many images share
            await self._drop(container)

    def _as_service(self, container: Container, borrowed: Borrowed) -> Container:
        """The same with the token of the service account in place of a caller's."""
        return Container(self._web, Elsewhere(self._own(), borrowed.storage), container.name)

    # rights

    def _rights(self, readers: Sequence[str], *, public: bool = False) -> dict[str, str]:
        """The headers of a container that these projects may read; `public`: everyone whom Keystone knows."""
        if not self._multi:
            return {}
        admins = [f"{project}:*" for project in self._admins]
        read = ["*:*"] if public else [f"{project}:*" for project in readers] + admins
        return {"X-Container-Read": ",".join(read), "X-Container-Write": ",".join(admins)}

    async def share(
        self, url: str, *, readers: Sequence[str], public: bool = False, caller: Caller | None = None
    ) -> None:
        if not self._multi:
            raise Unsupported("it keeps all images in one account: it has no rights of its own")
        container, _ = await self._locate(url, caller)
        headers = self._rights(readers, public=public)
        answer = await container.ask("POST", headers=headers)
        if answer.status in (401, 403) and isinstance(container.access, Borrowed) and self._accounts:
            answer = await self._as_service(container, container.access).ask("POST", headers=headers)
        if not answer.ok:
            raise container.failure(answer.status)


_NOBODY: Final = (
    "images lie in the accounts of their uploaders, and neither a caller's token nor a service account is at hand:"
    " give the store a service account (swift_store_user, swift_store_key)"
)


def _room(found: Answer) -> int | None:
    """Bytes that a quota leaves; None without one."""
    for kind in ("Container", "Account"):
        quota = found.headers.get(f"X-{kind}-Meta-Quota-Bytes")
        if quota is not None:
            return max(0, int(quota) - int(found.headers[f"X-{kind}-Bytes-Used"]))
    return None


def _same_swift(storage: str, root: str) -> bool:
    """Whether the storage URL of some account lies where our accounts lie; `root` is all before the project."""
    return storage.startswith(root) and "/" not in storage[len(root) :] and len(storage) > len(root)
