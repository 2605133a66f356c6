"""Imports from URLs: what they bring, what they are refused, and what comes out of compressed data."""

import bz2
import gzip
import hashlib
import lzma
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import Cloud
from tests.fetching.flawed import Flawed
from tests.imports.conftest import begin, ended, stage
from tests.servers.nginx import Nginx

DATA = random.Random(9).randbytes(5_000_000)
SHA = hashlib.sha512(DATA).hexdigest()


@pytest.fixture
def folder(web: Nginx) -> Iterator[Path]:
    assert web.files is not None
    folder = Path(web.files)
    (folder / "disk.img").write_bytes(DATA)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def _imported(
    cloud: Cloud, url: str, /, *, seconds: float = 30, body: dict[str, Any] | None = None, **fields: Any
) -> Any:
    """The newest task of an image that an administrator imports from this URL, and the image."""
    image = cloud.admin.new(**fields)
    method = {"uri": url, **(body or {})}
    answer = begin(cloud.admin, image, "web-download", method=method)
    assert answer.status == 202, answer.body
    done = ended(cloud.admin, image, seconds)
    return done, cloud.admin.show(image)


def test_data_comes_from_a_url(cloud: Cloud, web: Nginx, folder: Path) -> None:
    done, shown = _imported(cloud, f"{web.url}/disk.img")
    assert done["status"] == "success", done
    assert (shown["status"], shown["size"], shown["os_hash_value"]) == ("active", len(DATA), SHA)
    assert cloud.admin.download(shown["id"]).body == DATA
    assert "imported_by" not in shown, "administrators' images get none"


def test_a_login_in_the_url_is_not_shown(cloud: Cloud, web: Nginx, folder: Path) -> None:
    done, _ = _imported(cloud, f"{web.url.replace('//', '//me:secret@')}/disk.img")
    assert "secret" not in str(done)
    assert "secret" not in cloud.service.log


@pytest.mark.parametrize(
    ("algorithm", "value", "good"),
    [
        ("sha256", hashlib.sha256(DATA).hexdigest(), True),
        ("md5", hashlib.md5(DATA).hexdigest().upper(), True),
        ("sha512", "0" * 128, False),
    ],
)
def test_a_digest_that_the_file_must_have(
    cloud: Cloud, web: Nginx, folder: Path, algorithm: str, value: str, good: bool
) -> None:
    digest = {"os_hash_algo": algorithm, "os_hash_value": value}
    done, shown = _imported(cloud, f"{web.url}/disk.img", body=digest)
    assert done["status"] == ("success" if good else "failure"), done
    assert shown["status"] == ("active" if good else "queued")
    if not good:
        assert "not" in done["message"]
        assert not list((cloud.folder / "fast").glob(f"{shown['id']}*"))


def test_what_the_vendor_publishes(cloud: Cloud, web: Nginx, folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(DATA).hexdigest()} *disk.img\n{'0' * 64} *other.img\n")
    done, _ = _imported(cloud, f"{web.url}/disk.img", body={"checksums_uri": f"{web.url}/SHA256SUMS"})
    assert done["status"] == "success", done
    sums.write_text(f"{'1' * 64} *disk.img\n")
    done, shown = _imported(cloud, f"{web.url}/disk.img", body={"checksums_uri": f"{web.url}/SHA256SUMS"})
    assert (done["status"], shown["status"]) == ("failure", "queued")


@pytest.mark.parametrize("missing", ["value", "uri"])
def test_halves_of_checksums(cloud: Cloud, web: Nginx, missing: str) -> None:
    image = cloud.admin.new()
    half = {"os_hash_algo": "sha256"} if missing == "value" else {"signature_uri": f"{web.url}/x"}
    assert begin(cloud.admin, image, "web-download", method={"uri": f"{web.url}/disk.img", **half}).status == 400
    wrong = {"os_hash_algo": "sha256", "os_hash_value": "12"}
    assert begin(cloud.admin, image, "web-download", method={"uri": f"{web.url}/disk.img", **wrong}).status == 400


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://2130706433/",
    ],
)
def test_addresses_of_the_node_itself_are_for_nobody(cloud: Cloud, url: str) -> None:
    for caller in (cloud.ann, cloud.admin):
        image = caller.new()
        assert begin(caller, image, "web-download", method={"uri": url}).status == 400
        assert caller.show(image)["status"] == "queued"


def test_a_file_that_is_not_there(cloud: Cloud, web: Nginx, folder: Path) -> None:
    done, shown = _imported(cloud, f"{web.url}/nothing")
    assert (done["status"], shown["status"]) == ("failure", "queued")
    assert "404" in done["message"]
    assert shown["os_glance_failed_import"] == "fast"


def test_a_connection_that_breaks_goes_on_where_it_was(cloud: Cloud, flawed: Flawed) -> None:
    assert flawed.data == DATA
    flawed.cut, flawed.cuts = 700_000, 4
    done, shown = _imported(cloud, flawed.url, seconds=90)
    assert done["status"] == "success", done
    assert shown["os_hash_value"] == SHA
    assert flawed.sent < 2 * len(DATA)


PACKED = {
    "gz": gzip.compress(DATA, 1),
    "xz": lzma.compress(DATA, preset=0),
    "bz2": bz2.compress(DATA, 1),
}


@pytest.mark.parametrize("kind", [*PACKED, "zip"])
@pytest.mark.parametrize("container", ["bare", "compressed"])
def test_compressed_data_is_unpacked(cloud: Cloud, web: Nginx, folder: Path, kind: str, container: str) -> None:
    path = folder / f"disk.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("disk.img", DATA)
    else:
        path.write_bytes(PACKED[kind])
    digest = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(path.read_bytes()).hexdigest()}
    done, shown = _imported(cloud, f"{web.url}/disk.{kind}", body=digest, container_format=container)
    assert done["status"] == "success", done
    assert (shown["size"], shown["os_hash_value"], shown["container_format"]) == (len(DATA), SHA, "bare")


def test_what_is_dangerous_is_refused_inside_of_what_is_compressed(cloud: Cloud) -> None:
    image = cloud.ann.new(disk_format="qcow2")
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + (112).to_bytes(8, "big") + (11).to_bytes(4, "big")
    header += (16).to_bytes(4, "big") + (1 << 30).to_bytes(8, "big")
    evil = header.ljust(112, b"\0") + b"/etc/passwd" + bytes(70_000)
    stage(cloud.ann, image, gzip.compress(evil))
    assert begin(cloud.ann, image).status == 202
    done = ended(cloud.ann, image)
    assert done["status"] == "failure"
    assert "backing" in done["message"]
    assert cloud.ann.show(image)["status"] == "queued"


def test_properties_are_added_for_members(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image).status == 202
    assert ended(cloud.ann, image)["status"] == "success"
    assert cloud.ann.show(image)["imported_by"] == "xloud"
