"""Options of the service itself: [DEFAULT], [xloud], formats, database, stores' names. Data only; see `options`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oslo_config import cfg

from xloud_image.config.options.kinds import Section, honoured, ignored, pending, unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTEN = honoured(
    cfg.StrOpt("bind_host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("bind_port", default=9292, help="Port to listen on."),
    cfg.IntOpt("workers", min=0, max=1024, help="Worker processes; unset: one a CPU, 8 at most."),
    cfg.IntOpt("backlog", default=4096, min=1, help="Connections that may wait to be accepted."),
    cfg.IntOpt("tcp_keepidle", default=600, min=1, help="Seconds until an idle connection is probed."),
    cfg.IntOpt("client_socket_timeout", default=900, min=0, help="Seconds without a byte; 0: no limit."),
    cfg.BoolOpt("http_keepalive", default=True, help="Serve several requests a connection."),
    cfg.IntOpt("max_header_line", default=16384, min=1024, help="Bytes of one header line."),
    cfg.StrOpt("public_endpoint", help="Base URL in the version list."),
    cfg.IntOpt("max_request_id_length", default=64, min=0, help="Characters of a request id that we pass on."),
)

_LOGGING = honoured(
    cfg.BoolOpt("debug", default=False, help="Log more."),
    cfg.StrOpt("log_file", deprecated_name="logfile", help="File of the log; unset: standard error."),
    cfg.StrOpt("log_dir", deprecated_name="logdir", help="Directory of log_file."),
    cfg.BoolOpt("use_json", default=False, help="Log JSON objects, one a line."),
    cfg.ListOpt("default_log_levels", default=[], help="logger=LEVEL pairs."),
)

_IMAGES = honoured(
    cfg.StrOpt("enabled_backends", help="id:type pairs: the stores."),
    cfg.StrOpt("hashing_algorithm", default="sha512", help="Digest of os_hash_value."),
    cfg.IntOpt("image_size_cap", default=1099511627776, min=1, max=2**63 - 1, help="Bytes of one image."),
    cfg.IntOpt("image_member_quota", default=128, help="Members of an image; negative: no limit."),
    cfg.IntOpt("image_property_quota", default=128, help="Properties of an image; negative: no limit."),
    cfg.IntOpt("image_tag_quota", default=128, help="Tags of an image; negative: no limit."),
    cfg.IntOpt("image_location_quota", default=10, help="Locations of an image; negative: no limit."),
    cfg.IntOpt("limit_param_default", default=25, min=1, help="Page size when a client names none."),
    cfg.IntOpt("api_limit_max", default=1000, min=1, help="Largest page."),
    cfg.BoolOpt("show_image_direct_url", default=False, help="Show direct_url to clients."),
    cfg.BoolOpt("show_multiple_locations", default=False, help="Show locations, and let clients change them."),
    cfg.BoolOpt("do_secure_hash", default=True, help="Hash the data of locations that are added."),
    cfg.IntOpt("http_retries", default=3, min=0, help="How often that is tried again."),
    cfg.BoolOpt("allow_anonymous_access", default=False, help="Let callers without a token read public images."),
)

_NOT_CHECKED: Final = "is not enforced by this release; take it out if the service may run without it"


def _is_a_quota(value: str) -> bool:
    return re.fullmatch(r"(0+\s*[KMGT]?B?)?", value.strip(), re.IGNORECASE) is None


_PROTECTION = (
    *unsafe(f"property protection {_NOT_CHECKED}", "property_protection_file"),
    *ignored("is only read with property_protection_file", "property_protection_rule_format"),
    *unsafe(f"encryption of locations {_NOT_CHECKED}", cfg.StrOpt("metadata_encryption_key", secret=True)),
    *unsafe(
        f"checking of signatures {_NOT_CHECKED}",
        cfg.StrOpt("digest_algorithm", default="sha256"),
    ),
    *unsafe(
        f"the storage quota {_NOT_CHECKED}",
        cfg.StrOpt("user_storage_quota", default="0"),
        matters=_is_a_quota,
    ),
    *unsafe(
        f"limits from Keystone {_NOT_CHECKED.replace('is', 'are', 1)}",
        cfg.BoolOpt("use_keystone_limits", default=False),
    ),
    *unsafe(
        "delayed deletion is not built: deleted data would be gone at once; take it out to accept that",
        cfg.BoolOpt("delayed_delete", default=False),
    ),
    *ignored("is only read with delayed_delete", "scrub_time scrub_pool_size wakeup_time restore"),
    *unsafe(
        "TLS is not served by this release: end it in front of the service, and take the option out",
        *("cert_file", "key_file", "ca_file"),
    ),
)

_LATER = (
    *pending(
        "import of images is not built yet: no import method is offered",
        cfg.ListOpt("enabled_import_methods", default=[]),
    ),
    *pending("import of images is not built yet, so nothing is staged", "node_staging_uri"),
    *ignored("calls between nodes (import, shared cache) are not built yet", "worker_self_reference_url"),
    *pending("the image cache is not built yet: every read goes to the store", "image_cache_dir"),
    *ignored(
        "the image cache is not built yet",
        "image_cache_max_size image_cache_stall_time image_cache_driver image_cache_sqlite_db",
    ),
    *pending(
        "logging to syslog or the journal is not built: use log_file or standard error",
        cfg.BoolOpt("use_syslog", default=False),
        cfg.BoolOpt("use_journal", default=False),
    ),
    *pending(
        "this logging configuration file is not read",
        cfg.StrOpt("log_config_append", deprecated_name="log_config"),
    ),
    *pending(
        "the service does not rotate its log; it notices when logrotate has moved the file",
        cfg.StrOpt("log_rotation_type", default="none"),
    ),
    *ignored(
        "notifications are not built yet; see [oslo_messaging_notifications] driver",
        "transport_url control_exchange default_publisher_id disabled_notifications rpc_response_timeout "
        "rpc_ping_enabled executor_thread_pool_size rpc_conn_pool_size",
    ),
    *ignored(
        "the form of log lines is ours: key=value, or JSON with use_json",
        "log_date_format log_color log_options logging_context_format_string logging_default_format_string "
        "logging_debug_format_suffix logging_exception_prefix logging_user_identity_format instance_format "
        "instance_uuid_format syslog_log_facility use_stderr publish_errors fatal_deprecations "
        "rate_limit_interval rate_limit_burst rate_limit_except_level max_logfile_count max_logfile_size_mb "
        "log_rotate_interval log_rotate_interval_type watch_log_file verbose",
    ),
    *ignored(
        "belongs to a server that is not used here",
        "backdoor_port backdoor_socket graceful_shutdown_timeout pydev_worker_debug_host "
        "pydev_worker_debug_port run_external_periodic_tasks wsgi_default_pool_size wsgi_keep_alive "
        "wsgi_log_format wsgi_server_debug eventlet_hub enable_v1_api enable_v2_api enable_v1_registry "
        "enable_v2_registry registry_host registry_port data_api db_enforce_mysql_charset",
    ),
    *ignored("stores are tried by weight", "location_strategy"),
    *ignored("pipelines are fixed; only [paste_deploy] flavor is read", "api_paste_config"),
    *pending("say it with [oslo_middleware] enable_proxy_headers_parsing", "secure_proxy_ssl_header"),
    *unsafe("access is by project here, never by user", cfg.BoolOpt("owner_is_tenant", default=True)),
    *unsafe(
        "who is admin is said by the rule context_is_admin in the policy file",
        cfg.StrOpt("admin_role", default="admin"),
    ),
    *unsafe(
        f"a ban on additional properties {_NOT_CHECKED}",
        cfg.BoolOpt("allow_additional_image_properties", default=True),
    ),
)

_XLOUD = honoured(
    cfg.StrOpt("auth", choices=["keystone", "http_basic", "none"], help="Who is let in; unset: by paste flavor."),
    cfg.StrOpt("none_project", default="0" * 31 + "1", help="Project of the one caller of auth = none."),
    cfg.StrOpt("none_user", default="0" * 31 + "1", help="User of the one caller of auth = none."),
    cfg.BoolOpt(
        "anonymous_off_loopback",
        default=False,
        help="Confirms allow_anonymous_access on an address that others can reach.",
    ),
    cfg.StrOpt("http_basic_user_file", help="htpasswd file (bcrypt) of auth = http_basic."),
    cfg.StrOpt("http_basic_projects_file", help="Project and roles of each of its users."),
    cfg.StrOpt("state_dir", default="/var/lib/xloud-image", help="Directory of what the service keeps itself."),
    cfg.IntOpt("graceful_timeout", default=60, min=0, help="Seconds that transfers get on stop and reload."),
    cfg.IntOpt("shutdown_delay", default=0, min=0, help="Before a stop, seconds of 503 at the health check."),
    cfg.IntOpt("store_timeout", default=60, min=1, help="Seconds for a store's answer, or a read's first byte."),
    cfg.ListOpt(
        "location_networks",
        default=[],
        help="Networks (CIDR) besides the public addresses from whose web servers everybody may register images.",
    ),
    cfg.IntOpt("reaper_interval", default=30, min=1, help="Seconds between two looks at expired claims."),
    cfg.IntOpt("lease_time", default=60, min=5, help="Seconds that a claim lives without renewal."),
    cfg.BoolOpt(
        "users_register_store_urls",
        default=False,
        help="Let members register data of our own stores by URL, not services and administrators only.",
    ),
    cfg.BoolOpt("compute_checksum", default=True, help="Compute the checksum field; off is faster."),
    cfg.BoolOpt("metrics", default=False, help="Serve Prometheus metrics at /metrics."),
    cfg.BoolOpt("log_json", default=False, help="As use_json."),
)

_DATABASE = (
    *honoured(
        cfg.StrOpt(
            "connection",
            secret=True,
            deprecated_opts=[
                cfg.DeprecatedOpt("sql_connection", "DEFAULT"),
                cfg.DeprecatedOpt("sql_connection"),
            ],
            help="URL of the database; unset: SQLite in state_dir.",
        ),
        cfg.StrOpt("connection_parameters", default="", secret=True, help="Added to the query of that URL."),
        cfg.IntOpt("connection_recycle_time", default=3600, deprecated_name="idle_timeout", help="Seconds."),
        cfg.IntOpt("max_pool_size", default=5, min=0, help="Connections kept by a worker; 0: no limit."),
        cfg.IntOpt("max_overflow", default=50, help="Connections beyond these for a burst."),
        cfg.IntOpt("max_retries", default=10, min=-1, help="At start; -1: for ever."),
        cfg.IntOpt("retry_interval", default=10, min=0, help="Seconds between these."),
        cfg.StrOpt("mysql_sql_mode", default="TRADITIONAL", help="sql_mode of MySQL sessions; empty: the server's."),
    ),
    *pending("waiting for other Galera nodes before a read is not built yet", cfg.IntOpt("mysql_wsrep_sync_wait")),
    *ignored("every statement goes to `connection`", "slave_connection asyncio_connection asyncio_slave_connection"),
    *ignored(
        "the service has its own bounded retries and pool waits",
        "backend use_db_reconnect db_retry_interval db_inc_retry_interval db_max_retry_interval db_max_retries "
        "pool_timeout connection_debug connection_trace sqlite_synchronous synchronous_reader min_pool_size "
        "use_tpool mysql_enable_ndb",
    ),
)

_FORMATS = honoured(
    cfg.ListOpt(
        "container_formats",
        default=["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"],
        deprecated_opts=[cfg.DeprecatedOpt("container_formats", "DEFAULT")],
        help="Allowed container formats.",
    ),
    cfg.ListOpt(
        "disk_formats",
        default=["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"],
        deprecated_opts=[cfg.DeprecatedOpt("disk_formats", "DEFAULT")],
        help="Allowed disk formats.",
    ),
    cfg.ListOpt("vmdk_allowed_types", default=["streamOptimized", "monolithicSparse"], help="Allowed kinds of VMDK."),
    cfg.BoolOpt("require_image_format_match", default=True, help="Refuse data that is not its disk_format."),
    cfg.ListOpt("gpt_safety_checks_nonfatal", default=[], help="GPT checks that only warn."),
)

# Which URLs of web servers may be registered as locations.
_FILTERS = honoured(
    cfg.ListOpt("allowed_schemes", default=["http", "https"], help="Schemes of URLs; wins over the next."),
    cfg.ListOpt("disallowed_schemes", default=[], help="Schemes that are refused."),
    cfg.ListOpt("allowed_hosts", default=[], help="Hosts as URLs name them; wins over the next."),
    cfg.ListOpt("disallowed_hosts", default=[], help="Hosts that are refused, by name or address."),
    cfg.ListOpt("allowed_ports", default=["80", "443"], help="Ports; wins over the next."),
    cfg.ListOpt("disallowed_ports", default=[], help="Ports that are refused."),
)

SECTIONS: Final[Mapping[str, Section]] = {
    "import_filtering_opts": _FILTERS,
    "DEFAULT": (*_LISTEN, *_LOGGING, *_IMAGES, *_PROTECTION, *_LATER),
    "xloud": _XLOUD,
    "database": _DATABASE,
    "image_format": _FORMATS,
    "glance_store": (
        *honoured(
            cfg.StrOpt("default_backend", help="Id of the store for new images."),
            cfg.StrOpt("default_store", help="The same in files without enabled_backends."),
            cfg.ListOpt("stores", default=[], help="Types of the stores in such files."),
        ),
        *ignored("stores say what they can do themselves", "store_capabilities_update_min_interval"),
        *ignored("stores are tried by weight", "location_strategy"),
    ),
    "store_type_location_strategy": ignored("stores are tried by weight", "store_type_preference"),
}
