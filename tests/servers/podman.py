"""Podman with images and containers of the tests' own: another run of it, and the machine's, never see them.

The base image is a Debian made by debootstrap once and kept in `.cache`, so that no registry is asked; the image of the
service is built anew in each session from the sources, on layers that are kept. Sessions side by side have a storage
each: the first that is free.
"""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from tests.servers.place import ROOT, Missing, new_directory, program
from tests.servers.process import run

BASE = "localhost/xloud-image-base:bookworm"
SUITE = "bookworm"
_DEBIAN = "python3,python3-venv,python3-rbd,python3-rados,qemu-utils,bubblewrap,libseccomp2"


class Podman:
    """`environment`: for every process that is to meet these containers. `docker` in its PATH is podman.

    `images`: another one, whose images this one shows; what it makes itself lies in a folder of this run then.
    `enter`: words before each command, for a podman that is another node's.
    """

    _built: ClassVar[dict[str, str]] = {}

    def __init__(self, images: "Podman | None" = None, *, enter: Sequence[str] = ()) -> None:
        self._kept = new_directory("containers") if images else _storage()
        self._images = images
        self._enter = tuple(enter)
        self.environment: dict[str, str] = {}
        self._place: Path | None = None

    def start(self) -> None:
        """Settings only; the image is built by `image()`."""
        if os.geteuid() != 0:
            raise Missing("containers with a user of their own need root")
        podman = program("podman", "podman")
        # podman refuses long paths
        self._place = Path(tempfile.mkdtemp(prefix="xi-", dir="/tmp"))
        self._place.chmod(0o755)
        self._kept.mkdir(parents=True, exist_ok=True)
        (self._place / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._kept}"\nrunroot = "{self._place / "run"}"\n'
            + (f'[storage.options]\nadditionalimagestores = ["{self._images._kept}"]\n' if self._images else "")
        )
        # some machines allow no more open files, and their cgroups no other runtime
        (self._place / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n'
            f'[engine]\nruntime = "runc"\nevents_logger = "file"\ntmp_dir = "{self._place / "libpod"}"\n'
            # those in shared memory have one name for all
            'lock_type = "file"\n'
        )
        program("runc", "runc")
        (self._place / "bin").mkdir()
        (self._place / "bin" / "docker").symlink_to(podman)
        self.environment = {
            "CONTAINERS_CONF": str(self._place / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self._place / "storage.conf"),
            "PATH": f"{self._place / 'bin'}:{os.environ['PATH']}",
        }
        # a session that was killed may have left some
        self.run("rm", "--all", "--force", "--time", "0")
        self.run("volume", "rm", "--all", "--force")

    def close(self) -> None:
        """Remove containers and volumes; images and layers stay for the next session."""
        if self._place is None:
            return
        self.run("rm", "--all", "--force", "--time", "0")
        self.run("volume", "rm", "--all", "--force")
        shutil.rmtree(self._place, ignore_errors=True)
        if self._images:
            shutil.rmtree(self._kept, ignore_errors=True)
        self._place = None

    def run(self, *words: str, seconds: float = 60) -> str:
        """One command of podman; its output. Raises `Stuck` when it fails."""
        return run([*self._enter, program("podman", "podman"), *words], environment=self.environment, seconds=seconds)

    def inspect(self, name: str) -> dict[str, Any]:
        """A container as podman describes it."""
        found: list[dict[str, Any]] = json.loads(self.run("container", "inspect", name))
        return found[0]

    def image(self, target: str = "service") -> str:
        """The name of the image of the service, built from the sources once in a session. The first time takes some
        minutes. `target`: of the file's stages."""
        if target in Podman._built:
            return Podman._built[target]
        if sys.version_info[:2] != (3, 11):
            raise Missing("Python 3.11 is needed to fetch libraries for Debian's (bookworm)")
        how = {"PYTHON": sys.executable, "TARGET": target}
        there = subprocess.run(
            [program("podman", "podman"), "image", "exists", BASE],
            env={**os.environ, **self.environment}, check=False,
        )  # fmt: skip
        with _one_at_a_time():
            how |= {"BASE": BASE, "PACKAGES": ""} if there.returncode == 0 else {"ROOTFS": str(_debian())}
            output = run([ROOT / "deploy" / "build-image"], environment={**self.environment, **how}, seconds=900)
        Podman._built[target] = output.strip().splitlines()[-1].removeprefix("built ")
        return Podman._built[target]


@functools.cache
def _storage() -> Path:
    """Of this session, until its process ends: no other one has it meanwhile."""
    for number in itertools.count(1):
        path = ROOT / ".cache" / ("containers" if number == 1 else f"containers-{number}")
        path.parent.mkdir(exist_ok=True)
        file = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return path
    raise AssertionError


_held: list[IO[str]] = []


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """What is fetched and made for an image is kept for all sessions."""
    with (ROOT / ".cache" / "image.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _debian() -> Path:
    """A Debian with Python, made once from the mirror that this machine's apt knows."""
    kept = ROOT / ".cache" / f"debian-{SUITE}"
    if not (kept / "usr").is_dir():
        fresh = kept.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        listed = run(["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(CREATED_BY) $(REPO_URI)"])
        mirrors = [line.split()[3] for line in listed.splitlines() if line.split()[:3] == [SUITE, "main", "Packages"]]
        if not mirrors:
            raise Missing(f"apt of this machine knows no mirror of Debian {SUITE}")
        words = [program("debootstrap", "debootstrap"), "--variant=minbase", f"--include={_DEBIAN}"]
        run([*words, SUITE, fresh, mirrors[0]], seconds=900)
        fresh.rename(kept)
    return kept
