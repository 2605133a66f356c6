"""Every hostile image by every way that leads to an active image: each is refused before that, with a reason, and
nothing of it is left. Plain uploads have theirs in tests.formats.test_upload."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.api.cloud import Cloud
from tests.formats import hostile
from tests.formats.test_inside import PACKERS
from tests.imports.conftest import await_that, begin, stage
from tests.load import quiet
from tests.servers.nginx import Nginx
from tests.uploads.conftest import Sender

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLAIMS = ("raw", "qcow2", "vmdk", "vhd")


@pytest.fixture(scope="module")
def folder(web: Nginx) -> Iterator[Path]:
    assert web.files is not None
    folder = Path(web.files)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def refused(cloud: Cloud, images: Mapping[str, str]) -> None:
    """Each image (by the name of its sample) has a task that failed with a reason, and no data."""
    waiting = dict(images)
    end = time.monotonic() + quiet(120)
    while waiting:
        assert time.monotonic() < end, waiting
        for name, image in list(waiting.items()):
            task = cloud.admin.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"][0]
            if task["status"] in ("success", "failure"):
                del waiting[name]
                assert task["status"] == "failure", (name, task)
                assert len(task["message"]) > 40, (name, task)
                shown = cloud.admin.show(image)
                assert (shown["status"], shown["size"], shown["virtual_size"]) == ("queued", None, None), name
        time.sleep(0.1)
    nothing_left(cloud, images)


def nothing_left(cloud: Cloud, images: Mapping[str, str]) -> None:
    known = set(images.values())

    def left() -> list[str]:
        names = [name for store in ("fast", "slow", "third", "staging") for name in cloud.files(store)]
        return [name for name in names if any(image in name for image in known)]

    await_that(lambda: not left(), left)
    for image in known:
        assert cloud.admin.delete(image).status == 204


def staged(cloud: Cloud, samples: Mapping[str, bytes], container: Callable[[str], str]) -> None:
    images = {}
    for (name, data), claim in zip(samples.items(), itertools.cycle(CLAIMS)):
        images[name] = image = cloud.admin.new(disk_format=claim, container_format=container(name))
        assert stage(cloud.admin, image, data).status == 204
        assert begin(cloud.admin, image).status == 202
    refused(cloud, images)


def downloaded(
    cloud: Cloud, web: Nginx, folder: Path, samples: Mapping[str, bytes], container: Callable[[str], str]
) -> None:
    images = {}
    for number, ((name, data), claim) in enumerate(zip(samples.items(), itertools.cycle(CLAIMS))):
        (folder / f"{number}.img").write_bytes(data)
        images[name] = image = cloud.admin.new(disk_format=claim, container_format=container(name))
        method = {"uri": f"{web.url}/{number}.img"}
        assert begin(cloud.admin, image, "web-download", method=method).status == 202
    refused(cloud, images)


def bare(name: str) -> str:
    return "bare"


def test_staged(cloud: Cloud) -> None:
    staged(cloud, hostile.SAMPLES, bare)


def test_from_a_url(cloud: Cloud, web: Nginx, folder: Path) -> None:
    downloaded(cloud, web, folder, hostile.SAMPLES, bare)


def test_packed(cloud: Cloud, web: Nginx, folder: Path) -> None:
    """Each sample in another packing, one half staged and one from a URL; all packings of all samples are judged in
    tests.formats.test_inside."""
    packed: dict[str, bytes] = {}
    for (name, data), how in zip(hostile.SAMPLES.items(), itertools.cycle(PACKERS)):
        packed[f"{how}: {name}"] = PACKERS[how](data)
    one, other = dict(list(packed.items())[::2]), dict(list(packed.items())[1::2])

    def container(name: str) -> str:
        return "ova" if name.startswith("ova") else "bare"

    staged(cloud, one, container)
    downloaded(cloud, web, folder, other, container)


def test_in_several_requests(cloud: Cloud) -> None:
    images = {}
    for (name, data), claim in zip(hostile.SAMPLES.items(), itertools.cycle(CLAIMS)):
        images[name] = cloud.admin.new(disk_format=claim)
        sender = Sender(cloud.admin, images[name])
        piece = min(300, len(data) // 2)
        answer = sender.begin(data[:piece])
        if answer.status == 201:  # what it is was not to be seen yet
            answer = sender.last(piece, data[piece:])
        assert answer.status == 415, (name, answer.status, answer.body)
        shown = cloud.admin.show(images[name])
        assert (shown["status"], shown["size"]) == ("queued", None), name
    nothing_left(cloud, images)
