"""A server process: started in a folder, waited for, stopped, and never left behind.

The kernel sends the process a signal when the thread that started it ends, so start servers in the main
thread. What a server is asked over the network belongs to its own module.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.load import quiet
from tests.servers.place import program


class Stuck(Exception):
    """A process did not start, or did not end, in the time it has; its log is in the message."""


class Child(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class Process:
    """One child process with its log file.

    `user`: whom to become (only root can). `at_death`: the signal it gets when the tests are gone.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        at_death: str = "TERM",
    ) -> None:
        self.name = name
        self.log = log
        words = [program("setpriv", "util-linux"), "--pdeathsig", at_death]
        if user is not None:
            words += ["--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups"]
        with log.open("ab") as output:
            self._popen: Child = subprocess.Popen(
                [*words, "--", *(os.fspath(word) for word in command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "no_proxy": "127.0.0.1,localhost", **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def output(self, last: int | None = None) -> str:
        """What it wrote so far, or the last so many lines of it."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines if last is None else lines[-last:])

    def wait_for(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `ready()`; raises `Stuck` when the process ends or the time (of a quiet machine) is over."""
        begun = time.monotonic()
        pause = 0.02
        while not ready():
            if self.exit_code is not None:
                raise Stuck(f"{self.name} ended with {self.exit_code}:\n{self.output(40)}")
            if time.monotonic() - begun > quiet(seconds):
                self.kill()
                raise Stuck(f"{self.name} is not ready after {seconds} s:\n{self.output(40)}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def wait(self, seconds: float) -> int:
        """The exit code, once it has ended by itself; raises `Stuck` (after a kill) when it does not."""
        try:
            return self._popen.wait(quiet(seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise Stuck(f"{self.name} still ran after {seconds} s:\n{self.output(40)}") from None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask it to end and wait; the exit code. Raises `Stuck` (after a kill) when it does not."""
        if self.exit_code is None:
            self._popen.send_signal(number)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it and all of its session at once (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        # its children are not ours to wait for, but they hold files and ports until they are gone
        end = time.monotonic() + 10
        while _runs(self.pid) and time.monotonic() < end:
            time.sleep(0.01)


def _runs(group: int) -> bool:
    """Whether a process of the group still runs; one that only waits to be reaped, by whomever, does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
    directory: Path | None = None,
    seconds: float = 120,
) -> str:
    """Run a command to its end and return its output; raises `Stuck` with its words when it fails."""
    words = [os.fspath(word) for word in command]
    if user is not None:
        setpriv = program("setpriv", "util-linux")
        words = [
            setpriv,
            "--reuid",
            user,
            "--regid",
            str(pwd.getpwnam(user).pw_gid),
            "--clear-groups",
            *words,
        ]
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=quiet(seconds),
        cwd=directory,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        raise Stuck(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def answers(url: str, below: int = 500) -> bool:
    """Whether an HTTP GET there gets an answer with a status under `below`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < below
    except OSError:
        return False


def stand_still(pid: int) -> None:
    """SIGSTOP, and wait until no thread of the process runs: the signal is taken a moment after it was sent, and until
    then one may still answer."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 10
    while any(_state(task) not in "TZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < end, f"process {pid} does not stop"
        time.sleep(0.001)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return "X"
