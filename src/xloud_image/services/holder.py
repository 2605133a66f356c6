"""Who holds a lease: a name for each process that tells others on the same node whether it still runs. Asks /proc."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path


def new_holder() -> str:
    """A name for this process that tells a successor on the same node whether the process still lives.

    Shape: host/boot/pid namespace/pid/start time/random. Process numbers mean something only within one namespace of
    one boot of one machine; names of hosts and numbers of namespaces alone are the same on machines made from one
    image.
    """
    return "/".join(
        (socket.gethostname()[:60], *_here(), str(os.getpid()), _started(os.getpid()) or "?", uuid.uuid4().hex[:8])
    )


def _here() -> tuple[str, str]:
    """What tells this machine, since its boot, and its namespace from all others; "?" where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return "?", "?"


def place(holder: str) -> str:
    """Host and process number of a holder, for people."""
    parts = holder.split("/")
    return f"{parts[0]}, process {parts[3]}" if len(parts) == 6 else holder


def is_dead(holder: str) -> bool:
    """Whether the process that called itself `holder` certainly runs no more; only answerable on its own node."""
    parts = holder.split("/")
    here = _here()
    if len(parts) != 6 or tuple(parts[1:3]) != here or "?" in here or not parts[3].isdigit():
        return False
    pid = int(parts[3])
    started = _started(pid)
    return started != parts[4] if started is not None else not _exists(pid)


def _started(pid: int) -> str | None:
    """Start time in clock ticks since boot; '' when the process is only waited for; None when it cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    """Also for processes of other users, which /proc may hide."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
