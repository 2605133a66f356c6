"""An image being read, with several reads ahead of the one that is waited for. Blocks; for threads."""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import Any

from xloud_image.stores.rbd.errors import TIMEOUT, Told, number
from xloud_image.stores.rbd.opening import Opened
from xloud_image.stores.rbd.removal import identity
from xloud_image.stores.rbd.session import Cluster
from xloud_image.stores.rbd.upload import Budget


class OpenImage:
    """An image, or a snapshot of it, open for reading. One thread is in `read` at a time."""

    def __init__(self, cluster: Cluster, name: str, snapshot: str | None, *, block: int, budget: Budget) -> None:
        """`Missing` when there is no such image or snapshot."""
        self._cluster, self._name, self._block, self._budget = cluster, name, block, budget
        self._counted = contextlib.ExitStack()
        self._connection = cluster.take()
        self._opened: Opened | None = None
        self._ready = threading.Condition()
        self._arrived: dict[int, bytes | int] = {}  # offset → bytes, or the errno
        self._image: Any = None
        self._in_flight = 0
        self._asked = self._end = 0
        try:
            self._opened = Opened(cluster, self._connection, name=name, snapshot=snapshot, read_only=True)
            self._image = self._opened.image
            self.size = int(self._image.size())
            self._counted.enter_context(budget.transfer())
        except BaseException as error:
            if self._opened is not None:
                with contextlib.suppress(Exception):
                    self._opened.close()
                self._opened = self._image = None
            cluster.failed(self._connection, number(error))
            cluster.give_back(self._connection)
            raise

    @property
    def open(self) -> bool:
        """Whether it has not been closed yet."""
        return self._opened is not None

    def aim(self, offset: int, length: int) -> None:
        """The range that will be read, once, before the first `read`."""
        self._asked, self._end = offset, offset + length

    def read(self, offset: int, length: int) -> bytes:
        """The next bytes of the range, to the end of a block or of the range. The blocks after it are under way."""
        self._ask()
        with self._ready:
            answered = self._ready.wait_for(lambda: offset in self._arrived, 2 * self._cluster.operation_time)
            data = self._arrived.pop(offset) if answered else TIMEOUT
        if isinstance(data, int):
            self._cluster.failed(self._connection, data)
            error = OSError(data, "reading failed")
            raise Told(self._cluster.sentences.cure(error).message, data)
        # An image that is being removed reads as zeros; it has lost its name before it lost its bytes.
        if identity(self._connection, self._name) is None:
            raise Told("an image was deleted while it was read", errno.ESTALE)
        self._ask()
        return data

    def _ask(self) -> None:
        while self._asked < self._end and self._in_flight + len(self._arrived) < self._budget.depth:
            offset = self._asked
            length = min(self._block - offset % self._block, self._end - offset)
            with self._ready:
                self._in_flight += 1
            self._asked += length

            def ended(completion: Any, data: bytes | None, offset: int = offset, length: int = length) -> None:
                result = completion.get_return_value()
                with self._ready:
                    self._in_flight -= 1
                    whole = data is not None and result == len(data) == length
                    self._arrived[offset] = (
                        data if whole and data is not None else (-result if result < 0 else errno.EIO)
                    )
                    self._ready.notify_all()

            try:
                self._image.aio_read(offset, length, ended)
            except BaseException:
                with self._ready:
                    self._in_flight -= 1
                raise

    def close(self) -> None:
        """Waits for what is in flight, at most as long as Ceph's own time limit. Twice is once."""
        opened, self._opened, self._image = self._opened, None, None
        if opened is not None:
            with contextlib.suppress(Exception):
                opened.close()
            self._cluster.give_back(self._connection)
            self._counted.close()
