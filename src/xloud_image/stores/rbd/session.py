"""The connection of the rbd store to its cluster: one for each store and process, opened by the first call that needs
it, kept, renewed when the cluster has shut it out. Blocks; for threads. No images here.

Every call is bounded in time by options of the connection, as far as Ceph has options for it: those that the operator
has set in ceph.conf stay, the others are set here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from xloud_image.stores.rbd.errors import LOST, TIMEOUT, Sentences, Told, number
from xloud_image.stores.rbd.trial import SECONDS, Trial, strange

_log = logging.getLogger(__name__)

CONNECT: Final = 10.0  # seconds for connecting, unless configured
OPERATION: Final = 30.0  # seconds for one operation, unless configured in ceph.conf
_CALLBACKS: Final = 2  # threads of librados; its own default
_AGAIN: Final = 1.0  # seconds in which a failure to connect is told to others without trying anew

# Connections that hang while being closed: forgetting one would make the interpreter close it, and hang.
_hanging: Final[list[Any]] = []


class Connection:
    """An open connection. Counts its users, so that it is never closed under one."""

    def __init__(self, handle: Any, ioctx: Any, fsid: str) -> None:
        self.handle, self.ioctx, self.fsid = handle, ioctx, fsid
        self.address = str(handle.get_addrs())
        self.users = 0
        self.retired = False

    def close(self) -> None:
        _hanging.append(self)
        with contextlib.suppress(Exception):
            self.ioctx.close()
        with contextlib.suppress(Exception):
            self.handle.shutdown()
        _hanging.remove(self)


class Cluster:
    """How to reach the cluster, and the connection that is open. `rados`, `rbd`: the modules of the bindings."""

    def __init__(
        self, rados: Any, rbd: Any, sentences: Sentences, *, conf: str, user: str | None, pool: str, connect: int
    ) -> None:
        self.rados, self.rbd, self.sentences = rados, rbd, sentences
        self.conf, self.user, self.pool = conf, user, pool
        self.trial = Trial(rados, conf, user)
        self.connect_time = float(connect) if connect > 0 else CONNECT
        self.operation_time = OPERATION
        self.on_times: Callable[[], None] = lambda: None  # called when `operation_time` was read from ceph.conf
        self.fsid: str | None = None  # of the cluster that was reached last
        self.abandoned: list[Any] = []  # images that could not be closed (`opening`)
        self.lock = threading.Lock()  # of the fields
        self._connecting = threading.Lock()
        self._connection: Connection | None = None
        self._failure: tuple[float, Told] | None = None
        self._closed = False

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """The connection, opened when there is none. Raises `Told`."""
        one = self.take()
        try:
            yield one
        except BaseException as error:
            self.failed(one, number(error))
            raise
        finally:
            self.give_back(one)

    def take(self) -> Connection:
        """The same for a use that outlasts a call; to be given back."""
        one = self._used(self._connection)
        if one is not None:
            self.fsid = one.fsid
            return one
        begun = time.monotonic()
        if not self._connecting.acquire(timeout=self.connect_time + SECONDS):
            raise Told(self.sentences.silent(), TIMEOUT)
        try:
            one = self._used(self._connection)
            if one is not None:
                return one
            if self._failure is not None and self._failure[0] + _AGAIN > begun:
                raise Told(self._failure[1].sentence, self._failure[1].number)
            try:
                opened = self._open()
            except Told as told:
                self._failure = (time.monotonic(), told)
                raise
            self._failure = None
            with self.lock:
                if self._closed:
                    opened.retired = True
                else:
                    self._connection = opened
                self.fsid = opened.fsid
                opened.users += 1
            return opened
        finally:
            self._connecting.release()

    def _used(self, one: Connection | None) -> Connection | None:
        with self.lock:
            if one is None or one.retired:
                return None
            one.users += 1
            return one

    def use(self, one: Connection) -> None:
        """One more use of a connection that is being used; to be given back."""
        with self.lock:
            one.users += 1

    def give_back(self, one: Connection) -> None:
        """A use has ended; the last user of a retired connection closes it."""
        with self.lock:
            one.users -= 1
            last = one.retired and not one.users
        if last:
            one.close()

    def failed(self, one: Connection, code: int) -> None:
        """A call on the connection ended in this errno: is a new connection needed? Not after silence: Ceph's library
        finds its way back by itself, and what still works of the old one may be all that does."""
        if code in LOST or code == errno.EACCES:
            with self.lock:
                one.retired = True
                if self._connection is one:
                    self._connection = None
            _log.warning("store %s: the connection to Ceph is renewed", self.sentences.store)

    def close(self) -> None:
        """Close it now, or when its last user is done."""
        with self.lock:
            self._closed = True
            one, self._connection = self._connection, None
            idle = one is not None and not one.users
            if one is not None:
                one.retired = True
        if one is not None and idle:
            one.close()

    def _open(self) -> Connection:
        rados = self.rados
        if self.conf and not os.access(self.conf, os.R_OK):
            raise Told(self.sentences.no_conf(), errno.ENOENT)
        if wrong := self.trial.wrong():
            raise Told(self.sentences.deadly(wrong), errno.EINVAL)
        try:
            handle = rados.Rados(conffile=self.conf, rados_id=self.user)
        except rados.Error as error:
            if number(error) in {errno.ENOENT, errno.EACCES, errno.EPERM}:
                raise Told(self.sentences.no_conf(), errno.ENOENT) from error
            raise Told(self.sentences.unreadable(strange([self.conf]) or str(error)), errno.EINVAL) from error
        try:
            self._bound(handle)
            handle.connect()
        except rados.Error as error:
            told = self._why(handle, error)
            _quietly_shut(handle)
            raise told from error
        try:
            ioctx = handle.open_ioctx(self.pool)
            # a full pool then answers, instead of letting writers wait
            ioctx.set_osdmap_full_try()
            return Connection(handle, ioctx, str(handle.get_fsid()))
        except rados.Error as error:
            _quietly_shut(handle)
            if isinstance(error, rados.ObjectNotFound):
                raise Told(self.sentences.no_pool(), errno.ENOENT) from error
            raise Told(self.sentences.cure(error).message, number(error)) from error

    def _bound(self, handle: Any) -> None:
        """Time limits, enough threads, and no cache, before connecting: with several operations in flight a cache only
        costs memory and time, and without it the answer to a write is that of the disks."""

        def configured(option: str) -> float:
            with contextlib.suppress(ValueError, TypeError):
                return float(handle.conf_get(option) or 0)
            return 0.0

        handle.conf_set("rbd_cache", "false")
        self.sentences.data = str(handle.conf_get("rbd_default_data_pool") or "")
        if configured("librados_thread_count") < _CALLBACKS:
            # with one, removing a snapshot's protection waits in it for what only it could deliver, for ever
            handle.conf_set("librados_thread_count", str(_CALLBACKS))
            _log.warning(
                "store %s: %d is used for librados_thread_count of %s: with fewer no image could be deleted",
                self.sentences.store,
                _CALLBACKS,
                self.sentences.conf,
            )
        self.operation_time = configured("rados_osd_op_timeout") or OPERATION
        self.on_times()
        handle.conf_set("rados_osd_op_timeout", f"{self.operation_time:g}")
        if not configured("rados_mon_op_timeout"):
            handle.conf_set("rados_mon_op_timeout", f"{self.operation_time:g}")
        handle.conf_set("client_mount_timeout", f"{self.connect_time:g}")

    def _why(self, handle: Any, error: Exception) -> Told:
        rados, sentences = self.rados, self.sentences
        if isinstance(error, rados.TimedOut):
            hosts = ""
            with contextlib.suppress(rados.Error):
                hosts = str(handle.conf_get("mon_host") or "")
            return Told(sentences.unreachable(self.connect_time, hosts), TIMEOUT)
        if isinstance(error, rados.ObjectNotFound):
            places = ""
            with contextlib.suppress(rados.Error):
                places = str(handle.conf_get("keyring") or "")
            return Told(sentences.no_keyring(places), errno.ENOENT)
        if number(error) in {errno.EACCES, errno.EPERM}:
            return Told(sentences.wrong_key(), errno.EACCES)
        return Told(sentences.other(error), number(error) or errno.EIO)


def _quietly_shut(handle: Any) -> None:
    _hanging.append(handle)
    with contextlib.suppress(Exception):
        handle.shutdown()
    _hanging.remove(handle)
