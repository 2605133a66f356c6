"""Volumes on this host, by os-brick: connected, read, written, let go. Every call here blocks. No API of Cinder here.

A volume comes as a path (a device or a file of a share) or as a handle (RBD by librbd); both are used by offset, so
several threads may read one at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from xloud_image.errors import StoreUnavailable, Unsupported
from xloud_image.stores.base import library

_setup: Final = threading.Lock()
_KEYRINGS: Final = Path("/etc/ceph")  # where os-brick looks
_SCANS: Final = 5  # looks at the bus for a new device, as os-brick's other users have it


class Brick:
    """os-brick, set up once for a process. `base`: where shares are mounted; `locks`: os-brick's own lock files, which
    all processes of the node must share. `ConfigError` when it is not installed."""

    def __init__(self, *, base: Path, locks: Path, multipath: bool, enforce: bool) -> None:
        self._base, self._locks = base, locks
        self._multipath, self._enforce = multipath, enforce
        install = "the Python package os-brick (`make install EXTRAS=cinder`; for volumes in Ceph also python3-rbd)"
        with warnings.catch_warnings():  # of libraries that it imports and we do not use
            warnings.simplefilter("ignore")
            self._library = library("os_brick", install=install)
            self._connector = library("os_brick.initiator.connector", install=install)
        self._properties: dict[str, Any] | None = None

    def properties(self) -> dict[str, Any]:
        """What Cinder must know of this host; looked up once."""
        with _setup:
            if self._properties is None:
                self._prepare()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._properties = dict(
                        self._connector.get_connector_properties("sudo", _address(), self._multipath, self._enforce)
                    )
            return self._properties

    def _prepare(self) -> None:
        from os_brick import privileged
        from oslo_concurrency import lockutils
        from oslo_config import cfg

        if not cfg.CONF.oslo_concurrency.lock_path:
            lockutils.set_defaults(str(self._locks))
        self._library.setup(cfg.CONF)
        if os.geteuid() == 0 or shutil.which("sudo") is None:
            # already all that a privileged helper would be; or, in a container, none can be had: Ceph's volumes need no
            # rights, and what others need fails by itself
            privileged.default.set_client_mode(False)
            privileged.brick_privsep_hide_output.set_client_mode(False)

    def connect(self, information: Mapping[str, Any], *, write: bool) -> Device:
        """Make the volume of an attachment usable here. `Unsupported` for what we would destroy or misread."""
        self.properties()
        kind = str(information["driver_volume_type"])
        if information.get("encrypted"):
            raise Unsupported("encrypted volumes are not used: choose a volume type without it")
        if information.get("format") not in (None, "", "raw"):
            raise Unsupported(
                f"the volume is a file of format {information['format']}, not raw: set"
                " nfs_qcow2_volumes = false in Cinder's backend"
            )
        if kind == "rbd":
            self._spare(information)
        information, more = dict(information), {}
        if kind in {"nfs", "glusterfs", "quobyte", "vzstorage", "scality"}:
            self._base.mkdir(parents=True, exist_ok=True)
            information["mount_point_base"] = str(self._base)
            more = {f"{kind}_mount_point_base": str(self._base)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connector = self._connector.InitiatorConnector.factory(
                kind,
                "sudo",
                use_multipath=self._multipath,
                device_scan_attempts=_SCANS,
                conn=information,
                **more,
            )
            with _as_system_errors():
                found = connector.connect_volume(information)
        try:
            return Device(connector, information, found, write=write)
        except BaseException:
            connector.disconnect_volume(information, found)
            raise

    def _spare(self, information: Mapping[str, Any]) -> None:
        """os-brick makes a ceph.conf of what Cinder says and of the user's keyring, and Ceph's library ends the process
        that reads a byte above 0x7f there: refuse it. `StoreUnavailable`."""
        user, cluster = information.get("auth_username"), information.get("cluster_name")
        words = " ".join(map(str, (user, cluster, information.get("hosts"), information.get("name"))))
        if not words.isascii():
            raise StoreUnavailable(f"Cinder names a cluster with characters outside ASCII: {words}")
        keyring = information.get("keyring")
        if keyring is not None:  # handed over: no file is read then
            if not str(keyring).isascii():
                raise StoreUnavailable(
                    f"the keyring of client.{user} that Cinder hands over has characters outside"
                    " ASCII, which Ceph's library does not survive: write it again there in ASCII"
                )
            return
        with contextlib.suppress(OSError):  # os-brick says better what is missing
            if not (_KEYRINGS / f"{cluster}.client.{user}.keyring").read_bytes().isascii():
                raise StoreUnavailable(
                    f"the keyring of client.{user} has characters outside ASCII, which Ceph's"
                    f" library does not survive: write it again with 'ceph auth get client.{user} -o FILE'"
                )


class Device:
    """A connected volume. Offsets and lengths in bytes. Failures are OSError, whatever the library raises."""

    def __init__(self, connector: Any, information: Any, found: Any, *, write: bool) -> None:
        self._connector, self._information, self._found = connector, information, found
        self._lock = threading.Lock()
        self._closed = False
        self._fd: int | None = None
        self._image: Any = None
        where = found["path"]
        if isinstance(where, str | bytes):
            self._fd = os.open(where, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        elif hasattr(where, "rbd_image"):
            self._image = where.rbd_image
            if not write:
                # closing it would flush, and a flush takes the image's lock from others and waits, with a killed reader
                # about, for the answer of the dead
                where.flush = _nothing
        self._handle = where

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes, or OSError."""
        parts, left = [], length
        while left:
            part = self._read(offset, left)
            if not part:
                raise OSError(errno.EIO, "the volume is shorter than its image")
            parts.append(part)
            offset, left = offset + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, offset: int, length: int) -> bytes:
        if self._fd is not None:
            return os.pread(self._fd, length, offset)
        with _as_system_errors():
            if self._image is not None:
                return bytes(self._image.read(offset, length))
            with self._lock:  # a handle with one position for everybody
                self._handle.seek(offset)
                return bytes(self._handle.read(length))

    def write(self, offset: int, data: bytes) -> None:
        if self._fd is not None:
            view = memoryview(data)
            while view:
                done = os.pwrite(self._fd, view, offset)
                offset, view = offset + done, view[done:]
            return
        with _as_system_errors():
            if self._image is not None:
                self._image.write(data, offset)
            else:
                with self._lock:
                    self._handle.seek(offset)
                    self._handle.write(data)

    def flush(self) -> None:
        """All that was written is durable."""
        if self._fd is not None:
            os.fsync(self._fd)
        else:
            with _as_system_errors():
                (self._image or self._handle).flush()

    def grown(self) -> None:
        """The volume was enlarged: let this host see it."""
        if self._image is None:
            with _as_system_errors(), contextlib.suppress(NotImplementedError):
                self._connector.extend_volume(self._information)

    def close(self) -> None:
        """Let it go; may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._fd is not None:
            os.close(self._fd)
        with _as_system_errors():
            self._connector.disconnect_volume(self._information, self._found)


def _nothing() -> None:
    """What a reader has to flush."""


@contextlib.contextmanager
def _as_system_errors() -> Iterator[None]:
    """Libraries raise classes of their own; what matters of them is the number."""
    try:
        yield
    except (OSError, NotImplementedError):
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        raise OSError(abs(number) if isinstance(number, int) and number else errno.EIO, str(error)[:200]) from error


def _address() -> str:
    """The address that Cinder's backends see, as far as this host can tell; not every backend looks at it."""
    import socket

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])
    return "127.0.0.1"
