"""Honoured options that are no setting as they stand: the loader makes the named one of them. Data only.

Those that are one are fields of the classes in `config.settings`.
"""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from xloud_image.config.options.kinds import Option

# Options of keystoneauth's plugins that an operator may give in [keystone_authtoken]; handed on by name.
AUTH_PLUGIN: Final[tuple[cfg.Opt, ...]] = (
    cfg.StrOpt("auth_url", help="URL of Keystone for the service itself."),
    cfg.StrOpt("username", deprecated_opts=[cfg.DeprecatedOpt("user_name")], help="Service user."),
    cfg.StrOpt("user_id", help="The same by id."),
    cfg.StrOpt("password", secret=True, help="Its password."),
    cfg.StrOpt("user_domain_id", help="Domain of the user."),
    cfg.StrOpt("user_domain_name", help="The same by name."),
    cfg.StrOpt("project_name", deprecated_opts=[cfg.DeprecatedOpt("tenant_name")], help="Its project."),
    cfg.StrOpt("project_id", deprecated_opts=[cfg.DeprecatedOpt("tenant_id")], help="The same by id."),
    cfg.StrOpt("project_domain_id", help="Domain of the project."),
    cfg.StrOpt("project_domain_name", help="The same by name."),
    cfg.StrOpt("default_domain_id", help="Domain where none is named."),
    cfg.StrOpt("default_domain_name", help="The same by name."),
    cfg.StrOpt("domain_id", help="Domain to get a token for."),
    cfg.StrOpt("domain_name", help="The same by name."),
    cfg.StrOpt("system_scope", help="`all` for a system token."),
    cfg.StrOpt("trust_id", help="Trust to use."),
    cfg.StrOpt("token", secret=True, help="A ready token."),
    cfg.StrOpt("endpoint", help="Endpoint for a ready token."),
    cfg.StrOpt("application_credential_id", help="Application credential."),
    cfg.StrOpt("application_credential_name", help="The same by name."),
    cfg.StrOpt("application_credential_secret", secret=True, help="Its secret."),
)

# What oslo.messaging reads; handed on to it as written, and so without types here.
_BUS: Final = {
    "DEFAULT": "control_exchange rpc_response_timeout rpc_ping_enabled executor_thread_pool_size rpc_conn_pool_size",
    "oslo_messaging_rabbit": """
amqp_auto_delete amqp_durable_queues conn_pool_min_size conn_pool_ttl direct_mandatory_flag
enable_cancel_on_failover heartbeat_in_pthread heartbeat_rate heartbeat_timeout_threshold hostname
kombu_compression kombu_failover_strategy kombu_missing_consumer_retry_timeout kombu_reconnect_delay
kombu_reconnect_splay processname rabbit_ha_queues rabbit_interval_max rabbit_login_method
rabbit_qos_prefetch_count rabbit_quorum_delivery_limit rabbit_quorum_max_memory_bytes
rabbit_quorum_max_memory_length rabbit_quorum_queue rabbit_retry_backoff rabbit_retry_interval
rabbit_stream_fanout rabbit_transient_queues_ttl rabbit_transient_quorum_queue rpc_conn_pool_size rabbit_host
rabbit_port rabbit_hosts rabbit_userid rabbit_password rabbit_virtual_host rabbit_max_retries ssl ssl_ca_file
ssl_cert_file ssl_key_file ssl_version ssl_enforce_fips_mode ssl_enforce_hostname_verification use_queue_manager""",
    "oslo_messaging_kafka": """
compression_codec consumer_group enable_auto_commit kafka_consumer_timeout kafka_max_fetch_bytes
max_poll_records producer_batch_size producer_batch_timeout sasl_mechanism security_protocol ssl_cafile
ssl_client_cert_file ssl_client_key_file ssl_client_key_password""",
    "oslo_messaging_amqp": """
addressing_mode anycast_address broadcast_prefix connection_retry_backoff connection_retry_interval
connection_retry_interval_max container_name default_notification_exchange default_notify_timeout
default_reply_retry default_reply_timeout default_rpc_exchange default_send_timeout default_sender_link_timeout
group_request_prefix idle_timeout link_retry_delay multicast_address notify_address_prefix notify_server_credit
password pre_settled pseudo_vhost reply_link_credit rpc_address_prefix rpc_server_credit sasl_config_dir
sasl_config_name sasl_default_realm sasl_mechanisms server_request_prefix ssl ssl_ca_file ssl_cert_file
ssl_key_file ssl_key_password ssl_verify_vhost trace unicast_address username""",
}


def _made(into: str, group: str, *opts: cfg.Opt) -> tuple[Option, ...]:
    """`into`: the setting that is made of them, Class.field, or the class whose fields have their names."""
    return tuple(Option(group, opt, into=into if "." in into else f"{into}.{opt.dest}") for opt in opts)


DERIVED: Final[tuple[Option, ...]] = (
    *_made(
        "Server.workers",
        "DEFAULT",
        cfg.IntOpt("workers", min=0, max=1024, help="Worker processes; unset: one a CPU, 8 at most."),
    ),
    *_made(
        "Settings.log_file", "DEFAULT", cfg.StrOpt("log_dir", deprecated_name="logdir", help="Directory of log_file.")
    ),
    *_made(
        "Settings.log_json", "DEFAULT", cfg.BoolOpt("use_json", default=False, help="Log JSON objects, one a line.")
    ),
    *_made(
        "ImportSettings.image_import_plugins",
        "image_import_opts",
        cfg.ListOpt(
            "image_import_plugins", default=[], help="What imports do with data on the way; with or without brackets."
        ),
    ),
    *_made(
        "ImportSettings.work_dir",
        "task",
        cfg.StrOpt("work_dir", help="Directory for data that is being converted; unset: work in state_dir."),
    ),
    *_made(
        "ImportSettings.download_properties",
        "glance_download_properties",
        cfg.ListOpt(
            "extra_properties",
            default=["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"],
            help="What the names of properties begin with that glance-download copies.",
        ),
    ),
    *_made(
        "ImportSettings.inject",
        "inject_metadata_properties",
        cfg.DictOpt("inject", default={}, help="Properties (name:value pairs) that inject_image_metadata adds."),
    ),
    *_made(
        "ImportSettings.enabled_import_methods",
        "DEFAULT",
        cfg.ListOpt(
            "enabled_import_methods",
            default=["glance-direct", "web-download", "copy-image"],
            help="Ways of import, with or without brackets around them; empty: no import.",
        ),
    ),
    *_made(
        "Settings.stores",
        "DEFAULT",
        cfg.StrOpt(
            "node_staging_uri",
            help="file:// URL of the directory for staged data, where [os_glance_staging_store] is not there.",
        ),
    ),
    *_made("Settings.stores", "DEFAULT", cfg.StrOpt("enabled_backends", help="id:type pairs: the stores.")),
    *_made(
        "Settings.stores",
        "glance_store",
        cfg.ListOpt("stores", default=[], help="Types of the stores in files without enabled_backends."),
    ),
    *_made(
        "Settings.default_store",
        "glance_store",
        cfg.StrOpt("default_backend", help="Id of the store for new images."),
        cfg.StrOpt("default_store", help="The same in files without enabled_backends."),
    ),
    *_made(
        "AuthSettings.method",
        "xloud",
        cfg.StrOpt("auth", choices=["keystone", "http_basic", "none"], help="Who is let in; unset: by paste flavor."),
    ),
    *_made(
        "AuthSettings.method",
        "paste_deploy",
        cfg.StrOpt("flavor", help="keystone or http_basic, with caching or cachemanagement by +."),
    ),
    *_made(
        "AuthSettings.allow_anonymous_access",
        "xloud",
        cfg.BoolOpt(
            "anonymous_off_loopback",
            default=False,
            help="Confirms allow_anonymous_access on an address that others can reach.",
        ),
    ),
    *_made(
        "AuthSettings.http_basic_user_file",
        "oslo_middleware",
        cfg.StrOpt("http_basic_auth_user_file", help="As [xloud] http_basic_user_file."),
    ),
    *_made(
        "KeystoneSettings.auth",
        "keystone_authtoken",
        *AUTH_PLUGIN,
        cfg.StrOpt("auth_section", help="Section with the options of the plugin, instead of this one."),
    ),
    *_made(
        "QuotaSettings.user_storage_quota",
        "DEFAULT",
        cfg.StrOpt(
            "user_storage_quota", default="0", help="Data of one project: a number with B, KB, MB, GB or TB; 0: any."
        ),
    ),
    *_made(
        "LimitSettings.auth",
        "oslo_limit",
        *AUTH_PLUGIN,
        cfg.StrOpt("auth_section", help="Section with the options of the plugin, instead of this one."),
    ),
    *_made(
        "PolicySettings",
        "oslo_policy",
        cfg.StrOpt("policy_file", default="policy.yaml", help="Rules; a relative path starts at the configuration."),
        cfg.MultiStrOpt("policy_dirs", default=["policy.d"], help="Directories of more rules."),
    ),
    *_made(
        "PolicySettings.property_protection_file",
        "DEFAULT",
        cfg.StrOpt(
            "property_protection_file",
            help="Who may do what to which properties; a relative path starts at the configuration.",
        ),
    ),
    *_made(
        "DatabaseSettings.connection",
        "database",
        cfg.StrOpt(
            "connection",
            secret=True,
            deprecated_opts=[cfg.DeprecatedOpt("sql_connection", "DEFAULT"), cfg.DeprecatedOpt("sql_connection")],
            help="URL of the database; unset: SQLite in state_dir.",
        ),
        cfg.StrOpt("connection_parameters", default="", secret=True, help="Added to the query of that URL."),
    ),
    # which URLs of web servers may be registered as locations
    *_made(
        "UrlFilters",
        "import_filtering_opts",
        cfg.ListOpt("allowed_schemes", default=["http", "https"], help="Schemes of URLs; wins over the next."),
        cfg.ListOpt("disallowed_schemes", default=[], help="Schemes that are refused."),
        cfg.ListOpt("allowed_hosts", default=[], help="Hosts as URLs name them; wins over the next."),
        cfg.ListOpt("disallowed_hosts", default=[], help="Hosts that are refused, by name or address."),
        cfg.ListOpt("allowed_ports", default=["80", "443"], help="Ports; wins over the next."),
        cfg.ListOpt("disallowed_ports", default=[], help="Ports that are refused."),
    ),
    *_made(
        "UrlFilters.networks",
        "xloud",
        cfg.ListOpt(
            "location_networks",
            default=[],
            help="Networks (CIDR) besides the public addresses from whose web servers everybody may register images.",
        ),
    ),
    *_made(
        "NotificationSettings.drivers",
        "oslo_messaging_notifications",
        cfg.MultiStrOpt("driver", default=[], help="messagingv2, messaging or log; noop or nothing: none are sent."),
    ),
    *_made(
        "AuditSettings.drivers",
        "audit_middleware_notifications",
        cfg.BoolOpt("use_oslo_messaging", default=True, help="Send audit events; false: write them to the log."),
        cfg.StrOpt("driver", help="As in [oslo_messaging_notifications], for audit events; unset: the same."),
    ),
    *_made(
        "AuditSettings",
        "audit_middleware_notifications",
        cfg.ListOpt("topics", default=[], help="Topics of audit events; none: those of notifications."),
        cfg.StrOpt("transport_url", secret=True, help="Message bus of audit events; unset: that of notifications."),
    ),
    *_made(
        "MessagingSettings.transport_url",
        "DEFAULT",
        cfg.StrOpt("transport_url", secret=True, help="Message bus: rings the workers of all nodes."),
    ),
    *(
        Option(
            group,
            cfg.StrOpt(name, secret="password" in name, help="For oslo.messaging."),
            into="MessagingSettings.options",
        )
        for group, names in _BUS.items()
        for name in names.split()
    ),
)
