"""Answers of megabytes whose clients do not read them: the process holds some of them, the others are told so."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cloud import Cloud
from tests.servers.place import HOST
from xloud_image.api import giving

FAT = {f"k{n}": "x" * 65000 for n in range(120)}  # 7.8 MB


@pytest.fixture(scope="module")
def fat(cloud: Cloud) -> str:
    return cloud.ann.new(**FAT)


def memory(pid: int) -> int:
    """Bytes that the process and its children have in memory."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024
    return own + sum(memory(int(child)) for child in children)


@contextlib.contextmanager
def unread(cloud: Cloud, path: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that ask and read nothing."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(contextlib.closing(socket.socket()))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((HOST, cloud.service.port))
            headers = "".join(f"{name}: {value}\r\n" for name, value in cloud.ann.headers.items())
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: image\r\n{headers}\r\n".encode())
            sockets.append(sock)
        yield sockets


def test_who_does_not_read_takes_no_room_from_others(cloud: Cloud, fat: str) -> None:
    before = memory(cloud.service.pid)
    with unread(cloud, f"/v2/images/{fat}", 120) as sockets:
        statuses = []
        for sock in sockets:
            sock.settimeout(60)
            statuses.append(sock.recv(12)[9:])
        assert set(statuses) == {b"200", b"503"}
        # what is read at the moment comes besides; all of them would be ten times as much
        assert memory(cloud.service.pid) - before < 6 * giving.HELD
        # small answers are given, and large ones to other projects
        small = cloud.ann.new(name="small")
        assert cloud.ann.ask("GET", f"/v2/images/{small}").status == 200
        other = cloud.admin.new(owner="beta", **FAT)
        assert cloud.admin.ask("GET", f"/v2/images/{other}").json()["k119"] == FAT["k119"]
        changed = cloud.ann.patch(fat, {"op": "add", "path": "/colour", "value": "red"})
        assert changed.status == 200 or b"It was done" in changed.body
        # those that took nothing are cut for the sake of others
        end = time.monotonic() + 12 * giving.SLOW
        while (answer := cloud.ann.ask("GET", f"/v2/images/{fat}")).status == 503:
            assert time.monotonic() < end
            time.sleep(1)
        assert answer.json()["colour"] == "red"
    assert cloud.ann.ask("GET", f"/v2/images/{fat}").status == 200


def test_a_large_answer_is_the_same_as_a_small_one(cloud: Cloud, fat: str) -> None:
    whole = cloud.ann.ask("GET", f"/v2/images/{fat}")
    assert whole.headers["content-type"] == "application/json"
    assert int(whole.headers["content-length"]) == len(whole.body)
    assert whole.headers["x-openstack-request-id"]
    assert {name: whole.json()[name] for name in FAT} == FAT
    head = cloud.ann.ask("HEAD", f"/v2/images/{fat}")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    page = cloud.ann.ask("GET", f"/v2/images?id={fat}")
    assert [image["id"] for image in page.json()["images"]] == [fat]
