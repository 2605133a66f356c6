"""Images that lie on a web server: who may register them, when they have changed behind our back, and what then."""

import hashlib
import http.client
import http.server
import json
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud
from tests.crash.points import wait_until
from tests.crash.proof import claims, rows
from tests.formats.build import qcow2
from tests.load import quiet
from tests.servers.certificates import authority
from tests.servers.http import Answer
from tests.servers.place import private_address
from tests.stores.test_http import Folder, running

SMALL = b"small data on a web server"
LARGE = bytes(range(256)) * 20_000  # 5 MB: many chunks


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The web store is heavier than the others."""
    cloud = Cloud(
        tmp_path_factory.mktemp("foreign"),
        options={"enabled_backends": "fast:file,slow:file,mem:memory,web:http"},
        web={"weight": 100, "https_ca_certificates_file": authority().ca},
        xloud={"auth": "http_basic", "store_timeout": 3, "reaper_interval": 1, "lease_time": 5},
    )
    users = {"http_basic_user_file": cloud.folder / "users", "http_basic_projects_file": cloud.folder / "projects"}
    cloud.service.configure({"xloud": users})
    try:
        cloud.service.start()
        yield cloud
        assert cloud.service.stop() == 0
        assert "Traceback" not in cloud.service.log
    finally:
        cloud.service.kill()


@pytest.fixture(scope="module")
def www(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    folder = tmp_path_factory.mktemp("www")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    with running(Folder(folder, host=private_address())) as server:
        yield server


class File:
    """A file on the web server; `replace` changes its bytes, with `secretly` not what the server says of it."""

    def __init__(self, www: Folder, name: str, data: bytes) -> None:
        self.path = www.www / name
        self.url = f"{www.url}/{name}"
        self.data = data
        self.path.write_bytes(data)

    def replace(self, data: bytes, *, secretly: bool) -> None:
        told = self.path.stat()
        self.path.write_bytes(data)
        moment = told.st_mtime_ns if secretly else told.st_mtime_ns + 5_000_000_000
        os.utime(self.path, ns=(moment, moment))


def new_file(www: Folder, data: bytes) -> File:
    return File(www, f"file-{uuid.uuid4().hex}", data)


def register(caller: Caller, image_id: str, url: str, **more: Any) -> Answer:
    return caller.ask("POST", f"/v2/images/{image_id}/locations", json={"url": url, **more})


def add(url: str, **metadata: Any) -> dict[str, Any]:
    return {"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": metadata}}


def hashed(cloud: Cloud, image_id: str) -> bool:
    return bool(wait_until(lambda: cloud.admin.show(image_id)["os_hash_value"]))


def own_digest(cloud: Cloud, image_id: str) -> Any:
    """That of the data at its only location, which no client sees; once they have been read."""
    assert wait_until(lambda: "digest" in metadata(cloud, image_id)[0]["xloud"])
    return metadata(cloud, image_id)[0]["xloud"]["digest"]


def digests(image: dict[str, Any]) -> tuple[Any, Any, Any]:
    return image["checksum"], image["os_hash_algo"], image["os_hash_value"]


def on_the_web(cloud: Cloud, file: File, way: str = "POST") -> str:
    """The id of an image that lies there, whose digests were made."""
    image_id = cloud.nova.new(visibility="community")
    answer = register(cloud.nova, image_id, file.url) if way == "POST" else cloud.nova.patch(image_id, add(file.url))
    assert answer.status == (202 if way == "POST" else 200), answer.body
    assert hashed(cloud, image_id) if way == "POST" else own_digest(cloud, image_id)
    return image_id


def also_in_memory(cloud: Cloud, image_id: str, data: bytes) -> None:
    other = f"memory://mem/{cloud.nova.new(data, store='mem')}"
    assert cloud.admin.patch(image_id, add(other)).status == 200


def left(cloud: Cloud, *images: str) -> list[tuple[Any, ...]]:
    """What is still to be done for these images; other tests may have left work for a server that is gone."""
    return [claim for claim in claims(cloud.service) if claim[1] in images]


def metadata(cloud: Cloud, image_id: str) -> list[dict[str, Any]]:
    statement = f"SELECT meta_data FROM image_locations WHERE image_id = '{image_id}' AND NOT deleted ORDER BY id"
    return [json.loads(text) for (text,) in rows(cloud.service, statement)]


def set_metadata(cloud: Cloud, image_id: str, value: dict[str, Any]) -> None:
    file = cloud.service.sections["database"]["connection"].removeprefix("sqlite:///")
    with sqlite3.connect(file, timeout=30) as connection:
        connection.execute("UPDATE image_locations SET meta_data = ? WHERE image_id = ?", (json.dumps(value), image_id))
    connection.close()


# who registers what


@pytest.mark.parametrize("way", ["POST", "PATCH"])
@pytest.mark.parametrize("who", ["nova", "admin"])
def test_services_and_administrators_register_private_addresses(cloud: Cloud, www: Folder, who: str, way: str) -> None:
    file, caller = new_file(www, SMALL), getattr(cloud, who)
    image_id = caller.new(visibility="community")
    answer = register(caller, image_id, file.url) if way == "POST" else caller.patch(image_id, add(file.url))
    assert answer.status == (202 if way == "POST" else 200), answer.body
    image = caller.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(SMALL), "web")
    for whoever in (caller, cloud.bob):
        assert whoever.download(image_id).body == SMALL
    assert caller.download(image_id, Range="bytes=6-9").body == SMALL[6:10]
    head = caller.ask("HEAD", f"/v2/images/{image_id}/file")
    assert (head.status, head.headers["content-length"]) == (200, str(len(SMALL)))
    digest = hashlib.sha512(SMALL).hexdigest()
    if way == "POST":
        assert hashed(cloud, image_id), "its digests follow, so that a change will be noticed"
        assert caller.show(image_id)["os_hash_value"] == digest
    else:
        assert own_digest(cloud, image_id) == {"algorithm": "sha512", "value": digest}, "known to the service alone"
        assert digests(caller.show(image_id)) == (None, None, None)
    assert caller.download(image_id).body == SMALL


@pytest.mark.parametrize("way", ["POST", "PATCH"])
def test_others_register_public_addresses_only(cloud: Cloud, www: Folder, way: str) -> None:
    file = new_file(www, SMALL)
    for url in (file.url, "http://localhost/", "http://127.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/"):
        image_id = cloud.ann.new()
        answer = register(cloud.ann, image_id, url) if way == "POST" else cloud.ann.patch(image_id, add(url))
        assert answer.status == 400
        assert b"no public address" in answer.body
        assert cloud.ann.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("how", ["location_networks", "import_filtering_opts"])
def test_what_the_operator_opens_is_registered_by_members(
    tmp_path_factory: pytest.TempPathFactory, www: Folder, how: str
) -> None:
    """An internal mirror: its network, or lists as Glance has them."""
    cloud = Cloud(
        tmp_path_factory.mktemp("opened"),
        options={"enabled_backends": "fast:file,web:http"},
        xloud={"auth": "http_basic", "store_timeout": 20},
    )
    users = {"http_basic_user_file": cloud.folder / "users", "http_basic_projects_file": cloud.folder / "projects"}
    opened = {"location_networks": f"{www.host}/32"} if how == "location_networks" else {}
    lists = {"allowed_hosts": www.host, "allowed_ports": www.port} if not opened else {}
    cloud.service.configure({"xloud": users | opened, "import_filtering_opts": lists})
    try:
        cloud.service.start()
        file = new_file(www, SMALL)
        for way in ("POST", "PATCH"):
            image_id = cloud.ann.new()
            answer = (
                register(cloud.ann, image_id, file.url) if way == "POST" else cloud.ann.patch(image_id, add(file.url))
            )
            assert answer.status in (200, 202), answer.body
            assert cloud.ann.download(image_id).body == SMALL
            for url in ("http://127.0.0.1:1/x", "http://169.254.169.254/latest", "http://10.255.255.1/x"):
                image_id = cloud.ann.new()
                other = register(cloud.ann, image_id, url) if way == "POST" else cloud.ann.patch(image_id, add(url))
                assert other.status == 400, other.body
    finally:
        cloud.service.kill()


def test_what_a_stranger_registered_is_never_read_inside(cloud: Cloud, www: Folder) -> None:
    """The name was public once and means something inside now."""
    image_id = on_the_web(cloud, new_file(www, SMALL))
    set_metadata(cloud, image_id, {"store": "web", "xloud": {"untrusted": True}})
    for caller in (cloud.bob, cloud.admin, cloud.nova):
        assert caller.download(image_id).status == 503
    also_in_memory(cloud, image_id, SMALL)
    assert cloud.bob.download(image_id).body == SMALL


@pytest.mark.parametrize("old", [{}, {"store": "web"}, {"store": "gone"}], ids=str)
def test_rows_that_are_there_already_are_read(cloud: Cloud, www: Folder, old: dict[str, Any]) -> None:
    image_id = on_the_web(cloud, new_file(www, SMALL))
    set_metadata(cloud, image_id, old)
    assert cloud.bob.download(image_id).body == SMALL


def test_no_credentials_in_a_url(cloud: Cloud, www: Folder) -> None:
    url = new_file(www, SMALL).url.replace("://", "://me:hunter2@")
    for caller in (cloud.nova, cloud.admin, cloud.ann):
        image_id = caller.new()
        for answer in (register(caller, image_id, url), caller.patch(image_id, add(url))):
            assert answer.status == 400
            assert b"user name or password" in answer.body
    assert "hunter2" not in cloud.service.log


def test_what_cannot_be_registered(cloud: Cloud, www: Folder) -> None:
    image_id = cloud.nova.new()
    for path, status in (("absent", 400), ("nginx-is-there", 400)):
        assert register(cloud.nova, image_id, f"{www.url}/{path}").status == status
    assert register(cloud.nova, image_id, new_file(www, b"").url).status == 400, "empty"
    right = {"os_hash_algo": "sha512", "os_hash_value": "0" * 128}
    assert register(cloud.nova, image_id, new_file(www, SMALL).url, validation_data=right).status == 202
    assert wait_until(lambda: cloud.nova.show(image_id)["status"] == "queued"), "another digest"


class Waiting(http.server.BaseHTTPRequestHandler):
    """A file that comes when `go` is set."""

    protocol_version = "HTTP/1.1"
    go: threading.Event

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(SMALL)))
        self.end_headers()

    def do_GET(self) -> None:
        assert self.go.wait(60)
        self.do_HEAD()
        self.wfile.write(SMALL)

    def log_message(self, *_: object) -> None:
        pass


def test_formats_are_fixed_while_data_are_examined(cloud: Cloud) -> None:
    """What is judged is what becomes active: neither another format nor none."""
    handler = type("Handler", (Waiting,), {"go": threading.Event()})
    with http.server.ThreadingHTTPServer((private_address(), 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            image_id = cloud.nova.new()
            right = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(SMALL).hexdigest()}
            url = f"http://{private_address()}:{server.server_port}/x"
            assert register(cloud.nova, image_id, url, validation_data=right).status == 202
            assert cloud.nova.show(image_id)["status"] == "importing"
            for name, values in {"disk_format": ("vmdk", None), "container_format": ("ova", None)}.items():
                for value in values:
                    change = {"op": "replace", "path": f"/{name}", "value": value}
                    assert cloud.nova.patch(image_id, change).status == 403, change
            same = {"op": "replace", "path": "/disk_format", "value": "raw"}
            assert cloud.nova.patch(image_id, same, {"op": "replace", "path": "/name", "value": "n"}).status == 200
            handler.go.set()
            assert wait_until(lambda: cloud.nova.show(image_id)["status"] == "active")
        finally:
            handler.go.set()
            server.shutdown()
            thread.join()
    image = cloud.nova.show(image_id)
    assert (image["disk_format"], image["container_format"], image["name"]) == ("raw", "bare", "n")


def test_over_tls(cloud: Cloud, www: Folder) -> None:
    with running(Folder(www.www, certificate=tuple(authority().issue(www.host)), host=www.host)) as secure:
        name = new_file(www, SMALL).url.rpartition("/")[2]
        image_id = cloud.nova.new()
        assert register(cloud.nova, image_id, f"{secure.url}/{name}").status == 202
        assert cloud.nova.download(image_id).body == SMALL


def test_the_notes_of_the_service(cloud: Cloud, www: Folder) -> None:
    """No client sees, sets or removes them."""
    image_id = cloud.admin.new()
    file = new_file(www, SMALL)
    forged = {"xloud": {"wrong_since": "x", "version": "y"}, "zone": "north"}
    assert cloud.admin.patch(image_id, add(file.url, **forged)).status == 200
    assert own_digest(cloud, image_id)
    (before,) = metadata(cloud, image_id)
    assert before["zone"] == "north"
    assert set(before["xloud"]) == {"registered", "version", "digest"}
    assert before["xloud"]["version"] != "y"
    shown = [{"url": file.url, "metadata": {"store": "web", "zone": "north"}}]
    assert cloud.admin.show(image_id)["locations"] == shown
    assert cloud.admin.ask("GET", f"/v2/images/{image_id}/locations").json() == shown
    for new in ({}, {"xloud": {}}, {"xloud": {"untrusted": True}, "zone": "south"}):
        change = {"op": "replace", "path": "/locations", "value": [{"url": file.url, "metadata": new}]}
        assert cloud.admin.patch(image_id, change).status == 200
        (after,) = metadata(cloud, image_id)
        assert after["xloud"] == before["xloud"]
        assert after.get("zone") == new.get("zone")


def test_nobody_forges_notes_of_other_stores(cloud: Cloud) -> None:
    image_id = cloud.admin.new(SMALL)
    url = f"memory://mem/{cloud.admin.new(SMALL, store='mem')}"
    assert cloud.admin.patch(image_id, add(url, xloud={"wrong_since": "x"}, zone="north")).status == 200
    assert metadata(cloud, image_id) == [{"store": "fast"}, {"store": "mem", "zone": "north", "xloud": {"kept": True}}]


# uploading and deleting


def test_it_takes_no_data(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    answer = cloud.ann.upload(image_id, b"data", store="web")
    assert answer.status == 410
    for word in (b"read-only", b"'web'", b"mem, fast", b"X-Image-Meta-Store", b"/locations"):
        assert word in answer.body
    assert cloud.ann.show(image_id)["status"] == "queued"


def test_deleting_the_image_leaves_the_file(cloud: Cloud, www: Folder) -> None:
    file = new_file(www, SMALL)
    image_id = on_the_web(cloud, file)
    also_in_memory(cloud, image_id, SMALL)
    assert cloud.admin.ask("DELETE", f"/v2/stores/web/{image_id}").status == 204
    assert cloud.admin.show(image_id)["stores"] == "mem"
    assert cloud.admin.patch(image_id, add(file.url)).status == 200
    assert cloud.admin.delete(image_id).status == 204
    assert file.path.read_bytes() == SMALL
    assert left(cloud, image_id) == []


# files that change


@pytest.mark.parametrize("size", ["the same size", "another size"])
def test_a_change_is_noticed_before_the_first_byte(cloud: Cloud, www: Folder, size: str) -> None:
    file = new_file(www, LARGE)
    image_id = on_the_web(cloud, file)
    assert cloud.bob.download(image_id).body == LARGE
    file.replace(LARGE[::-1] if size == "the same size" else LARGE + b"more", secretly=False)
    for headers in ({}, {"Range": "bytes=100-200"}):
        answer = cloud.bob.download(image_id, **headers)
        assert answer.status == 503
        assert b"not what was registered" in answer.body
    also_in_memory(cloud, image_id, LARGE)
    assert cloud.bob.download(image_id).body == LARGE
    assert cloud.bob.download(image_id, Range="bytes=100-200").body == LARGE[100:201]


def test_a_file_that_is_gone(cloud: Cloud, www: Folder) -> None:
    file = new_file(www, SMALL)
    image_id = on_the_web(cloud, file)
    file.path.unlink()
    assert cloud.bob.download(image_id).status == 404
    also_in_memory(cloud, image_id, SMALL)
    assert cloud.bob.download(image_id).body == SMALL


@pytest.mark.parametrize("then", ["registered", "patched", "replaced", "uploaded"])
def test_what_was_refused_counts_for_nothing(cloud: Cloud, www: Folder, then: str) -> None:
    """The image names the store, as with Glance, and nothing else of it; other data take its place."""
    file = new_file(www, SMALL)
    image_id = cloud.nova.new()
    wrong = {"os_hash_algo": "sha512", "os_hash_value": "beefdead" * 16}
    assert register(cloud.nova, image_id, file.url, validation_data=wrong).status == 202
    assert wait_until(lambda: cloud.nova.show(image_id)["status"] == "queued")
    image = cloud.admin.show(image_id)
    assert (image["stores"], image["locations"], image["size"]) == ("web", [], None)
    assert digests(image) == (None, None, None)
    assert "direct_url" not in image
    assert cloud.admin.ask("GET", f"/v2/images/{image_id}/locations").json() == []
    assert cloud.nova.download(image_id).status == 204
    if then == "uploaded":
        assert cloud.nova.upload(image_id, SMALL[::-1]).status == 204
    elif then == "registered":
        assert register(cloud.nova, image_id, file.url).status == 202
    elif then == "patched":
        assert cloud.nova.patch(image_id, add(file.url)).status == 200
    else:
        value = [{"url": file.url, "metadata": {}}]
        assert cloud.nova.patch(image_id, {"op": "replace", "path": "/locations", "value": value}).status == 200
    image = cloud.admin.show(image_id)
    assert (image["status"], image["stores"]) == ("active", "fast" if then == "uploaded" else "web")
    assert len(image["locations"]) == 1
    assert len(metadata(cloud, image_id)) == 1
    assert cloud.nova.download(image_id).body == (SMALL[::-1] if then == "uploaded" else SMALL)
    assert cloud.nova.delete(image_id).status == 204


def test_wrong_data_is_cut_before_its_end(cloud: Cloud, www: Folder) -> None:
    """The server says that it is the same file; at the end of a full read the digest tells that it is not."""
    file = new_file(www, LARGE)
    image_id = on_the_web(cloud, file)
    file.replace(LARGE[:-1] + b"x", secretly=True)
    assert cloud.bob.download(image_id, Range="bytes=0-9").status == 206, "no part of it can tell"
    with pytest.raises(http.client.IncompleteRead) as caught:
        cloud.bob.download(image_id)
    assert 0 < len(caught.value.partial) < len(LARGE)
    assert "wrong_since" in metadata(cloud, image_id)[0]["xloud"]
    assert "has other data than its image" in cloud.service.log
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = cloud.bob.download(image_id, **headers)
        assert answer.status == 503, "it is not asked any more"
        assert b"administrator" in answer.body
    also_in_memory(cloud, image_id, LARGE)
    assert cloud.bob.download(image_id).body == LARGE


@pytest.mark.parametrize("way", ["POST", "PATCH"])
def test_wrong_data_of_one_chunk_never_reaches_a_client(cloud: Cloud, www: Folder, way: str) -> None:
    """By the digest that is shown, or by the one that is not."""
    file = new_file(www, SMALL)
    image_id = on_the_web(cloud, file, way)
    file.replace(SMALL[::-1], secretly=True)
    assert cloud.bob.download(image_id).status == 503
    assert "wrong_since" in metadata(cloud, image_id)[0]["xloud"]


@pytest.mark.parametrize("way", ["POST", "PATCH"])
def test_registering_it_again(cloud: Cloud, www: Folder, way: str) -> None:
    file = new_file(www, SMALL)
    image_id = on_the_web(cloud, file, way)
    file.replace(SMALL[::-1], secretly=True)
    assert cloud.bob.download(image_id).status == 503

    def again(caller: Caller) -> int:
        if way == "POST":
            return register(caller, image_id, file.url).status
        return caller.patch(image_id, add(file.url)).status

    assert again(cloud.bob) == 403
    assert again(cloud.admin) == (202 if way == "POST" else 200)
    assert cloud.bob.download(image_id).status == 503, "still wrong, and found out again"
    file.replace(SMALL, secretly=False)
    assert cloud.bob.download(image_id).status == 503
    assert again(cloud.nova) == (202 if way == "POST" else 200)
    assert cloud.bob.download(image_id).body == SMALL
    file.replace(SMALL + b"!", secretly=False)
    assert again(cloud.admin) == 409, "another size is another image"
    assert len(metadata(cloud, image_id)) == 1


# reading falls back


def test_the_next_location_while_the_server_is_away(cloud: Cloud, www: Folder) -> None:
    with running(Folder(www.www, host=www.host)) as server:
        name = new_file(www, LARGE).url.rpartition("/")[2]
        image_id = cloud.nova.new(visibility="community")
        assert register(cloud.nova, image_id, f"{server.url}/{name}").status == 202
        assert hashed(cloud, image_id)
        also_in_memory(cloud, image_id, LARGE)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for pid in map(int, children):
            os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert cloud.bob.download(image_id).body == LARGE
            assert time.monotonic() - begun < quiet(12), "one answer time"
            begun = time.monotonic()
            assert cloud.bob.download(image_id, "?prefer=mem").body == LARGE
            assert time.monotonic() - begun < quiet(2.9), "the other one is not asked"
        finally:
            for pid in map(int, children):
                os.kill(pid, signal.SIGCONT)
    assert cloud.bob.download(image_id).body == LARGE
    assert cloud.bob.download(image_id, "?prefer=web", Range="bytes=5-9").body == LARGE[5:10]


def test_a_server_that_only_fails(cloud: Cloud, www: Folder) -> None:
    with running(Folder(www.www, server="location /ill/ { return 500; }", host=www.host)) as server:
        image_id = on_the_web(cloud, new_file(www, SMALL))
        (row,) = metadata(cloud, image_id)
        file = cloud.service.sections["database"]["connection"].removeprefix("sqlite:///")
        with sqlite3.connect(file, timeout=30) as connection:
            value = f"{server.url}/ill/x"
            connection.execute("UPDATE image_locations SET value = ? WHERE image_id = ?", (value, image_id))
        connection.close()
        answer = cloud.bob.download(image_id)
        assert answer.status == 503
        assert b"try again" in answer.body
        assert value.encode() not in answer.body
        assert row["store"] == "web"


# bytes that two images name


def test_bytes_of_two_images_go_with_the_last_one(cloud: Cloud) -> None:
    first = cloud.nova.new(SMALL, store="mem", visibility="community")
    url = f"memory://mem/{first}"
    second, third = cloud.nova.new(visibility="community"), cloud.nova.new()
    assert register(cloud.nova, second, url).status == 202
    assert cloud.nova.patch(third, add(url)).status == 200
    assert cloud.nova.delete(first).status == 204
    assert cloud.bob.download(second).body == SMALL
    assert cloud.nova.delete(third).status == 204
    assert cloud.bob.download(second).body == SMALL
    assert wait_until(lambda: left(cloud, first, second, third) == [])
    assert cloud.nova.delete(second).status == 204
    assert register(cloud.nova, cloud.nova.new(), url).status == 400, "nothing is there any more"


def test_bytes_of_two_images_stay_when_one_gives_up_its_location(cloud: Cloud) -> None:
    shared = cloud.nova.new(SMALL, store="mem", visibility="community")
    url = f"memory://mem/{shared}"
    image_id = cloud.admin.new(SMALL, visibility="community")
    assert cloud.admin.patch(image_id, add(url)).status == 200
    assert cloud.admin.ask("DELETE", f"/v2/stores/mem/{image_id}").status == 204
    assert cloud.bob.download(shared).body == SMALL
    assert cloud.admin.patch(image_id, add(url)).status == 200
    numbered = [place["url"] for place in cloud.admin.show(image_id)["locations"]].index(url)
    assert cloud.admin.patch(image_id, {"op": "remove", "path": f"/locations/{numbered}"}).status == 200
    assert cloud.bob.download(shared).body == SMALL
    assert cloud.nova.delete(shared).status == 204
    assert cloud.admin.patch(image_id, add(url)).status == 400, "nothing is there any more"


EVIL = qcow2(backing=0x200, backing_length=11, behind=b"/etc/passwd")


def test_dangerous_content_is_not_given_out(cloud: Cloud, www: Folder) -> None:
    """Before and after the reader of digests has been there; then for ranges too, which show only a part."""
    file, image_id = new_file(www, EVIL), cloud.nova.new(visibility="community")
    assert register(cloud.nova, image_id, file.url).status == 202
    answer = cloud.ann.download(image_id)
    assert (answer.status, b"is not given out" in answer.body) == (403, True), answer.body
    assert wait_until(lambda: "refused" in metadata(cloud, image_id)[0].get("xloud", {}))
    assert wait_until(lambda: left(cloud, image_id) == [])
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = cloud.ann.download(image_id, **headers)
        assert (answer.status, b"is not given out" in answer.body) == (403, True), answer.body
    assert cloud.admin.show(image_id)["os_hash_value"] is None
    assert "refused" not in json.dumps(cloud.admin.show(image_id))
    file.replace(qcow2(), secretly=False)
    assert register(cloud.admin, image_id, file.url).status == 202
    assert cloud.ann.download(image_id).body == qcow2()
    assert cloud.admin.delete(image_id).status == 204


def test_a_refusal_is_noted_by_whoever_meets_it_first(cloud: Cloud, www: Folder) -> None:
    """Rows of an earlier service have no digest and are read by no reader of ours."""
    file, image_id = new_file(www, EVIL), cloud.nova.new(visibility="community")
    assert register(cloud.nova, image_id, file.url).status == 202
    assert wait_until(lambda: left(cloud, image_id) == [])
    set_metadata(cloud, image_id, {})
    answer = cloud.ann.download(image_id)
    assert (answer.status, b"is not given out" in answer.body) == (403, True), answer.body
    assert "refused" in metadata(cloud, image_id)[0]["xloud"]


def test_harmless_content_is_given_out_whatever_is_claimed(cloud: Cloud, www: Folder) -> None:
    file = new_file(www, qcow2())
    image_id = on_the_web(cloud, file)
    assert cloud.ann.download(image_id).body == file.data


def test_dangerous_content_whose_digest_is_right(cloud: Cloud, www: Folder) -> None:
    file, image_id = new_file(www, EVIL), cloud.nova.new(visibility="community")
    told = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(EVIL).hexdigest()}
    assert register(cloud.nova, image_id, file.url, validation_data=told).status == 202
    assert wait_until(lambda: cloud.admin.show(image_id)["status"] == "queued")
    assert metadata(cloud, image_id) == []
