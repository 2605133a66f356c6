"""What a playbook must know of a deployment besides the files: container, mounts, registration. No secret is among it.

Keyrings and other files of the override directory are copied beside the rendered ones; one that is missing is named in
`missing`, because rendering needs none of them and deploying all.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xavs import overrides, retained, template
from xloud_image import __version__
from xloud_image.config.files import Line
from xloud_image.config.findings import Origin
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xavs.plan import Store
    from xavs.site_globals import Globals

IMAGE: Final = "localhost/xloud-image"
NAME: Final = "glance_api"
OWNER: Final = 42415  # user and group of the service in its container
DATA: Final = "/var/lib/glance"
# owners that guides name for a fresh directory; it may be handed over
FORMER_OWNERS: Final = (42424,)
_SPARE: Final = 15  # seconds beyond both waits until a container is killed


@dataclasses.dataclass(slots=True)
class Beside:
    """Files that are copied, by relative path; `missing`: what is not there, a sentence each."""

    files: dict[str, tuple[bytes, int]] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    policy: Path | None = None


def beside(g: Globals, stores: list[Store], directory: Path | None, host: str) -> Beside:
    """What the override directory gives besides options."""
    found = Beside()
    folder = directory / "glance" if directory else Path("glance")
    found.policy = _policy(g, folder)
    if found.policy:
        _copy(g, found, found.policy, found.policy.name, 0o640)
    if g.get("glance_enable_property_protection"):
        names = ("property-protections-rules.conf", "property-protections.conf")
        path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
        _copy(g, found, path, names[0], 0o640)
    if g.get("glance_enable_interoperable_image_import"):
        _copy(g, found, folder / "glance-image-import.conf", "glance.conf.d/glance-image-import.conf", 0o640)
    for path in sorted((folder / template.CERTIFICATES).glob("*")):
        if path.suffix in (".crt", ".pem"):
            _copy(g, found, path, f"{template.CERTIFICATES}/{path.name}", 0o640)
    for store in stores:
        if store.type == "rbd":
            _ceph(g, found, folder, store, host)
        elif store.type == "cinder":
            # whose volumes lie in Ceph: the library that attaches them looks for the key of Cinder's user in /etc/ceph
            for path in sorted(folder.glob("*.client.*.keyring")):
                found.files.setdefault(f"ceph/{path.name}", (path.read_bytes(), 0o600))
    return found


def absent_certificates(lines: Sequence[Line], found: Beside) -> list[str]:
    """Options that name a file which the override directory should have given, a sentence each."""
    here = f"{template.ETC}/{template.CERTIFICATES}/"
    return [
        f"{line.value}, which [{line.section}] {line.name} names: put it into the override directory as "
        f"glance/{template.CERTIFICATES}/{line.value.removeprefix(here)} (the name ends in .crt or .pem)"
        for line in lines
        if line.value.startswith(here) and f"{template.CERTIFICATES}/{line.value.removeprefix(here)}" not in found.files
    ]


def _policy(g: Globals, folder: Path) -> Path | None:
    if g.is_set("glance_policy_file"):
        named = Path(str(g.get("glance_policy_file")))
        path = named if named.is_absolute() else folder / named
        if not path.is_file():
            g.findings.error(f"{path} does not exist", "glance_policy_file", g.origin("glance_policy_file"))
            return None
        return path
    return next((folder / name for name in overrides.POLICIES if (folder / name).is_file()), None)


def _ceph(g: Globals, found: Beside, folder: Path, store: Store, host: str) -> None:
    cluster, user = store.ceph["cluster"], store.ceph["user"]
    name = f"{cluster}.conf"
    places = [folder / name, folder / "glance-api" / name, folder / host / name if host else folder / name]
    there = [path for path in dict.fromkeys(places) if path.is_file()]
    if not there:
        found.missing.append(f"{places[0]}: the configuration of the Ceph cluster '{cluster}' (store '{store.name}')")
    elif len(there) == 1:
        _copy(g, found, there[0], f"ceph/{name}", 0o640)
    else:
        lines: list[Line] = []
        for path in there:
            lines = overrides.merge(lines, _flush_left(path, g))
        found.files[f"ceph/{name}"] = (overrides.as_ini(lines, "Merged from the override directory.").encode(), 0o640)
    if not g.get("external_ceph_cephx_enabled"):
        return
    right = f"{cluster}.client.{user}.keyring"
    given = str(g.get("ceph_glance_keyring"))
    # one key names one file: with several users or clusters each has the name that Ceph looks for
    own = not g.is_set("glance_ceph_backends")
    source = _keyring_file(given if own else right)
    if own and source != right:
        g.findings.warning(
            f"Ceph looks for {right}; the file is installed under that name", "ceph_glance_keyring",
            g.origin("ceph_glance_keyring"),
        )  # fmt: skip
    path = folder / source
    if not path.is_file() and (folder / right).is_file():
        path = folder / right
    _copy(g, found, path, f"ceph/{right}", 0o600, f"the key of Ceph's client.{user} (store '{store.name}')")


def _keyring_file(name: str) -> str:
    """As the document writes it, with or without the ending."""
    return name if name.endswith(".keyring") else f"{name}.keyring"


def _flush_left(path: Path, g: Globals) -> list[Line]:
    """Ceph's files may be indented, which other ini readers take for a continuation."""
    section, lines = "global", []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        line = text.strip()
        if match := re.fullmatch(r"\[(.+)\]", line):
            section = match[1]
        elif line and line[0] not in "#;" and "=" in line:
            name, _, value = line.partition("=")
            name = re.sub(r"[\s_]+", "_", name.strip())
            lines.append(Line(section, name, value.strip(), Origin(path, number)))
    return lines


def _copy(g: Globals, found: Beside, path: Path, name: str, mode: int, what: str = "") -> None:
    try:
        found.files[name] = (path.read_bytes(), mode)
    except FileNotFoundError:
        if what:
            found.missing.append(f"{path}: {what}")
        else:
            g.findings.error("does not exist, and is asked for", origin=Origin(path))
    except OSError as error:
        g.findings.error(f"cannot be read: {error.strerror}", origin=Origin(path))


def of(
    g: Globals, stores: list[Store], default: str, lines: Sequence[Line], files_beside: Beside, files: list[str]
) -> dict[str, Any]:
    """The facts as JSON values."""
    address, port = str(g.get("glance_api_bind_host")), int(g.get("glance_api_listen_port"))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - replaced here
    wanted = {line.key: line.value for line in lines}
    drain = int(wanted.get(("xloud", "graceful_timeout")) or 60)
    notice = int(wanted.get(("xloud", "shutdown_delay")) or 0)
    directories = data_directories(g, lines, stores)
    volumes, extra = _volumes(g, stores, directories)
    return {
        "version": __version__,
        "node_config": str(g.get("node_config")),
        "files": files,
        "missing": files_beside.missing,
        "stores": [
            {"name": store.name, "type": store.type, "default": store.name == default, "kept": store.kept}
            for store in stores
        ],
        "forgotten": [str(name) for name in g.get(retained.FORGET) or ()],
        retained.VOLUME: str(g.get("glance_file_datadir_volume")),
        "api": {
            "address": address,
            "port": port,
            "health": f"http://{f'[{host}]' if ':' in host else host}:{port}/healthcheck",
            "workers": g.get("glance_api_workers"),
        },
        "container": {
            "name": NAME,
            "engine": g.get("kolla_container_engine"),
            "image": image(g),
            # rights over the host are root's: another user has none of them, whatever the container may do
            "user": "0:0" if privileged(g, stores) else f"{OWNER}:{OWNER}",
            "privileged": privileged(g, stores),
            "volumes": [*volumes, *extra],
            "named_volumes": [one.partition(":")[0] for one in volumes if not one.startswith("/")],  # others' stay
            "dimensions": g.get("glance_api_dimensions") or {},
            "stop_timeout": notice + drain + _SPARE,
            "health": {
                "enabled": g.get("glance_api_enable_healthchecks"),
                **{
                    name: g.get(f"glance_api_healthcheck_{name}")
                    for name in ("interval", "retries", "start_period", "timeout")
                },
            },
        },
        "graceful_timeout": drain,
        "shutdown_delay": notice,
        "directories": directories,
        "owner": OWNER,
        "former_owners": list(FORMER_OWNERS),
        "database": _database(g),
        "keystone": _keystone(g),
        "balancer": {
            "port": g.get("glance_api_public_port"),
            "client_timeout": g.get("haproxy_glance_api_client_timeout"),
            "server_timeout": g.get("haproxy_glance_api_server_timeout"),
        },
    }


def image(g: Globals) -> str:
    """Image of the container, with its tag."""
    if g.is_set("glance_api_image_full"):
        return str(g.get("glance_api_image_full"))
    tag = g.get("glance_api_tag") or __version__
    if g.is_set("glance_api_image"):
        return f"{g.get('glance_api_image')}:{tag}"
    if g.is_set("docker_registry"):
        return "/".join(filter(None, (g.get("docker_registry"), g.get("docker_namespace"), f"xloud-image:{tag}")))
    return f"{IMAGE}:{tag}"


def privileged(g: Globals, stores: list[Store]) -> bool:
    """Only a Cinder store whose volumes are attached to the host needs it."""
    if g.is_set("glance_api_privileged"):
        return bool(g.get("glance_api_privileged"))
    return bool(g.get("enable_cinder_backend_privileged")) and any(store.type == "cinder" for store in stores)


def data_directories(g: Globals, lines: Sequence[Line], stores: list[Store]) -> list[dict[str, Any]]:
    """Directories on the host that hold images: path there, whether it must be a mount (None: if fstab says so)."""
    found: list[str] = []
    volume = str(g.get("glance_file_datadir_volume"))
    if volume.startswith("/") and any(TYPES[store.type].directory_options for store in stores):
        found.append(volume)
    for line in lines:
        option = line.key[1]
        found += [one.directory(option, line.value) for one in TYPES.values() if option in one.directory_options]
    outside = [path for path in found if not f"{path.rstrip('/')}/".startswith(f"{DATA}/")]
    must = g.get("glance_datadir_is_mount")
    return [{"path": path.rstrip("/") or "/", "mount": must} for path in dict.fromkeys(outside)]


def _volumes(g: Globals, stores: list[Store], directories: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Mounts of the container: what it always has, then what was asked for. The role mounts the configuration."""
    volume = str(g.get("glance_file_datadir_volume"))
    volumes = [f"{volume}:{DATA}/"]
    extra = [str(one) for one in g.get("glance_api_extra_volumes") or ()]
    there = {one.split(":")[1].rstrip("/") for one in extra if one.count(":")}
    volumes += [
        f"{one['path']}:{one['path']}" for one in directories if one["path"] not in {volume.rstrip("/"), *there}
    ]
    if any(store.type == "cinder" for store in stores) and privileged(g, stores):
        volumes += ["/dev:/dev", "/run:/run:shared", "/etc/iscsi:/etc/iscsi:ro", "/lib/modules:/lib/modules:ro"]
    return volumes, extra


def _database(g: Globals) -> dict[str, Any]:
    if g.is_set("glance_database_connection") or g.get("use_preconfigured_databases"):
        return {"create": False}
    host, port = template.database_address(g)
    return {
        "create": True,
        "host": host,
        "port": port,
        "name": g.get("glance_database_name"),
        "user": g.get("glance_database_user"),
        "administrator": g.get("database_user"),
    }


def _keystone(g: Globals) -> dict[str, Any] | None:
    if g.get("glance_auth_method") != "keystone":
        return None
    return {
        "auth_url": g.get("keystone_internal_url"),
        "region": g.get("openstack_region_name"),
        "user": g.get("glance_keystone_user"),
        "project": "service",
        "role": "admin",
        "service": {"name": "glance", "type": "image"},
        "endpoints": {
            "internal": g.get("glance_internal_endpoint"),
            "public": g.get("glance_public_endpoint"),
        },
        "administrator": g.get("keystone_admin_user"),
    }
