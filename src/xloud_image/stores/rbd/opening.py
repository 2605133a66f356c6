"""Images that librbd has open, and when one may be closed. Every opening and closing of the rbd store is here. Blocks;
for threads.

librbd wakes whoever opened an image at a snapshot before its own thread has left the image: a close at once frees what
that thread locks a moment later, and the process aborts, or every later opening of the connection hangs. librados calls
back for the asynchronous operations of one connection one after the other, and the last step of such an opening is one
of them. So an asynchronous read is asked for right after opening, and closing waits until it was called back: then
librbd's thread has left. That read was answered long ago, but when an image is closed at once: one round trip.

The wait is bounded: Ceph's own time limit ends the read, with a call back like any other. An image of which nothing is
heard all the same is not closed; it is kept, with its connection, until it is heard of (`Cluster.abandoned`), and a new
connection is made. Only so many are kept, then opening is refused.

Opening without a snapshot ends in a queue that closing passes through as well, and closing after opening for writing
takes an answer of the same kind; they are treated alike here all the same, so that nothing depends on it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterator
from typing import Any, Final

from xloud_image.stores.rbd.errors import TIMEOUT, Missing, Told
from xloud_image.stores.rbd.session import Cluster, Connection

_log = logging.getLogger(__name__)

MOST_ABANDONED: Final = 64  # of one store and process
_GRACE: Final = 2.0  # seconds above Ceph's own limit of one operation


class Opened:
    """An open image. `image` is that of the binding; only `close` closes it."""

    def __init__(self, cluster: Cluster, one: Connection, **which: Any) -> None:
        """`which`: what `rbd.Image` takes beside the pool. `Missing` when there is no such image or snapshot."""
        close_abandoned(cluster)
        if len(cluster.abandoned) >= MOST_ABANDONED:
            raise Told(cluster.sentences.silent(), TIMEOUT)
        rbd = cluster.rbd
        self._cluster, self._connection = cluster, one
        # Any object will do for the read that is asked for, also one that is not there. This one was just read by
        # opening, so the disks that have it answer; one for all images would hold up all when its disks do not.
        name, image_id = which.get("name"), which.get("image_id")
        self._object = f"rbd_header.{image_id}" if name is None else f"rbd_id.{name}"
        try:
            self.image: Any = rbd.Image(one.ioctx, **which)
        except (rbd.ImageNotFound, rbd.ObjectNotFound):
            raise Missing from None
        self._heard = threading.Event()
        self._asked = False
        self._ask()

    def _ask(self) -> None:
        """Ask for an answer that comes after librbd has left. Where not even that works it is asked again later."""
        heard = self._heard  # and not self: an answer that is late keeps nothing alive

        def answered(completion: Any, data: bytes | None) -> None:
            heard.set()

        with contextlib.suppress(Exception):
            self._connection.ioctx.aio_read(self._object, 1, 0, answered)
            self._asked = True

    def close(self) -> None:
        """Close it, waiting for what is in flight; twice is once. Raises what closing raises."""
        image = self.image
        if image is None:
            return
        if not self._asked:
            self._ask()
        if not self._heard.wait(self._cluster.operation_time + _GRACE):
            self._abandon()
            return
        self.image = None
        image.close()

    def _abandon(self) -> None:
        cluster = self._cluster
        cluster.use(self._connection)  # never closed under the image
        with cluster.lock:
            cluster.abandoned.append(self)
        cluster.failed(self._connection, errno.ESHUTDOWN)
        _log.warning("store %s: Ceph's library does not answer; an image is closed later", cluster.sentences.store)

    def close_late(self) -> bool:
        """Close an abandoned image if that can be done by now."""
        if not self._heard.is_set():
            if not self._asked:
                self._ask()
            return False
        image, self.image = self.image, None
        with contextlib.suppress(Exception):
            image.close()
        self._cluster.give_back(self._connection)
        return True


def close_abandoned(cluster: Cluster) -> None:
    """Close those of the abandoned images that may be closed by now."""
    if not cluster.abandoned:
        return
    with cluster.lock:
        waiting = list(cluster.abandoned)
        cluster.abandoned.clear()
    left = [one for one in waiting if not one.close_late()]
    with cluster.lock:
        cluster.abandoned.extend(left)


@contextlib.contextmanager
def opened(cluster: Cluster, one: Connection, **which: Any) -> Iterator[Any]:
    """The binding's image, open within the block."""
    found = Opened(cluster, one, **which)
    try:
        yield found.image
    finally:
        found.close()
