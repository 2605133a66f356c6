"""Whether Ceph's library survives what the operator wrote: its parser ends the process for a byte above 0x7f in
ceph.conf or in a keyring. So a process of its own reads them first. Blocks; for threads.

One process is started for each text of these files (some 0.2 s, a second when no monitor answers), never for each call.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 20  # for a process that should take one; then the library hangs on these files
_AT_HAND: Final = 5  # the same where nothing is asked over the network, and whoever waits has other things to do
_REMEMBERED: Final = 60.0  # seconds for which a death is believed: it may have been the machine's and not the files'
_LARGEST: Final = 1 << 20  # bytes of a file that are looked at
_BOM: Final = b"\xef\xbb\xbf"
# of the library itself; any other (out of memory, an impatient administrator) may be different the next time
_FATAL: Final = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})

_KEYRING: Final = re.compile(rb"^[ \t]*keyring[ \t]*=([^\n]*)", re.MULTILINE)
_PLACES: Final = "/etc/ceph/$cluster.$name.keyring,/etc/ceph/$cluster.keyring,/etc/ceph/keyring,/etc/ceph/keyring.bin"

# The same steps as those of a connection, as far as they read files. Nothing is left behind: no core, no socket, no log
# of this process.
_CHILD: Final = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
conf, user, connect, place = sys.argv[1:]
sys.path.append(place)
import rados
try:
    handle = rados.Rados(conffile=conf, rados_id=user or None)
    for name, value in (("admin_socket", ""), ("log_file", ""), ("client_mount_timeout", "1")):
        handle.conf_set(name, value)
    if connect:
        handle.connect()
    handle.shutdown()
except rados.Error:
    pass
"""


class Trial:
    """What became of the files of one user. `rados`: the module; `conf`: a path, "" where the library looks itself."""

    def __init__(self, rados: Any, conf: str, user: str | None) -> None:
        self._place = str(Path(rados.__file__).parent)
        self._conf, self._user = conf, user or ""
        self._lock = threading.Lock()
        # the last text of the files → what is wrong with it, and until when that is believed
        self._known: dict[str, tuple[str | None, float]] = {}

    def wrong(self, *, connect: bool = True) -> str | None:
        """None when the library survives them, else a clause that says where it dies. `connect`: go as far as asking
        the cluster; without, nothing goes over the network, and it takes five seconds at most. A death is believed
        when it came twice, and for a minute."""
        with self._lock:
            mark = self._mark()
            found, until = self._known.get(mark, (None, 0.0))
            if time.monotonic() < until:
                return found
            end = time.monotonic() + (SECONDS if connect else _AT_HAND)
            found, lasting = self._ask(end, connect=connect)
            if found is not None and lasting and time.monotonic() < end:
                found, lasting = self._ask(end, connect=connect)
            if connect and lasting:
                until = math.inf if found is None else time.monotonic() + _REMEMBERED
                self._known = {self._mark(): (found, until)}
            return found

    def _ask(self, end: float, *, connect: bool) -> tuple[str | None, bool]:
        """What is wrong, and whether it stays so while the files do. `end`: when it must have come to an end."""
        seconds = max(0.1, end - time.monotonic())
        words = [sys.executable, "-P", "-c", _CHILD, self._conf, self._user, "yes" if connect else "", self._place]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"it does not come to an end within {seconds:.0f} seconds", False
        except OSError:
            return None, False  # no process can be started now; the library is asked as it is
        if done.returncode >= 0:
            return None, True
        number = -done.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        words_of_it = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = strange(self._files()) or f"look at what was changed there last; its own words: {words_of_it}"
        return f"it ends by {name}: {why}", number in _FATAL

    def _files(self) -> tuple[str, ...]:
        """Every file that may be read, present or not."""
        named = self._conf or os.environ.get("CEPH_CONF")
        confs = [named] if named else ["/etc/ceph/ceph.conf", os.path.expanduser("~/.ceph/ceph.conf"), "ceph.conf"]
        lists = [os.environ.get("CEPH_KEYRING", ""), _PLACES]
        for path in confs:
            lists += [found.decode(errors="replace") for found in _KEYRING.findall(_content(path) or b"")]
        user = self._user or "admin"
        text = ",".join(lists)
        for what, value in (("cluster", "ceph"), ("name", f"client.{user}"), ("id", user), ("type", "client")):
            text = text.replace(f"${what}", value).replace(f"${{{what}}}", value)
        keyrings = re.split(r"[;, \t\"']+", text)
        return (*confs, *filter(None, dict.fromkeys(keyrings)))

    def _mark(self) -> str:
        text = hashlib.sha256()
        for path in self._files():
            content = _content(path)
            text.update(b"-" if content is None else hashlib.sha256(content).digest())
        return text.hexdigest()


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return None


def strange(paths: Iterable[str]) -> str | None:
    """Where the first byte is that such a file must not have."""
    for path in paths:
        content = _content(path)
        if content is None or content.isascii():
            continue
        if content.startswith(_BOM):
            return f"{path} begins with a byte order mark: save it without"
        for number, line in enumerate(content.splitlines(), 1):
            if not line.isascii() and not line.lstrip().startswith((b"#", b";")):
                byte = next(each for each in line if each > 0x7F)
                return f"line {number} of {path} has a character outside ASCII (byte 0x{byte:02x}): write it in ASCII"
    return None
