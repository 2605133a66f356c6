"""Every hostile image through the API: 415 with a reason, and an image that is queued again."""

from collections.abc import Iterator

import pytest

from tests.formats import build, hostile
from tests.servers.http import Answer
from tests.servers.service import Service

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    one = Service()
    try:
        one.start()
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log
    finally:
        one.kill()


def new(service: Service, disk: str, container: str) -> str:
    body = {"name": "f", "disk_format": disk, "container_format": container}
    return str(service.request("POST", "/v2/images", json=body).json()["id"])


def put(service: Service, image: str, data: bytes) -> Answer:
    return service.request("PUT", f"/v2/images/{image}/file", body=data, headers=OCTETS)


@pytest.mark.parametrize("name", hostile.SAMPLES)
def test_hostile(service: Service, name: str) -> None:
    claims = [
        ("raw", "bare"),
        ("qcow2", "ova"),
        ("vmdk", "bare"),
        ("aki", "aki"),
        ("raw", "compressed"),
        ("vhd", "docker"),
    ]
    for disk, container in claims:
        image = new(service, disk, container)
        answer = put(service, image, hostile.SAMPLES[name])
        assert (answer.status, len(answer.body) > 60) == (415, True), (disk, container)
        shown = service.request("GET", f"/v2/images/{image}").json()
        assert (shown["status"], shown["size"], shown["virtual_size"]) == ("queued", None, None)


@pytest.mark.parametrize("name", hostile.CLAIMED)
@pytest.mark.parametrize("container", ["bare", "ova", "docker", "compressed"])
def test_hostile_where_the_claim_is_believed(service: Service, name: str, container: str) -> None:
    assert put(service, new(service, "vmdk", container), hostile.CLAIMED[name]).status == 415


@pytest.mark.parametrize("claim", ["raw", "qcow2", "vmdk", "vhd", "iso", "ami"])
def test_nothing_at_all(service: Service, claim: str) -> None:
    """An empty image is taken, and said to be one in the answer and in the log."""
    image = new(service, claim, "bare")
    answer = put(service, image, b"")
    assert answer.status == 204
    assert "0 bytes came" in answer.headers["warning"]
    shown = service.request("GET", f"/v2/images/{image}").json()
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", 0, 0)
    assert any("an image was given no data" in line and image in line for line in service.log.splitlines())
    assert "warning" not in put(service, new(service, "raw", "bare"), b"x").headers


def test_fixed_vhd(service: Service) -> None:
    image = new(service, "vhd", "bare")
    assert put(service, image, build.fixed_vhd()).status == 204
    assert service.request("GET", f"/v2/images/{image}").json()["virtual_size"] == 1 << 20
