"""The way out of a process: what balancers are told, what is still served, and that nothing answered is lost."""

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import ServiceFactory
from tests.load import quiet
from tests.servers.place import HOST
from tests.servers.process import answers
from tests.servers.service import Service

NOTICE = 3
BLOCK = 1 << 20


def connect(service: Service) -> http.client.HTTPConnection:
    """A connection that has been answered once, and is kept."""
    connection = http.client.HTTPConnection(HOST, service.port, timeout=20)
    connection.connect()
    answer, _ = ask(connection)
    assert answer.getheader("Connection") is None
    return connection


def ask(
    connection: http.client.HTTPConnection, method: str = "GET", path: str = "/v2/images", body: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    return answer, answer.read()


def health(service: Service) -> int:
    return service.request("GET", "/healthcheck").status


def workers(service: Service) -> set[int]:
    with open(f"/proc/{service.pid}/task/{service.pid}/children") as file:
        return {int(word) for word in file.read().split()}


def await_that(what: object, seconds: float = 20) -> None:
    begun = time.monotonic()
    while not what():  # type: ignore[operator]
        assert time.monotonic() - begun < quiet(seconds)
        time.sleep(0.05)


def test_a_stop_is_announced_and_everything_served_meanwhile(service: ServiceFactory) -> None:
    one = service({"xloud": {"shutdown_delay": NOTICE}})
    kept = connect(one)
    os.kill(one.pid, signal.SIGTERM)
    begun = time.monotonic()
    await_that(lambda: health(one) == 503)
    answer, _ = ask(kept, "POST", body='{"name": "late"}')
    assert (answer.status, answer.getheader("Connection")) == (201, "close")
    created = one.request("POST", "/v2/images", json={"name": "later"})
    assert (created.status, created.headers["connection"]) == (201, "close"), "on a new connection"
    assert one.wait() == 0
    assert time.monotonic() - begun >= NOTICE
    assert "balancers are told" in one.log


def test_idle_connections_do_not_hold_up_a_stop(service: ServiceFactory) -> None:
    one = service({"xloud": {"graceful_timeout": 60}})
    idle = connect(one)
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait(10) == 0
    assert idle.sock.recv(1) == b""
    idle.close()


def test_without_a_notice_the_port_closes_at_once(service: ServiceFactory) -> None:
    one = service()
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait() == 0
    assert "balancers are told" not in one.log


def test_ctrl_c_takes_no_notice(service: ServiceFactory) -> None:
    one = service({"xloud": {"shutdown_delay": 60}})
    os.kill(one.pid, signal.SIGINT)
    assert one.wait() == 0


def test_a_reload_is_not_announced_and_kept_connections_may_ask_once_more(service: ServiceFactory) -> None:
    one = service({"xloud": {"shutdown_delay": NOTICE}})
    kept, idle = connect(one), connect(one)
    old = workers(one)
    os.kill(one.pid, signal.SIGHUP)
    # until the old worker is on its way out, its answers do not say so
    for _ in range(200):
        answer, _ = ask(kept)
        assert answer.status == 200
        if answer.getheader("Connection") == "close":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the old worker goes on")
    answer, _ = ask(idle, "POST", body='{"name": "late"}')
    assert (answer.status, answer.getheader("Connection")) == (201, "close")
    while workers(one) & old:
        assert health(one) == 200
        time.sleep(0.05)
    assert health(one) == 200


def test_a_connection_without_a_request_is_served_after_the_port_closed(service: ServiceFactory) -> None:
    """As a balancer opens one at the very moment at which a node goes: it is taken, and what it brings is answered."""
    one = service()
    with socket.create_connection((HOST, one.port), timeout=20) as sock:
        await_that(lambda: health(one) == 200)  # taken by now
        os.kill(one.pid, signal.SIGTERM)
        await_that(lambda: not answers(f"{one.url}/healthcheck"))
        sock.sendall(b"GET /v2/images HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in received
    assert one.wait() == 0


def test_an_upload_under_way_goes_on(service: ServiceFactory) -> None:
    """With workers that are replaced and with a node that stops: what the client sends afterwards is taken."""
    one = service()
    for number in (signal.SIGHUP, signal.SIGTERM):
        image = one.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"}).json()["id"]
        old = workers(one)
        connection = connect(one)
        connection.putrequest("PUT", f"/v2/images/{image}/file")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(8 * BLOCK))
        connection.endheaders()
        for sent in range(8):
            connection.send(os.urandom(BLOCK))
            if sent == 3:
                await_that(lambda path=f"/v2/images/{image}": one.request("GET", path).json()["status"] == "saving")
                os.kill(one.pid, number)
            time.sleep(0.5)
            assert sent == 7 or old & workers(one), "it waits"
        assert connection.getresponse().status == 204
        connection.close()
        await_that(lambda before=old: one.exit_code is not None or not workers(one) & before)
    assert one.wait() == 0


def test_an_answer_that_is_taken_slowly_is_given_whole(service: ServiceFactory) -> None:
    """Its handler is done long before the client is: the process waits for the client all the same."""
    one = service()
    image = one.request("POST", "/v2/images", json={"name": "wide"}).json()["id"]
    for number in range(60):
        change = [{"op": "add", "path": f"/p{number}", "value": "x" * 60_000}]
        kind = {"content-type": "application/openstack-images-v2.1-json-patch"}
        assert one.request("PATCH", f"/v2/images/{image}", json=change, headers=kind).status == 200
    with socket.socket() as sock:
        sock.settimeout(20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((HOST, one.port))
        sock.sendall(f"GET /v2/images/{image} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = sock.recv(1024)
        os.kill(one.pid, signal.SIGTERM)
        time.sleep(4)
        assert one.exit_code is None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        body = (head + b"".join(iter(lambda: sock.recv(1 << 16), b""))).partition(b"\r\n\r\n")[2]
    assert len(json.loads(body)["p59"]) == 60_000
    assert one.wait() == 0


def test_signals_that_come_while_it_ends_leave_no_traceback(service: ServiceFactory) -> None:
    """Some supervisors send SIGTERM to every process of a container, again and again."""
    server = service({"xloud": {"job_workers": 1}})
    await_that(lambda: "ready for long work" in server.log)
    children = workers(server)
    os.kill(server.pid, signal.SIGTERM)
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.0005)
    assert server.stop() == 0
    assert "Traceback" not in server.log
