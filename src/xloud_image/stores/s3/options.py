"""The s3 store as a type: its options, and what globals say about it."""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from xloud_image.stores.store_type import Key, StoreType

S3: Final = StoreType(
    name="s3",
    store="xloud_image.stores.s3.store:S3Store",
    schemes=("s3", "s3+http", "s3+https"),
    place=("s3_store_host", "s3_store_bucket"),
    options=(
        cfg.StrOpt("s3_store_host", required=True, help="Host, or http(s)://host[:port]; without a scheme plain http."),
        cfg.StrOpt("s3_store_access_key", secret=True, required=True, help="Access key."),
        cfg.StrOpt("s3_store_secret_key", secret=True, required=True, help="Secret key."),
        cfg.StrOpt("s3_store_bucket", required=True, help="Bucket."),
        cfg.StrOpt("s3_store_region_name", default="", help="Region; empty: from the host."),
        cfg.BoolOpt("s3_store_create_bucket_on_put", default=False, help="Make the bucket when it is missing."),
        cfg.StrOpt(
            "s3_store_bucket_url_format", default="auto", choices=["auto", "virtual", "path"], help="Addressing."
        ),
        cfg.IntOpt(
            "s3_store_large_object_size", default=100, min=0, help="MiB from which on parts are used; 0: always."
        ),
        cfg.IntOpt("s3_store_large_object_chunk_size", default=10, min=5, help="MiB of a part; grows with the image."),
        cfg.IntOpt("s3_store_thread_pools", default=10, min=1, help="Parts in flight."),
        cfg.StrOpt("s3_store_cacert", default="", help="CA file."),
        cfg.BoolOpt("s3_store_enable_data_integrity_protection", default=False, help="Checksums on every request."),
        cfg.StrOpt(
            "s3_store_request_checksum_calculation",
            default="when_required",
            choices=["when_required", "when_supported"],
            help="When requests carry a checksum.",
        ),
        cfg.StrOpt(
            "s3_store_response_checksum_validation",
            default="when_required",
            choices=["when_required", "when_supported"],
            help="When checksums of answers are verified.",
        ),
    ),
    switch="glance_backend_s3",
    keys={
        "s3_store_host": Key(also=("glance_backend_s3_url",), last=("s3_url",)),
        "s3_store_access_key": Key(also=("glance_backend_s3_access_key",), last=("s3_access_key",)),
        "s3_store_secret_key": Key(also=("glance_backend_s3_secret_key",), last=("s3_secret_key",)),
        "s3_store_bucket": Key(also=("glance_backend_s3_bucket",), last=("s3_bucket",)),
    },
)
