"""One service for all tests of this folder, because each must leave it as it was."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.bad_input import STALL
from tests.servers.service import Service
from tests.stores import mounts


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a store `small` of 4 MiB, which takes the right to mount."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("small")
        stack.enter_context(mounts.tmpfs(folder, "4m"))
        one = Service(
            {
                "DEFAULT": {"enabled_backends": "files:file,small:file", "client_socket_timeout": STALL},
                "small": {"filesystem_store_datadir": folder},
            }
        )
        one.start()
        stack.callback(one.kill)
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log


@pytest.fixture(autouse=True)
def _nothing_is_left(service: Service) -> Iterator[None]:
    """No data, no temporary file, no image in the middle of something; and it goes on serving."""
    yield
    deadline = time.monotonic() + 5
    folders = [service.images, Path(service.sections["small"]["filesystem_store_datadir"])]
    while (left := [str(path) for folder in folders for path in folder.rglob("*")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    images = service.request("GET", "/v2/images?limit=1000").json()["images"]
    assert {image["status"] for image in images} <= {"queued"}
    for image in images:
        assert service.request("DELETE", f"/v2/images/{image['id']}").status == 204
