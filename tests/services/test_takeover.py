"""From Glance to this service and back, on databases as a real Glance made them, with rows that nobody expects."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.servers.process import Stuck
from tests.services.former import AT, Former, sentences


def test_there_and_back(former: Former) -> None:
    good = former.image()
    before = former.tables()
    report = former.check()
    assert report["possible"]
    assert report["stores"] == {"files": 1}
    assert former.tables() == before, "a check changes nothing"

    saving, locked = former.image("saving", size=None, data=False), former.image()
    former.location(saving, "pending://files/nothing-yet", status="uploading")
    former.property(locked, "os_glance_import_task", str(uuid.uuid4()))
    former.property(locked, "os_glance_importing_to_stores", "b")
    former.property(locked, "os_glance_failed_import", "b")
    former.property(locked, "os_distro", "debian")
    task = former.task(locked)
    broken = former.image(owner=None)
    former.sql(f"UPDATE image_locations SET meta_data = 'no JSON' WHERE image_id = '{broken}'")
    nobody = former.image(data=False)
    report = former.check()
    assert report["possible"]
    told = sentences(report, "warning")
    for words in ("1 images are saving", "1 locations have no data", "1 images are marked", "1 tasks have not ended"):
        assert words in told
    assert f"1 active images have no location: nobody can read them, in Glance neither ({nobody})" in told
    assert (
        f"1 images have no owner: administrators alone can change them, and read private ones ({broken})"
        in sentences(report, "note")
    )

    # beside a Glance that runs: nothing of its own is touched
    former.service.run("takeover", "run")
    assert former.status(saving) == "saving"
    ours = former.task(good)  # a registered location of ours that waits for its digest
    claims = "INSERT INTO xloud_claims (id, kind, image_id, store, slot, scope, begun_at, attempts) VALUES"
    former.sql(f"{claims} ('{ours}', 'hash', '{good}', 'files', 'h', 'image', {AT}, 0)")
    done = former.service.run("takeover", "run", "--glance-is-stopped")
    assert "2 images that a dead process worked on are settled" in done
    assert former.status(saving) == "queued"
    assert former.sql(f"SELECT status FROM tasks WHERE id = '{task}'")[0][0] == "failure"
    assert former.sql(f"SELECT status FROM tasks WHERE id = '{ours}'")[0][0] == "processing"
    former.sql(f"DELETE FROM xloud_claims WHERE id = '{ours}'")
    assert "1 tasks that nobody works on have failed" in former.service.run("takeover", "run", "--glance-is-stopped")
    assert "ready" in former.service.run("takeover", "run", "--glance-is-stopped"), "again is nothing"
    former.service.run("takeover", "check")

    service = former.service
    service.configure({"xloud": {"job_workers": 1}})
    try:
        service.start()
        listed = {one["id"]: one for one in service.request("GET", "/v2/images?limit=100").json()["images"]}
        assert set(listed) == {good, saving, locked, broken, nobody}
        for image in (good, locked, broken):
            assert service.request("GET", f"/v2/images/{image}/file").body == b"abc"
        assert service.request("GET", f"/v2/images/{saving}/file").status == 204
        assert listed[locked]["os_distro"] == "debian"
        assert service.request("DELETE", f"/v2/images/{saving}").status == 204
        with pytest.raises(Stuck, match="cannot listen"):
            service.run("takeover", "undo", "--wait", "0")
        assert service.stop() == 0
    finally:
        service.kill()
    assert "gone" in service.run("takeover", "undo")
    assert former.tables() == before
    assert "Nothing of us" in service.run("takeover", "undo"), "again is nothing"
    assert former.check()["possible"]


def test_what_is_pending_is_finished_first_or_named(former: Former) -> None:
    image = former.image()
    service = former.service
    service.run("takeover", "run")
    claims = "INSERT INTO xloud_claims (id, kind, image_id, store, slot, url, scope, begun_at, attempts) VALUES"
    data = service.images / "left-over"
    data.write_bytes(b"x")
    former.sql(f"{claims} ('1', 'delete', '{image}', 'files', 's', 'file://{data}', 'location', {AT}, 0)")
    former.sql(f"{claims} ('2', 'stage', '{image}', 'files', 't', 'file://{data}', 'image', {AT}, 0)")
    with pytest.raises(Stuck, match="1 images are staged for an import"):
        service.run("takeover", "undo", "--wait", "1")
    assert not data.exists(), "the deletion was finished"
    assert "xloud_claims" in former.tables()
    former.sql("DELETE FROM xloud_claims")
    former.sql("DROP TABLE xloud_workers")  # as if a run of the way back had been cut off here
    service.run("takeover", "undo")
    assert not any(name.startswith("xloud_") for name in former.tables())


def test_what_is_in_the_way(former: Former) -> None:
    odd = former.image()
    former.location(odd, "rbd://f/images/x/snap", metadata='{"store": "ceph"}')
    former.sql(f"UPDATE images SET status = 'of another service' WHERE id = '{former.image()}'")
    report = former.check()
    assert not report["possible"]
    assert "1 locations are in store 'ceph', which is not configured here" in sentences(report, "error")
    assert "1 images have the status 'of another service', which is none" in sentences(report, "error")
    with pytest.raises(Stuck, match="ceph"):
        former.service.run("takeover", "run")
    assert not any(name.startswith("xloud_") for name in former.tables())

    former.sql("UPDATE alembic_version SET version_num = 'zed_contract01'", "DROP TABLE cached_images")
    former.sql("DROP TABLE node_reference")
    assert "older than those of Glance 2023.1" in sentences(former.check(), "error")
    former.sql("UPDATE alembic_version SET version_num = '2024_1_expand01'")
    assert "is not finished" in sentences(former.check(), "error")
    former.sql("DROP TABLE alembic_version")
    assert "has no tables of Glance" in sentences(former.check(), "error")


def test_rules_that_keep_the_service_from_starting_are_in_the_way(former: Former, tmp_path: Path) -> None:
    """Before Glance is stopped, and not when the service is to start."""
    (tmp_path / "policy.yaml").write_text('"a": "rule:b"\n"b": "rule:a"\n')
    former.service.configure({"oslo_policy": {"policy_file": tmp_path / "policy.yaml"}})
    report = former.check()
    assert not report["possible"]
    assert "refer to each other in a circle" in sentences(report, "error")
    with pytest.raises(Stuck, match="circle"):
        former.service.run("takeover", "run")
    assert not any(name.startswith("xloud_") for name in former.tables())


def test_a_store_that_is_away_is_named(former: Former) -> None:
    former.image()
    former.service.configure({"files": {"filesystem_store_datadir": "/proc/nowhere/at/all"}})
    report = former.check()
    assert not report["possible"]
    assert "files" in sentences(report, "error")
