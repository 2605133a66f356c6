"""The s3 store on real servers that nobody tuned for: the contract on each, but for what is declared to be lacking."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers.place import HOST
from tests.servers.rgw import Rgw
from tests.servers.s3 import LocalBucket, Moto, Pys3local, Rclone, SwiftS3
from tests.stores import s3_table
from tests.stores.buckets import CLAIM, Impatient, S3Hooks, bare
from tests.stores.drivers import BY_ITSELF, NOTHING_DEPENDS, tried_above
from xloud_image.stores.base import Store
from xloud_image.stores.s3.capabilities import Lack

RACE = "test_one_key_at_once_has_one_winner"
UNCONDITIONAL = {
    **NOTHING_DEPENDS,
    RACE: "its server obeys no If-None-Match: the first to finish wins, others may be cut",
}


@pytest.fixture(scope="class")
def running(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The server of a class."""
    server = request.cls.SERVER()
    try:
        server.start()
        yield server
    finally:
        server.close()


class ServerHooks(S3Hooks):
    """A server for the class, a bucket for each test. LACKS: what it lacks, all of it."""

    SERVER: ClassVar[Any]
    LACKS: ClassVar[frozenset[Lack]] = frozenset()
    SLOW = True
    NOT_APPLICABLE: ClassVar[dict[str, str]] = tried_above(*BY_ITSELF)
    server: Any

    @pytest.fixture
    def prepared(self, running: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        self.server = running
        self.boto = boto3.client(
            "s3",
            endpoint_url=running.url,
            aws_access_key_id=running.access,
            aws_secret_access_key=running.secret,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 2},
                proxies={},
            ),
        )
        self.bucket = f"b-{abs(hash(request.node.nodeid)):x}"
        self.boto.create_bucket(Bucket=self.bucket)
        self.SECRETS = (running.secret, running.access)  # type: ignore[misc]
        yield
        self.boto.close()

    async def make(self) -> Store:
        given = {"large_object_chunk_size": 5, "thread_pools": 2, **self.OPTIONS}
        return Impatient("cold", s3_table.options(self.server, self.bucket, **given))

    async def peek(self, key: str) -> bytes | None:
        def get() -> bytes | None:
            try:
                data: bytes = self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                return None
            return data

        return await asyncio.to_thread(get)

    async def put_behind(self, key: str, data: bytes) -> str:
        await asyncio.to_thread(self.boto.put_object, Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{HOST}:{self.server.port}/{self.bucket}/{key}"

    async def leftovers(self) -> list[str]:
        def find() -> list[str]:
            left = self.uploads()
            for item in self.boto.list_objects_v2(Bucket=self.bucket).get("Contents", ()):
                if item["Size"] == CLAIM:
                    body = self.boto.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
                    left += [f"claim of {item['Key']}"] if re.fullmatch(b"[0-9a-f]{32}", body) else []
            return left

        return await asyncio.to_thread(find)

    def uploads(self) -> list[str]:
        """The unfinished ones, as far as they can be seen."""
        if Lack.LISTING in self.LACKS:
            return []
        found = self.boto.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())
        return [f"upload of {upload['Key']}" for upload in found]

    def handles(self) -> int:
        """Connections that serve a request now."""
        session = bare(self.store)._web._session if hasattr(self, "store") else None
        return 0 if session is None or session.connector is None else len(session.connector._acquired)

    async def leave_behind(self, key: str) -> bool:
        if Lack.PARTS not in self.LACKS:
            return await super().leave_behind(key)
        await self.put_behind(key, b"c" * CLAIM)
        return True

    @property
    def rgw(self) -> Any:  # type: ignore[override]
        """What `hang` freezes."""
        return self.server

    async def test_what_it_lacks(self) -> None:
        """All that is declared, and nothing else."""
        result, small, store = await s3_table.examined(self.server, self.bucket)
        assert small
        assert result.ok == (Lack.PARTS not in self.LACKS), result.detail
        assert set(store._client.known.lacking) == self.LACKS

    async def test_the_table_says_so(self) -> None:
        line = await asyncio.to_thread(s3_table.row, self.SERVER.NAME, self.server, self.bucket)
        assert s3_table.rows().get(self.SERVER.NAME) == line, f"docs/stores.md is written by {s3_table.COMMAND}"


class TestMoto(ServerHooks):
    SERVER = Moto


class TestRclone(ServerHooks):
    MAY_NOT_COPY: ClassVar[bool] = True
    SERVER = Rclone
    NOT_APPLICABLE: ClassVar[dict[str, str]] = UNCONDITIONAL
    LACKS = frozenset({Lack.CREATE, Lack.REPLACE, Lack.LISTING})


class TestLocalBucket(ServerHooks):
    SERVER = LocalBucket
    LACKS = frozenset({Lack.REPLACE, Lack.METADATA, Lack.LISTING})


class TestPys3local(ServerHooks):
    MAY_NOT_COPY: ClassVar[bool] = True
    SERVER = Pys3local
    NOT_APPLICABLE: ClassVar[dict[str, str]] = UNCONDITIONAL
    LACKS = frozenset({Lack.CREATE, Lack.REPLACE, Lack.METADATA, Lack.LISTING, Lack.RANGES, Lack.PARTS})


class TestSwift(ServerHooks):
    SERVER = SwiftS3
    NOT_APPLICABLE: ClassVar[dict[str, str]] = {
        **NOTHING_DEPENDS,
        RACE: "Swift looks at If-None-Match before the data comes: several at the very same moment pass it, one wins",
    }
    LACKS = frozenset({Lack.REPLACE})


def test_cephs_gateway_is_in_the_table(rgw: Rgw, tmp_path: Path) -> None:
    line = s3_table.row(s3_table.RGW, rgw, f"table-{abs(hash(str(tmp_path))):x}")
    assert s3_table.rows().get(s3_table.RGW) == line, f"docs/stores.md is written by {s3_table.COMMAND}"
    assert list(s3_table.rows()) == [s3_table.RGW, *(kind.NAME for kind in s3_table.SERVERS)]
