"""One service with whatever a client may call, and a real Keystone whose catalogue leads to it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.place import Place
from tests.servers.keystone import Keystone
from tests.servers.nginx import Nginx
from tests.servers.place import private_address


@pytest.fixture(scope="package")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A web server at an address that only trusted callers may name; what it serves is in its `files`."""
    folder = tmp_path_factory.mktemp("web")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    server = Nginx(files=folder, host=private_address())
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="package")
def _place(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone, web: Nginx) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"), keystone, web)
    try:
        place.start()
        yield place
        assert place.service.stop() == 0
        assert "Traceback" not in place.service.log
    finally:
        place.service.kill()


@pytest.fixture
def place(_place: Place) -> Place:
    """It runs, and the catalogue names it."""
    _place.be_in_the_catalogue()
    return _place


@pytest.fixture(scope="package")
def data() -> bytes:
    return random.Random(20).randbytes(3_000_001)


@pytest.fixture(scope="package")
def file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Path:
    """A file with `data`."""
    path = tmp_path_factory.mktemp("data") / "disk.raw"
    path.write_bytes(data)
    return path
