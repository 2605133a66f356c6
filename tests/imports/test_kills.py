"""What dies in the middle of an import, or stands still, or is stopped, and what that means for others: each ends right
by itself. One death at each step: tests.crash.test_table."""

import contextlib
import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cloud import Cloud
from tests.crash.points import Armed, service_deaths
from tests.crash.proof import rows
from tests.imports.conftest import await_that, begin, ended, set_back, stage, task
from tests.load import quiet
from tests.servers.process import Process
from tests.servers.service import installed
from xloud_image.services.reaper import LATE

DATA = random.Random(8).randbytes(4_000_000)
SHA = hashlib.sha512(DATA).hexdigest()
LEASE = 5


class Scene:
    """A cloud whose processes can be told where to die."""

    def __init__(self, folder: Path) -> None:
        self.armed = Armed(folder / "failpoints")
        self.cloud = Cloud(
            folder,
            options={"enabled_backends": "fast:file,slow:file"},
            os_glance_staging_store={"filesystem_store_datadir": folder / "staging"},
            mem={"weight": None},
            xloud={"job_workers": 1, "lease_time": LEASE, "reaper_interval": 1},
        )
        self.cloud.service.environment = self.armed.environment

    @property
    def job_worker(self) -> int:
        """The process for long work."""
        line = [one for one in self.cloud.service.log.splitlines() if "ready for long work" in one][-1]
        return int(line.rpartition("pid=")[2].split()[0])

    def can_import(self) -> bool:
        return bool(self.cloud.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])

    def staged(self) -> str:
        image = self.cloud.ann.new()
        assert stage(self.cloud.ann, image, DATA).status == 204
        return image

    def prove(self, image: str, *stores: str) -> None:
        """The image is active with its data in these stores, and nothing else of it is anywhere."""
        shown = self.cloud.ann.show(image)
        assert (shown["status"], shown["os_hash_value"], shown["stores"]) == ("active", SHA, ",".join(stores))
        assert self.cloud.ann.download(image).body == DATA
        self.nothing_left(image, stores)

    def nothing_left(self, image: str, stores: tuple[str, ...] = ()) -> None:
        there = {"staging": 0, **{name: int(name in stores) for name in ("fast", "slow")}}
        await_that(lambda: {name: len(self.files(name, image)) for name in there} == there, lambda: self.left(image))
        await_that(lambda: not rows(self.cloud.service, f"SELECT id FROM xloud_claims WHERE image_id = '{image}'"))
        assert not rows(self.cloud.service, f"SELECT id FROM xloud_jobs WHERE image_id = '{image}'")

    def files(self, store: str, image: str) -> list[str]:
        return [name for name in self.cloud.files(store) if image in name]

    def left(self, image: str) -> str:
        return str({name: self.files(name, image) for name in ("staging", "fast", "slow")})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("armed"))
    try:
        scene.cloud.service.start()
        await_that(scene.can_import)
        yield scene
    finally:
        scene.cloud.service.kill()


@pytest.fixture(autouse=True)
def disarmed(scene: Scene) -> Iterator[None]:
    yield
    scene.armed.disarm()


def test_what_an_earlier_write_left_does_not_touch_a_later_one(scene: Scene) -> None:
    """A store gave up the bytes of a failed import late: the image has other data staged by then."""
    image = scene.staged()
    set_back(
        scene.cloud.service,
        "INSERT INTO xloud_claims (id, kind, image_id, store, slot, url, scope, begun_at, attempts)"
        f" VALUES ('left', 'write', '{image}', 'slow', 'write', '{image}-00000000', 'image',"
        " '2026-01-01 00:00:00.000000', 3)",
    )
    of_it = "FROM xloud_claims WHERE id = 'left'"
    await_that(lambda: rows(scene.cloud.service, f"SELECT error {of_it}") == [(LATE,)])
    assert scene.cloud.ann.show(image)["status"] == "uploading"
    set_back(scene.cloud.service, "UPDATE xloud_claims SET lease_until = NULL WHERE id = 'left'")  # the second look
    await_that(lambda: not rows(scene.cloud.service, f"SELECT id {of_it}"))
    assert scene.cloud.ann.show(image)["status"] == "uploading"
    assert begin(scene.cloud.ann, image).status == 202
    assert ended(scene.cloud.ann, image)["status"] == "success"
    scene.prove(image, "fast")


def test_a_job_that_kills_its_process_is_given_up(scene: Scene) -> None:
    image = scene.staged()
    before = len(service_deaths(scene.cloud.service))
    scene.armed.arm("job.half")
    assert begin(scene.cloud.ann, image).status == 202
    done = ended(scene.cloud.ann, image, 120)
    assert done["status"] == "failure"
    assert "tried 5 times" in done["message"]
    assert len(service_deaths(scene.cloud.service)) == before + 5
    assert scene.cloud.ann.show(image)["status"] == "queued"
    scene.nothing_left(image)


def test_what_ran_beside_a_job_that_kills_its_process_does_not_fail_with_it(scene: Scene) -> None:
    """Five processes die of it, the last three with nothing else under way."""
    others, poison = [scene.staged() for _ in range(2)], scene.staged()
    scene.armed.arm("job.half", action="sleep:3")
    for image in (*others, poison):
        assert begin(scene.cloud.ann, image).status == 202
    held: dict[str, int] = {}
    while poison in (there := dict(rows(scene.cloud.service, "SELECT image_id, holder FROM xloud_jobs"))):
        holders = [holder for holder in there.values() if holder and holder not in held]
        if there[poison] in holders and (5 > len(held) >= 2 or len(holders) == 3):
            held[there[poison]] = len(holders)
            os.kill(int(there[poison].split("/")[3]), signal.SIGKILL)
        time.sleep(0.02)
    assert list(held.values()) == [3, 3, 1, 1, 1]
    assert "tried 5 times" in task(scene.cloud.ann, poison)["message"]
    scene.nothing_left(poison)
    for image in others:
        assert ended(scene.cloud.ann, image)["status"] == "success"
        scene.prove(image, "fast")


def test_deleting_the_image_ends_its_import(scene: Scene) -> None:
    image = scene.staged()
    scene.armed.arm("job.half", action="sleep:600")
    assert begin(scene.cloud.ann, image).status == 202
    await_that(lambda: scene.files("fast", image))
    identity = task(scene.cloud.ann, image)["id"]
    assert scene.cloud.ann.delete(image).status == 204
    begun = time.monotonic()
    await_that(lambda: scene.cloud.admin.ask("GET", f"/v2/tasks/{identity}").json()["status"] == "failure")
    assert time.monotonic() - begun < quiet(5)
    assert "cancelled" in scene.cloud.admin.ask("GET", f"/v2/tasks/{identity}").json()["message"]
    scene.nothing_left(image)


def test_one_that_stood_still_beyond_its_lease_changes_nothing(scene: Scene) -> None:
    image = scene.staged()
    scene.armed.arm("job.half", action=f"sleep:{LEASE}")
    assert begin(scene.cloud.ann, image).status == 202
    await_that(lambda: scene.files("fast", image))
    asleep = scene.job_worker
    os.kill(asleep, signal.SIGSTOP)
    try:
        scene.armed.disarm()
        with other_worker(scene):
            assert ended(scene.cloud.ann, image)["status"] == "success"
            shown = scene.cloud.ann.show(image)
            os.kill(asleep, signal.SIGCONT)
            await_that(lambda: "a job went to another process" in scene.cloud.service.log)
    finally:
        os.kill(asleep, signal.SIGCONT)
    assert scene.cloud.ann.show(image) == shown
    scene.prove(image, "fast")


@contextlib.contextmanager
def other_worker(scene: Scene) -> Iterator[Process]:
    """One more process for long work, as on another node."""
    service = scene.cloud.service
    process = Process(
        "worker",
        [*installed(), "worker", "--config-file", service.configuration],
        log=service.directory / f"worker-{time.monotonic_ns()}",
        directory=service.directory,
        environment={"PYTHONUNBUFFERED": "1", **scene.armed.environment},
    )
    try:
        process.wait_for(lambda: "ready for long work" in process.output())
        yield process
    finally:
        process.stop()
    assert "Traceback" not in process.output()


def test_a_changed_configuration_does_not_begin_an_import_anew(scene: Scene) -> None:
    """SIGHUP: the old process finishes what it does, and another takes what comes; at the next one it hands over."""
    first, second = scene.staged(), scene.staged()
    old, before = scene.job_worker, len(service_deaths(scene.cloud.service))
    scene.armed.arm("job.half", action=f"sleep:{quiet(6):.0f}")
    await_that(lambda: begin(scene.cloud.ann, first).status == 202)
    await_that(lambda: scene.files("fast", first))
    scene.armed.disarm()
    os.kill(scene.cloud.service.pid, signal.SIGHUP)
    await_that(lambda: scene.job_worker != old)
    await_that(lambda: begin(scene.cloud.ann, second).status == 202)
    assert ended(scene.cloud.ann, second)["status"] == "success"
    assert ended(scene.cloud.ann, first)["status"] == "success"
    begun = [line for line in scene.cloud.service.log.splitlines() if "a job begins" in line and first in line]
    assert len(begun) == 1
    await_that(lambda: not alive(old))
    assert len(service_deaths(scene.cloud.service)) == before
    scene.prove(first, "fast")
    scene.prove(second, "fast")


def test_a_second_change_hands_over_what_is_still_under_way(scene: Scene) -> None:
    image = scene.staged()
    old = scene.job_worker
    scene.armed.arm("job.half", action="sleep:600")
    await_that(lambda: begin(scene.cloud.ann, image).status == 202)
    await_that(lambda: scene.files("fast", image))
    scene.armed.disarm()
    for _ in range(2):
        there = scene.job_worker
        os.kill(scene.cloud.service.pid, signal.SIGHUP)
        await_that(lambda there=there: scene.job_worker != there)  # type: ignore[misc]
    await_that(lambda: not alive(old))
    assert ended(scene.cloud.ann, image)["status"] == "success"
    scene.prove(image, "fast")


def alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def test_a_stop_hands_the_work_over(scene: Scene) -> None:
    image = scene.staged()
    with other_worker(scene) as other:
        os.kill(scene.job_worker, signal.SIGSTOP)  # so that the other one takes it
        try:
            scene.armed.arm("job.half", action="sleep:600")
            assert begin(scene.cloud.ann, image).status == 202
            await_that(lambda: scene.files("fast", image))
            assert "a job begins" in other.output()
            scene.armed.disarm()
        finally:
            os.kill(scene.job_worker, signal.SIGCONT)
        begun = time.monotonic()
        assert other.stop() == 0
        assert ended(scene.cloud.ann, image)["status"] == "success"
        assert time.monotonic() - begun < quiet(LEASE), "not when its lease was over"
    scene.prove(image, "fast")
    found = rows(scene.cloud.service, "SELECT count(*) FROM xloud_workers")
    assert found[0][0] >= 1
