"""Where servers live while tests run: folders, free ports, programs. Nothing is started here.

All files of a run are in `.test-state/<run>` of the project, removed when the process ends. A folder that
an ended process left (kill -9) is removed by the next run.
"""

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
# set in our own environment, hence in that of every process that we start
RUN_MARK = "XLOUD_IMAGE_TEST_RUN"

_STATES = ROOT / ".test-state"
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
    for old in _STATES.iterdir():
        if not Path("/proc", old.name.partition("-")[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    run = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=_STATES))
    run.chmod(0o755)
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


def left_processes() -> list[tuple[int, str]]:
    """(process id, command line) of every process of this run but this one."""
    mark = f"{RUN_MARK}={run_directory().name}".encode()
    folder = os.fsencode(run_directory())
    left = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
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
