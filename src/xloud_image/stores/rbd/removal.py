"""What lies in the pool of the rbd store: finding, hiding and removing images, and who depends on them. Blocks; for
threads. Bytes: `upload` and `download`.

Removing begins with moving the image to the trash of its pool, with its snapshot as it is: from then on nobody finds it
by its name, and a process that dies leaves it where the next attempt takes it up. Clones of the new format (2) live on
with a parent in the trash; those of the old format (1) hold it, so they are asked for before anything is touched.
"""

from __future__ import annotations

import contextlib
import errno
import re
import struct
from typing import Any, Final

from xloud_image.errors import InUse, StillNeeded
from xloud_image.stores.rbd.errors import Missing, Told, caps, number
from xloud_image.stores.rbd.opening import opened
from xloud_image.stores.rbd.session import Cluster, Connection

SNAPSHOT: Final = "snap"
_PART: Final = r"\.[0-9a-f]{16}\.part"  # after a key: the name of an image that is being written
_CLAIM: Final = "xloud_image_claim."  # before a key: the object that says who is about to give it
_MANY: Final = 8  # clones that a sentence names; snapshots that are looked at one by one
_HEAD: Final = (1 << 64) - 2  # in place of a snapshot's number: none
_ANSWER: Final = 64 << 10  # bytes; an answer has some dozens


def part_of(key: str) -> re.Pattern[str]:
    """Names of images that are, or were, being written under this key."""
    return re.compile(re.escape(key) + _PART)


_ANY_PART: Final = re.compile(r".*" + _PART)


def identity(one: Connection, name: str) -> str | None:
    """The id of the image of this name, None when there is none. One small read."""
    try:
        text: bytes = one.ioctx.read(f"rbd_id.{name}", 256)
    except Exception as error:
        if number(error) == errno.ENOENT:
            return None
        raise
    return text[4 : 4 + struct.unpack_from("<I", text)[0]].decode() if len(text) > 4 else None


def size(one: Connection, name: str, snapshot: str | None) -> int | None:
    """Bytes of an image, or of a snapshot of it, by what librbd itself asks the image's header, without opening it.

    `Missing`. None where only opening tells: images of format 1, many snapshots, a Ceph that does not know the calls.
    """
    found = identity(one, name)
    if found is None:
        return None

    def ask(method: str, *words: int) -> bytes:
        answer: bytes = one.ioctx.execute(
            f"rbd_header.{found}", "rbd", method, struct.pack(f"<{len(words)}Q", *words), _ANSWER
        )[1]
        return answer

    try:
        if snapshot is None:
            return int(struct.unpack_from("<BQ", ask("get_size", _HEAD))[1])
        snaps = ask("get_snapcontext")
        count = int(struct.unpack_from("<QI", snaps)[1])
        if count > _MANY:
            return None
        for number_of in struct.unpack_from(f"<{count}Q", snaps, 12):
            kind, its_name, its_size = _snapshot(ask("snapshot_get", number_of))
            if kind == 0 and its_name == snapshot.encode():
                return its_size
    except Exception as error:
        if number(error) == errno.ENOENT:  # the header, or the snapshot, went a moment ago
            raise Missing from None
        if number(error) in {errno.EOPNOTSUPP, errno.ERANGE} or isinstance(error, struct.error):
            return None
        raise
    raise Missing


def _snapshot(text: bytes) -> tuple[int, bytes, int]:
    """(kind: 0 those that users make; name; bytes) of a snapshot, as the header's class encodes it: each structure
    begins with its version (2 bytes) and length (4), and later versions only append."""
    _, length, kind = struct.unpack_from("<QxxII", text, 6)
    at = 6 + 8 + 6 + length
    end = at + 4 + int(struct.unpack_from("<I", text, at)[0])
    return kind, text[at + 4 : end], int(struct.unpack_from("<Q", text, end)[0])


def claim(cluster: Cluster, one: Connection, key: str, token: str) -> bool:
    """Be the only one who may give an image this key; False when another one is at it, or has died at it."""
    rados = cluster.rados
    try:
        with rados.WriteOpCtx() as op:
            op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            op.write_full(token.encode())
            one.ioctx.operate_write_op(op, _CLAIM + key)
    except rados.ObjectExists:
        return False
    return True


def unclaim(cluster: Cluster, one: Connection, key: str, token: str | None = None) -> None:
    """Let others give the key again; `token`: only if the claim is this one."""
    with contextlib.suppress(cluster.rados.ObjectNotFound):
        if token is None or one.ioctx.read(_CLAIM + key, 256) == token.encode():
            one.ioctx.remove_object(_CLAIM + key)


def trashed(cluster: Cluster, one: Connection, name: str | re.Pattern[str]) -> list[tuple[str, str]]:
    """(id, name) of what lies in the trash under this name or names of this form."""
    found = [(str(entry["id"]), str(entry["name"])) for entry in cluster.rbd.RBD().trash_list(one.ioctx)]
    if isinstance(name, str):
        return [entry for entry in found if entry[1] == name]
    return [entry for entry in found if name.fullmatch(entry[1])]


def names(cluster: Cluster, one: Connection, limit: int) -> list[str]:
    """Names of finished images, at most so many, in alphabetical order."""
    found = (str(name) for name in cluster.rbd.RBD().list(one.ioctx))
    return sorted(name for name in found if not _ANY_PART.fullmatch(name))[:limit]


class Images:
    """Removing in one pool. `store` names it in sentences."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def hide(self, name: str) -> str | None:
        """Move an image to the trash and return its id, None when it was there already. `Missing`, and `InUse` when a
        clone of the old format, a snapshot of somebody else or an open client holds it: then nothing was changed."""
        with self._cluster.connection() as one:
            if identity(one, name) is None:
                if trashed(self._cluster, one, name):
                    return None
                raise Missing
            with opened(self._cluster, one, name=name, read_only=True) as image:
                self._refuse(one, image, name)
                found = str(image.id())
            self._to_trash(one, name)
            return found

    def _to_trash(self, one: Connection, name: str) -> None:
        rbd = self._cluster.rbd
        try:
            rbd.RBD().trash_move(one.ioctx, name, 0)
        except rbd.ImageNotFound:
            raise Missing from None

    def _refuse(self, one: Connection, image: Any, name: str) -> None:
        """`InUse` when something depends on the image that would be harmed by its removal."""
        snaps = list(image.list_snaps())
        others = [snap["name"] for snap in snaps if snap["namespace"] != self._trash and snap["name"] != SNAPSHOT]
        if others:
            listed = ", ".join(map(str, others[:_MANY]))
            raise InUse(f"the image has snapshots that somebody else made: {listed}")
        pools = self._old_clones(one, str(image.id()), [int(snap["id"]) for snap in snaps])
        if pools:
            raise InUse(self._told(one, name, pools))
        watching = [str(one_of["addr"]) for one_of in image.watchers_list() if str(one_of["addr"]) != one.address]
        if watching:
            raise InUse(f"the image is open for writing by the client at {', '.join(watching)}")

    @property
    def _trash(self) -> int:
        return int(self._cluster.rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH)

    def _old_clones(self, one: Connection, image_id: str, snapshots: list[int]) -> dict[str, int]:
        """How many clones of format 1 each pool holds. Ceph keeps them in an object of the clones' pool, which
        'profile rbd' lets everybody ask; their names it does not tell."""
        found: dict[str, int] = {}
        word = image_id.encode()
        for pool in one.handle.list_pools() if snapshots else ():
            try:
                with one.handle.open_ioctx(pool) as ioctx:
                    for snapshot in snapshots:
                        asked = struct.pack("<qI", one.ioctx.get_pool_id(), len(word)) + word
                        with contextlib.suppress(self._cluster.rados.ObjectNotFound):
                            answer = ioctx.execute(
                                "rbd_children", "rbd", "get_children", asked + struct.pack("<Q", snapshot), 1 << 20
                            )[1]
                            found[pool] = found.get(pool, 0) + int(struct.unpack_from("<I", answer)[0])
            except self._cluster.rados.Error as error:
                if number(error) == errno.ETIMEDOUT:
                    raise
                # a pool that we may not ask: removing the protection of the snapshot will tell
        return {pool: count for pool, count in found.items() if count}

    def _told(self, one: Connection, name: str, pools: dict[str, int]) -> str:
        """Which clones hold the image, by name where we may read it."""
        listed: list[str] = []
        with (
            contextlib.suppress(Exception),
            opened(self._cluster, one, name=name, snapshot=SNAPSHOT, read_only=True) as image,
        ):
            listed = [f"{child['pool']}/{child['image']}" for child in image.list_children2()]
        if listed:
            more = f" and {len(listed) - _MANY} more" if len(listed) > _MANY else ""
            return f"clones depend on the image: {', '.join(sorted(listed)[:_MANY])}{more}"
        sentences = self._cluster.sentences
        where = ", ".join(f"{count} in pool {pool}" for pool, count in sorted(pools.items()))
        return (
            f"clones depend on the image: {where}. Their names can be shown here after"
            f' "{caps(sentences.user, sentences.pool, data=sentences.data, clones=min(pools))}"'
        )

    def purge(self, name: str, hidden: str | None) -> None:
        """Remove what lies in the trash under this name. `StillNeeded` while clones of the new format depend on it.

        `hidden`: the id that `hide` has just put there: it goes back to its name when somebody was quicker and now
        holds it, and that is `InUse`.
        """
        with self._cluster.connection() as one:
            entries = [(hidden, name)] if hidden else trashed(self._cluster, one, name)
            if not entries:
                raise Missing
            for image_id, _ in entries:
                try:
                    with (
                        contextlib.suppress(Missing),
                        opened(self._cluster, one, image_id=image_id, read_only=True) as image,
                    ):
                        self._refuse(one, image, name)
                        if image.op_features() & self._cluster.rbd.RBD_OPERATION_FEATURE_CLONE_PARENT:
                            raise StillNeeded("clones depend on the image; it goes with the last")
                    self._destroy(one, image_id=image_id)
                except InUse as error:
                    if not hidden:
                        raise StillNeeded(error.message) from None
                    self._cluster.rbd.RBD().trash_restore(one.ioctx, image_id, name)
                    raise

    def _destroy(self, one: Connection, *, name: str | None = None, image_id: str | None = None) -> None:
        """Snapshots and bytes of an image, by its name or, in the trash, by its id. Gone already is fine."""
        rbd = self._cluster.rbd
        with contextlib.suppress(Missing), opened(self._cluster, one, name=name, image_id=image_id) as image:
            for snap in list(image.list_snaps()):
                if snap["namespace"] == self._trash:
                    continue
                try:
                    if image.is_protected_snap(snap["name"]):
                        image.unprotect_snap(snap["name"])
                    image.remove_snap(snap["name"])
                except rbd.ImageBusy:
                    raise InUse("clones depend on the image") from None
                except (rbd.ImageNotFound, rbd.InvalidArgument):  # another one does the same
                    continue
        try:
            if image_id is None:
                rbd.RBD().remove(one.ioctx, name)
            else:
                rbd.RBD().trash_remove(one.ioctx, image_id)
        except rbd.ImageNotFound:
            return  # also when only a name without an image was left: that is gone now
        except rbd.ImageBusy:
            raise StillNeeded("the image is still open; it goes when it is closed") from None
        except rbd.ImageHasSnapshots:
            raise StillNeeded("the image's snapshot is still needed") from None
        except rbd.PermissionError as error:
            if image_id is not None and number(error) == errno.EPERM:
                raise StillNeeded("an administrator keeps the image in the trash for now") from None
            raise

    def discard(self, key: str) -> list[str]:
        """Take every trace of writes of a key away from its names, and remove it. Returns the ids of what is still held
        open (by a writer that will fail, or by the ghost of a dead one for half a minute) and lies in the trash."""
        rbd, form = self._cluster.rbd, part_of(key)
        with self._cluster.connection() as one:
            parts = [str(name) for name in rbd.RBD().list(one.ioctx) if form.fullmatch(str(name))]
            for name in (*parts, key):
                if identity(one, name) is not None:
                    with contextlib.suppress(Missing):
                        self._to_trash(one, name)
                    self._drop_name(one, name)
            unclaim(self._cluster, one, key)
            entries = trashed(self._cluster, one, form) + trashed(self._cluster, one, key)
            return [image_id for image_id, _ in entries if not self.removed(image_id)]

    def _drop_name(self, one: Connection, name: str) -> None:
        """A name that leads to no image (a process died between two steps of Ceph's renaming or creating)."""
        if identity(one, name) is not None:
            with contextlib.suppress(StillNeeded):
                self._destroy(one, name=name)

    def removed(self, image_id: str) -> bool:
        """Remove what lies in the trash under this id; False when it is held for now."""
        with self._cluster.connection() as one:
            try:
                self._destroy(one, image_id=image_id)
            except (StillNeeded, InUse):
                return False
            return True

    def parts_in_trash(self) -> list[str]:
        """Ids of discarded images in the trash, whoever wrote them."""
        with self._cluster.connection() as one:
            return [image_id for image_id, _ in trashed(self._cluster, one, _ANY_PART)]

    def withdraw(self, name: str, key: str, image_id: str | None) -> None:
        """Nothing stays of the image that was being written as `name`, also when it lies in the trash by now, or when
        it was about to become `key`. A part that is open elsewhere raises `StillNeeded`."""
        with self._cluster.connection() as one:
            unclaim(self._cluster, one, key, name)
            for one_name in (name, key):
                found = identity(one, one_name)
                if found is not None and (one_name == name or found == image_id):
                    self._destroy(one, name=one_name)
            for found, _ in trashed(self._cluster, one, name) + trashed(self._cluster, one, key):
                if image_id is None or found == image_id:
                    self._destroy(one, image_id=found)


def refused(error: BaseException) -> bool:
    """Whether an error says that the store's user may not do this."""
    return not isinstance(error, Told) and number(error) in {errno.EACCES, errno.EPERM}
