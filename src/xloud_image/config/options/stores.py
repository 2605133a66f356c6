"""The options of every store type as data, so that files can be read before any backend is imported. No parsing here.

A backend's `OPTIONS` is `OPTIONS[its type]`; names, types and defaults are those that operators have in their files.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from oslo_config import cfg

if TYPE_CHECKING:
    from collections.abc import Mapping

# These never take data.
READ_ONLY: Final = frozenset({"http"})
# Other names for a type that stand in old files: URI schemes.
ALIASES: Final[Mapping[str, str]] = {
    "filesystem": "file",
    "vsphere": "vmware",
    "https": "http",
    "swift+http": "swift",
    "swift+https": "swift",
    "swift+config": "swift",
    "s3+http": "s3",
    "s3+https": "s3",
}
# Sections of stores that the service keeps for itself; the API never shows them.
RESERVED: Final = ("os_glance_staging_store", "os_glance_tasks_store")

COMMON: Final[tuple[cfg.Opt, ...]] = (
    cfg.StrOpt("store_description", default="", help="Shown to clients in the list of stores."),
    cfg.IntOpt("weight", default=0, help="Higher is tried first when an image lies in several stores."),
    cfg.BoolOpt(
        "read_only",
        default=False,
        help="The store takes no new images; those that lie in it are read, and removed when they are deleted.",
    ),
)

_FILE = [
    cfg.StrOpt("filesystem_store_datadir", default="/var/lib/glance/images", help="Directory of the images."),
    cfg.MultiStrOpt(
        "filesystem_store_datadirs",
        default=[],
        help="path:priority, several; the highest with room takes the image. Excludes the option above.",
    ),
    cfg.StrOpt("filesystem_store_metadata_file", help='JSON {"id", "mountpoint"} (or a list), added to locations.'),
    cfg.IntOpt(
        "filesystem_store_file_perm",
        default=0,
        min=0,
        max=777,
        help="Mode, octal digits as written; 0: by umask.",
    ),
    cfg.IntOpt("filesystem_store_chunk_size", default=65536, min=1, help="Bytes per read and write."),
    cfg.BoolOpt("filesystem_thin_provisioning", default=False, help="Leave holes where the data is all zeros."),
    cfg.IntOpt(
        "filesystem_store_timeout",
        default=0,
        min=0,
        help="Seconds that one step of a call may take on a hung mount; 0: ten minutes.",
    ),
    cfg.IntOpt("filesystem_store_thread_pool_size", default=10, min=1, help="Threads for calls under that timeout."),
    cfg.IntOpt(
        "filesystem_store_threadpool_threshold",
        default=75,
        min=1,
        max=100,
        help="Per cent of busy threads from which a warning is logged.",
    ),
]

_RBD = [
    cfg.StrOpt("rbd_store_pool", default="images", help="Pool."),
    cfg.StrOpt("rbd_store_user", help="Client name without 'client.'; unset: as ceph.conf says."),
    cfg.StrOpt("rbd_store_ceph_conf", default="", help="Path of ceph.conf; empty: where the library looks."),
    cfg.IntOpt("rbd_store_chunk_size", default=8, min=1, help="MiB of one object and of one write."),
    cfg.IntOpt("rados_connect_timeout", default=-1, help="Seconds; 0 or less: the library's default."),
    cfg.BoolOpt("rbd_thin_provisioning", default=False, help="Do not write parts that are all zeros."),
]

# Sizes of this type are in units of 1000 x 1024 bytes.
_SWIFT = [
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
    cfg.BoolOpt("swift_store_create_container_on_put", default=False, help="Make the container when it is missing."),
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
]

_S3 = [
    cfg.StrOpt("s3_store_host", required=True, help="Host, or http(s)://host[:port]; without a scheme plain http."),
    cfg.StrOpt("s3_store_access_key", secret=True, required=True, help="Access key."),
    cfg.StrOpt("s3_store_secret_key", secret=True, required=True, help="Secret key."),
    cfg.StrOpt("s3_store_bucket", required=True, help="Bucket."),
    cfg.StrOpt("s3_store_region_name", default="", help="Region; empty: from the host."),
    cfg.BoolOpt("s3_store_create_bucket_on_put", default=False, help="Make the bucket when it is missing."),
    cfg.StrOpt("s3_store_bucket_url_format", default="auto", choices=["auto", "virtual", "path"], help="Addressing."),
    cfg.IntOpt("s3_store_large_object_size", default=100, min=0, help="MiB from which on parts are used; 0: always."),
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
]

_VMWARE = [
    cfg.StrOpt("vmware_server_host", required=True, help="Name or address of vCenter or ESXi."),
    cfg.StrOpt("vmware_server_username", required=True, help="User."),
    cfg.StrOpt("vmware_server_password", secret=True, required=True, help="Password."),
    cfg.MultiStrOpt("vmware_datastores", required=True, help="datacenter path:datastore:weight, one or more."),
    cfg.StrOpt("vmware_store_image_dir", default="/openstack_glance", help="Folder in the datastore."),
    cfg.BoolOpt("vmware_insecure", default=False, deprecated_name="vmware_api_insecure", help="Do not verify TLS."),
    cfg.StrOpt("vmware_ca_file", help="CA file; wins over vmware_insecure."),
    cfg.IntOpt("vmware_api_retry_count", default=10, min=0, help="How often a call is tried again."),
    cfg.IntOpt("vmware_task_poll_interval", default=5, min=1, help="Seconds between two looks at a task."),
]

_CINDER = [
    cfg.StrOpt("cinder_catalog_info", default="volumev3::publicURL", help="type:name:interface in the catalogue."),
    cfg.StrOpt("cinder_endpoint_template", help="Fixed URL; %(project_id)s is filled in."),
    cfg.StrOpt("cinder_os_region_name", deprecated_name="os_region_name", help="Region in the service catalogue."),
    cfg.StrOpt("cinder_store_auth_address", help="URL of the identity service for the service account."),
    cfg.StrOpt("cinder_store_user_name", help="Service account."),
    cfg.StrOpt("cinder_store_password", secret=True, help="Its password."),
    cfg.StrOpt("cinder_store_project_name", help="Its project."),
    cfg.StrOpt("cinder_store_user_domain_name", default="Default", help="Domain of the user."),
    cfg.StrOpt("cinder_store_project_domain_name", default="Default", help="Domain of the project."),
    cfg.StrOpt("cinder_store_application_credential_id", help="Instead of user and password."),
    cfg.StrOpt("cinder_store_application_credential_secret", secret=True, help="Its secret."),
    cfg.StrOpt("cinder_volume_type", help="Type of new volumes."),
    cfg.StrOpt("cinder_ca_certificates_file", help="CA file."),
    cfg.BoolOpt("cinder_api_insecure", default=False, help="Do not verify TLS."),
    cfg.IntOpt("cinder_http_retries", default=3, min=0, help="How often a call is tried again."),
    cfg.IntOpt("cinder_state_transition_timeout", default=300, min=1, help="Seconds to wait for a volume's state."),
    cfg.BoolOpt("cinder_use_multipath", default=False, help="Attach by multipath."),
    cfg.BoolOpt("cinder_enforce_multipath", default=False, help="Fail when multipath does not run."),
    cfg.StrOpt("cinder_mount_point_base", default="/var/lib/glance/mnt", help="Where NFS volumes are mounted."),
    cfg.BoolOpt("cinder_do_extend_attached", default=False, help="Grow a volume while it is attached."),
    cfg.IntOpt("cinder_attachment_retry_attempts", default=5, min=0, help="How often attaching is tried again."),
    cfg.StrOpt("rootwrap_config", default="/etc/glance/rootwrap.conf", help="Without effect: no rootwrap is used."),
]

_HTTP = [
    # Upstream's default is True: TLS not verified. Ours verifies, and the loader says so.
    cfg.BoolOpt("https_insecure", default=False, help="Do not verify TLS."),
    cfg.StrOpt("https_ca_certificates_file", help="CA file; wins over https_insecure."),
    # secret: a proxy's name and password may be in it
    cfg.DictOpt("http_proxy_information", default={}, secret=True, help="scheme:proxy pairs."),
]

OPTIONS: Final[Mapping[str, list[cfg.Opt]]] = {
    "file": _FILE,
    "rbd": _RBD,
    "swift": _SWIFT,
    "s3": _S3,
    "vmware": _VMWARE,
    "cinder": _CINDER,
    "http": _HTTP,
    "memory": [],  # for tests: the data goes with the process
}


def directory_of(entry: str, *, priority: bool) -> str:
    """The directory that an entry of `filesystem_store_datadir` names (`priority`: of `…_datadirs`, path:priority).

    ValueError: it is a URL, as other options of the kind have it; the sentence names the path to write.
    """
    entry = entry.strip()
    scheme, colon, rest = entry.partition(":")
    if colon and (rest.startswith("//") or scheme in ("file", "filesystem")):
        path = f"/{rest.lstrip('/')}"
        raise ValueError(f"'{entry}' is a URL; a directory is written as it is: {path}")
    return (entry.rpartition(":")[0] or entry) if priority else entry


def type_of(name: str) -> str | None:
    """The store type that a name in a file means: a type, or a URI scheme of one. None: no type has this name."""
    name = name.strip().lower()
    return name if name in OPTIONS else ALIASES.get(name)


@dataclasses.dataclass(frozen=True, slots=True)
class UrlFilters:
    """[import_filtering_opts]: which http and https URLs may be registered, and `location_networks` of [xloud].

    `chosen`: the operator set one of the lists; without that they count for nothing. Of each pair the list of what is
    allowed counts when it is not empty, else that of what is not; empty ones restrict nothing. Hosts are lower case.
    `networks` (CIDR): addresses from which everybody may register, private, of loopback or link-local ones included.
    """

    chosen: bool = False
    allowed_schemes: tuple[str, ...] = ()
    disallowed_schemes: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    disallowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = ()
    disallowed_ports: tuple[int, ...] = ()
    networks: tuple[str, ...] = ()
