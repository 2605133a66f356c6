"""The service is started on directories as the usual deployers of Glance leave them, by their words, with a real
Keystone and the database that they name; then clients work with it.

The files are in `directories`. Addresses, passwords and paths are changed to those of the test, nothing else; the port
of the API too, by a file of its own, where none is written.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.servers.client import OpenStack
from tests.servers.http import request
from tests.servers.keystone import REGION, USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.memcached import Memcached
from tests.servers.place import HOST, free_port
from tests.servers.process import Process, answers, run
from tests.servers.service import command, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DIRECTORIES: Final = Path(__file__).with_name("directories")
SECRETS: Final = ("s3cr3t", "k3yst0ne", "r4bb1t", "m3mc4che", "pr0f1l3r")


@dataclasses.dataclass(frozen=True)
class Deployer:
    """`words`: what its unit, container or script gives Glance, which is what ours is given. {etc}: the directory;
    without words it is the one that Glance looks for by itself, where OS_GLANCE_CONFIG_DIR says that it is.
    `files`: where images are below the directory of the test; `told`: in what is said of the files."""

    words: tuple[str, ...]
    files: str
    told: tuple[str, ...] = ()
    log: str = ""


_KOLLA: Final = {"files": "var/lib/glance/images", "log": "var/log/kolla/glance/glance-api.log"}
DEPLOYERS: Final = {
    "kolla-2023.1": Deployer((), told=("[DEFAULT] cinder_catalog_info",), **_KOLLA),
    "kolla-2024.1": Deployer((), **_KOLLA),
    "kolla-2025.1": Deployer((), **_KOLLA),
    "kolla-2026.1": Deployer((), **_KOLLA),
    "devstack": Deployer(("--config-dir", "{etc}"), "opt/stack/data/glance/images", ("graceful_shutdown_timeout",)),
    "devstack-stores": Deployer(("--config-dir", "{etc}"), "opt/stack/data/glance/fast"),
    "debian": Deployer(
        ("--config-file", "{etc}/glance-api.conf"), "var/lib/glance/images", ("no store is named", "bind_host")
    ),
    "openstack-helm": Deployer((), "var/lib/glance/images", ("log_config_append", "rbd_store_crush_rule")),
}


def test_every_directory_is_started() -> None:
    assert {place.name for place in DIRECTORIES.iterdir()} == set(DEPLOYERS)


class Site:
    """One of the directories below `root`, and the service on it."""

    def __init__(self, name: str, root: Path, swaps: dict[str, str]) -> None:
        self.deployer, self.root, self.port = DEPLOYERS[name], root, free_port()
        self.etc = root / "etc" / "glance"
        shutil.copytree(DIRECTORIES / name, self.etc)
        paths = {f"/{top}/": f"{root}/{top}/" for top in ("etc/glance", "var/lib/glance", "var/log", "opt/stack")}
        swaps = swaps | paths | {"bind_host = 10.0.1.11": f"bind_host = {HOST}", "= 9292": f"= {self.port}"}
        wanted = re.compile("|".join(map(re.escape, sorted(swaps, key=len, reverse=True))))
        for file in filter(Path.is_file, self.etc.rglob("*")):
            file.write_text(wanted.sub(lambda found: swaps[found[0]], file.read_text()))
        # what a package's scripts, a container's volume or an administrator have made
        for place in (self.deployer.files, "var/log/kolla/glance", "var/lib/glance/image-cache"):
            (root / place).mkdir(parents=True, exist_ok=True)
        # the port, where none is written: nothing else of the machine may have it
        if not re.search(r"^bind_port", (self.etc / "glance-api.conf").read_text(), re.MULTILINE):
            (self.etc / "glance.conf.d").mkdir()
            self.address = self.etc / "glance.conf.d" / "port.conf"
            self.address.write_text(f"[DEFAULT]\nbind_port = {self.port}\n")
        words = [word.format(etc=self.etc) for word in self.deployer.words]
        if "--config-file" in words:
            words += ["--config-file", str(self.address)]
        self.words = words
        self.environment = {} if words else {"OS_GLANCE_CONFIG_DIR": str(self.etc)}
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def run(self, *words: str) -> str:
        return run([*command(), *words, *self.words], environment=self.environment, directory=self.root, seconds=120)

    def start(self) -> None:
        words = [*installed(), "serve", *self.words]
        log = self.root / "process"
        self._process = Process("ours", words, log=log, directory=self.root, environment=self.environment)
        self._process.wait_for(lambda: answers(f"{self.url}/healthcheck"), 60)

    def stop(self) -> str:
        """End it in order; all that it has logged."""
        assert self._process is not None
        assert self._process.stop() == 0
        log = (self.root / self.deployer.log).read_text() if self.deployer.log else ""
        return self._process.output() + log

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


@pytest.fixture
def limited(keystone: Keystone) -> Iterator[str]:
    """The id of the image endpoint, for whose service limits are registered; the service may read them."""
    token = keystone.token()
    found, _ = keystone.call("GET", "/services?type=image", token=token)
    service = found["services"][0]["id"]
    found, _ = keystone.call("GET", f"/endpoints?service_id={service}&interface=public", token=token)
    endpoint: str = found["endpoints"][0]["id"]
    names = ("image_size_total", "image_stage_total", "image_count_total", "image_count_uploading")
    rows = [{"service_id": service, "resource_name": name, "default_limit": 100, "region_id": REGION} for name in names]
    made, _ = keystone.call("POST", "/registered_limits", {"registered_limits": rows}, token)
    users, _ = keystone.call("GET", "/users?name=glance", token=token)
    roles, _ = keystone.call("GET", "/roles?name=reader", token=token)
    keystone.call("PUT", f"/system/users/{users['users'][0]['id']}/roles/{roles['roles'][0]['id']}", token=token)
    yield endpoint
    for row in made["registered_limits"]:
        keystone.call("DELETE", f"/registered_limits/{row['id']}", token=token)


@pytest.mark.parametrize("name", DEPLOYERS)
def test_a_deployers_directory_starts_the_service(
    name: str,
    tmp_path: Path,
    mariadb: MariaDB,
    keystone: Keystone,
    memcached: Memcached,
    limited: str,
    openstack: OpenStack,
) -> None:
    database = mariadb.create_database().partition("?")[0].partition("://")[2]
    login, bus = keystone.url.removesuffix("/v3"), f"{HOST}:{free_port()}"  # nobody listens there: it can wait
    swaps = {
        "glance:s3cr3t@10.0.1.10:3306/glance": database,
        "root:s3cr3t@127.0.0.1/glance": database,
        "http://10.0.1.10:5000": login,
        "http://10.0.1.10/identity": login,
        "k3yst0ne": USERS["glance"].password,
        "10.0.1.11:11211": memcached.address,
        "localhost:11211": memcached.address,
        "10.0.1.11:5672": bus,
        "10.0.1.10:5672": bus,
        "@localhost": f"@{bus}",
        "0123456789abcdef0123456789abcdef": limited,
    }
    site = Site(name, tmp_path, swaps)
    told = site.run("config", "check")
    lines = told.partition("# To be looked at:")[2]
    assert not [words for words in site.deployer.told if words not in lines], lines
    site.run("db", "upgrade")
    site.start()
    try:
        _use(site, openstack, keystone)
        log = site.stop()
    finally:
        site.kill()
    assert "Traceback" not in log
    assert not [one for one in (*SECRETS, USERS["glance"].password) if one in log + told]


def _use(site: Site, openstack: OpenStack, keystone: Keystone) -> None:
    """A member's day, and what probes ask."""
    health = request("GET", f"{site.url}/healthcheck")
    assert (health.status, health.body) == (200, b"OK")
    assert b"versions" in request("GET", site.url + "/").body, "as monitoring looks at the endpoint"
    assert request("GET", f"{site.url}/v2/images").status == 401
    openstack.clouds["cloud"] = keystone.clouds()["demo"] | {"image_endpoint_override": site.url}
    data = site.root / "data"
    data.write_bytes(b"\x07" * 3_000_000)
    made = openstack.json("image", "create", "--disk-format", "raw", "--file", data, "small", cloud="cloud")
    assert made["status"] == "active"
    kept = [one for one in (site.root / site.deployer.files).iterdir() if made["id"] in one.name]
    assert kept[0].stat().st_size == data.stat().st_size
    assert [one["ID"] for one in openstack.json("image", "list", cloud="cloud")] == [made["id"]]
    assert openstack.json("image", "show", made["id"], cloud="cloud")["checksum"] == made["checksum"]
    openstack.run("image", "save", "--file", site.root / "copy", made["id"], cloud="cloud")
    assert (site.root / "copy").read_bytes() == data.read_bytes()
    openstack.run("image", "delete", made["id"], cloud="cloud")
    assert openstack.json("image", "list", cloud="cloud") == []
    assert not kept[0].exists()
