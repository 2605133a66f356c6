"""The s3 store keeps the contract, over http and https; its options, locations and refusals."""

from typing import Any, ClassVar

from tests.stores.buckets import S3Hooks


class TestS3(S3Hooks):
    pass


class TestS3InLayersOverTls(S3Hooks):
    SLOW = True  # fewer cases: those of the class above are for all
    WRAPPED = True
    TLS = True


class TestS3InParts(S3Hooks):
    """What every image above one part goes through: always parts, here of the smallest size."""

    SLOW = True
    OPTIONS: ClassVar[dict[str, Any]] = {
        "large_object_size": 0,
        "large_object_chunk_size": 5,
        "thread_pools": 2,
    }
