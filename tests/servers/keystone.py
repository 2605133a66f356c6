"""A real Keystone for tests: gunicorn, SQLite, fernet tokens, and its own memcached.

The first start fills a database with users and projects and keeps it beside the virtual environment;
later starts copy it. Users (password): admin (adminpass, role admin in project admin), glance
(servicepass, roles admin and service in project service), demo (demopass, member of demo), demo-reader
(demopass, reader of demo), alt (altpass, member of alt).
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.http import request
from tests.servers.memcached import Memcached
from tests.servers.place import HOST, ROOT, environment, free_port, new_directory
from tests.servers.process import Process, answers, run

ENVIRONMENT = ".venv-keystone"
REGION = "RegionOne"
INTERFACES = ("public", "internal", "admin")


class Refused(Exception):
    """Keystone answered with a status from 400."""


class User(NamedTuple):
    name: str
    password: str
    project: str
    roles: tuple[str, ...]


USERS = {
    user.name: user
    for user in (
        User("admin", "adminpass", "admin", ("admin",)),
        User("glance", "servicepass", "service", ("admin", "service")),
        User("demo", "demopass", "demo", ("member",)),
        User("demo-reader", "demopass", "demo", ("reader",)),
        User("alt", "altpass", "alt", ("member",)),
    )
}

_CONFIGURATION = """\
[DEFAULT]
log_file = {directory}/keystone.log
[database]
connection = sqlite:///{directory}/keystone.db?timeout=60
sqlite_synchronous = false
[cache]
# one validation costs a second of processor time without a cache
enabled = {cache}
backend = dogpile.cache.pymemcache
memcache_servers = {memcached}
[token]
provider = fernet
expiration = {expiration}
allow_expired_window = {expired_window}
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[identity]
password_hash_algorithm = bcrypt
password_hash_rounds = 4
max_password_length = 72
"""
# run by gunicorn in Keystone's own environment
_APPLICATION = Path(__file__).with_name("keystone_application.py")


class Keystone:
    """`image_url`: the image endpoint in the catalogue. `expiration`: seconds that a token lives;
    `expired_window`: seconds after that in which a service may still validate it."""

    def __init__(
        self,
        *,
        image_url: str = "http://127.0.0.1:9292",
        port: int | None = None,
        expiration: int = 14400,
        expired_window: int = 172800,
        workers: int = 2,
    ) -> None:
        self.port = port or free_port()
        self.image_url = image_url
        self._expiration = expiration
        self._expired_window = expired_window
        self._workers = workers
        self._directory: Path | None = None
        self._process: Process | None = None
        self.memcached = Memcached()

    @property
    def url(self) -> str:
        """The address for `auth_url`."""
        return f"http://{HOST}:{self.port}/v3"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, at the same address and with the same data as before if it was stopped."""
        environment(ENVIRONMENT, "keystone-manage")
        if self._directory is None:
            template = _template()
            self._directory = new_directory("keystone")
            shutil.copytree(template, self._directory, dirs_exist_ok=True)
            _place_endpoints(self._directory / "keystone.db", {"identity": self.url, "image": self.image_url})
        self._run(self._directory)

    def _run(self, directory: Path) -> None:
        self.memcached.start()
        _write_configuration(
            directory,
            memcached=self.memcached.address,
            expiration=self._expiration,
            expired_window=self._expired_window,
        )
        shutil.copy(_APPLICATION, directory)
        self._process = Process(
            "keystone",
            [
                environment(ENVIRONMENT, "gunicorn"),
                *("--bind", f"{HOST}:{self.port}"),
                *("--workers", str(self._workers), "--threads", "4", "--worker-class", "gthread"),
                *("--timeout", "120", "--keep-alive", "5", "--no-control-socket", "--preload"),
                *("--pythonpath", str(directory)),
                "keystone_application:application",
            ],
            log=directory / "log",
            directory=directory,
            environment={"PYTHONWARNINGS": "ignore", "OS_KEYSTONE_CONFIG_DIR": str(directory)},
        )
        self._process.wait_for(lambda: answers(self.url))

    def stop(self) -> None:
        """Stop it; users, tokens and keys stay for another `start()` of the same object."""
        if self._process is not None:
            self._process.stop()
            self._process = None
            self.memcached.stop()

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    # what tests ask it

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[Any, dict[str, str]]:
        """One request to the API under /v3; (decoded body, headers by lower-case name).

        Raises `Refused` for statuses from 400.
        """
        answer = request(
            method,
            self.url + path,
            json=body,
            headers={**headers, **({} if token is None else {"X-Auth-Token": token})},
        )
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status}: {answer.body.decode(errors='replace')}")
        return (answer.json() if answer.body else None), answer.headers

    def token(self, user: str = "admin", project: str | None = None) -> str:
        """A new token of one of `USERS`, scoped to the user's project or to another."""
        return self.login(user, project)[0]

    def login(self, user: str = "admin", project: str | None = None) -> tuple[str, dict[str, Any]]:
        """(token, what Keystone says of it: user, project, roles, expires_at, catalog)."""
        who = USERS[user]
        domain = {"id": "default"}
        body, headers = self.call(
            "POST",
            "/auth/tokens",
            {
                "auth": {
                    "identity": {
                        "methods": ["password"],
                        "password": {"user": {"name": who.name, "password": who.password, "domain": domain}},
                    },
                    "scope": {"project": {"name": project or who.project, "domain": domain}},
                }
            },
        )
        return headers["x-subject-token"], body["token"]

    def revoke(self, token: str) -> None:
        """Make a token invalid at once."""
        self.call("DELETE", "/auth/tokens", token=self.token(), **{"X-Subject-Token": token})

    def project_id(self, name: str) -> str:
        """The id of a project of domain Default."""
        found, _ = self.call("GET", f"/projects?name={name}&domain_id=default", token=self.token())
        identity: str = found["projects"][0]["id"]
        return identity

    def set_image_url(self, url: str) -> None:
        """Give the catalogue another image endpoint; later logins see it."""
        token = self.token()
        services, _ = self.call("GET", "/services?type=image", token=token)
        for service in services["services"]:
            endpoints, _ = self.call("GET", f"/endpoints?service_id={service['id']}", token=token)
            for endpoint in endpoints["endpoints"]:
                self.call("PATCH", f"/endpoints/{endpoint['id']}", {"endpoint": {"url": url}}, token)
        self.image_url = url

    def add_user(self, name: str, password: str, project: str, roles: Sequence[str]) -> None:
        """A user of domain Default with these roles in a project that exists; nothing when it is there already."""
        token = self.token()
        found, _ = self.call("GET", f"/users?name={name}&domain_id=default", token=token)
        if found["users"]:
            return
        listed, _ = self.call("GET", "/roles", token=token)
        identities = {role["name"]: role["id"] for role in listed["roles"]}
        where = self.project_id(project)
        fields = {"name": name, "password": password, "domain_id": "default", "default_project_id": where}
        made, _ = self.call("POST", "/users", {"user": fields}, token)
        for role in roles:
            self.call("PUT", f"/projects/{where}/users/{made['user']['id']}/roles/{identities[role]}", token=token)

    def add_endpoint(self, kind: str, name: str, url: str) -> None:
        """A service of this type with one address, the same for all interfaces; an older address is replaced."""
        token = self.token()
        found, _ = self.call("GET", f"/services?type={kind}", token=token)
        if found["services"]:
            service = found["services"][0]["id"]
            listed, _ = self.call("GET", f"/endpoints?service_id={service}", token=token)
            for endpoint in listed["endpoints"]:
                self.call("PATCH", f"/endpoints/{endpoint['id']}", {"endpoint": {"url": url}}, token)
            return
        made, _ = self.call("POST", "/services", {"service": {"name": name, "type": kind}}, token)
        for interface in INTERFACES:
            fields = {"service_id": made["service"]["id"], "interface": interface, "url": url, "region_id": REGION}
            self.call("POST", "/endpoints", {"endpoint": fields}, token)

    def place_service(self, kind: str, name: str, url: str) -> None:
        """Put a service of another type into the catalogue, or move it; later logins see it."""
        token = self.token()
        services, _ = self.call("GET", f"/services?type={kind}", token=token)
        for service in services["services"]:
            self.call("DELETE", f"/services/{service['id']}", token=token)
        made, _ = self.call("POST", "/services", {"service": {"name": name, "type": kind}}, token)
        for interface in INTERFACES:
            place = {"service_id": made["service"]["id"], "interface": interface, "url": url, "region_id": REGION}
            self.call("POST", "/endpoints", {"endpoint": place}, token)

    def authtoken(self, **more: str) -> dict[str, str]:
        """The `[keystone_authtoken]` section of an operator, for this server."""
        glance = USERS["glance"]
        return {
            "www_authenticate_uri": self.url,
            "auth_url": self.url,
            "auth_type": "password",
            "username": glance.name,
            "password": glance.password,
            "project_name": glance.project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
            "region_name": REGION,
            **more,
        }

    def sections(self, **more: str) -> dict[str, dict[str, str]]:
        """The sections of a configuration file that let callers in by this server."""
        return {"paste_deploy": {"flavor": "keystone"}, "keystone_authtoken": self.authtoken(**more)}

    def clouds(self) -> dict[str, Any]:
        """The entries of a clouds.yaml, one for each user."""
        return {
            user.name: {
                "auth": {
                    "auth_url": self.url,
                    "username": user.name,
                    "password": user.password,
                    "project_name": user.project,
                    "user_domain_name": "Default",
                    "project_domain_name": "Default",
                },
                "region_name": REGION,
                "identity_api_version": "3",
                "image_api_version": "2",
            }
            for user in USERS.values()
        }

    def _populate(self) -> None:
        """Projects, users, roles and the image endpoint, in a database that only knows admin."""
        token = self.token()

        def create(kind: str, **fields: Any) -> str:
            body, _ = self.call("POST", f"/{kind}s", {kind: fields}, token)
            identity: str = body[kind]["id"]
            return identity

        listed, _ = self.call("GET", "/roles", token=token)
        roles = {role["name"]: role["id"] for role in listed["roles"]}
        if "service" not in roles:
            roles["service"] = create("role", name="service")
        others = [user for user in USERS.values() if user.name != "admin"]
        projects = {
            name: create("project", name=name, domain_id="default")
            for name in sorted({user.project for user in others})
        }
        for user in others:
            project = projects[user.project]
            identity = create(
                "user",
                name=user.name,
                password=user.password,
                domain_id="default",
                default_project_id=project,
            )
            for role in user.roles:
                self.call("PUT", f"/projects/{project}/users/{identity}/roles/{roles[role]}", token=token)
        service = create("service", name="glance", type="image")
        for interface in INTERFACES:
            create("endpoint", service_id=service, interface=interface, url=self.image_url, region_id=REGION)

    def _make(self, directory: Path) -> None:
        """A new database and keys in `directory`, filled through a Keystone that runs there."""
        for name in ("fernet", "credential"):
            (directory / name).mkdir(mode=0o700)
        # memcached does not run yet
        _write_configuration(directory, memcached=self.memcached.address, cache=False)
        account = [str(os.geteuid()), str(os.getegid())]
        owner = ["--keystone-user", account[0], "--keystone-group", account[1]]
        urls = [word for name in INTERFACES for word in (f"--bootstrap-{name}-url", self.url)]
        for words in (
            ["db_sync"],
            ["fernet_setup", *owner],
            ["credential_setup", *owner],
            [
                "bootstrap",
                *("--bootstrap-username", "admin", "--bootstrap-password", USERS["admin"].password),
                *("--bootstrap-project-name", "admin", "--bootstrap-role-name", "admin"),
                *("--bootstrap-service-name", "keystone", "--bootstrap-region-id", REGION),
                *urls,
            ],
        ):
            run(
                [
                    environment(ENVIRONMENT, "keystone-manage"),
                    *("--config-file", directory / "keystone.conf"),
                    *words,
                ],
                directory=directory,
                environment={"PYTHONWARNINGS": "ignore"},
                seconds=300,
            )
        with contextlib.closing(sqlite3.connect(directory / "keystone.db")) as database:
            # readers do not wait for the one that writes
            database.execute("pragma journal_mode=wal")
        try:
            self._run(directory)
            self._populate()
        finally:
            self.stop()
        with contextlib.closing(sqlite3.connect(directory / "keystone.db")) as database:
            database.execute("pragma wal_checkpoint(truncate)")


def _write_configuration(
    directory: Path,
    *,
    memcached: str,
    cache: bool = True,
    expiration: int = 14400,
    expired_window: int = 172800,
) -> None:
    (directory / "keystone.conf").write_text(
        _CONFIGURATION.format(
            directory=directory,
            memcached=memcached,
            cache=str(cache).lower(),
            expiration=expiration,
            expired_window=expired_window,
        )
    )


def _template() -> Path:
    """The folder with a filled database; made once for each build of the virtual environment."""
    template = ROOT / ENVIRONMENT / "template"
    if not template.exists():
        made = Path(tempfile.mkdtemp(prefix="template-", dir=ROOT / ENVIRONMENT))
        try:
            Keystone(workers=1)._make(made)
            for name in ("keystone.conf", "keystone.log", "log"):
                (made / name).unlink(missing_ok=True)
            shutil.rmtree(made / "__pycache__", ignore_errors=True)
            # another run may have been quicker; its result is as good
            with contextlib.suppress(OSError):
                made.rename(template)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return template


def _place_endpoints(database: Path, urls: dict[str, str]) -> None:
    """Write the addresses into the catalogue of a Keystone that does not run."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for kind, url in urls.items():
            connection.execute(
                "update endpoint set url = ? where service_id in (select id from service where type = ?)",
                (url, kind),
            )
