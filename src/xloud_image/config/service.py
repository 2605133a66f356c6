"""The parts of `Settings` about the server itself, its limits, formats and log. Who is let in stands in `access`."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from xloud_image.config.access import CACHES, EVERY_ADDRESS, flavor_parts
from xloud_image.config.findings import Kind
from xloud_image.config.settings import CacheSettings, Exposure, ImportSettings, Limits, Server, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xloud_image.config.values import Values

MOST_WORKERS: Final = 8
METHODS: Final = ("glance-direct", "web-download", "glance-download", "copy-image")
PLUGINS: Final = ("image_conversion", "image_decompression", "inject_image_metadata", "no_op", "ovf_process")
LOG_FILE: Final = "xloud-image.log"
TASKS: Final = "os_glance_tasks_store"  # Glance's section for work under way
SCHEMA_FILE: Final = "schema-image.json"
OVF_FILE: Final = "ovf-metadata.json"


def server(values: Values) -> Server:
    """Where the service listens, and for how long it waits."""
    get = values.get
    if values.files and not values.is_set("DEFAULT", "bind_host"):
        if (host := get("DEFAULT", "bind_host")) == EVERY_ADDRESS:
            text = "is not set: every address is listened on, as by Glance, because Keystone tells who calls"
            values.tell("note", Kind.GUESS, text, "DEFAULT", "bind_host")
        else:
            text = f"is not set: only {host} is listened on; write {EVERY_ADDRESS} for every address"
            values.guess(text, "DEFAULT", "bind_host")
    endpoint = get("DEFAULT", "public_endpoint") or None
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            text = "is no http(s):// URL: links are made of the address that the client used"
            values.guess(text, "DEFAULT", "public_endpoint")
            endpoint = ""
        endpoint = endpoint.rstrip("/") or None
    if get("xloud", "metrics_port") and get("xloud", "metrics_port") == get("DEFAULT", "bind_port"):
        values.refuse("is the port of the API itself; choose another", "xloud", "metrics_port")
    workers = get("DEFAULT", "workers")
    return values.fill(
        Server,
        bind_host=get("DEFAULT", "bind_host").strip() or "127.0.0.1",
        workers=min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else max(workers, 1),
        public_endpoint=endpoint,
    )


def limits(values: Values) -> Limits:
    """Paging and quotas; every negative quota is -1."""
    quotas = ("image_member_quota", "image_property_quota", "image_tag_quota", "image_location_quota")
    return values.fill(
        Limits,
        limit_param_default=min(values.get("DEFAULT", "limit_param_default"), values.get("DEFAULT", "api_limit_max")),
        **{name: max(values.get("DEFAULT", name), -1) for name in quotas},
    )


def exposure(values: Values) -> Exposure:
    """What clients see of locations."""
    if values.get("xloud", "users_register_store_urls"):
        text = (
            "every member may make an image of any data in our stores whose URL he knows, but for those of other"
            " projects' images, and what is named after his image is removed with it; leave it out as soon as Nova"
            " registers snapshots with its service token"
        )
        values.tell("warning", Kind.HONOURED, text, "xloud", "users_register_store_urls")
    return values.fill(Exposure)


def imports(values: Values) -> ImportSettings:
    """The ways of import, and what is done on them. A plugin that is none here refuses the start: what it was to do
    with every import, such as looking for viruses, would not be done."""
    given = [name.strip(" []\"'") for name in values.get("DEFAULT", "enabled_import_methods")]
    methods = tuple(dict.fromkeys(name for name in given if name in METHODS))
    for name in filter(None, dict.fromkeys(given)):
        if name not in METHODS:
            text = f"'{name}' is no import method and is not offered; the methods are {', '.join(METHODS)}"
            values.guess(text, "DEFAULT", "enabled_import_methods")
    plugins = tuple(
        filter(None, (name.strip(" []\"'") for name in values.get("image_import_opts", "image_import_plugins")))
    )
    for name in plugins:
        if name not in PLUGINS:
            text = f"'{name}' is no import plugin; the plugins are {', '.join(PLUGINS)}"
            values.refuse(text, "image_import_opts", "image_import_plugins")
    roles = tuple(role.lower() for role in values.get("inject_metadata_properties", "ignore_user_roles"))
    ovf = values.beside(OVF_FILE)
    return values.fill(
        ImportSettings,
        enabled_import_methods=methods,
        ovf_metadata_file=str(ovf) if ovf and ovf.exists() else None,
        image_import_plugins=tuple(name for name in plugins if name != "no_op"),
        work_dir=_work_dir(values),
        download_properties=tuple(filter(None, values.get("glance_download_properties", "extra_properties"))),
        inject=values.get("inject_metadata_properties", "inject"),
        ignore_user_roles=roles,
    )


def _work_dir(values: Values) -> str:
    named = values.get("task", "work_dir")
    if not named and values.is_set(TASKS, "filesystem_store_datadir"):
        named = values.get(TASKS, "filesystem_store_datadir")
    return str(named or os.path.join(os.path.abspath(values.get("xloud", "state_dir")), "work"))


def cache(values: Values, stores: Sequence[StoreSettings]) -> CacheSettings:
    """The image cache: on with a directory, unless a flavor is set that names no cache, as with Glance."""
    directory = values.get("DEFAULT", "image_cache_dir") or None
    parts = flavor_parts(values)
    named = bool(CACHES.intersection(parts))
    if directory and parts and not named:
        text = "has no effect: a flavor with caching or cachemanagement would switch the image cache on"
        values.guess(text, "DEFAULT", "image_cache_dir")
        directory = None
    elif directory and (store := _overlaps(directory, stores)) is not None:
        values.refuse(f"and the directory of the store {store} must lie apart", "DEFAULT", "image_cache_dir")
    elif directory and not os.path.isabs(directory):
        path = os.path.abspath(directory)
        text = f"'{directory}' is relative to where the service is started, which is {path} now: write that"
        values.guess(text, "DEFAULT", "image_cache_dir")
    elif named and not directory:
        text = "asks for the image cache, which image_cache_dir would switch on: every read goes to the store"
        values.guess(text, "paste_deploy", "flavor")
    return values.fill(
        CacheSettings,
        image_cache_dir=os.path.abspath(directory) if directory else None,
        worker_self_reference_url=(values.get("DEFAULT", "worker_self_reference_url") or "").rstrip("/") or None,
    )


def _overlaps(directory: str, stores: Sequence[StoreSettings]) -> str | None:
    """The store whose directory this is, or lies in, or holds."""
    for store in stores:
        found = store.options.get("filesystem_store_datadir")
        if found and f"{os.path.commonpath((os.path.abspath(directory), os.path.abspath(found)))}/" in (
            f"{os.path.abspath(directory)}/",
            f"{os.path.abspath(found)}/",
        ):
            return store.id
    return None


def rest(values: Values) -> dict[str, Any]:
    """The fields of `Settings` itself that are not the value of one option."""
    algorithm = values.get("DEFAULT", "hashing_algorithm").strip().lower()
    if algorithm not in hashlib.algorithms_available or not _has_length(algorithm):
        text = f"'{algorithm}' is no digest that can be computed here; sha512 and sha256 are"
        values.refuse(text, "DEFAULT", "hashing_algorithm")
    schema = values.beside(SCHEMA_FILE)
    return {
        "hashing_algorithm": algorithm,
        "schema_image_file": str(schema) if schema and schema.exists() else None,
        "log_file": _log_file(values),
        "log_json": values.get("xloud", "log_json") or values.get("DEFAULT", "use_json"),
    }


def _has_length(algorithm: str) -> bool:
    """Digests of any length (shake) have none of their own and cannot be stored as one value."""
    try:
        return hashlib.new(algorithm, usedforsecurity=False).digest_size > 0
    except ValueError:
        return False


def _log_file(values: Values) -> str | None:
    name, directory = values.get("DEFAULT", "log_file"), values.get("DEFAULT", "log_dir")
    if not name and not directory:
        return None
    return os.path.join(directory or "", name or LOG_FILE)
