"""What the service was told, as frozen values, and the statement of each option that is one: section, name, type,
default, help. No file is read here; `config.loader` makes these. Other options stand in `config.options`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from oslo_config import cfg

from xloud_image.config.options.kinds import option
from xloud_image.stores import TYPES
from xloud_image.stores.kit.filters import UrlFilters

_TOKEN: Final = "keystone_authtoken"  # noqa: S105 - the name of a section
_LIMIT: Final = "oslo_limit"


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where and how the service listens. Times in seconds, sizes in bytes."""

    bind_host: str = option("DEFAULT", "127.0.0.1", "Address to listen on.")
    bind_port: int = option("DEFAULT", 9292, "Port to listen on.", min=0, max=65535)
    workers: int = 1
    backlog: int = option("DEFAULT", 4096, "Connections that may wait to be accepted.", min=1)
    tcp_keepidle: int = option("DEFAULT", 600, "Seconds until an idle connection is probed.", min=1)
    client_socket_timeout: int = option(
        "DEFAULT", 900, "Seconds without a byte sent or taken until a client is cut; 0: no limit.", min=0
    )
    http_keepalive: bool = option("DEFAULT", True, "Serve several requests a connection.")
    max_header_line: int = option("DEFAULT", 16384, "Bytes of one header line.", min=1024)
    public_endpoint: str | None = option("DEFAULT", None, "Base URL in the version list.")
    max_request_id_length: int = option("DEFAULT", 64, "Characters of a request id that we pass on.", min=0)
    # 128 properties of 65535 characters of 4 bytes each fit in
    max_request_body_size: int = option("oslo_middleware", 37748736, "Bytes of a body that is not data.", min=1024)
    enable_proxy_headers_parsing: bool = option("oslo_middleware", False, "Trust X-Forwarded-* and Forwarded.")
    graceful_timeout: int = option("xloud", 60, "Seconds that transfers get on stop and reload.", min=0)
    shutdown_delay: int = option(
        "xloud", 0, "Before a stop, seconds of 503 at the health check, for balancers to see it.", min=0
    )
    metrics: bool = option("xloud", False, "Serve Prometheus metrics at /metrics, for administrators and services.")
    metrics_port: int = option(
        "xloud", 0, "Serve /metrics on this port as well, to everybody who can reach it; 0: not.", min=0, max=65535
    )
    metrics_host: str = option("xloud", "127.0.0.1", "Address of `metrics_port`.")
    metrics_compat: bool = option(
        "xloud", False, "Also with the names of openstack-exporter, which tell ids, names and owners of images."
    )
    state_dir: str = option("xloud", "/var/lib/xloud-image", "Directory of what the service keeps itself.")

    @property
    def counts(self) -> bool:
        """Whether anybody can ask for numbers."""
        return self.metrics or bool(self.metrics_port)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Paging and counting limits; -1 is no limit. Sizes in bytes."""

    limit_param_default: int = option("DEFAULT", 25, "Page size when a client names none.", min=1)
    api_limit_max: int = option("DEFAULT", 1000, "Largest page.", min=1)
    image_size_cap: int = option("DEFAULT", 1099511627776, "Bytes of one image.", min=1, max=2**63 - 1)
    image_member_quota: int = option("DEFAULT", 128, "Members of an image; negative: no limit.")
    image_property_quota: int = option("DEFAULT", 128, "Properties of an image; negative: no limit.")
    image_tag_quota: int = option("DEFAULT", 128, "Tags of an image; negative: no limit.")
    image_location_quota: int = option("DEFAULT", 10, "Locations of an image; negative: no limit.")


def _once_in_default(name: str) -> list[cfg.DeprecatedOpt]:
    return [cfg.DeprecatedOpt(name, "DEFAULT")]


@dataclasses.dataclass(frozen=True, slots=True)
class Formats:
    """Which formats exist here and how strictly data must match them."""

    container_formats: tuple[str, ...] = option(
        "image_format",
        ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"),
        "Allowed container formats.",
        deprecated_opts=_once_in_default("container_formats"),
    )
    disk_formats: tuple[str, ...] = option(
        "image_format",
        ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"),
        "Allowed disk formats.",
        deprecated_opts=_once_in_default("disk_formats"),
    )
    vmdk_allowed_types: tuple[str, ...] = option(
        "image_format", ("streamOptimized", "monolithicSparse"), "Allowed kinds of VMDK."
    )
    require_image_format_match: bool = option("image_format", True, "Refuse data that is not its disk_format.")
    gpt_safety_checks_nonfatal: tuple[str, ...] = option("image_format", (), "GPT checks that only warn.")


@dataclasses.dataclass(frozen=True, slots=True)
class Exposure:
    """What of an image's locations clients may see or change."""

    show_image_direct_url: bool = option("DEFAULT", False, "Show direct_url to clients.")
    show_multiple_locations: bool = option("DEFAULT", False, "Show locations, and let clients change them.")
    do_secure_hash: bool = option("DEFAULT", True, "Hash the data of locations that are added.")
    http_retries: int = option("DEFAULT", 3, "How often that is tried again.", min=0)
    verify_locations: bool = option(
        "xloud",
        False,
        "Read the data of every location that is added by PATCH: make and show their digests, and let neither "
        "validation_data nor a further location count before it was compared with the data.",
    )
    users_register_store_urls: bool = option(
        "xloud",
        False,
        "Let members register data of our own stores by URL, not services and administrators only.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ImportSettings:
    """Imports, and the processes that do long work. `task_time_to_live` in hours.

    plugins: what is done with the data on the way, in the order of the work and not of the file. inject: properties
    that images get, but for those whose callers have one of the roles `ignore_user_roles`. ovf_metadata_file: names the
    properties of OVFs that images of administrators get.
    """

    enabled_import_methods: tuple[str, ...] = ()
    image_import_plugins: tuple[str, ...] = ()
    output_format: str = option(
        "image_conversion", "raw", "Disk format that image_conversion makes.", choices=["raw", "qcow2", "vmdk"]
    )
    conversion_sandbox: str = option(
        "xloud",
        "required",
        "Whether qemu may convert images where no sandbox for it stands.",
        choices=["required", "none"],
    )
    work_dir: str = ""
    ovf_metadata_file: str | None = None
    inject: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignore_user_roles: tuple[str, ...] = option(
        "inject_metadata_properties", ("admin",), "Roles of callers whose imports get no properties."
    )
    download_properties: tuple[str, ...] = ()
    checksums_keyring: str | None = option(
        "xloud", None, "Keyring (gpgv) by which vendors' files of checksums are verified; unset: they are not."
    )
    staging_store: str | None = option(
        "xloud",
        None,
        "Id of the store in which data waits for its import, or for its rest; unset: a directory, "
        "[os_glance_staging_store] or node_staging_uri.",
    )
    upload_lifetime: int = option(
        "xloud", 72, "Hours after which an upload in several requests that nobody finished is given up.", min=1
    )
    task_time_to_live: int = option("task", 48, "Hours for which a task is kept once it has ended.", min=0)
    job_workers: int = option(
        "xloud",
        1,
        "Processes beside the API that do long work; 0: `xloud-image worker` does it elsewhere.",
        min=0,
        max=64,
    )
    jobs_at_once: int = option("xloud", 4, "Jobs that one of them does at once.", min=1, max=256)


@dataclasses.dataclass(frozen=True, slots=True)
class CacheSettings:
    """The image cache of this node; without a directory there is none. Sizes in bytes, times in seconds."""

    image_cache_dir: str | None = option(
        "DEFAULT", None, "Directory of the image cache; a flavor that names no cache leaves it off."
    )
    image_cache_max_size: int = option("DEFAULT", 10 * 1024**3, "Bytes that the cache never exceeds.", min=0)
    image_cache_stall_time: int = option(
        "DEFAULT", 86400, "Seconds without a byte after which an image on its way into the cache is given up.", min=0
    )
    image_cache_driver: str = option(
        "DEFAULT",
        "centralized_db",
        "centralized_db: the database tells which nodes have cached an image, by worker_self_reference_url. The "
        "files themselves are the index with each of them.",
        choices=["centralized_db", "sqlite", "xattr"],
    )
    worker_self_reference_url: str | None = option(
        "DEFAULT", None, "This node's URL, under which the database tells what it has cached."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class MessagingSettings:
    """The operator's message bus. `options`: (section, name, value) of every line of the files that oslo.messaging may
    want to read, as written."""

    transport_url: str | None = dataclasses.field(default=None, repr=False)
    # lines, and not what they mean: two files that say the same are the same
    options: tuple[tuple[str, str, str], ...] = dataclasses.field(default=(), repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class NotificationSettings:
    """What is told of changes, and to whom. `drivers`: how it is sent; none: nothing is told. `transport_url`: where
    another bus than that of the service takes it."""

    drivers: tuple[str, ...] = ()
    topics: tuple[str, ...] = option(
        "oslo_messaging_notifications", ("notifications",), "Topics that notifications are sent to."
    )
    transport_url: str | None = option(
        "oslo_messaging_notifications", None, "Message bus of notifications; unset: transport_url.", secret=True
    )
    default_publisher_id: str = option("DEFAULT", "image.localhost", "Publisher of the notifications.")
    disabled_notifications: tuple[str, ...] = option(
        "DEFAULT", (), "Types (image.send), and groups of types (image), of which nothing is told."
    )
    events_kept: int = option("xloud", 1000000, "Notifications that wait for the message bus at most.", min=1)
    events_kept_hours: int = option("xloud", 72, "Hours for which one waits at most.", min=1)


@dataclasses.dataclass(frozen=True, slots=True)
class AuditMap:
    """The operator's words for what calls do. actions: the last step of a path, or it and a method (`deactivate/post`),
    to an action; paths: steps that hold many things, to what each of them is called; services: types of the catalogue
    to types of CADF."""

    actions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    services: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class AuditSettings:
    """What is told of calls (CADF), and to whom; no driver: nothing is. `service_type`: ours in the catalogue."""

    drivers: tuple[str, ...] = ()
    topics: tuple[str, ...] = ("notifications",)
    transport_url: str | None = dataclasses.field(default=None, repr=False)
    ignored_methods: frozenset[str] = frozenset()
    ignored_paths: frozenset[str] = frozenset()
    service_type: str = "image"
    map: AuditMap = dataclasses.field(default_factory=AuditMap)


@dataclasses.dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """`connection` is a SQLAlchemy URL as operators have it (mysql+pymysql://…); the driver is chosen by us."""

    connection: str = dataclasses.field(repr=False)
    connection_recycle_time: int = option("database", 3600, "Seconds.", deprecated_name="idle_timeout")
    max_pool_size: int = option("database", 5, "Connections kept by a worker; 0: no limit.", min=0)
    max_overflow: int = option("database", 50, "Connections beyond these for a burst.")
    max_retries: int = option("database", 10, "At start; -1: for ever.", min=-1)
    retry_interval: int = option("database", 10, "Seconds between these.", min=0)
    mysql_sql_mode: str = option("database", "TRADITIONAL", "sql_mode of MySQL sessions; empty: the server's.")
    metadata_encryption_key: str | None = option(
        "DEFAULT", None, "Key (16, 24 or 32 characters) of the URLs of locations in the database.", secret=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class KeystoneSettings:
    """[keystone_authtoken]. `auth` holds the options of the auth plugin (auth_url, username, password, …) by name."""

    auth_type: str = option(_TOKEN, "password", "Plugin of keystoneauth.", deprecated_name="auth_plugin")
    auth: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    www_authenticate_uri: str | None = option(_TOKEN, None, "URL of Keystone for clients.", deprecated_name="auth_uri")
    region_name: str | None = option(_TOKEN, None, "Region in the service catalogue.")
    interface: str = option(_TOKEN, "internal", "Interface of Keystone.", choices=["internal", "public", "admin"])
    cafile: str | None = option(_TOKEN, None, "CA file.")
    certfile: str | None = option(_TOKEN, None, "Client certificate.")
    keyfile: str | None = option(_TOKEN, None, "Its key.")
    insecure: bool = option(_TOKEN, False, "Do not verify TLS.")
    http_connect_timeout: int = option(_TOKEN, 5, "Seconds.", min=1)
    http_request_max_retries: int = option(_TOKEN, 3, "How often a call is tried again.", min=0)
    memcached_servers: tuple[str, ...] = option(_TOKEN, (), "host:port of each.", deprecated_name="memcache_servers")
    memcache_security_strategy: str | None = option(
        _TOKEN,
        None,
        "How tokens are protected in memcached.",
        choices=["None", "MAC", "ENCRYPT"],
        ignore_case=True,
    )
    memcache_secret_key: str | None = option(_TOKEN, None, "Key for that.", secret=True)
    token_cache_time: int = option(_TOKEN, 300, "Seconds that a checked token is kept; -1: never.", min=-1)
    service_token_roles: tuple[str, ...] = option(_TOKEN, ("service",), "Roles of which a service token needs one.")
    # the newest middleware requires the roles; a reference that says false is older
    service_token_roles_required: bool = option(_TOKEN, True, "Refuse service tokens without these roles.")
    service_type: str = option(_TOKEN, "image", "Our type, for access rules of application credentials.")


@dataclasses.dataclass(frozen=True, slots=True)
class BarbicanSettings:
    """[barbican]: where certificates of signed images are."""

    barbican_endpoint: str | None = option("barbican", None, "URL of Barbican; unset: that of the catalogue.")
    barbican_endpoint_type: str = option(
        "barbican", "public", "Interface in the catalogue.", choices=["public", "internal", "admin"]
    )
    barbican_region_name: str | None = option("barbican", None, "Region in the catalogue.")
    verify_ssl: bool = option("barbican", True, "Verify TLS.")
    verify_ssl_path: str | None = option("barbican", None, "CA file; unset: that of [keystone_authtoken].")


@dataclasses.dataclass(frozen=True, slots=True)
class SigningSettings:
    """How signatures of images are verified."""

    signature_certificates: str | None = option(
        "xloud", None, "Directory of certificates for img_signature_certificate_uuid, by their ids, before Barbican."
    )
    barbican: BarbicanSettings = dataclasses.field(default_factory=BarbicanSettings)


@dataclasses.dataclass(frozen=True, slots=True)
class DeletionSettings:
    """What becomes of the data of deleted images."""

    delayed_delete: bool = option("DEFAULT", False, "Keep the data of deleted images for scrub_time.")
    scrub_time: int = option("DEFAULT", 0, "Seconds for which they are kept then.", min=0)


@dataclasses.dataclass(frozen=True, slots=True)
class LimitSettings:
    """[oslo_limit]: how Keystone is asked what projects may have. `auth` as in `KeystoneSettings`."""

    auth_type: str = option(_LIMIT, "password", "Plugin of keystoneauth.", deprecated_name="auth_plugin")
    auth: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    region_name: str | None = option(_LIMIT, None, "Region of Keystone in the service catalogue.")
    valid_interfaces: tuple[str, ...] = option(_LIMIT, ("internal",), "Interface of Keystone; the first one counts.")
    cafile: str | None = option(_LIMIT, None, "CA file.")
    certfile: str | None = option(_LIMIT, None, "Client certificate.")
    keyfile: str | None = option(_LIMIT, None, "Its key.")
    insecure: bool = option(_LIMIT, False, "Do not verify TLS.")
    timeout: int = option(_LIMIT, 5, "Seconds for an answer.", min=1)
    endpoint_id: str | None = option(_LIMIT, None, "Our endpoint in Keystone, for whose service limits are registered.")
    endpoint_service_type: str = option(_LIMIT, "image", "Without endpoint_id: the type of that service.")
    endpoint_service_name: str | None = option(_LIMIT, None, "Without endpoint_id: its name.")
    endpoint_region_name: str | None = option(_LIMIT, None, "Without endpoint_id: the region of the limits.")


@dataclasses.dataclass(frozen=True, slots=True)
class QuotaSettings:
    """What a project may have. user_storage_quota: bytes of data, 0: any; it does not count beside Keystone's limits.
    `keystone`: None unless use_keystone_limits."""

    user_storage_quota: int = 0
    use_keystone_limits: bool = option("DEFAULT", False, "Projects have the limits that Keystone knows.")
    limits_cache_time: int = option("xloud", 60, "Seconds that limits from Keystone are kept.", min=0)
    keystone: LimitSettings | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who is let in: `method` is keystone, http_basic or none."""

    method: str = "none"
    allow_anonymous_access: bool = option("DEFAULT", False, "Let callers without a token read public images.")
    http_basic_user_file: str | None = option("xloud", None, "htpasswd file (bcrypt) of auth = http_basic.")
    http_basic_projects_file: str | None = option("xloud", None, "Project and roles of each of its users.")
    none_project: str = option("xloud", "0" * 31 + "1", "Project of the one caller of auth = none.")
    none_user: str = option("xloud", "0" * 31 + "1", "User of the one caller of auth = none.")
    keystone: KeystoneSettings | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PolicySettings:
    """Where the operator's rules stand; paths are absolute. `policy_file` may be missing only if not named."""

    policy_file: str | None = None
    policy_dirs: tuple[str, ...] = ()
    property_protection_file: str | None = None
    property_protection_rule_format: str = option(
        "DEFAULT",
        "roles",
        "What the file of property protection names: roles, or policies (rules of the policy file).",
        choices=["roles", "policies"],
        ignore_case=True,
    )
    enforce_scope: bool = option("oslo_policy", True, "Refuse tokens of a scope that a rule does not name.")
    enforce_new_defaults: bool = option("oslo_policy", True, "Without the deprecated rules beside the new ones.")


@dataclasses.dataclass(frozen=True, slots=True)
class HealthSettings:
    """[healthcheck]."""

    path: str = option("healthcheck", "/healthcheck", "Path of the health check.")
    disable_by_file_path: str | None = option(
        "healthcheck", "/etc/glance/healthcheck_disable", "While this file exists the answer is 503."
    )


_ALLOWED_HEADERS: Final = (
    "Content-MD5 X-Image-Meta-Checksum X-Storage-Token Accept-Encoding X-Auth-Token X-Identity-Status X-Roles "
    "X-Service-Catalog X-User-Id X-Tenant-Id X-OpenStack-Request-ID"
)
_EXPOSED_HEADERS: Final = "X-Image-Meta-Checksum X-Auth-Token X-Subject-Token X-Service-Token X-OpenStack-Request-ID"


@dataclasses.dataclass(frozen=True, slots=True)
class CorsSettings:
    """[cors]; no allowed origin: CORS is off."""

    allowed_origin: tuple[str, ...] = option("cors", (), "Origins of web pages that may call.")
    allow_credentials: bool = option("cors", True, "Let them send credentials.")
    allow_methods: tuple[str, ...] = option("cors", ("GET", "PUT", "POST", "DELETE", "PATCH"), "Allowed methods.")
    allow_headers: tuple[str, ...] = option("cors", tuple(_ALLOWED_HEADERS.split()), "Request headers they may send.")
    expose_headers: tuple[str, ...] = option("cors", tuple(_EXPOSED_HEADERS.split()), "Answer headers they may read.")
    max_age: int = option("cors", 3600, "Seconds that a browser may keep the answer.", min=0)


@dataclasses.dataclass(frozen=True, slots=True)
class StoreSettings:
    """One store. `options` has every option of its type by name, checked and with defaults filled in.

    `reserved`: the staging and tasks stores are reserved and never shown by the API. `read_only`: only what is in it
    counts; it is read and removed there. `import_format`: a disk format, "as_is", or "" for that of image_conversion.
    """

    id: str
    type: str
    description: str = ""
    weight: int = 0
    reserved: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    read_only: bool = False
    import_format: str = ""

    @property
    def takes_images(self) -> bool:
        """Whether new images can be put there."""
        return not self.read_only and TYPES[self.type].takes_data


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All of it. `multi_store` is false in the legacy single-store style (no `enabled_backends`)."""

    server: Server
    limits: Limits
    formats: Formats
    exposure: Exposure
    imports: ImportSettings
    cache: CacheSettings
    database: DatabaseSettings
    auth: AuthSettings
    quotas: QuotaSettings
    deletion: DeletionSettings
    signing: SigningSettings
    policy: PolicySettings
    health: HealthSettings
    cors: CorsSettings
    stores: tuple[StoreSettings, ...]
    default_store: str
    url_filters: UrlFilters = dataclasses.field(default_factory=UrlFilters)
    messaging: MessagingSettings = dataclasses.field(default_factory=MessagingSettings)
    notifications: NotificationSettings = dataclasses.field(default_factory=NotificationSettings)
    audit: AuditSettings = dataclasses.field(default_factory=AuditSettings)
    multi_store: bool = True
    hashing_algorithm: str = option("DEFAULT", "sha512", "Digest of os_hash_value.")
    compute_checksum: bool = option(
        "xloud", True, "Compute the checksum field; off is faster, clients then verify os_hash_value only."
    )
    schema_image_file: str | None = None  # schema-image.json: declared custom properties
    debug: bool = option("DEFAULT", False, "Log more.")
    log_file: str | None = option("DEFAULT", None, "File of the log; unset: standard error.", deprecated_name="logfile")
    log_json: bool = option("xloud", False, "As use_json.")
    default_log_levels: tuple[str, ...] = option("DEFAULT", (), "logger=LEVEL pairs.")
    store_timeout: int = option("xloud", 60, "Seconds for a store's answer, or a read's first byte.", min=1)
    reaper_interval: int = option("xloud", 30, "Seconds between two looks at expired claims.", min=1)
    lease_time: int = option("xloud", 60, "Seconds that a claim lives without renewal.", min=5)
