"""One deployment that follows the guide from its first line to its last."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.site import Site
from tests.guide.follower import Follower
from tests.guide.servers import Servers
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory, private_address
from tests.servers.podman import Podman
from tests.servers.rgw import Rgw
from tests.servers.swift import Swift
from tests.servers.vsphere import Vsphere


@pytest.fixture(scope="module")
def site(mariadb: MariaDB, keystone: Keystone) -> Iterator[Site]:
    podman = Podman()
    podman.start()
    try:
        podman.image()
        yield Site(podman, mariadb, keystone, account="glance")
    finally:
        podman.close()


@pytest.fixture(scope="module")
def pages() -> Path:
    """The folder of a web server, with the image that the guide registers."""
    folder = new_directory("pages")
    (folder / "images").mkdir()
    raw = new_directory("raw") / "raw"
    raw.write_bytes(os.urandom(1 << 20))
    file = folder / "images" / "ubuntu-24.04.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, file], check=True)
    return folder


@pytest.fixture(scope="module")
def web(pages: Path) -> Iterator[Nginx]:
    server = Nginx(files=pages, host=private_address())  # administrators do not reach loopback
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def follower(
    site: Site, ceph: Ceph, rgw: Rgw, swift: Swift, vsphere: Vsphere, cinder: Cinder, web: Nginx, pages: Path
) -> Follower:
    return Follower(site, Servers(site, ceph, rgw, swift, vsphere, cinder, web, pages))
