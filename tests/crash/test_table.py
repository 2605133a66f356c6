"""kill -9 at each step of each kind of long work: another process takes over within a lease, the image ends as it has
to, and nothing of it is left anywhere. What the table leaves out is proved by walks on which nothing dies."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.crash.long_work import GONE, LEASE, WORK, Move, Scene, ToQcow2, Work, until
from tests.crash.points import service_deaths, workers
from tests.crash.table import DEATHS, KINDS, TABLE, Cell
from tests.imports.conftest import await_that
from tests.load import quiet
from tests.servers.keystone import Keystone
from xloud_image import failpoints

pytestmark = pytest.mark.timeout(300)


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(kind, point) for kind in WORK for point in failpoints.POINTS}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("table")
    for path in (folder.parent, folder):
        path.chmod(0o755)  # qemu reads and writes as another user
    scene = Scene(folder, keystone)
    try:
        scene.start()
        yield scene
        assert "Traceback" not in scene.service.log
    finally:
        scene.close()


@pytest.fixture(autouse=True)
def disarmed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "scene" in request.fixturenames:
        request.getfixturevalue("scene").armed.disarm()


def settled(scene: Scene) -> None:
    await_that(lambda: not scene.left(), scene.left)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_dies_these_steps_are_passed(scene: Scene, kind: str, tmp_path: Path) -> None:
    """So a step that has no letter for this kind is one that it does not pass."""
    work = WORK[kind](scene)
    work.prepare()
    settled(scene)
    passed = tmp_path / "passed"
    passed.touch()
    who = {pid: letter for letter, pid in scene.processes().items()}
    scene.armed.arm(*failpoints.POINTS, action=f"note:{passed}")
    for ask in work.ask():
        ask()
    work.end()
    settled(scene)
    scene.armed.disarm()
    found = {(name, who[int(pid)]) for name, pid in (line.split() for line in passed.read_text().splitlines())}
    found = {(name, letter) for name, letter in found if TABLE[kind, name] not in ("R", "L")}
    assert found == {(cell.point, cell.who) for cell in DEATHS if cell.kind == kind and cell.who in "AW"}


@pytest.mark.parametrize("cell", DEATHS, ids=str)
def test_it_is_killed(scene: Scene, cell: Cell) -> None:
    work = WORK[cell.kind](scene, cell.point)
    work.prepare()
    HOW[cell.who](scene, work, cell.point)
    begun = time.monotonic()
    work.end()
    assert time.monotonic() - begun < quiet(LEASE), "another did not go on within a lease"
    settled(scene)


def dies(scene: Scene, who: str, calls: Iterable[Callable[[], object]]) -> None:
    """The process with this letter does, in one of these calls."""
    before = scene.processes()
    with contextlib.suppress(*GONE):
        for call in calls:
            call()
    await_that(lambda: scene.dead(before), lambda: "nobody died")
    assert scene.dead(before) == {who}


def _api(scene: Scene, work: Work, point: str) -> None:
    scene.armed.arm(point)
    dies(scene, "A", work.ask())
    scene.armed.disarm()


def _worker(scene: Scene, work: Work, point: str) -> None:
    *first, last = work.ask()
    for call in first:
        call()
    scene.armed.arm(point)
    dies(scene, "W", [last])
    scene.armed.disarm()


def _undoing(scene: Scene, work: Work, point: str) -> None:
    scene.armed.arm(point)
    dies(scene, "A", [work.ask_wrongly])
    scene.armed.disarm()


def _reaper(scene: Scene, work: Work, point: str) -> None:
    """Whoever is the first to see what the death before it left."""
    *first, last = work.ask()
    for call in first if work.FIRST.startswith("job.") else ():
        call()
    before = len(service_deaths(scene.service))
    scene.armed.arm_each({work.FIRST: "kill", point: "kill"})
    with contextlib.suppress(*GONE):
        for call in [last] if work.FIRST.startswith("job.") else [*first, last]:
            call()
    await_that(lambda: len(service_deaths(scene.service)) > before, lambda: "nobody died")
    # so that the reaper is there before the job is taken again
    scene.armed.arm_each({point: "kill", "job.taken": "sleep:2"})
    await_that(lambda: len(service_deaths(scene.service)) >= before + 2, lambda: "no reaper died")
    scene.armed.disarm()


def _worker_alone(scene: Scene, work: Work, point: str) -> None:
    """While the process of the API, which would do it itself, stands still."""
    (register,) = work.ask()
    api, before = scene.processes()["A"], len(service_deaths(scene.service))
    scene.armed.arm_each({"location.stored": "sleep:2", point: "kill"})
    asking = threading.Thread(target=register)
    asking.start()
    try:
        await_that(lambda: scene.query("SELECT id FROM xloud_claims WHERE kind = 'hash'"))
        os.kill(api, signal.SIGSTOP)
        await_that(lambda: len(service_deaths(scene.service)) > before, lambda: "nobody died")
        assert api in workers(scene.service)
        scene.armed.disarm()
    finally:
        os.kill(api, signal.SIGCONT)
        asking.join()


def _later(scene: Scene, work: Work, point: str) -> None:
    assert isinstance(work, Move)
    for call in work.ask():
        call()
    until(work.is_done)
    before = len(service_deaths(scene.service))
    scene.armed.arm(point)
    work.hour_later()
    await_that(lambda: len(service_deaths(scene.service)) > before, lambda: "nobody died")
    scene.armed.disarm()
    scene.processes()
    # what the dead one had is taken by another; that it would have waited is proved where nothing dies
    await_that(lambda: len(scene.stored(work.image)) == 1)
    work.check = lambda: work.has("slow")  # type: ignore[method-assign]


HOW = {"A": _api, "W": _worker, "w": _worker_alone, "R": _reaper, "U": _undoing, "L": _later}


def test_it_is_killed_while_qemu_writes(scene: Scene) -> None:
    """Which is a child of it, and dies with it; its directory goes with it."""
    work = ToQcow2(scene)
    work.prepare()
    stage, begin = work.ask()
    stage()
    worker = scene.processes()["W"]
    place: list[Path] = []
    qemu: list[int] = []

    def watch() -> None:
        until_then = time.monotonic() + quiet(30)
        while not qemu and time.monotonic() < until_then:
            place[:] = (scene.folder / "work").glob("xloud-work-*/conversion-*")
            if place:
                qemu.extend(descendants(worker))
            time.sleep(0.001)
        os.kill(worker, signal.SIGKILL)

    watching = threading.Thread(target=watch)
    watching.start()
    begin()
    watching.join()
    assert qemu, "it was not there"
    await_that(lambda: not any(Path(f"/proc/{pid}").exists() for pid in qemu))
    work.end()
    settled(scene)
    assert not place[0].exists()


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [one for child in children for one in (child, *descendants(child))]
