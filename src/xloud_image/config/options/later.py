"""Sections of what this release does not do: not built yet, or without meaning here. Data only; see `options`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oslo_config import cfg

from xloud_image.config.options.kinds import Section, ignored, pending, unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

_IMPORT: Final = "import of images is not built yet"
_NOTIFY: Final = "notifications are not built yet"
_SIGNATURES: Final = (
    "signatures of images and encryption keys are not checked by this release; take the section out to accept that"
)
_PLUGIN_AUTH: Final = (
    "auth_url auth_type auth_section username user_id user_name user_domain_id user_domain_name project_id "
    "project_name project_domain_id project_domain_name tenant_id tenant_name default_domain_id default_domain_name "
    "domain_id domain_name system_scope trust_id region_name service_type service_name endpoint_override "
    "valid_interfaces min_version max_version version timeout connect_retries connect_retry_delay "
    "status_code_retries status_code_retry_delay retriable_status_codes cafile certfile keyfile insecure "
    "collect_timing split_loggers tls_ciphers tls_min_version"
)


def _silent(driver: list[str]) -> bool:
    return any(name not in ("noop", "") for name in driver)


SECTIONS: Final[Mapping[str, Section]] = {
    "task": pending(
        f"{_IMPORT}, nor are tasks",
        cfg.IntOpt("task_time_to_live", default=48),
        cfg.StrOpt("task_executor", default="taskflow"),
        "work_dir",
        cfg.StrOpt("eventlet_executor_pool_size"),
    ),
    "taskflow_executor": pending(
        _IMPORT,
        cfg.StrOpt("engine_mode", default="parallel"),
        cfg.IntOpt("max_workers", default=10),
        "conversion_format",
    ),
    "image_import_opts": pending(
        _IMPORT, cfg.ListOpt("image_import_plugins", default=[]), cfg.IntOpt("max_parallel_stores", default=1)
    ),
    "image_conversion": pending(_IMPORT, cfg.StrOpt("output_format", default="raw")),
    "inject_metadata_properties": pending(
        _IMPORT, cfg.StrOpt("inject", default=""), cfg.ListOpt("ignore_user_roles", default=["admin"])
    ),
    "glance_download_properties": pending(_IMPORT, "extra_properties"),
    "oslo_messaging_notifications": (
        *pending(_NOTIFY, cfg.MultiStrOpt("driver", default=[]), matters=_silent),
        *ignored(_NOTIFY, "topics transport_url retry"),
    ),
    "oslo_messaging_rabbit": ignored(
        _NOTIFY,
        "amqp_auto_delete amqp_durable_queues conn_pool_min_size conn_pool_ttl direct_mandatory_flag "
        "enable_cancel_on_failover heartbeat_in_pthread heartbeat_rate heartbeat_timeout_threshold hostname "
        "kombu_compression kombu_failover_strategy kombu_missing_consumer_retry_timeout kombu_reconnect_delay "
        "kombu_reconnect_splay processname rabbit_ha_queues rabbit_interval_max rabbit_login_method "
        "rabbit_qos_prefetch_count rabbit_quorum_delivery_limit rabbit_quorum_max_memory_bytes "
        "rabbit_quorum_max_memory_length rabbit_quorum_queue rabbit_retry_backoff rabbit_retry_interval "
        "rabbit_stream_fanout rabbit_transient_queues_ttl rabbit_transient_quorum_queue rpc_conn_pool_size "
        "rabbit_host rabbit_port rabbit_hosts rabbit_userid rabbit_password rabbit_virtual_host rabbit_max_retries "
        "ssl ssl_ca_file ssl_cert_file ssl_key_file ssl_version ssl_enforce_fips_mode "
        "ssl_enforce_hostname_verification use_queue_manager",
    ),
    "oslo_messaging_kafka": ignored(
        _NOTIFY,
        "compression_codec consumer_group enable_auto_commit kafka_consumer_timeout kafka_max_fetch_bytes "
        "max_poll_records producer_batch_size producer_batch_timeout sasl_mechanism security_protocol ssl_cafile "
        "ssl_client_cert_file ssl_client_key_file ssl_client_key_password",
    ),
    "oslo_messaging_amqp": ignored(
        _NOTIFY,
        "addressing_mode anycast_address broadcast_prefix connection_retry_backoff connection_retry_interval "
        "connection_retry_interval_max container_name default_notification_exchange default_notify_timeout "
        "default_reply_retry default_reply_timeout default_rpc_exchange default_send_timeout "
        "default_sender_link_timeout group_request_prefix idle_timeout link_retry_delay multicast_address "
        "notify_address_prefix notify_server_credit password pre_settled pseudo_vhost reply_link_credit "
        "rpc_address_prefix rpc_server_credit sasl_config_dir sasl_config_name sasl_default_realm sasl_mechanisms "
        "server_request_prefix ssl ssl_ca_file ssl_cert_file ssl_key_file ssl_key_password "
        "ssl_verify_vhost trace unicast_address username",
    ),
    "os_brick": (
        *ignored("os-brick's locks lie in `.locks` below cinder_mount_point_base", "lock_path"),
        *ignored("os-brick's own waiting times count", "wait_mpath_device_attempts wait_mpath_device_interval"),
    ),
    "oslo_concurrency": ignored(
        "the service locks in its database; locks of a store lie below its own directory (cinder_mount_point_base)",
        "lock_path disable_process_locking",
    ),
    "oslo_reports": ignored(
        "no report is written on signals", "file_event_handler file_event_handler_interval log_dir"
    ),
    "oslo_limit": ignored(
        "is only read with use_keystone_limits",
        f"{_PLUGIN_AUTH} password endpoint_id endpoint_interface endpoint_region_name endpoint_service_name "
        "endpoint_service_type",
    ),
    "oslo_middleware_tracing": (
        *pending("tracing is not built yet", cfg.BoolOpt("enabled", default=False)),
        *ignored("tracing is not built yet", "insecure otlp_endpoint otlp_protocol sampling_rate service_name"),
    ),
    "profiler": (
        *pending(
            "tracing is not built yet",
            cfg.BoolOpt("enabled", default=False, deprecated_name="profiler_enabled"),
        ),
        *ignored(
            "tracing is not built yet",
            "connection_string es_doc_type es_scroll_size es_scroll_time filter_error_trace hmac_keys "
            "sentinel_service_name socket_timeout trace_requests trace_sqlalchemy trace_wsgi_transport "
            "trace_message_store trace_management_store",
        ),
    ),
    "profiler_jaeger": ignored("tracing is not built yet", "process_tags service_name_prefix"),
    "profiler_otlp": ignored("tracing is not built yet", "service_name_prefix"),
    "wsgi": ignored("belongs to a server that is not used here", "task_pool_threads python_interpreter"),
    "uwsgi": ignored(
        "belongs to a server that is not used here",
        "add_header buffer_size chunked_input_limit die_on_term enable_threads exit_on_reload hook_master_start http "
        "http_auto_chunked http_chunked_input http_raw_body http_socket https_socket lazy_apps log_x_forwarded_for "
        "master module need_plugin plugins processes procname_prefix_spaced route socket socket_timeout start_time "
        "thunder_lock threads uwsgi_socket worker_reload_mercy wsgi_file",
    ),
    "cache": ignored(
        "tokens have their own cache; see [keystone_authtoken] memcached_servers",
        "backend backend_argument backend_expiration_time config_prefix debug_cache_backend enable_retry_client "
        "enable_socket_keepalive enabled expiration_time hashclient_dead_timeout hashclient_retry_attempts "
        "hashclient_retry_timeout memcache_dead_retry memcache_password memcache_pool_connection_get_timeout "
        "memcache_pool_flush_on_reconnect memcache_pool_maxsize memcache_pool_unused_timeout memcache_sasl_enabled "
        "memcache_servers memcache_socket_timeout memcache_username password proxies redis_db redis_password "
        "redis_sentinel_service_name redis_sentinels redis_server redis_socket_timeout redis_username retry_attempts "
        "retry_delay socket_keepalive_count socket_keepalive_idle socket_keepalive_interval socket_timeout "
        "tls_allowed_ciphers tls_cafile tls_certfile tls_enabled tls_keyfile username",
    ),
    "barbican": unsafe(
        _SIGNATURES,
        *[
            "auth_endpoint",
            "barbican_api_version",
            "barbican_endpoint",
            "barbican_endpoint_type",
            "barbican_region_name",
            "cafile",
            "certfile",
            "collect_timing",
            "insecure",
            "keyfile",
            "number_of_retries",
            "retry_delay",
            "send_service_user_token",
            "split_loggers",
            "timeout",
            "tls_ciphers",
            "tls_min_version",
            "verify_ssl",
            "verify_ssl_path",
        ],
    ),
    "barbican_service_user": ignored("is only read with [barbican]", f"{_PLUGIN_AUTH} password"),
    "key_manager": unsafe(
        _SIGNATURES,
        *[
            "auth_type",
            "auth_url",
            "backend",
            "api_class",
            "domain_id",
            "domain_name",
            "password",
            "project_domain_id",
            "project_domain_name",
            "project_id",
            "project_name",
            "reauthenticate",
            "token",
            "trust_id",
            "user_domain_id",
            "user_domain_name",
            "user_id",
            "username",
            "fixed_key",
        ],
    ),
    "vault": unsafe(
        _SIGNATURES,
        *[
            "approle_role_id",
            "approle_secret_id",
            "auth_method",
            "auth_path",
            "kv_mountpoint",
            "kv_path",
            "kv_version",
            "namespace",
            "root_token_id",
            "ssl_ca_crt_file",
            "timeout",
            "token_file",
            "token_role",
            "use_ssl",
            "vault_url",
        ],
    ),
}
