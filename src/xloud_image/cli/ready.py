"""What must hold before the port opens: rules, login, stores and database can be used as the configuration says."""

import asyncio
import dataclasses
import logging
import os
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from xloud_image.errors import ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded
    from xloud_image.config.settings import Server, Settings

_LOG = logging.getLogger(__name__)


def complete(loaded: "Loaded") -> "Loaded":
    """The same with the notes of the other rooms: policy files, login, contradicting options of stores. No I/O but
    reading the files that the configuration names."""
    from xloud_image.config.notes import LEVELS, Kind, Note
    from xloud_image.config.settings import PolicySettings
    from xloud_image.identity import build
    from xloud_image.policy import Policy
    from xloud_image.stores import Stores

    settings = loaded.settings
    notes = list(loaded.notes)

    def refused(*groups: str) -> bool:
        return any((note.option or "").startswith(f"[{group}]") for note in loaded.refusals for group in groups)

    def told(error: ConfigError) -> None:
        notes.append(Note("refuse", Kind.INVALID, error.message))

    try:
        policy = Policy(PolicySettings() if refused("oslo_policy") else settings.policy)
        notes += [Note("warning", Kind.UNKNOWN, warning) for warning in policy.warnings]
        if not refused("xloud", "paste_deploy", "keystone_authtoken"):
            build(settings.auth, policy)
    except ConfigError as error:
        told(error)
    if settings.default_store and not refused("glance_store", *(store.id for store in settings.stores)):
        try:
            stores = Stores(settings.stores, settings.default_store)
            notes += [Note("warning", Kind.INVALID, note) for note in stores.notes()]
        except ConfigError as error:
            told(error)
    return dataclasses.replace(loaded, notes=tuple(sorted(notes, key=lambda note: LEVELS.index(note.level))))


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
        raise ConfigError(f"the directory {file.parent} of the SQLite database does not exist; make it first")
    if not os.access(file.parent, os.W_OK | os.X_OK) or (file.exists() and not os.access(file, os.R_OK | os.W_OK)):
        raise ConfigError(f"the SQLite database {file} is not writable for user id {os.geteuid()}")
    if file.exists() and file.stat().st_size:
        try:
            with sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True) as found:
                found.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{file} is no SQLite database: {error}") from None


def can_listen(server: "Server") -> None:
    """ConfigError when the address cannot be listened on now. The socket is closed again at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.bind_host.strip("[]"), server.bind_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {server.bind_host} port {server.bind_port}: {error.strerror or error}"
        ) from None


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
