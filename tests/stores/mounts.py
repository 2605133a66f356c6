"""Real mounts for the tests of the file store: small, read-only, hung. Each needs root and says what it lacks."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import Missing
from tests.servers.place import program
from tests.servers.process import stand_still


def _run(*words: str | os.PathLike[str]) -> None:
    if os.geteuid() != 0:
        raise Missing("mounting for tests of the file store needs root")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


@contextlib.contextmanager
def _mounted(path: Path, *words: str | os.PathLike[str]) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    _run(program("mount", "mount"), *words, path)
    try:
        yield path
    finally:
        subprocess.run([program("umount", "mount"), "-l", path], check=True)


@contextlib.contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """An empty tmpfs; `size` as mount takes it."""
    with _mounted(path, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield path


@contextlib.contextmanager
def xfs(path: Path) -> Iterator[Path]:
    """An empty file system of 400 MiB on which files may share blocks."""
    image = path.parent / f"{path.name}.xfs"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    _run(program("mkfs.xfs", "xfsprogs"), "-q", "-m", "reflink=1", image)
    try:
        with _mounted(path, "-o", "loop", image):
            yield path
    finally:
        image.unlink()


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """The directory over itself, read-only."""
    with _mounted(path, "--bind", "-o", "ro", path):
        yield path


@contextlib.contextmanager
def bind(source: Path, path: Path) -> Iterator[Path]:
    """A directory at a second place as well."""
    path.mkdir()
    _run(program("mount", "mount"), "--bind", source, path)
    try:
        yield path
    finally:
        subprocess.run([program("umount", "mount"), "-l", path], check=True)


class Hangable:
    """A mount whose server can be stopped and continued: bindfs, by FUSE. What it shows lies in `source`."""

    def __init__(self, source: Path, target: Path) -> None:
        source.mkdir()
        target.mkdir()
        words = [program("bindfs", "bindfs"), "-f", os.fspath(source), os.fspath(target)]
        if not os.access("/dev/fuse", os.W_OK):
            raise Missing("/dev/fuse cannot be used")
        self.target = target
        self._server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not target.is_mount():
            if self._server.poll() is not None or time.monotonic() > end:
                self._server.kill()
                raise Missing("bindfs does not mount")
            time.sleep(0.01)

    def stop(self) -> None:
        """From now on no call into the mount returns."""
        stand_still(self._server.pid)

    def go_on(self) -> None:
        """The calls that wait are answered."""
        self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        subprocess.run([program("umount", "mount"), "-l", self.target], check=False)
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
