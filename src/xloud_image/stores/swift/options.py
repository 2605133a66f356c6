"""The swift store as a type: its options, and what globals say about it.

Its sizes are in units of 1000 x 1024 bytes.
"""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from xloud_image.stores.store_type import KEYSTONE, Key, StoreType, same

SWIFT: Final = StoreType(
    name="swift",
    store="xloud_image.stores.swift.store:SwiftStore",
    schemes=("swift", "swift+http", "swift+https", "swift+config"),
    closed_schemes=("swift+config",),
    place=(
        "swift_store_auth_address",
        "swift_store_container",
        "swift_store_user",
        "swift_store_endpoint",
        "swift_store_region",
    ),
    options=(
        cfg.StrOpt("swift_store_auth_address", help="URL of the identity service, with its version."),
        cfg.StrOpt("swift_store_user", secret=True, help="project:user"),
        cfg.StrOpt("swift_store_key", secret=True, help="Password of that user."),
        cfg.StrOpt("swift_store_auth_version", default="3", choices=["3"], help="Only 3."),
        cfg.StrOpt("swift_store_application_credential_id", help="Instead of user and key."),
        cfg.StrOpt("swift_store_application_credential_secret", secret=True, help="Its secret."),
        cfg.StrOpt("swift_store_project_name", help="Project, when the user does not name it."),
        cfg.StrOpt("swift_store_project_id", help="The same by id."),
        cfg.StrOpt("swift_store_config_file", help="INI file of account references."),
        cfg.StrOpt("default_swift_reference", default="ref1", help="Section of that file for new images."),
        cfg.StrOpt("swift_store_container", default="glance", help="Container, or its prefix."),
        cfg.BoolOpt(
            "swift_store_create_container_on_put", default=False, help="Make the container when it is missing."
        ),
        cfg.BoolOpt("swift_store_multi_tenant", default=False, help="Store in the uploader's own account."),
        cfg.IntOpt(
            "swift_store_multiple_containers_seed",
            default=0,
            min=0,
            max=32,
            help="How many first characters of the id name the container; 0: one container.",
        ),
        cfg.ListOpt("swift_store_admin_tenants", default=[], help="Accounts that may read and write the containers."),
        cfg.IntOpt("swift_store_large_object_size", default=5120, min=1, help="From this size on in segments."),
        cfg.IntOpt("swift_store_large_object_chunk_size", default=200, min=1, help="Size of a segment."),
        cfg.BoolOpt("swift_buffer_on_upload", default=False, help="Keep a segment on disk to send it again."),
        cfg.StrOpt("swift_upload_buffer_dir", help="Directory for that."),
        cfg.IntOpt("swift_store_retry_get_count", default=0, min=0, help="How often a broken download is resumed."),
        cfg.StrOpt("swift_store_region", help="Region in the service catalogue."),
        cfg.StrOpt("swift_store_endpoint", help="Fixed URL instead of the catalogue's."),
        cfg.StrOpt(
            "swift_store_endpoint_type",
            default="publicURL",
            choices=["publicURL", "adminURL", "internalURL"],
            help="Interface in the service catalogue.",
        ),
        cfg.StrOpt("swift_store_service_type", default="object-store", help="Type in the service catalogue."),
        cfg.BoolOpt("swift_store_auth_insecure", default=False, help="Do not verify TLS."),
        cfg.StrOpt("swift_store_cacert", help="CA file."),
        cfg.BoolOpt("swift_store_ssl_compression", default=True, help="Without effect: TLS never compresses any more."),
        cfg.IntOpt("swift_store_expire_soon_interval", default=60, min=0, help="Renew a token so many seconds early."),
        cfg.BoolOpt("swift_store_use_trusts", default=True, help="Trusts for long transfers in multi-tenant mode."),
    ),
    switch="glance_backend_swift",
    keys={
        # rendered: the account stays out of the locations in the database
        "swift_store_config_file": None,
        "default_swift_reference": None,
        "swift_store_container": Key("glance", "as it has always been deployed"),
        "swift_store_create_container_on_put": Key(True, "as it has always been deployed"),
        "swift_store_multi_tenant": Key(False, "images in the service's own account"),
        "swift_store_region": same("openstack_region_name"),
        "swift_store_cacert": same("openstack_cacert"),
        "swift_store_auth_address": KEYSTONE,
        "swift_store_user": Key(lambda g: f"service:{g.get('glance_keystone_user')}", "the service's own account"),
        "swift_store_key": same("glance_keystone_password"),
    },
)
