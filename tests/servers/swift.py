"""A real Swift for tests: proxy, account, container and object server on one device, callers from a Keystone.

Without a Keystone it speaks S3 besides its own API and has one user, `service:glance` with `servicepass`.
Accounts are `/v1/AUTH_<project id>`; the roles admin, member and swiftoperator own the account of their project.
"""

import os
import pwd
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.servers.http import Answer, request
from tests.servers.keystone import USERS, Keystone
from tests.servers.memcached import Memcached
from tests.servers.place import HOST, environment, free_port, new_directory
from tests.servers.process import Process, answers, run

ENVIRONMENT = ".venv-swift"
PASSWORD: Final = "swiftpass"
_KINDS: Final = ("account", "container", "object")

_SERVER = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = {workers}
user = {user}
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
log_level = WARNING
# nothing else of this machine is measured by these
disable_fallocate = true
"""

_STORAGE = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
[{kind}-replicator]
[{kind}-updater]
[{kind}-auditor]
"""

_PROXY = """\
eventlet_debug = false
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk authtoken keystoneauth copy \
container-quotas account-quotas slo dlo versioned_writes proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
# a change of an ACL or a quota is seen at once
recheck_container_existence = 0
recheck_account_existence = 0
[filter:cache]
use = egg:swift#memcache
memcache_servers = {memcached}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = {password}
delay_auth_decision = true
include_service_catalog = false
service_token_roles = service
service_token_roles_required = true
# a revoked token is refused at once
token_cache_time = {token_cache_time}
[filter:keystoneauth]
use = egg:swift#keystoneauth
reseller_prefix = AUTH
operator_roles = admin, member, swiftoperator
reseller_admin_role = ResellerAdmin
"""
_S3_PROXY = """\
eventlet_debug = false
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes \
proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
recheck_container_existence = 0
recheck_account_existence = 0
[filter:cache]
use = egg:swift#memcache
memcache_servers = {memcached}
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_service_glance = servicepass .admin
"""
_PLAIN: Final = {
    "catch_errors": "catch_errors",
    "gatekeeper": "gatekeeper",
    "healthcheck": "healthcheck",
    "proxy-logging": "proxy_logging",
    "listing_formats": "listing_formats",
    "bulk": "bulk",
    "copy": "copy",
    "container-quotas": "container_quotas",
    "account-quotas": "account_quotas",
    "slo": "slo",
    "dlo": "dlo",
    "versioned_writes": "versioned_writes",
}


class Swift:
    """`keystone` must run at `start`: it is given the user of Swift and the endpoint. `token_cache_time`: seconds for
    which the proxy believes in a token, -1 for none. `workers` of each server."""

    def __init__(
        self, keystone: Keystone | None, *, port: int | None = None, token_cache_time: int = 1, workers: int = 1
    ) -> None:
        self._keystone = keystone
        self.port = port or free_port()
        self._ports = {kind: free_port() for kind in _KINDS}
        self._token_cache_time = token_cache_time
        self._workers = workers
        self._directory: Path | None = None
        self._processes: dict[str, Process] = {}
        self.memcached = Memcached()

    @property
    def keystone(self) -> Keystone:
        """The one that it was made with."""
        assert self._keystone is not None
        return self._keystone

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def endpoint(self) -> str:
        """As in the catalogue of Keystone."""
        return f"{self.url}/v1/AUTH_%(project_id)s"

    def account(self, project: str) -> str:
        """The storage URL of a project, by its name."""
        return f"{self.url}/v1/AUTH_{self.keystone.project_id(project)}"

    def start(self) -> None:
        """Start it, at the same address and with the same data as before if it was stopped."""
        environment(ENVIRONMENT, "swift-proxy-server")
        if self._directory is None:
            self._directory = new_directory("swift")
            if self._keystone is not None:
                self.keystone.add_user("swift", PASSWORD, "service", ("admin", "service"))
                self.keystone.add_endpoint("object-store", "swift", self.endpoint)
            self._write(self._directory)
        self.memcached.start()
        for kind in (*_KINDS, "proxy"):
            self._start(kind)
        for kind in (*_KINDS, "proxy"):
            port = self.port if kind == "proxy" else self._ports[kind]
            path = "/healthcheck" if kind == "proxy" else "/recon/version"
            self._processes[kind].wait_for(lambda port=port, path=path: answers(f"http://{HOST}:{port}{path}"))  # type: ignore[misc]

    def _start(self, kind: str) -> None:
        assert self._directory is not None
        command = environment(ENVIRONMENT, f"swift-{kind}-server")
        self._processes[kind] = Process(
            f"swift {kind}",
            # -v: the log goes to stderr, there is no syslog
            [command, self._directory / f"{kind}-server.conf", "-v"],
            log=self._directory / f"{kind}.log",
            directory=self._directory,
            environment={"PYTHONWARNINGS": "ignore"},
        )

    def _write(self, directory: Path) -> None:
        (directory / "devices" / "d1").mkdir(parents=True)
        _require_attributes(directory / "devices" / "d1")
        (directory / "swift.conf").write_text(
            f"[swift-hash]\nswift_hash_path_prefix = tests\nswift_hash_path_suffix = {secrets.token_hex(8)}\n"
            "[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
        )
        user = pwd.getpwuid(os.geteuid()).pw_name
        for kind in (*_KINDS, "proxy"):
            port = self.port if kind == "proxy" else self._ports[kind]
            text = _SERVER.format(host=HOST, port=port, workers=self._workers, user=user, directory=directory)
            if kind == "proxy":
                text += (
                    _S3_PROXY.format(memcached=self.memcached.address)
                    if self._keystone is None
                    else _PROXY.format(
                        memcached=self.memcached.address,
                        keystone=self.keystone.url,
                        password=PASSWORD,
                        token_cache_time=self._token_cache_time,
                    )
                ) + "".join(f"[filter:{name}]\nuse = egg:swift#{use}\n" for name, use in _PLAIN.items())
            else:
                text += _STORAGE.format(kind=kind)
            (directory / f"{kind}-server.conf").write_text(text)
        # one call of the interpreter for the three rings instead of nine
        run(
            [environment(ENVIRONMENT, "python"), "-c", _RINGS, directory, HOST, *map(str, self._ports.values())],
            directory=directory,
            environment={"PYTHONWARNINGS": "ignore"},
        )

    def stop(self) -> None:
        """Stop it; what it holds stays for another `start()` of the same object."""
        for process in reversed(self._processes.values()):
            process.kill()  # its data is on the disk, and a graceful end waits for open connections
        self._processes.clear()
        self.memcached.stop()

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def freeze(self) -> None:
        """The proxy takes connections and does not answer any more."""
        os.killpg(self._processes["proxy"].pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        os.killpg(self._processes["proxy"].pid, signal.SIGCONT)

    def log(self) -> str:
        """What the proxy wrote."""
        return self._processes["proxy"].output()

    # what tests ask it, by its own API

    def call(
        self,
        method: str,
        path: str,
        *,
        user: str = "glance",
        project: str | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        token: str | None = None,
    ) -> Answer:
        """One request; `path` below the account of `project` (the user's own when None). Any status is an answer."""
        token = token or self.keystone.token(user)
        where = self.account(project or USERS[user].project)
        return request(method, f"{where}/{path}", body=body, headers={"X-Auth-Token": token, **(headers or {})})

    def client(self, *words: str | Path, user: str = "glance", seconds: float = 300) -> str:
        """The `swift` command of python-swiftclient, run to its end; its output."""
        who = USERS[user]
        return run(
            [environment(ENVIRONMENT, "swift"), *words],
            environment={
                "OS_AUTH_URL": self.keystone.url,
                "OS_USERNAME": who.name,
                "OS_PASSWORD": who.password,
                "OS_PROJECT_NAME": who.project,
                "OS_USER_DOMAIN_NAME": "Default",
                "OS_PROJECT_DOMAIN_NAME": "Default",
                "OS_IDENTITY_API_VERSION": "3",
                "PYTHONWARNINGS": "ignore",
                "no_proxy": HOST,
            },
            seconds=seconds,
        )

    def options(self, **more: Any) -> dict[str, Any]:
        """The options of a swift store of the service user, by their names."""
        return {
            "swift_store_auth_address": self.keystone.url,
            "swift_store_user": "service:glance",
            "swift_store_key": "servicepass",
            "swift_store_create_container_on_put": True,
            **more,
        }


_RINGS = """
import sys
from swift.common.ring import RingBuilder
directory, host, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports):
    ring = RingBuilder(4, 1, 1)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": host, "port": int(port), "device": "d1", "weight": 1,
                  "replication_ip": host, "replication_port": int(port), "meta": ""})
    ring.rebalance()
    ring.get_ring().save(f"{directory}/{kind}.ring.gz")
"""


def _require_attributes(directory: Path) -> None:
    """Swift keeps its metadata in extended attributes."""
    if sys.platform != "linux":
        return
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        os.setxattr(file.name, "user.swift.test", b"x" * 1000)
