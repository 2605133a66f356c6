"""Two nodes that import from one queue, on what operators run: a database server, RabbitMQ, a shared store. What dies
meanwhile costs no image: PostgreSQL with S3, MariaDB with Ceph."""

import contextlib
import hashlib
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.points import Armed, service_deaths
from tests.load import quiet
from tests.servers.ceph import Ceph
from tests.servers.http import request
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory, private_address
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rgw import Rgw
from tests.servers.service import Service

IMPORTS = 20
SIZE = 6 << 20
LEASE = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    server = RabbitMQ()
    with contextlib.closing(server):
        server.start()
        yield server


def bucket_of(rgw: Rgw) -> dict[str, Any]:
    """Options of a store of S3 in a bucket of its own."""
    return {
        "s3_store_host": rgw.url,
        "s3_store_access_key": rgw.access,
        "s3_store_secret_key": rgw.secret,
        "s3_store_bucket": f"importing-{secrets.token_hex(4)}",
        "s3_store_create_bucket_on_put": True,
        "s3_store_bucket_url_format": "path",
    }


def pool_of(ceph: Ceph) -> dict[str, Any]:
    """Options of a store in a pool of its own."""
    pool = f"importing-{secrets.token_hex(4)}"
    ceph.admin("osd", "pool", "create", pool, "8")
    ceph.admin("rbd", "pool", "init", pool)
    caps = {"mon": "profile rbd", "osd": f"profile rbd pool={pool}", "mgr": f"profile rbd pool={pool}"}
    ceph.add_user(pool, caps)
    return {"rbd_store_ceph_conf": ceph.conf, "rbd_store_user": pool, "rbd_store_pool": pool}


class Nodes:
    """`first` and `second`: the same configuration but for the port; each with API and a process for long work."""

    def __init__(self, connection: str, broker: RabbitMQ, kind: str, store: dict[str, Any], web: Nginx) -> None:
        directory = new_directory("importing")
        made = []
        for name in ("first", "second"):
            place = directory / name
            place.mkdir()
            one = Service(
                {
                    "DEFAULT": {"enabled_backends": f"shared:{kind}", "transport_url": broker.url},
                    "database": {"connection": connection},
                    "glance_store": {"default_backend": "shared"},
                    "files": {"filesystem_store_datadir": None},
                    "shared": store,
                    "os_glance_staging_store": {"filesystem_store_datadir": directory / "staging"},
                    "import_filtering_opts": {"allowed_ports": f"80,443,{web.port}"},
                    "oslo_messaging_notifications": {"driver": "noop"},
                    "xloud": {"job_workers": 1, "lease_time": LEASE, "reaper_interval": 1},
                },
                directory=place,
            )
            one.environment = (armed := Armed(place / "failpoints")).environment
            made.append((one, armed))
        (self.first, self._first_armed), (self.second, self._second_armed) = made

    def arm(self) -> None:
        """Of each node the process for long work dies with the next job that it takes, half done."""
        for armed in (self._first_armed, self._second_armed):
            armed.arm("job.half")

    def disarm(self) -> list[Service]:
        """Those on which the process has died; the next one of theirs lives."""
        dead = []
        for one, armed in ((self.first, self._first_armed), (self.second, self._second_armed)):
            if service_deaths(one):
                armed.disarm()
                dead.append(one)
        return dead

    def start(self) -> None:
        self.first.run("db", "upgrade")
        for one in (self.first, self.second):
            one.start()
            wait(lambda one=one: "rings of other nodes are heard" in one.log, one)

    def kill(self) -> None:
        for one in (self.first, self.second):
            if one.started:
                one.kill()


def wait(what: Any, service: Service, seconds: float = 60) -> None:
    end = time.monotonic() + quiet(seconds)
    while not what():
        assert time.monotonic() < end, service.log[-3000:]
        time.sleep(0.1)


@pytest.fixture(params=["s3", "rbd"])
def nodes(request: pytest.FixtureRequest, broker: RabbitMQ, files: Path) -> Iterator[Nodes]:
    kind: str = request.param
    if kind == "s3":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        rgw: Rgw = request.getfixturevalue("rgw")
        connection, store = postgresql.create_database(), bucket_of(rgw)
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        ceph: Ceph = request.getfixturevalue("ceph")
        connection, store = mariadb.create_database(), pool_of(ceph)
    web: Nginx = request.getfixturevalue("vendor")
    one = Nodes(connection, broker, kind, store, web)
    try:
        one.start()
        yield one
    finally:
        one.kill()


@pytest.fixture(scope="module")
def files() -> Path:
    return new_directory("vendor")


@pytest.fixture(scope="module")
def vendor(files: Path) -> Iterator[Nginx]:
    """A web server that gives out slowly."""
    server = Nginx(files=files, host=private_address())
    with contextlib.closing(server):
        server.start()
        yield server


def begin(url: str, number: int, files: Path, vendor: Nginx) -> tuple[str, str]:
    """An import by one of two methods; the image and its digest."""
    data = random.Random(number).randbytes(SIZE)
    fields = {"name": f"image {number}", "disk_format": "raw", "container_format": "bare"}
    image = request("POST", f"{url}/v2/images", json=fields).json()["id"]
    if number % 2:
        (files / f"{number}.raw").write_bytes(data)
        method = {"name": "web-download", "uri": f"{vendor.url}/{number}.raw"}
    else:
        headers = {"Content-Type": "application/octet-stream"}
        assert request("PUT", f"{url}/v2/images/{image}/stage", body=data, headers=headers).status == 204
        method = {"name": "glance-direct"}
    answer = request("POST", f"{url}/v2/images/{image}/import", json={"method": method})
    assert answer.status == 202, answer.body
    return image, hashlib.sha512(data).hexdigest()


def test_what_dies_costs_no_image(nodes: Nodes, files: Path, vendor: Nginx) -> None:
    digests: dict[str, str] = {}
    url = nodes.first.url
    for number in range(IMPORTS):
        image, digest = begin(url, number, files, vendor)
        digests[image] = digest
        if number == IMPORTS // 4:
            nodes.arm()
        elif number > IMPORTS // 4:
            nodes.disarm()
    wait(lambda: len(nodes.disarm()) == 2, nodes.first)
    nodes.second.kill()  # its API processes as well; the jobs that it had taken wait for its leases to end
    nodes.second.start()

    def states() -> dict[str, str]:
        return {image: request("GET", f"{url}/v2/images/{image}").json()["status"] for image in digests}

    wait(lambda: set(states().values()) == {"active"}, nodes.first, 120)
    for number, (image, digest) in enumerate(digests.items()):
        node = (nodes.first, nodes.second)[number % 2]
        assert request("GET", f"{node.url}/v2/images/{image}").json()["os_hash_value"] == digest
        assert hashlib.sha512(request("GET", f"{node.url}/v2/images/{image}/file").body).hexdigest() == digest
    done = [request("GET", f"{url}/v2/images/{image}/tasks").json()["tasks"][0]["status"] for image in digests]
    assert done == ["success"] * IMPORTS
    for one in (nodes.first, nodes.second):
        assert one.stop() == 0
        assert "Traceback" not in one.log
