"""One cloud for the tests of the API; each leaves alone what the others made."""

from collections.abc import Iterator

import pytest

from tests.api.cloud import Cloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), cors={"allowed_origin": "https://dashboard.example"})
    try:
        cloud.service.start()
        yield cloud
        assert cloud.service.stop() == 0
        assert "Traceback" not in cloud.service.log
    finally:
        cloud.service.kill()
