"""Images in volumes of Cinder through the whole service: several processes read one image at the same time."""

import concurrent.futures
from pathlib import Path

from tests.api.cloud import Cloud
from tests.conftest import ServiceFactory
from tests.servers.cinder import Cinder
from tests.services.test_pending_deletions import new_image
from xloud_image.stores.suite import noise

DATA = noise((5 << 20) + 7)


def test_an_image_is_uploaded_read_by_two_processes_and_deleted(service: ServiceFactory, cinder: Cinder) -> None:
    node = {"cinder_mount_point_base": str(cinder.directory / "service")}
    sections = {
        "DEFAULT": {"enabled_backends": "volumes:cinder", "workers": "2"},
        "glance_store": {"default_backend": "volumes"},
        "volumes": cinder.store_options(**node),
    }
    server = service(sections, environment=cinder.nfs_environment)
    image = new_image(server, DATA)
    name = f"image-{image}"
    (volume,) = (one for one in cinder.volumes() if one["name"] == name)
    assert volume["metadata"]["image_size"] == str(len(DATA))

    def read(number: int) -> bool:
        headers = {"Range": f"bytes={number}-"} if number else {}
        answer = server.request("GET", f"/v2/images/{image}/file", headers=headers, seconds=120)
        return answer.status in (200, 206) and answer.body == DATA[number:]

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, (0, 1, 5 << 20, 0, 4096, 70001)))
    assert server.request("DELETE", f"/v2/images/{image}", seconds=120).status == 204
    assert not [one for one in cinder.volumes() if one["status"] != "deleting"]


def test_a_volume_that_cinder_made_for_an_image_goes_with_it(cinder: Cinder, tmp_path: Path) -> None:
    """As `image_upload_use_cinder_backend` does; and no volume of anybody else, whatever it is called."""
    cloud = Cloud(
        tmp_path,
        options={"enabled_backends": "fast:file,slow:file,mem:memory,volumes:cinder", "do_secure_hash": False},
        volumes=cinder.store_options(cinder_mount_point_base=str(cinder.directory / "service")),
    )
    cloud.service.start()
    try:
        for name, noted, stays in (("image-ID", "ID", False), ("image-ID", "other", True), ("data", "ID", True)):
            image_id = cloud.ann.new(visibility="community")
            metadata = {"image_size": "1000", "glance_image_id": noted.replace("ID", image_id)}
            fields = {"size": 1, "name": name.replace("ID", image_id), "volume_type": "image-store"}
            volume = cinder.call("POST", "/volumes", {"volume": {**fields, "metadata": metadata}})["volume"]["id"]
            cinder.await_status(volume, "available")
            path = f"/v2/images/{image_id}"
            answer = cloud.cinder.ask("POST", f"{path}/locations", json={"url": f"cinder://volumes/{volume}"})
            assert answer.status == 202, answer.body
            assert cloud.ann.ask("DELETE", path, seconds=120).status == 204
            if stays:
                assert cinder.volume(volume)["status"] == "available"
                cinder.call("DELETE", f"/volumes/{volume}")
            cinder.await_status(volume, "gone")
    finally:
        assert cloud.service.stop() == 0
