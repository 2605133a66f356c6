"""Globals, passwords and overrides → the files of one node, with the origin of every line. Writes only when told to.

Everything that is wrong with what was given is told in one run, before anything is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xavs import deployment, overrides, passwords, plan, precedence, retained, template, variables, yaml_lines
from xavs.atomic_write import write_whole
from xavs.site_globals import Globals
from xavs.yaml_lines import Entry
from xloud_image.config import loader
from xloud_image.config.files import Line
from xloud_image.config.findings import Findings, Kind, Origin, label
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xavs.passwords import Passwords
    from xavs.vaults import Vault
    from xloud_image.config.loader import Loaded

MAIN: Final = "glance-api.conf"
FACTS: Final = "deployment.json"
PASSWORDS: Final = "passwords.yml"
OVERRIDES: Final = "config"
_UPSTREAMS: Final = "/etc/kolla/config"  # what older files of kolla-ansible write where they mean the default
_HEAD: Final = (
    "Made by `xloud-image config render` from the globals: change those, or the override directory, not this file.\n"
    "`xloud-image config render --explain` says where each line comes from."
)
_SECRET, _PLAIN = 0o600, 0o640
_THERE: Final = f"{template.ETC}/"
# of what the service finds that that somebody who deploys should hear; what is pending is told where its key is
_TOLD: Final = frozenset({Kind.UNKNOWN, Kind.GUESS})


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """Where to read. `overrides`, `passwords` None: where they are by default, beside the globals, if they exist.

    `more`: names and values that win over all files (`-e`). `hostname`: whose override folder is read.
    `address`: of the deployment, for globals that name none; `node_address`: what this node listens on, when that is
    another and the globals do not say. `vault`: the password of what ansible-vault encrypted. `previous`: directories
    with earlier renderings of this deployment, whose stores are kept; but for those in `emptied`.
    """

    globals: Path
    passwords: Path | None = None
    overrides: Path | None = None
    more: Mapping[str, Entry] = dataclasses.field(default_factory=dict)
    hostname: str = ""
    address: str = ""
    node_address: str = ""
    previous: Sequence[Path] = ()
    emptied: frozenset[str] = frozenset()
    vault: Vault | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """What a node gets. `files`: relative path → bytes and mode; `lines`: those of ini files, by path."""

    files: Mapping[str, tuple[bytes, int]] = dataclasses.field(repr=False)
    lines: Mapping[str, Sequence[Line]] = dataclasses.field(repr=False)
    facts: Mapping[str, Any]
    findings: Findings
    unused: Sequence[tuple[str, Entry, str]]
    passwords: Passwords


def render(inputs: Inputs, complete: Callable[[Loaded], Loaded] = lambda loaded: loaded) -> Rendered:
    """Read and render; nothing is written. ConfigError: every error, one line each.

    `complete` adds to a reading of the files what rooms that are not known here would refuse.
    """
    findings = Findings()
    g, secrets = _globals(inputs, findings)
    for name in variables.table():
        g.get(name)  # the type of every key is checked, also of those that mean nothing today
    stores = plan.stores(g)
    default = plan.default(g, stores)
    directory = _overrides(inputs, g)
    theirs: list[Line] = []
    for path in overrides.files(directory, inputs.hostname) if directory else ():
        theirs = overrides.merge(theirs, overrides.read(path, g.text, findings))
    unused = g.look_at_names()
    _without_effect(inputs, g, directory)
    lines = precedence.apply(template.main(g, stores, default), theirs, stores, findings)
    _complete(inputs, g, lines, stores)
    beside = deployment.beside(g, stores, directory, inputs.hostname)
    beside.missing += deployment.absent_certificates(lines, beside)
    kept = _kept(inputs, g, lines)
    if kept.stores:
        stores = [*stores, *kept.stores]
        lines = precedence.apply([*template.main(g, stores, default), *kept.lines], theirs, stores, findings)
    _contradictions(g, stores)
    # files that a kept store needs are the operator's when they are still there, else those that it had
    files = {**kept.files, **deployment.beside(g, stores, directory, inputs.hostname).files}
    findings.stop()

    if beside.policy and not any(line.key == ("oslo_policy", "policy_file") for line in lines):
        lines.append(Line("oslo_policy", "policy_file", beside.policy.name, Origin(beside.policy)))
    by_file: dict[str, Sequence[Line]] = {MAIN: lines}
    if any(line.name == "swift_store_config_file" and not line.theirs for line in lines):
        by_file[template.SWIFT_FILE] = template.swift_file(g)
    for name, some in by_file.items():
        files[name] = (overrides.as_ini(some, _HEAD).encode(), _SECRET)
    theirs_named = (label(line.key[0], name) for line in lines if line.theirs for name in (line.key[1], None))
    try_out(files, findings, complete, frozenset(theirs_named))
    findings.stop()
    told = deployment.of(g, stores, default[0], lines, beside, sorted(files))
    files[FACTS] = ((json.dumps(told, indent=2, sort_keys=True) + "\n").encode(), _PLAIN)
    return Rendered(files, by_file, told, findings, unused, secrets)


def _kept(inputs: Inputs, g: Globals, lines: Sequence[Line]) -> retained.Kept:
    """The stores of earlier deployments that are not among those of these lines, as the service will read them."""
    earlier = retained.known(inputs.previous, FACTS)
    if not earlier or g.findings.of("error"):
        return retained.Kept()
    with tempfile.TemporaryDirectory(prefix="xloud-image-") as name:
        (Path(name) / MAIN).write_text(overrides.as_ini(lines, _HEAD))
        now = loader.load([], [Path(name)], env={}).settings.stores
    return retained.keep(g, earlier, now, inputs.emptied)


def _complete(inputs: Inputs, g: Globals, lines: list[Line], stores: list[plan.Store]) -> None:
    for store, lacking in template.required(lines, stores):
        for option, key in lacking.items():
            told = g.emptied(key)
            g.findings.error(
                f"is missing; the store '{store.name}' ({store.origin}) cannot do without {option}",
                key,
                told.origin if told else Origin(inputs.globals),
            )


def write(rendered: Rendered, output: Path, *, keep_passwords: bool = True) -> list[Path]:
    """Write the files below `output`, and remove those that an earlier run made and this one does not; what changed.

    ConfigError: it cannot be done; every file is then as it was.
    """
    made: set[str] = set()
    # the first run, or an older one: nothing is known to be ours
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        made = set(json.loads((output / FACTS).read_text())["files"])
    try:
        output.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise ConfigError(f"{output} cannot be made: {error.strerror}") from None
    gone = [output / name for name in sorted(made - set(rendered.files)) if ".." not in Path(name).parts]
    files = {output / name: what for name, what in rendered.files.items()}
    if rendered.passwords.made and keep_passwords:
        # first: files that name a password which nobody remembers would be worse than the reverse
        write_whole({rendered.passwords.path: (rendered.passwords.text.encode(), passwords.MODE)})
    return write_whole(files, gone)


def _globals(inputs: Inputs, findings: Findings) -> tuple[Globals, Passwords]:
    if not inputs.globals.is_file():
        findings.error("does not exist; `xavs-ansible` looks for it in its --configdir", origin=Origin(inputs.globals))
        findings.stop()
    paths = [inputs.globals, *sorted((inputs.globals.parent / "globals.d").glob("*.y*ml"))]
    layers = [yaml_lines.read(path, findings, inputs.vault) for path in paths]
    given = frozenset(name for layer in (*layers, inputs.more) for name, entry in layer.items() if entry.value)
    without = Globals([*layers, inputs.more], Findings())
    if without.get("use_preconfigured_databases") and without.get("use_common_mariadb_user"):
        given |= {"glance_database_password"}  # it is that of database_user
    file = inputs.passwords or inputs.globals.parent / PASSWORDS
    if inputs.passwords and not file.parent.is_dir():
        findings.error(f"the directory {file.parent} does not exist", origin=Origin(file))
    secrets = passwords.read(file, findings, given=given, vault=inputs.vault)
    if any(not layer for layer in layers) or (file.exists() and not secrets.entries):
        findings.stop()  # a file of which nothing could be read: what it would have said is not guessed
    node: dict[str, Entry] = {}
    said = {name for layer in (*layers, inputs.more) for name in layer}
    why = Origin(why="found: the address of this node")
    if inputs.address and not said & {"kolla_internal_vip_address", "xavs_internal_vip_address"}:
        node["kolla_internal_vip_address"] = Entry(inputs.address, why)
    if inputs.node_address:
        node["api_interface_address"] = Entry(inputs.node_address, why)
    return Globals([node, *layers, secrets.entries, inputs.more], findings), secrets


def _overrides(inputs: Inputs, g: Globals) -> Path | None:
    if inputs.overrides:
        if not inputs.overrides.is_dir():
            g.findings.error("is no directory", "--overrides", Origin(inputs.overrides))
            return None
        return inputs.overrides
    if g.is_set("node_custom_config"):
        named = Path(str(g.get("node_custom_config") or ""))
        if not named.is_dir() and not g.is_upstreams("node_custom_config") and str(named) != _UPSTREAMS:
            g.findings.error(f"'{named}' is no directory", "node_custom_config", g.origin("node_custom_config"))
            return None
        if named.is_dir():
            return named
    beside = inputs.globals.parent / OVERRIDES
    return beside if beside.is_dir() else None


def _without_effect(inputs: Inputs, g: Globals, directory: Path | None) -> None:
    """A line for each thing that is taken and does nothing, so that nobody takes it for done."""
    name = "glance_cache_max_size"
    if g.is_set(name) and g.get(name) != 10737418240 and not g.get("glance_enable_image_cache"):
        g.findings.warning("has no effect without glance_enable_image_cache", name, g.origin(name))
    for name in ("haproxy_glance_api_client_timeout", "haproxy_glance_api_server_timeout"):
        if g.is_set(name) and g.get(name) != "6h":
            g.findings.warning(
                "has no effect: no balancer is deployed here; deploy/haproxy/glance.cfg says 6h, change it there",
                name,
                g.origin(name),
            )
    if g.get("use_common_mariadb_user") and not g.get("use_preconfigured_databases"):
        name = "use_common_mariadb_user"
        g.findings.warning("has no effect without use_preconfigured_databases", name, g.origin(name))
    beside = inputs.globals.parent / "glance"
    if beside.is_dir() and (directory is None or directory.resolve() != inputs.globals.parent.resolve()):
        right = directory or inputs.globals.parent / OVERRIDES
        for path in sorted(beside.iterdir()):
            if path.is_file():
                protects = path.name.startswith("property-protection")
                to = "property-protections-rules.conf" if protects else path.name
                if protects and not g.get("glance_enable_property_protection"):
                    to += ", and set glance_enable_property_protection: yes"
                g.findings.warning(f"is not read; overrides lie in {right}: move it to {right / 'glance' / to}",
                                   origin=Origin(path))  # fmt: skip


def _contradictions(g: Globals, stores: list[plan.Store]) -> None:
    """What cannot be meant, beyond two names with two values."""
    ceph = [store for store in stores if store.type == "rbd" and not store.kept]
    if ceph and g.get("external_ceph_cephx_enabled") and (empty := g.emptied("ceph_glance_keyring")):
        g.findings.error(
            'is empty, and Ceph asks for keys; name the file, or set external_ceph_cephx_enabled: "no"',
            "ceph_glance_keyring",
            empty.origin,
        )
    if g.get("glance_enable_tls_backend"):
        key = "glance_enable_tls_backend" if g.is_set("glance_enable_tls_backend") else "kolla_enable_tls_backend"
        g.findings.error("TLS is not served by this release: end it in the balancer", key, g.origin(key))
    if g.get("enable_glance") is False:
        g.findings.error("is off: there is nothing to render", "enable_glance", g.origin("enable_glance"))
    if g.get("glance_auth_method") == "keystone" and g.get("api_interface_address") == "127.0.0.1":
        g.findings.warning(
            "nothing names an address: the service listens on 127.0.0.1 alone, and looks for its database and "
            "Keystone there; set it (xavs-ansible fills in the node's own)",
            "kolla_internal_vip_address",
        )
    for name in ("glance_store_weights", "glance_store_descriptions", "glance_store_import_formats"):
        for store in g.get(name) or {}:
            if store not in {one.name for one in stores}:
                g.findings.error(f"'{store}' is no store that is on", name, g.origin(name))


def try_out(
    files: Mapping[str, tuple[bytes, int]],
    findings: Findings,
    complete: Callable[[Loaded], Loaded],
    theirs: frozenset[str] = frozenset(),
) -> None:
    """Read the rendered files as the service will; what it refuses is an error here, what it guesses a warning.

    `theirs`: the options that the operator wrote, by their labels: of these what is not built is told, too.
    What the files call /etc/glance is, for this reading, the directory where they lie.
    """
    with tempfile.TemporaryDirectory(prefix="xloud-image-") as name:
        directory = Path(name)
        for relative, (data, mode) in files.items():
            path = directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.replace(_THERE.encode(), f"{name}/".encode()))
            path.chmod(mode)
        loaded = complete(loader.load([], [directory], env={}))
        for found in loaded.findings:
            about, text = found.about, found.sentence.replace(f"{name}/", _THERE)
            if found.severity == "error":
                findings.error(f"the service would not start: {text}", about)
            elif (
                found.kind in _TOLD
                or (found.severity == "warning" and found.kind is Kind.IGNORED)
                or (found.kind is Kind.PENDING and (about in theirs or about.partition("]")[0] + "]" in theirs))
            ):
                findings.warning(text, about)
