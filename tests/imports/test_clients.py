"""Imports as people type them: the newest openstack and glance commands, and the calls of a dashboard."""

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_glance import Glance, releases
from tests.conftest import ServiceFactory
from tests.load import quiet
from tests.servers.client import OpenStack
from tests.servers.nginx import Nginx
from tests.servers.service import Service

# every command is a new process of a second or more
pytestmark = pytest.mark.timeout(600)

DATA = random.Random(10).randbytes(2_000_000)
SHA = hashlib.sha512(DATA).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def importing(service: ServiceFactory, tmp_path: Path, web: Nginx) -> Service:
    """Without a login: the one caller is an administrator."""
    one = service(
        {
            "DEFAULT": {"enabled_backends": "files:file,more:file"},
            "more": {"filesystem_store_datadir": tmp_path / "more"},
            "os_glance_staging_store": {"filesystem_store_datadir": tmp_path / "staging"},
            "import_filtering_opts": {"allowed_ports": web.port},
            "xloud": {"auth": "none", "job_workers": 1},
        }
    )
    begun = time.monotonic()
    while not one.request("GET", "/v2/info/import").json()["import-methods"]["value"]:
        assert time.monotonic() - begun < quiet(20)
        time.sleep(0.2)
    return one


def new(service: Service, name: str) -> None:
    """An image without data: the command takes its standard input for the data when it is no terminal."""
    fields = {"name": name, "disk_format": "raw", "container_format": "bare"}
    assert service.request("POST", "/v2/images", json=fields).status == 201


def active(service: Service, name: str) -> dict[str, Any]:
    """The image of this name, once it is active."""
    begun = time.monotonic()
    while True:
        (found,) = service.request("GET", f"/v2/images?name={name}").json()["images"]
        if found["status"] == "active":
            shown: dict[str, Any] = found
            return shown
        assert found["status"] in ("queued", "uploading", "importing"), found
        assert time.monotonic() - begun < quiet(30), found
        time.sleep(0.2)


def test_the_openstack_command(importing: Service, openstack: OpenStack, file: Path, web: Nginx) -> None:
    openstack.add_without_login("cloud", importing.url)

    def run(*words: str | Path) -> str:
        return openstack.run("image", *words, cloud="cloud")

    run("create", "--disk-format", "raw", "--container-format", "bare", "--file", file, "--import", "one")
    assert active(importing, "one")["os_hash_value"] == SHA
    new(importing, "two")
    run("stage", "--file", file, "two")
    run("import", "two", "--method", "glance-direct", "--store", "more")
    assert active(importing, "two")["stores"] == "more"
    new(importing, "three")
    assert web.files is not None
    (web.files / "three.raw").write_bytes(DATA)
    run("import", "--method", "web-download", "--uri", f"{web.url}/three.raw", "--all-stores", "three")
    assert set(active(importing, "three")["stores"].split(",")) == {"files", "more"}
    run("import", "two", "--method", "copy-image", "--store", "files")
    begun = time.monotonic()
    while active(importing, "two")["stores"] != "more,files":
        assert time.monotonic() - begun < quiet(30)
        time.sleep(0.2)
    info = openstack.json("image", "import", "info", cloud="cloud")
    assert "glance-direct" in str(info)
    tasks = openstack.json("image", "task", "list", cloud="cloud")
    assert len(tasks) == 4
    assert {one["Status"] for one in tasks} == {"success"}
    assert openstack.json("image", "task", "show", tasks[0]["ID"], cloud="cloud")["status"] == "success"


@releases
def test_the_glance_command(release: str, importing: Service, file: Path, web: Nginx) -> None:
    glance = Glance(importing, release=release)
    assert "copy-image" in glance.run("import-info")
    words = ("--disk-format", "raw", "--container-format", "bare")
    glance.run("image-create-via-import", *words, "--name", "one", "--file", file)
    assert active(importing, "one")["os_hash_value"] == SHA
    assert web.files is not None
    (web.files / "two.raw").write_bytes(DATA)
    method = ("--import-method", "web-download", "--uri", f"{web.url}/two.raw")
    glance.run("image-create-via-import", *words, "--name", "two", *method, "--stores", "more")
    shown = active(importing, "two")
    assert (shown["os_hash_value"], shown["stores"]) == (SHA, "more")
    glance.run("image-import", shown["id"], "--import-method", "copy-image", "--all-stores", "True")
    begun = time.monotonic()
    while set(active(importing, "two")["stores"].split(",")) != {"files", "more"}:
        assert time.monotonic() - begun < quiet(30)
        time.sleep(0.2)
    assert "Copied 2 MiB to files" in glance.run("image-tasks", shown["id"])
    new(importing, "three")
    (three,) = importing.request("GET", "/v2/images?name=three").json()["images"]
    glance.run("image-stage", "--file", file, three["id"])
    glance.run("image-import", three["id"])
    assert active(importing, "three")["os_hash_value"] == SHA
    (done,) = importing.request("GET", f"/v2/images/{three['id']}/tasks").json()["tasks"]
    assert "success" in glance.run("task-list", "--status", "success")
    assert glance.table("task-show", done["id"])["status"] == "success"


def test_a_dashboard_creates_by_url(importing: Service, web: Nginx) -> None:
    """The calls that a dashboard makes for «File URL»."""
    assert web.files is not None
    (web.files / "cirros.img").write_bytes(DATA)
    assert "web-download" in importing.request("GET", "/v2/info/import").json()["import-methods"]["value"]
    fields = {"name": "cirros", "disk_format": "raw", "container_format": "bare", "visibility": "private"}
    made = importing.request("POST", "/v2/images", json=fields).json()
    body = {"method": {"name": "web-download", "uri": f"{web.url}/cirros.img"}}
    answer = importing.request("POST", f"/v2/images/{made['id']}/import", json=body)
    assert answer.status == 202
    assert active(importing, "cirros")["os_hash_value"] == SHA
    (task,) = importing.request("GET", f"/v2/images/{made['id']}/tasks").json()["tasks"]
    assert json.dumps(task["input"]["import_req"]["method"]["uri"])
    assert task["status"] == "success"
