"""A service with several stores that imports, and what tests of imports wait for."""

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.cloud import OCTETS, Caller, Cloud
from tests.fetching.flawed import Flawed
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.nginx import Nginx
from tests.servers.place import private_address
from tests.servers.service import Service


def stage(caller: Caller, image: str, data: Any, **headers: str) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.ask("PUT", f"/v2/images/{image}/stage", body=data, headers={"Content-Type": OCTETS, **more})


def begin(
    caller: Caller, image: str, name: str = "glance-direct", /, *, header: str | None = None, **body: Any
) -> Answer:
    method = {"name": name, **body.pop("method", {})}
    headers = {"X-Image-Meta-Store": header} if header else {}
    return caller.ask("POST", f"/v2/images/{image}/import", json={"method": method, **body}, headers=headers)


def task(caller: Caller, image: str) -> dict[str, Any]:
    """The newest task of an image."""
    found: dict[str, Any] = caller.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"][0]
    return found


def ended(caller: Caller, image: str, seconds: float = 30) -> dict[str, Any]:
    """The newest task of an image, once it has ended."""
    begun = time.monotonic()
    while (found := task(caller, image))["status"] not in ("success", "failure"):
        assert time.monotonic() - begun < quiet(seconds), found
        time.sleep(0.1)
    return found


def await_that(what: Callable[[], object], tell: Callable[[], object] = lambda: "", seconds: float = 30) -> None:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < quiet(seconds), tell()
        time.sleep(0.05)


def set_back(service: Service, statement: str) -> None:
    """Change the database file itself."""
    file = service.sections["database"]["connection"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def flawed() -> Iterator[Flawed]:
    """One on which something goes wrong, when a test says what."""
    server = Flawed(random.Random(9).randbytes(5_000_000))
    yield server
    server.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, web: Nginx, flawed: Flawed) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("imports")
    staging = {"filesystem_store_datadir": folder / "staging"}
    # memory is each process's own: of what the process for long work puts there nobody else knows
    cloud = Cloud(
        folder,
        options={"enabled_backends": "fast:file,slow:file,third:file"},
        os_glance_staging_store=staging,
        third={"filesystem_store_datadir": folder / "third"},
        mem={"weight": None},
        xloud={"job_workers": 1, "reaper_interval": 1},
        import_filtering_opts={"allowed_ports": f"80,443,{web.port},{urlsplit(flawed.url).port}"},
        image_import_opts={"image_import_plugins": "[image_decompression,inject_image_metadata,ovf_process]"},
        inject_metadata_properties={"inject": "imported_by:xloud", "ignore_user_roles": "admin"},
    )
    (cloud.service.directory / "ovf-metadata.json").write_text('{"cim_pasd": ["InstructionSet", "Reservation"]}')
    with cloud.importing():
        yield cloud
