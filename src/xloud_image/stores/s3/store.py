"""The s3 store: an object for each image, in a bucket of Amazon S3, Ceph's gateway or another server of the kind.

Location `s3://host/bucket/key`, with TLS `s3+https://…`, without credentials; older ones that hold some are read with
the configured keys. How a key is claimed: `claim`; filled in parts and discarded: `upload`; read in windows:
`download`. What a server lacks is done without: `capabilities`. Requests are our own, on `kit.web`: no
client hands out unfinished uploads, conditions, the answers of odd servers and time limits as these promises need.

Durable when the server has confirmed the object. Integrity on the way: over http the server verifies the SHA-256 that
signs each body; over https TLS does it, and the signature too when one of the two checksum options asks for it.

Memory of a write: `s3_store_thread_pools` parts of `s3_store_large_object_chunk_size` in flight and one gathered (at
least three parts, which grow above 100 GB: `parts`). Of a read: a chunk received and one with the
reader (`kit.body`), and 256 KiB of up to three requests ahead.

Time: a request ends `PATIENCE` seconds after nothing moved, a part after twice that; refusals are asked again for up to
thirty seconds during a write, a part that met silence once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from xloud_image.errors import BadRange, BlobNotFound, ConfigError, StoreUnavailable
from xloud_image.stores.base import Blob, Caller, Can, Health, Reader, Store, plain_key, span
from xloud_image.stores.kit.chunks import nothing
from xloud_image.stores.kit.web import Web
from xloud_image.stores.s3.answers import Answer
from xloud_image.stores.s3.client import Client
from xloud_image.stores.s3.download import WINDOW, Open, Windows
from xloud_image.stores.s3.listing import abort_all, first_objects
from xloud_image.stores.s3.location import Address
from xloud_image.stores.s3.options import S3
from xloud_image.stores.s3.parts import MIB, Plan
from xloud_image.stores.s3.probe import examine
from xloud_image.stores.s3.signing import Keys
from xloud_image.stores.s3.upload import NoParts, NotCopied, Upload

_log = logging.getLogger(__name__)

_REST: Final = MIB // 2  # bytes of the second part of a sample
_ROUNDS: Final = 5  # of a discard against a writer who is about to end


class S3Store(Store):
    """One bucket."""

    TYPE = S3
    SUMS = True
    PATIENCE: ClassVar[float] = 15.0  # seconds

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.can = Can.WRITE
        for needed in ("host", "access_key", "secret_key", "bucket"):
            if not options[f"s3_store_{needed}"]:
                raise ConfigError(f"s3_store_{needed} is not set")
        self.address = Address.of(
            options["s3_store_host"],
            options["s3_store_bucket"],
            region=options["s3_store_region_name"],
            url_format=options["s3_store_bucket_url_format"],
        )
        part = options["s3_store_large_object_chunk_size"] * MIB
        single = min(options["s3_store_large_object_size"] * MIB, part) or -1
        self._plan = Plan(part, part * options["s3_store_thread_pools"], single)
        self.sample = part + _REST
        self._create_bucket = options["s3_store_create_bucket_on_put"]
        self._web = Web(name, ca_file=options["s3_store_cacert"] or None, connect=self.PATIENCE, idle=2 * self.PATIENCE)
        careful = options["s3_store_enable_data_integrity_protection"] or (
            options["s3_store_request_checksum_calculation"] == "when_supported"
        )
        self._client = Client(
            name,
            self._web,
            self.address,
            Keys(options["s3_store_access_key"], options["s3_store_secret_key"]),
            patience=self.PATIENCE,
            sign_bodies=careful or not self.address.tls,
        )
        self.places = (f"bucket {self.address.place}",)
        self.facts = {
            "host": f"{'https' if self.address.tls else 'http'}://{self.address.host}{self.address.prefix}",
            "bucket": self.address.bucket,
            "bucket_url_format": "virtual" if self.address.virtual else "path",
        }

    async def check(self) -> Health:
        """One HEAD of the bucket; nothing is made. `free`: what the bucket's quota leaves, where the server says it."""
        found = await self._client.ask("HEAD")
        if found.missing:
            if self._create_bucket:
                return Health(f"the bucket {self.address.bucket} is made by the first upload", None, self.facts)
            found = dataclasses.replace(found, code="NoSuchBucket")
        if not found.good:
            raise self._client.refusal(found, writing=True)
        return Health("ok", _free(found), self.facts)

    async def examine(self, key: str | None = None) -> Sequence[str]:
        return await examine(self._client, key)

    async def keys(self, limit: int) -> list[str]:
        return await first_objects(self._client, limit)

    def owns(self, url: str) -> bool:
        return self.address.key_of(url) is not None

    def key(self, url: str) -> str | None:
        return self.address.key_of(url)

    def forms(self, url: str) -> tuple[str, ...]:
        key = self.address.key_of(url)
        return (
            (url,) if key is None else tuple(f"{scheme}://{self.address.place}/{key}" for scheme in self.TYPE.schemes)
        )

    def _key(self, url: str) -> str:
        key = self.address.key_of(url)
        if key is None:
            raise BlobNotFound("it has no such data: the location lies outside its bucket")
        return key

    async def stat(self, url: str, *, caller: Caller | None = None) -> Blob:
        key = self._key(url)
        found = await self._head(key)
        size = found.size if found.size is not None else await self._size(key)
        return Blob(url, size, version=_version(found.tag))

    async def _head(self, key: str) -> Answer:
        """The object's headers. `BlobNotFound` only when the bucket is there without it."""
        found = await self._client.surely("HEAD", key)
        if found.missing:
            bucket = await self._client.surely("HEAD")
            found = dataclasses.replace(found, code="NoSuchBucket") if bucket.missing else found
        if not found.good:
            raise self._client.refusal(found)
        return found

    async def _size(self, key: str) -> int:
        """From a server whose HEAD does not tell."""
        async with contextlib.aclosing(Open(self._client, key, 0, 0, "")) as window:
            try:
                await window.begin()
            except BadRange:
                return 0
            return window.size

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, length: int | None = None, caller: Caller | None = None
    ) -> AsyncIterator[Reader]:
        key = self._key(url)
        if offset < 0 or (length is not None and length < 0):
            raise BadRange("a range begins at byte 0 or later")
        async with contextlib.AsyncExitStack() as stack:
            last = offset + min(WINDOW if length is None else length, WINDOW) - 1
            current = Open(self._client, key, offset, last, "")
            stack.push_async_callback(current.aclose)
            try:
                if length == 0:
                    raise BadRange("nothing")
                await current.begin()
            except BadRange:
                blob = await self.stat(url)  # nothing to read, or nothing there
                if span(blob.size, offset, length)[1]:
                    raise StoreUnavailable("the data was changed while it was being opened") from None
                yield Reader(blob.size, nothing(), version=blob.version)
                return
            _, wanted = span(current.size, offset, length)
            windows = Windows(self._client, key, current, offset + wanted)
            stack.push_async_callback(windows.aclose)
            yield Reader(current.size, windows, version=_version(current.tag))

    async def write(
        self, key: str, source: AsyncIterator[bytes], *, size: int | None, caller: Caller | None = None
    ) -> Blob:
        upload = Upload(self._client, plain_key(key), size, self._plan, create_bucket=self._create_bucket)
        tag = await upload.write(source)
        return Blob(self.address.location(key), upload.total, version=_version(tag))

    async def copy(self, key: str, origin: Store, url: str, *, size: int, caller: Caller | None = None) -> Blob | None:
        """By the server, when it is the same and these keys may read there."""
        plain_key(key)
        if not (isinstance(origin, S3Store) and origin.address.server == self.address.server and size):
            return None
        if (await origin.stat(url)).size != size:
            return None
        where = origin.address.source(origin.key(url) or "")
        upload = Upload(self._client, key, size, self._plan, create_bucket=self._create_bucket)
        try:
            tag = await upload.copy(where)
        except (NoParts, NotCopied) as error:
            _log.info("store %s: %s has to go through here: %s", self.name, key, error.message)
            return None
        return Blob(self.address.location(key), size, version=_version(tag))

    async def discard(self, key: str, *, caller: Caller | None = None) -> None:
        plain_key(key)
        for _ in range(_ROUNDS):
            # the object before the uploads: `upload` says why
            gone = await self._client.surely("DELETE", key)
            if gone.code == "NoSuchBucket":
                return
            if not gone.good and not gone.missing:
                raise self._client.refusal(gone, writing=True)
            if not await abort_all(self._client, key) and (await self._client.head(key)).missing:
                return
        raise StoreUnavailable("somebody goes on writing this data")

    async def delete(self, url: str, *, caller: Caller | None = None) -> None:
        key = self._key(url)
        await self._head(key)
        gone = await self._client.surely("DELETE", key)
        if not gone.good:
            raise self._client.refusal(gone, writing=True)

    async def aclose(self) -> None:
        await self._web.aclose()


def _version(tag: str) -> str | None:
    return tag.strip('"') or None


def _free(found: Answer) -> int | None:
    """What Ceph's gateway says of the bucket's quota; None where there is none, or another server."""
    quota, used = found.headers.get("x-rgw-quota-bucket-size", ""), found.headers.get("x-rgw-bytes-used", "")
    return max(0, int(quota) - int(used)) if quota.isdecimal() and used.isdecimal() else None
