"""kill -9 at each step of each kind of long work: another process takes over within a lease, the image ends as it has to,
and nothing of it is left anywhere. What the table leaves out is proved by walks on which nothing dies."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.long_work import GONE, LEASE, WORK, Scene, Work
from tests.crash.table import KINDS, TABLE, Cell, deaths
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
    found = {(name, letter) for name, letter in found if not name.startswith("reaper.")}
    assert found == {(cell.point, cell.who) for cell in deaths() if cell.kind == kind and cell.who in "AW"}


@pytest.mark.parametrize("cell", deaths(), ids=str)
def test_it_is_killed(scene: Scene, cell: Cell) -> None:
    work = WORK[cell.kind](scene)
    work.prepare()
    before = scene.processes()
    died = {"A": _api, "W": _worker, "w": _worker_alone, "R": _reaper, "U": _undoing}[cell.who](scene, work, cell.point)
    begun = time.monotonic()
    work.end()
    assert time.monotonic() - begun < quiet(LEASE), "not within a lease"
    settled(scene)
    assert died <= set(before)


def _dies(scene: Scene, before: dict[str, int]) -> str:
    """Wait until one has died: its letter."""
    await_that(lambda: scene.dead(before), lambda: "nobody died")
    (who,) = scene.dead(before)
    return who
