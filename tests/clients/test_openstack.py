"""The `openstack` command, newest release, does its work against the service with each way to log in."""

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.conftest import ServiceFactory
from tests.servers.client import Failed, OpenStack
from tests.servers.keystone import Keystone
from tests.servers.place import program
from tests.servers.service import Service

# every command is a new process of a second or more
pytestmark = pytest.mark.timeout(600)

PROJECT = "5f6b0b8a1d2c4e3f9a7b6c5d4e3f2a1b"
SECRET = "correct horse"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 image with an ext4 file system and a file in it."""
    folder = tmp_path_factory.mktemp("disk")
    content = folder / "content"
    content.mkdir()
    (content / "hostname").write_bytes(b"guest\n" * 100_000)
    raw, disk = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(64 << 20)
    for command in (
        [program("mkfs.ext4", "e2fsprogs"), "-q", "-d", str(content), str(raw)],
        [program("qemu-img", "qemu-utils"), "convert", "-q", "-O", "qcow2", str(raw), str(disk)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return disk


def _with_none(request: pytest.FixtureRequest, client: OpenStack) -> Service:
    service: Service = request.getfixturevalue("service")()
    client.add_without_login("cloud", service.url)
    return service


def _with_basic(request: pytest.FixtureRequest, client: OpenStack) -> Service:
    folder: Path = request.getfixturevalue("tmp_path")
    users, projects = folder / "users", folder / "projects"
    users.write_text(f"alice:{bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(5)).decode()}\n")
    projects.write_text(f"alice:{PROJECT}:admin\n")
    files = {"http_basic_user_file": users, "http_basic_projects_file": projects}
    service: Service = request.getfixturevalue("service")({"xloud": {"auth": "http_basic", **files}})
    client.add_basic("cloud", service.url, "alice", SECRET)
    return service


def _with_keystone(request: pytest.FixtureRequest, client: OpenStack) -> Service:
    keystone: Keystone = request.getfixturevalue("keystone")
    service: Service = request.getfixturevalue("service")(keystone.sections())
    keystone.set_image_url(service.url)
    client.clouds["cloud"] = keystone.clouds()["admin"]
    return service


LOGINS: Mapping[str, Callable[[pytest.FixtureRequest, OpenStack], Service]] = {
    "none": _with_none,
    "http_basic": _with_basic,
    "keystone": _with_keystone,
}


@pytest.mark.parametrize("login", LOGINS)
def test_the_life_of_an_image(
    login: str, request: pytest.FixtureRequest, openstack: OpenStack, disk: Path, tmp_path: Path
) -> None:
    service = LOGINS[login](request, openstack)
    # so that the rest proves something about logging in
    assert service.request("GET", "/v2/images").status == (200 if login == "none" else 401)

    def run(*words: str | Path) -> str:
        return openstack.run("image", *words, cloud="cloud")

    def show(name: str) -> dict[str, Any]:
        shown: dict[str, Any] = openstack.json("image", "show", name, cloud="cloud")
        return shown

    run("create", "--disk-format", "qcow2", "--container-format", "bare", "--file", disk, "guest")
    image = show("guest")
    data = disk.read_bytes()
    assert (image["status"], image["size"], image["disk_format"]) == ("active", len(data), "qcow2")
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["properties"]["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert image["virtual_size"] == 64 << 20

    assert [row["Name"] for row in openstack.json("image", "list", cloud="cloud")] == ["guest"]

    copy = tmp_path / "copy.qcow2"
    run("save", "--file", copy, "guest")
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(data).digest()

    run("set", "--property", "os_distro=debian", "--tag", "tested", "--min-ram", "512", "guest")
    image = show("guest")
    assert (image["properties"]["os_distro"], image["tags"], image["min_ram"]) == ("debian", ["tested"], 512)
    run("unset", "--property", "os_distro", "--tag", "tested", "guest")
    image = show("guest")
    assert "os_distro" not in image["properties"]
    assert image["tags"] == []

    run("set", "--deactivate", "guest")
    assert show("guest")["status"] == "deactivated"
    run("set", "--activate", "guest")
    assert show("guest")["status"] == "active"

    run("set", "--protected", "guest")
    with pytest.raises(Failed, match="403"):
        run("delete", "guest")
    run("set", "--unprotected", "guest")
    run("delete", "guest")
    assert openstack.json("image", "list", cloud="cloud") == []


def test_an_image_shared_with_another_project(
    keystone: Keystone, service: ServiceFactory, openstack: OpenStack, disk: Path
) -> None:
    one = service(keystone.sections())
    keystone.set_image_url(one.url)
    openstack.clouds.update(keystone.clouds())
    openstack.run(*("image", "create", "--disk-format", "qcow2", "--shared", "--file", disk, "lent"), cloud="demo")
    identity = openstack.json("image", "show", "lent", cloud="demo")["id"]
    alt = keystone.project_id("alt")

    with pytest.raises(Failed, match="No Image found"):
        openstack.run("image", "show", identity, cloud="alt")
    openstack.run("image", "add", "project", identity, alt, cloud="demo")
    # known to the other project, in its list only once it has accepted
    openstack.run("image", "show", identity, cloud="alt")
    assert openstack.json("image", "list", "--shared", cloud="alt") == []
    openstack.run("image", "set", "--accept", identity, cloud="alt")
    assert [row["ID"] for row in openstack.json("image", "list", cloud="alt")] == [identity]
    members = openstack.json("image", "member", "list", identity, cloud="demo")
    assert [(member["Member ID"], member["Status"]) for member in members] == [(alt, "accepted")]
    openstack.run("image", "remove", "project", identity, alt, cloud="demo")
    with pytest.raises(Failed, match="No Image found"):
        openstack.run("image", "show", identity, cloud="alt")


def test_endless_data_that_is_no_qcow2(service: ServiceFactory, openstack: OpenStack, disk: Path) -> None:
    """The client prints why it is refused, although it is still sending."""
    openstack.add_without_login("cloud", service().url)
    result = openstack.try_run(
        *("image", "create", "--disk-format", "qcow2", "--file", "/dev/zero", "endless"), cloud="cloud", seconds=30
    )
    assert result.code != 0
    assert "415" in result.stderr + result.stdout
    assert "qcow2" in result.stderr + result.stdout
