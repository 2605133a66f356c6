"""What is no HTTP, or nearly none, and clients that never finish."""

import re
import socket
import time

import pytest

from tests.api import raw
from tests.api.bad_input import CLOSE, OCTETS, STALL
from tests.servers.service import Service


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
    assert 400 <= got.status < 500 or got.status in (501, 505), got
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
