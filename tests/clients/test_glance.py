"""The `glance` command (python-glanceclient), which speaks calls that the openstack command does not: the newest
release, and one of 2022.
"""

import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import OCTETS
from tests.conftest import ServiceFactory
from tests.crash.points import wait_until
from tests.load import quiet
from tests.servers.client import command
from tests.servers.keystone import Keystone
from tests.servers.place import new_directory
from tests.servers.service import Service

# every command is a new process of a second or more
pytestmark = pytest.mark.timeout(600)

STORES = {
    "DEFAULT": {"enabled_backends": "files:file,slow:file,mem:memory", "show_multiple_locations": True},
    "mem": {"weight": 10},
}


# of the client
releases = pytest.mark.parametrize("release", ["newest", "2022"])


class Glance:
    """`token`: of a Keystone, or any text where nobody asks."""

    def __init__(self, service: Service, token: str = "any", release: str = "newest") -> None:
        self._words = [*command("glance", release), "--os-auth-token", token, "--os-image-url", service.url]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        if release == "2022":
            # where it knows no Keystone it takes the schema of images that is kept in the home folder, has two options
            # called --stores from then on, and ends: with Glance as well
            self._words += ["--os-auth-url", service.url]
            self._environment["HOME"] = str(new_directory("home"))

    def run(self, *words: str | Path, fails: bool = False) -> str:
        # without a terminal it takes its standard input for the data of a new image
        near, terminal = pty.openpty()
        done = subprocess.run(
            [*self._words, *words],
            capture_output=True,
            text=True,
            timeout=quiet(60),
            check=False,
            stdin=terminal,
            env=self._environment,
        )
        os.close(near)
        os.close(terminal)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def table(self, *words: str | Path) -> dict[str, str]:
        """The rows of a table of properties."""
        found: dict[str, str] = {}
        last = ""
        for line in self.run(*words).splitlines():
            if line.startswith("|"):
                _, name, value, _ = line.split("|")
                last = name.strip() or last  # a long value goes on in the next line, without a name
                found[last] = found.get(last, "") + value.strip()
        return found


def several_stores(service: ServiceFactory, **sections: Any) -> Service:
    one = service({**STORES, **sections}, start=False)
    one.configure({"slow": {"filesystem_store_datadir": one.directory / "slow"}})
    one.start()
    return one


@releases
def test_images_in_several_stores(release: str, service: ServiceFactory, tmp_path: Path) -> None:
    one = several_stores(service)
    glance = Glance(one, release=release)
    data = tmp_path / "data"
    data.write_bytes(os.urandom(300_000))
    known = json.loads(glance.table("stores-info")["stores"])
    assert [store["id"] for store in known] == ["files", "slow", "mem"]
    assert '"type": "file"' in glance.run("stores-info", "--detail")

    kind = ("--disk-format", "raw", "--container-format", "bare")
    image = glance.table("image-create", *kind, "--name", "one", "--store", "slow", "--file", data)
    assert (image["status"], image["stores"]) == ("active", "slow")
    assert image["os_hash_value"] == hashlib.sha512(data.read_bytes()).hexdigest()
    assert (one.directory / "slow" / image["id"]).read_bytes() == data.read_bytes()

    # a second location: the same bytes in another store
    source = one.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"}).json()["id"]
    headers = {"Content-Type": OCTETS, "X-Image-Meta-Store": "mem"}
    sent = one.request("PUT", f"/v2/images/{source}/file", body=data.read_bytes(), headers=headers)
    assert sent.status == 204
    url = f"memory://mem/{source}"
    digests = ("--checksum", image["checksum"], "--hash-algo", "sha512", "--hash-value", image["os_hash_value"])
    shown = glance.table("location-add", "--url", url, *digests, image["id"])
    assert set(shown["stores"].split(",")) == {"slow", "mem"}
    note = json.dumps({"note": "kept"})
    assert "kept" in glance.run("location-update", "--url", url, "--metadata", note, image["id"])
    copy = tmp_path / "copy"
    glance.run("image-download", "--file", copy, image["id"])
    assert copy.read_bytes() == data.read_bytes()

    glance.run("stores-delete", "--store", "slow", image["id"])
    assert not (one.directory / "slow" / image["id"]).exists()
    assert glance.table("image-show", image["id"])["stores"] == "mem"
    assert "403" in glance.run("location-delete", "--url", url, image["id"], fails=True), "the last one"

    glance.run("image-deactivate", image["id"])
    assert glance.table("image-show", image["id"])["status"] == "deactivated"
    glance.run("image-reactivate", image["id"])
    glance.run("image-tag-update", image["id"], "tested")
    changed = glance.table("image-update", "--property", "os_distro=debian", "--name", "two", image["id"])
    assert (changed["name"], changed["os_distro"], changed["tags"]) == ("two", "debian", '["tested"]')
    assert image["id"] in glance.run("image-list", "--tag", "tested", "--property-filter", "os_distro=debian")
    assert image["id"] not in glance.run("image-list", "--property-filter", "os_distro=other")
    glance.run("image-delete", image["id"])
    assert "404" in glance.run("image-show", image["id"], fails=True)


def test_locations_by_their_own_call(service: ServiceFactory, keystone: Keystone) -> None:
    """`add-location`: refused to a project's own user, taken from a service."""
    one = several_stores(service, **keystone.sections())
    token = keystone.token("glance")
    as_service = Glance(one, token)
    kind = ("--disk-format", "raw", "--container-format", "bare")
    source = as_service.table("image-create", *kind, "--store", "mem", "--file", __file__)
    image = as_service.table("image-create", *kind)
    url = f"memory://mem/{source['id']}"
    as_service.run("add-location", "--url", url, image["id"])
    assert wait_until(lambda: as_service.table("image-show", image["id"])["os_hash_value"] != "None")
    assert as_service.table("image-show", image["id"])["os_hash_value"] == source["os_hash_value"]
    found = one.request("GET", f"/v2/images/{image['id']}/locations", headers={"X-Auth-Token": token})
    assert found.json() == [{"url": url, "metadata": {"store": "mem"}}]
    own = Glance(one, keystone.token("demo"))
    mine = own.table("image-create", *kind)
    assert "403" in own.run("add-location", "--url", url, mine["id"], fails=True)


@releases
def test_members(release: str, service: ServiceFactory, keystone: Keystone) -> None:
    one = service(keystone.sections())
    owner, other = (Glance(one, keystone.token(name), release) for name in ("demo", "alt"))
    alt = keystone.project_id("alt")
    image = owner.table("image-create", "--visibility", "shared", "--name", "lent")
    owner.run("member-create", image["id"], alt)
    assert image["id"] not in other.run("image-list")
    other.run("member-update", image["id"], alt, "accepted")
    assert image["id"] in other.run("image-list")
    assert "accepted" in owner.run("member-list", "--image-id", image["id"])
    assert "accepted" in owner.run("member-get", image["id"], alt)
    owner.run("member-delete", image["id"], alt)
    assert "404" in other.run("image-show", image["id"], fails=True)
