"""A directory in which the command runs, a configuration for it, and how its complaints are read. No test here."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.service import command, installed

STORE = """
[DEFAULT]
enabled_backends = files:file
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {0}/images
store_description = The first
[database]
connection = sqlite:///{0}/db.sqlite
"""
DOOR = "[xloud]\nauth = none\n"


class Home:
    """A directory in which the command runs, with nothing of the environment that it would look at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "x.conf"

    def configure(self, text: str = STORE + DOOR, *, images: bool = True) -> None:
        self.file.write_text(text.format(self.path))
        if images:
            (self.path / "images").mkdir(exist_ok=True)

    def run(
        self, *words: str, env: Mapping[str, str | None] | None = None, anew: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`env`: more of the environment; None takes a variable away. `anew`: the program as it is installed."""
        kept = {k: v for k, v in os.environ.items() if not re.match("OS_|XLOUD|HOST$|PORT$|COLUMNS", k)}
        given = {**kept, "COLUMNS": "100", **(env or {})}
        return subprocess.run(
            [*(installed() if anew else command()), *words],
            cwd=self.path,
            env={name: value for name, value in given.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def with_file(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.run(*words, "--config-file", str(self.file), **how)

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))


def sentence(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The complaint of a run that failed as promised."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "mistake in the program" not in done.stderr, done.stderr
    return done.stderr.strip()
