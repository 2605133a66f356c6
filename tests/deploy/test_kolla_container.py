"""The container image under kolla-ansible's hands: the files, environment and commands by which it handles Glance's."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.http import request
from tests.servers.mariadb import MariaDB
from tests.servers.place import HOST, free_port, new_directory
from tests.servers.podman import Podman
from tests.servers.process import Stuck, answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

USER = 42415
INSIDE = "/var/lib/kolla/config_files"
UWSGI = "[uwsgi]\nmaster = true\n{} = {}:{}\nprocesses = 2\nmodule = glance.wsgi.api:application\n"
# the shape of what kolla-ansible 22.2 renders for a file store; without Keystone by an override of the operator's
CONFIGURATION = """\
[DEFAULT]
debug = False
log_file = /var/log/kolla/glance/glance-api.log
worker_self_reference_url = http://{host}:{port}
bind_host = {host}
bind_port = {port}
workers = 1
enabled_backends = file:file
[database]
connection = {database}
connection_recycle_time = 10
max_pool_size = 1
max_retries = -1
[glance_store]
default_backend = "file"
[file]
filesystem_store_datadir = /var/lib/glance/images/
[os_glance_tasks_store]
filesystem_store_datadir = /var/lib/glance/tasks_work_dir
[os_glance_staging_store]
filesystem_store_datadir = /var/lib/glance/staging
[oslo_middleware]
enable_proxy_headers_parsing = True
[xloud]
auth = none
"""


class Node:
    """A host as kolla-ansible leaves it."""

    def __init__(self, podman: Podman, database: MariaDB) -> None:
        self.podman, self.port = podman, free_port()
        directory = new_directory("kolla")
        self.rendered, self.logs = directory / "glance-api", directory / "logs"
        self.rendered.mkdir(mode=0o770)
        self.logs.mkdir()
        connection = database.create_database().replace("mysql+asyncmy", "mysql+pymysql")
        self.write("glance-api.conf", CONFIGURATION.format(host=HOST, port=self.port, database=connection))
        self.write("glance-api-uwsgi.ini", UWSGI.format("http", HOST, self.port))
        (self.rendered / "ca-certificates").mkdir(mode=0o770)
        self.write("ca-certificates/cloud.crt", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
        files: list[dict[str, Any]] = [
            {"source": f"{INSIDE}/{name}", "dest": f"/etc/glance/{name}", "owner": "glance", "perm": "0600"}
            for name in ("glance-api.conf", "glance-api-uwsgi.ini")
        ]
        files.append({"source": f"{INSIDE}/ca-certificates", "dest": "/var/lib/kolla/share/ca-certificates",
                      "owner": "root", "perm": "0644"})  # fmt: skip
        files.append({"source": f"{INSIDE}/absent*", "dest": "/etc/glance/", "owner": "glance", "perm": "0600",
                      "optional": True})  # fmt: skip
        told = {"command": "uwsgi /etc/glance/glance-api-uwsgi.ini", "config_files": files,
                "permissions": [{"path": "/var/lib/glance", "owner": "glance:glance", "recurse": True}]}  # fmt: skip
        self.write("config.json", json.dumps(told))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def write(self, name: str, text: str) -> Path:
        """A file that root alone may read."""
        path = self.rendered / name
        path.write_text(text)
        path.chmod(0o660)
        return path

    def run(self, *words: str, **environment: str) -> str:
        """`podman run` as kolla's module does it."""
        given = {"KOLLA_CONFIG_STRATEGY": "COPY_ALWAYS", "KOLLA_SERVICE_NAME": "glance-api", **environment}
        return self.podman.run(
            "run", "--network", "host", "--volume", f"{self.rendered}:{INSIDE}/:ro", "--volume",
            f"{self.logs}:/var/log/kolla/", "--volume", "kolla_glance:/var/lib/glance/",
            *(f"--env={name}={value}" for name, value in given.items()), *words, self.podman.image("kolla"),
            seconds=120,
        )  # fmt: skip

    def start(self) -> None:
        """The container of the service, until it answers."""
        self.run("--detach", "--name", "glance_api")
        end = time.monotonic() + quiet(60)
        while not answers(f"{self.url}/healthcheck"):
            assert time.monotonic() < end, self.podman.run("logs", "glance_api")
            time.sleep(0.2)


@pytest.fixture(scope="module")
def node(mariadb: MariaDB) -> Iterator[Node]:
    podman = Podman()
    with contextlib.closing(podman):
        podman.start()
        yield Node(podman, mariadb)


def test_from_the_tables_to_the_next_run(node: Node) -> None:
    podman = node.podman
    node.run("--rm", KOLLA_BOOTSTRAP="")
    node.run("--rm", KOLLA_BOOTSTRAP="")  # the next deploy does it again
    node.start()
    podman.run("exec", "glance_api", "healthcheck_curl", f"{node.url}/healthcheck")
    with pytest.raises(Stuck, match="healthcheck_curl"):
        podman.run("exec", "glance_api", "healthcheck_curl", f"{node.url}/nothing")

    fields = {"name": "one", "disk_format": "raw", "container_format": "bare"}
    image = request("POST", f"{node.url}/v2/images", json=fields).json()["id"]
    path = f"{node.url}/v2/images/{image}/file"
    assert request("PUT", path, body=b"abc", headers={"Content-Type": "application/octet-stream"}).status == 204
    assert request("GET", path).body == b"abc"
    assert len(request("GET", f"{node.url}/v2/metadefs/namespaces?limit=5").json()["namespaces"]) == 5
    users = podman.run("top", "glance_api", "huser").split()[1:]
    assert set(users) == {str(USER)}, "nothing of it is root"
    assert (node.logs / "glance" / "glance-api.log").stat().st_uid == USER

    assert podman.run("exec", "glance_api", "kolla_set_configs", "--check") == ""
    file = node.rendered / "glance-api.conf"
    node.write("glance-api.conf", file.read_text().replace("workers = 1", "workers = 2"))
    with pytest.raises(Stuck, match="ended with 1:"):  # for which kolla makes the container anew
        podman.run("exec", "glance_api", "kolla_set_configs", "--check")
    podman.run("stop", "--time", "30", "glance_api")
    assert podman.inspect("glance_api")["State"]["ExitCode"] == 0
    podman.run("rm", "glance_api")
    node.start()
    assert request("GET", path).body == b"abc"
    podman.run("rm", "--force", "--time", "0", "glance_api")


def test_what_it_cannot_do_is_said(node: Node) -> None:
    node.write("glance-api-uwsgi.ini", UWSGI.format("https", HOST, f"{node.port},/etc/a.pem,/etc/b.pem"))
    with pytest.raises(Stuck, match="set glance_enable_tls_backend: no"):
        node.run("--rm")
    node.write("config.json", "{}}")
    with pytest.raises(Stuck, match="is not of kolla's form"):
        node.run("--rm")
    (node.rendered / "config.json").unlink()
    with pytest.raises(Stuck, match="is this started by kolla"):
        node.run("--rm")
