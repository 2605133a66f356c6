"""What must hold before the port opens: rules, login, stores and database can be used as the configuration says."""

import asyncio
import dataclasses
import errno
import logging
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xloud_image.errors import CannotConvert, ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    from xloud_image.config.findings import Finding
    from xloud_image.config.loader import Loaded
    from xloud_image.config.settings import Server, Settings

_LOG = logging.getLogger(__name__)


def complete(loaded: "Loaded", *, here: bool = True, serving: "Server | None" = None) -> "Loaded":
    """The same with what the other packages find: whatever would keep `serve` from starting, but for the state of its
    database and a port that another process has now. The one place that says so: `serve`, its reload, `config check`
    and `config render` ask it. No I/O but reading the files that the configuration names.

    `here` False: the service will run on another machine, whose files, libraries and addresses are not looked for.
    `serving`: what this process listens on already; that address is not tried, it may have moved away by now.
    """
    from xloud_image import logs
    from xloud_image.config.findings import SEVERITIES, Finding, Kind, label
    from xloud_image.config.settings import PolicySettings
    from xloud_image.db import arguments, connect
    from xloud_image.identity import build
    from xloud_image.identity.limits import KeystoneLimits
    from xloud_image.policy import Policy
    from xloud_image.schemas import ImageSchema
    from xloud_image.stores.registry import Stores

    settings = loaded.settings
    findings = list(loaded.findings)

    def refused(*groups: str) -> bool:
        return any(finding.about.startswith(f"[{group}]") for finding in loaded.refusals for group in groups)

    def ask(*steps: Callable[[], object]) -> None:
        for step in steps:
            try:
                step()
            except ConfigError as error:
                if here or not _of_that_machine(error):
                    findings.append(Finding("error", error.message, kind=Kind.INVALID))
                return

    def rights() -> None:
        policy = Policy(PolicySettings() if refused("oslo_policy") else settings.policy)
        findings.extend(Finding("warning", told, kind=Kind.UNKNOWN) for told in policy.warnings)
        if not refused("xloud", "paste_deploy", "keystone_authtoken"):
            build(settings.auth, policy)
        if settings.quotas.keystone is not None and not refused("oslo_limit", "keystone_authtoken"):
            KeystoneLimits(settings.quotas.keystone, lasts=settings.quotas.limits_cache_time)

    def database() -> None:
        connect.session_mode(settings.database)
        target = arguments.read(settings.database, files=here)
        where = label("database", "connection")
        # what is left out is told; what takes a protection away is to be looked at
        for note in target.notes:
            harmless = " is not used: " in note or " does not exist" in note
            kind = Kind.IGNORED if harmless else Kind.GUESS
            findings.append(Finding("note" if harmless else "warning", note, where, kind=kind))

    ask(rights)
    if not refused("database"):
        ask(database, *([lambda: sqlite_place(settings)] if here and not loaded.embedded else []))
    if settings.default_store and not refused("glance_store", *(store.id for store in settings.stores)):

        def stores() -> None:
            opened = Stores(settings.stores, settings.default_store)
            findings.extend(Finding("warning", note, kind=Kind.INVALID) for note in opened.notes())

        ask(stores)
    if here and "image_conversion" in settings.imports.image_import_plugins:
        findings.append(_wall(settings))
    ask(lambda: ImageSchema.load(settings.formats, settings.schema_image_file))
    ask(lambda: logs.check(settings, files=here))
    listens = serving is not None and _address(serving) == _address(settings.server)
    if here and not listens and not refused("DEFAULT"):
        ask(lambda: can_listen(settings.server, taken=True))
    return dataclasses.replace(loaded, findings=tuple(sorted(findings, key=lambda one: SEVERITIES.index(one.severity))))


def _wall(settings: "Settings") -> "Finding":
    """Behind which wall qemu converts images here. Runs programs."""
    from xloud_image.config.findings import Finding, Kind, label
    from xloud_image.conversion import sandbox

    where = label("image_import_opts", "image_import_plugins")
    try:
        wall = sandbox.which(required=settings.imports.conversion_sandbox == "required")
    except CannotConvert as error:
        text = f"{error.message}: imports that need it fail; {error.cure}"
        return Finding("warning", text, where, kind=Kind.INVALID)
    return Finding("note", wall.sentence, where, kind=Kind.HONOURED)


def _address(server: "Server") -> tuple[str, int]:
    return server.bind_host, server.bind_port


def _of_that_machine(error: BaseException) -> bool:
    """Whether a library or a file is missing here that the other machine may well have."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        if isinstance(one, ImportError | FileNotFoundError):
            return True
        seen.append(one)
        one = one.__cause__ or one.__context__
    return False


def make_embedded_state(settings: "Settings") -> None:
    """The directories of the embedded default. ConfigError, one sentence, when they cannot be made or written."""
    state = Path(settings.server.state_dir)
    images = [Path(store.options["filesystem_store_datadir"]) for store in settings.stores]
    for path in (state, *images):
        try:
            path.mkdir(mode=0o750, exist_ok=True)
        except FileNotFoundError:
            raise ConfigError(
                f"the state directory {state} cannot be made: {path.parent} does not exist; make it, or name another "
                "directory with XLOUD_IMAGE_STATE"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the state directory {path} cannot be made: {error.strerror}; name another with XLOUD_IMAGE_STATE"
            ) from None
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"the state directory {path} is not writable for user id {os.geteuid()}")


def sqlite_place(settings: "Settings") -> None:
    """ConfigError when the database is an SQLite file in a directory that is missing or cannot be written."""
    scheme, _, rest = settings.database.connection.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return
    file = Path(rest.partition("?")[0].removeprefix("/") or ".")
    if not file.parent.is_dir():
        raise ConfigError(
            f"the directory {file.parent} of the SQLite database does not exist: make it, or name the --config-dir, or"
            " XLOUD_IMAGE_STATE, of the service"
        )
    if not os.access(file.parent, os.W_OK | os.X_OK) or (file.exists() and not os.access(file, os.R_OK | os.W_OK)):
        raise ConfigError(f"the SQLite database {file} is not writable for user id {os.geteuid()}")
    if file.exists() and file.stat().st_size:
        try:
            with sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True) as found:
                found.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{file} is no SQLite database: {error}") from None


def can_listen(server: "Server", *, taken: bool = False) -> None:
    """ConfigError when an address cannot be listened on now. The sockets are closed again at once.

    `taken`: it may be that another process, such as the running service itself, has the ports.
    """
    _try(server.bind_host, server.bind_port, taken)
    if server.metrics_port:
        _try(server.metrics_host, server.metrics_port, taken)


def _try(host: str, port: int, taken: bool) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1)
    except OSError as error:
        if taken and error.errno == errno.EADDRINUSE:
            return
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


async def database_is_current(settings: "Settings") -> None:
    """ConfigError unless the database has this release's state. While it does not answer it is asked again, as often
    as [database] max_retries says; then DatabaseUnavailable."""
    from xloud_image.db import schema

    tries = settings.database.max_retries
    while True:
        try:
            found = await schema.version(settings.database)
            break
        except DatabaseUnavailable as error:
            if tries == 0:
                raise
            _LOG.warning("%s It is asked again in %s s.", error.message, settings.database.retry_interval)
            tries -= 1
            await asyncio.sleep(settings.database.retry_interval)
    if not found.current:
        raise ConfigError(
            f"the database is at {found.ours or 'no'} version of this service, {found.wanted} is wanted; "
            "run: xloud-image db upgrade"
        )
