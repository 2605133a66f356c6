"""Imports that end in another format: compared byte for byte with what qemu-img makes of the same disk."""

import gzip
import hashlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.imports.conftest import OCTETS
from tests.imports.test_ova import ova
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.nginx import Nginx
from tests.servers.place import free_port, private_address, program
from tests.servers.service import Service
from tests.streams.test_ova import VMWARE

pytestmark = pytest.mark.timeout(600)

QEMU_IMG = program("qemu-img", "qemu-utils")


def made(folder: Path, form: str, *options: str) -> Path:
    """A disk of 24 MiB with data here and there, in this format."""
    raw, path = folder / "disk.raw", folder / f"disk.{form}"
    if not raw.exists():
        with raw.open("wb") as file:
            file.truncate(24 << 20)
            for number in range(6):
                file.seek(number * (4 << 20) + 12_345)
                file.write(random.Random(number).randbytes(700_000))
    if form != "raw":
        words = [QEMU_IMG, "convert", "-f", "raw", "-O", form, *options, str(raw), str(path)]
        subprocess.run(words, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("disks")
    found.parent.chmod(0o755)
    found.chmod(0o755)
    return found


@pytest.fixture(scope="module")
def disks(folder: Path) -> Iterator[Nginx]:
    server = Nginx(files=folder, host=private_address(), port=free_port())
    server.start()
    yield server
    server.close()


def running(directory: Path, web: Nginx, output: str) -> Service:
    service = Service(
        {
            "os_glance_staging_store": {"filesystem_store_datadir": directory / "staging"},
            "import_filtering_opts": {"allowed_ports": web.port},
            "image_import_opts": {"image_import_plugins": "[image_conversion,image_decompression,ovf_process]"},
            "image_conversion": {"output_format": output},
            "task": {"work_dir": directory / "work"},
            "xloud": {"auth": "none", "job_workers": 1},
            "DEFAULT": {"enabled_backends": "files:file, plain:file, same:file"},
            "plain": {"filesystem_store_datadir": directory / "plain", "import_format": "raw"},
            "same": {"filesystem_store_datadir": directory / "same", "import_format": "as_is"},
        }
    )
    service.start()
    begun = time.monotonic()
    while not service.request("GET", "/v2/info/import").json()["import-methods"]["value"]:
        assert time.monotonic() - begun < quiet(20)
        time.sleep(0.2)
    return service


@pytest.fixture(scope="module")
def to_raw(tmp_path_factory: pytest.TempPathFactory, disks: Nginx) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("to-raw")
    service = running(directory, disks, "raw")
    yield service
    assert service.stop() == 0
    assert "Traceback" not in service.log
    left = [path for path in (directory / "work").rglob("*") if path.is_file()]
    assert left == []


@pytest.fixture(scope="module")
def to_qcow2(tmp_path_factory: pytest.TempPathFactory, disks: Nginx) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("to-qcow2")
    service = running(directory, disks, "qcow2")
    yield service
    assert service.stop() == 0
    left = [path for path in (directory / "work").rglob("*") if path.is_file()]
    assert left == []


def imported(
    service: Service,
    form: str,
    method: dict[str, Any],
    data: bytes | None = None,
    *,
    store: str = "files",
    **fields: Any,
) -> Any:
    """The task of an import, and the image, once it has ended."""
    body = {"disk_format": form, "container_format": "bare", **fields}
    image = service.request("POST", "/v2/images", json=body).json()["id"]
    if data is not None:
        answer: Answer = service.request(
            "PUT", f"/v2/images/{image}/stage", body=data, headers={"Content-Type": OCTETS}
        )
        assert answer.status == 204
    assert (
        service.request("POST", f"/v2/images/{image}/import", json={"method": method, "stores": [store]}).status == 202
    )
    begun = time.monotonic()
    while True:
        (task,) = service.request("GET", f"/v2/images/{image}/tasks").json()["tasks"]
        if task["status"] in ("success", "failure"):
            return task, service.request("GET", f"/v2/images/{image}").json()
        assert time.monotonic() - begun < quiet(60), task
        time.sleep(0.1)


def test_the_disk_of_an_ova_becomes_raw(to_raw: Service, folder: Path) -> None:
    disk = made(folder, "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    data = gzip.compress(ova(VMWARE.encode(), disk), 1)
    task, image = imported(to_raw, "vmdk", {"name": "glance-direct"}, data, container_format="ova")
    assert task["status"] == "success", task
    raw = made(folder, "raw").read_bytes()
    assert (image["disk_format"], image["container_format"], image["size"]) == ("raw", "bare", len(raw))
    assert image["os_hash_value"] == hashlib.sha512(raw).hexdigest()


@pytest.mark.parametrize("way", ["stage", "url", "url with a digest", "gzip at a url"])
@pytest.mark.parametrize(
    ("form", "qemu", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-c",)),
        ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
        ("vhdx", "vhdx", ()),
    ],
)
def test_disks_become_raw(
    to_raw: Service, folder: Path, disks: Nginx, way: str, form: str, qemu: str, options: tuple[str, ...]
) -> None:
    path = made(folder, qemu, *options)
    raw = made(folder, "raw").read_bytes()
    if way == "stage":
        task, image = imported(to_raw, form, {"name": "glance-direct"}, path.read_bytes())
    else:
        name = path.name
        if way.startswith("gzip"):
            name += ".gz"
            (folder / name).write_bytes(gzip.compress(path.read_bytes(), 1))
        method = {"name": "web-download", "uri": f"{disks.url}/{name}"}
        if "digest" in way:
            method |= {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(path.read_bytes()).hexdigest()}
        task, image = imported(to_raw, form, method)
    assert task["status"] == "success", task
    assert (image["status"], image["disk_format"], image["container_format"]) == ("active", "raw", "bare")
    assert (image["size"], image["virtual_size"]) == (len(raw), len(raw))
    assert image["os_hash_value"] == hashlib.sha512(raw).hexdigest()
    assert to_raw.request("GET", f"/v2/images/{image['id']}/file").body == raw


def test_what_is_raw_stays_so(to_raw: Service, folder: Path) -> None:
    raw = made(folder, "raw").read_bytes()
    task, image = imported(to_raw, "raw", {"name": "glance-direct"}, raw)
    assert task["status"] == "success", task
    assert (image["disk_format"], image["size"]) == ("raw", len(raw))


@pytest.mark.parametrize("form", ["raw", "vmdk"])
def test_disks_become_qcow2(to_qcow2: Service, folder: Path, tmp_path: Path, form: str) -> None:
    options = ("-o", "subformat=streamOptimized") if form == "vmdk" else ()
    path = made(folder, form, *options)
    task, image = imported(to_qcow2, form, {"name": "glance-direct"}, path.read_bytes())
    assert task["status"] == "success", task
    raw = made(folder, "raw")
    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", raw.stat().st_size)
    got = tmp_path / "got.qcow2"
    got.write_bytes(to_qcow2.request("GET", f"/v2/images/{image['id']}/file").body)
    words = [QEMU_IMG, "compare", "-f", "qcow2", "-F", "raw", str(got), str(raw)]
    assert "identical" in subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_what_leads_elsewhere_is_refused_before_qemu_sees_it(to_raw: Service, folder: Path) -> None:
    path = folder / "evil.qcow2"
    words = [QEMU_IMG, "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/hostname", str(path), "1M"]
    subprocess.run(words, check=True, capture_output=True)
    for data in (path.read_bytes(), gzip.compress(path.read_bytes())):
        task, image = imported(to_raw, "qcow2", {"name": "glance-direct"}, data)
        assert task["status"] == "failure"
        assert "backing" in task["message"]
        assert image["status"] == "queued"


def test_what_is_cut_is_refused(to_raw: Service, folder: Path) -> None:
    whole = made(folder, "qcow2").read_bytes()
    task, image = imported(to_raw, "qcow2", {"name": "glance-direct"}, whole[: len(whole) // 2])
    assert (task["status"], image["status"]) == ("failure", "queued"), task
    assert not any(path.name.startswith(image["id"]) for path in to_raw.images.iterdir())


def test_what_is_no_disk_of_the_claimed_format_is_refused(to_raw: Service, folder: Path) -> None:
    task, image = imported(to_raw, "vmdk", {"name": "glance-direct"}, made(folder, "qcow2").read_bytes())
    assert (task["status"], image["status"]) == ("failure", "queued"), task


def test_a_store_has_a_format_of_its_own(to_qcow2: Service, folder: Path) -> None:
    data, raw = made(folder, "qcow2").read_bytes(), made(folder, "raw").read_bytes()
    _, image = imported(to_qcow2, "qcow2", {"name": "glance-direct"}, data, store="plain")
    assert (image["status"], image["disk_format"], image["size"]) == ("active", "raw", len(raw))
    vmdk = made(folder, "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    _, image = imported(to_qcow2, "vmdk", {"name": "glance-direct"}, vmdk, store="same")
    assert (image["status"], image["disk_format"], image["size"]) == ("active", "vmdk", len(vmdk))


def test_stores_that_want_different_formats_are_not_filled_at_once(to_qcow2: Service) -> None:
    image = to_qcow2.request("POST", "/v2/images", json={"disk_format": "qcow2", "container_format": "bare"}).json()[
        "id"
    ]
    to_qcow2.request("PUT", f"/v2/images/{image}/stage", body=b"x", headers={"Content-Type": OCTETS})
    body = {"method": {"name": "glance-direct"}, "stores": ["plain", "same", "files"]}
    answer = to_qcow2.request("POST", f"/v2/images/{image}/import", json=body)
    assert answer.status == 409
    assert "raw in plain; qcow2 in same, files" in answer.body.decode()
    assert to_qcow2.request("GET", f"/v2/images/{image}").json()["status"] == "uploading"
