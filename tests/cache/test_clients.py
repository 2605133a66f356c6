"""The newest clients and the cache: `openstack cached image …`, `glance cache-…`."""

import subprocess
from pathlib import Path

import pytest

from tests.cache.conftest import Place
from tests.load import quiet
from tests.servers.client import OpenStack, command

# every command is a new process of a second or more
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def openstack(place: Place) -> OpenStack:
    client = OpenStack()
    client.add_without_login("cloud", place.service.url)
    return client


def glance(place: Place, *words: str | Path) -> str:
    url = ["--os-auth-token", "any", "--os-image-url", place.service.url]
    done = subprocess.run(
        [*command("glance"), *url, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=quiet(60),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openstack(place: Place, openstack: OpenStack) -> None:
    image, _ = place.image()
    openstack.run("cached", "image", "queue", image, cloud="cloud")
    place.wait(lambda: image in place.cached())
    (row,) = openstack.json("cached", "image", "list", cloud="cloud")
    assert row["ID"] == image
    assert row["State"] == "cached"
    openstack.run("cached", "image", "delete", image, cloud="cloud")
    assert place.cached() == set()
    place.read(image)
    place.wait(lambda: image in place.cached())
    openstack.run("cached", "image", "clear", "--cache", cloud="cloud")
    assert place.cached() == set()


def test_glance(place: Place) -> None:
    image, _ = place.image()
    glance(place, "cache-queue", image)
    place.wait(lambda: image in place.cached())
    assert image in glance(place, "cache-list")
    glance(place, "cache-delete", image)
    assert place.cached() == set()
    glance(place, "cache-clear", "--target", "both")
