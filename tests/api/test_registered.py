"""Whose data may be registered by whom, what becomes of them, and what counts of an image: with locations shown."""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud
from tests.crash.points import wait_until
from tests.crash.proof import claims, rows

DATA = b"the data of alpha"
EVIL = bytes(reversed(DATA))


@pytest.fixture(scope="module", params=[False, True], ids=["closed", "opened"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """With and without the option that lets members name data of our stores."""
    cloud = Cloud(
        tmp_path_factory.mktemp("registered"),
        options={"show_image_direct_url": True},
        xloud={"auth": "http_basic", "reaper_interval": 1, "lease_time": 5, "users_register_store_urls": request.param},
    )
    users = {"http_basic_user_file": cloud.folder / "users", "http_basic_projects_file": cloud.folder / "projects"}
    cloud.service.configure({"xloud": users})
    try:
        cloud.service.start()
        yield cloud
        assert ("users_register_store_urls" in cloud.service.log) is request.param, "said at each start"
        assert cloud.service.stop() == 0
        assert "Traceback" not in cloud.service.log
    finally:
        cloud.service.kill()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["cloud"])


def url(image_id: str) -> str:
    return f"memory://mem/{image_id}"


def patched(caller: Caller, image_id: str, where: str, path: str = "/locations/-", **more: Any) -> int:
    value = {"url": where, "metadata": {}, **more}
    return int(caller.patch(image_id, {"op": "add", "path": path, "value": value}).status)


def posted(caller: Caller, image_id: str, where: str, **more: Any) -> int:
    return int(caller.ask("POST", f"/v2/images/{image_id}/locations", json={"url": where, **more}).status)


@pytest.mark.parametrize("way", [patched, posted])
@pytest.mark.parametrize("visibility", ["private", "public"])
def test_nobody_takes_the_data_of_another_project(cloud: Cloud, way: Any, visibility: str) -> None:
    theirs = cloud.ann.new(DATA, store="mem")
    assert cloud.admin.patch(theirs, {"op": "replace", "path": "/visibility", "value": visibility}).status == 200
    mine = cloud.bob.new()
    assert way(cloud.bob, mine, url(theirs)) == 403
    assert cloud.bob.show(mine)["status"] == "queued"
    assert cloud.bob.delete(mine).status == 204
    assert cloud.ann.download(theirs).body == DATA


def test_what_is_named_after_an_image_of_another_project(cloud: Cloud) -> None:
    """Before the data are there: an upload that is on its way."""
    theirs, mine = cloud.ann.new(visibility="private"), cloud.bob.new()
    assert patched(cloud.bob, mine, url(theirs)) == 403 or not cloud.bob.show(mine)["locations"]
    assert cloud.bob.show(mine)["status"] == "queued"


@pytest.mark.parametrize("way", [patched, posted])
def test_data_of_ones_own_project(cloud: Cloud, opened: bool, way: Any) -> None:
    """Of an image of one's own: only where the operator lets members name data of the stores."""
    first, second = cloud.ann.new(DATA, store="mem"), cloud.ann.new()
    status = way(cloud.ann, second, url(first))
    assert status == ({patched: 200, posted: 202}[way] if opened else 403)
    if opened:
        assert cloud.ann.delete(second).status == 204
        assert cloud.ann.download(first).body == DATA
        second = cloud.ann.new()
        assert way(cloud.ann, second, url(first)) == status
        assert cloud.ann.delete(first).status == 204
        assert cloud.ann.download(second).body == DATA, "the bytes go with the last image"
        assert cloud.ann.delete(second).status == 204
        assert posted(cloud.nova, cloud.nova.new(), url(first)) == 400, "they are gone"


def test_bytes_that_we_did_not_write_stay(cloud: Cloud) -> None:
    """Those of an image whose row is gone from the database: somebody else's, as far as the service knows."""
    orphan = cloud.ann.new(DATA, store="mem")
    assert rows(cloud.service, f"SELECT count(*) FROM images WHERE id = '{orphan}'") == [(1,)]
    forget(cloud, orphan)
    for caller in (cloud.admin, cloud.nova):
        image_id = caller.new()
        assert posted(caller, image_id, url(orphan)) == 202
        assert wait_until(lambda image_id=image_id: cloud.admin.show(image_id)["os_hash_value"])  # type: ignore[misc]
        assert caller.download(image_id).body == DATA
        shown = cloud.admin.show(image_id)["locations"]
        assert shown == [{"url": url(orphan), "metadata": {"store": "mem"}}], "no note of ours is shown"
        assert caller.delete(image_id).status == 204
        assert claims(cloud.service) == []


def forget(cloud: Cloud, image_id: str) -> None:
    file = cloud.service.sections["database"]["connection"].removeprefix("sqlite:///")
    with sqlite3.connect(file, timeout=30) as connection:
        for table, column in (("image_locations", "image_id"), ("image_properties", "image_id"), ("images", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (image_id,))
    connection.close()


@pytest.mark.parametrize("who", ["admin", "nova", "ann"])
def test_what_was_made_for_the_image_goes_with_it(cloud: Cloud, opened: bool, who: str) -> None:
    """A snapshot that Nova made in the pool, named after the image: Nova hands it over, an administrator does not."""
    caller = getattr(cloud, who)
    image_id = caller.new(DATA, store="mem")
    forget(cloud, image_id)
    assert caller.create(id=image_id, disk_format="raw", container_format="bare").status == 201
    handed = who == "nova" or opened
    if who == "ann" and not opened:
        assert posted(caller, image_id, url(image_id)) == 403
        return
    assert posted(caller, image_id, url(image_id)) == 202
    assert wait_until(lambda: caller.show(image_id)["os_hash_value"])
    assert caller.delete(image_id).status == 204
    again = posted(cloud.admin, cloud.admin.new(), url(image_id))
    assert again == (400 if handed else 202), "whether the bytes are still there"


def test_data_of_an_older_glance_go_with_their_image(cloud: Cloud) -> None:
    image_id = cloud.ann.new(DATA, store="fast")
    set_metadata(cloud, image_id, "{}")
    assert cloud.ann.delete(image_id).status == 204
    assert image_id not in cloud.files("fast")


def test_what_an_older_glance_let_others_register_stays(cloud: Cloud) -> None:
    name = f"payroll-{cloud.ann.new()}"
    (cloud.folder / "fast" / name).write_bytes(DATA)
    image_id = cloud.ann.new(DATA, store="fast")
    set_metadata(cloud, image_id, "{}", f"file://{cloud.folder}/fast/{name}")
    assert cloud.ann.download(image_id).body == DATA
    assert cloud.ann.delete(image_id).status == 204
    assert (cloud.folder / "fast" / name).read_bytes() == DATA


def set_metadata(cloud: Cloud, image_id: str, text: str, where: str | None = None) -> None:
    file = cloud.service.sections["database"]["connection"].removeprefix("sqlite:///")
    with sqlite3.connect(file, timeout=30) as connection:
        connection.execute("UPDATE image_locations SET meta_data = ? WHERE image_id = ?", (text, image_id))
        if where:
            connection.execute("UPDATE image_locations SET value = ? WHERE image_id = ?", (where, image_id))
    connection.close()


# what counts


@pytest.mark.parametrize("path", ["/locations/0", "/locations/-"])
def test_other_bytes_never_come_under_the_image(cloud: Cloud, path: str) -> None:
    good = cloud.ann.new(DATA, store="fast")
    for evil in (EVIL, EVIL[:-1] + b"?"):
        where = url(cloud.admin.new(evil, store="mem"))
        assert patched(cloud.admin, good, where, path) == 409
        image = cloud.ann.show(good)
        assert len(image["locations"]) == 1
        assert image["stores"] == "fast"
        assert where not in str(image)
        for _ in range(3):
            assert cloud.ann.download(good).body == DATA


def test_the_same_bytes_come_and_are_shown(cloud: Cloud) -> None:
    good, copy = cloud.ann.new(DATA, store="fast"), cloud.ann.new(DATA, store="mem")
    answer = cloud.admin.patch(good, {"op": "add", "path": "/locations/-", "value": {"url": url(copy), "metadata": {}}})
    assert answer.status == 200
    image = answer.json()
    assert image["locations"][0]["url"] == url(copy), "memory is heavier"
    assert image["direct_url"] == url(copy)
    assert {place["metadata"]["store"] for place in image["locations"]} == {"fast", "mem"}


def test_digests_are_used(cloud: Cloud) -> None:
    where = url(cloud.ann.new(DATA, store="mem"))
    right = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest()}
    md5 = hashlib.md5(DATA).hexdigest()
    for wrong in ({"checksum": "0" * 32}, {"os_hash_value": "0" * 128}):
        image_id = cloud.admin.new()
        assert posted(cloud.admin, image_id, where, validation_data={"checksum": md5, **right, **wrong}) == 202
        assert wait_until(lambda image_id=image_id: cloud.admin.show(image_id)["status"] == "queued")  # type: ignore[misc]
        image = cloud.admin.show(image_id)
        assert (image["checksum"], image["os_hash_value"], image["os_hash_algo"], image["size"]) == (None,) * 4
        [task] = cloud.admin.ask("GET", f"/v2/images/{image_id}/tasks").json()["tasks"]
        assert (task["type"], task["status"]) == ("location_import", "failure")
        assert "digest" in task["message"]
        assert task["input"]["loc_url"] == where
    for more in ({}, {"checksum": md5.upper()}):
        image_id = cloud.admin.new()
        assert posted(cloud.admin, image_id, where, validation_data={**right, **more}) == 202
        assert wait_until(lambda image_id=image_id: cloud.admin.show(image_id)["status"] == "active")  # type: ignore[misc]
        assert cloud.admin.show(image_id)["checksum"] == md5
        [task] = cloud.admin.ask("GET", f"/v2/images/{image_id}/tasks").json()["tasks"]
        assert (task["type"], task["status"]) == ("location_import", "success")
    for unknown in ({"sha512": "x"}, {"size": 3}):
        assert posted(cloud.admin, cloud.admin.new(), where, validation_data={**right, **unknown}) == 400


def test_the_task_is_that_of_whoever_registered(cloud: Cloud) -> None:
    """It names the place, which the image's project need not know."""
    where, image_id = url(cloud.ann.new(DATA, store="mem")), cloud.ann.new()
    assert posted(cloud.admin, image_id, where) == 202
    [task] = cloud.admin.ask("GET", f"/v2/images/{image_id}/tasks").json()["tasks"]
    assert (task["owner"], task["input"]["loc_url"]) == (cloud.admin.project, where)
    assert cloud.ann.ask("GET", f"/v2/images/{image_id}/tasks").json() == {"tasks": []}


def test_another_algorithm_than_that_of_the_image(cloud: Cloud) -> None:
    good, copy = cloud.ann.new(DATA, store="fast"), cloud.ann.new(DATA, store="mem")
    other = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(DATA).hexdigest()}
    assert patched(cloud.admin, good, url(copy), validation_data=other) == 409
    assert patched(cloud.admin, good, url(copy), validation_data={**other, "os_hash_algo": "crc32"}) == 409
    assert patched(cloud.admin, cloud.admin.new(), url(copy), validation_data=other) == 409


def test_the_algorithm_is_there_at_once(cloud: Cloud) -> None:
    image_id = cloud.admin.new()
    assert posted(cloud.admin, image_id, url(cloud.ann.new(DATA, store="mem"))) == 202
    assert cloud.admin.show(image_id)["os_hash_algo"] == "sha512"


def test_whoever_sees_the_image_sees_where_it_lies(cloud: Cloud) -> None:
    """Those who clone it ask as the user."""
    image_id = cloud.ann.new(DATA, store="mem", visibility="shared")
    assert cloud.admin.patch(image_id, {"op": "replace", "path": "/visibility", "value": "public"}).status == 200
    for caller in (cloud.ann, cloud.bob, cloud.rita, cloud.admin):
        image = caller.show(image_id)
        assert image["direct_url"] == url(image_id)
        assert image["locations"] == [{"url": url(image_id), "metadata": {"store": "mem"}}]
    assert cloud.ann.ask("POST", f"/v2/images/{image_id}/actions/deactivate").status == 204
    assert "direct_url" not in cloud.bob.show(image_id)


def test_an_account_with_nothing_but_the_role_service(cloud: Cloud) -> None:
    """It may ask where data lie and register them, and is no reader besides."""
    image_id = cloud.ann.new(DATA, store="mem")
    assert cloud.admin.patch(image_id, {"op": "replace", "path": "/visibility", "value": "public"}).status == 200
    path = f"/v2/images/{image_id}/locations"
    answer = cloud.cinder.ask("GET", path)
    assert (answer.status, answer.json()) == (200, [{"url": url(image_id), "metadata": {"store": "mem"}}])
    assert cloud.cinder.ask("GET", f"/v2/images/{image_id}").status == 404
    private = cloud.ann.new(DATA, visibility="private")
    assert cloud.cinder.ask("GET", f"/v2/images/{private}/locations").status == 404
    queued = cloud.nova.new(visibility="community")
    where = url(cloud.nova.new(DATA, store="mem"))
    assert posted(cloud.cinder, queued, where) == 202
