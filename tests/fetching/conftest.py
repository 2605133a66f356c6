"""A fetcher for each test, a folder behind nginx for all."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.rules import Limits, Rules
from xloud_image.stores.suite import noise

DATA = noise(3_000_001)
Make = Callable[..., Fetcher]

# patient enough for a busy machine, and small windows
QUICK: dict[str, Any] = {"window": 256 << 10, "pause": 0.01, "first_byte": 20.0, "silence": 20.0}


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """A fetcher with `Limits` of its own; `rules`: any but the usual ones."""
    made: list[Fetcher] = []

    def new(rules: Rules | None = None, *, lookup: Any = None, **limits: Any) -> Fetcher:
        more = {} if lookup is None else {"lookup": lookup}
        made.append(Fetcher(rules or Rules(), Limits(**{**QUICK, **limits}), **more))
        return made[-1]

    yield new
    for one in made:
        await one.__aexit__(None, None, None)


@pytest.fixture
def fetcher(make: Make) -> Fetcher:
    return make()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nginx serves; `file` has DATA."""
    found = tmp_path_factory.mktemp("fetched")
    found.parent.chmod(0o755)
    found.chmod(0o755)
    (found / "file").write_bytes(DATA)
    (found / "empty").write_bytes(b"")
    return found


PLACES = """
    location /no-ranges/ { alias FOLDER/; max_ranges 0; }
    location /no-tag/ { alias FOLDER/; etag off; }
    location /bare/ { alias FOLDER/; etag off; add_header Last-Modified ""; }
    location /to { return 302 $arg_url; }
    location = /down-6 { return 302 /down-5; }
    location = /down-5 { return 302 /down-4; }
    location = /down-4 { return 302 /down-3; }
    location = /down-3 { return 302 /down-2; }
    location = /down-2 { return 302 /down-1; }
    location = /down-1 { return 302 /file; }
    location /login { if ($http_authorization = "") { return 401; } return 200 $http_authorization; }
    location /401 { return 401; }
    location /403 { return 403; }
    location /404 { return 404; }
    location /410 { return 410; }
    location /429 { return 429; }
    location /500 { return 500; }
    location /503 { return 503; }
    location /204 { return 204; }
"""


@pytest.fixture(scope="session")
def nginx(folder: Path) -> Iterator[Nginx]:
    """At an address that an administrator's URL may lead to."""
    server = Nginx(files=folder, server=PLACES.replace("FOLDER", str(folder)), host=private_address())
    try:
        server.start()
        yield server
    finally:
        server.close()


async def fetched(fetcher: Fetcher, url: str, **how: Any) -> bytes:
    """All of a file, by somebody who is trusted."""
    async with fetcher.open(url, trusted=True, **how) as resource:
        return b"".join([chunk async for chunk in resource.chunks()])
