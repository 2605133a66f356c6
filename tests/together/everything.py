"""One service with all seven stores, each on its real server, and a look behind the back of each.

A place of its own in every server: what else lies there, of other tests, is not counted.
"""

import json
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.http import Answer, request
from tests.servers.nginx import Nginx
from tests.servers.rgw import Rgw
from tests.servers.service import Service
from tests.servers.swift import Swift
from tests.servers.vsphere import Vsphere

WRITABLE = ("files", "rbd", "s3", "swift", "vmware", "cinder")
TYPES = {"files": "file", "web": "http"} | {name: name for name in WRITABLE[1:]}
DATASTORE = ("LocalDS_0", "DC0")


class Everything:
    """`sections`: the configuration of the stores files, rbd, s3, swift, vmware, cinder and web."""

    def __init__(
        self, *, ceph: Ceph, rgw: Rgw, swift: Swift, vsphere: Vsphere, cinder: Cinder, web: Nginx, directory: Path
    ) -> None:
        self.ceph, self.rgw, self.swift, self.vsphere, self.cinder, self.web = ceph, rgw, swift, vsphere, cinder, web
        self.mark = secrets.token_hex(4)
        self.pool = f"images-{self.mark}"
        self.bucket = self.container = self.folder = f"together-{self.mark}"
        self.files = directory / "images"
        ceph.admin("osd", "pool", "create", self.pool, "8")
        ceph.admin("rbd", "pool", "init", self.pool)
        self.ceph_user = f"glance-{self.mark}"
        caps = {"mon": "profile rbd", "osd": f"profile rbd pool={self.pool}", "mgr": f"profile rbd pool={self.pool}"}
        ceph.add_user(self.ceph_user, caps)
        # Cinder clones from there
        pools = f"profile rbd pool=volumes, profile rbd-read-only pool={self.pool}"
        ceph.add_user(cinder.ceph_user, {"mon": "profile rbd", "osd": pools, "mgr": "profile rbd pool=volumes"})

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        chosen = ", ".join(f"{name}:{kind}" for name, kind in TYPES.items())
        return {
            "DEFAULT": {"enabled_backends": chosen, "show_multiple_locations": True, "show_image_direct_url": True},
            "files": {"filesystem_store_datadir": self.files},
            "rbd": {
                "rbd_store_ceph_conf": self.ceph.conf,
                "rbd_store_user": self.ceph_user,
                "rbd_store_pool": self.pool,
                "weight": 30,
            },
            "s3": {
                "s3_store_host": self.rgw.url,
                "s3_store_access_key": self.rgw.access,
                "s3_store_secret_key": self.rgw.secret,
                "s3_store_bucket": self.bucket,
                "s3_store_create_bucket_on_put": True,
                "s3_store_bucket_url_format": "path",
            },
            "swift": self.swift.options(swift_store_container=self.container),
            "vmware": {
                "vmware_server_host": self.vsphere.host,
                "vmware_server_username": self.vsphere.user,
                "vmware_server_password": self.vsphere.password,
                "vmware_datastores": f"{DATASTORE[1]}:{DATASTORE[0]}:100",
                "vmware_store_image_dir": f"/{self.folder}",
                "vmware_ca_file": self.vsphere.ca_file,
                "vmware_task_poll_interval": 1,
            },
            "cinder": self.cinder.store_options(),
            "web": {},
            "xloud": {"location_networks": "127.0.0.0/8"},  # where the web server is
        }

    def behind(self) -> dict[str, list[str]]:
        """What lies in each writable store now, seen by other means than ours: rbd, S3's and Swift's own clients,
        Cinder's API, the folders of the datastore."""
        bucket = boto3.client(
            "s3",
            endpoint_url=self.rgw.url,
            aws_access_key_id=self.rgw.access,
            aws_secret_access_key=self.rgw.secret,
            region_name="us-east-1",
        )
        try:
            there = bucket.list_objects_v2(Bucket=self.bucket).get("Contents", [])
            unfinished = bucket.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        except bucket.exceptions.NoSuchBucket:
            there, unfinished = [], []
        finally:
            bucket.close()
        listing = self.swift.call("GET", f"{self.container}?format=json")
        folder = self.vsphere.directory(*DATASTORE) / self.folder
        trash = self.ceph.admin("rbd", "trash", "ls", "--all", self.pool, "--format", "json")
        return {
            "files": [file.name for file in self.files.iterdir()] if self.files.exists() else [],
            "rbd": [
                *json.loads(self.ceph.admin("rbd", "ls", self.pool, "--format", "json")),
                *[f"trash: {one['name']}" for one in json.loads(trash or "[]")],
            ],
            "s3": [one["Key"] for one in there] + [f"unfinished: {one['Key']}" for one in unfinished],
            "swift": [one["name"] for one in listing.json()] if listing.status == 200 else [],
            "vmware": [file.name for file in folder.iterdir()] if folder.exists() else [],
            "cinder": [one["name"] for one in self.cinder.volumes() if one["status"] != "deleting"],
        }


class Client:
    """What a client asks of a service that has no login, in few words."""

    def __init__(self, service: Service) -> None:
        self.url = service.url

    def create(self, **fields: Any) -> str:
        """The id of a new image; raw unless `fields` say otherwise."""
        body = {"name": "together", "disk_format": "raw", "container_format": "bare", **fields}
        answer = request("POST", f"{self.url}/v2/images", json=body)
        assert answer.status == 201, answer.body
        identity: str = answer.json()["id"]
        return identity

    def put(self, identity: str, data: bytes, store: str, *, known: bool = True, seconds: float = 300) -> Answer:
        """Upload; `known` False: chunked, so that the size is not told."""
        pieces = (data[start : start + 65536] for start in range(0, len(data), 65536))
        return self.send(identity, data if known else pieces, store, seconds=seconds)

    def send(self, identity: str, body: bytes | Iterable[bytes], store: str, *, seconds: float = 300) -> Answer:
        """Upload; what comes in pieces is chunked."""
        return request(
            "PUT",
            f"{self.url}/v2/images/{identity}/file",
            body=body,
            headers={"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store},
            seconds=seconds,
        )

    def put_file(self, identity: str, file: Path, store: str) -> tuple[int, str]:
        """Upload as curl does, which listens while it sends: (status, what was said)."""
        done = subprocess.run(
            [
                *("curl", "-sS", "-X", "PUT", "-T", file, "-H", "Content-Type: application/octet-stream"),
                *("-H", f"X-Image-Meta-Store: {store}", "-w", "\n%{http_code}"),
                f"{self.url}/v2/images/{identity}/file",
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said, _, status = done.stdout.rpartition("\n")
        return int(status), said

    def get(self, identity: str, first: int | None = None, last: int | None = None, *, seconds: float = 300) -> Answer:
        """Download all, or the bytes from `first` to `last`."""
        headers = {} if first is None else {"Range": f"bytes={first}-{'' if last is None else last}"}
        return request("GET", f"{self.url}/v2/images/{identity}/file", headers=headers, seconds=seconds)

    def show(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = request("GET", f"{self.url}/v2/images/{identity}").json()
        return found

    def delete(self, identity: str, *, seconds: float = 300) -> Answer:
        return request("DELETE", f"{self.url}/v2/images/{identity}", seconds=seconds)

    def call(self, method: str, path: str, json: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return request(method, f"{self.url}{path}", json=json, headers=headers, seconds=120)
