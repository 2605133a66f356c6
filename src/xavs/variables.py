"""The one table of what globals may say about the image service, with types, defaults and other names. Data only.

An option of a store has a key of its own, made from its type (`stores`): `glance_` and the option's name. So
`glance_swift_store_container` is `swift_store_container` of the store of type swift. What other names a key has had
stands with the option there, and here with the other keys; two names with different values are a contradiction. Keys
of the wider deployment are in `foreign_names`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any, Final

from oslo_config import cfg

from xavs.no_effect import WITHOUT_MEANING
from xloud_image.stores import TYPES, store_type
from xloud_image.stores.store_type import Default, Globals


class Type(enum.StrEnum):
    """How the text of a value is read; the text is what error sentences call it."""

    FLAG = "yes or no"
    TEXT = "text"
    NUMBER = "a whole number"
    PORT = "a port number"
    URL = "an http:// or https:// address"
    NAMES = "a list of texts"
    MAP = "a mapping of names to texts"
    ENTRIES = "a list of mappings"
    ANY = "anything"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key. `default`: a value, or a function of the globals; `why`: the default's reason, shown by --explain.

    `also`: other names of the same thing, which must not contradict it. `last`: names that count when neither is given.
    `option`: the option of a store of type `store` that it sets.
    """

    name: str
    type: Type = Type.TEXT
    default: Any = None
    why: str = "default"
    help: str = ""
    secret: bool = False
    also: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    option: cfg.Opt | None = None
    store: str = ""


# Switches of stores: type → key.
SWITCHES: Final[Mapping[str, str]] = {one.name: one.switch for one in TYPES.values() if one.switch}
_PLAIN: Final = store_type.Key()


def _url(name: str, path: str = "") -> Default:
    return lambda g: f"{str(g.get(name)).rstrip('/')}{path}"


def _same(name: str) -> Default:
    return lambda g: g.get(name)


def _address(g: Globals) -> str:
    return str(g.get("kolla_internal_vip_address"))


def _scheme(name: str) -> Default:
    return lambda g: "https" if g.get(name) else "http"


def _catalogue(kind: str) -> Default:
    def url(g: Globals) -> str:
        host = str(g.get(f"glance_{kind}_fqdn"))
        port = g.get("glance_api_public_port" if kind == "external" else "glance_api_port")
        scheme = "https" if g.get(f"kolla_enable_tls_{kind}") else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    return url


def _keystone(kind: str) -> Default:
    def url(g: Globals) -> str:
        host = str(g.get("keystone_internal_fqdn" if kind == "internal" else "keystone_external_fqdn"))
        scheme = "https" if g.get(f"kolla_enable_tls_{kind}") else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{g.get('keystone_public_port')}"

    return url


def _is_common(g: Globals) -> bool:
    return bool(g.get("use_preconfigured_databases") and g.get("use_common_mariadb_user"))


def _database_user(g: Globals) -> Any:
    return g.get("database_user") if _is_common(g) else "glance"


def _database_password(g: Globals) -> Any:
    return g.get("database_password") if _is_common(g) else None


def _no_larger_store(g: Globals) -> bool:
    return not any(g.get(switch) for type_, switch in SWITCHES.items() if type_ != "file" and TYPES[type_].takes_data)


F, T, N = Type.FLAG, Type.TEXT, Type.NUMBER

_STORES: Final = (
    *(
        Key(name, F, _no_larger_store, "on unless a larger store is", help="A store of type file.")
        if type_ == "file"
        else Key(name, F, False, help=f"A store of type {type_}.")
        for type_, name in SWITCHES.items()
    ),
    Key("glance_backends", Type.ENTRIES, None, help="name, type, enabled: stores outside Ceph, instead of switches."),
    Key("glance_ceph_backends", Type.ENTRIES, None, help="name, type rbd, cluster, pool, user, enabled: Ceph stores."),
    Key("glance_store_backends", Type.ENTRIES, None, help="name, type: exactly these stores."),
    Key("glance_default_backend", T, None, help="Name of the store for new images."),
    Key("glance_store_weights", Type.MAP, None, help="Store name → weight; the higher is read first."),
    Key("glance_store_import_formats", Type.MAP, None,
        help="Store name → raw, qcow2, vmdk or as_is: the disk format of what imports bring into it."),
    Key("glance_forget_stores", Type.NAMES, None,
        help="Stores of earlier deployments that are not kept, although images may lie in them."),
    Key("glance_store_descriptions", Type.MAP, None, help="Store name → words for the list of stores."),
    Key("glance_show_image_direct_url", F, None, help="Show where an image lies; unset: when its consumers can clone."),
    Key("glance_show_multiple_locations", F, False, "clients must not change locations",
        "Show and change locations through PATCH."),
    Key("ceph_cluster", T, "ceph", help="Name of the cluster: /etc/ceph/<cluster>.conf."),
    Key("ceph_glance_pool_name", T, "images", help="Pool.", also=("glance_rbd_store_pool",)),
    Key("ceph_glance_user", T, "glance", help="Client, without 'client.'.", also=("glance_rbd_store_user",)),
    Key("ceph_glance_keyring", T, lambda g: f"{g.get('ceph_cluster')}.client.{g.get('ceph_glance_user')}.keyring",
        "named after cluster and user", "File of the key in the override directory, below glance/."),
    Key("external_ceph_cephx_enabled", F, True, help="Ceph asks for keys."),
    Key("vmware_vcenter_name", T, None, help="Datacenter of vmware_datastore_name."),
    Key("vmware_datastore_name", T, None, help="Datastore."),
    Key("glance_file_datadir_volume", T, "glance", help="Named volume, or path on the host; at /var/lib/glance/."),
)  # fmt: skip


def _type_of(opt: cfg.Opt) -> Type:
    if isinstance(opt, (cfg.ListOpt, cfg.MultiStrOpt)):
        return Type.NAMES
    if isinstance(opt, cfg.DictOpt):
        return Type.MAP
    return F if isinstance(opt, cfg.BoolOpt) else N if isinstance(opt, cfg.IntOpt) else T


def _options() -> list[Key]:
    return [
        Key(
            f"glance_{opt.dest}",
            _type_of(opt),
            help=opt.help or "",
            secret=opt.secret,
            option=opt,
            store=one.name,
            default=own.default,
            why=own.why,
            also=own.also,
            last=own.last,
        )
        for one in TYPES.values()
        for opt in one.options
        if (own := one.keys.get(opt.dest, _PLAIN))
    ]


def _here(g: Globals) -> str:
    return str(g.get("api_interface_address"))


_AROUND: Final = (
    Key("openstack_region_name", T, "RegionOne", help="Region."),
    Key("kolla_internal_vip_address", T, "127.0.0.1", "nothing names an address: this machine alone",
        "Address of the balancer, or of the only node.", also=("xavs_internal_vip_address",)),
    Key("kolla_internal_fqdn", T, _address, "kolla_internal_vip_address", "Name of the same."),
    Key("kolla_external_vip_address", T, _address, "kolla_internal_vip_address", "The same outside."),
    Key("kolla_external_fqdn", T, _same("kolla_external_vip_address"), "kolla_external_vip_address", "Its name."),
    Key("kolla_enable_tls_internal", F, False, help="The balancer ends TLS inside."),
    Key("kolla_enable_tls_external", F, False, help="The balancer ends TLS outside."),
    Key("kolla_enable_tls_backend", F, False, help="TLS between balancer and services."),
    Key("api_interface_address", T, _address, "kolla_internal_vip_address", "Address of this node for its peers."),
    Key("openstack_cacert", T, None, help="File with the authorities that are trusted, in the container."),
    Key("openstack_logging_debug", F, False, help="Log more, every service."),
    Key("openstack_service_workers", N, None, help="Processes of every service."),
    Key("database_address", T, _same("kolla_internal_fqdn"), "kolla_internal_fqdn", "Database server."),
    Key("database_port", Type.PORT, 3306, help="Its port.", also=("mariadb_port",)),
    Key("database_user", T, "root", help="Its administrator, who makes our database."),
    Key("use_preconfigured_databases", F, False, help="The database and its user are there already: none is made."),
    Key("use_common_mariadb_user", F, False, help="With the former: the service works as database_user."),
    Key("database_password", T, None, help="Password of database_user.", secret=True),
    Key("database_enable_tls_internal", F, False, help="TLS to the database."),
    Key("keystone_internal_fqdn", T, _same("kolla_internal_fqdn"), "kolla_internal_fqdn", "Keystone inside."),
    Key("keystone_external_fqdn", T, _same("kolla_external_fqdn"), "kolla_external_fqdn", "Keystone outside."),
    Key("keystone_public_port", Type.PORT, 5000, help="Its port.", also=("keystone_internal_port",)),
    Key("keystone_internal_url", Type.URL, _keystone("internal"), "keystone_internal_fqdn", "Keystone for services."),
    Key("keystone_public_url", Type.URL, _keystone("external"), "keystone_external_fqdn", "Keystone for clients."),
    Key("keystone_admin_user", T, "admin", help="Who registers the service."),
    Key("keystone_admin_password", T, None, help="Password of keystone_admin_user.", secret=True),
    Key("keystone_admin_project", T, "admin", help="Project of keystone_admin_user."),
    Key("default_project_domain_id", T, "default", help="Domain of the project service."),
    Key("default_user_domain_id", T, "default", help="Domain of service users."),
    Key("default_project_domain_name", T, "Default", help="The same by name."),
    Key("default_user_domain_name", T, "Default", help="The same by name."),
    Key("memcached_servers", Type.NAMES, None, help="host:port of each; none: tokens are kept in each process."),
    Key("memcache_security_strategy", T, "ENCRYPT", help="How tokens lie in memcached.",
        choices=("None", "MAC", "ENCRYPT")),
    Key("memcache_secret_key", T, None, help="Key for that.", secret=True),
    Key("rpc_transport_url", Type.ANY, None, help="Message bus.", secret=True),
    Key("notify_transport_url", Type.ANY, None, help="Message bus of notifications.", secret=True),
    Key("om_enable_rabbitmq_tls", F, False, help="TLS to the message bus.", also=("rabbitmq_enable_tls",)),
    Key("om_rabbitmq_cacert", T, _same("openstack_cacert"), "openstack_cacert", "Certificates that it is checked by."),
    Key("om_enable_rabbitmq_quorum_queues", F, True, help="Its queues are quorum queues, as those of the consumers."),
    Key("horizon_public_endpoint", Type.URL, None, help="Origin of the dashboard.", also=("horizon_public_url",)),
    Key("node_custom_config", T, None, help="Override directory.", also=("xavs_custom_config",)),
    Key("node_config", T, "/etc/xavs", help="Where the nodes keep configuration.", also=("node_config_directory",)),
    Key("kolla_container_engine", T, None, help="podman or docker; unset: what is there.",
        also=("xavs_container_engine",), choices=("podman", "docker")),
    Key("docker_registry", T, None, help="Registry of the image."),
    Key("docker_namespace", T, None, help="Folder in the registry."),
    Key("openstack_release", T, None, help="Not used here: the image has its own version."),
    Key("default_extra_volumes", Type.NAMES, (), help="Mounts of every container."),
)  # fmt: skip

_SERVICE: Final = (
    Key("enable_glance", F, True, help="The image service is deployed at all.", last=("enable_openstack_core",)),
    Key("glance_api_port", Type.PORT, 9292, help="Port inside."),
    Key("glance_api_listen_port", Type.PORT, _same("glance_api_port"), "glance_api_port", "Port of the process."),
    Key("glance_api_public_port", Type.PORT, _same("glance_api_port"), "glance_api_port", "Port outside."),
    Key("glance_api_bind_host", T, _here, "api_interface_address", "Address that the process listens on."),
    Key("glance_internal_fqdn", T, _same("kolla_internal_fqdn"), "kolla_internal_fqdn", "Name inside."),
    Key("glance_external_fqdn", T, _same("kolla_external_fqdn"), "kolla_external_fqdn", "Name outside."),
    Key("glance_internal_endpoint", Type.URL, _catalogue("internal"), "glance_internal_fqdn", "In the catalogue."),
    Key("glance_public_endpoint", Type.URL, _catalogue("external"), "glance_external_fqdn", "In the catalogue."),
    Key("glance_keystone_user", T, "glance", help="Service user."),
    Key("glance_keystone_password", T, None, help="Its password.", secret=True),
    Key("glance_api_workers", N, _same("openstack_service_workers"), "openstack_service_workers", "Processes."),
    Key("glance_logging_debug", F, _same("openstack_logging_debug"), "openstack_logging_debug", "Log more."),
    Key("glance_log_file", T, None, help="File of the log in the container; none: the container's own log."),
    Key("glance_database_name", T, "glance", help="Database."),
    Key("glance_database_user", T, _database_user, "glance, or database_user with use_common_mariadb_user",
        "Its user."),
    Key("glance_database_address", T, None, help="host or host:port; unset: database_address and database_port."),
    Key("glance_database_password", T, _database_password, "that of database_user with use_common_mariadb_user",
        "Password of glance_database_user.", secret=True),
    Key("glance_database_enable_tls_internal", F, _same("database_enable_tls_internal"),
        "database_enable_tls_internal", "TLS to the database."),
    Key("glance_database_connection", T, None, secret=True,
        help="Whole URL instead of the keys above: postgresql://…, sqlite:///…"),
    Key("glance_auth_method", T, "keystone", help="keystone, or none: no login, loopback only.",
        choices=("keystone", "none")),
    Key("glance_enable_tls_backend", F, _same("kolla_enable_tls_backend"), "kolla_enable_tls_backend", "TLS in us."),
    Key("glance_enable_rolling_upgrade", F, False, help="Upgrades are always rolling here."),
    Key("glance_enable_image_cache", F, False, help="The image cache.", also=("enable_glance_image_cache",)),
    Key("glance_cache_max_size", N, 10737418240, help="Bytes.", also=("glance_image_cache_max_size",)),
    Key("glance_enable_property_protection", F, False, help="Rules file."),
    Key("glance_enable_interoperable_image_import", F, False, help="Import file."),
    Key("glance_enabled_import_methods", T, None, help="Ways of import, separated by commas; unset: all."),
    Key("glance_image_import_plugins", Type.NAMES, None, help="What imports do with data on the way."),
    Key("glance_staging_store_uri", T, None, help="file:// URL of the directory for staged data, in the container."),
    Key("glance_staging_store", T, None, help="Id of the store for data that waits; unset: a directory."),
    Key("glance_job_workers", N, 1, help="Processes for long work, such as imports, in each container."),
    Key("glance_metrics_port", N, 0, help="Port for Prometheus on api_interface_address, without login; 0: none."),
    Key("glance_metrics_compat", F, False, help="There, the names of openstack-exporter as well."),
    Key("glance_use_keystone_limits", F, False, help="Projects have the limits that Keystone knows."),
    Key("glance_user_storage_quota", T, None, help="Data of one project, such as 500GB; unset: any."),
    Key("glance_delayed_delete", F, False, help="Keep the data of deleted images for glance_scrub_time."),
    Key("glance_scrub_time", N, 86400, help="Seconds for which they are kept then, and can be restored."),
    Key("glance_notification_topics", Type.ANY, None,
        help="name, enabled: topics of notifications (or their names); unset: none are sent."),
    Key("glance_policy_file", T, None, help="Rules; unset: policy.yaml, .yml or .json of the overrides."),
    Key("glance_graceful_timeout", N, 60, help="Seconds that transfers get when the service stops or reloads."),
    Key("glance_shutdown_delay", N, 5, help="Seconds that balancers get to see that a node goes, and that it is back."),
    Key("glance_api_image", T, None, help="Image of the container, without its tag."),
    Key("glance_tag", T, None, help="Its tag."),
    Key("glance_api_tag", T, _same("glance_tag"), "glance_tag", "Its tag."),
    Key("glance_api_image_full", T, None, help="Image with its tag."),
    Key("glance_api_dimensions", Type.MAP, None, help="ulimits, memory, cpus of the container.",
        last=("default_container_dimensions",)),
    Key("glance_api_enable_healthchecks", F, True, last=("enable_container_healthchecks",), help="Health check."),
    Key("glance_api_healthcheck_interval", N, 30, help="Seconds."),
    Key("glance_api_healthcheck_retries", N, 3, help="Times."),
    Key("glance_api_healthcheck_start_period", N, 5, help="Seconds."),
    Key("glance_api_healthcheck_timeout", N, 30, help="Seconds."),
    Key("glance_extra_volumes", Type.NAMES, _same("default_extra_volumes"), "default_extra_volumes", "More mounts."),
    Key("glance_api_extra_volumes", Type.NAMES, _same("glance_extra_volumes"), "glance_extra_volumes", "More mounts."),
    Key("glance_api_privileged", F, _same("enable_cinder_backend_privileged"), "enable_cinder_backend_privileged",
        "The container may attach volumes of the host."),
    Key("enable_cinder_backend_privileged", F, False, help="Cinder's volumes are attached to the host."),
    Key("glance_datadir_is_mount", F, None, help="The images' directory must be a mount; unset: as fstab says."),
    Key("haproxy_glance_api_client_timeout", T, "6h", help="Long uploads."),
    Key("haproxy_glance_api_server_timeout", T, "6h", help="Long downloads."),
    *(
        Key(f"glance_api_healthcheck_{name}", Type.ANY, None, help="Ours asks GET /healthcheck.")
        for name in ("test",)
    ),
)  # fmt: skip


@functools.cache
def table() -> Mapping[str, Key]:
    """Key by its own name."""
    found = {key.name: key for key in (*_STORES, *_options(), *_AROUND, *_SERVICE)}
    for name in WITHOUT_MEANING:
        found.setdefault(name, Key(name, Type.ANY))
    return found


@functools.cache
def names() -> Mapping[str, Key]:
    """Key by every name that it goes by alone (not by `last`: these belong to others as well)."""
    found = dict(table())
    for key in table().values():
        found |= dict.fromkeys(key.also, key)
    return found


@functools.cache
def shared() -> frozenset[str]:
    """Names that stand in for a key of ours when it is not given."""
    return frozenset(name for key in table().values() for name in key.last)
