"""From files to `Settings`: one reading, with every finding about it. The only reader of configuration and environment.

The environment counts for nothing but OS_GLANCE_CONFIG_DIR, and XLOUD_IMAGE_STATE, HOST and PORT of the embedded
default: no file at all means SQLite and one file store under one directory, no login, and a loopback address.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xloud_image.config import access, audit, check, files, messaging, paste, quotas, service
from xloud_image.config.findings import SEVERITIES, Finding, label
from xloud_image.config.options.table import table
from xloud_image.config.settings import (
    BarbicanSettings,
    CorsSettings,
    DatabaseSettings,
    DeletionSettings,
    Formats,
    Settings,
    SigningSettings,
)
from xloud_image.config.stores import Stores
from xloud_image.config.values import Values
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EMBEDDED_STATE: Final = "./state"
DATABASE_FILE: Final = "xloud-image.sqlite"
_KEYS: Final = (16, 24, 32)  # bytes of a key of AES
_SQL: Final = ("sqlite", "mysql", "mariadb", "postgresql", "postgres")


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """One reading. `resolved`: section → options with their values in force, secrets masked."""

    settings: Settings
    findings: tuple[Finding, ...]
    files: tuple[Path, ...]
    embedded: bool
    resolved: check.Resolved = dataclasses.field(repr=False)
    _again: Any = dataclasses.field(repr=False, default=None)

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Why the service must not start with this; empty: it may."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def require(self) -> Settings:
        """The settings. ConfigError with every refusal: the service would not do what the file says."""
        if self.refusals:
            raise ConfigError("; ".join(map(str, self.refusals)))
        return self.settings

    def again(self) -> Loaded:
        """The same files as they are now. ConfigError as `load`."""
        loaded: Loaded = self._again()
        return loaded


def load(
    files_: Sequence[Path] = (),
    dirs: Sequence[Path] = (),
    *,
    embedded: bool = False,
    env: Mapping[str, str] | None = None,
) -> Loaded:
    """Read the given files and directories, or those of the standard place, or (none, or `embedded`) the default.

    Never raises for what an option says: that becomes a finding of severity "error". ConfigError: a file is missing,
    unreadable or no ini file; the environment variables of the embedded default cannot be used.
    """
    env = os.environ if env is None else env
    paths = [] if embedded else files.find(files_, dirs, env)
    kept = {name: env[name] for name in ("OS_GLANCE_CONFIG_DIR", "XLOUD_IMAGE_STATE", "HOST", "PORT") if name in env}
    values = Values(paths)
    for group, options in table().items():
        values.register(group, [option.opt for option in options.values()])
    if not paths:
        _embed(values, kept)
    stores = Stores(values)
    auth = access.auth(values, embedded=not paths)
    pipeline = paste.tell(values)
    settings = values.fill(
        Settings,
        server=service.server(values),
        limits=service.limits(values),
        formats=values.fill(Formats),
        exposure=service.exposure(values),
        imports=service.imports(values),
        cache=service.cache(values, stores.settings),
        database=_database(values, embedded=not paths),
        auth=auth,
        quotas=quotas.quotas(values, auth),
        deletion=values.fill(DeletionSettings),
        signing=values.fill(SigningSettings, barbican=values.fill(BarbicanSettings)),
        policy=access.policy(values),
        health=access.health(values),
        cors=values.fill(CorsSettings),
        stores=stores.settings,
        default_store=stores.default,
        url_filters=stores.url_filters,
        messaging=messaging.bus(values),
        notifications=(notifications := messaging.notifications(values)),
        audit=audit.audit(values, pipeline, notifications),
        multi_store=stores.multi,
        **service.rest(values),
    )
    check.classify(values)
    # the worst first, then as in the files
    places: dict[str, int] = {}
    for number, line in enumerate(values.lines):
        places.setdefault(label(line.group, line.name), number)
        places.setdefault(label(line.group), number)
    findings = sorted(
        values.found.all,
        key=lambda finding: (SEVERITIES.index(finding.severity), places.get(finding.about, len(places))),
    )
    return Loaded(
        settings=settings,
        findings=tuple(findings),
        files=tuple(paths),
        embedded=not paths,
        resolved=check.resolve(values, settings),
        _again=lambda: load(files_, dirs, embedded=embedded, env=kept),
    )


def _embed(values: Values, env: Mapping[str, str]) -> None:
    """The defaults of a service without a file."""
    state = Path(env.get("XLOUD_IMAGE_STATE") or EMBEDDED_STATE).absolute()
    port = env.get("PORT") or "9292"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"PORT is '{port}', which is no port number")
    values.default("DEFAULT", "bind_host", env.get("HOST") or "127.0.0.1")
    values.default("DEFAULT", "bind_port", int(port))
    values.default("DEFAULT", "workers", min(os.cpu_count() or 1, 2))
    values.default("xloud", "state_dir", str(state))
    values.default("xloud", "auth", "none")
    values.default("healthcheck", "disable_by_file_path", str(state / "healthcheck_disable"))
    values.default("DEFAULT", "enabled_backends", "file:file")
    values.default("glance_store", "default_backend", "file")
    values.default("file", "filesystem_store_datadir", str(state / "images"))
    values.default("DEFAULT", "node_staging_uri", f"file://{state / 'staging'}")


def _database(values: Values, *, embedded: bool) -> DatabaseSettings:
    get = values.get
    connection = get("database", "connection")
    if not connection:
        path = Path(get("xloud", "state_dir")).absolute() / DATABASE_FILE
        connection = f"sqlite:///{path}"
        if not embedded:
            values.guess(f"is not set: the embedded SQLite database {path} is used", "database", "connection")
    if not connection.partition("://")[1] or connection.partition("://")[0].partition("+")[0] not in _SQL:
        text = "is no URL of a database that is spoken here (sqlite, mysql, mariadb, postgresql)"
        values.refuse(text, "database", "connection")
    if extra := get("database", "connection_parameters"):
        connection += ("&" if "?" in connection else "?") + extra.lstrip("?&")
    key = get("DEFAULT", "metadata_encryption_key") or ""
    if key and len(key.encode()) not in _KEYS:
        values.refuse("must have 16, 24 or 32 characters", "DEFAULT", "metadata_encryption_key")
    return values.fill(DatabaseSettings, connection=connection)
