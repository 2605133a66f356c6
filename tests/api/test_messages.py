"""What a header says about the message itself is obeyed or refused (RFC 9110, RFC 9112), however it is written."""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api import raw
from tests.load import quiet
from tests.servers.service import Service

ORIGIN = "http://dashboard.example"
DATA = bytes(range(250)) * 4
_OCTETS = "Content-Type: application/octet-stream"
_THREE = "Content-Length: 3"
_CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    one = Service({"cors": {"allowed_origin": ORIGIN}})
    one.start()
    yield one
    code = one.stop()
    assert code == 0
    assert "Traceback" not in one.log


def new(service: Service, **more: Any) -> str:
    body = {"name": "m", "disk_format": "raw", "container_format": "bare", **more}
    image: str = service.request("POST", "/v2/images", json=body).json()["id"]
    return image


@pytest.fixture(scope="module")
def filled(service: Service) -> str:
    """An image with DATA."""
    image = new(service)
    headers = {"Content-Type": "application/octet-stream"}
    assert service.request("PUT", f"/v2/images/{image}/file", body=DATA, headers=headers).status == 204
    return image


# uploads: the headers, the body, the answer; whatever is not 204 leaves the image queued

UPLOADS: list[tuple[list[str], bytes, int]] = [
    ([_THREE], b"abc", 204),
    (["Transfer-Encoding: chunked"], _CHUNKED, 204),
    (["Transfer-Encoding: CHUNKED"], _CHUNKED, 204),
    # a part is not the whole
    ([_THREE, "Content-Range: bytes 5-7/10"], b"abc", 400),
    ([_THREE, "content-range: bytes 0-2/3"], b"abc", 400),
    ([_THREE, "Content-Range: bytes 0-2/*"], b"abc", 400),
    ([_THREE, "Content-Range: lines 0-2/3"], b"abc", 400),
    ([_THREE, "Content-Range:"], b"abc", 400),
    ([_THREE, "Content-Range: bytes 0-2/3", "Content-Range: bytes 0-2/3"], b"abc", 400),
    # codings that are not undone
    (["Transfer-Encoding: gzip, chunked"], _CHUNKED, 501),
    (["Transfer-Encoding: x-foo, chunked"], _CHUNKED, 501),
    (["Transfer-Encoding: x-foo,chunked"], _CHUNKED, 501),
    (["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], _CHUNKED, 400),
    (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], _CHUNKED, 400),
    (["Transfer-Encoding: chunked, chunked"], _CHUNKED, 400),
    (["Transfer-Encoding: chunked, gzip"], _CHUNKED, 400),
    (["Transfer-Encoding: gzip"], b"abc", 400),
    (["Transfer-Encoding: identity"], b"", 400),
    (["Transfer-Encoding: chunked;q=1"], _CHUNKED, 400),
    (["Transfer-Encoding:", _THREE], b"abc", 501),
    ([_THREE, "Content-Encoding: gzip"], b"abc", 415),
    ([_THREE, "Content-Encoding: identity, gzip"], b"abc", 415),
    ([_THREE, "Content-Encoding: identity", "Content-Encoding: gzip"], b"abc", 400),
    ([_THREE, "Content-Encoding: identity"], b"abc", 204),
    # two readings of where a message ends
    ([_THREE, "Transfer-Encoding: chunked"], _CHUNKED, 400),
    (["Transfer-Encoding: chunked", _THREE], _CHUNKED, 400),
    ([_THREE, _THREE], b"abc", 400),
    ([_THREE, "Content-Length: 4"], b"abcd", 400),
    (["Content-Length: 3, 3"], b"abc", 400),
    (["Content-Length: +3"], b"abc", 400),
    (["Content-Length: -3"], b"abc", 400),
    (["Content-Length: 0x3"], b"abc", 400),
    (["Content-Length: 3 3"], b"abc", 400),
    (["Content-Length: " + "9" * 30], b"abc", 400),
    (["Content-Length : 3"], b"abc", 400),
    (["Content-Length:\r\n 3"], b"abc", 400),
    ([_THREE, "X: a\r\n b"], b"abc", 400),
    ([_THREE, "X: a\nY: b"], b"abc", 400),
    ([_THREE, "X: a\rY: b"], b"abc", 400),
    ([_THREE, "X: a\0b"], b"abc", 400),
    ([_THREE, "X y: a"], b"abc", 400),
    ([_THREE, ": a"], b"abc", 400),
    (["Transfer-Encoding: chunked"], b"-3\r\nabc\r\n0\r\n\r\n", 400),
    (["Transfer-Encoding: chunked"], b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    (["Transfer-Encoding: chunked"], b"3\nabc\n0\n\n", 400),
    (["Transfer-Encoding: chunked"], b"3 \r\nabc\r\n0\r\n\r\n", 400),
    (["Transfer-Encoding: chunked"], b"3\r\nabcd\r\n0\r\n\r\n", 400),
    (["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400),
    (["Transfer-Encoding: chunked"], b"3;a=b\r\nabc\r\n0\r\n\r\n", 204),
    (["Transfer-Encoding: chunked", "Trailer: X"], b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", 204),
    (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 400),
    # conditions
    ([_THREE, 'If-Match: "other"'], b"abc", 412),
    ([_THREE, "If-Match: *"], b"abc", 412),
    ([_THREE, 'If-Match: "a"', 'If-Match: "b"'], b"abc", 412),
    ([_THREE, "If-None-Match: *"], b"abc", 204),
    ([_THREE, "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], b"abc", 412),
    ([_THREE, "If-Unmodified-Since: no date"], b"abc", 204),
    ([_THREE, "If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], b"abc", 204),
    # expectations
    ([_THREE, "Expect: 200-ok"], b"abc", 417),
    ([_THREE, "Expect: 100-continue, 200-ok"], b"abc", 417),
    ([_THREE, "Expect: 100-continue", "Expect: 200-ok"], b"abc", 400),
    # who is asked, and by which kind of body
    ([_THREE, "Host: other"], b"abc", 400),
    ([_THREE, "Content-Type: text/plain"], b"abc", 400),
    ([_THREE, "X-Image-Meta-Store: files", "X-Image-Meta-Store: other"], b"abc", 400),
    ([_THREE, "X-Auth-Token: a", "X-Auth-Token: b"], b"abc", 400),
    # what may be passed over, and changes nothing
    ([_THREE, "Range: bytes=0-0"], b"abc", 204),
    ([_THREE, 'If-Range: "x"'], b"abc", 204),
    ([_THREE, "TE: trailers, gzip", "Connection: TE"], b"abc", 204),
    ([_THREE, "Upgrade: h2c", "Connection: upgrade"], b"abc", 204),
    ([_THREE, "Upgrade: websocket", "Connection: upgrade"], b"abc", 204),
    (["Transfer-Encoding: chunked", "Upgrade: foo/2", "Connection: upgrade"], _CHUNKED, 204),
    ([_THREE, "Max-Forwards: 0"], b"abc", 204),
    ([_THREE, "Connection: content-length"], b"abc", 204),
]


def test_uploads(service: Service) -> None:
    wrong = []
    for headers, body, wanted in UPLOADS:
        image = new(service)
        head = raw.head("PUT", f"/v2/images/{image}/file", _OCTETS, "Connection: close", *headers)
        answer = raw.say(service.port, head + body, seconds=20)
        shown = service.request("GET", f"/v2/images/{image}").json()
        state = (shown["status"], shown["size"])
        if answer.status != wanted or state != (("active", 3) if wanted == 204 else ("queued", None)):
            wrong.append((headers, body[:40], wanted, answer.status, state))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_gzipped_description_is_refused_by_its_coding(service: Service) -> None:
    answer = service.request("POST", "/v2/images", body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize(
    ("method", "path", "header", "wanted"),
    [
        ("PATCH", "", 'If-Match: "x"', 412),
        ("DELETE", "", 'If-Match: "x"', 412),
        ("DELETE", "", "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT", 412),
        ("PATCH", "", "If-Unmodified-Since: Fri, 31 Dec 9999 23:59:59 -0100", 415),
        ("DELETE", "", "If-None-Match: *", 412),
        ("PUT", "/tags/a", 'If-Match: "x"', 412),
        ("PUT", "/tags/a", "If-Match: *", 204),
        ("PUT", "/tags/a", 'If-None-Match: "x"', 204),
        ("PUT", "/tags/a", "Content-Range: bytes 0-0/1", 400),
        ("GET", "", 'If-Match: "x"', 412),
        ("GET", "", "If-Match: *", 200),
        ("GET", "", 'If-None-Match: "x"', 200),
        ("GET", "", "If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT", 200),
        ("GET", "", "Range: bytes=0-1", 200),
        ("GET", "", "Expect: 200-ok", 417),
        ("GET", "", "Origin: http://\xff", 200),
        ("GET", "", "X-Openstack-Request-Id: \xff", 200),
    ],
)
def test_conditions_of_descriptions(service: Service, method: str, path: str, header: str, wanted: int) -> None:
    image = new(service)
    answer = raw.say(
        service.port, raw.head(method, f"/v2/images/{image}{path}", header, "Connection: close"), seconds=20
    )
    assert answer.status == wanted
    assert service.request("GET", f"/v2/images/{image}").status == 200


# downloads: headers, status, how many bytes (None: no matter)

DOWNLOADS: list[tuple[str, list[str], int, int | None]] = [
    ("GET", [], 200, 1000),
    ("GET", ["Range: bytes=0-9"], 206, 10),
    ("GET", ["Range: Bytes=0-9"], 206, 10),
    ("GET", ["range: BYTES= 0 - 9 "], 206, 10),
    ("GET", ["Range: bytes=-5"], 206, 5),
    ("GET", ["Range: items=0-9"], 200, 1000),
    ("GET", ["Range: items=0-9,20-30"], 200, 1000),
    ("GET", ["Range: bytes=1000-"], 416, None),
    ("GET", ["Range: bytes=0-1,5-6"], 400, None),
    ("GET", ["Range: bytes=0-1", "Range: bytes=5-6"], 400, None),
    ("GET", ["Range: nothing"], 416, None),
    ("HEAD", ["Range: bytes=0-9"], 200, 1000),
    ("HEAD", ["Range: bytes=5000-"], 200, 1000),
    ("GET", ["Content-Range: bytes 990-999/1000"], 206, 10),
    ("GET", ["Content-Range: bytes 990-999/*"], 206, 10),
    ("GET", ["Content-Range: bytes 990-1005/1000"], 416, None),
    ("GET", ["Content-Range: bytes 990-1005/*"], 416, None),
    ("GET", ["Content-Range: bytes 0-9/999"], 416, None),
    ("GET", ['If-Match: "other"'], 412, None),
    ("GET", ['If-Match: "other", ETAG'], 200, 1000),
    ("GET", ['If-Match: "other"', "If-Match: ETAG"], 200, 1000),
    ("GET", ["If-Match: W/ETAG"], 412, None),
    ("GET", ["If-Match: *"], 200, 1000),
    ("HEAD", ['If-Match: "other"'], 412, None),
    ("GET", ["If-None-Match: ETAG"], 304, None),
    ("GET", ["If-None-Match: W/ETAG"], 304, None),
    ("GET", ['If-None-Match: "other"', "If-None-Match: ETAG"], 304, None),
    ("GET", ["If-None-Match: *"], 304, None),
    ("GET", ['If-None-Match: "other"'], 200, 1000),
    ("GET", ["If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"], 304, None),
    ("GET", ["If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], 200, 1000),
    ("GET", ["If-Modified-Since: nonsense"], 200, 1000),
    ("GET", ["If-Modified-Since: Fri, 31 Dec 9999 23:59:59 -0100"], 200, 1000),
    ("GET", ["If-Unmodified-Since: Fri, 31 Dec 9999 23:59:59 -0100"], 200, 1000),
    ("GET", ['If-None-Match: "other"', "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"], 200, 1000),
    ("GET", ["If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], 412, None),
    ("GET", ["If-Unmodified-Since: Fri, 01 Jan 2100 00:00:00 GMT"], 200, 1000),
    ("GET", ["If-Match: ETAG", "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], 200, 1000),
    ("GET", ["Range: bytes=0-9", "If-Range: ETAG"], 206, 10),
    ("GET", ["Range: bytes=0-9", 'If-Range: "other"'], 200, 1000),
    ("GET", ["Range: bytes=0-9", "If-Range: W/ETAG"], 200, 1000),
    ("GET", ["Range: bytes=0-9", "If-Range: Fri, 01 Jan 2100 00:00:00 GMT"], 200, 1000),
    ("GET", ["Range: bytes=0-9", "If-Range: ETAG", 'If-Range: "other"'], 400, None),
    ("GET", ["If-Range: ETAG"], 200, 1000),
]


def test_downloads(service: Service, filled: str) -> None:
    path = f"/v2/images/{filled}/file"
    tag = service.request("HEAD", path).headers["etag"]
    wrong = []
    for method, headers, wanted, count in DOWNLOADS:
        sent = [header.replace("ETAG", tag) for header in headers]
        answer = raw.say(service.port, raw.head(method, path, *sent, "Connection: close"), seconds=20)
        head, _, body = answer.received.partition(b"\r\n\r\n")
        fields = {line.partition(b":")[0].lower(): line.partition(b":")[2] for line in head.splitlines()[1:]}
        length = int(fields.get(b"content-length", b"0"))
        if answer.status != wanted or (count is not None and (length, len(body)) != (count, count * (method == "GET"))):
            wrong.append((method, headers, wanted, count, answer.status, length, len(body)))
    assert not wrong, "\n".join(map(str, wrong))


REQUEST_LINES: list[tuple[bytes, int]] = [
    (b"CONNECT image:80 HTTP/1.1\r\nHost: a", 501),
    (b"TRACE /v2/images HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0", 501),
    (b"PROPFIND /v2/images HTTP/1.1\r\nHost: a", 501),
    (b"PROPFIND /nothing HTTP/1.1\r\nHost: a", 501),
    (b"FOO /v2/images HTTP/1.1\r\nHost: a", 501),
    (b"get /v2/images HTTP/1.1\r\nHost: a", 501),
    (b"POST /versions HTTP/1.1\r\nHost: a\r\nContent-Length: 0", 405),
    (b"OPTIONS * HTTP/1.1\r\nHost: a", 204),
    (b"GET http://other.example:1/v2/images HTTP/1.1\r\nHost: a", 200),
    (b"GET /v2/images HTTP/1.0", 200),
    (b"GET /v2/images HTTP/1.1", 400),
    (b"GET /v2/images HTTP/2.0\r\nHost: a", 505),
    (b"GET /v2/images HTTP/0.9", 505),
    (b"GET /v2/images HTTP/1.2\r\nHost: a", 400),
    (b"GET /versions HTTP/1.1\r\nHost: \xff\xfe", 400),
    (b"GET /healthcheck HTTP/1.1\r\nHost: \xff\xfe", 400),
    (b"GET /versions HTTP/1.1\r\nHost: a/b", 400),
    (b"GET /versions HTTP/1.1\r\nHost: a b", 400),
    (b"GET /versions HTTP/1.1\r\nHost: a\r\nHost: a", 400),
    (b"GET /versions HTTP/1.1\r\nHost: " + b"a" * 300, 400),
    (b"GET /versions HTTP/1.1\r\nHost: [2001:db8::1]:9292", 200),
    (b"GET /versions HTTP/1.1\r\nHost: a\r\nForwarded: for=\xff;host=\xff", 200),
    (b"GET /versions HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: \xff", 200),
    (b"POST /v2/images HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
    (b"\x16\x03\x01\x02", 400),
    (b"\x00\x01", 400),
]


def test_request_lines(service: Service) -> None:
    wrong = []
    for line, wanted in REQUEST_LINES:
        answer = raw.say(service.port, line + b"\r\nConnection: close\r\n\r\n", seconds=20)
        if answer.status != wanted:
            wrong.append((line, wanted, answer.status))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("http://images.example/v2/images", 200),
        ("http://xn--4ca.example:9292/v2/images", 200),
        ("http://[::1]:9292/v2/images", 200),
        ("http://xn--999999999a/v2/images", 200),
        (f"http://{'xn--4ca.' * 900}/v2/images", 400),
        ("http://a:99999/v2/images", 400),
        ("http:///v2/images", 400),
    ],
)
def test_targets_with_a_host(service: Service, target: str, wanted: int) -> None:
    """Whatever name stands in it, there is an answer."""
    head = f"GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
    assert raw.say(service.port, head.encode(), seconds=20).status == wanted


# headers that somebody parses, and forms whose parsers have raised what nobody expected
HEADERS = (
    "Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Range", "Content-Type",
    "Cookie", "Expect", "Forwarded", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
    "If-Unmodified-Since", "Max-Forwards", "Origin", "Range", "TE", "Upgrade", "X-Auth-Token", "X-Forwarded-For",
    "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Image-Meta-Store",
    "X-OpenStack-Image-Size", "X-OpenStack-Request-Id", "Access-Control-Request-Method",
)  # fmt: skip
SEEDS = (
    b"Fri, 31 Dec 9999 23:59:59 -0100", b"Sat, 01 Jan 0001 00:00:00 +2359", b"Mon, 01 Jan 2001 00:00:00 +9999999999",
    b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"bytes=0-99999999999999999999", b"bytes=-0", b"bytes 0-0/0",
    b"for=[::1;proto=http", b"[::1", b"192.0.2.1%1", b"fe80::1%eth0", b"\xb2", b"text/html;charset=\xff",
    b"multipart/x; boundary=\"", b"Basic \xff", b"Basic ====", b"http://xn--999999999a", b"*", b"", b"W/", b"2.0",
)  # fmt: skip


def test_no_value_of_a_header_is_too_odd(service: Service, filled: str) -> None:
    """Whatever bytes stand in a header, the answer is none of a failure; the service's log has no traceback."""
    chance = random.Random(7)
    for number in range(1200):
        value = bytearray(chance.choice(SEEDS))
        for _ in range(chance.choice((0, 0, 1, 3))):
            value.insert(
                chance.randrange(len(value) + 1), chance.choice((0x20, 0x22, 0x2C, 0x80, 0xFF, 0x39, 0x2B, 0x3D))
            )
        method, path = chance.choice((("GET", "/file"), ("PATCH", ""), ("HEAD", "/file"), ("OPTIONS", ""), ("GET", "")))
        name = HEADERS[number % len(HEADERS)]
        head = raw.head(method, f"/v2/images/{filled}{path}", "Connection: close").removesuffix(b"\r\n")
        answer = raw.say(service.port, head + name.encode() + b": " + bytes(value) + b"\r\n\r\n", seconds=20)
        assert 200 <= answer.status < 500, (method, path, name, bytes(value), answer.text)


def test_one_message_does_not_carry_a_second_one(service: Service) -> None:
    """What stands behind a refused message is never read as a request."""
    image = new(service)
    hidden = f"DELETE /v2/images/{image} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    for headers in (
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: 0", f"Content-Length: {len(hidden)}"),
        ("Content-Length: 0\n",),
        ("Content-Range: bytes 0-0/1", f"Content-Length: {len(hidden)}"),
    ):
        head = raw.head("PUT", f"/v2/images/{image}/tags/t", *headers)
        raw.say(service.port, head + b"0\r\n\r\n" + hidden, seconds=8)
    head = raw.head("POST", "/v2/images", "Transfer-Encoding: chunked", "Connection: keep-alive").replace(
        b"1.1", b"1.0"
    )
    raw.say(service.port, head + b"0\r\n\r\n" + hidden, seconds=8)
    assert service.request("GET", f"/v2/images/{image}").status == 200


def test_no_100_for_http_1_0(service: Service) -> None:
    image = new(service)
    head = raw.head("PUT", f"/v2/images/{image}/file", _OCTETS, _THREE, "Expect: 100-continue")
    old = raw.say(service.port, head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc", seconds=10)
    assert old.status == 204
    body = b'{"name": "x"}'
    head = raw.head("POST", "/v2/images", f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
    assert raw.say(service.port, head + body, seconds=10).received.startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201"
    )


# answers that come before the body's end


@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
def test_clients_that_write_first_learn_the_reason(service: Service, size: int) -> None:
    image = new(service, disk_format="qcow2")
    for method, path, wanted in (
        ("PUT", f"/v2/images/{image}/file", 415),
        ("PUT", "/v2/images/6b7b0b63-0000-4000-8000-000000000000/file", 404),
        ("POST", "/v2/images", 413 if size > 37748736 else 400),
        ("PUT", f"/v2/images/{image}/tags/x", 400),
        ("PUT", "/nothing", 404),
    ):
        request = urllib.request.Request(
            service.url + path, data=b" " * size, method=method, headers={"Content-Type": "application/octet-stream"}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert (caught.value.code, path) == (wanted, path)
        assert json.loads(caught.value.read())["error"]["message"]
        caught.value.close()
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("PUT", "/v2/images", body=iter([b"x" * 65536] * (size >> 16)), headers={"Host": "a b"})
    assert connection.getresponse().status == 400
    connection.close()


def test_a_client_that_never_stops_is_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    image = new(service, disk_format="qcow2")
    head = raw.head("PUT", f"/v2/images/{image}/file", _OCTETS, "Transfer-Encoding: chunked")
    talk = raw.talk(service.port, raw.endless(head), seconds=60)
    assert talk.status == 415
    assert talk.closed is not None
    # silence is not waited for long
    begun = time.monotonic()
    sock = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    sock.putrequest("PUT", f"/v2/images/{image}/tags/x")
    sock.putheader("Content-Length", "1000000")
    sock.endheaders(b"x")
    assert sock.getresponse().status == 400
    sock.close()
    assert time.monotonic() - begun < quiet(60)


# browsers


def test_a_browser_may_send_bodies(service: Service, filled: str) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
    names = "content-type,x-auth-token"
    answer = service.request(
        "OPTIONS", f"/v2/images/{filled}/file", headers=asked | {"Access-Control-Request-Headers": names}
    )
    assert answer.status == 204
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed == {"content-type", "x-auth-token"}
    for header in (
        "Accept",
        "Accept-Language",
        "Cache-Control",
        "Content-Language",
        "Expires",
        "Last-Modified",
        "Pragma",
    ):
        answer = service.request(
            "OPTIONS", f"/v2/images/{filled}/file", headers=asked | {"Access-Control-Request-Headers": header}
        )
        assert answer.headers["access-control-allow-headers"] == header
    answer = service.request(
        "OPTIONS", f"/v2/images/{filled}/file", headers=asked | {"Access-Control-Request-Headers": "X-Other, accept"}
    )
    assert "access-control-allow-headers" not in answer.headers
    answer = service.request("GET", "/v2/images", headers={"Origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


# forms of an error


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/json", "plain"),
        ("", "plain"),
        ("*/*", "nested"),
        (None, "nested"),
        ("application/octet-stream", "nested"),
        ("text/html", "text"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text"),
        ("text/plain", "text"),
    ],
)
def test_forms_of_an_error(service: Service, accept: str | None, form: str) -> None:
    answer = service.request("GET", "/v2/images/nothing", headers={} if accept is None else {"Accept": accept})
    assert answer.status == 404
    if form == "text":
        assert answer.headers["content-type"].startswith("text/plain")
        assert b"nothing" in answer.body
        return
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    found = said if form == "plain" else said["error"]
    assert "nothing" in found["message"]
    assert (found["code"], found["title"]) == ("404 Not Found", "Not Found")


def test_no_empty_header_about_imports(service: Service) -> None:
    answer = service.request("POST", "/v2/images", json={"name": "x"})
    assert answer.headers.get("openstack-image-import-methods") != ""


# bodies that are no data


def test_a_body_may_be_as_large_as_the_schema_allows(service: Service) -> None:
    body = {"name": "b", **{f"k{number}": "\u20ac" * 65535 for number in range(100)}}
    data = json.dumps(body, ensure_ascii=False).encode()
    answer = service.request("POST", "/v2/images", body=data, headers={"Content-Type": "application/json"})
    assert answer.status in (201, 413), answer.body[:300]
    if answer.status == 413:
        assert b"max_request_body_size" not in answer.body, "another limit than that of bodies"


def test_a_large_body_of_small_values_is_refused(service: Service) -> None:
    for body in (b"[" + b"1," * 200_000 + b"1]", b"[" * 200_000, b'{"a":' * 100_000, b'"' + b'\\"' * 100_000):
        answer = service.request("POST", "/v2/images", body=body, headers={"Content-Type": "application/json"})
        assert answer.status in (400, 413)
    answer = service.request("POST", "/v2/images", body=bytes(40 << 20), headers={"Content-Type": "application/json"})
    assert answer.status == 413
    assert "[oslo_middleware] max_request_body_size" in answer.json()["error"]["message"]
