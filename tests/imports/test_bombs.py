"""Data that become more than they seem, or are not what they are said to be, by every way of import through a real
service: none becomes an image, each is told in its task, and nothing of it is left: no object, no file of work under
way, no row. What stages and inspection make of each: tests.streams, tests.formats, tests.conversion."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.crash.long_work import QEMU_IMG, REGION, Scene
from tests.formats import build, hostile
from tests.formats.test_inside import PACKERS
from tests.imports.conftest import await_that, begin, set_back, stage, task
from tests.servers.keystone import Keystone
from tests.uploads.conftest import Sender

pytestmark = pytest.mark.timeout(600)

MIB = 1 << 20
CAP, QUOTA = 8 * MIB, 48 * MIB
PACKINGS = ("gzip", "zip", "xz", "zstd", "bzip2")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("bombs")
    for path in (folder.parent, folder):
        path.chmod(0o755)  # qemu reads as another user
    scene = Scene(folder, keystone, DEFAULT={"image_size_cap": CAP, "user_storage_quota": f"{QUOTA}B"})
    try:
        scene.start()
        yield scene
        assert "Traceback" not in scene.service.log
    finally:
        scene.close()


def staged(scene: Scene, image: str, name: str, data: bytes) -> None:
    assert stage(scene.ann, image, data).status == 204
    assert begin(scene.ann, image).status == 202


def in_several_requests(scene: Scene, image: str, name: str, data: bytes) -> None:
    sender = Sender(scene.ann, image, kind="stage")
    half = len(data) // 2
    assert sender.begin(data[:half]).status == 201
    assert sender.last(half, data[half:]).status == 204
    assert begin(scene.ann, image).status == 202


def from_a_url(scene: Scene, image: str, name: str, data: bytes) -> None:
    number = str(len(scene.origin.data))
    scene.origin.data[number] = data
    assert begin(scene.ann, image, "web-download", method={"uri": scene.origin.url(number)}).status == 202


def from_another_region(scene: Scene, image: str, name: str, data: bytes) -> None:
    """Whose service took it, whatever it is, and says the format that it is claimed to be."""
    claim = scene.ann.show(image)["disk_format"]
    there = scene.there.new(b"harmless")
    (scene.far.images / there).write_bytes(data)
    digest = hashlib.sha512(data).hexdigest()
    values = f"size = {len(data)}, checksum = NULL, os_hash_value = '{digest}', disk_format = '{claim}'"
    set_back(scene.far, f"UPDATE images SET {values} WHERE id = '{there}'")
    method = {"glance_region": REGION, "glance_image_id": there}
    assert begin(scene.ann, image, "glance-download", method=method).status == 202


Way = Callable[[Scene, str, str, bytes], None]
WAYS: list[Way] = [staged, in_several_requests, from_a_url, from_another_region]
by_every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def refused(
    scene: Scene, way: Way, samples: Mapping[str, tuple[str, bytes]], *said: str, one_by_one: bool = False
) -> None:
    """None of the samples (claimed format and data) becomes an image; the tasks say why, in one of these words."""
    images = {}
    for name, (claim, data) in samples.items():
        images[name] = scene.ann.new(disk_format=claim)
        way(scene, images[name], name, data)
        if one_by_one:
            await_ended(scene, images[name])
    for name, image in images.items():
        await_ended(scene, image)
        done, shown = task(scene.ann, image), scene.ann.show(image)
        assert done["status"] == "failure", (name, done)
        assert any(word in done["message"] for word in said), (name, done["message"])
        assert len(done["message"]) > 40, (name, done["message"])
        assert (shown["status"], shown["size"], shown["virtual_size"]) == ("queued", None, None), name
    nothing_left(scene)


def await_ended(scene: Scene, image: str) -> None:
    await_that(lambda: task(scene.ann, image)["status"] in ("success", "failure"), seconds=60)


def nothing_left(scene: Scene) -> None:
    def left() -> list[str]:
        # which stores an import failed for is told in a property, until the next one
        return [one for one in scene.left() if "os_glance_failed_import" not in one]

    await_that(lambda: not left(), left)


@pytest.fixture(scope="module")
def bombs() -> dict[str, tuple[str, bytes]]:
    """Zeros, of which 64 MiB come out."""
    return {name: ("raw", PACKERS[name](bytes(64 * MIB))) for name in PACKINGS}


def disk(folder: Path, size: int) -> bytes:
    """A qcow2 with nothing in it."""
    path = folder / "empty.qcow2"
    subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", str(path), str(size)], check=True, capture_output=True)
    return path.read_bytes()


@by_every_way
def test_more_comes_out_than_an_image_may_have(
    scene: Scene, way: Way, bombs: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    empty = disk(tmp_path, 1 << 40)
    more = {"an empty disk": ("qcow2", empty), "an empty disk in gzip": ("qcow2", PACKERS["gzip"](empty))}
    refused(scene, way, bombs | more, "larger than", "more than the")


@by_every_way
def test_a_disk_that_lies_about_its_size(scene: Scene, way: Way, tmp_path: Path) -> None:
    good = disk(tmp_path, 2 * MIB)
    lies = {
        "exbibytes": build.qcow2(size=1 << 60),
        "more than its tables hold": build.qcow2(cluster_bits=9, size=4 * MIB),
        "tables behind its end": good[: len(good) // 2],
        "another size than it began with": good[:24] + (3 * MIB // 2 + 77).to_bytes(8, "big") + good[32:],
        "tables far away": build.qcow2(l1=1 << 50),
        "tables without end": build.qcow2(l1_entries=1 << 30),
    }
    refused(scene, way, {name: ("qcow2", data) for name, data in lies.items()}, "")


@by_every_way
def test_what_is_only_hostile_where_the_claim_is_believed(scene: Scene, way: Way) -> None:
    samples = {name: ("vmdk", data) for name, data in hostile.CLAIMED.items()}
    samples |= {name: ("vhd", data) for name, data in hostile.CLAIMED_VHD.items()}
    refused(scene, way, samples, "")


@pytest.fixture(scope="module")
def full(scene: Scene) -> Iterator[None]:
    """The project has room for 4 MiB more."""
    kept = [scene.ann.new(bytes(size)) for size in (*[CAP] * 5, CAP // 2)]
    yield
    for image in kept:
        assert scene.ann.delete(image).status == 204


@by_every_way
@pytest.mark.usefixtures("full")
def test_more_comes_out_than_the_project_may_have(
    scene: Scene, way: Way, bombs: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    zeros = {
        "zeros": ("raw", PACKERS["gzip"](bytes(6 * MIB))),
        "an empty disk": ("qcow2", disk(tmp_path, 6 * MIB)),
    }
    refused(scene, way, bombs | zeros, "quota", "may have", one_by_one=True)
