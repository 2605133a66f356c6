"""Images in Ceph through the whole service: clones that hold an image, and clones that outlive it."""

from collections.abc import Iterator

import pytest

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
