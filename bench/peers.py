"""The servers that are measured: Glance as its operators run it, ours, each with a file store and MariaDB.

Installing, configuring, starting and stopping; what they are asked belongs in the rows.
"""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers import glance
from tests.servers.keystone import REGION
from tests.servers.place import HOST, ROOT, environment, free_port
from tests.servers.process import Process, answers, run
from xloud_image.identity.limits import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers.keystone import Keystone

WORKERS = 2
PROJECT = "1" * 32
USER = "2" * 32
_RULE = "create = {0}\nread = {0}\nupdate = {0}\ndelete = {0}\n"
_NAMES = "licence billing audit build_secret owner_specified internal_note hw_firmware_lock cost_centre sla region_lock"
# what sites protect: names, beginnings, and all the rest for everybody
PROTECTIONS = "".join(
    f"[{pattern}]\n{_RULE.format(roles)}"
    for pattern, roles in (
        *((f"^{name}$", "admin,member") for name in _NAMES.split()),
        *((f"^{name}_.*", "admin") for name in _NAMES.split()[:9]),
        (".*", "@"),
    )
)
COMMAND = ROOT / ".venv" / "bin" / "xloud-image"


class Server:
    """One running image service. `auth`: "none" (a fixed admin) or "keystone"."""

    name = ""
    role = "peer"  # what it is in a row

    def __init__(
        self,
        directory: Path,
        *,
        database: str,
        auth: str = "none",
        authtoken: Mapping[str, str] | None = None,
        threads: int = 0,
    ) -> None:
        self.directory = directory
        self.auth = auth
        self.port = free_port()
        self.threads = threads
        self.store = directory / "store"
        self.database = ""
        self._connection = database
        self._authtoken = authtoken or {}
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> dict[str, Any]:
        """Where the load goes."""
        return {"host": HOST, "port": self.port}

    def start(self) -> None:
        """Start it on an empty store and wait until it answers."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.store.mkdir(parents=True)
        self._prepare()
        self._launch()

    def stop(self) -> None:
        """Stop it and remove its images."""
        if self._process is not None:
            # a worker with a slow client may take its time to end
            try:
                self._process.stop(seconds=20)
            finally:
                self._process.kill()
                self._process = None
        shutil.rmtree(self.store, ignore_errors=True)

    def restart(self) -> None:
        """A new process on the same data."""
        assert self._process is not None
        self._process.stop()
        self._launch()

    def _prepare(self) -> None:
        raise NotImplementedError

    def _launch(self) -> None:
        raise NotImplementedError

    def _run(self, command: list[str | Path], env: dict[str, str]) -> None:
        self._process = Process(
            self.name, command, log=self.directory / "log", directory=self.directory, environment=env
        )
        self._process.wait_for(lambda: answers(f"http://{HOST}:{self.port}/versions"))

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One request of a row's preparation; the JSON answer. Raises OSError for a status from 400 on."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
        try:
            content = "application/json"
            if method == "PATCH":
                content = "application/openstack-images-v2.1-json-patch"
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**({"Content-Type": content} if text else {}), **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise OSError(f"{self.name}: {method} {path}: {answer.status} {data[:500]!r}")
        found: dict[str, Any] = json.loads(data) if data else {}
        return found

    def _common(self) -> dict[str, dict[str, str]]:
        """The part of the configuration that both read alike."""
        sections = {
            "DEFAULT": {
                "bind_host": HOST,
                "bind_port": str(self.port),
                "workers": str(WORKERS),
                "enabled_backends": "store1:file",
            },
            "database": {"connection": self._connection},
            "glance_store": {"default_backend": "store1"},
            "store1": {"filesystem_store_datadir": str(self.store)},
        }
        if self._authtoken:
            sections["keystone_authtoken"] = {"service_type": "image", **self._authtoken}
        return sections

    def _write(self, name: str, sections: Mapping[str, Mapping[str, str]]) -> Path:
        lines = []
        for section, options in sections.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {value}" for key, value in options.items()]
        path = self.directory / name
        path.write_text("\n".join(lines) + "\n")
        return path


class Glance(Server):
    """OpenStack Glance under uWSGI, as shipped: 2 processes, no threads (unless `threads`)."""

    name = "glance"

    @staticmethod
    def python() -> Path:
        """The interpreter of its environment, where its drivers are."""
        return environment(glance.ENVIRONMENT, "python")

    def _prepare(self) -> None:
        glance.lay_out(self.directory, self.port, project=PROJECT, user=USER, workers=WORKERS, threads=self.threads)
        sections = self._common()
        sections["DEFAULT"] |= {
            "log_file": str(self.directory / "glance-api.log"),
            "worker_self_reference_url": f"http://{HOST}:{self.port}",
            "transport_url": "fake://",
        }
        sections["os_glance_staging_store"] = {"filesystem_store_datadir": str(self.directory / "staging")}
        sections["os_glance_tasks_store"] = {"filesystem_store_datadir": str(self.directory / "tasks")}
        sections["paste_deploy"] = {"config_file": str(self.directory / "glance-api-paste.ini")}
        if self.auth == "keystone":
            sections["paste_deploy"]["flavor"] = "keystone"
        sections["oslo_concurrency"] = {"lock_path": str(self.directory / "lock")}
        sections["oslo_messaging_notifications"] = {"driver": "noop"}
        glance.manage(self._write("glance-api.conf", sections), "db_sync")

    def _launch(self) -> None:
        self._run(*glance.serving(self.directory))


class Ours(Server):
    """The service of this project, with the configuration that an operator of Glance has."""

    name = "ours"
    role = "ours"
    command = COMMAND
    options: ClassVar[Mapping[str, dict[str, str]]] = {}  # what this one has besides

    @staticmethod
    def installed() -> bool:
        """Whether `make install` was done."""
        return COMMAND.exists()

    def _prepare(self) -> None:
        sections = self._common()
        if self.auth == "keystone":
            sections["paste_deploy"] = {"flavor": "keystone"}
        else:
            sections["xloud"] = {"auth": self.auth}
        for section, options in self._options().items():
            sections[section] = sections.get(section, {}) | options
        self._configuration = self._write("glance-api.conf", sections)
        run([self.command, "db", "upgrade", "--config-file", self._configuration], seconds=600)

    def _options(self) -> Mapping[str, dict[str, str]]:
        return self.options

    def _launch(self) -> None:
        command: list[str | Path] = [self.command, "serve", "--config-file", self._configuration]
        self._run(command, {"XLOUD_IMAGE_STATE": str(self.directory)})


class OneDigest(Ours):
    """This service with one digest instead of two, of the kind that processors have instructions for."""

    name = "one_digest"
    options: ClassVar = {"DEFAULT": {"hashing_algorithm": "sha256"}, "xloud": {"compute_checksum": "false"}}


class Counting(Ours):
    """This service with its numbers for Prometheus."""

    name = "counting"
    options: ClassVar = {"xloud": {"metrics": "true"}}


class Bare(Ours):
    """This service with nothing switched on: what `--with-everything` is measured against."""

    name = "bare"
    role = "peer"


class Everything(Ours):
    """This service with all that operators may switch on and each call pays for: a quota (with Keystone its limits),
    twenty sections of protected properties, notifications."""

    name = "everything"

    more: Mapping[str, dict[str, str]]

    def switch_on(self, keystone: Keystone, broker: str) -> None:
        """Before its start: what it asks, and where it tells."""
        more = {"property_protection_file": str(self.directory / "protections.conf"), "transport_url": broker}
        if self.auth == "keystone":
            more["use_keystone_limits"] = "true"
            token = keystone.token()
            found, _ = keystone.call("GET", "/services?type=image", token=token)
            row = {"service_id": found["services"][0]["id"], "region_id": REGION, "default_limit": 10**9}
            body = {"registered_limits": [{**row, "resource_name": name} for name in RESOURCES]}
            keystone.call("POST", "/registered_limits", body, token)
        else:
            more["user_storage_quota"] = "100TB"
        self.more = {"DEFAULT": more, "oslo_messaging_notifications": {"driver": "messagingv2"}}

    def _prepare(self) -> None:
        (self.directory / "protections.conf").write_text(PROTECTIONS)
        super()._prepare()

    def _options(self) -> Mapping[str, dict[str, str]]:
        return self.more


class Earlier(Ours):
    """This service as another checkout has it (`--beside`): what it is measured against instead of Glance."""

    name = "earlier"
    role = "peer"
