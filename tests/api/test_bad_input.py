"""What bad, broken and hostile requests get: an answer of 4xx with a sentence, soon, and nothing is left of them.

Against the real service, by raw sockets and by the real clients.
"""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api import raw
from tests.servers.client import OpenStack
from tests.servers.place import environment, program
from tests.servers.service import Service
from tests.stores import mounts

OCTETS = "Content-Type: application/octet-stream"
CLOSE = "Connection: close"
STALL = 2  # client_socket_timeout of the service below, seconds


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests here, because each must leave it as it was: with a store `small` of 4 MiB where mounts can be
    made."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("small")
        stack.enter_context(mounts.tmpfs(folder, "4m"))
        one = Service(
            {
                "DEFAULT": {"enabled_backends": "files:file,small:file", "client_socket_timeout": STALL},
                "small": {"filesystem_store_datadir": folder},
            }
        )
        one.start()
        stack.callback(one.kill)
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log


@pytest.fixture(autouse=True)
def _nothing_is_left(service: Service) -> Iterator[None]:
    """No data, no temporary file, no image in the middle of something; and it goes on serving."""
    yield
    deadline = time.monotonic() + 5
    folders = [service.images, Path(service.sections["small"]["filesystem_store_datadir"])]
    while (left := [str(path) for folder in folders for path in folder.rglob("*")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    images = service.request("GET", "/v2/images?limit=1000").json()["images"]
    assert {image["status"] for image in images} <= {"queued"}
    for image in images:
        assert service.request("DELETE", f"/v2/images/{image['id']}").status == 204


def new(service: Service, disk_format: str = "raw", **fields: Any) -> str:
    """The id of a queued image."""
    body = {"disk_format": disk_format, "container_format": "bare", **fields}
    answer = service.request("POST", "/v2/images", json=body)
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


def upload(service: Service, image: str, *headers: str, close: bool = True) -> bytes:
    """The head of an upload."""
    return raw.head("PUT", f"/v2/images/{image}/file", OCTETS, *headers, *([CLOSE] if close else []))


# data that is not what it says


def worker(service: Service) -> int:
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


@pytest.mark.parametrize("size", ["unknown", "announced as 0"])
def test_endless_data_is_refused_after_a_megabyte(service: Service, tmp_path: Path, size: str) -> None:
    image = new(service, "qcow2")
    headers = ["Transfer-Encoding: chunked", *(["x-openstack-image-size: 0"] if size != "unknown" else [])]
    calls = tmp_path / "calls"
    strace = [program("strace", "strace"), "-f", "-qq", "-e", "trace=recvfrom,recvmsg,read", "-e", "signal=none"]
    with subprocess.Popen([*strace, "-o", calls, "-p", str(worker(service))]) as tracer:
        time.sleep(1)
        got = raw.talk(service.port, raw.endless(upload(service, image, *headers, close=False)))
        tracer.terminate()
    assert got.status == 415, got
    assert "not qcow2" in got.text
    assert "xloud-image stores check --deep" in got.text
    assert got.answered is not None
    assert got.closed is not None
    assert got.closed - got.answered < 1
    # only the socket gives that much
    results = re.findall(r"(?:recvfrom|recvmsg|read)\(.* = (\d+)$", calls.read_text(), re.MULTILINE)
    taken = [int(found) for found in results]
    assert 0x10000 <= sum(taken) <= 1 << 20


def test_the_openstack_client_prints_why_endless_data_was_refused(service: Service, openstack: OpenStack) -> None:
    openstack.add_without_login("cloud", service.url)
    words = "image create --disk-format qcow2 --container-format bare --file /dev/zero zeros".split()
    result = openstack.try_run(*words, cloud="cloud", seconds=60)
    assert result.code == 1
    assert "415" in result.stderr
    assert "not qcow2" in result.stderr


def test_the_glance_client_prints_why_endless_data_was_refused(service: Service) -> None:
    command = [environment(".venv-client", "glance"), "--os-auth-token", "any", "--os-image-url", service.url]
    words = "image-create --disk-format qcow2 --container-format bare --file /dev/zero".split()
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "415" in done.stderr
    assert "not qcow2" in done.stderr


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 5", "x-openstack-image-size: 6"], b"12345"),
        (["Transfer-Encoding: chunked", "x-openstack-image-size: 6"], b"5\r\n12345\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked", "x-openstack-image-size: 4"], b"5\r\n12345\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked", "x-openstack-image-size: 4"], b"100000\r\n" + bytes(1 << 20) + b"\r\n"),
        (["Content-Length: 5", "x-openstack-image-size: six"], b"12345"),
        (["Content-Length: 5", "x-openstack-image-size: -5"], b"12345"),
    ],
    ids=["length and size differ", "too few", "too many", "far too many", "no number", "negative"],
)
def test_other_than_the_announced_size(service: Service, headers: list[str], body: bytes) -> None:
    image = new(service)
    got = raw.say(service.port, upload(service, image, *headers) + body)
    assert got.status == 400, got
    assert "announce" in got.text or "number of bytes" in got.text
    assert got.closed is not None


def test_a_client_that_leaves_in_the_middle(service: Service) -> None:
    image = new(service)
    got = raw.talk(service.port, [upload(service, image, "Content-Length: 1000000") + bytes(1000)], seconds=0.5)
    assert got.closed is None  # it was we who closed
    # the image can be given its data again
    for _ in range(50):
        if service.request("GET", f"/v2/images/{image}").json()["status"] == "queued":
            break
        time.sleep(0.1)
    answer = service.request(
        "PUT", f"/v2/images/{image}/file", body=b"data", headers={"content-type": "application/octet-stream"}
    )
    assert answer.status == 204
    assert service.request("DELETE", f"/v2/images/{image}").status == 204


def test_a_client_that_stalls_is_cut(service: Service) -> None:
    image = new(service)
    got = raw.talk(service.port, [upload(service, image, "Content-Length: 1000000") + bytes(1000)], seconds=10)
    assert got.closed is not None
    assert STALL <= got.closed < STALL + 3


def test_a_client_that_takes_nothing_is_cut(service: Service) -> None:
    image = new(service)
    octets = {"content-type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image}/file", body=bytes(64 << 20), headers=octets)
    assert answer.status == 204, answer.body
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/images/{image}/file")
        answer_head = connection.getresponse()
        time.sleep(STALL + 3)
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := answer_head.read(1 << 20):
                received += data
    assert len(received) < 64 << 20
    # no answer of an error hides in the data
    assert not received.strip(b"\0")
    assert service.request("DELETE", f"/v2/images/{image}").status == 204


def test_a_full_disk(service: Service) -> None:
    for sized in (True, False):
        image = new(service)
        size = f"Content-Length: {8 << 20}" if sized else "Transfer-Encoding: chunked"
        first = upload(service, image, size, "X-Image-Meta-Store: small")
        got = raw.talk(service.port, [first, bytes([1]) * (8 << 20)] if sized else raw.endless(first))
        assert got.status == 413, got
        assert "small" in got.text
        assert service.request("GET", f"/v2/images/{image}").json()["status"] == "queued"


def test_other_media_types_and_encodings(service: Service) -> None:
    image = new(service)
    for headers in ({}, {"content-type": "application/json"}, {"content-type": "text/plain"}):
        assert service.request("PUT", f"/v2/images/{image}/file", body=b"x", headers=headers).status == 415
    headers = {"content-type": "application/octet-stream", "content-encoding": "gzip"}
    assert service.request("PUT", f"/v2/images/{image}/file", body=b"x", headers=headers).status == 415


# bodies of JSON

PATCH = "application/openstack-images-v2.1-json-patch"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"7", 400),
        (b"{", 400),
        (b'{"name": NaN}', 400),
        (b'{"name": "\xff\xfe"}', 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": "a\\u0000b"}', 201),
        ('{"name": "\U0001f4bf"}'.encode(), 201),
        ('{"\U0001f4bf": "\U0001f4bf", "tags": ["\U0001f4bf"]}'.encode(), 201),
        (b'{"name": "' + b"x" * 256 + b'"}', 400),
        (b'{"' + b"x" * 256 + b'": "y"}', 400),
        (b'{"": "y"}', 400),
        (b'{"min_disk": 1e400}', 400),
        (b'{"min_disk": 1.5}', 400),
        (b'{"min_disk": ' + b"9" * 5000 + b"}", 400),
        (b'{"min_ram": true}', 400),
        (b'{"a": {"b": "c"}}', 400),
        (b'{"a": 5}', 400),
        (b'{"a": null}', 400),
        (b'{"id": "../../etc/passwd"}', 400),
        (b'{"id": "' + b"0" * 36 + b'"}', 400),
        (b'{"tags": "a"}', 400),
        (b'{"tags": [1]}', 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
        (b"[" * 50000 + b"]" * 50000, 400),
    ],
    ids=lambda value: str(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_bodies_of_a_new_image(service: Service, body: bytes, status: int) -> None:
    answer = service.request("POST", "/v2/images", body=body, headers={"accept": "application/json"})
    assert answer.status == status, answer
    if status == 400:
        assert answer.json()["message"]
    else:
        given, made = json.loads(body), answer.json()
        assert {name: made[name] for name in given} == given
        assert service.request("GET", f"/v2/images/{made['id']}").json()["name"] == given.get("name")


def test_a_huge_body(service: Service) -> None:
    length = 100 << 20
    for sized in (True, False):
        headers = [f"Content-Length: {length}"] if sized else ["Transfer-Encoding: chunked"]
        first = raw.head("POST", "/v2/images", "Content-Type: application/json", *headers)
        got = raw.talk(service.port, _zeros(first, length) if sized else raw.endless(first))
        assert got.status == 413, got
        assert got.closed is not None
        assert got.closed < 3
        assert got.sent < length


def _zeros(first: bytes, length: int) -> Iterator[bytes]:
    yield first
    for _ in range(length >> 16):
        yield b" " * (1 << 16)


@pytest.mark.parametrize(
    "body",
    [
        {"op": "add", "path": "/a", "value": "b"},
        ["add"],
        [{"op": "move", "from": "/a", "path": "/b"}],
        [{"op": "add", "path": "a", "value": "b"}],
        [{"op": "add", "path": "/", "value": "b"}],
        [{"op": "add", "path": "/a/b", "value": "c"}],
        [{"op": "add", "path": "/~2", "value": "c"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "path": "/" + "x" * 256, "value": "c"}],
        [{"op": "add", "path": "/tags/-", "value": "c"}],
        [{"op": "replace", "path": "/min_disk", "value": "many"}],
        [{"op": "replace", "path": "/visibility", "value": "secret"}],
        [{"op": "add", "path": "/a", "value": "b"}] * 10001,
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_patches(service: Service, body: Any) -> None:
    image = new(service)
    answer = service.request(
        "PATCH", f"/v2/images/{image}", body=json.dumps(body).encode(), headers={"content-type": PATCH}
    )
    assert answer.status in {400, 413}, answer
    assert answer.body
    assert service.request("GET", f"/v2/images/{image}").json().get("a") is None


def test_a_patch_of_another_media_type(service: Service) -> None:
    image = new(service)
    answer = service.request("PATCH", f"/v2/images/{image}", json=[])
    assert answer.status == 415
    assert PATCH in answer.headers["accept-patch"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/images"),
        ("GET", "/v2/images/{id}"),
        ("DELETE", "/v2/images/{id}"),
        ("POST", "/v2/images/{id}/actions/deactivate"),
        ("PUT", "/v2/images/{id}/tags/a"),
        ("GET", "/v2/schemas/image"),
        ("GET", "/v2/info/stores"),
        ("GET", "/versions"),
    ],
)
def test_a_body_where_none_belongs(service: Service, method: str, path: str) -> None:
    image = new(service)
    target = path.replace("{id}", image)
    assert service.request(method, target, body=b"{}").status == 400
    assert service.request(method, target, body=iter([b"{}"])).status == 400
    assert service.request("GET", f"/v2/images/{image}").status == 200
    # an empty body is none
    assert raw.say(service.port, raw.head("GET", "/versions", "Content-Length: 0", CLOSE)).status == 200


# paths


TRICKS = (
    "..", "../..", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f", "%00", "a%00b", "%0d%0aX:%20y", "%ff", "%zz",
    "'%20OR%201=1--", "00000000-0000-0000-0000-00000000000", "00000000-0000-0000-0000-0000000000000",
    "\u0660" * 8 + "-0000-0000-0000-000000000000",
    "x" * 5000, "~root", "$(id)", "{image_id}", ".", "%F0%9F%92%BF",
)  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS, ids=lambda text: ascii(text[:20]))
def test_tricks_in_ids_and_names_find_nothing(service: Service, trick: str) -> None:
    trick = "".join(char if char.isascii() else "".join(f"%{byte:02x}" for byte in char.encode()) for char in trick)
    image = new(service)
    here, nowhere = f"/v2/images/{image}", "00000000-0000-0000-0000-000000000000"
    calls = [
        ("GET", f"/v2/images/{trick}/members/a", {404}),
        ("GET", f"/v2/images/{trick}/file", {404}),
        ("DELETE", f"/v2/images/{trick}/tags/a", {404}),
        ("GET", f"{here}/members/{trick}", {404} if trick not in {".", ".."} else {200, 403, 404}),
        ("GET", f"/v2/schemas/{trick}", {404}),
        # 409 is the answer to the name of a store that does not exist
        ("DELETE", f"/v2/stores/{trick}/{nowhere}", {404, 409}),
        ("DELETE", f"/v2/stores/files/{trick}", {404}),
        ("GET", f"/{trick}", {404} if trick not in {".", ".."} else {300, 404}),
    ]
    for method, path, statuses in calls:
        got = raw.say(service.port, raw.head(method, path, CLOSE))
        assert got.status in statuses, (method, path, got)
        assert got.received.count(b"HTTP/1.1") == 1
        assert "\0" not in got.text


def test_tricks_in_the_names_of_stores(service: Service) -> None:
    for trick in ("..%2f..", "%00", "a%2fb", "..%5c..", "x" * 5000):
        got = raw.say(
            service.port, raw.head("DELETE", f"/v2/stores/{trick}/{'0' * 8}-0000-0000-0000-{'0' * 12}", CLOSE)
        )
        assert got.status in {404, 409}
    image = new(service)
    for trick in ("../files", "small/../files", "nowhere", "", "\u00e9", "files,small", "x" * 5000):
        got = raw.say(
            service.port, upload(service, image, f"X-Image-Meta-Store: {trick}", "Content-Length: 4") + b"data"
        )
        assert got.status == 400, (trick, got)


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=many", "limit=1e3", "limit=%00", "marker=nobody", "marker=%00", "marker=" + "x" * 3000,
        "sort=name:up", "sort=owner", "sort_key=name&sort_key=name", "sort=name&sort_key=name", "sort_dir=up",
        "visibility=secret", "member_status=maybe", "os_hidden=perhaps", "protected=TRUE", "status=gt:a",
        "id=in:%22a", "created_at=today", "created_at=xy:2020-01-01T00:00:00Z", "updated_at=gt:9999-99-99",
        "size_min=a", "min_ram_max=1.5", "size=" + "9" * 30, "changes-since=2020-01-01T00:00:00Z", "a=%00", "%00=a",
        "size_min=", "created_at=0001-01-01T00:00:00%2B23:59",
    ],
)  # fmt: skip
def test_questions_that_make_no_sense(service: Service, query: str) -> None:
    answer = service.request("GET", f"/v2/images?{query}", headers={"accept": "application/json"})
    assert answer.status == 400, answer
    assert answer.json()["message"]


@pytest.mark.parametrize(
    "query",
    ["name=%F0%9F%92%BF", "tag=%F0%9F%92%BF", "%F0%9F%92%BF=%F0%9F%92%BF", "name=%ff", "limit=99999999", "=", "&&&"],
)
def test_odd_questions_have_answers(service: Service, query: str) -> None:
    assert service.request("GET", f"/v2/images?{query}").status in {200, 400}


# methods


def test_methods_that_a_path_does_not_have(service: Service) -> None:
    image = new(service)
    for method, path, allowed in (
        ("PUT", "/v2/images", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", f"/v2/images/{image}", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
        ("PATCH", f"/v2/images/{image}/file", {"GET", "HEAD", "OPTIONS", "PUT"}),
        ("TRACE", "/v2/images", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("DELETE", "/versions", {"GET", "HEAD", "OPTIONS"}),
        ("LOCK", f"/v2/images/{image}", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
    ):
        answer = service.request(method, path)
        assert answer.status == 405, (method, path, answer)
        assert set(answer.headers["allow"].split(", ")) == allowed


def test_options(service: Service) -> None:
    answer = service.request("OPTIONS", "/v2/images")
    assert answer.status == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert service.request("OPTIONS", "/v2/nothing").status == 404


def test_what_is_not_built_says_so(service: Service) -> None:
    for path in ("/v2/tasks", "/v2/metadefs/namespaces", "/v2/cache", "/v2/cached_images"):
        answer = service.request("GET", path)
        assert answer.status == 404
        assert b"not offered" in answer.body


# what is no HTTP, or nearly none


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /versions HTTP/1.1\nHost: image\n\n",
        b"GET /versions HTTP/1.1\r\n\r\n",
        b"GET /versions HTTP/1.1\r\nHost: image\r\nX: a\0b\r\n\r\n",
        b"GET /versions HTTP/1.1\r\nHost: image\r\n X: folded\r\n\r\n",
        b"BREW /v2/images HTTP/1.1\r\nHost: image\r\n\r\n",
        b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: image\r\n\r\n",
        b"GET /versions HTTP/1.1\r\nHost: image\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /versions HTTP/1.1\r\nHost: image\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        raw.head("POST", "/v2/images", "Content-Length: 2", "Content-Length: 3") + b"{}x",
        raw.head("POST", "/v2/images", "Content-Length: 2", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
        raw.head("POST", "/v2/images", "Content-Length: -2") + b"{}",
        raw.head("POST", "/v2/images", "Content-Length: 0x2") + b"{}",
        raw.head("POST", "/v2/images", "Transfer-Encoding: gzip") + b"{}",
        raw.head("POST", "/v2/images", "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        raw.head("POST", "/v2/images", "Transfer-Encoding: chunked") + b"-2\r\n{}\r\n0\r\n\r\n",
        raw.head("POST", "/v2/images", "Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
        raw.head("GET", "/versions", "x-openstack-request-id: " + "r" * 65, CLOSE),
    ],
    ids=lambda data: ascii(data[:40]),
)
def test_what_is_no_request_is_answered_and_cut(service: Service, data: bytes) -> None:
    got = raw.say(service.port, data)
    assert 400 <= got.status < 500, got
    assert got.closed is not None
    assert got.closed < STALL + 1
    assert "aiohttp" not in got.text
    assert "x-openstack-request-id: req-" in got.text


def test_nothing_of_what_is_no_request_is_in_the_log(service: Service) -> None:
    secret = "do-not-log-me"
    got = raw.say(service.port, raw.head("GET", "/v2/images", f"X-Auth-Token: {secret}" + "\0"))
    assert got.status == 400
    got = raw.say(service.port, raw.head("GET", "/v2/images", f"X-Auth-Token: {secret}" + "y" * 100_000))
    assert got.status == 431
    assert secret not in service.log


def test_requests_in_a_row_are_answered_in_order(service: Service) -> None:
    paths = ["/versions", "/healthcheck", "/v2/images", "/v2/nothing"] * 20
    data = b"".join(raw.head("GET", path) for path in paths) + raw.head("GET", "/versions", CLOSE)
    got = raw.say(service.port, data)
    found = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) [A-Z]", got.received)]
    assert found == [200, 200, 200, 404] * 20 + [200]


def test_a_request_after_one_with_a_wrong_length_is_not_smuggled(service: Service) -> None:
    """What follows an unread body is never taken as a request."""
    inner = raw.head("DELETE", "/v2/images/x")
    for first in (
        raw.head("GET", "/v2/images", f"Content-Length: {len(inner)}"),
        raw.head("PUT", "/v2/images/none/file", OCTETS, f"Content-Length: {len(inner)}"),
    ):
        got = raw.say(service.port, first + inner, seconds=STALL + 3)
        assert got.received.count(b"HTTP/1.1 ") == 1, got


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /versions HT",
        b"GET /versions HTTP/1.1\r\nHost: image\r\nX: ",
        raw.head("GET", "/healthcheck") + b"GET /versions HTTP/1.1\r\nX: ",
    ],
    ids=["nothing", "a part of a line", "a part of a header", "a second request"],
)
def test_headers_that_never_end(service: Service, first: bytes) -> None:
    for parts in ([first], raw.drip(first, b"a")):
        got = raw.talk(service.port, parts, seconds=STALL + 4)
        assert got.closed is not None
        assert got.closed < STALL + 3


def test_a_client_that_reads_no_answer_is_cut(service: Service) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", service.port))
        sock.settimeout(1)
        questions = raw.head("GET", "/v2/schemas/image") * 1000
        with pytest.raises(TimeoutError):  # the service answers no more, so it reads no more
            _send_often(sock, questions, 1000)
        time.sleep(STALL + 3)
        with pytest.raises(ConnectionError):
            _send_often(sock, b"x", 5, pause=0.2)


def _send_often(sock: socket.socket, data: bytes, count: int, pause: float = 0) -> None:
    for _ in range(count):
        sock.sendall(data)
        time.sleep(pause)


def test_small_bodies_that_never_end(service: Service) -> None:
    first = raw.head("POST", "/v2/images", "Content-Length: 1000") + b"{"
    got = raw.talk(service.port, raw.drip(first, b" "), seconds=STALL + 5)
    assert got.status == 400
    assert got.closed is not None
    assert got.closed < STALL + 4
