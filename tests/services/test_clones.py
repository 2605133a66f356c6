"""Images in Ceph through the whole service: clones that hold an image, and clones that outlive it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cloud import Cloud
from tests.conftest import ServiceFactory
from tests.crash.points import wait_until
from tests.crash.proof import claims
from tests.servers.ceph import Ceph
from tests.servers.service import Service
from tests.services.test_pending_deletions import SHORT, new_image, pending_in
from tests.stores.pool import Pool
from tests.stores.test_rbd import TIMES

DATA = b"some data"


@pytest.fixture
def pool(ceph: Ceph) -> Iterator[Pool]:
    pool = Pool(ceph)
    pool.empty()
    yield pool
    pool.empty()
    pool.close()


@pytest.fixture
def server(service: ServiceFactory, ceph: Ceph) -> Service:
    conf = ceph.with_conf("of-a-service", TIMES.format(4))
    return service(
        {
            "DEFAULT": {"enabled_backends": "fast:rbd", "show_multiple_locations": "True"},
            "glance_store": {"default_backend": "fast"},
            "fast": {"rbd_store_ceph_conf": conf, "rbd_store_user": "glance"},
            "xloud": SHORT,
        }
    )


def test_old_clones_refuse_the_deletion_and_the_image_stays(server: Service, pool: Pool, ceph: Ceph) -> None:
    image = new_image(server, DATA)
    (location,) = server.request("GET", f"/v2/images/{image}").json()["locations"]
    assert location["url"] == f"rbd://{ceph.fsid}/images/{image}/snap"
    pool.clone(image, "volume", form=1)
    refused = server.request("DELETE", f"/v2/images/{image}")
    assert refused.status == 409
    assert b"clones depend on the image" in refused.body
    assert server.request("GET", f"/v2/images/{image}").json()["status"] == "active"
    assert server.request("GET", f"/v2/images/{image}/file").body == DATA
    pool.remove_clone("volume")
    assert server.request("DELETE", f"/v2/images/{image}").status == 204
    assert pool.objects == []
    assert not claims(server)


def test_new_clones_outlive_the_image_and_the_last_one_takes_its_bytes_along(server: Service, pool: Pool) -> None:
    image = new_image(server, DATA)
    pool.clone(image, "volume", form=2)
    assert server.request("DELETE", f"/v2/images/{image}").status == 204
    assert server.request("GET", f"/v2/images/{image}").status == 404
    assert pool.trash == [image]
    (entry,) = pending_in(server)
    assert (entry["kind"], entry["image"], entry["store"]) == ("delete", image, "fast")
    assert "clones depend" in entry["error"]
    assert pool.read_clone("volume") == DATA
    pool.remove_clone("volume")
    assert wait_until(lambda: not claims(server)), pending_in(server)
    assert pool.objects == []


def test_a_snapshot_that_nova_makes_within_the_cluster(pool: Pool, ceph: Ceph, tmp_path: Path) -> None:
    """The server's disk, a clone of its image, is cloned into the pool of images, flattened, given the snapshot that
    images have, and only its place is told: by PATCH as until 2025, by the call for locations since then."""
    cloud = Cloud(
        tmp_path,
        options={"enabled_backends": "fast:file,slow:file,mem:memory,ceph:rbd"},
        ceph={"rbd_store_ceph_conf": ceph.conf, "rbd_store_user": "glance"},
        xloud={name: value for name, value in SHORT.items() if name != "auth"},  # the right to hand data over is a role
    )
    cloud.service.start()
    try:
        base = cloud.nova.new(DATA, store="ceph")
        pool.clone(base, "server", form=1)
        made = []
        for by_patch in (True, False):
            queued = cloud.nova.new(name="snapshot", image_type="snapshot", base_image_ref=base)
            url = pool.snapshot_of_clone("server", queued)
            if by_patch:
                location = {"url": url, "metadata": {}}
                told = cloud.nova.patch(queued, {"op": "add", "path": "/locations/-", "value": location})
                assert told.status == 200, told
            else:
                told = cloud.nova.ask("POST", f"/v2/images/{queued}/locations", json={"url": url})
                assert told.status == 202, told
            assert wait_until(lambda one=queued: cloud.nova.show(one)["status"] == "active", 60)  # type: ignore[misc]
            assert wait_until(lambda one=queued: cloud.nova.show(one)["size"] == len(DATA), 60)  # type: ignore[misc]
            assert cloud.nova.download(queued).body == DATA
            made.append(queued)
        # the next server boots from it without a copy, and holds it
        pool.clone(made[0], "next", form=1)
        assert cloud.nova.delete(made[0]).status == 409
        pool.remove_clone("next")
        for one in made:
            assert wait_until(lambda one=one: cloud.nova.delete(one).status == 204, 60)  # type: ignore[misc]
        assert wait_until(lambda: pool.names == [base], 60), pool.names
        pool.remove_clone("server")
        assert cloud.nova.delete(base).status == 204
        assert cloud.service.stop() == 0
    finally:
        cloud.service.kill()


def test_an_unreachable_cluster_delays_only_the_bytes(server: Service, pool: Pool, ceph: Ceph) -> None:
    """No word of the log or of an answer holds the key of the user."""
    image = new_image(server, DATA)
    upload = new_image(server, None)
    ceph.stop_daemon("osd")
    try:
        assert server.request("DELETE", f"/v2/images/{image}", seconds=120).status == 204
        assert server.request("GET", f"/v2/images/{image}").status == 404
    finally:
        ceph.start_daemon("osd")
    assert wait_until(lambda: not claims(server), 90), pending_in(server)
    octets = {"Content-Type": "application/octet-stream"}
    assert server.request("PUT", f"/v2/images/{upload}/file", body=DATA, headers=octets).status == 204
    assert pool.read(upload) == DATA
    assert pool.names == [upload]
    assert ceph.key("glance") not in server.log
