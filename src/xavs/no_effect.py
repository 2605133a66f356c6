"""Names that globals may hold and that mean nothing for this service, each with what is true. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Names that guides give to what does not exist under them; each with what is true.
_SIZE: Final = "a balancer does not limit the size of an upload; 413 comes from image_size_cap or a full store"
_INVENTED: Final[Mapping[str, str]] = {
    "glance_cache_staleness_seconds": "no image cache has such a setting: the data of an image never changes, and so "
    "nothing grows stale",
    "glance_cache_prefetcher_delay": "no image cache has such a setting: images that are queued for it (`openstack "
    "cached image queue`) are fetched within seconds",
    "glance_audit_events": "nobody has such a setting; the log has a line for every change",
    "haproxy_client_body_timeout": _SIZE,
    "haproxy_http_request_timeout": _SIZE,
    "nova_verify_glance_signatures": "it is an option of Nova ([glance] verify_glance_signatures in nova.conf); the "
    "image service verifies signed images always",
}
# Known, and without a meaning for this service; told as not used.
WITHOUT_MEANING: Final[Mapping[str, str]] = {
    **_INVENTED,
    "openstack_release": "the image has its own version",
    "glance_api_hosts": "the inventory's group glance-api names the nodes",
    "glance_database_shard_id": "no ProxySQL is used",
    "glance_dev_mode": "no source is mounted",
    "glance_git_repository": "no source is mounted",
    "glance_source_version": "no source is mounted",
    "glance_dev_repos_pull": "no source is mounted",
    "glance_dev_repos_git": "no source is mounted",
    "glance_copy_certs": "certificates of the override directory, glance/certificates/, always are",
    "glance_ks_services": "made from glance_internal_endpoint and glance_public_endpoint",
    "glance_ks_users": "made from glance_keystone_user",
    "glance_api_default_volumes": "made from the stores",
    "glance_api_container_proxy": "no proxy is set in the container",
    "glance_config_validation": "`config check` is always run",
    "glance_api_healthcheck_test": "ours asks GET /healthcheck",
    "glance_enable_rolling_upgrade": "upgrades are always rolling",
    "glance_enabled_notification_topics": "made from glance_notification_topics",
    "glance_admin_endpoint": "the catalogue has no endpoint of that kind any more",
    "glance_api_healthcheck": "made from the keys glance_api_healthcheck_…",
    "glance_tls_proxy_image": "TLS ends in the balancer",
    "glance_tls_proxy_tag": "TLS ends in the balancer",
    "glance_tls_proxy_image_full": "TLS ends in the balancer",
    "glance_tls_proxy_dimensions": "TLS ends in the balancer",
    "glance_services": "one container, glance_api",
    "glance_database_shard_root_user": "no ProxySQL is used",
    "glance_database_shard": "no ProxySQL is used",
    "glance_database_proxysql_users": "no ProxySQL is used",
    "glance_install_type": "one image",
    "glance_barbican_auth_endpoint": "certificates are read with the caller's token",
}


# Of these, the ones that promise nothing, or what is so anyway.
_QUIET: Final = {"openstack_release", "glance_enable_rolling_upgrade", "glance_copy_certs", "glance_config_validation"}
PROMISES: Final = frozenset(WITHOUT_MEANING) - _QUIET
