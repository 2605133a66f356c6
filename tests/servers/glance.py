"""A real Glance for tests, as operators run it: uWSGI, two processes, stores of files; whoever calls is administrator.

It reads the very file that our service reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.servers.place import HOST, environment, free_port
from tests.servers.process import Process, answers, run

ENVIRONMENT: Final = ".venv-glance"
PROJECT: Final = "0" * 31 + "1"  # those of our service without login
USER: Final = "0" * 31 + "1"

_ADMINISTRATOR: Final = """\
CALLER = {{
    "HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_ROLES": "admin,manager,member,reader",
    "HTTP_X_PROJECT_ID": "{project}", "HTTP_X_TENANT_ID": "{project}", "HTTP_X_USER_ID": "{user}",
}}


def factory(global_conf, **local):
    def filtered(app):
        def call(environ, start_response):
            if "HTTP_X_ROLES" not in environ:
                environ.update(CALLER)
            return app(environ, start_response)

        return call

    return filtered
"""
# in the place of the flavour without login, whose callers have no roles and may do nothing
_FILTER: Final = "\n[filter:everybody]\npaste.filter_factory = everybody:factory\n"
_PIPELINE: Final = "default = cors http_proxy_to_wsgi versionnegotiation osprofiler everybody context rootapp\nformer ="
# the file that Glance ships (httpd/glance-api-uwsgi.ini), with 2 processes and its own http socket
_UWSGI: Final = """\
[uwsgi]
socket-timeout = 30
http-auto-chunked = true
http-chunked-input = true
http-raw-body = true
chunked-input-limit = 67108864
lazy-apps = true
add-header = Connection: close
buffer-size = 65535
thunder-lock = true
enable-threads = true
exit-on-reload = true
die-on-term = true
master = true
processes = {workers}
{threads}
logto = {directory}/uwsgi.log
pythonpath = {directory}
virtualenv = {environment}
module = glance.wsgi.api:application
http-socket = {host}:{port}
"""


def place() -> Path:
    """The folder of Glance's own environment."""
    return environment(ENVIRONMENT, "uwsgi").parents[1]


def lay_out(
    directory: Path, port: int, *, project: str = PROJECT, user: str = USER, workers: int = 2, threads: int = 0
) -> None:
    """What Glance wants beside its configuration: pipelines, in which a caller who does not say who he is counts as an
    administrator of `project`; how it is served; the directories for what is under way."""
    shipped = (place() / "etc" / "glance" / "glance-api-paste.ini").read_text()
    (directory / "glance-api-paste.ini").write_text(shipped.replace("default =", _PIPELINE) + _FILTER)
    (directory / "everybody.py").write_text(_ADMINISTRATOR.format(project=project, user=user))
    for name in ("staging", "tasks", "lock"):
        (directory / name).mkdir(exist_ok=True)
    text = _UWSGI.format(
        workers=workers, threads=f"threads = {threads}" if threads else "", directory=directory,
        environment=place(), host=HOST, port=port,
    )  # fmt: skip
    (directory / "uwsgi.ini").write_text(text)


def serving(directory: Path) -> tuple[list[str | Path], dict[str, str]]:
    """The command that serves what was laid out, and its environment."""
    words: list[str | Path] = [environment(ENVIRONMENT, "uwsgi"), "--ini", directory / "uwsgi.ini"]
    return words, {"OS_GLANCE_CONFIG_DIR": str(directory), "PYTHONWARNINGS": "ignore"}


def manage(configuration: Path, *words: str) -> str:
    """`glance-manage <words>`; what it says."""
    command = [environment(ENVIRONMENT, "glance-manage"), "--config-file", configuration, *words]
    return run(command, environment={"PYTHONWARNINGS": "ignore"}, seconds=300)


class Glance:
    """`stores`: ids of stores of files. `configuration` and `directories` are there from the beginning."""

    def __init__(self, directory: Path, connection: str, stores: tuple[str, ...] = ("fast", "slow")) -> None:
        self.directory, self.port = directory, free_port()
        self.connection, self.stores = connection, stores
        self.configuration = directory / "glance-api.conf"
        self._process: Process | None = None
        self._starts = 0
        directory.mkdir(exist_ok=True)
        self._write()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def store(self, name: str) -> Path:
        """The directory of a store."""
        return self.directory / name

    def _write(self) -> None:
        for name in self.stores:
            self.store(name).mkdir(exist_ok=True)
        lay_out(self.directory, self.port)
        lines = [
            "[DEFAULT]", f"bind_host = {HOST}", f"bind_port = {self.port}", "workers = 2", "transport_url = fake://",
            f"enabled_backends = {','.join(f'{name}:file' for name in self.stores)}",
            f"worker_self_reference_url = {self.url}", "enabled_import_methods = [glance-direct,copy-image]",
            "[database]", f"connection = {self.connection}", "[glance_store]", f"default_backend = {self.stores[0]}",
            "[paste_deploy]", f"config_file = {self.directory / 'glance-api-paste.ini'}",
            "[oslo_concurrency]", f"lock_path = {self.directory / 'lock'}",
            "[oslo_messaging_notifications]", "driver = noop",
            "[os_glance_staging_store]", f"filesystem_store_datadir = {self.directory / 'staging'}",
            "[os_glance_tasks_store]", f"filesystem_store_datadir = {self.directory / 'tasks'}",
            "[xloud]", "auth = none", f"state_dir = {self.directory}",
        ]  # fmt: skip
        for name in self.stores:
            lines += [f"[{name}]", f"filesystem_store_datadir = {self.store(name)}"]
        self.configuration.write_text("\n".join(lines) + "\n")

    def manage(self, *words: str) -> str:
        """`glance-manage <words>`; what it says."""
        return manage(self.configuration, *words)

    def start(self) -> None:
        """Make its tables where they are not there, start it, wait until it answers."""
        if not self._starts:
            self.manage("db_sync")
        self._starts += 1
        words, given = serving(self.directory)
        log = self.directory / f"log-{self._starts}"
        self._process = Process("glance", words, log=log, directory=self.directory, environment=given)
        self._process.wait_for(lambda: answers(f"{self.url}/versions"), 60)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop(seconds=30)
            self._process = None

    def kill(self) -> None:
        """End it at once, with all of its processes."""
        if self._process is not None:
            self._process.kill()
            self._process = None
