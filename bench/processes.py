"""What processes cost: processor time and memory of a tree of them, read from /proc.

Starting and stopping them belongs in `tests.servers.process`.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

TICK = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def tree(root: int) -> list[int]:
    """The process, its descendants, and the rest of its session (one whose parent is gone counts too)."""
    parents: dict[int, list[int]] = {}
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if fields is None:
            continue
        parents.setdefault(int(fields[1]), []).append(pid)
        if pid == root or int(fields[3]) == root:
            found.add(pid)
    waiting = list(found)
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return sorted(found)


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, children that ended and were waited for included."""
    total = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields is not None:
            total += sum(int(value) for value in fields[11:15])
    return total * TICK


def memory(pid: int) -> tuple[float, float] | None:
    """Resident and proportional set size of one process, MiB; None when it is gone."""
    values = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in {"Rss", "Pss"}:
                values[name] = int(rest.split()[0]) / 1024
    except OSError:
        return None
    return (values["Rss"], values["Pss"]) if len(values) == 2 else None


def machine_seconds() -> float:
    """Processor time that the whole machine was busy, or that was stolen from it, since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in (1, 2, 3, 6, 7, 8)) * TICK


class Meter:
    """Wall and processor time of the trees of some processes between enter and exit.

    `others`: processor time of everything that is neither one of them nor a child of ours that ended.
    """

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self.cpu: dict[str, float] = {}
        self.wall = self.others = 0.0

    def __enter__(self) -> Self:
        self._machine = machine_seconds() - _own_seconds()
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall = time.perf_counter() - self._began
        self.cpu = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}
        self.others = machine_seconds() - _own_seconds() - self._machine - sum(self.cpu.values())


def _own_seconds() -> float:
    """Processor time of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Watch:
    """The highest memory of each process of a tree, sampled while the block runs."""

    def __init__(self, root: int, every: float = 0.03) -> None:
        self._root, self._every = root, every
        self.peak: dict[int, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        pids = tree(self._root)
        while True:
            for pid in pids:
                now = memory(pid)
                if now is not None:
                    rss, pss = self.peak.get(pid, (0.0, 0.0))
                    self.peak[pid] = (max(rss, now[0]), max(pss, now[1]))
            if self._done.wait(self._every):
                return
