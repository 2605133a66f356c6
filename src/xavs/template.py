"""Globals and stores → the lines of glance-api.conf and of the files beside it, before any override.

A line that only says a default of the service is left out, unless operators look for it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from oslo_config import cfg

from xavs import variables
from xavs.variables import Type
from xloud_image.config.files import Line
from xloud_image.config.findings import Origin
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xavs.plan import Store
    from xavs.site_globals import Globals

SWIFT_FILE: Final = "glance-swift.conf"
SWIFT_REFERENCE: Final = "swift"
ETC: Final = "/etc/glance"
CERTIFICATES: Final = "certificates"  # folder of the override directory, and below /etc/glance
# options that hold the account of a Swift store in glance-api.conf itself
SWIFT_ACCOUNT: Final = ("swift_store_user", "swift_store_key", "swift_store_auth_address")
SWIFT_CREDENTIAL: Final = ("swift_store_application_credential_id", "swift_store_application_credential_secret")


class Sheet:
    """Lines under way. `add` takes the value of a key (with its origin), or a value with a reason."""

    def __init__(self, g: Globals) -> None:
        self._g = g
        self.lines: list[Line] = []

    def key(self, section: str, option: str, name: str, value: Any = None) -> None:
        """The value of a key; nothing when it has none. `value`: what is made of it."""
        found = self._g.get(name) if value is None else value
        if found is not None and found != "":
            self._line(section, option, found, self._g.origin(name), secret=variables.table()[name].secret)

    def fixed(self, section: str, option: str, value: Any, why: str, *, secret: bool = False) -> None:
        """A value with its reason."""
        self._line(section, option, value, Origin(why=why), secret=secret)

    def at(self, section: str, option: str, value: Any, origin: Origin) -> None:
        """A value of which the origin is known."""
        self._line(section, option, value, origin, secret=False)

    def _line(self, section: str, option: str, value: Any, origin: Origin, *, secret: bool) -> None:
        for text in value if isinstance(value, (list, tuple)) else [value]:
            self.lines.append(Line(section, option, as_text(text), origin, secret=secret))


def as_text(value: Any) -> str:
    """A value as it stands in a file: `$` doubled, quotes around it kept from being dropped."""
    if isinstance(value, bool):
        return str(value)
    text = str(value).replace("$", "$$")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        other = "'" if text[0] == '"' else '"'
        return f"{other}{text}{other}"
    return text


def main(g: Globals, stores: list[Store], default: tuple[str, Origin]) -> list[Line]:
    """The lines of glance-api.conf."""
    sheet = Sheet(g)
    _service(g, sheet, stores)
    _database(g, sheet)
    _identity(g, sheet)
    _messages(g, sheet)
    if default[0]:
        sheet.at("glance_store", "default_backend", default[0], default[1])
    for store in stores:
        if not store.kept:
            _store(g, sheet, store)
    _rest(g, sheet)
    return sheet.lines


def _service(g: Globals, sheet: Sheet, stores: list[Store]) -> None:
    sheet.key("DEFAULT", "debug", "glance_logging_debug")
    sheet.key("DEFAULT", "log_file", "glance_log_file")
    sheet.key("DEFAULT", "bind_host", "glance_api_bind_host")
    sheet.key("DEFAULT", "bind_port", "glance_api_listen_port")
    sheet.key("DEFAULT", "workers", "glance_api_workers")
    if g.is_set("glance_public_endpoint"):
        sheet.key("DEFAULT", "public_endpoint", "glance_public_endpoint")
    host = str(g.get("api_interface_address"))
    url = f"http://{f'[{host}]' if ':' in host else host}:{g.get('glance_api_listen_port')}"
    sheet.at("DEFAULT", "worker_self_reference_url", url, g.origin("api_interface_address"))
    if stores:
        pairs = ", ".join(f"{store.name}:{store.type}" for store in stores)
        first = next((store.origin for store in stores if store.origin.file), stores[0].origin)
        sheet.at("DEFAULT", "enabled_backends", pairs, first)
    _exposure(g, sheet, stores)
    if g.get("glance_enable_image_cache"):
        sheet.key("DEFAULT", "image_cache_max_size", "glance_cache_max_size")
        sheet.at("DEFAULT", "image_cache_dir", "/var/lib/glance/image-cache", g.origin("glance_enable_image_cache"))
    if g.get("glance_enable_property_protection"):
        path = f"{ETC}/property-protections-rules.conf"
        sheet.at("DEFAULT", "property_protection_file", path, g.origin("glance_enable_property_protection"))
    if g.get("glance_delayed_delete"):
        sheet.key("DEFAULT", "delayed_delete", "glance_delayed_delete")
        sheet.key("DEFAULT", "scrub_time", "glance_scrub_time")
    if g.get("glance_use_keystone_limits"):
        sheet.key("DEFAULT", "use_keystone_limits", "glance_use_keystone_limits")
    if g.is_set("glance_user_storage_quota"):
        sheet.key("DEFAULT", "user_storage_quota", "glance_user_storage_quota")
    sheet.key("xloud", "graceful_timeout", "glance_graceful_timeout")
    sheet.key("xloud", "shutdown_delay", "glance_shutdown_delay")


def _exposure(g: Globals, sheet: Sheet, stores: list[Store]) -> None:
    cloned = [store for store in stores if TYPES[store.type].cloned]
    if g.is_set("glance_show_image_direct_url"):
        sheet.key("DEFAULT", "show_image_direct_url", "glance_show_image_direct_url")
        if cloned and not g.get("glance_show_image_direct_url"):
            g.findings.warning(
                f"Cinder and Nova find images of '{cloned[0].name}' by their direct_url: they will copy each one",
                "glance_show_image_direct_url",
                g.origin("glance_show_image_direct_url"),
            )
    elif cloned:
        why = f"images in '{cloned[0].name}' are cloned, not copied, by services that see where they lie"
        sheet.fixed("DEFAULT", "show_image_direct_url", True, why)
        g.findings.note(
            f"show_image_direct_url is on, because {why}; only raw images are cloned from Ceph "
            "(qemu-img convert -O raw before the upload), any other format is copied and converted at each start"
        )
    if g.get("glance_show_multiple_locations"):
        sheet.key("DEFAULT", "show_multiple_locations", "glance_show_multiple_locations")
        g.findings.warning(
            "lets clients read and change locations; Cinder and Nova do not need it (see show_image_direct_url)",
            "glance_show_multiple_locations",
            g.origin("glance_show_multiple_locations"),
        )


def database_address(g: Globals) -> tuple[str, int]:
    """Host and port of the database."""
    given = str(g.get("glance_database_address") or "")
    host, colon, port = given.rpartition(":")
    if colon and port.isdecimal() and not host.endswith(":"):
        return host.strip("[]"), int(port)
    return (given or str(g.get("database_address"))).strip("[]"), int(g.get("database_port") or 3306)


def _database(g: Globals, sheet: Sheet) -> None:
    if g.is_set("glance_database_connection"):
        sheet.key("database", "connection", "glance_database_connection")
        return
    host, port = database_address(g)
    user, password = (quote(str(g.get(name) or ""), safe="") for name in (
        "glance_database_user", "glance_database_password"))  # fmt: skip
    url = f"mysql+pymysql://{user}:{password}@{f'[{host}]' if ':' in host else host}:{port}/" + str(
        g.get("glance_database_name")
    )
    if g.get("glance_database_enable_tls_internal"):
        url += f"?ssl_ca={g.get('openstack_cacert') or '/etc/ssl/certs/ca-certificates.crt'}"
    sheet.key("database", "connection", "glance_database_password", url)
    sheet.fixed("database", "connection_recycle_time", 10, "a balancer before Galera cuts idle connections")
    sheet.fixed("database", "max_retries", -1, "the service waits for its database")


def _identity(g: Globals, sheet: Sheet) -> None:
    if g.get("glance_auth_method") == "none":
        sheet.key("xloud", "auth", "glance_auth_method")
        return
    token = "keystone_authtoken"  # noqa: S105 - the name of a section
    sheet.fixed(token, "service_type", "image", "access rules of application credentials")
    sheet.key(token, "www_authenticate_uri", "keystone_public_url")
    sheet.key(token, "auth_url", "keystone_internal_url")
    sheet.fixed(token, "auth_type", "password", "the service's own account")
    sheet.key(token, "project_domain_id", "default_project_domain_id")
    sheet.key(token, "user_domain_id", "default_user_domain_id")
    sheet.fixed(token, "project_name", "service", "the service's own account")
    sheet.key(token, "username", "glance_keystone_user")
    sheet.key(token, "password", "glance_keystone_password")
    sheet.key(token, "cafile", "openstack_cacert")
    sheet.key(token, "region_name", "openstack_region_name")
    if g.get("memcached_servers"):
        sheet.key(token, "memcached_servers", "memcached_servers", ",".join(g.get("memcached_servers")))
        sheet.key(token, "memcache_security_strategy", "memcache_security_strategy")
        if g.get("memcache_security_strategy") != "None":
            sheet.key(token, "memcache_secret_key", "memcache_secret_key")
    flavor = "keystone+cachemanagement" if g.get("glance_enable_image_cache") else "keystone"
    sheet.at("paste_deploy", "flavor", flavor, g.origin("glance_auth_method"))


def _messages(g: Globals, sheet: Sheet) -> None:
    """The message bus, and what is told on it."""
    sheet.key("DEFAULT", "transport_url", "rpc_transport_url")
    named, topics = "glance_notification_topics", _topics(g)
    if topics:
        sheet.key("oslo_messaging_notifications", "driver", named, "messagingv2")
        sheet.key("oslo_messaging_notifications", "topics", named, ",".join(topics))
        sheet.key("oslo_messaging_notifications", "transport_url", "notify_transport_url")
    if not (g.get("rpc_transport_url") or (topics and g.get("notify_transport_url"))):
        return
    if g.get("om_enable_rabbitmq_tls"):
        sheet.key("oslo_messaging_rabbit", "ssl", "om_enable_rabbitmq_tls")
        sheet.key("oslo_messaging_rabbit", "ssl_ca_file", "om_rabbitmq_cacert")
    if g.get("om_enable_rabbitmq_quorum_queues"):
        sheet.key("oslo_messaging_rabbit", "rabbit_quorum_queue", "om_enable_rabbitmq_quorum_queues")


def _topics(g: Globals) -> list[str]:
    """The names of the topics that are on."""
    given = g.get("glance_notification_topics")
    entries = given if isinstance(given, list) else [] if given in (None, "") else str(given).split(",")
    found = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
    on = [entry for entry in found if str(entry.get("enabled", True)).strip().lower() in ("true", "yes", "on", "1")]
    return [str(entry.get("name", "")).strip() for entry in on if str(entry.get("name", "")).strip()]


def _store(g: Globals, sheet: Sheet, store: Store) -> None:
    weights, words = g.get("glance_store_weights") or {}, g.get("glance_store_descriptions") or {}
    if store.name in words:
        sheet.key(store.name, "store_description", "glance_store_descriptions", words[store.name])
    if store.name in weights:
        sheet.key(store.name, "weight", "glance_store_weights", weights[store.name])
    if store.name in (formats := g.get("glance_store_import_formats") or {}):
        sheet.key(store.name, "import_format", "glance_store_import_formats", formats[store.name])
    if store.type == "rbd":
        for option, value in {
            "rbd_store_user": store.ceph["user"],
            "rbd_store_pool": store.ceph["pool"],
            "rbd_store_ceph_conf": f"/etc/ceph/{store.ceph['cluster']}.conf",
        }.items():
            sheet.at(store.name, option, value, _ceph_origin(g, option))
    if store.type == "swift":
        sheet.fixed(store.name, "swift_store_config_file", f"{ETC}/{SWIFT_FILE}",
                    "the account stays out of the locations in the database")  # fmt: skip
        sheet.fixed(store.name, "default_swift_reference", SWIFT_REFERENCE, f"section of {SWIFT_FILE}")
    for opt in TYPES[store.type].options:
        name = f"glance_{opt.dest}"
        if name not in variables.table() or (store.type == "swift" and opt.dest in SWIFT_ACCOUNT):
            continue
        several = name == "glance_filesystem_store_datadir" and g.is_set("glance_filesystem_store_datadirs")
        if g.is_set(name) or (variables.table()[name].default is not None and not several):
            _option(g, sheet, store, opt, name)


def _ceph_origin(g: Globals, option: str) -> Origin:
    if g.is_set("glance_ceph_backends"):
        return g.origin("glance_ceph_backends")
    return g.origin({"rbd_store_user": "ceph_glance_user", "rbd_store_pool": "ceph_glance_pool_name",
                     "rbd_store_ceph_conf": "ceph_cluster"}[option])  # fmt: skip


def _option(g: Globals, sheet: Sheet, store: Store, opt: cfg.Opt, name: str) -> None:
    value = g.get(name)
    if variables.table()[name].type is Type.NAMES and isinstance(opt, cfg.ListOpt) and value:
        value = ",".join(value)
    if isinstance(value, dict):
        value = ",".join(f"{key}:{item}" for key, item in value.items())
    if value is not None:
        sheet.key(store.name, opt.dest, name, value)


def swift_file(g: Globals) -> list[Line]:
    """The lines of the file with the account of the Swift store."""
    sheet = Sheet(g)
    sheet.fixed(SWIFT_REFERENCE, "auth_version", 3, "only version 3 is spoken")
    for option, name in (("auth_address", "auth_address"), ("user", "user"), ("key", "key")):
        sheet.key(SWIFT_REFERENCE, option, f"glance_swift_store_{name}")
    sheet.key(SWIFT_REFERENCE, "project_domain_id", "default_project_domain_id")
    sheet.key(SWIFT_REFERENCE, "user_domain_id", "default_user_domain_id")
    return sheet.lines


def _rest(g: Globals, sheet: Sheet) -> None:
    sheet.fixed("os_glance_tasks_store", "filesystem_store_datadir", "/var/lib/glance/tasks_work_dir", "in the volume")
    if g.get("glance_staging_store_uri"):
        sheet.key("DEFAULT", "node_staging_uri", "glance_staging_store_uri")
    else:
        sheet.fixed("os_glance_staging_store", "filesystem_store_datadir", "/var/lib/glance/staging", "in the volume")
    sheet.key("DEFAULT", "enabled_import_methods", "glance_enabled_import_methods")
    if plugins := g.get("glance_image_import_plugins"):
        joined = ",".join(plugins)
        sheet.key("image_import_opts", "image_import_plugins", "glance_image_import_plugins", f"[{joined}]")
    if g.get("glance_staging_store"):
        sheet.key("xloud", "staging_store", "glance_staging_store")
    if g.is_set("glance_job_workers"):
        sheet.key("xloud", "job_workers", "glance_job_workers")
    if g.get("glance_metrics_port"):
        sheet.key("xloud", "metrics_port", "glance_metrics_port")
        sheet.key("xloud", "metrics_host", "api_interface_address")
        sheet.key("xloud", "metrics_compat", "glance_metrics_compat")
    sheet.fixed("oslo_middleware", "enable_proxy_headers_parsing", True, "a balancer stands in front")
    if g.get("horizon_public_endpoint"):
        sheet.key("cors", "allowed_origin", "horizon_public_endpoint")


def required(lines: list[Line], stores: list[Store]) -> list[tuple[Store, Mapping[str, str]]]:
    """Stores whose options lack something that they cannot do without: option → the key to set.

    Lines of a store count, and those of [glance_store] and [backend_defaults], as the service reads them.
    """
    has = {line.key for line in lines if line.value.strip()}
    missing: list[tuple[Store, Mapping[str, str]]] = []
    for store in stores:
        lacking = {
            opt.dest: f"glance_{opt.dest}"
            for opt in TYPES[store.type].options
            if opt.required
            and not any((group, opt.dest) in has for group in (store.name.lower(), "glance_store", "backend_defaults"))
        }
        if lacking:
            missing.append((store, lacking))
    return missing
