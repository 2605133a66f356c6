"""Workers that die: one that was well is replaced at once, those that die at once end the service or wait longer."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.points import wait_until
from tests.servers.process import answers
from tests.servers.service import Service
from xloud_image.deaths import GIVE_UP, YOUNG, Death, Record, TooManyDeaths


def workers(service: Service) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()]
    return []


class Killer:
    """Sends a signal to every worker as soon as it is seen, until it is told to stop; for those not yet ready."""

    def __init__(self, service: Service, number: int) -> None:
        self._service, self._number = service, number
        self._end = threading.Event()
        self.killed: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(0.01):
            for pid in workers(self._service):
                if pid not in self.killed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, self._number)
                        self.killed[pid] = time.monotonic()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(count: int, *, slow: bool = False) -> Service:
        """slow: with a Ceph that is not there, so that a worker takes seconds to be ready."""
        sections: dict[str, dict[str, Any]] = {"DEFAULT": {"workers": count}}
        if slow:
            (tmp_path / "ceph.conf").write_text("[global]\nmon_host = 127.0.0.1:9\n")
            sections["DEFAULT"]["enabled_backends"] = "files:file, fast:rbd"
            sections["fast"] = {"rbd_store_ceph_conf": tmp_path / "ceph.conf", "rbd_store_user": "glance"}
        made.append(Service(sections))
        made[-1].prepare()
        made[-1].launch()
        return made[-1]

    yield make
    for one in made:
        one.kill()


def test_workers_that_die_at_once_end_the_service_with_a_sentence(serving: Callable[..., Service]) -> None:
    count = 2
    service = serving(count, slow=True)
    killer = Killer(service, signal.SIGABRT)
    try:
        assert service.wait(240) == 3
    finally:
        killer.stop()
    assert "no worker was ever ready" in service.log
    assert "by SIGABRT" in service.log
    assert "a native library gave up" in service.log
    # some may be what tries ceph.conf, again and again when it is killed
    assert GIVE_UP * count <= len(killer.killed) <= (GIVE_UP + 1) * count + 3
    assert "Traceback" not in service.log


def test_a_worker_that_was_well_is_replaced_at_once(serving: Callable[..., Service]) -> None:
    service = serving(1)
    for _ in range(4):
        assert wait_until(lambda: answers(f"{service.url}/healthcheck", below=400))
        old = workers(service)
        time.sleep(1.1)  # it has told that it is ready
        os.kill(old[0], signal.SIGKILL)
        assert wait_until(lambda old=old: workers(service) not in ([], old))  # type: ignore[misc]
    assert "the next one starts later" not in service.log
    assert service.log.count("by SIGKILL") == 4
    assert service.stop() == 0  # also one that was forked a moment ago ends


def test_a_service_that_was_well_waits_longer_and_comes_back(serving: Callable[..., Service]) -> None:
    service = serving(1)
    assert wait_until(lambda: answers(f"{service.url}/healthcheck", below=400))
    time.sleep(1.1)
    killer = Killer(service, signal.SIGSEGV)
    assert wait_until(lambda: len(killer.killed) >= 4)
    killer.stop()
    times = sorted(killer.killed.values())
    assert times[2] - times[1] >= 0.7  # seconds; the pauses are one and two
    assert times[3] - times[2] >= 1.5
    assert service.log.count("the next one starts later") >= 2
    assert wait_until(lambda: answers(f"{service.url}/healthcheck", below=400))
    assert service.stop() == 0


def death(
    lived: float = 0.1,
    *,
    number: int = signal.SIGABRT,
    code: int | None = None,
    ready: bool = False,
    hung: bool = False,
) -> Death:
    return Death(7, number if code is None else code << 8, lived, ready=ready, hung=hung)


def test_pauses_grow_and_an_old_worker_ends_the_row() -> None:
    now = [0.0]
    record = Record(lambda: now[0])
    pauses = [record.add(death(), workers=1, ever_ready=True) for _ in range(10)]
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not record.may_start
    now[0] = 60
    assert record.may_start
    assert record.add(death(YOUNG), workers=1, ever_ready=True) == 0
    assert record.add(death(), workers=1, ever_ready=True) == 0
    record.add(death(), workers=1, ever_ready=True)
    record.forget()
    assert record.may_start


def test_all_workers_that_die_together_count_once() -> None:
    record = Record(lambda: 0.0)
    assert [record.add(death(), workers=4, ever_ready=False) for _ in range(9)] == [0] * 4 + [1] * 4 + [2]
    for _ in range(GIVE_UP * 4 - 10):
        record.add(death(), workers=4, ever_ready=False)
    with pytest.raises(TooManyDeaths):
        record.add(death(), workers=4, ever_ready=False)


@pytest.mark.parametrize(
    ("one", "young"),
    [
        (death(), True),
        (death(code=255), True),
        (death(number=signal.SIGKILL), True),
        (death(ready=True), True),
        (death(number=signal.SIGKILL, ready=True), False),
        (death(number=signal.SIGTERM), False),
        (death(code=0), False),
        (death(YOUNG, ready=True), False),
    ],
)
def test_which_deaths_count(one: Death, *, young: bool) -> None:
    assert one.young is young


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (death(), "by SIGABRT after 0.1 s, before it was ready: a native library"),
        (death(70, ready=True, hung=True), "by SIGABRT after 70.0 s: its event loop stood still"),
        (death(number=signal.SIGKILL), "out of memory"),
        (death(code=255), "with exit code 255"),
        (death(number=signal.SIGRTMIN + 3), "by signal "),
    ],
)
def test_what_is_said_of_a_death(one: Death, says: str) -> None:
    assert says in str(one)
