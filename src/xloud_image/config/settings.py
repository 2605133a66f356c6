"""What the service was told, as frozen values. No file is read here; `config.loader` makes these."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from xloud_image.stores import TYPES
from xloud_image.stores.http.options import UrlFilters

if TYPE_CHECKING:
    from collections.abc import Mapping


def _secret(default: Any = None) -> Any:
    return dataclasses.field(default=default, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where and how the service listens. Times in seconds."""

    bind_host: str = "127.0.0.1"
    bind_port: int = 9292
    workers: int = 1
    backlog: int = 4096
    tcp_keepidle: int = 600
    client_socket_timeout: int = 900  # a client that neither sends nor takes a byte for so long is cut; 0: never
    http_keepalive: bool = True
    max_header_line: int = 16384
    public_endpoint: str | None = None
    max_request_id_length: int = 64
    # bytes of a body that is not data; 128 properties of 65535 characters of 4 bytes each fit in
    max_request_body_size: int = 37748736
    enable_proxy_headers_parsing: bool = False
    graceful_timeout: int = 60  # on stop and reload, transfers in flight get so long
    shutdown_delay: int = 0  # before a stop, balancers get so long to see the health check's 503
    metrics: bool = False
    state_dir: str = "./state"


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Paging and counting limits; -1 is no limit. Sizes in bytes."""

    limit_param_default: int = 25
    api_limit_max: int = 1000
    image_size_cap: int = 1099511627776
    image_member_quota: int = 128
    image_property_quota: int = 128
    image_tag_quota: int = 128
    image_location_quota: int = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Formats:
    """Which formats exist here and how strictly data must match them."""

    container_formats: tuple[str, ...] = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
    disk_formats: tuple[str, ...] = (
        "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop",
    )  # fmt: skip
    vmdk_allowed_types: tuple[str, ...] = ("streamOptimized", "monolithicSparse")
    require_image_format_match: bool = True
    gpt_safety_checks_nonfatal: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Exposure:
    """What of an image's locations clients may see or change."""

    show_image_direct_url: bool = False
    show_multiple_locations: bool = False
    do_secure_hash: bool = True
    http_retries: int = 3
    users_register_store_urls: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """`connection` is a SQLAlchemy URL as operators have it (mysql+pymysql://…); the driver is chosen by us."""

    connection: str = _secret("sqlite:///./state/xloud-image.sqlite")
    connection_recycle_time: int = 3600
    max_pool_size: int = 5
    max_overflow: int = 50
    max_retries: int = 10  # at start-up; -1: for ever
    retry_interval: int = 10
    mysql_sql_mode: str = "TRADITIONAL"


@dataclasses.dataclass(frozen=True, slots=True)
class KeystoneSettings:
    """[keystone_authtoken]. `auth` holds the options of the auth plugin (auth_url, username, password, …) by name."""

    auth_type: str = "password"
    auth: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    www_authenticate_uri: str | None = None
    region_name: str | None = None
    interface: str = "internal"
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    insecure: bool = False
    http_connect_timeout: int = 5
    http_request_max_retries: int = 3
    memcached_servers: tuple[str, ...] = ()
    memcache_security_strategy: str | None = None  # MAC or ENCRYPT
    memcache_secret_key: str | None = _secret()
    token_cache_time: int = 300
    service_token_roles: tuple[str, ...] = ("service",)
    service_token_roles_required: bool = True
    service_type: str = "image"


@dataclasses.dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who is let in: `method` is keystone, http_basic or none."""

    method: str = "none"
    allow_anonymous_access: bool = False
    http_basic_user_file: str | None = None
    http_basic_projects_file: str | None = None
    none_project: str = "00000000000000000000000000000001"
    none_user: str = "00000000000000000000000000000001"
    keystone: KeystoneSettings | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PolicySettings:
    """Where the operator's rules stand; paths are absolute. `policy_file` may be missing only if not named."""

    policy_file: str | None = None
    policy_dirs: tuple[str, ...] = ()
    enforce_scope: bool = True
    enforce_new_defaults: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class HealthSettings:
    """[healthcheck]."""

    path: str = "/healthcheck"
    disable_by_file_path: str | None = "/etc/glance/healthcheck_disable"


@dataclasses.dataclass(frozen=True, slots=True)
class CorsSettings:
    """[cors]; no allowed origin: CORS is off."""

    allowed_origin: tuple[str, ...] = ()
    allow_credentials: bool = True
    allow_methods: tuple[str, ...] = ("GET", "PUT", "POST", "DELETE", "PATCH")
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 3600


@dataclasses.dataclass(frozen=True, slots=True)
class StoreSettings:
    """One store. `options` has every option of its type by name, checked and with defaults filled in.

    `reserved`: the staging and tasks stores are reserved and never shown by the API. `read_only`: only what is in it
    counts; it is read and removed there.
    """

    id: str
    type: str
    description: str = ""
    weight: int = 0
    reserved: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    read_only: bool = False

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
    database: DatabaseSettings
    auth: AuthSettings
    policy: PolicySettings
    health: HealthSettings
    cors: CorsSettings
    stores: tuple[StoreSettings, ...]
    default_store: str
    url_filters: UrlFilters = dataclasses.field(default_factory=UrlFilters)
    multi_store: bool = True
    hashing_algorithm: str = "sha512"
    compute_checksum: bool = True  # the `checksum` field; off: faster, clients then verify os_hash_value only
    enabled_import_methods: tuple[str, ...] = ()
    schema_image_file: str | None = None  # schema-image.json: declared custom properties
    debug: bool = False
    log_file: str | None = None
    log_json: bool = False
    default_log_levels: tuple[str, ...] = ()
    store_timeout: int = 60  # seconds for an answer of a store, and for the first byte of a read
    reaper_interval: int = 30  # seconds between two looks at expired claims
    lease_time: int = 60  # seconds a claim lives without renewal
