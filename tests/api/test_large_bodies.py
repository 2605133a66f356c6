"""Bodies whose length is known and that are received past aiohttp's parser: nothing of what their connection promises
changes."""

import hashlib
import itertools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import raw
from tests.conftest import ServiceFactory
from tests.servers.place import HOST, program
from tests.servers.process import answers
from tests.servers.service import Service
from xloud_image.api.connections import PIECE

STALL = 3  # client_socket_timeout, seconds
CAP = 16 * PIECE  # image_size_cap
NEXT = raw.head("GET", "/versions")
LAST = raw.head("GET", "/versions", "Connection: close")


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """The service of all tests here that do not end it."""
    made = Service({"DEFAULT": {"client_socket_timeout": STALL, "image_size_cap": CAP}})
    made.start()
    try:
        yield made
        assert made.stop() == 0
        assert "Traceback" not in made.log
    finally:
        made.kill()


def new(service: Service, disk_format: str = "raw") -> str:
    answer = service.request("POST", "/v2/images", json={"disk_format": disk_format, "container_format": "bare"})
    return str(answer.json()["id"])


def upload(image: str, size: int, *headers: str) -> bytes:
    octets = "Content-Type: application/octet-stream"
    return raw.head("PUT", f"/v2/images/{image}/file", octets, f"Content-Length: {size}", *headers)


def statuses(got: raw.Talk) -> list[int]:
    """Of all answers, in order."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d\d\d) ", got.received)]


def digest(service: Service, image: str) -> str:
    answer = service.request("GET", f"/v2/images/{image}").json()
    assert answer["status"] == "active"
    return str(answer["os_hash_value"])


def await_queued(service: Service, image: str) -> None:
    """What came of its data is gone, and it takes data again."""
    end = time.monotonic() + 20
    while (
        service.request("GET", f"/v2/images/{image}").json()["status"] != "queued"
        or list(service.images.glob(f"*{image}*"))
        or list(service.images.glob(f".{image}*"))
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7, 9 * PIECE])
def test_what_follows_a_body_is_the_next_request(one: Service, size: int) -> None:
    """All in one stream of bytes: the body begins in the segment of its headers, the next request in that of its end,
    and a second body of the same connection is received as the first."""
    bodies = [os.urandom(size), os.urandom(size + 1)]
    images = [new(one), new(one)]
    first, second = (upload(image, len(body)) + body for image, body in zip(images, bodies, strict=True))
    got = raw.say(one.port, first + NEXT + NEXT + second + LAST, seconds=60)
    assert statuses(got) == [204, 200, 200, 204, 200]
    assert got.closed is not None
    assert [digest(one, image) for image in images] == [hashlib.sha512(body).hexdigest() for body in bodies]


def test_what_follows_may_come_in_parts(one: Service) -> None:
    """The request behind the body is cut within its first line; a pause is no end of anything."""
    body = os.urandom(3 * PIECE)
    image = new(one)
    whole = upload(image, len(body)) + body + NEXT + LAST
    with socket.create_connection((HOST, one.port), timeout=20) as sock:
        cuts = [0, 100, PIECE, len(whole) - 140, len(whole) - len(LAST) - 20, len(whole) - 10, len(whole)]
        for begin, end in itertools.pairwise(cuts):
            sock.sendall(whole[begin:end])
            time.sleep(0.2)
        said = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", said) == [b"204", b"200", b"200"]
    assert digest(one, image) == hashlib.sha512(body).hexdigest()


def test_it_is_asked_for_in_large_pieces(one: Service, tmp_path: Path) -> None:
    """Only the body is; what follows on the connection is read as before."""
    image = new(one)
    (worker,) = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
    calls = tmp_path / "calls"
    traced = [program("strace", "strace"), "-e", "trace=recvfrom", "-e", "signal=none", "-o", calls, "-p", worker]
    with subprocess.Popen(traced, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        with socket.create_connection((HOST, one.port), timeout=20) as sock:
            sock.sendall(upload(image, 16 * PIECE) + bytes(16 * PIECE))
            assert b" 204 " in sock.recv(65536)
            sock.sendall(LAST)
            assert b" 200 " in sock.recv(65536)
        tracer.terminate()
    asked = [int(size) for size in re.findall(r"^recvfrom\(.*, (\d{6,}), 0, ", calls.read_text(), re.MULTILINE)]
    assert PIECE in asked
    assert asked[-1] < PIECE
    assert "GET /versions" in calls.read_text().rpartition(f", {asked[-1]}, 0, ")[0].splitlines()[-1]


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stalls"])
def test_a_client_that_stops_in_the_middle(one: Service, leaves: bool) -> None:
    image = new(one)
    begun = upload(image, 8 * PIECE) + os.urandom(3 * PIECE)
    got = raw.talk(one.port, [begun], seconds=1 if leaves else 20)
    assert got.sent == len(begun)
    if leaves:
        assert got.closed is None
    else:
        assert got.closed is not None
        assert got.closed >= STALL
    await_queued(one, image)
    assert statuses(raw.say(one.port, upload(image, 4, "Connection: close") + b"data")) == [204]


def test_a_slow_body_is_no_stalled_one(one: Service) -> None:
    image = new(one)
    body = os.urandom(2 * PIECE)
    with socket.create_connection((HOST, one.port), timeout=20) as sock:
        sock.sendall(upload(image, len(body)))
        for begin in range(0, len(body), PIECE // 2):
            sock.sendall(body[begin : begin + PIECE // 2])
            time.sleep(0.4 * STALL)
        assert b" 204 " in sock.recv(65536)
    assert digest(one, image) == hashlib.sha512(body).hexdigest()


@pytest.mark.parametrize(("disk_format", "status"), [("qcow2", 415), ("raw", 413)])
def test_a_refusal_in_the_middle(one: Service, disk_format: str, status: int) -> None:
    """One answer, and the end; the rest of the body is never taken for a request, nor is what comes behind it."""
    image = new(one, disk_format)
    body = os.urandom(CAP + PIECE) + NEXT * 100_000
    got = raw.say(one.port, upload(image, len(body)) + body + NEXT, seconds=60)
    assert statuses(got) == [status]
    assert b"Connection: close" in got.received
    assert got.closed is not None
    await_queued(one, image)
    assert statuses(raw.say(one.port, LAST)) == [200]


def test_a_refusal_at_the_end(service: ServiceFactory) -> None:
    """The whole body has come: its connection goes on."""
    one = service(environment={"XLOUD_FAILPOINTS": "upload.received=fail"})
    image = new(one)
    got = raw.say(one.port, upload(image, 4 * PIECE) + bytes(4 * PIECE) + NEXT + LAST, seconds=60)
    refused, *others = statuses(got)
    assert refused >= 500
    assert others == [200, 200]
    await_queued(one, image)


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "stalls"])
def test_a_stop_in_the_middle(service: ServiceFactory, goes_on: bool) -> None:
    """What comes within `graceful_timeout` is taken; a body that does not is given up, and nothing is left of it."""
    one = service({"xloud": {"graceful_timeout": 60 if goes_on else 5}})
    image = new(one)
    body = os.urandom(8 * PIECE)
    with socket.create_connection((HOST, one.port), timeout=60) as sock:
        sock.sendall(upload(image, len(body)) + body[: 5 * PIECE])
        end = time.monotonic() + 20
        while one.request("GET", f"/v2/images/{image}").json()["status"] != "saving":
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(one.pid, signal.SIGTERM)
        while answers(f"{one.url}/healthcheck"):
            assert time.monotonic() < end + 20
            time.sleep(0.05)
        if goes_on:
            sock.sendall(body[5 * PIECE :])
            said = sock.recv(65536)
            assert b" 204 " in said
            assert b"Connection: close" in said
        assert one.wait(60) == 0
    one.start()
    if goes_on:
        assert digest(one, image) == hashlib.sha512(body).hexdigest()
    else:
        await_queued(one, image)
