"""The calls of the API and the commands, which do the same."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.api.cloud import Cloud
from tests.cache.conftest import MIB, Place
from tests.conftest import ServiceFactory
from tests.load import quiet
from tests.servers.service import command

NONE = "00000000-0000-4000-8000-000000000000"


def calls(place: Place, *words: str) -> tuple[int, str]:
    """The exit code and the output of a `glance-cache-…` command."""
    done = subprocess.run(
        [*command(words[0]), *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=quiet(60),
        env={"OS_GLANCE_CONFIG_DIR": str(place.service.directory), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout + done.stderr


def test_queue_and_list(place: Place) -> None:
    image, data = place.image(2 * MIB)
    assert place.service.request("PUT", f"/v2/cache/{image}").status == 202
    place.wait(lambda: image in place.cached())
    listed = place.service.request("GET", "/v2/cache").json()
    assert listed["queued_images"] == []
    (entry,) = listed["cached_images"]
    assert set(entry) == {"image_id", "hits", "last_accessed", "last_modified", "size"}
    assert (entry["image_id"], entry["hits"], entry["size"]) == (image, 0, 2 * MIB)
    assert place.read(image) == data
    assert place.reads(image) == 1
    assert place.service.request("DELETE", f"/v2/cache/{image}").status == 204
    assert place.service.request("DELETE", f"/v2/cache/{image}").status == 204  # the image is there
    assert place.cached() == set()


def test_what_cannot_be_queued(place: Place) -> None:
    queued = place.service.request("POST", "/v2/images", json={}).json()["id"]
    for path in ("cache", "queued_images"):
        assert place.service.request("PUT", f"/v2/{path}/{queued}").status == 400
        assert place.service.request("PUT", f"/v2/{path}/{NONE}").status == 404
        assert place.service.request("PUT", f"/v2/{path}/x").status == 404
    assert place.service.request("DELETE", f"/v2/cache/{NONE}").status == 404


def test_what_the_queue_cannot_fetch_now_stays(place: Place) -> None:
    image, _ = place.image()
    gone, _ = place.image()
    place.origin.down = True
    assert place.service.request("PUT", f"/v2/cache/{image}").status == 202
    place.wait(lambda: "a queued image is fetched later" in place.service.log)
    assert place.service.request("PUT", f"/v2/cache/{gone}").status == 202
    assert place.service.request("DELETE", f"/v2/images/{gone}").status == 204
    assert place.service.request("GET", "/v2/cache").json()["queued_images"] == [image]
    assert place.service.request("GET", "/v2/queued_images").json() == {"queued_images": [image]}
    assert place.service.request("DELETE", f"/v2/queued_images/{image}").status == 200
    assert place.service.request("DELETE", f"/v2/queued_images/{image}").status == 404


@pytest.mark.parametrize(
    ("target", "cached", "queued"), [("cache", 0, 1), ("queue", 1, 0), ("both", 0, 0), (None, 0, 0)]
)
def test_clear(place: Place, target: str | None, cached: int, queued: int) -> None:
    image, _ = place.image()
    place.read(image)
    place.wait(lambda: image in place.cached())
    other, _ = place.image()
    place.origin.down = True
    place.service.request("PUT", f"/v2/cache/{other}")
    headers = {"x-image-cache-clear-target": target} if target else {}
    assert place.service.request("DELETE", "/v2/cache", headers=headers).status == 204
    found = place.service.request("GET", "/v2/cache").json()
    assert (len(found["cached_images"]), len(found["queued_images"])) == (cached, queued)
    wrong = place.service.request("DELETE", "/v2/cache", headers={"x-image-cache-clear-target": "all"})
    assert wrong.status == 400


def test_the_older_calls(place: Place) -> None:
    images = [place.image()[0] for _ in range(3)]
    for image in images:
        assert place.service.request("PUT", f"/v2/queued_images/{image}").status == 200
    place.wait(lambda: place.cached() == set(images))
    found = place.service.request("GET", "/v2/cached_images").json()
    assert {one["image_id"] for one in found["cached_images"]} == set(images)
    assert place.service.request("DELETE", f"/v2/cached_images/{images[0]}").status == 200
    assert place.service.request("DELETE", "/v2/cached_images").json() == {"num_deleted": 2}
    assert place.service.request("DELETE", "/v2/queued_images").json() == {"num_deleted": 0}


def test_nodes_are_told(place: Place) -> None:
    image, _ = place.image()
    place.read(image)
    place.wait(lambda: image in place.cached())
    asked = f"/v2/cache/nodes/{image}"
    place.wait(lambda: place.service.request("GET", asked).json() == ["http://node1:9292"])
    place.service.request("DELETE", f"/v2/cache/{image}")
    place.wait(lambda: place.service.request("GET", asked).json() == [])
    assert place.service.request("GET", f"/v2/cache/nodes/{NONE}").status == 404


def test_clean_and_prune(place: Place) -> None:
    image, _ = place.image()
    place.read(image)
    place.wait(lambda: image in place.cached())
    done = place.service.request("POST", "/v2/cache/prune")
    assert (done.status, done.json()) == (200, {"total_files_pruned": 0, "total_bytes_pruned": 0})
    # what another node deleted is compared with the database
    kept = place.file(image)
    other = kept.with_name(f"{NONE}{kept.name[36:]}")
    other.write_bytes(b"x")
    assert place.service.request("POST", "/v2/cache/clean").status == 200
    assert not other.exists()
    assert kept.exists()


def test_metrics(place: Place) -> None:
    image, _ = place.image()
    place.read(image)
    place.wait(lambda: image in place.cached())
    place.read(image)
    text = place.service.request("GET", "/metrics").body.decode()
    numbers = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line[0] != "#"}
    assert numbers["xloud_image_cache_images"] == 1
    assert MIB < numbers["xloud_image_cache_taken_bytes"] < numbers["xloud_image_cache_limit_bytes"]
    assert numbers['xloud_image_cache_reads_total{source="hit"}'] >= 1
    assert numbers['xloud_image_cache_fills_total{end="cached"}'] >= 1
    assert numbers["xloud_image_cache_bytes_total"] >= 2 * MIB
    assert "xloud_image_cache_evictions_total" in numbers


def test_the_commands(place: Place) -> None:
    one, two = place.image()[0], place.image()[0]
    place.origin.allow(0)  # the service does not come to it before the command does
    place.service.run("cache", "queue", one, two)
    listed = json.loads(place.service.run("cache", "list", "--json"))
    assert listed["queued_images"] == [one, two]
    place.service.run("cache", "delete", two)
    place.origin.allow()
    place.wait(lambda: one in place.cached())
    assert one in place.service.run("cache", "list")
    assert "1 images were removed" in place.service.run("cache", "clear", "--cached")
    assert "No image is cached" in place.service.run("cache", "list")
    place.service.run("cache", "clean")
    assert "0 images with 0 bytes" in place.service.run("cache", "prune")


def test_glances_words(place: Place) -> None:
    (place.service.directory / "glance-api.conf").write_text(place.service.configuration.read_text())
    image, _ = place.image()
    assert calls(place, "glance-cache-manage", "queue-image", image)[0] == 0
    code, said = calls(place, "glance-cache-prefetcher")
    assert code in (0, 1), said  # the service may be at it
    place.wait(lambda: image in place.cached())
    code, said = calls(place, "glance-cache-manage", "list-cached")
    assert code == 0
    assert "Found 1 cached images" in said
    assert image in said
    login = ("--os-auth-url=http://127.0.0.1/v3", "--os-username", "a", "-A", "token", "-k")
    assert calls(place, "glance-cache-manage", "delete-all-cached-images", "--force", *login)[0] == 0
    assert place.cached() == set()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    cloud = Cloud(folder, options={"image_cache_dir": folder / "cache", "image_cache_driver": "sqlite"})
    try:
        cloud.service.start()
        yield cloud
    finally:
        cloud.service.kill()


CALLS = [
    ("GET", "/v2/cache"),
    ("DELETE", "/v2/cache"),
    ("PUT", f"/v2/cache/{NONE}"),
    ("DELETE", f"/v2/cache/{NONE}"),
    ("GET", f"/v2/cache/nodes/{NONE}"),
    ("POST", "/v2/cache/clean"),
    ("POST", "/v2/cache/prune"),
    ("GET", "/v2/cached_images"),
    ("DELETE", "/v2/cached_images"),
    ("DELETE", f"/v2/cached_images/{NONE}"),
    ("GET", "/v2/queued_images"),
    ("DELETE", "/v2/queued_images"),
    ("PUT", f"/v2/queued_images/{NONE}"),
    ("DELETE", f"/v2/queued_images/{NONE}"),
]


def test_they_are_for_administrators(cloud: Cloud) -> None:
    for method, path in CALLS:
        assert cloud.ann.ask(method, path).status == 403, path
        assert cloud.admin.ask(method, path).status in (200, 204, 404, 409), path
    assert cloud.admin.ask("GET", f"/v2/cache/nodes/{NONE}").status == 409  # another driver


def test_without_a_cache_there_are_none(service: ServiceFactory) -> None:
    one = service()
    for method, path in CALLS:
        assert one.request(method, path).status == 404, path
    announced = {version["id"] for version in one.request("GET", "/versions").json()["versions"]}
    assert not announced & {"v2.14", "v2.16", "v2.18"}


def test_the_minors_are_announced(place: Place) -> None:
    announced = {version["id"] for version in place.service.request("GET", "/versions").json()["versions"]}
    assert {"v2.14", "v2.16", "v2.18"} <= announced
