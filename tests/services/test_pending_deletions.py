"""Deleting and uploading while a store is down: clients are not held up, the bytes are pending, and removed later."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ServiceFactory
from tests.crash.points import wait_until
from tests.crash.proof import claims, files
from tests.imports.conftest import set_back
from tests.load import quiet
from tests.servers.service import Service
from tests.stores.mounts import Hangable
from xloud_image.services.reaper import LATE

SHORT = {"auth": "none", "lease_time": 5, "reaper_interval": 1}
OCTETS = {"Content-Type": "application/octet-stream"}


def new_image(service: Service, data: bytes | None = b"some data") -> str:
    body = {"disk_format": "raw", "container_format": "bare"}
    image_id: str = service.request("POST", "/v2/images", json=body).json()["id"]
    if data is not None:
        assert service.request("PUT", f"/v2/images/{image_id}/file", body=data, headers=OCTETS).status == 204
    return image_id


def pending_in(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(service.run("stores", "pending", "--json"))
    return found


def _cut_off(server: Service, away: Path) -> Iterator[bytes]:
    """Data in whose middle the store's directory goes away."""
    yield bytes(3_000_000)
    assert wait_until(lambda: any(files(server.images).values()))
    server.images.rename(away)
    yield bytes(3_000_000)


def _looked_at_late(server: Service, image_id: str, lease_until: str) -> None:
    """A failed write of an image, that is to be looked for once more."""
    set_back(
        server,
        "INSERT INTO xloud_claims (id, kind, image_id, store, slot, scope, begun_at, attempts, lease_until, error)"
        f" VALUES ('c', 'write', '{image_id}', 'files', 'write', 'image', '2026-01-01 00:00:00', 1, {lease_until},"
        f" '{LATE}')",
    )


def test_deleting_while_the_directory_is_away(service: ServiceFactory) -> None:
    server = service({"xloud": SHORT})
    image_id = new_image(server)
    away = server.images.rename(server.directory / "away")
    assert server.request("DELETE", f"/v2/images/{image_id}").status == 204
    assert server.request("GET", f"/v2/images/{image_id}").status == 404
    (entry,) = pending_in(server)
    assert (entry["kind"], entry["image"], entry["store"]) == ("delete", image_id, "files")
    assert "directory" in entry["error"] or "No such file" in entry["error"]
    assert wait_until(lambda: pending_in(server)[0]["attempts"] >= 2), "the reaper does not try again"
    assert files(away) == {image_id: 9}
    away.rename(server.images)
    assert wait_until(lambda: not claims(server)), pending_in(server)
    assert files(server.images) == {}
    assert server.run("stores", "pending") == "Nothing is pending.\n"


def test_deleting_while_the_mount_hangs(service: ServiceFactory) -> None:
    """The client waits no longer than the store's time limit and a retry; a second store is served meanwhile."""
    server = service(
        {
            "DEFAULT": {"enabled_backends": "files:file,nfs:file"},
            "nfs": {"filesystem_store_timeout": 2},
            "xloud": SHORT,
        },
        start=False,
    )
    mount = Hangable(server.directory / "disk", server.directory / "mount")
    try:
        server.configure({"nfs": {"filesystem_store_datadir": mount.target}})
        server.start()
        image_id = new_image(server, None)
        headers = OCTETS | {"X-Image-Meta-Store": "nfs"}
        assert server.request("PUT", f"/v2/images/{image_id}/file", body=b"data", headers=headers).status == 204
        mount.stop()
        begun = time.monotonic()
        assert server.request("DELETE", f"/v2/images/{image_id}").status == 204
        assert time.monotonic() - begun < quiet(8)
        assert "does not answer" in pending_in(server)[0]["error"]
        # the reaper is busy with the hung store now; an upload into the other one keeps its lease
        slow = new_image(server, None)
        answer = server.request("PUT", f"/v2/images/{slow}/file", body=_slowly(8), headers=OCTETS)
        assert answer.status == 204
        mount.go_on()
        assert wait_until(lambda: not claims(server)), pending_in(server)
        assert files(server.directory / "disk") == {}
    finally:
        mount.close()


def _slowly(seconds: int) -> Iterator[bytes]:
    for _ in range(seconds * 2):
        yield bytes(1000)
        time.sleep(0.5)


def test_an_upload_whose_directory_goes_away(service: ServiceFactory) -> None:
    """It fails, the image is queued at once, a second try is told to wait, and succeeds when the store is back."""
    server = service({"xloud": SHORT})
    image_id = new_image(server, None)
    path = f"/v2/images/{image_id}/file"
    away = server.directory / "away"

    assert server.request("PUT", path, body=_cut_off(server, away), headers=OCTETS).status == 503
    assert server.request("GET", f"/v2/images/{image_id}").json()["status"] == "queued"
    assert [entry["kind"] for entry in pending_in(server)] == ["write"]
    assert len(files(away)) == 1
    assert server.request("PUT", path, body=b"again", headers=OCTETS).status == 503
    away.rename(server.images)
    answer = server.request("PUT", path, body=b"again", headers=OCTETS)
    assert answer.status in (204, 409), answer.body  # 409: the reaper is at it
    assert wait_until(lambda: server.request("PUT", path, body=b"again", headers=OCTETS).status in (204, 409))
    assert wait_until(lambda: not claims(server))
    assert [name[:36] for name in files(server.images)] == [image_id]
    assert server.request("GET", path).body == b"again"


def test_what_a_sick_store_does_late_is_removed_too(service: ServiceFactory) -> None:
    """A server that hung may do what it was asked after it has said that nothing is there."""
    server = service({"xloud": SHORT})
    image_id = new_image(server, None)
    away = server.directory / "away"

    assert (
        server.request("PUT", f"/v2/images/{image_id}/file", body=_cut_off(server, away), headers=OCTETS).status == 503
    )
    (name,) = files(away)
    away.rename(server.images)
    assert wait_until(lambda: any("late" in (row[-1] or "") for row in claims(server))), claims(server)
    assert files(server.images) == {}
    assert server.request("GET", f"/v2/images/{image_id}").json()["status"] == "queued"
    (server.images / name).write_bytes(b"late")
    set_back(server, "UPDATE xloud_claims SET lease_until = NULL")  # its time has come
    assert wait_until(lambda: not claims(server)), claims(server)
    assert files(server.images) == {}


def test_the_way_back_looks_for_it_at_once(service: ServiceFactory) -> None:
    server = service({"xloud": SHORT})
    image_id = new_image(server, None)
    server.stop()
    (server.images / image_id).write_bytes(b"late")
    _looked_at_late(server, image_id, "'2100-01-01 00:00:00'")
    assert "gone" in server.run("takeover", "undo", "--wait", "5")
    assert files(server.images) == {}


def test_data_that_a_glance_has_put_there_since_stay(service: ServiceFactory) -> None:
    """The name that a first upload has in the store is that of the image, with Glance as well."""
    server = service({"xloud": SHORT})
    image_id = new_image(server, b"of a Glance")
    _looked_at_late(server, image_id, "NULL")
    assert wait_until(lambda: not claims(server)), claims(server)
    assert server.request("GET", f"/v2/images/{image_id}/file").body == b"of a Glance"


def test_bytes_that_were_there_before_us_stay(service: ServiceFactory) -> None:
    """A file under the image's name that no claim of ours knows: somebody else's, so the upload is refused."""
    server = service()
    image_id = new_image(server, None)
    (server.images / image_id).write_bytes(b"not ours")
    answer = server.request("PUT", f"/v2/images/{image_id}/file", body=b"ours", headers=OCTETS)
    assert answer.status == 409, answer.body
    assert files(server.images) == {image_id: len(b"not ours")}
    assert server.request("GET", f"/v2/images/{image_id}").json()["status"] == "queued"
    assert claims(server) == []
    # a second attempt has a name of its own
    assert server.request("PUT", f"/v2/images/{image_id}/file", body=b"ours", headers=OCTETS).status == 204
    assert server.request("GET", f"/v2/images/{image_id}/file").body == b"ours"
    assert (server.images / image_id).read_bytes() == b"not ours"


def test_deleting_data_that_is_gone_already(service: ServiceFactory) -> None:
    server = service()
    image_id = new_image(server)
    (server.images / image_id).unlink()
    assert server.request("DELETE", f"/v2/images/{image_id}").status == 204
    assert claims(server) == []


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a call in a thread; its result comes into the list."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


def test_deleting_while_the_upload_runs(service: ServiceFactory) -> None:
    """The image is gone at once; the upload ends with 410, and nothing of it stays."""
    server = service()
    image_id = new_image(server, None)
    deleted = threading.Event()

    def data() -> Iterator[bytes]:
        yield bytes(2_000_000)
        deleted.wait(20)
        yield bytes(2_000_000)

    path = f"/v2/images/{image_id}"
    thread, answers = in_background(lambda: server.request("PUT", f"{path}/file", body=data(), headers=OCTETS))
    assert wait_until(lambda: server.request("GET", path).json()["status"] == "saving")
    assert server.request("PUT", f"{path}/file", body=b"second", headers=OCTETS).status == 409
    assert server.request("DELETE", path).status == 204
    assert server.request("GET", path).status == 404
    deleted.set()
    thread.join(20)
    assert answers[0].status == 410
    assert (files(server.images), claims(server)) == ({}, [])


def test_a_place_for_everything(service: ServiceFactory, tmp_path: Path) -> None:
    """`stores pending` shows an upload that runs as one, with the process at work."""
    server = service()
    image_id = new_image(server, None)
    shown: list[dict[str, Any]] = []

    def data() -> Iterator[bytes]:
        yield bytes(1000)
        wait_until(lambda: claims(server))
        shown.extend(pending_in(server))
        yield bytes(1000)

    assert server.request("PUT", f"/v2/images/{image_id}/file", body=data(), headers=OCTETS).status == 204
    assert [(entry["kind"], entry["image"], entry["error"]) for entry in shown] == [("write", image_id, None)]
    assert shown[0]["working"]
