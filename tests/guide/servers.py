"""The servers of the guide's stores, what is swapped in its blocks for them, and a look behind the back of each."""

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import boto3  # type: ignore[import-untyped]

from tests.deploy.site import VOLUME, Site
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.keystone import USERS
from tests.servers.nginx import Nginx
from tests.servers.place import HOST, new_directory
from tests.servers.rgw import Rgw
from tests.servers.swift import Swift
from tests.servers.vsphere import Vsphere

DATASTORE = ("LocalDS_0", "DC0")
BUCKET = "glance-images"
CONTAINER = "glance"
FOLDER = "openstack_glance"
VOLUME_TYPE = "guide-image-store"


@dataclasses.dataclass
class Servers:
    """`mount`: what the guide calls /mnt/glance_images. `pages`: the folder that nginx serves."""

    site: Site
    ceph: Ceph
    rgw: Rgw
    swift: Swift
    vsphere: Vsphere
    cinder: Cinder
    web: Nginx
    pages: Path
    mount: Path = dataclasses.field(default_factory=lambda: new_directory("mnt") / "glance_images")
    haproxy: Path = dataclasses.field(default_factory=lambda: new_directory("haproxy"))

    def __post_init__(self) -> None:
        (self.haproxy / "haproxy.cfg").write_text(
            "global\n  log stdout format raw local0\n"
            "defaults\n  log global\n  timeout connect 1s\n  timeout client 2s\n  timeout server 2s\n"
        )

    @cached_property
    def swaps(self) -> Mapping[str, object]:
        """What of the guide's text is written otherwise here, in this order; everything else is typed as printed."""
        keystone = self.site.keystone.url.removesuffix("/v3")
        return {
            # places of the operator's machine
            "/etc/xavs": self.site.path,
            "/mnt/glance_images": self.mount,
            "/etc/haproxy": self.haproxy,
            # addresses
            "http://10.0.1.71:5000": keystone,
            "10.0.1.71:9292": f"{HOST}:{self.site.port}",
            "10.0.1.71": HOST,
            "https://s3.example.com": self.rgw.tls_url,
            "http://example.com": self.web.url,
            "10.0.10.20": self.vsphere.host,
            # names
            "DatacenterName:DatastoreName": f"{DATASTORE[1]}:{DATASTORE[0]}",
            "client.cinder": f"client.{self.cinder.ceph_user}",
            "image-store": VOLUME_TYPE,
            # passwords
            "<access-key>": self.rgw.access,
            "<secret-key>": self.rgw.secret,
            "<vcenter-password>": self.vsphere.password,
            "<admin-password>": USERS["admin"].password,
            "<database-password>": "",
            "<glance-service-password>": USERS["glance"].password,
        }

    @property
    def files(self) -> dict[str, Path]:
        """What lies in the operator's folder from the start: the certificates that others gave him."""
        return {"s3-ca.crt": self.rgw.ca, "vcenter-ca.crt": self.vsphere.ca_file}

    # what lies in each store, seen by other means than ours

    def behind(self, store: str, identity: str) -> bytes:
        """The bytes of an image in a store; raises when they are not there."""
        found: bytes = getattr(self, f"_behind_{store}")(identity)
        return found

    def _behind_volume(self, identity: str) -> bytes:
        place = self.site.podman.run("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME).strip()
        return (Path(place) / "images" / identity).read_bytes()

    def _behind_directory(self, identity: str) -> bytes:
        return (self.mount / identity).read_bytes()

    def _behind_rbd(self, identity: str) -> bytes:
        return self._exported(f"images/{identity}")

    def _behind_swift(self, identity: str) -> bytes:
        answer = self.swift.call("GET", f"{CONTAINER}/{identity}")
        assert answer.status == 200, answer.body
        return answer.body

    def _behind_s3(self, identity: str) -> bytes:
        client = boto3.client(
            "s3", endpoint_url=self.rgw.tls_url, verify=str(self.rgw.ca), aws_access_key_id=self.rgw.access,
            aws_secret_access_key=self.rgw.secret, region_name="us-east-1",
        )  # fmt: skip
        try:
            found: bytes = client.get_object(Bucket=BUCKET, Key=identity)["Body"].read()
            return found
        finally:
            client.close()

    def _behind_vmware(self, identity: str) -> bytes:
        return (self.vsphere.directory(*DATASTORE) / FOLDER / identity).read_bytes()

    def _behind_cinder(self, identity: str) -> bytes:
        (volume,) = (one for one in self.cinder.volumes() if identity in one["name"])
        assert volume["volume_type"] == VOLUME_TYPE
        size = int(volume["metadata"]["image_size"])
        return self._exported(f"volumes/volume-{volume['id']}")[:size]

    def _behind_web(self, identity: str) -> bytes:
        """It lies in no store of ours, only on the web server."""
        for store in ("volume", "directory"):
            try:
                self.behind(store, identity)
            except FileNotFoundError:
                continue
            raise AssertionError(f"{identity} lies in the {store}")
        return (self.pages / "images" / "ubuntu-24.04.qcow2").read_bytes()

    def _exported(self, image: str) -> bytes:
        """All of an RBD image."""
        assert json.loads(self.ceph.admin("rbd", "info", image, "--format", "json"))
        file = new_directory("export") / "data"
        try:
            self.ceph.admin("rbd", "export", "--no-progress", image, file, seconds=120)
            return file.read_bytes()
        finally:
            file.unlink(missing_ok=True)
