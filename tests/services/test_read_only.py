"""A store that takes no new images (`read_only`): what lies in it is read and removed, and counted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServiceFactory
from tests.servers.ceph import Ceph
from tests.servers.place import new_directory
from tests.servers.process import Stuck
from tests.servers.service import Service
from tests.servers.swift import Swift

OCTETS = {"Content-Type": "application/octet-stream"}
TWO = {"DEFAULT": {"enabled_backends": "files:file, old:file"}, "xloud": {"auth": "none"}}


def new_image(service: Service, data: bytes, store: str | None = None) -> tuple[str, Any]:
    body = {"disk_format": "raw", "container_format": "bare"}
    image_id: str = service.request("POST", "/v2/images", json=body).json()["id"]
    headers = OCTETS | ({"X-Image-Meta-Store": store} if store else {})
    return image_id, service.request("PUT", f"/v2/images/{image_id}/file", body=data, headers=headers)


def counted(service: Service) -> dict[str, tuple[int, int, bool]]:
    """store → images, pending, configured. The command ends with 1 when something is not configured."""
    try:
        output = service.run("stores", "list", "--images", "--json")
    except Stuck as error:
        output = str(error)[str(error).index("[\n") : str(error).rindex("]") + 1]
    return {one["store"]: (one["images"], one["pending"], one["configured"]) for one in json.loads(output)}


@pytest.fixture
def moved(service: ServiceFactory) -> tuple[Service, str, bytes, Path]:
    """A service that was moved from the store `old` to `files`, with an image in the first."""
    place = new_directory("old")
    server = service(TWO | {"old": {"filesystem_store_datadir": place}})
    data = os.urandom(100_000)
    image_id, answer = new_image(server, data, "old")
    assert answer.status == 204
    server.stop()
    server.configure({"old": {"read_only": True}})
    server.start()
    return server, image_id, data, place


def test_what_is_in_it_is_read_and_removed(moved: tuple[Service, str, bytes, Path]) -> None:
    server, image_id, data, place = moved
    assert server.request("GET", f"/v2/images/{image_id}/file").body == data
    assert counted(server) == {"files": (0, 0, True), "old": (1, 0, True)}
    assert server.request("DELETE", f"/v2/images/{image_id}").status == 204
    assert list(place.iterdir()) == []
    assert counted(server) == {"files": (0, 0, True), "old": (0, 0, True)}


def test_new_images_go_elsewhere(moved: tuple[Service, str, bytes, Path]) -> None:
    server, _, data, place = moved
    shown = server.request("GET", "/v2/info/stores").json()["stores"]
    assert [(one["id"], one.get("read-only")) for one in shown] == [("files", None), ("old", "true")]
    image_id, answer = new_image(server, data, "old")
    assert answer.status == 410
    for words in (b"'old' is kept for the images that lie in it", b"(files)", b"X-Image-Meta-Store"):
        assert words in answer.body
    assert server.request("GET", f"/v2/images/{image_id}").json()["status"] == "queued"
    assert len(list(place.iterdir())) == 1
    assert new_image(server, data)[1].status == 204
    assert counted(server) == {"files": (1, 0, True), "old": (1, 0, True)}


def test_operators_see_it(moved: tuple[Service, str, bytes, Path]) -> None:
    server, _, _, place = moved
    table = server.run("stores", "list", "--images")
    line = next(line for line in table.splitlines() if line.startswith("old"))
    assert line.split() == ["old", "file", "read-only", "0", "1", "0"]
    (found,) = (one for one in json.loads(server.run("stores", "check", "--deep", "--json")) if one["store"] == "old")
    assert (found["ok"], found["writable"]) == (True, False)
    assert "write" not in found["timings"]
    away = place.rename(place.with_name(f"{place.name}-away"))
    place.write_text("no directory")
    assert server.run("stores", "check", "--exclude", "old")
    with pytest.raises(Stuck, match="old"):
        server.run("stores", "check")
    place.unlink()
    away.rename(place)


def test_images_of_a_store_that_is_gone_are_told(moved: tuple[Service, str, bytes, Path]) -> None:
    server = moved[0]
    server.configure({"DEFAULT": {"enabled_backends": "files:file"}})
    assert counted(server) == {"files": (0, 0, True), "old": (1, 0, False)}
    with pytest.raises(Stuck, match="NOT CONFIGURED"):
        server.run("stores", "list", "--images")
    place = server.sections["old"]["filesystem_store_datadir"]
    server.configure({"DEFAULT": {"enabled_backends": "files:file, other:file"}})
    server.configure({"other": {"filesystem_store_datadir": place}})
    assert counted(server) == {"files": (0, 0, True), "other": (1, 0, True)}, "the place counts, not the name"


def test_stores_that_learn_at_their_start_what_is_theirs(
    service: ServiceFactory, ceph: Ceph, swift: Swift, tmp_path: Path
) -> None:
    """Which cluster stands in ceph.conf, which account in the file of references."""
    account = swift.options()
    lines = "".join(f"{name} = {account[f'swift_store_{name}']}\n" for name in ("auth_address", "user", "key"))
    (tmp_path / "swift.conf").write_text(f"[ours]\nauth_version = 3\n{lines}")
    server = service(
        {
            "DEFAULT": {"enabled_backends": "files:file, blocks:rbd, objects:swift"},
            "xloud": {"auth": "none"},
            "blocks": {"rbd_store_ceph_conf": ceph.conf, "rbd_store_user": "glance", "rbd_store_pool": "images"},
            "objects": {
                "swift_store_config_file": tmp_path / "swift.conf",
                "default_swift_reference": "ours",
                "swift_store_container": "kept",
                "swift_store_create_container_on_put": True,
            },
        }
    )
    made = {store: new_image(server, b"data" * 1000, store) for store in ("blocks", "objects")}
    assert {answer.status for _, answer in made.values()} == {204}
    assert counted(server) == {"files": (0, 0, True), "blocks": (1, 0, True), "objects": (1, 0, True)}
    for image_id, _ in made.values():
        assert server.request("DELETE", f"/v2/images/{image_id}").status == 204
