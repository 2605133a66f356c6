"""Fixtures for every test: real servers, started when the first test asks and shared by the session.

A server that is not installed: the tests that ask for it fail when CI=true, else are skipped, and the end
of the output says so. The files of a session are in `.test-state` and go with it, unless a test failed.
"""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from tests.servers import Missing, place
from tests.servers.client import OpenStack
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.memcached import Memcached
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.service import Service

CI = os.environ.get("CI") == "true"

missing_servers = pytest.StashKey[set[str]]()
remarks = pytest.StashKey[list[str]]()


class Server(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...


AnyServer = TypeVar("AnyServer", bound=Server)


# the session


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[missing_servers] = set()
    config.stash[remarks] = []
    run = place.run_directory()
    temporary = run / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    if config.option.basetemp is None:
        config.option.basetemp = run / "pytest"


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    result = yield
    # the fixtures have stopped everything; children of a killed process may still be on their way out
    end = time.monotonic() + 5
    while (left := place.left_processes()) and time.monotonic() < end:
        time.sleep(0.1)
    for pid, words in left:
        session.config.stash[remarks].append(f"left running by the tests, killed: {pid} {words}")
        os.kill(pid, signal.SIGKILL)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.testsfailed:
        place.keep("a test failed")
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for remark in config.stash[remarks]:
        terminalreporter.write_line(remark, yellow=True)
    missing: set[str] = config.stash[missing_servers]
    if missing:
        terminalreporter.section("NOT TESTED: servers are missing", red=True, bold=True)
        for line in sorted(missing):
            terminalreporter.write_line(line, red=True, bold=True)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"the files of this session stay in {place.run_directory()}")


def _not_there(config: pytest.Config, error: Missing) -> None:
    config.stash[missing_servers].add(str(error))
    if CI:
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def _running(config: pytest.Config, make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    try:
        server = make()
        server.start()
    except Missing as error:
        _not_there(config, error)
        return
    yield server
    server.close()


# the servers


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> Iterator[PostgreSQL]:
    """A PostgreSQL; `create_database()` gives the address of an empty database."""
    yield from _running(pytestconfig, PostgreSQL)


@pytest.fixture(scope="session")
def mariadb(pytestconfig: pytest.Config) -> Iterator[MariaDB]:
    """A MariaDB; `create_database(charset="utf8")` gives the address of an empty database."""
    yield from _running(pytestconfig, MariaDB)


@pytest.fixture(scope="session")
def memcached(pytestconfig: pytest.Config) -> Iterator[Memcached]:
    """A memcached; its `address` goes into `memcached_servers`."""
    yield from _running(pytestconfig, Memcached)


@pytest.fixture(scope="session")
def keystone(pytestconfig: pytest.Config) -> Iterator[Keystone]:
    """A Keystone that all tests share: a test that stops it makes its own instead."""
    yield from _running(pytestconfig, Keystone)


@pytest.fixture
def nginx(pytestconfig: pytest.Config) -> Iterator[Callable[..., Nginx]]:
    """Makes servers: `nginx(upstream=url)` or `nginx(files=folder)` is one that runs. More in `Nginx`."""
    with contextlib.ExitStack() as stack:

        def make(**how: Any) -> Nginx:
            running = _running(pytestconfig, lambda: Nginx(**how))
            one = next(running)
            stack.callback(one.close)
            return one

        yield make


@pytest.fixture
def openstack(pytestconfig: pytest.Config) -> OpenStack:
    """The `openstack` command, with no cloud yet: see `OpenStack.clouds` and `Keystone.clouds()`."""
    try:
        return OpenStack()
    except Missing as error:
        _not_there(pytestconfig, error)
        raise


# the service


class ServiceFactory(Protocol):
    def __call__(
        self,
        sections: dict[str, dict[str, Any]] | None = None,
        *,
        start: bool = True,
        tracebacks: bool = False,
        **how: Any,
    ) -> Service: ...


@pytest.fixture
def service() -> Iterator[ServiceFactory]:
    """Makes services: `service(sections)` is one that runs. More in `Service`.

    At the end of the test each one is stopped; one that does not end with code 0 (and was not killed), or
    that logged a traceback (unless `tracebacks`), fails the test.
    """
    made: list[tuple[Service, bool]] = []

    def make(
        sections: dict[str, dict[str, Any]] | None = None,
        *,
        start: bool = True,
        tracebacks: bool = False,
        **how: Any,
    ) -> Service:
        one = Service(sections, **how)
        made.append((one, tracebacks))
        if start:
            one.start()
        return one

    yield make
    complaints = []
    for one, tracebacks in made:
        if not one.started:
            continue
        running = one.exit_code is None
        code = one.stop() if running else 0
        if code:
            complaints.append(f"ended with {code}:\n{one.log[-4000:]}")
        elif "Traceback" in one.log and not tracebacks:
            complaints.append(f"logged a traceback:\n{one.log[-8000:]}")
    assert not complaints, "\n".join(complaints)
