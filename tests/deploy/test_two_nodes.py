"""Two nodes behind HAProxy on one database and two shared stores, Ceph and S3, reconfigured one after the other under
load: no call about an image and no download fails, uploads are drained, not cut, and one node is there at every moment.

The balancer's file is the one that is shipped, with the addresses of this deployment. The tests of this file are one
deployment, in the order of the file."""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.site import known_facts
from tests.deploy.traffic import HELD, Client, Traffic
from tests.servers import http
from tests.servers.ceph import Ceph
from tests.servers.haproxy import HAProxy
from tests.servers.keystone import USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.nodes import Node, Nodes
from tests.servers.place import HOST, ROOT, environment, free_port, new_directory
from tests.servers.podman import Podman
from tests.servers.process import answers
from tests.servers.rgw import Rgw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BALANCER = ROOT / "deploy" / "haproxy" / "glance.cfg"
NOTICE = 5  # glance_shutdown_delay, as it is when nobody sets it
STORES = ("rbd", "s3")
EVERY_TRANSFER = {(kind, store) for kind in ("download", "upload") for store in STORES}
DESCRIPTIONS = {"rbd": "Taken live", "s3": "Taken live as well"}


class Site:
    """A control host with two nodes and their balancer. `settings`: further lines of the globals."""

    def __init__(self, nodes: Nodes, database: MariaDB, keystone: Keystone, settings: str) -> None:
        self.nodes, self.keystone = nodes.all, keystone
        self.path = new_directory("site")
        self.port = free_port()
        name = f"nodes_{os.getpid()}"
        self._globals = (
            f"kolla_internal_vip_address: {HOST}\napi_interface: eth0\nglance_api_port: {self.port}\n"
            f"database_port: {database.port}\nglance_database_name: {name}\nglance_database_user: {name}\n"
            f"keystone_internal_url: {keystone.url}\nkeystone_public_url: {keystone.url}\n"
            f"glance_keystone_user: {name}\nglance_api_workers: 1\nglance_graceful_timeout: 120\n{settings}"
        )
        self.add("")
        (self.path / "passwords.yml").write_text(f"keystone_admin_password: {USERS['admin'].password}\n")
        # the nodes have one file system: where the configuration lies is all that an inventory of hosts need not say
        (self.path / "hosts").write_text("[glance-api]\n" + "".join(
            f"{node.name} ansible_connection=local ansible_python_interpreter={node.python} "
            f"glance_node_config={node.directory}/glance-api\n"
            for node in self.nodes
        ))  # fmt: skip
        text = BALANCER.read_text().replace("bind 10.0.1.10:9292", f"bind {HOST}:{self.port}", 1)
        for number, node in enumerate(self.nodes, 1):
            text = text.replace(
                f"server node{number} 10.0.1.1{number}:9292", f"server {node.name} {node.address}:{self.port}"
            )
        text = re.sub(r"(?m)^ *server node\d.*\n?", "", text)
        assert text.count("    server ") == len(self.nodes)
        self.balancer = HAProxy(text, ready=lambda: answers(f"http://{HOST}:{self.port}", below=600))

    def add(self, text: str) -> None:
        self._globals += text
        (self.path / "globals.yml").write_text(self._globals)

    def run(self, verb: str) -> dict[str, int]:
        """xavs-ansible; how many things were changed on each node."""
        done = subprocess.run(
            [environment(".venv-deploy", "xavs-ansible"), "-i", self.path / "hosts", verb, "--configdir", self.path],
            env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(self.path / "tmp"), "ANSIBLE_HOME": str(self.path / "ansible"),
                 "ANSIBLE_NOCOLOR": "1", **known_facts(self.path)},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
        found = re.findall(r"(?m)^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0", done.stdout)
        return {name: int(number) for name, number in found}

    def client(self) -> Client:
        return Client(self.port, self.keystone.token("admin"))

    def away(self) -> list[float]:
        """When nodes were found to be away."""
        return [turn.when for turn in self.balancer.turns() if not turn.up]

    def await_both(self) -> None:
        """The balancer counts on both."""
        end = time.monotonic() + 60
        while {turn.server: turn.up for turn in self.balancer.turns()} != {node.name: True for node in self.nodes}:
            assert time.monotonic() < end, self.balancer.turns()
            time.sleep(0.2)

    @contextlib.contextmanager
    def under_load(self) -> Iterator[tuple[Traffic, float]]:
        """Clients at work within; then what must hold of their calls. Yields their book and when all were at work."""
        traffic = Traffic(self.port, self.keystone.token("admin"), STORES, self.away)
        with traffic.running():
            yield traffic, time.time()
        assert not traffic.failures, "\n".join(traffic.failures)
        for kind, least in {"metadata": 100, "download": 5, "upload": 5}.items():
            assert traffic.counts[kind] >= least, traffic.counts
        wrong = [call for call in self.balancer.calls() if call.status >= 500 or call.ending != "----"]
        assert [call for call in wrong if call.server != "<NOSRV>"] == []
        client = self.client()
        assert {image: client.download(image) for image in traffic.digests} == traffic.digests
        states = {image: client.data("GET", f"/v2/images/{image}", 200)["status"] for image in traffic.digests}
        assert set(states.values()) == {"active"}


def container(node: Node) -> tuple[str, str]:
    """Its id and when it was started."""
    found = node.podman.inspect("glance_api")
    return found["Id"], found["State"]["StartedAt"]


def descriptions(site: Site, node: Node) -> dict[str, str]:
    """Of the stores, as one node tells them."""
    told: dict[str, Any] = http.request("GET", f"http://{node.address}:{site.port}/v2/info/stores",
                                        headers={"X-Auth-Token": site.keystone.token("admin")}).json()  # fmt: skip
    return {store["id"]: store.get("description", "") for store in told["stores"]}


def ports_of(ceph: Ceph) -> list[int]:
    """Every port of it that clients are sent to."""
    monitors = json.loads(ceph.admin("mon", "dump", "--format", "json"))["mons"]
    disks = json.loads(ceph.admin("osd", "dump", "--format", "json"))["osds"]
    manager = json.loads(ceph.admin("mgr", "dump", "--format", "json"))
    found = [*(one["public_addrs"] for one in (*monitors, *disks)), manager["active_addrs"]]
    return [int(one["addr"].rpartition(":")[2]) for place in found for one in place["addrvec"]]


@pytest.fixture(scope="module")
def images() -> Iterator[Podman]:
    """Whose image of the service the nodes use."""
    podman = Podman()
    podman.start()
    try:
        podman.image()
        yield podman
    finally:
        podman.close()


@pytest.fixture(scope="module")
def site(images: Podman, mariadb: MariaDB, keystone: Keystone, ceph: Ceph, rgw: Rgw) -> Iterator[Site]:
    settings = (
        'glance_backend_ceph: "yes"\nglance_default_backend: rbd\n'
        f'glance_backend_s3: "yes"\nglance_backend_s3_url: {rgw.url}\nglance_backend_s3_access_key: {rgw.access}\n'
        f"glance_backend_s3_secret_key: {rgw.secret}\nglance_backend_s3_bucket: nodes-{os.getpid()}\n"
        "glance_s3_store_create_bucket_on_put: yes\n"
    )
    nodes = Nodes(2, images, [mariadb.port, keystone.port, *ports_of(ceph), rgw.port])
    with contextlib.ExitStack() as stack:
        stack.callback(nodes.close)
        nodes.start()
        one = Site(nodes, mariadb, keystone, settings)
        folder = one.path / "config" / "glance"
        folder.mkdir(parents=True)
        address = next(line for line in ceph.conf.read_text().splitlines() if line.startswith("mon_host"))
        (folder / "ceph.conf").write_text(f"[global]\nfsid = {ceph.fsid}\n{address}\n")
        (folder / "ceph.client.glance.keyring").write_text(ceph.keyring("glance").read_text())
        stack.callback(one.balancer.close)
        one.balancer.start()
        yield one


def test_deploy(site: Site) -> None:
    assert all(site.run("deploy").values())
    site.await_both()
    client = site.client()
    for store in STORES:
        image = client.create("first")
        client.upload(image, b"first", store)
        told = client.data("GET", f"/v2/images/{image}", 200)
        assert told["status"] == "active"
        assert told["stores"] == store


def test_a_setting_of_the_stores_is_taken_live(site: Site) -> None:
    """By SIGHUP, on one node after the other: the same containers, and what they had begun is ended by old workers."""
    before, turns = [container(node) for node in site.nodes], len(site.balancer.turns())
    with site.under_load() as (traffic, begun):
        site.add(f"glance_store_descriptions: {json.dumps(DESCRIPTIONS)}\n")
        site.add("glance_rbd_store_chunk_size: 4\nglance_s3_store_large_object_chunk_size: 5\n")
        changed = site.run("reconfigure")
        ended = time.time()
        assert changed == {node.name: 2 for node in site.nodes}, "the file and the container"
        assert [descriptions(site, node) for node in site.nodes] == [DESCRIPTIONS] * 2
    assert [container(node) for node in site.nodes] == before, "nothing was restarted"
    assert len(site.balancer.turns()) == turns, "no node was away"
    across = {(one.kind, one.store) for one in traffic.slow if one.began < begun and one.ended > ended}
    assert across == EVERY_TRANSFER


def test_new_containers(site: Site) -> None:
    """Another mount takes another container: each node is away for some time, never both."""
    before, known = [container(node) for node in site.nodes], len(site.balancer.turns())
    extra = new_directory("extra")
    with site.under_load() as (traffic, _):
        site.add(f"glance_api_extra_volumes: ['{extra}:/srv/extra:ro']\n")
        changed = site.run("reconfigure")
        assert changed == {node.name: 2 for node in site.nodes}, "the file and the container"
        site.await_both()
    for node, (previous, _) in zip(site.nodes, before, strict=True):
        found = node.podman.inspect("glance_api")
        assert found["Id"] != previous
        assert "/srv/extra" in [mount["Destination"] for mount in found["Mounts"]]
        assert node.podman.run("ps", "-aq").split() == [found["Id"][:12]], "no previous one is left"
    turns = site.balancer.turns()[known:]
    first, second = (node.name for node in site.nodes)
    assert [(turn.server, turn.up) for turn in turns] == [
        (first, False),
        (first, True),
        (second, False),
        (second, True),
    ]
    for down in (turn for turn in turns if not turn.up):
        # begun while the node was there, ended after it had closed its port: it was waited for
        drained = [call for call in site.balancer.calls() if call.server == down.server and call.method == "PUT"
                   and call.began < down.when and call.ended > down.when + NOTICE]  # fmt: skip
        assert drained, f"no upload was under way on {down.server}"
        assert {call.status for call in drained} == {204}
    over_a_turn = {
        (one.kind, one.store)
        for one in traffic.slow
        if any(one.began < turn.when < one.ended - HELD / 2 for turn in turns)
    }
    assert over_a_turn == EVERY_TRANSFER
