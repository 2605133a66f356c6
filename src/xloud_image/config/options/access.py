"""Options about who is let in and how: Keystone, policy, pipelines, health, CORS, TLS. Data only; see `options`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg

from xloud_image.config.options.kinds import Section, honoured, ignored, pending, unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

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

_TOKEN_BINDING_OFF: Final = {None, "", "disabled", "permissive"}

_KEYSTONE: Final[Section] = (
    *honoured(
        *AUTH_PLUGIN,
        cfg.StrOpt("auth_type", default="password", deprecated_name="auth_plugin", help="Plugin of keystoneauth."),
        cfg.StrOpt("auth_section", help="Section with the options of the plugin, instead of this one."),
        cfg.StrOpt("www_authenticate_uri", deprecated_name="auth_uri", help="URL of Keystone for clients."),
        cfg.StrOpt("region_name", help="Region in the service catalogue."),
        cfg.StrOpt(
            "interface", default="internal", choices=["internal", "public", "admin"], help="Interface of Keystone."
        ),
        cfg.StrOpt("cafile", help="CA file."),
        cfg.StrOpt("certfile", help="Client certificate."),
        cfg.StrOpt("keyfile", help="Its key."),
        cfg.BoolOpt("insecure", default=False, help="Do not verify TLS."),
        cfg.IntOpt("http_connect_timeout", default=5, min=1, help="Seconds."),
        cfg.IntOpt("http_request_max_retries", default=3, min=0, help="How often a call is tried again."),
        cfg.ListOpt("memcached_servers", default=[], deprecated_name="memcache_servers", help="host:port of each."),
        cfg.StrOpt(
            "memcache_security_strategy",
            default="None",
            choices=["None", "MAC", "ENCRYPT"],
            ignore_case=True,
            help="How tokens are protected in memcached.",
        ),
        cfg.StrOpt("memcache_secret_key", secret=True, help="Key for that."),
        cfg.IntOpt("token_cache_time", default=300, min=-1, help="Seconds that a checked token is kept; -1: never."),
        cfg.ListOpt("service_token_roles", default=["service"], help="Roles of which a service token needs one."),
        # The newest middleware requires the roles; a reference that says false is older.
        cfg.BoolOpt("service_token_roles_required", default=True, help="Refuse service tokens without these roles."),
        cfg.StrOpt("service_type", default="image", help="Our type, for access rules of application credentials."),
    ),
    *unsafe(
        "binding of tokens is not checked by this release",
        cfg.StrOpt("enforce_token_bind", default="permissive"),
        matters=lambda value: value not in _TOKEN_BINDING_OFF,
    ),
    *unsafe(
        "TLS to memcached is not built: tokens would cross the network in the clear",
        cfg.BoolOpt("memcache_tls_enabled", default=False),
    ),
    *pending(
        "SASL to memcached is not built: tokens are kept in memory only",
        cfg.BoolOpt("memcache_sasl_enabled", default=False),
    ),
    *ignored("is only read with TLS or SASL to memcached", "memcache_username memcache_tls_cafile "
        "memcache_tls_certfile memcache_tls_keyfile memcache_tls_allowed_ciphers"),
    *pending("SASL to memcached is not built", cfg.StrOpt("memcache_password", secret=True)),
    *ignored(
        "the token cache manages its own connections",
        "memcache_use_advanced_pool memcache_pool_conn_get_timeout memcache_pool_dead_retry memcache_pool_maxsize "
        "memcache_pool_socket_timeout memcache_pool_unused_timeout cache",
    ),
    *ignored("every request is decided at once", "delay_auth_decision include_service_catalog"),
    *ignored("only Keystone v3 is spoken", "auth_version"),
    *ignored("belongs to the token formats of old releases", "hash_algorithms check_revocations_for_cached "
        "revocation_cache_time signing_dir"),
)  # fmt: skip

_REMOTE_CHECKS: Final = "options of remote policy checks (http: rules) are not handed on by this release"

_POLICY: Final[Section] = (
    *honoured(
        cfg.StrOpt("policy_file", default="policy.yaml", help="Rules; a relative path starts at the configuration."),
        cfg.MultiStrOpt("policy_dirs", default=["policy.d"], help="Directories of more rules."),
        cfg.BoolOpt("enforce_scope", default=True, help="Refuse tokens of a scope that a rule does not name."),
        cfg.BoolOpt("enforce_new_defaults", default=True, help="Without the deprecated rules beside the new ones."),
    ),
    *unsafe(
        "another default rule is not applied by this release",
        cfg.StrOpt("policy_default_rule", default="default"),
    ),
    *unsafe(
        _REMOTE_CHECKS,
        "remote_ssl_ca_crt_file",
        "remote_ssl_client_crt_file",
        "remote_ssl_client_key_file",
        cfg.BoolOpt("remote_ssl_verify_server_crt", default=False),
    ),
    *ignored(_REMOTE_CHECKS, "remote_content_type remote_timeout"),
)


def _not_only_by_file(value: Any) -> bool:
    return any(backend != "disable_by_file" for backend in value)


SECTIONS: Final[Mapping[str, Section]] = {
    "keystone_authtoken": _KEYSTONE,
    "oslo_policy": _POLICY,
    "paste_deploy": (
        *honoured(cfg.StrOpt("flavor", help="keystone or http_basic, with caching or cachemanagement by +.")),
        *unsafe(
            "pipelines are fixed in this release, a filter added there would not run; only the flavor is read",
            "config_file",
            matters=lambda value: not (value or "").endswith("glance-api-paste.ini"),
        ),
    ),
    "oslo_middleware": (
        *honoured(
            cfg.BoolOpt("enable_proxy_headers_parsing", default=False, help="Trust X-Forwarded-* and Forwarded."),
            cfg.IntOpt("max_request_body_size", default=37748736, min=1024, help="Bytes of a body that is not data."),
            cfg.StrOpt("http_basic_auth_user_file", help="As [xloud] http_basic_user_file."),
        ),
    ),
    "healthcheck": (
        *honoured(
            cfg.StrOpt("path", default="/healthcheck", help="Path of the health check."),
            cfg.StrOpt(
                "disable_by_file_path",
                default="/etc/glance/healthcheck_disable",
                help="While this file exists the answer is 503.",
            ),
        ),
        *pending(
            "of the plugins only disable_by_file is built",
            cfg.ListOpt("backends", default=[]),
            matters=_not_only_by_file,
        ),
        *pending(
            "health by several files is not built: use disable_by_file_path",
            cfg.ListOpt("disable_by_file_paths", default=[]),
            cfg.ListOpt("enable_by_file_paths", default=[]),
        ),
        *pending("the detailed answer is not built", cfg.BoolOpt("detailed", default=False)),
        *unsafe(
            "access to the health check by address is not checked by this release",
            cfg.ListOpt("allowed_source_ranges", default=[]),
            cfg.BoolOpt("ignore_proxied_requests", default=False),
        ),
    ),
    "cors": honoured(
        cfg.ListOpt("allowed_origin", default=[], help="Origins of web pages that may call."),
        cfg.BoolOpt("allow_credentials", default=True, help="Let them send credentials."),
        cfg.ListOpt("allow_methods", default=["GET", "PUT", "POST", "DELETE", "PATCH"], help="Allowed methods."),
        cfg.ListOpt(
            "allow_headers",
            default=[
                *(
                    "Content-MD5",
                    "X-Image-Meta-Checksum",
                    "X-Storage-Token",
                    "Accept-Encoding",
                    "X-Auth-Token",
                ),
                *("X-Identity-Status", "X-Roles", "X-Service-Catalog", "X-User-Id", "X-Tenant-Id"),
                "X-OpenStack-Request-ID",
            ],
            help="Request headers they may send.",
        ),
        cfg.ListOpt(
            "expose_headers",
            default=[
                "X-Image-Meta-Checksum",
                "X-Auth-Token",
                "X-Subject-Token",
                "X-Service-Token",
                "X-OpenStack-Request-ID",
            ],
            help="Answer headers they may read.",
        ),
        cfg.IntOpt("max_age", default=3600, min=0, help="Seconds that a browser may keep the answer."),
    ),
    "ssl": unsafe(
        "TLS is not served by this release: end it in front of the service, and take the option out",
        *("ca_file", "cert_file", "key_file", "ciphers", "version"),
    ),
}
