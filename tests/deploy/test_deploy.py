"""`xavs-ansible` on this machine, with a real engine, database and Keystone: the document's file store line by line,
what a second run changes, what a run in the middle of a download does to it, and every refusal that must come first.

The tests of this file are one deployment, in the order of the file."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.site import OWNER, VOLUME, Site, changed
from tests.servers.ceph import Ceph
from tests.servers.client import OpenStack
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.place import HOST, ROOT, environment, new_directory
from tests.servers.podman import Podman
from xavs import extra_vars
from xavs.render import Inputs, render
from xloud_image.config.findings import Findings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def site(mariadb: MariaDB, keystone: Keystone) -> Iterator[Site]:
    podman = Podman()
    podman.start()
    try:
        podman.image()
        one = Site(podman, mariadb, keystone)
        # the two lines of the document
        (one.path / "globals.yml").write_text(f'glance_backend_file: "yes"\nglance_file_datadir_volume: {VOLUME}\n')
        yield one
    finally:
        podman.close()


def test_prechecks_change_nothing(site: Site) -> None:
    assert changed(site.run("prechecks", "--tags", "glance")) <= 1, "passwords that were missing are made"
    assert not (site.node / "glance-api").exists()
    assert site.podman.run("ps", "-aq") == ""


def test_a_taken_port_is_told_before_anything_is_touched(site: Site) -> None:
    with socket.create_server((HOST, site.port)):
        output = site.run("deploy", code=2)
    assert f"port {site.port} of {HOST} is taken by another process" in output
    assert not (site.node / "glance-api").exists()


def test_check_mode_changes_nothing(site: Site) -> None:
    output = site.run("deploy", "--check", "--diff")
    assert "+default_backend = file" in output
    assert re.search(r"\+password = \*\*\*", output)
    assert not (site.node / "glance-api").exists()


def test_deploy_as_the_document_has_it(site: Site, openstack: OpenStack, keystone: Keystone, tmp_path: Path) -> None:
    assert changed(site.run("deploy", "--tags", "glance")) > 0
    shown = site.shell(r'docker exec glance_api grep -A 5 "\[glance_store\]" /etc/glance/glance-api.conf')
    assert shown.startswith("[glance_store]\ndefault_backend = file\n")
    assert "filesystem_store_datadir = /var/lib/glance/images/" in shown
    assert "uid=42415" in site.shell("docker exec glance_api id")
    disk = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    openstack.clouds["cloud"] = keystone.clouds()["admin"]
    openstack.run("image", "create", "--disk-format", "qcow2", "--container-format", "bare", "--file", disk, "deployed",
                  cloud="cloud")  # fmt: skip
    image = openstack.json("image", "show", "deployed", cloud="cloud")
    place = Path(site.podman.run("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME).strip())
    assert (place / "images" / image["id"]).read_bytes() == disk.read_bytes()
    assert (place / "images" / image["id"]).stat().st_uid == OWNER


def test_the_container_has_no_rights(site: Site) -> None:
    found = site.podman.inspect("glance_api")
    assert not found["HostConfig"]["Privileged"]
    assert not found["EffectiveCaps"]
    mounts = {mount["Destination"].rstrip("/"): mount for mount in found["Mounts"]}
    assert mounts["/etc/glance"]["RW"] is False
    assert mounts["/var/lib/glance"]["Name"] == VOLUME
    mode = (site.node / "glance-api" / "glance-api.conf").stat()
    assert (mode.st_mode & 0o777, mode.st_uid) == (0o600, OWNER)


def test_a_download_runs_across_a_reconfigure(site: Site, keystone: Keystone) -> None:
    """Another weight and description are taken by SIGHUP: the same container, and the transfer keeps its process."""
    token = keystone.token("admin")
    data = os.urandom(32 << 20)

    def call(method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(
            site.url + path, body, {"X-Auth-Token": token, "Content-Type": kind}, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            content: bytes = answer.read()
        return content

    made = json.loads(call("POST", "/v2/images", b'{"name": "slow", "disk_format": "raw", "container_format": "bare"}'))
    call("PUT", f"/v2/images/{made['id']}/file", data, "application/octet-stream")
    before = site.container()
    result: list[str] = []
    read: list[int] = []
    begun = threading.Event()

    def download() -> None:
        request = urllib.request.Request(f"{site.url}/v2/images/{made['id']}/file", headers={"X-Auth-Token": token})
        digest = hashlib.sha256()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            while block := answer.read(1 << 20):
                digest.update(block)
                read.append(len(block))
                begun.set()
                # more than sockets hold is still to come when the reconfigure has ended
                if not done.wait(0.2) and sum(read) > len(data) // 2:
                    done.wait(200)
        result.append(digest.hexdigest())

    done = threading.Event()
    thread = threading.Thread(target=download)
    thread.start()
    assert begun.wait(30)
    site.add("glance_store_descriptions: {file: Taken live}\n")
    output = site.run("reconfigure", "--tags", "glance")
    assert sum(read) < len(data), "it is still under way"
    done.set()
    thread.join(120)
    assert changed(output) == 2, "the file and the container"
    assert result == [hashlib.sha256(data).hexdigest()]
    assert site.container() == before, "nothing was restarted"
    shown = json.loads(call("GET", "/v2/info/stores"))["stores"]
    assert [(store["id"], store["description"]) for store in shown] == [("file", "Taken live")]


def test_what_is_refused_touches_nothing(site: Site) -> None:
    """A file and the command line: all that is wrong with them, in one run."""
    before = site.container(), (site.node / "glance-api" / "glance-api.conf").read_bytes()
    site.override("[keystone_authtoken]\nenforce_token_bind = required\n[glance_store]\ndefault_backend = vsphere\n")
    output = re.sub(r"\s+", " ", site.run("reconfigure", "-e", "glance_api_prot=1", code=2))
    assert "glance_backend_vmware" in output
    assert "glance-api.conf:4" in output
    assert "is 'glance_api_port' meant?" in output
    assert (site.container(), (site.node / "glance-api" / "glance-api.conf").read_bytes()) == before


def of_the_node(site: Site, *more: str) -> str:
    """What the module says that looks at a node before a deployment; `more`: globals besides those of the site."""
    problems = Findings()
    values = extra_vars.read(more, problems)
    problems.stop()
    facts = render(Inputs(site.path / "globals.yml", hostname="localhost", address=HOST, more=values)).facts
    given = {"facts": facts, "engine": "", "config": str(site.node / "glance-api"), "now": time.time()}
    done = subprocess.run(
        [environment(".venv-deploy", "python"), ROOT / "deploy/roles/glance/library/xloud_node.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}), env={**os.environ, **site.environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said: str = json.loads(done.stdout).get("msg", "ready")
    return said


def test_the_custom_directory_of_the_document(site: Site, tmp_path: Path) -> None:
    """Owned as the document says (42424): it is handed to the right user, mounted, and the service uses it. One that
    belongs to somebody else is refused."""
    foreign = new_directory("foreign")
    (foreign / "file").write_text("x")
    site.override(f"[glance_store]\ndefault_backend = file\nfilesystem_store_datadir = {foreign}/\n")
    output = re.sub(r"\s+", " ", site.run("reconfigure", code=2))
    assert f"chown -R {OWNER}:{OWNER} {foreign}" in output
    assert f"chown -R {OWNER}:{OWNER} {foreign}" in of_the_node(site)
    assert "should be a mount and is none: nothing is written there" in of_the_node(site, "glance_datadir_is_mount=yes")
    directory = new_directory("glance_images")
    os.chown(directory, 42424, 42424)
    site.override(f"[glance_store]\ndefault_backend = file\nfilesystem_store_datadir = {directory}/\n")
    before = site.container()
    site.run("reconfigure", "--tags", "glance")
    assert site.container()[0] != before[0], "a new mount takes a new container"
    assert directory.stat().st_uid == OWNER
    assert of_the_node(site) == "ready"
    shown = site.shell("docker exec glance_api xloud-image stores check --config-dir /etc/glance --json")
    assert json.loads(shown)[0]["ok"] is True


def test_stop(site: Site) -> None:
    site.run("stop")
    assert site.podman.inspect("glance_api")["State"]["Running"] is False
    assert changed(site.run("stop")) == 0


def test_two_operators_at_once(site: Site) -> None:
    with (site.path / ".xavs-ansible.lock").open("a+") as file:
        file.truncate(0)
        file.write("deploy, process 1, user ann\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        output = site.run("deploy", code=1)
    assert "xavs-ansible: somebody else is at work on " in output
    assert "deploy, process 1, user ann" in output


def test_a_run_that_was_killed_is_finished_by_the_next(site: Site) -> None:
    """kill -9 of the whole run, wherever it is: the next one ends well, starts what was stopped, and the one after it
    changes nothing."""
    globals_ = site.path / "globals.yml"
    globals_.write_text(globals_.read_text().replace("Taken live", "Half finished"))
    for seconds in (8.0, 14.0):
        process = site.start("deploy")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    site.run("deploy")
    assert site.podman.inspect("glance_api")["State"]["Running"] is True
    before = site.container()
    assert changed(site.run("deploy", "--tags", "glance")) == 0
    assert site.container() == before
    assert "Half finished" in site.shell("docker exec glance_api cat /etc/glance/glance-api.conf")


def contents(site: Site) -> dict[str, tuple[bool, int]]:
    """store → takes no new images, images in it. What is not configured takes none."""
    listed = json.loads(site.shell("docker exec glance_api xloud-image stores list --images --json || true"))
    return {one["store"]: (one.get("read_only", True), one["images"]) for one in listed if not one.get("reserved")}


def test_switching_to_ceph_loses_nothing(
    site: Site, ceph: Ceph, openstack: OpenStack, keystone: Keystone, tmp_path: Path
) -> None:
    """The document's Ceph globals over its file store: the images of both directories stay readable, and each store
    goes when it is empty."""
    openstack.clouds["cloud"] = keystone.clouds()["admin"]
    site.override("")
    assert contents(site) == {"file": (False, 0), "file_previous": (True, 2)}
    folder = site.path / "config" / "glance"
    host = next(line for line in ceph.conf.read_text().splitlines() if line.startswith("mon_host"))
    (folder / "ceph.conf").write_text(f"[global]\nfsid = {ceph.fsid}\n{host}\n")
    (folder / "ceph.client.glance.keyring").write_bytes(ceph.keyring("glance").read_bytes())
    (site.path / "globals.yml").write_text(
        'glance_backend_ceph: "yes"\nglance_backend_file: "no"\nceph_glance_keyring: ceph.client.glance.keyring\n'
        "ceph_glance_pool_name: images\n"
    )
    output = site.run("reconfigure", "--tags", "glance")
    assert "of an earlier deployment is kept for the images that lie in it" in re.sub(r"\s+", " ", output)
    assert contents(site) == {"rbd": (False, 0), "file": (True, 0), "file_previous": (True, 2)}
    assert changed(site.run("reconfigure", "--tags", "glance")) > 0, "what is empty goes"
    assert contents(site) == {"rbd": (False, 0), "file_previous": (True, 2)}

    disk = tmp_path / "disk"
    disk.write_bytes(os.urandom(1 << 20))
    openstack.run("image", "create", "--disk-format", "raw", "--file", disk, "cloned", cloud="cloud")
    image = openstack.json("image", "show", "cloned", cloud="cloud")
    assert image["id"] in ceph.admin("rbd", "ls", "images").split()
    for name in ("deployed", "cloned"):
        openstack.run("image", "save", "--file", tmp_path / name, name, cloud="cloud")
    assert (tmp_path / "cloned").read_bytes() == disk.read_bytes()
    old = openstack.json("image", "show", "deployed", cloud="cloud")
    assert hashlib.md5((tmp_path / "deployed").read_bytes()).hexdigest() == old["checksum"]

    openstack.run("image", "delete", "deployed", "slow", "cloned", cloud="cloud")
    assert changed(site.run("reconfigure")) > 0
    assert contents(site) == {"rbd": (False, 0)}
    site.path.joinpath("globals.yml").write_text(f'glance_backend_file: "yes"\nglance_file_datadir_volume: {VOLUME}\n')


def test_images_that_nobody_could_read_any_more_stop_a_run(site: Site, keystone: Keystone) -> None:
    """What was deployed before is forgotten (another control host): the database knows where the images lie."""
    before = site.container()
    shutil.rmtree(site.path / ".deployed")
    request = urllib.request.Request(
        site.url + "/v2/images", b'{"disk_format": "raw", "container_format": "bare"}',
        {"X-Auth-Token": keystone.token("admin"), "Content-Type": "application/json"}, method="POST",
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    image = json.loads(opener.open(request, timeout=60).read())
    request = urllib.request.Request(
        f"{site.url}/v2/images/{image['id']}/file", b"data",
        {"X-Auth-Token": keystone.token("admin"), "Content-Type": "application/octet-stream"}, method="PUT",
    )  # fmt: skip
    assert opener.open(request, timeout=60).status == 204
    output = re.sub(r"\s+", " ", site.run("reconfigure", "--tags", "glance", code=2))
    assert "1 images lie in stores that these globals do not have: rbd" in output
    assert "glance_forget_stores: [rbd]" in output
    assert site.container() == before
    site.add("glance_forget_stores: [rbd]\n")
    site.run("reconfigure", "--tags", "glance")
    assert contents(site) == {"file": (False, 0), "rbd": (True, 1)}


def test_rights_that_are_refused(site: Site, tmp_path: Path) -> None:
    """The node's sudo says no: told, and nothing is touched."""
    before = site.container()
    inventory = tmp_path / "hosts"
    inventory.write_text(
        "[glance-api]\n"
        "here ansible_connection=local ansible_become=true ansible_become_user=nobody ansible_become_exe=/bin/false\n"
    )
    output = site.run("deploy", "-i", str(inventory), code=None)
    assert "here" in output
    assert "failed=1" in output or "unreachable=1" in output
    assert site.container() == before


WRONG = {
    ("deploy", "--tags", "nova"): (2, "'nova' is no tag that is deployed here"),
    ("swim",): (2, "swim"),
    ("deploy", "-i", "nowhere"): (1, "the inventory nowhere does not exist"),
    ("destroy",): (1, "say --yes-i-really-really-mean-it"),
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_usage(site: Site, words: tuple[str, ...]) -> None:
    code, text = WRONG[words]
    assert text in re.sub(r"[\s│]+", " ", site.run(*words, code=code))


def test_a_host_that_is_not_reachable(site: Site, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("[glance-api]\naway ansible_host=127.0.0.1 ansible_port=1\n")
    assert "UNREACHABLE!" in site.run("deploy", "-i", str(inventory), code=4)


def test_destroy(site: Site) -> None:
    site.run("destroy", "--yes-i-really-really-mean-it")
    assert site.podman.run("ps", "-aq") == ""
    assert VOLUME not in site.podman.run("volume", "ls", "-q").split()
    assert not (site.node / "glance-api").exists()
