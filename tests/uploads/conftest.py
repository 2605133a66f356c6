"""Nodes that share a database and their stores, and what clients of uploads in several requests send."""

import base64
import contextlib
import hashlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.api.cloud import OCTETS, Caller, Cloud
from tests.crash.points import Armed
from tests.crash.proof import rows
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.service import Service

PARTIAL = "application/partial-upload"
LEASE = 5
DATA = random.Random(10).randbytes(3_000_000)
HALF = len(DATA) // 2


def digest(data: bytes, name: str = "sha-256") -> str:
    """A digest field."""
    value = hashlib.new(name.replace("-", ""), data).digest()
    return f"{name}=:{base64.b64encode(value).decode()}:"


class Sender:
    """One client that gives an image data piece by piece. `path`: of the upload, once it has begun."""

    def __init__(self, caller: Caller, image: str | None = None, kind: str = "file") -> None:
        self.caller, self.kind = caller, kind
        self.image = image or caller.new()
        self.path = ""

    def begin(self, data: Any = b"", complete: str = "?0", **headers: str) -> Answer:
        """The request that begins it; underscores in the names of headers are dashes."""
        sent = {"Content-Type": OCTETS, "Upload-Complete": complete, **_dashed(headers)}
        answer = self.caller.ask("PUT", f"/v2/images/{self.image}/{self.kind}", body=data, headers=sent)
        if "location" in answer.headers:
            self.path = urlsplit(answer.headers["location"]).path
        return answer

    def add(self, offset: int, data: Any, complete: str = "?0", **headers: str) -> Answer:
        sent = {"Content-Type": PARTIAL, "Upload-Offset": str(offset), "Upload-Complete": complete, **_dashed(headers)}
        return self.caller.ask("PATCH", self.path, body=data, headers=sent)

    def last(self, offset: int, data: Any = b"", **headers: str) -> Answer:
        return self.add(offset, data, "?1", **headers)

    def head(self) -> Answer:
        return self.caller.ask("HEAD", self.path)

    @property
    def offset(self) -> int:
        answer = self.head()
        assert answer.status == 200, answer
        return int(answer.headers["upload-offset"])

    def go_on(self, data: bytes) -> Answer:
        """The rest of the data. A request that broke may still be read, and move the offset: then from there."""
        while (answer := self.last(offset := self.offset, data[offset:])).status == 409:
            assert int(answer.headers["upload-offset"]) > offset
        return answer

    def cancel(self) -> Answer:
        return self.caller.ask("DELETE", self.path)

    @property
    def status(self) -> str:
        return str(self.caller.show(self.image)["status"])

    def has(self, data: bytes) -> bool:
        """Whether the image is active with these data."""
        shown = self.caller.show(self.image)
        sums = hashlib.sha512(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert shown["status"] == "active", shown
        return (shown["os_hash_value"], shown["checksum"]) == sums and shown["size"] == len(data)


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Broken(Exception):
    """The client goes away."""


def breaking(data: bytes, after: int, until: Any = lambda: True) -> Iterator[bytes]:
    """The first bytes of a piece; then, once it is so far, the connection ends."""
    for at in range(0, after, 65536):
        yield data[at : min(at + 65536, after)]
    await_that(until)
    raise Broken


class Scene:
    """A node whose processes can be told where to die."""

    def __init__(self, folder: Path) -> None:
        self.armed = Armed(folder / "failpoints")
        self.cloud = Cloud(
            folder,
            options={"enabled_backends": "fast:file,slow:file", "image_size_cap": 64 << 20},
            os_glance_staging_store={"filesystem_store_datadir": folder / "staging"},
            mem={"weight": None},
            xloud={"job_workers": 1, "lease_time": LEASE, "reaper_interval": 1},
        )
        self.service = self.cloud.service
        self.service.environment = self.armed.environment
        self.ann = self.cloud.ann

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return rows(self.service, statement)

    def change(self, statement: str, *values: Any) -> None:
        """Behind the service's back."""
        file = self.service.sections["database"]["connection"].removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            connection.execute(statement, values)

    def staged(self, image: str) -> int:
        """Objects in the store for data that waits."""
        return sum(image in name for name in self.cloud.files("staging"))

    def is_writing(self) -> bool:
        """Whether a part is on its way."""
        return bool(self.query("SELECT 1 FROM xloud_claims WHERE kind = 'part'"))

    def nothing_left(self, image: str, images: int = 1) -> None:
        """Nothing lies in the store for data that waits, `images` objects in the others, and nobody is at work."""
        lying = ("fast", "slow")
        await_that(
            lambda: (
                self.staged(image) == 0
                and sum(image in name for store in lying for name in self.cloud.files(store)) == images
                and not self.query(f"SELECT id FROM xloud_claims WHERE image_id = '{image}'")
            ),
            lambda: (
                f"{[self.cloud.files(name) for name in ('staging', *lying)]} {self.query('SELECT * FROM xloud_claims')}"
            ),
        )
        assert not self.query(f"SELECT id FROM xloud_uploads WHERE image_id = '{image}' AND state <> 'over'")
        unfinished = "SELECT id FROM xloud_uploads WHERE state <> 'over'"
        assert not self.query(f"SELECT * FROM xloud_upload_parts WHERE upload_id NOT IN ({unfinished})")


def await_that(what: Any, tell: Any = lambda: "", seconds: float = 30) -> None:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < quiet(seconds), tell()
        time.sleep(0.05)


def answering(service: Service) -> None:
    """Waits until it is there (again)."""

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return service.request("GET", "/healthcheck").status == 200
        return False

    await_that(answers)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("uploads"))
    try:
        scene.service.start()
        await_that(lambda: scene.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])
        yield scene
        assert "Traceback" not in scene.service.log
    finally:
        scene.service.kill()


@pytest.fixture(autouse=True)
def disarmed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "scene" in request.fixturenames:
        request.getfixturevalue("scene").armed.disarm()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session
