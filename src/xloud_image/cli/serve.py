"""`xloud-image serve`: everything that can be wrong is said before the port opens; then `server` takes over."""

import asyncio
import atexit
import functools
import logging
import os
import shlex
import shutil
import tempfile
from typing import TYPE_CHECKING

import typer

from xloud_image.cli.options import ConfigDirs, ConfigFiles, load, refuse

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded
    from xloud_image.config.settings import Settings

_shared: list[tuple[int, str]] = []  # folders of metrics, by the process that made them
_LEVELS = {"note": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def serve(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Serve the Image API until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.

    Without a configuration file: SQLite and one file store in ./state, no login, only on 127.0.0.1:9292. The variables
    XLOUD_IMAGE_STATE, HOST and PORT change these. With a file nothing is taken from the environment, and the database
    must have been prepared by `xloud-image db upgrade`.

        xloud-image serve

        XLOUD_IMAGE_STATE=/srv/images PORT=9393 xloud-image serve

        xloud-image serve --config-file /etc/glance/glance-api.conf --config-dir /etc/glance/glance-api.conf.d
    """
    loaded = load(config_file, config_dir)
    if loaded.settings.server.counts:
        _share_metrics()
    loaded = prepare(loaded)
    from xloud_image import server
    from xloud_image.cli import ready

    if loaded.embedded:
        typer.echo(first_steps(loaded.settings))
    # the port is open until the end: at a reload nothing is left to try of its address
    complete = functools.partial(ready.complete, serving=loaded.settings.server)
    raise typer.Exit(server.run(loaded, complete))


def prepare(loaded: "Loaded", *, listens: bool = True) -> "Loaded":
    """Log, findings, every check before the port opens, if one is to. ConfigError or DatabaseUnavailable when it must
    stay shut."""
    from xloud_image import logs
    from xloud_image.cli import ready
    from xloud_image.db import schema

    logs.setup(loaded.settings)
    if loaded.embedded:
        refuse(loaded)
        ready.make_embedded_state(loaded.settings)
    loaded = ready.complete(loaded, serving=None if listens else loaded.settings.server)
    log = logging.getLogger("xloud_image.config")
    for finding in loaded.findings:
        if finding.severity != "error" or loaded.settings.log_file:
            log.log(_LEVELS[finding.severity], "%s: %s", finding.kind, finding)
    refuse(loaded)
    ready.sqlite_place(loaded.settings)
    if loaded.embedded:
        asyncio.run(schema.upgrade(loaded.settings.database))
    asyncio.run(ready.database_is_current(loaded.settings))
    if listens:
        ready.can_listen(loaded.settings.server)
    return loaded


def _share_metrics() -> None:
    """A folder in which all processes count together; the library looks for it when it is imported."""
    folder = tempfile.mkdtemp(prefix="xloud-image-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    _shared.append((os.getpid(), folder))
    atexit.register(clear)


def clear() -> None:
    """Remove what this process made for the time that it runs; of others', such as the workers' parent, nothing."""
    while _shared:
        owner, folder = _shared.pop()
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


def first_steps(settings: "Settings") -> str:
    """What a person can type in another terminal."""
    host = settings.server.bind_host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.bind_port}"
    openstack = f"openstack --os-auth-type none --os-endpoint {url} image"
    return f"""\
Image service on {url}, without login. State: {shlex.quote(settings.server.state_dir)}. Ctrl-C stops it.
In another terminal, with python-openstackclient:

  {openstack} create --disk-format qcow2 --file ubuntu.qcow2 ubuntu
  {openstack} list
  {openstack} show ubuntu
  {openstack} save --file copy.qcow2 ubuntu
  {openstack} set --property os_distro=ubuntu ubuntu
  {openstack} delete ubuntu

or with curl:

  curl {url}/v2/images
  curl -X POST {url}/v2/images -H 'Content-Type: application/json' \\
       -d '{{"name": "ubuntu", "disk_format": "qcow2", "container_format": "bare"}}'
  curl -T ubuntu.qcow2 -H 'Content-Type: application/octet-stream' {url}/v2/images/ID/file
  curl -o copy.qcow2 {url}/v2/images/ID/file
"""
