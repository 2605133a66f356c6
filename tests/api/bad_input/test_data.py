"""Uploads and downloads that lie, stall, break off or find no room."""

import contextlib
import http.client
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.api import raw
from tests.api.bad_input import STALL, new, upload
from tests.servers.client import OpenStack, command
from tests.servers.place import program
from tests.servers.service import Service


def worker(service: Service) -> int:
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


@pytest.mark.parametrize("size", ["unknown", "announced as 0"])
def test_endless_data_is_refused_after_a_megabyte(service: Service, tmp_path: Path, size: str) -> None:
    image = new(service, "qcow2")
    headers = ["Transfer-Encoding: chunked", *(["x-openstack-image-size: 0"] if size != "unknown" else [])]
    calls = tmp_path / "calls"
    strace = [program("strace", "strace"), "-f", "-e", "trace=recvfrom,recvmsg,read,sendto", "-e", "signal=none"]
    traced = [*strace, "-o", calls, "-p", str(worker(service))]
    with subprocess.Popen(traced, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        time.sleep(0.5)  # the other threads, too
        got = raw.talk(service.port, raw.endless(upload(service, image, *headers, close=False)))
        tracer.terminate()
    assert got.status == 415, got
    assert "not qcow2" in got.text
    assert "xloud-image stores check --deep" in got.text
    assert got.answered is not None
    assert got.closed is not None
    assert got.closed - got.answered < 3  # a silent client would be waited for longer
    # only the socket gives that much; what comes after the answer is thrown away until the client has read it
    before, answer, _ = calls.read_text().partition('"HTTP/1.1 415')
    assert answer
    results = re.findall(r"(?:recvfrom|recvmsg|read)\(.* = (\d+)$", before, re.MULTILINE)
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
    words = [*command("glance"), "--os-auth-token", "any", "--os-image-url", service.url]
    words += "image-create --disk-format qcow2 --container-format bare --file /dev/zero".split()
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
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
