"""The snippets of the operators' guide against the real thing: the service starts with each one as it stands, but for
addresses, passwords and what a self-made certificate needs; one image goes in and comes out again."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.config.guide import SNIPPETS, options
from tests.servers.http import Answer
from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from tests.servers.service import Service
from xloud_image.stores import type_of

DATA = random.Random(7).randbytes(3_000_001)

# what is swapped in a snippet; the fixtures are those of the servers that it needs
Swap = Callable[[pytest.FixtureRequest, Path], dict[str, Any]]


def _file(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    return {"filesystem_store_datadir": f"{directory}/glance_images/"}


def _swift(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    swift = request.getfixturevalue("swift")
    return {
        name: value
        for name, value in swift.options().items()
        if name in ("swift_store_auth_address", "swift_store_key")
    }


def _s3(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    rgw = request.getfixturevalue("rgw")
    return {
        "s3_store_host": rgw.tls_url,
        "s3_store_access_key": rgw.access,
        "s3_store_secret_key": rgw.secret,
        "s3_store_cacert": rgw.ca,
    }


def _vmware(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    vsphere = request.getfixturevalue("vsphere")
    return {
        "vmware_server_host": vsphere.host,
        "vmware_server_username": vsphere.user,
        "vmware_server_password": vsphere.password,
        "vmware_datastores": "DC0:LocalDS_0:100",
        "vmware_ca_file": vsphere.ca_file,
    }


def _cinder(request: pytest.FixtureRequest, directory: Path) -> dict[str, Any]:
    return {"cinder_store_auth_address": request.getfixturevalue("cinder").keystone.url}


SWAPS: dict[str, Swap] = {
    "custom directory": _file,
    "Swift backend": _swift,
    "S3 backend": _s3,
    "VMware datastore backend": _vmware,
    "Cinder backend": _cinder,
    "HTTP backend": lambda request, directory: {},
}


def configuration(request: pytest.FixtureRequest, title: str, directory: Path) -> dict[str, dict[str, Any]]:
    """The guide's style: no `enabled_backends`, all in [glance_store]."""
    given: dict[str, Any] = {**options(title), **SWAPS[title](request, directory)}
    sections: dict[str, dict[str, Any]] = {
        "DEFAULT": {"enabled_backends": None},
        "glance_store": given,
        "files": {"filesystem_store_datadir": None},
    }
    if given["default_backend"] == "cinder":
        # the guide's account has no password of its own there
        sections["keystone_authtoken"] = request.getfixturevalue("keystone").authtoken()
    return sections


def create(service: Service) -> str:
    answer = service.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"})
    assert answer.status == 201, answer.body
    image_id: str = answer.json()["id"]
    return image_id


def upload(service: Service, image_id: str) -> Answer:
    headers = {"content-type": "application/octet-stream"}
    return service.request("PUT", f"/v2/images/{image_id}/file", body=DATA, headers=headers, seconds=120)


def test_every_snippet_is_here() -> None:
    assert set(SWAPS) == set(SNIPPETS)


@pytest.mark.parametrize("title", [title for title in SWAPS if title != "HTTP backend"])
def test_it_does_what_its_text_says(
    request: pytest.FixtureRequest, service: Callable[..., Service], tmp_path: Path, title: str
) -> None:
    one = service(configuration(request, title, tmp_path))
    kind = type_of(options(title)["default_backend"]) or ""
    result, *others = json.loads(one.run("stores", "check", "--json", "--deep"))
    # without `stores` Glance has file and http
    assert [other["store"] for other in others] == ["http"] * (kind == "file")
    assert (result["store"], result["type"], result["ok"]) == (kind, kind, True), result
    image_id = create(one)
    answer = upload(one, image_id)
    assert answer.status == 204, answer.body
    whole = one.request("GET", f"/v2/images/{image_id}/file")
    assert (whole.status, whole.body) == (200, DATA)
    part = one.request("GET", f"/v2/images/{image_id}/file", headers={"range": "bytes=1000001-1999999"})
    assert (part.status, part.body) == (206, DATA[1_000_001:2_000_000])
    # it lies where the guide says, and is gone with the image
    assert image_id in one.run("stores", "ls", kind).split()
    if kind == "file":
        assert (tmp_path / "glance_images" / image_id).read_bytes() == DATA
    assert one.request("DELETE", f"/v2/images/{image_id}").status == 204
    assert image_id not in one.run("stores", "ls", kind).split()
    for secret in ("swift_store_key", "s3_store_secret_key", "vmware_server_password"):
        if value := one.sections["glance_store"].get(secret):
            assert value not in one.log


def test_http_alone_starts_warns_and_says_why_it_takes_nothing(
    request: pytest.FixtureRequest,
    service: Callable[..., Service],
    nginx: Callable[..., Nginx],
    tmp_path: Path,
) -> None:
    one = service(configuration(request, "HTTP backend", tmp_path))
    assert "every upload that names no store gets 410" in one.log
    image_id = create(one)
    answer = upload(one, image_id)
    assert answer.status == 410
    assert b"takes no data" in answer.body
    # the way that the guide means: a URL is registered
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "ubuntu.img").write_bytes(DATA)
    web = nginx(files=tmp_path / "pages", host=private_address())
    answer = one.request("POST", f"/v2/images/{image_id}/locations", json={"url": f"{web.url}/ubuntu.img"})
    assert answer.status in (200, 202), answer.body
    whole = one.request("GET", f"/v2/images/{image_id}/file")
    assert (whole.status, whole.body) == (200, DATA)
    (result,) = json.loads(one.run("stores", "check", "--json"))
    assert (result["ok"], result["writable"]) == (True, False)
