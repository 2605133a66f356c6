"""A service of two processes with an image cache, and a web server that has the data."""

import contextlib
import hashlib
import http.client
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cache.origin import ALL, Origin, image_of, name_of
from tests.load import quiet
from tests.servers.place import HOST
from tests.servers.service import Service

MIB = 1 << 20
LIMIT = 24 * MIB


class Place:
    """The service, its cache and its web server. `points`: the file of failpoints, empty when none is armed."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        self.cache = folder / "cache"
        self.points = folder / "points"
        self.points.write_text("")
        self._random = random.Random(5)
        self.service = Service(
            {
                "DEFAULT": {
                    "workers": 2,
                    "enabled_backends": "files:file,web:http",
                    "image_cache_dir": self.cache,
                    "image_cache_max_size": LIMIT,
                    "worker_self_reference_url": "http://node1:9292",
                },
                "xloud": {"metrics": True},
            },
            environment={"XLOUD_FAILPOINTS": f"@{self.points}"},
        )

    def image(self, size: int = MIB) -> tuple[str, bytes]:
        """A new image that the web server has, its id and its data."""
        data = self._random.randbytes(size)
        return image_of(self.service, self.origin, data), data

    def reads(self, image: str) -> int:
        """How often the web server was asked for all of it."""
        return self.origin.whole(name_of(self.service, image))

    def cached(self) -> set[str]:
        """Ids of finished files."""
        return {path.name[:36] for path in self.cache.iterdir() if path.is_file() and len(path.name) == 69}

    def file(self, image: str) -> Path:
        (found,) = self.cache.glob(f"{image}.*")
        return found

    def size(self) -> int:
        """Bytes that the files of the cache take on the disk."""
        total = 0
        for folder in (self.cache, *(self.cache / name for name in ("incomplete", "removed", "hits", "queue"))):
            for path in folder.iterdir() if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_blocks * 512 if path.is_file() else 0
        return total

    def read(self, image: str, part: str | None = None) -> bytes:
        answer = self.service.request(
            "GET", f"/v2/images/{image}/file", headers={"Range": f"bytes={part}"} if part else {}
        )
        assert answer.status == (206 if part else 200), answer
        return answer.body

    def wait(self, done: Callable[[], object], seconds: float = 20) -> None:
        begun = time.monotonic()
        while not done():
            assert time.monotonic() - begun < quiet(seconds), self.service.log[-3000:]
            time.sleep(0.02)

    def workers(self) -> dict[int, bool]:
        """The processes that serve, and which of them fills a file."""
        tasks = Path(f"/proc/{self.service.pid}/task/{self.service.pid}/children").read_text().split()
        return {int(pid): _fills(Path(f"/proc/{pid}")) for pid in tasks}

    def close(self) -> None:
        self.points.write_text("")
        self.origin.close()
        self.service.kill()


def _fills(process: Path) -> bool:
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                flags = (process / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0]
                if "/incomplete/" in os.readlink(link) and int(flags, 8) & os.O_RDWR:
                    return True
    return False


class Reader(threading.Thread):
    """A client that reads an image beside the test. `got`: bytes so far; `error`: how it broke off."""

    def __init__(self, place: Place, image: str) -> None:
        super().__init__(daemon=True)
        self.got = 0
        self.status = 0
        self.error: Exception | None = None
        self._hash = hashlib.sha256()
        self._connection = http.client.HTTPConnection(HOST, place.service.port, timeout=quiet(60))
        self._path = f"/v2/images/{image}/file"
        self.start()

    def run(self) -> None:
        try:
            self._connection.request("GET", self._path)
            answer = self._connection.getresponse()
            self.status = answer.status
            while chunk := answer.read1(1 << 16):
                self._hash.update(chunk)
                self.got += len(chunk)
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        except Exception as error:  # noqa: BLE001 - told by whoever joins
            self.error = error
        finally:
            self._connection.close()

    def leave(self) -> None:
        """The client goes away."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def has_all_of(self, data: bytes) -> bool:
        self.join(quiet(60))
        assert not self.is_alive()
        return self.error is None and self.got == len(data) and self._hash.digest() == hashlib.sha256(data).digest()


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        place.service.start()
        yield place
        assert place.service.stop() == 0
        assert "Traceback" not in place.service.log
    finally:
        place.close()


@pytest.fixture
def place(_place: Place) -> Iterator[Place]:
    """With an empty cache, and nothing wrong."""
    _place.points.write_text("")
    _place.origin.down = False
    _place.origin.wrong.clear()
    _place.origin.cut = ALL
    _place.origin.allow()
    assert _place.service.request("DELETE", "/v2/cache").status == 204
    yield _place
    _place.points.write_text("")
    _place.origin.allow()
