"""One service with all seven stores for the tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory
from tests.servers.rgw import Rgw
from tests.servers.service import Service
from tests.servers.swift import Swift
from tests.servers.vsphere import Vsphere
from tests.together.everything import Client, Everything


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder that the web server serves."""
    return new_directory("site")


@pytest.fixture(scope="module")
def web(site: Path) -> Iterator[Nginx]:
    server = Nginx(files=site)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def everything(ceph: Ceph, rgw: Rgw, swift: Swift, vsphere: Vsphere, cinder: Cinder, web: Nginx) -> Everything:
    return Everything(
        ceph=ceph,
        rgw=rgw,
        swift=swift,
        vsphere=vsphere,
        cinder=cinder,
        web=web,
        directory=new_directory("together"),
    )


@pytest.fixture(scope="module")
def running(everything: Everything) -> Iterator[Callable[..., Service]]:
    """Makes services with all seven stores and further sections; each must end well and log no traceback."""
    made: list[Service] = []

    def make(more: dict[str, dict[str, object]] | None = None) -> Service:
        one = Service(everything.sections)
        one.configure(more or {})
        made.append(one)
        one.start(60)
        return one

    yield make
    for one in made:
        assert one.exit_code is None, one.log[-4000:]
        assert one.stop(60) == 0, one.log[-4000:]
        assert "Traceback" not in one.log, one.log[-8000:]


@pytest.fixture(scope="module")
def seven(running: Callable[..., Service]) -> Service:
    """A service with all seven stores and the options as they are by default."""
    return running()


@pytest.fixture
def client(seven: Service) -> Client:
    return Client(seven)
