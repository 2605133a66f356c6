"""Fixtures for every test: real servers, started when the first test asks and shared by the session.

A server that is not installed: the tests that ask for it fail when CI=true, else are skipped, and the end
of the output says so. The files of a session are in `.test-state` and go with it, unless a test failed.
"""

import contextlib
import gc
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol, TypeVar

import hypothesis
import pytest
import structlog

from tests import turns
from tests.servers import Missing, place, programs
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.client import OpenStack
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.memcached import Memcached
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.rgw import Rgw
from tests.servers.service import Service
from tests.servers.swift import Swift
from tests.servers.vsphere import Vsphere

pytest_plugins = ["tests.journal"]
CI = os.environ.get("CI") == "true"
# no test asks how fast the machine is
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any speed")

missing_servers = pytest.StashKey[set[str]]()
remarks = pytest.StashKey[list[str]]()
SLOWEST = 10  # files that the end of the output names


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
    # some clients keep things in the home folder
    home = run / "home"
    home.mkdir(exist_ok=True)
    os.environ["HOME"] = str(home)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    turns.begin(run)
    if config.option.basetemp is None:
        config.option.basetemp = run / "pytest"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs Cinder waits for its start, and that of all it stands on: minutes beside other runs."""
    for item in items:
        if "cinder" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    result = yield
    programs.end()
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
    spent: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                file = report.nodeid.partition("::")[0]
                spent[file] = spent.get(file, 0.0) + report.duration
    if len(spent) > SLOWEST:
        slowest = sorted(spent.items(), key=lambda item: -item[1])[:SLOWEST]
        terminalreporter.write_line("the slowest files: " + ", ".join(f"{file} {took:.0f} s" for file, took in slowest))
    journal = config.pluginmanager.get_plugin("the journal")
    if journal is not None and len(journal.taken) > SLOWEST:
        most = sorted(journal.taken.items(), key=lambda item: -item[1])[:SLOWEST]
        terminalreporter.write_line(
            f"of the processor {sum(journal.taken.values()):.0f} s, most by: "
            + ", ".join(f"{file} {took:.0f} s" for file, took in most)
        )
    if told := turns.worst():
        terminalreporter.write_line(told)
    for remark in config.stash[remarks]:
        terminalreporter.write_line(remark, yellow=True)
    missing: set[str] = config.stash[missing_servers]
    if missing:
        terminalreporter.section("NOT TESTED: servers are missing", red=True, bold=True)
        for line in sorted(missing):
            terminalreporter.write_line(line, red=True, bold=True)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"the files of this session stay in {place.run_directory()}")


@contextlib.contextmanager
def _missing_is_said(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except Missing as error:
        config.stash[missing_servers].add(str(error))
        if CI:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    with _missing_is_said(item.config):
        return (yield)


@pytest.fixture(autouse=True)
def _the_loop_turns(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which one turn of an event loop took too much processor time, here or in a service."""
    yield  # set up first, hence called last: the services of the test have ended
    long = turns.new()
    if request.node.get_closest_marker("long_turns") is None:
        assert not long, "an event loop stood still:\n" + "\n".join(long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    with _missing_is_said(item.config):
        return (yield)


def _running(server: AnyServer) -> Iterator[AnyServer]:
    try:
        server.start()
        yield server
    finally:
        server.close()


# the servers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL; `create_database()` gives the address of an empty database."""
    yield from _running(PostgreSQL())


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB; `create_database(charset="utf8")` gives the address of an empty database."""
    yield from _running(MariaDB())


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    """A memcached; its `address` goes into `memcached_servers`."""
    yield from _running(Memcached())


@pytest.fixture(scope="session")
def keystone() -> Iterator[Keystone]:
    """A Keystone that all tests share: a test that stops it makes its own instead."""
    yield from _running(Keystone())


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """A Ceph that all tests share: a test that breaks it repairs it, or makes its own instead."""
    yield from _running(Ceph())


@pytest.fixture(scope="session")
def rgw(ceph: Ceph) -> Iterator[Rgw]:
    """S3 over http and https that all tests share; a test that stops it starts it again."""
    yield from _running(Rgw(ceph))


@pytest.fixture(scope="session")
def swift(keystone: Keystone) -> Iterator[Swift]:
    """A Swift that knows the callers of `keystone` and that all tests share: a test that freezes it thaws it."""
    yield from _running(Swift(keystone))


@pytest.fixture(scope="session")
def vsphere() -> Iterator[Vsphere]:
    """A vCenter (its simulator) that all tests share; a test that stops it makes its own."""
    yield from _running(Vsphere())


@pytest.fixture(scope="session")
def cinder(keystone: Keystone, mariadb: MariaDB, ceph: Ceph) -> Iterator[Cinder]:
    """A Cinder whose volumes can be attached here; a test that freezes a part of it thaws it."""
    yield from _running(Cinder(keystone, mariadb, ceph))


@pytest.fixture
def nginx() -> Iterator[Callable[..., Nginx]]:
    """Makes servers: `nginx(upstream=url)` or `nginx(files=folder)` is one that runs. More in `Nginx`."""
    with contextlib.ExitStack() as stack:

        def make(**how: Any) -> Nginx:
            one = Nginx(**how)
            stack.callback(one.close)
            one.start()
            return one

        yield make


@pytest.fixture
def openstack() -> OpenStack:
    """The `openstack` command, with no cloud yet: see `OpenStack.clouds` and `Keystone.clouds()`."""
    return OpenStack()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The collector walks everything that the other tests left; that is no time of what is measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Logging without a handler, to be set up by the test; afterwards it is as it was, for the tests that read it."""
    root, known = logging.getLogger(), logging.root.manager.loggerDict
    handlers = [*root.handlers]
    levels = {None: root.level} | {name: logging.getLogger(name).level for name in known}
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    for name in (None, *known):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    structlog.reset_defaults()


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
