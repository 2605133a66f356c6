"""Whether the process behind a claim still lives: never guessed, because a wrong yes takes its work away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xloud_image.services.holder import is_dead, new_holder

ME = new_holder()


def changed(**parts: str) -> str:
    names = ("host", "boot", "namespace", "pid", "started", "random")
    return "/".join(parts.get(name, value) for name, value in zip(names, ME.split("/"), strict=True))


def ended() -> str:
    """The holder of a process that has ended."""
    code = "from xloud_image.services.holder import new_holder; print(new_holder())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("holder", "dead"),
    [
        (ME, False),
        (changed(host="renamed"), False),
        (changed(pid="4000000"), True),
        (changed(started="1"), True),
        (changed(started="1", boot="another-boot"), False),
        (changed(started="1", namespace="pid:[1]"), False),
        (changed(pid="1"), True),
        (changed(pid="x"), False),
        ("", False),
        ("glance-api", False),
        (ended(), True),
    ],
)
def test_dead_or_not(holder: str, dead: bool) -> None:
    assert is_dead(holder) == dead


def test_a_process_that_is_only_waited_for() -> None:
    code = "from xloud_image.services.holder import new_holder; print(new_holder(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        holder = child.stdout.readline().strip()
        assert not is_dead(holder)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert is_dead(holder)


def test_the_name_fits_its_column() -> None:
    assert len(ME) <= 255
    assert new_holder() != new_holder()
