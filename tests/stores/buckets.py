"""The s3 store against a real gateway behind the hooks of the suite; what lies behind its back is seen by boto3."""

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from botocore.config import Config

from tests.servers.place import HOST
from tests.servers.rgw import Rgw
from tests.stores.drivers import NOTHING_DEPENDS
from xloud_image.stores.base import Store
from xloud_image.stores.layers import Layer, wrap
from xloud_image.stores.s3.store import S3Store
from xloud_image.stores.suite import StoreSuite

CLAIM = 32  # bytes of the object that claims a key


class Impatient(S3Store):
    """A test need not wait for a frozen gateway as long as an operator would."""

    PATIENCE = 5.0


def s3_options(rgw: Rgw, bucket: str, *, tls: bool = False, **given: Any) -> dict[str, Any]:
    """Every option of the store: the defaults, the gateway's, and what is given by its name without `s3_store_`."""
    options = {option.name: option.default for option in S3Store.TYPE.options}
    gateway = {
        "host": rgw.tls_url if tls else rgw.url,
        "access_key": rgw.access,
        "secret_key": rgw.secret,
        "bucket": bucket,
        "cacert": str(rgw.ca) if tls else "",
    }
    for name, value in (gateway | given).items():
        assert f"s3_store_{name}" in options
        options[f"s3_store_{name}"] = value
    return options


@functools.cache
def boto(rgw: Rgw, *, tls: bool) -> Any:
    """boto3's client of the gateway; one for the session, for any thread."""
    how = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
        proxies={},
    )
    return boto3.client(
        "s3",
        endpoint_url=rgw.tls_url if tls else rgw.url,
        aws_access_key_id=rgw.access,
        aws_secret_access_key=rgw.secret,
        region_name="us-east-1",
        verify=str(rgw.ca) if tls else None,
        config=how,
    )


def new_bucket(rgw: Rgw, *, tls: bool = False) -> str:
    """An empty bucket of its own; its name."""
    name = f"b-{secrets.token_hex(6)}"
    boto(rgw, tls=tls).create_bucket(Bucket=name)
    return name


def sockets(port: int) -> int:
    """Open sockets of this process to a port of the test host."""
    mine = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            mine.add(os.readlink(f"/proc/self/fd/{entry}").removeprefix("socket:[").removesuffix("]"))
    there = "".join(f"{int(part):02X}" for part in reversed(HOST.split("."))) + f":{port:04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == there and row[9] in mine for row in rows)


def bare(store: Store) -> S3Store:
    """The store without its layers."""
    while isinstance(store, Layer):
        store = store.inner
    assert isinstance(store, S3Store)
    return store


class S3Hooks(StoreSuite):
    """A store in a bucket of its own. TLS: over https, and boto3 over http; otherwise the other way round, so that
    the store's connections can be told from boto3's."""

    WRAPPED: ClassVar[bool] = False
    COPIES: ClassVar[bool] = True
    TLS: ClassVar[bool] = False
    OPTIONS: ClassVar[dict[str, Any]] = {}
    NOT_APPLICABLE: ClassVar[dict[str, str]] = NOTHING_DEPENDS

    @pytest.fixture
    def prepared(self, rgw: Rgw) -> None:
        self.rgw = rgw
        self.boto = boto(rgw, tls=not self.TLS)
        self.bucket = new_bucket(rgw, tls=not self.TLS)
        self.SECRETS = (rgw.secret, rgw.access)  # type: ignore[misc]

    async def make(self) -> Store:
        store = Impatient("cold", s3_options(self.rgw, self.bucket, tls=self.TLS, **self.OPTIONS))
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        def get() -> bytes | None:
            try:
                data: bytes = self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.boto.exceptions.NoSuchKey:
                return None
            return data

        return await asyncio.to_thread(get)

    async def put_behind(self, key: str, data: bytes) -> str:
        await asyncio.to_thread(self.boto.put_object, Bucket=self.bucket, Key=key, Body=data)
        scheme = "s3+https" if self.TLS else "s3"
        return f"{scheme}://{HOST}:{self.rgw.tls_port if self.TLS else self.rgw.port}/{self.bucket}/{key}"

    async def leftovers(self) -> list[str]:
        def find() -> list[str]:
            found = self.boto.list_multipart_uploads(Bucket=self.bucket)
            assert not found["IsTruncated"]
            left = [f"upload of {upload['Key']}" for upload in found.get("Uploads", ())]
            for item in self.boto.list_objects_v2(Bucket=self.bucket).get("Contents", ()):
                if item["Size"] == CLAIM:
                    head = self.boto.head_object(Bucket=self.bucket, Key=item["Key"])
                    left += [f"claim of {item['Key']}"] if "xloud-claim" in head["Metadata"] else []
            return left

        return await asyncio.to_thread(find)

    async def leave_behind(self, key: str) -> bool:
        def leave() -> None:
            self.boto.put_object(
                Bucket=self.bucket, Key=key, Body=b"c" * CLAIM, Metadata={"xloud-claim": "x", "xloud-write": "x"}
            )
            for size in (5 << 20, 100):
                made = self.boto.create_multipart_upload(Bucket=self.bucket, Key=key)
                self.boto.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=made["UploadId"], PartNumber=1, Body=bytes(size)
                )

        await asyncio.to_thread(leave)
        return True

    @contextlib.asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.rgw.freeze()
        try:
            yield
        finally:
            self.rgw.thaw()

    def handles(self) -> int:
        """Connections of the store but for those that wait for the next request."""
        count = sockets(self.rgw.tls_port if self.TLS else self.rgw.port)
        if hasattr(self, "store"):
            session = bare(self.store)._web._session
            if session is not None and session.connector is not None:
                count -= sum(map(len, session.connector._conns.values()))  # type: ignore[attr-defined]
        return count
