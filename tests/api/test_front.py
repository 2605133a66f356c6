"""What stands before the calls: descriptors, silent clients, proxies, balancers, numbers for Prometheus."""

import contextlib
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api import raw
from tests.servers.http import request
from tests.servers.process import answers
from tests.servers.service import Service
from xloud_image.api import receiving


@contextlib.contextmanager
def limit_of_files(soft: int, hard: int) -> Iterator[None]:
    """Of processes started meanwhile (the hard one of a process cannot be raised again, so a child has it)."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def workers(service: Service) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()]


def limits(pid: int) -> tuple[str, str]:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return line.split()[3], line.split()[4]
    raise AssertionError


def test_the_soft_limit_of_open_files_is_raised(service: Callable[..., Service]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with limit_of_files(min(512, hard), hard):
        one = service()
    (worker,) = workers(one)
    assert limits(worker)[0] == str(min(hard, 1024 * 1024))


@contextlib.contextmanager
def silent(port: int, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that say no more than `first`."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=60)))
            if first:
                with contextlib.suppress(OSError):
                    sock.sendall(first)
            made.append(sock)
        yield made


@pytest.mark.parametrize("first", [b"", b"GET /v2/images HT", b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_silent_connections_do_not_keep_others_out(service: Callable[..., Service], first: bytes) -> None:
    one = service({"DEFAULT": {"backlog": 1024}}, files=256)
    image = one.request("POST", "/v2/images", json={"name": "x"}).json()["id"]
    with silent(one.port, 500, first) as made:
        for _ in range(5):
            assert one.request("GET", "/healthcheck", seconds=30).status == 200
            assert one.request("GET", f"/v2/images/{image}", seconds=30).status == 200
        # the oldest went, the newest are still there
        made[-1].settimeout(0.5)
        if not first:
            with pytest.raises(TimeoutError):
                made[-1].recv(1)
            assert made[0].recv(1) == b""
    assert one.log.count("connections without a request were cut") <= 3
    assert len(one.log) < 60_000


def test_no_descriptor_left_is_no_flood(service: Callable[..., Service]) -> None:
    """Descriptors that uploads hold, and not silent connections: accepting fails, and is tried again quietly."""
    one = service(files=96)
    images = [one.request("POST", "/v2/images", json={"name": "x", "disk_format": "raw", "container_format": "bare"})
              .json()["id"] for _ in range(60)]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for image in images:
            sock = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", one.port))))
            head = raw.head(
                "PUT", f"/v2/images/{image}/file", "Content-Type: application/octet-stream", "Content-Length: 9"
            )
            with contextlib.suppress(OSError):
                sock.sendall(head + b"x")
        time.sleep(4)
        assert one.log.count("Traceback") == 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if one.request("GET", "/healthcheck", seconds=5).status == 200:
                break
    assert one.request("GET", "/v2/images").status == 200


def test_the_health_check_does_not_depend_on_the_method(service: Callable[..., Service], tmp_path: Path) -> None:
    off = tmp_path / "off"
    one = service({"healthcheck": {"disable_by_file_path": off}})
    methods = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
    assert {method: one.request(method, "/healthcheck").status for method in methods} == dict.fromkeys(methods, 200)
    assert raw.say(one.port, b"OPTIONS /healthcheck HTTP/1.0\r\n\r\n").status == 200
    off.touch()
    assert {method: one.request(method, "/healthcheck").status for method in methods} == dict.fromkeys(methods, 503)
    assert raw.say(one.port, b"OPTIONS /healthcheck HTTP/1.0\r\n\r\n").status == 503
    off.unlink()


def test_the_health_check_is_there_for_whom_it_is_meant(service: Callable[..., Service]) -> None:
    """By the address of the connection, as in Glance, also where headers of proxies count for the rest."""
    proxies = {"oslo_middleware": {"enable_proxy_headers_parsing": "true"}}
    near = {"allowed_source_ranges": "10.0.0.0/8, 127.0.0.0/8", "ignore_proxied_requests": "true"}
    one = service({"healthcheck": near, **proxies})
    far = service({"healthcheck": {"allowed_source_ranges": "10.0.0.0/8, ::1/128"}, **proxies}, start=False)
    far.prepare()
    far.launch(forked=True).wait_for(lambda: answers(f"{far.url}/versions"), 30)
    for method in ("GET", "OPTIONS"):
        assert one.request(method, "/healthcheck").status == 200
        for header in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"):
            assert one.request(method, "/healthcheck", headers={header: "10.0.0.1"}).status == 404
        assert far.request(method, "/healthcheck").status == 404
        assert far.request(method, "/healthcheck", headers={"X-Forwarded-For": "10.0.0.1"}).status == 404
    assert one.request("GET", "/versions").status == 200


def href(service: Service, **headers: str) -> str:
    answer = service.request("GET", "/versions", headers={k.replace("_", "-"): v for k, v in headers.items()})
    found: str = answer.json()["versions"][0]["links"][0]["href"]
    return found


def test_headers_of_proxies(service: Callable[..., Service]) -> None:
    one = service({"oslo_middleware": {"enable_proxy_headers_parsing": True}})
    assert href(one) == f"{one.url}/v2/"
    assert href(one, X_Forwarded_Proto="https") == f"https://127.0.0.1:{one.port}/v2/"
    assert href(one, X_Forwarded_Proto="https", X_Forwarded_Host="i.example") == "https://i.example/v2/"
    assert href(one, X_Forwarded_Host="i.example", X_Forwarded_Port="8080") == "http://i.example:8080/v2/"
    assert href(one, X_Forwarded_Proto="https", X_Forwarded_Host="i", X_Forwarded_Port="443") == "https://i/v2/"
    assert href(one, X_Forwarded_Host="i", X_Forwarded_Prefix="/image/") == "http://i/image/v2/"
    assert href(one, Forwarded='for=192.0.2.1;proto=https;host="i:1"', X_Forwarded_Host="no") == "https://i:1/v2/"
    # nothing that is no host, scheme, port or path gets into an answer
    for headers in (
        {"X_Forwarded_Proto": "javascript"},
        {"X_Forwarded_Host": 'a"><script>'},
        {"X_Forwarded_Host": "a/b"},
        {"X_Forwarded_Host": "\u00ff"},
        {"X_Forwarded_Port": "99999999"},
        {"X_Forwarded_Port": "\u00b2"},
        {"X_Forwarded_Prefix": "//evil.example"},
        {"X_Forwarded_Prefix": "/a/../b?c"},
        {"Forwarded": "host=a/b;proto=gopher"},
        {"Forwarded": ";;,=,\u00ff"},
    ):
        assert href(one, **headers) == f"{one.url}/v2/", headers
    location = one.request(
        "POST",
        "/v2/images",
        json={"name": "x"},
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "i.example"},
    ).headers["location"]
    assert location.startswith("https://i.example/v2/images/")
    # the address that the last proxy saw: what stands before it, the client may have made up
    one.request("GET", "/v2/images", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.7"})
    one.request("GET", "/v2/images", headers={"Forwarded": 'for=203.0.113.9, for="[2001:db8::5]:44"'})
    one.request("GET", "/v2/images", headers={"X-Forwarded-For": "nobody"})
    clients = [line.rpartition("client=")[2].strip() for line in one.log.splitlines() if "path=/v2/images " in line]
    assert clients[-3:] == ["192.0.2.7", "2001:db8::5", "127.0.0.1"]


def test_without_the_option_nobody_is_believed(service: Callable[..., Service]) -> None:
    one = service()
    told = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "i", "X_Forwarded_Prefix": "/x", "Forwarded": "host=j"}
    assert href(one, **told) == f"{one.url}/v2/"
    one.request("GET", "/v2/images", headers={"X-Forwarded-For": "192.0.2.7"})
    assert "client=192.0.2.7" not in one.log


COUNTED = 'xloud_image_requests_total{method="GET",route="/v2/images",status="200"}'


def test_numbers_of_all_processes(service: Callable[..., Service]) -> None:
    one = service({"DEFAULT": {"workers": 2}, "xloud": {"metrics": True}})
    for _ in range(30):
        assert request("GET", f"{one.url}/v2/images").status == 200
    for _ in range(4):  # whichever process answers
        text = one.request("GET", "/metrics").body.decode()
        (line,) = [line for line in text.splitlines() if line.startswith(COUNTED)]
        assert float(line.split()[1]) >= 30
        assert "xloud_image_store_seconds_bucket" in text
    assert service().request("GET", "/metrics").status == 404


def test_numbers_are_not_for_strangers(service: Callable[..., Service], tmp_path: Path) -> None:
    users, projects = tmp_path / "users", tmp_path / "projects"
    users.write_text("bob:$2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n")
    projects.write_text("bob:p:member\n")
    one = service(
        {
            "paste_deploy": {"flavor": "http_basic"},
            "xloud": {"metrics": True, "http_basic_user_file": users, "http_basic_projects_file": projects},
        }
    )
    assert one.request("GET", "/metrics").status == 401


def test_tcp_keepidle(service: Callable[..., Service]) -> None:
    one = service({"DEFAULT": {"tcp_keepidle": 77}})
    with contextlib.closing(socket.create_connection(("127.0.0.1", one.port))) as sock:
        sock.sendall(raw.head("GET", "/healthcheck"))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        table = Path("/proc/net/tcp").read_text().splitlines()
        local = f"{one.port:04X}"
        (line,) = [line for line in table if line.split()[1].endswith(f":{local}") and line.split()[3] == "01"]
        timer, _, left = line.split()[5].partition(":")
        assert timer == "02", "the timer of keepalive runs"
        assert 60 < int(left, 16) / 100 <= 77


def test_nothing_behind_an_upgrade_is_lost_unseen(service: Callable[..., Service]) -> None:
    """aiohttp takes what follows for the other protocol: the connection has to end, or later answers are one off."""
    one = service()
    first = b"GET /versions HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
    with socket.create_connection(("127.0.0.1", one.port), timeout=20) as sock:
        sock.sendall(first + b"GET /v2/images?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        while piece := sock.recv(65536):
            said += piece
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in said
    assert one.request("GET", "/v2/images").status == 200


def test_bodies_that_do_not_end_have_a_bound(service: Callable[..., Service]) -> None:
    """Each is small enough to be read at once, all together are not: those of one project get half of what is held."""
    one = service()
    size = receiving.LARGE - 4096
    first = b"POST /v2/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    first += b"Content-Length: %d\r\n\r\n{" % (size + 1) + b" " * (size - 1)
    many = receiving.SHARE // size + 20
    with silent(one.port, many, first) as socks:
        ready, _, _ = select.select(socks, [], [], 20)
        assert ready, "none was refused"
        assert b" 503 " in ready[0].recv(65536).partition(b"\r\n")[0]
        # one whose body is small is served meanwhile
        assert one.request("POST", "/v2/images", json={"name": "small"}).status == 201
