"""The s3 store keeps the contract, over http and https; its options, locations and refusals."""

from typing import Any, ClassVar

from tests.stores.buckets import S3Hooks
from tests.stores.drivers import BY_ITSELF, READING, THROUGH_LAYERS, all_but, tried_above


class TestS3(S3Hooks):
    pass


class TestS3InLayersOverTls(S3Hooks):
    """What connections have to do with."""

    SLOW = True
    WRAPPED = True
    TLS = True
    NOT_APPLICABLE: ClassVar[dict[str, str]] = all_but(
        S3Hooks,
        "test_usable",
        "test_reads_what_is_there",
        "test_leaving_early_closes",
        "test_many_readers_at_once",
        "test_a_hanging_store_answers_in_time",
        "test_writes_what_it_is_given",
        "test_cancelled_at_any_moment_leaves_nothing",
        THROUGH_LAYERS,
    )


class TestS3InParts(S3Hooks):
    """What every image above one part goes through: always parts, here of the smallest size."""

    SLOW = True
    OPTIONS: ClassVar[dict[str, Any]] = {
        "large_object_size": 0,
        "large_object_chunk_size": 5,
        "thread_pools": 2,
    }
    NOT_APPLICABLE: ClassVar[dict[str, str]] = tried_above(*READING, *BY_ITSELF)
