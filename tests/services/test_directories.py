"""A file store of several directories on disks of their own, through the whole service: priorities, a full disk, a disk
that is read-only, and a disk that is away."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers.http import Answer
from tests.servers.place import program
from tests.servers.service import Service, command
from tests.stores import mounts

MIB = 1 << 20


class Disks:
    """Two mounts of 4 and 24 MiB, the small one preferred, and a service whose only store they are."""

    def __init__(self, service: Callable[..., Service], small: Path, large: Path) -> None:
        self.small, self.large = small, large
        self.service = service(
            {
                "DEFAULT": {"enabled_backends": "disks:file"},
                "glance_store": {"default_backend": "disks"},
                "files": {"filesystem_store_datadir": None},
                "disks": {"filesystem_store_datadirs": f"{large}:100, {small}:200"},
            }
        )

    def new(self, size: int, *, announced: bool = True) -> tuple[str, int, str]:
        """An image with so many bytes: its id, and the answer's status and body. By a client that hears an answer
        while it sends."""
        image = self._create()
        file = self.small.parent / "data"
        file.write_bytes(b"")
        os.truncate(file, size)
        words = [program("curl", "curl"), "-s", "-w", "\n%{http_code}", "-H", "Content-Type: application/octet-stream"]
        words += ["-T", str(file) if announced else "-", f"{self.service.url}/v2/images/{image}/file"]
        with file.open("rb") as data:
            done = subprocess.run(words, stdin=data, capture_output=True, timeout=60, check=False)
        body, _, status = done.stdout.decode().rpartition("\n")
        return image, int(status), body

    def _create(self) -> str:
        answer = self.service.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"})
        image: str = answer.json()["id"]
        return image

    def read(self, image: str) -> Answer:
        return self.service.request("GET", f"/v2/images/{image}/file")

    def names(self) -> tuple[set[str], set[str]]:
        """Everything in the two directories, drafts included."""
        small, large = ({file.name for file in path.iterdir()} for path in (self.small, self.large))
        return small, large

    def check(self) -> dict[str, Any]:
        words = ["stores", "check", "--json", "--config-file", str(self.service.configuration)]
        done = subprocess.run([*command(), *words], capture_output=True, text=True, timeout=60, check=False)
        (result,) = json.loads(done.stdout)
        assert done.returncode == (0 if result["ok"] else 1)
        return dict(result)


@pytest.fixture
def disks(service: Callable[..., Service], tmp_path: Path) -> Iterator[Disks]:
    with ExitStack() as stack:
        small = stack.enter_context(mounts.tmpfs(tmp_path / "small", "4m"))
        large = stack.enter_context(mounts.tmpfs(tmp_path / "large", "24m"))
        disks = Disks(service, small, large)
        yield disks
        disks.service.stop()


def test_priorities_and_full_disks(disks: Disks) -> None:
    assert disks.check()["free"] == 28 * MIB
    first, status, _ = disks.new(3 * MIB)
    assert status == 204
    second, status, _ = disks.new(3 * MIB)  # no room on the preferred one any more
    assert status == 204
    assert disks.names() == ({first}, {second})
    # too large for either; known before the first byte, and unknown
    for third, status, body in (disks.new(30 * MIB), disks.new(30 * MIB, announced=False)):
        assert status == 413, body
        assert "no room" in body
        assert disks.names() == ({first}, {second}), "nothing of it is left"
        assert disks.service.request("GET", f"/v2/images/{third}").json()["status"] == "queued"
    # room comes back with a deletion, without a restart
    assert disks.service.request("DELETE", f"/v2/images/{first}").status == 204
    fourth, status, _ = disks.new(3 * MIB)
    assert status == 204
    assert disks.names() == ({fourth}, {second})
    assert (disks.read(second).body, disks.read(fourth).body) == (bytes(3 * MIB), bytes(3 * MIB))


def test_a_disk_that_is_read_only_and_one_that_is_away(disks: Disks) -> None:
    first, status, _ = disks.new(MIB)
    assert status == 204
    assert disks.names()[0] == {first}
    with mounts.read_only(disks.small):
        second, status, _ = disks.new(MIB)
        assert status == 204
        assert second in disks.names()[1]
        assert disks.read(first).status == 200
        result = disks.check()
        assert result["ok"]
        assert "mount -o remount,rw" in result["detail"]
    subprocess.run([program("umount", "mount"), disks.small], check=True)
    # an empty mount point is a directory like any other: what should lie there is not found, the rest goes on
    assert disks.read(first).status in (404, 503)
    assert disks.read(second).status == 200
    third, status, _ = disks.new(MIB)
    assert status == 204
    subprocess.run([program("mount", "mount"), "-t", "tmpfs", "-o", "size=4m", "tmpfs", disks.small], check=True)
    assert disks.read(second).status == 200
    assert disks.check()["ok"]
    assert third
