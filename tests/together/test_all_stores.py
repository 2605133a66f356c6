"""All seven stores in one service: chosen by name, read whole and in parts, and nothing stays when an image goes."""

import contextlib
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.test_glance import Glance
from tests.servers.nginx import Nginx
from tests.servers.place import program
from tests.servers.process import run
from tests.servers.service import Service
from tests.together.everything import TYPES, WRITABLE, Client, Everything
from xloud_image.stores.suite import noise

pytestmark = pytest.mark.timeout(600)

MIB = 1 << 20
SIZE = 20 * MIB + 4321  # in parts for each of them but the files


@pytest.fixture(autouse=True)
def nothing_stays(everything: Everything, seven: Service) -> None:
    """What a test before left would be taken for this one's."""
    assert not any(everything.behind().values()), everything.behind()


def test_each_says_that_it_works(seven: Service) -> None:
    found = json.loads(seven.run("stores", "check", "--deep", "--json", seconds=300))
    assert {one["store"]: one["type"] for one in found} == TYPES
    assert all(one["ok"] for one in found), found


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_chosen_by_name_read_and_removed(client: Client, everything: Everything, known: bool) -> None:
    """All at once, as several users would."""

    def life(store: str) -> str:
        data = noise(SIZE, WRITABLE.index(store))
        identity = client.create()
        done = client.put(identity, data, store, known=known)
        assert done.status == 204, (store, done.body)
        image = client.show(identity)
        assert image["status"] == "active", (store, image)
        assert image["stores"] == store
        assert image["size"] == SIZE
        assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
        (place,) = image["locations"]
        assert place["metadata"]["store"] == store
        assert "@" not in place["url"]
        assert client.get(identity).body == data
        for first, last in ((0, 0), (5 * MIB - 3, 10 * MIB + 17), (SIZE - MIB, SIZE - 1), (SIZE - 1, None)):
            part = client.get(identity, first, last)
            assert part.status == 206, (store, part)
            assert part.body == data[first : SIZE if last is None else last + 1]
        assert client.get(identity, SIZE, None).status == 416
        return identity

    with ThreadPoolExecutor(len(WRITABLE)) as pool:
        images = dict(zip(WRITABLE, pool.map(life, WRITABLE), strict=True))
        there = everything.behind()
        for store, identity in images.items():
            assert any(identity in name for name in there[store]), (store, there)
        assert [answer.status for answer in pool.map(client.delete, images.values())] == [204] * len(WRITABLE)
    assert not any(everything.behind().values()), everything.behind()


def test_glance_client_chooses_a_store(seven: Service, everything: Everything, tmp_path: Path) -> None:
    glance = Glance(seven)
    file = tmp_path / "image"
    file.write_bytes(noise(MIB))
    assert [one["id"] for one in json.loads(glance.table("stores-info")["stores"])] == list(TYPES)
    for store in WRITABLE:
        made = glance.table(
            *("image-create", "--name", store, "--disk-format", "raw", "--container-format", "bare"),
            *("--file", file, "--store", store),
        )
        assert made["stores"] == store
        assert made["os_hash_value"] == hashlib.sha512(noise(MIB)).hexdigest()
        glance.run("image-download", "--file", tmp_path / "back", made["id"])
        assert (tmp_path / "back").read_bytes() == noise(MIB)
        glance.run("image-delete", made["id"])
    assert not any(everything.behind().values()), everything.behind()


def test_one_that_lies_on_a_web_server(client: Client, web: Nginx, site: Path) -> None:
    data = noise(SIZE)
    (site / "image.raw").write_bytes(data)
    identity = client.create()
    url = f"{web.url}/image.raw"
    told = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(data).hexdigest()}
    done = client.call("POST", f"/v2/images/{identity}/locations", {"url": url, "validation_data": told})
    assert done.status == 202, done.body
    with contextlib.suppress(TimeoutError):
        _await_active(client, identity)
    assert client.show(identity)["status"] == "active"
    assert client.show(identity)["stores"] == "web"
    assert client.get(identity).body == data
    assert client.get(identity, SIZE - MIB).body == data[-MIB:]
    refused = client.put(client.create(), b"x", "web")
    assert refused.status == 410
    assert b"read-only" in refused.body
    assert client.delete(identity).status == 204
    assert (site / "image.raw").exists()


def _await_active(client: Client, identity: str) -> None:
    end = time.monotonic() + 30
    while client.show(identity)["status"] != "active":
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def test_clones_of_other_formats_are_warned_about(client: Client, everything: Everything, tmp_path: Path) -> None:
    """What Cinder and Nova clone without copying is raw only."""
    file = tmp_path / "image.qcow2"
    run([program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", file, "10M"])
    identity = client.create(disk_format="qcow2")
    done = client.put(identity, file.read_bytes(), "rbd")
    assert done.status == 204, done.body
    assert "raw" in done.headers["warning"]
    assert client.delete(identity).status == 204
