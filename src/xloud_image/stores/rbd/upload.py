"""An image being written: under a name of its own, several writes in flight, and under its key when it is whole.
Blocks; for threads. Where it goes when it fails: `removal`.

Before it has its key no reader can take it for an image: its name ends in `.part`. The steps and what stays after each
when the process dies: created (a part without snapshot), finished (a part with its snapshot), renamed (the image, which
has no location: `discard` of the key takes it, and the object by which only one at a time gives a key).
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from xloud_image.stores.kit import transfers
from xloud_image.stores.kit.chunks import Piece, runs
from xloud_image.stores.kit.transfers import Discarded
from xloud_image.stores.rbd.errors import TIMEOUT, Missing, Taken, Told, number
from xloud_image.stores.rbd.opening import Opened
from xloud_image.stores.rbd.removal import SNAPSHOT, Images, claim, identity, trashed, unclaim
from xloud_image.stores.rbd.session import Cluster, Connection

MIB: Final = 1 << 20
DEPTH: Final = 8  # writes or reads in flight: more gain nothing
# Bytes by which an image of unknown size grows: Ceph lets nothing be in flight at a step, so they are few; what is too
# much is trimmed at the end.
_FIRST_STEP: Final = 1 << 30
_LARGEST_STEP: Final = 8 << 30


class Budget:
    """How many blocks each of the transfers under way may have in flight, so that all together stay within `total`
    bytes, but for two blocks that each may always have."""

    def __init__(self, block: int, total: int) -> None:
        self._blocks = total // block
        self._lock = threading.Lock()
        self._transfers = 0

    @contextlib.contextmanager
    def transfer(self) -> Iterator[None]:
        with self._lock:
            self._transfers += 1
        try:
            yield
        finally:
            with self._lock:
                self._transfers -= 1

    @property
    def depth(self) -> int:
        return max(2, min(DEPTH, self._blocks // max(1, self._transfers)))


class Draft(transfers.Draft):
    """One image."""

    def __init__(self, cluster: Cluster, images: Images, key: str, *, block: int, thin: bool, budget: Budget) -> None:
        """Does nothing yet. `block`: bytes of one write, which is one object of the image when a power of two."""
        super().__init__(key)
        self._cluster, self._images = cluster, images
        self.name = f"{key}.{secrets.token_hex(8)}.part"
        self._block, self._thin, self._budget = block, thin, budget
        self._connection: Connection | None = None
        self._opened: Opened | None = None
        self._image: Any = None
        self._id: str | None = None
        self._size = 0  # of the image; `written` of the data
        self._known = False
        self.url = ""
        self._flight = threading.Condition()
        self._in_flight = 0
        self._failure = 0  # errno of a write that failed

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        with super()._working():
            try:
                yield
            except BaseException as error:
                if self._connection is not None:
                    self._cluster.failed(self._connection, number(error))
                raise

    def create(self, size: int | None) -> None:
        """Make the image. `Taken` when there is one under the key already."""
        rbd = self._cluster.rbd
        with self._working():
            one = self._connection = self._cluster.take()
            if identity(one, self.key) is not None or trashed(self._cluster, one, self.key):
                raise Taken
            self._known = size is not None
            self._size = _FIRST_STEP if size is None else size
            order = min(25, self._block.bit_length() - 1)  # objects of 32 MiB are the largest
            self.removed = False
            try:
                rbd.RBD().create(
                    one.ioctx, self.name, self._size, order=order, old_format=False, features=self._features(one)
                )
            except (rbd.ImageNotFound, rbd.ObjectNotFound) as error:
                sentences = self._cluster.sentences
                if not sentences.data:
                    raise
                raise Told(sentences.no_data_pool(), errno.ENOENT) from error
            try:
                self._opened = Opened(self._cluster, one, name=self.name)
            except Missing:
                raise Discarded from None
            self._image = self._opened.image
            self._id = str(self._image.id())

    def _features(self, one: Connection) -> int:
        """What the operator's ceph.conf says new images have; with layering, or nobody could clone them."""
        rbd = self._cluster.rbd
        text = str(one.handle.conf_get("rbd_default_features") or "")
        features = int(text) if text.isdigit() else int(rbd.RBD().features_from_string(text) if text else 0)
        return features | int(rbd.RBD_FEATURE_LAYERING)

    def write(self, pieces: list[Piece]) -> None:
        """Append, at most one block. Returns when there is room for the next one."""
        with self._working():
            data = b"".join(pieces)
            end = self.written + len(data)
            while not self._known and end > self._size:
                self._size += min(_LARGEST_STEP, self._size)
                self._image.resize(self._size)
            for start, buffers in runs((data,), self.written) if self._thin else ((self.written, [data]),):
                self._submit(b"".join(buffers), start)
            self.written = end

    def _submit(self, data: bytes, offset: int) -> None:
        self._wait(self._budget.depth - 1)
        with self._flight:
            self._in_flight += 1
        try:
            self._image.aio_write(data, offset, self._ended)
        except BaseException:
            with self._flight:
                self._in_flight -= 1
            raise

    def _ended(self, completion: Any) -> None:
        """Called by a thread of Ceph when a write has ended."""
        result = completion.get_return_value()
        with self._flight:
            self._in_flight -= 1
            if result < 0 and not self._failure:
                self._failure = -result
            self._flight.notify_all()

    def _wait(self, most: int) -> None:
        """Until at most so many writes are in flight. Raises what one of them ended in."""
        with self._flight:
            limit = 2 * self._cluster.operation_time
            if not self._flight.wait_for(lambda: self._failure or self._in_flight <= most, limit):
                self._failure = TIMEOUT
            if self._failure:
                error = OSError(self._failure, "writing failed")
                raise Told(self._cluster.sentences.cure(error).message, self._failure)

    def settle(self) -> None:
        """All bytes are stored, and the image has their size."""
        with self._working():
            self._wait(0)
            if self._size != self.written:
                self._image.resize(self.written)
            self._image.flush()

    def protect(self) -> None:
        """Make the protected snapshot that clones are made of. No option of Ceph bounds this call."""
        with self._working():
            self._image.create_snap(SNAPSHOT)
            self._image.protect_snap(SNAPSHOT)
            self._close()

    def publish(self) -> None:
        """Give it its key. `Taken`: another writer was first; `Discarded`: somebody took it away."""
        rbd = self._cluster.rbd
        with self._working():
            one = self._connection
            assert one is not None
            # Ceph's own renaming lets two at once win
            if not claim(self._cluster, one, self.key, self.name):
                raise Taken
            try:
                rbd.RBD().rename(one.ioctx, self.name, self.key)
            except (rbd.ImageExists, rbd.ObjectExists):
                raise Taken from None
            except (rbd.ImageNotFound, rbd.ObjectNotFound):
                raise Discarded from None
            unclaim(self._cluster, one, self.key, self.name)
            words = (one.fsid, self._cluster.pool, self.key, SNAPSHOT)
            self.url = "rbd://" + "/".join(quote(word, safe="") for word in words)

    def end(self) -> None:
        """It is published and out of our hands."""
        self._release()

    @property
    def holds(self) -> bool:
        return not self.removed or self._connection is not None

    def remove(self) -> None:
        if not self.holds:
            return
        with contextlib.suppress(Exception):
            self._close()
        self._release()
        if not self.removed:
            self._images.withdraw(self.name, self.key, self._id)
            self.removed = True

    def _close(self) -> None:
        """Waits for what is in flight."""
        opened, self._opened, self._image = self._opened, None, None
        if opened is not None:
            opened.close()

    def _release(self) -> None:
        with self._lock:
            one, self._connection = self._connection, None
        if one is not None:
            self._cluster.give_back(one)
