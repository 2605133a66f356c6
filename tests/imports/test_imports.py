"""Imports by clients: what is taken, what is refused and with which code, and what is there afterwards. Source of the
codes: Image API reference, section "Import"."""

import hashlib
import os
import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud
from tests.crash.proof import rows
from tests.imports.conftest import await_that, begin, ended, set_back, stage, task
from tests.load import quiet
from tests.servers.nginx import Nginx

DATA = random.Random(7).randbytes(3_000_000)
SHA = hashlib.sha512(DATA).hexdigest()


def test_the_methods_are_those_that_can_work(cloud: Cloud) -> None:
    shown = cloud.ann.ask("GET", "/v2/info/import").json()["import-methods"]
    assert shown["value"] == ["glance-direct", "web-download", "copy-image"]
    made = cloud.ann.create(name="x")
    assert made.headers["openstack-image-import-methods"] == "glance-direct,web-download,copy-image"


def test_staged_data_is_imported(cloud: Cloud) -> None:
    image = cloud.ann.new()
    assert stage(cloud.ann, image, DATA).status == 204
    assert cloud.ann.show(image)["status"] == "uploading"
    assert cloud.files("staging") == {image}
    answer = begin(cloud.ann, image)
    assert (answer.status, answer.body) == (202, b"")
    done = ended(cloud.ann, image)
    assert done["status"] == "success", done
    assert done["type"] == "api_image_import"
    assert done["input"]["import_req"] == {"method": {"name": "glance-direct"}}
    assert done["request_id"].startswith("req-")
    shown = cloud.ann.show(image)
    assert (shown["status"], shown["size"], shown["os_hash_value"], shown["stores"]) == (
        "active",
        len(DATA),
        SHA,
        "fast",
    )
    assert shown["checksum"] == hashlib.md5(DATA).hexdigest()
    assert (shown["os_glance_importing_to_stores"], shown["os_glance_failed_import"]) == ("", "")
    assert "os_glance_import_task" not in shown
    assert cloud.ann.download(image).body == DATA
    assert cloud.files("staging") == set(), "the staged data goes with the import"


def test_the_source_is_read_once_into_several_stores(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image, stores=["slow", "third"]).status == 202
    assert ended(cloud.ann, image)["status"] == "success"
    assert cloud.ann.show(image)["stores"] == "slow,third"
    (slow,), (third,) = ({name for name in cloud.files(one) if name.startswith(image)} for one in ("slow", "third"))
    assert (cloud.folder / "slow" / slow).read_bytes() == (cloud.folder / "third" / third).read_bytes() == DATA


def test_all_stores_are_those_that_take_data(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image, all_stores=True).status == 202
    assert ended(cloud.ann, image)["status"] == "success"
    assert set(cloud.ann.show(image)["stores"].split(",")) == {"fast", "slow", "third"}


def test_a_copy_goes_to_the_stores_that_lack_it(cloud: Cloud) -> None:
    image = cloud.ann.new(DATA)
    assert begin(cloud.ann, image, "copy-image", stores=["slow"]).status == 403, "for administrators"
    assert begin(cloud.admin, image, "copy-image", stores=["fast"]).status == 400, "it is there"
    assert begin(cloud.admin, image, "copy-image", all_stores=True).status == 202
    assert ended(cloud.admin, image)["status"] == "success"
    shown = cloud.ann.show(image)
    assert (shown["status"], set(shown["stores"].split(","))) == ("active", {"fast", "slow", "third"})
    said = [line for line in cloud.service.log.splitlines() if "a store copied by itself" in line and image in line]
    assert len(said) == 2
    assert begin(cloud.admin, image, "copy-image", all_stores=True).status == 400
    assert cloud.admin.ask("DELETE", f"/v2/stores/fast/{image}").status == 204
    assert cloud.ann.download(image).body == DATA


def test_a_copy_of_data_that_is_not_the_images_is_refused(cloud: Cloud) -> None:
    image = cloud.ann.new(DATA)
    (file,) = (cloud.folder / "fast").glob(f"{image}*")
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(1000)
        opened.write(b"other")
    assert begin(cloud.admin, image, "copy-image", stores=["slow"]).status == 202
    done = ended(cloud.admin, image)
    assert done["status"] == "failure"
    assert "not the data of the image" in done["message"]
    shown = cloud.admin.show(image)
    assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == ("active", "fast", "slow")
    assert not list((cloud.folder / "slow").glob(f"{image}*"))


def move(caller: Caller, image: str, source: str, target: str) -> int:
    return caller.ask("POST", f"/v2/images/{image}/actions/move", json={"from": source, "to": target}).status


def test_a_move_leaves_the_old_store(cloud: Cloud) -> None:
    image = cloud.ann.new(DATA)
    (old,) = (cloud.folder / "fast").glob(f"{image}*")
    assert move(cloud.ann, image, "fast", "slow") == 403, "for administrators"
    assert move(cloud.admin, image, "slow", "third") == 404, "it is not there"
    assert move(cloud.admin, image, "fast", "fast") == 400
    assert move(cloud.admin, image, "fast", "nowhere") == move(cloud.admin, image, "nowhere", "fast") == 409
    assert cloud.admin.ask("POST", f"/v2/images/{image}/actions/move", json={"from": "fast"}).status == 400
    assert move(cloud.admin, image, "fast", "slow") == 202
    done = ended(cloud.admin, image)
    assert (done["status"], done["input"]["import_req"]) == ("success", {"move": {"from": "fast", "to": "slow"}})
    assert done["message"].endswith("to slow. It is not in fast any more.")
    assert cloud.ann.show(image)["stores"] == "slow"
    assert cloud.ann.download(image).body == DATA
    # who reads there may end: what is left is removed later, as it is of a store that is away
    assert old.exists()
    where = f"FROM xloud_claims WHERE image_id = '{image}'"
    ((kind, store, holder, error),) = rows(cloud.service, f"SELECT kind, store, holder, error {where}")
    assert (kind, store, holder) == ("delete", "fast", None)
    assert "moved" in error
    assert move(cloud.admin, image, "slow", "fast") == 202, "and back, under another name"
    assert ended(cloud.admin, image)["status"] == "success"
    assert len(list((cloud.folder / "fast").glob(f"{image}*"))) == 2
    set_back(cloud.service, f"UPDATE xloud_claims SET lease_until = NULL WHERE image_id = '{image}'")
    await_that(lambda: not rows(cloud.service, f"SELECT id {where}"))
    assert not old.exists()
    assert not list((cloud.folder / "slow").glob(f"{image}*"))
    assert cloud.ann.download(image).body == DATA


@pytest.mark.parametrize("digest", ["with its digest", "with none", "with a false one that was announced"])
def test_a_move_to_where_it_is_already_compares_what_is_there(cloud: Cloud, digest: str) -> None:
    image = cloud.ann.new(DATA)
    begin(cloud.admin, image, "copy-image", stores=["slow"])
    assert ended(cloud.admin, image)["status"] == "success"
    if "none" in digest:  # as of an older Glance, or a location that was registered
        set_back(
            cloud.service,
            f"UPDATE images SET checksum = NULL, os_hash_algo = NULL, os_hash_value = NULL WHERE id = '{image}'",
        )
    elif "false" in digest:
        set_back(
            cloud.service, f"UPDATE images SET checksum = NULL, os_hash_value = '{'0' * 128}' WHERE id = '{image}'"
        )
        metadata = "meta_data = replace(meta_data, '{', '{\"xloud\": {\"announced\": true}, ')"
        set_back(cloud.service, f"UPDATE image_locations SET {metadata} WHERE image_id = '{image}'")
    (there,) = (cloud.folder / "slow").glob(f"{image}*")
    whole = there.read_bytes()
    there.chmod(0o600)
    there.write_bytes(whole[:-1] + b"x")
    assert move(cloud.admin, image, "fast", "slow") == 202
    done = ended(cloud.admin, image)
    assert (done["status"], cloud.ann.show(image)["stores"]) == ("failure", "fast,slow"), "the good one stays"
    assert "not the data of the image" in done["message"]
    there.write_bytes(whole)
    assert move(cloud.admin, image, "fast", "slow") == 202
    done = ended(cloud.admin, image)
    assert (done["status"], done["message"]) == ("success", "It was there already. It is not in fast any more.")
    assert cloud.ann.show(image)["stores"] == "slow"
    assert cloud.ann.download(image).body == DATA


def test_a_move_leaves_nothing_for_what_nobody_has_compared(cloud: Cloud) -> None:
    image = cloud.ann.new(DATA)
    begin(cloud.admin, image, "copy-image", stores=["slow"])
    assert ended(cloud.admin, image)["status"] == "success"
    metadata = "meta_data = replace(meta_data, '{', '{\"xloud\": {\"unproved\": true}, ')"
    set_back(
        cloud.service, f"UPDATE image_locations SET {metadata} WHERE image_id = '{image}' AND value LIKE '%/slow/%'"
    )
    assert move(cloud.admin, image, "fast", "slow") == 202
    done = ended(cloud.admin, image)
    assert (done["status"], cloud.ann.show(image)["stores"]) == ("failure", "fast")
    assert "not compared yet" in done["message"]
    assert cloud.ann.download(image).body == DATA


def test_data_that_is_refused_leaves_the_image_queued(cloud: Cloud) -> None:
    image = cloud.ann.new(disk_format="qcow2")
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image, stores=["fast", "slow"]).status == 202
    done = ended(cloud.ann, image)
    assert (done["status"], done["result"]) == ("failure", None)
    assert "qcow2" in done["message"]
    shown = cloud.ann.show(image)
    assert (shown["status"], shown["size"], shown["os_glance_failed_import"]) == ("queued", None, "fast,slow")
    assert cloud.files("staging") == set()
    assert not [name for one in ("fast", "slow") for name in cloud.files(one) if name.startswith(image)]
    assert cloud.ann.upload(image, b"QFI\xfb" + bytes(200)).status == 415, "and it takes data again"
    assert cloud.ann.patch(image, {"op": "replace", "path": "/disk_format", "value": "raw"}).status == 200
    assert stage(cloud.ann, image, DATA).status == 204
    assert begin(cloud.ann, image).status == 202
    assert ended(cloud.ann, image)["status"] == "success"


@pytest.mark.parametrize("must_all", [True, False])
def test_a_store_that_takes_nothing(cloud: Cloud, must_all: bool) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    third = cloud.folder / "third"
    gone = cloud.folder / "away"
    third.rename(gone)
    third.write_text("no directory")
    try:
        answer = begin(cloud.ann, image, stores=["fast", "third"], all_stores_must_succeed=must_all)
        assert answer.status == 202
        done = ended(cloud.ann, image, 120)
    finally:
        third.unlink()
        gone.rename(third)
    shown = cloud.ann.show(image)
    if must_all:
        assert done["status"] == "failure", done
        assert (shown["status"], shown["os_glance_failed_import"]) == ("queued", "fast,third")
        assert not [name for name in cloud.files("fast") if name.startswith(image)]
    else:
        assert done["status"] == "success", done
        assert "Not to third" in done["message"]
        assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == ("active", "fast", "third")
        assert cloud.ann.download(image).body == DATA


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"method": {}}, 400),
    ({"method": {"name": "aria2"}}, 400),
    ({"method": {"name": "web-download"}}, 400),
    ({"method": {"name": "web-download", "uri": "ftp://example.com/x"}}, 400),
    ({"method": {"name": "web-download", "uri": "file:///etc/passwd"}}, 400),
    ({"method": {"name": "web-download", "uri": "http://example.com:22/x"}}, 400),
    ({"method": {"name": "web-download", "uri": "http://example.com/" + "x" * 9000}}, 400),
    ({"method": {"name": "copy-image"}}, 403),
    ({"method": {"name": "glance-direct"}, "stores": ["nowhere"]}, 409),
    ({"method": {"name": "glance-direct"}, "all_stores": "yes"}, 400),
    ({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}, 400),
    ({"method": {"name": "glance-direct"}, "all_stores": True, "stores": ["fast"]}, 400),
    ({"method": {"name": "glance-direct"}, "stores": "fast"}, 400),
    ({"method": {"name": "glance-direct"}}, 409),  # it is queued
    ({"method": 5}, 400),
    ([], 400),
]


@pytest.mark.parametrize(("body", "status"), WRONG)
def test_what_is_refused(cloud: Cloud, body: Any, status: int) -> None:
    image = cloud.ann.new()
    answer = cloud.ann.ask("POST", f"/v2/images/{image}/import", json=body)
    assert answer.status == status, answer.body
    assert cloud.ann.show(image)["status"] == "queued"
    assert cloud.ann.ask("GET", f"/v2/images/{image}/tasks").json() == {"tasks": []}


def test_the_header_and_the_body_name_stores(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image, header="slow", stores=["fast"]).status == 400
    assert begin(cloud.ann, image, header="slow", stores=["slow", "fast"]).status == 400
    assert begin(cloud.ann, image, header="slow", all_stores=True).status == 400
    assert begin(cloud.ann, image, header="slow").status == 202
    assert ended(cloud.ann, image)["status"] == "success"
    assert cloud.ann.show(image)["stores"] == "slow"


def test_who_may(cloud: Cloud) -> None:
    image = cloud.ann.new(visibility="community")
    stage(cloud.ann, image, DATA)
    assert begin(cloud.bob, image).status == 403
    assert begin(cloud.rita, image).status == 403
    assert stage(cloud.bob, cloud.ann.new(visibility="community"), DATA).status == 403
    assert stage(cloud.bob, cloud.ann.new(visibility="private"), DATA).status == 404
    assert begin(cloud.bob, str(uuid.uuid4())).status == 404
    assert begin(cloud.ann, image).status == 202
    ended(cloud.ann, image)
    assert begin(cloud.ann, image).status == 409, "it is active"


def test_what_nobody_knows_is_not_kept(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert begin(cloud.ann, image, method={"colour": "x" * 100_000}, more=["y"] * 1000).status == 202
    done = ended(cloud.ann, image)
    assert done["status"] == "success", done
    assert done["input"]["import_req"] == {"method": {"name": "glance-direct"}}


def test_formats_come_first(cloud: Cloud) -> None:
    image = cloud.ann.create(name="x").json()["id"]
    assert stage(cloud.ann, image, DATA).status == 204
    assert begin(cloud.ann, image).status == 409


def test_staging_takes_what_was_announced(cloud: Cloud) -> None:
    image = cloud.ann.new()
    assert stage(cloud.ann, image, DATA, x_openstack_image_size=str(len(DATA) + 1)).status == 400
    assert stage(cloud.ann, image, [DATA], x_openstack_image_size=str(len(DATA) + 1)).status == 400
    assert cloud.ann.show(image)["status"] == "queued"
    assert not [name for name in cloud.files("staging") if name.startswith(image)]
    answer = cloud.ann.ask("PUT", f"/v2/images/{image}/stage", body=DATA, headers={"Content-Type": "text/plain"})
    assert answer.status == 415
    assert stage(cloud.ann, image, [DATA]).status == 204
    assert stage(cloud.ann, image, DATA).status == 409, "once"
    assert cloud.ann.upload(image, DATA).status == 409


def test_an_image_that_is_deleted_while_its_data_is_staged_leaves_nothing(cloud: Cloud) -> None:
    image = cloud.ann.new()

    def slowly() -> Iterator[bytes]:
        yield DATA
        begun = time.monotonic()
        while not [name for name in cloud.files("staging") if image in name]:
            assert time.monotonic() - begun < quiet(20)
            time.sleep(0.05)
        assert cloud.ann.delete(image).status == 204
        yield DATA

    assert stage(cloud.ann, image, slowly()).status == 410
    begun = time.monotonic()
    while [name for name in cloud.files("staging") if image in name]:
        assert time.monotonic() - begun < quiet(20)
        time.sleep(0.05)
    assert not rows(cloud.service, f"SELECT kind FROM xloud_claims WHERE image_id = '{image}'")


def test_a_reason_that_the_database_cannot_hold(cloud: Cloud, web: Nginx) -> None:
    """Names of files are the client's, and a reason may quote them."""
    assert web.files is not None
    (web.files / "sums").write_text(f"{'0' * 64} *other.img\n")
    image = cloud.admin.new()
    method = {"uri": f"{web.url}/a%00%F0%9F%98%80", "checksums_uri": f"{web.url}/sums"}
    assert begin(cloud.admin, image, "web-download", method=method).status == 202
    done = ended(cloud.admin, image)
    assert done["status"] == "failure"
    assert cloud.admin.show(image)["status"] == "queued"


def test_staged_data_goes_with_its_image(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    assert [name for name in cloud.files("staging") if name.startswith(image)]
    assert cloud.ann.delete(image).status == 204
    assert not [name for name in cloud.files("staging") if name.startswith(image)]


def test_tasks_are_seen_by_their_project(cloud: Cloud) -> None:
    image = cloud.ann.new()
    stage(cloud.ann, image, DATA)
    begin(cloud.ann, image)
    done = ended(cloud.ann, image)
    assert cloud.ann.ask("GET", "/v2/tasks").status == 403, "for administrators"
    assert cloud.ann.ask("GET", f"/v2/tasks/{done['id']}").status == 403
    one = cloud.admin.ask("GET", f"/v2/tasks/{done['id']}")
    assert one.status == 200
    assert {name: one.json()[name] for name in ("id", "status", "message", "result")} == {
        "id": done["id"], "status": "success", "message": done["message"], "result": {"image_id": image},
    }  # fmt: skip
    assert cloud.bob.ask("GET", f"/v2/images/{image}/tasks").status == 404
    assert cloud.ann.patch(image, {"op": "replace", "path": "/visibility", "value": "community"}).status == 200
    assert cloud.bob.ask("GET", f"/v2/images/{image}/tasks").json() == {"tasks": []}, "another project's"
    assert task(cloud.rita, image)["id"] == done["id"]
    assert cloud.admin.ask("GET", f"/v2/tasks/{uuid.uuid4()}").status == 404
    assert cloud.admin.ask("DELETE", f"/v2/tasks/{done['id']}").status == 405


def test_pages_of_tasks(cloud: Cloud) -> None:
    for _ in range(3):
        image = cloud.ann.new()
        stage(cloud.ann, image, b"x" * 512)
        begin(cloud.ann, image)
        ended(cloud.ann, image)
    every = cloud.admin.ask("GET", "/v2/tasks?limit=1000").json()
    assert every["first"] == "/v2/tasks?limit=1000"
    assert "input" not in every["tasks"][0]
    seen: list[str] = []
    path = "/v2/tasks?limit=2"
    while path:
        page = cloud.admin.ask("GET", path).json()
        seen += [one["id"] for one in page["tasks"]]
        path = page.get("next", "")
    assert seen == [one["id"] for one in every["tasks"]]
    for key in ("created_at", "updated_at", "expires_at", "id", "type", "status", "owner"):
        up, down = (
            [
                one["id"]
                for one in cloud.admin.ask("GET", f"/v2/tasks?limit=1000&sort_key={key}&sort_dir={way}").json()["tasks"]
            ]
            for way in ("asc", "desc")
        )
        assert sorted(up) == sorted(seen)
        assert up == down[::-1]
    failed = cloud.admin.ask("GET", "/v2/tasks?limit=1000&status=failure&type=api_image_import").json()["tasks"]
    assert {one["status"] for one in failed} <= {"failure"}
    for query in ("status=odd", "type=odd", "limit=-1", "sort_key=message", "sort_dir=up"):
        assert cloud.admin.ask("GET", f"/v2/tasks?{query}").status == 400, query
    assert cloud.admin.ask("GET", f"/v2/tasks?marker={uuid.uuid4()}").status == 400


def test_schemas_of_tasks(cloud: Cloud) -> None:
    one = cloud.ann.ask("GET", "/v2/schemas/task").json()
    assert {"id", "type", "status", "input", "result", "message", "self"} <= set(one["properties"])
    many = cloud.ann.ask("GET", "/v2/schemas/tasks").json()
    assert "input" not in many["properties"]["tasks"]["items"]["properties"]


def test_operators_see_the_work(cloud: Cloud) -> None:
    for one in cloud.admin.ask("GET", "/v2/tasks?status=processing").json()["tasks"]:
        ended(cloud.admin, one["image_id"])
    assert "No job waits" in cloud.service.run("jobs", "list")
    status = cloud.service.run("jobs", "status")
    assert "at work" in status
    assert os.uname().nodename[:60] in status
