"""Which attachments and drafts belong to a process of this node that has ended. Nothing of Cinder here.

Each store object holds a lock on a file of its own in a folder of the node; the mark that it leaves in Cinder names the
node and the file. The kernel drops the lock with the process, however it ends, also across containers that share the
folder. Marks of other nodes are never judged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import uuid
from pathlib import Path
from typing import Final

_PREFIX: Final = "xloud-image"


class Marks:
    """`folder` is shared by all processes of the node. All methods block for the time of a small file operation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._file: int | None = None
        self.node = ""
        self.mine = ""

    def begin(self) -> None:
        """Take the lock; may be called again. OSError when the folder cannot be used."""
        if self._file is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self.node = f"{socket.gethostname()}:{self._identity()}"
        file = os.open(self._folder / self._token, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._file = file
        self.mine = f"{_PREFIX}:{self.node}:{self._token}"

    def _identity(self) -> str:
        """What tells this folder from that of every other node; made once."""
        path = self._folder / "node"
        if not path.exists():
            new = self._folder / f"node.{self._token}"
            new.write_text(uuid.uuid4().hex)
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
            new.unlink()
        return path.read_text().strip()

    def dead(self, mark: str) -> bool:
        """Whether this mark was left by a store of this node that is no more."""
        prefix, _, token = mark.rpartition(":")
        if not self.node or prefix != f"{_PREFIX}:{self.node}" or not token.isalnum() or token == self._token:
            return False
        try:
            file = os.open(self._folder / token, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def end(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                (self._folder / self._token).unlink()
            os.close(self._file)
            self._file = None
