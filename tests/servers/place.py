"""Where servers live while tests run: folders, free ports, programs. Nothing is started here.

All files of a run are in `.test-state/<run>` of the project, removed when the process ends. What an ended process left
(kill -9), its folder, processes and mounts, is removed by the next run, and its processes and mounts by
`python -m tests.servers`, which `tests/run` calls at its beginning and end.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
# set in our own environment, hence in that of every process that we start
RUN_MARK = "XLOUD_IMAGE_TEST_RUN"

_STATES = ROOT / ".test-state"
_OWNER = ".owner"  # in the folder of a run: when its process began
_kept: list[str] = []


class Missing(Exception):
    """A program that a server needs is not installed."""


def free_port() -> int:
    """A TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@functools.cache
def private_address() -> str:
    """An address of this machine that is neither loopback nor link-local; where it has none one is given to `lo`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.254", 9))  # sends nothing
            found: str = sock.getsockname()[0]
            if not found.startswith(("127.", "169.254.")):
                return found
        except OSError:
            pass
    own = "10.254.254.1"
    done = subprocess.run(
        [program("ip", "iproute2"), "address", "replace", f"{own}/32", "dev", "lo"], capture_output=True, check=False
    )
    if done.returncode:
        raise Missing("this machine has no address besides loopback, and only root can give it one")
    return own


def program(name: str, package: str, *places: str) -> str:
    """The path of a program; raises `Missing` naming the Debian package it comes in."""
    paths = [*places, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(paths))
    if found is None:
        raise Missing(f"{name} is not installed (Debian package {package}; `make packages` as root)")
    return found


def environment(name: str, command: str) -> Path:
    """A command inside one of the virtual environments of this folder (`make servers`)."""
    path = ROOT / name / "bin" / command
    if not (ROOT / name / ".locked").exists() or not path.exists():
        raise Missing(f"{name} is not built (`make servers`)")
    return path


@functools.cache
def run_directory() -> Path:
    """The folder of this run, made at the first call, removed when this process ends."""
    _STATES.mkdir(exist_ok=True)
    for old in ended_runs():
        end_run(old)
        if not mounts(old):  # else it would go through them
            shutil.rmtree(old, ignore_errors=True)
    run = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=_STATES))
    run.chmod(0o755)
    (run / _OWNER).write_text(_born(os.getpid()))
    os.environ[RUN_MARK] = run.name
    # libraries keep lists of what is installed there (stevedore)
    os.environ["XDG_CACHE_HOME"] = str(ROOT / ".cache")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner and not _kept:
            shutil.rmtree(run, ignore_errors=True)

    atexit.register(remove)
    return run


def keep(why: str) -> None:
    """Leave the folder of this run in place when the process ends."""
    _kept.append(why)


def new_directory(name: str) -> Path:
    """A new, empty folder of this run."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run_directory()))
    path.chmod(0o755)
    return path


def reachable_by_others(path: Path) -> bool:
    """Whether a user without rights of his own gets as far as `path`."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def left_processes(run: Path | None = None) -> list[tuple[int, str]]:
    """(process id, command line) of every process of a run, by default this one, but this process and its parents."""
    run = run or run_directory()
    mark = f"{RUN_MARK}={run.name}".encode()
    folder = os.fsencode(run)
    spared = _line_of(os.getpid())
    left = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
            # some servers write their title over the environment: then the folder tells
            ours = (
                mark in (entry / "environ").read_bytes().split(b"\0")
                or folder in words
                or os.fsencode((entry / "cwd").readlink()).startswith(folder)
            )
        except OSError:
            continue
        if ours:
            left.append((int(entry.name), words.decode(errors="replace")))
    return left


def processor_seconds() -> float:
    """What this process, its children that have ended and every living process of this run have taken. What a process
    took that was nobody's child any more when it ended (a container's) is not in it."""
    times = os.times()
    taken = sum(times[:4])
    for pid, _ in left_processes():
        if fields := _stat(pid):
            taken += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return taken


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _born(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def _line_of(pid: int) -> set[int]:
    """A process and its parents."""
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return found


def ended_runs() -> list[Path]:
    """Folders of runs whose process has ended; another process may have its number by now."""
    ended = []
    for run in _STATES.iterdir() if _STATES.exists() else ():
        number = run.name.partition("-")[0]
        if not number.isdigit():
            continue
        now = _born(int(number))
        owner = run / _OWNER
        then = owner.read_text() if owner.exists() else now
        if not now or now != then or _stat(int(number))[0] in "ZX":
            ended.append(run)
    return ended


def mounts(folder: Path) -> list[str]:
    """What is mounted in or below a folder, the last first."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[1])
        if where.startswith(f"{folder}/"):
            found.append(where)
    return found[::-1]


def end_run(run: Path) -> None:
    """Kill the processes of a run that has ended, and take its mounts away; prints what was done."""
    done = []
    end = time.monotonic() + 10
    while (left := left_processes(run)) and time.monotonic() < end:
        for pid, words in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                done.append(f"killed {pid}: {words[:200]}")
        time.sleep(0.1)
    done += [f"unmounted {where}" for where in mounts(run) if _unmount(where)]
    for line in dict.fromkeys(done):
        print(f"left by a run that has ended ({run.name}): {line}", file=sys.stderr)


def _unmount(where: str) -> bool:
    words = [program("umount", "mount"), "-l", where]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0
