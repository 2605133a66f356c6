"""A control host for tests, its own only node: a configuration directory, an engine, a database, a Keystone."""

import os
import re
import subprocess
from pathlib import Path

from tests.servers.keystone import USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.place import HOST, environment, free_port, new_directory
from tests.servers.podman import Podman

OWNER = 42415
VOLUME = "glance"


def known_facts(path: Path) -> dict[str, str]:
    """Environment of Ansible: addresses of the nodes are looked up by the first run of a site alone; none changes."""
    return {"ANSIBLE_GATHERING": "smart", "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(path / "facts")}  # fmt: skip


class Site:
    """`run` is one call of xavs-ansible. `path` is its /etc/xavs: what an operator writes goes there, the
    particulars of this machine stand in a file of globals.d beside it. `account`: the service's user in Keystone, and
    its database; one that exists already keeps its password."""

    def __init__(self, podman: Podman, database: MariaDB, keystone: Keystone, *, account: str = "") -> None:
        self.podman, self.database, self.keystone = podman, database, keystone
        account = account or f"deployed-{os.getpid()}"
        name = account.replace("-", "_")
        self.path = new_directory("site")
        self.port = free_port()
        self.node = new_directory("node")
        (self.path / "globals.d").mkdir()
        (self.path / "globals.d" / "place.yml").write_text(
            f"kolla_internal_vip_address: {HOST}\ndatabase_port: {database.port}\nglance_api_port: {self.port}\n"
            f"keystone_internal_url: {keystone.url}\nkeystone_public_url: {keystone.url}\n"
            f"glance_database_name: {name}\nglance_database_user: {name}\n"
            f"glance_keystone_user: {account}\nglance_api_workers: 1\nnode_config: {self.node}\n"
            "glance_graceful_timeout: 300\n"
        )
        known = f"glance_keystone_password: {USERS[account].password}\n" if account in USERS else ""
        (self.path / "passwords.yml").write_text(f"keystone_admin_password: {USERS['admin'].password}\n{known}")

    @property
    def environment(self) -> dict[str, str]:
        """For every process that is to meet the site's containers, or to change them."""
        return {**self.podman.environment, "ANSIBLE_LOCAL_TEMP": str(self.path / "tmp"),
                "ANSIBLE_HOME": str(self.path / "ansible"), "ANSIBLE_NOCOLOR": "1",
                **known_facts(self.path)}  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def run(self, *words: str, code: int | None = 0) -> str:
        done = subprocess.run(
            [environment(".venv-deploy", "xavs-ansible"), *words, "--configdir", self.path],
            env={**os.environ, **self.environment},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert code is None or done.returncode == code, output[-8000:]
        assert "keystone_admin_password" not in output or USERS["admin"].password not in output
        return output

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The same in the background, in a process group of its own; what it says is lost."""
        return subprocess.Popen(
            [environment(".venv-deploy", "xavs-ansible"), *words, "--configdir", self.path],
            env={**os.environ, **self.environment}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def shell(self, line: str) -> str:
        """A line of the document, typed as it stands."""
        done = subprocess.run(
            ["/bin/bash", "-ec", line], env={**os.environ, **self.podman.environment}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def add(self, text: str) -> None:
        with (self.path / "globals.yml").open("a") as file:
            file.write(text)

    def override(self, text: str) -> None:
        path = self.path / "config" / "glance" / "glance-api.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def container(self) -> tuple[str, str]:
        """Its id and when it was started."""
        found = self.podman.inspect("glance_api")
        return found["Id"], found["State"]["StartedAt"]


def changed(output: str) -> int:
    found = re.search(r"localhost +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0", output)
    assert found, output[-4000:]
    return int(found[1])
