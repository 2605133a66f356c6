"""What lies in the pools of a test's Ceph, looked at and changed as its administrator, behind the stores' backs."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from tests.servers import Missing
from tests.servers.ceph import Ceph

try:
    import rados
    import rbd
except ImportError:
    rados = rbd = None


@contextlib.contextmanager
def opened(ioctx: Any, name: str | None = None, **which: Any) -> Iterator[Any]:
    """An image, open within the block; `which`: what `rbd.Image` takes more.

    Closed only after librbd has left it, which an answer to an asynchronous read tells: closed earlier, an image opened
    at a snapshot now and then ends the process (the rbd store's `opening` says why).
    """
    image = rbd.Image(ioctx, name, **which)
    heard = threading.Event()
    ioctx.aio_read("rbd_directory", 1, 0, lambda completion, data: heard.set())
    try:
        yield image
    finally:
        assert heard.wait(120), "Ceph does not answer"
        image.close()


class Pool:
    """Pool `images` by one connection; clones go to pool `volumes`. `clone_format`: 1 or 2, of later clones."""

    def __init__(self, ceph: Ceph) -> None:
        if rbd is None:
            raise Missing(
                "the bindings of Ceph are not linked here (Debian packages python3-rbd, python3-rados; `make`)"
            )
        self.ceph = ceph
        self._clusters = {
            number: rados.Rados(
                conffile=str(ceph.conf), rados_id="admin", conf={"rbd_default_clone_format": str(number)}
            )
            for number in (1, 2)
        }
        for cluster in self._clusters.values():
            cluster.connect()
        self.images = self._clusters[1].open_ioctx("images")
        self.volumes = self._clusters[1].open_ioctx("volumes")
        self.rbd = rbd.RBD()
        self._clones: set[str] = set()

    def close(self) -> None:
        for ioctx in (self.images, self.volumes):
            ioctx.close()
        for cluster in self._clusters.values():
            cluster.shutdown()

    def image(self, name: str, **how: Any) -> contextlib.AbstractContextManager[Any]:
        return opened(self.images, name, **how)

    def put(self, name: str, data: bytes, *, snapshot: bool = True, features: int | None = None) -> str:
        """An image as a Glance writes it; its URL."""
        self.rbd.create(self.images, name, len(data), order=23, old_format=False, features=features or 61)
        with self.image(name) as image:
            for start in range(0, len(data), 8 << 20):
                image.write(data[start : start + (8 << 20)], start)
            if snapshot:
                image.create_snap("snap")
                image.protect_snap("snap")
        return f"rbd://{self.ceph.fsid}/images/{name}/snap"

    def read(self, name: str) -> bytes | None:
        """The bytes of the image's snapshot, None where a cloner would find no image or no protected snapshot."""
        try:
            with self.image(name, snapshot="snap", read_only=True) as image:
                assert image.is_protected_snap("snap")
                data: bytes = image.read(0, image.size())
                return data
        except rbd.ImageNotFound:
            return None

    def clone(self, name: str, child: str, *, form: int) -> None:
        cluster = self._clusters[form]
        with cluster.open_ioctx("images") as images, cluster.open_ioctx("volumes") as volumes:
            self.rbd.clone(images, name, "snap", volumes, child, features=1)
        self._clones.add(child)

    def snapshot_of_clone(self, child: str, name: str) -> str:
        """An image of its own that holds what a clone holds now, as Nova makes it of a server's disk; its URL."""
        with opened(self.volumes, child) as disk:
            disk.create_snap("at")
            disk.protect_snap("at")
            self.rbd.clone(self.volumes, child, "at", self.images, name, features=1)
            with self.image(name) as image:
                image.flatten()
            disk.unprotect_snap("at")
            disk.remove_snap("at")
        with self.image(name) as image:
            image.create_snap("snap")
            image.protect_snap("snap")
        return f"rbd://{self.ceph.fsid}/images/{name}/snap"

    def remove_clone(self, child: str) -> None:
        self.rbd.remove(self.volumes, child)
        self._clones.discard(child)

    def prefix(self, child: str) -> str:
        """What the names of a clone's own objects begin with."""
        with opened(self.volumes, child, read_only=True) as image:
            found: str = image.stat()["block_name_prefix"]
            return found

    def read_clone(self, child: str) -> bytes:
        with opened(self.volumes, child, read_only=True) as image:
            data: bytes = image.read(0, image.size())
            return data

    @property
    def names(self) -> list[str]:
        return sorted(self.rbd.list(self.images))

    @property
    def trash(self) -> list[str]:
        return sorted(entry["name"] for entry in self.rbd.trash_list(self.images))

    @property
    def objects(self) -> list[str]:
        """Every object of the pool that belongs to an image."""
        always = {"rbd_directory", "rbd_info", "rbd_trash", "rbd_children", "rbd_trash_purge_schedule"}
        return sorted(one.key for one in self.images.list_objects() if one.key not in always)

    @property
    def claims(self) -> list[str]:
        return [name for name in self.objects if name.startswith("xloud_image_claim.")]

    def empty(self) -> None:
        """Remove the clones made here, every image, and every piece of one."""
        for child in list(self._clones):
            self.remove_clone(child)
        for name in self.names:
            self.rbd.trash_move(self.images, name, 0)
        for entry in list(self.rbd.trash_list(self.images)):
            with contextlib.suppress(rbd.ImageNotFound), opened(self.images, image_id=entry["id"]) as image:
                for snap in list(image.list_snaps()):
                    if snap["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                        if image.is_protected_snap(snap["name"]):
                            image.unprotect_snap(snap["name"])
                        image.remove_snap(snap["name"])
            self.rbd.trash_remove(self.images, entry["id"], force=True)
        for name in self.objects:
            self.images.remove_object(name)
