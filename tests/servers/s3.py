"""Imitations of S3 for tests, each a real server: rclone, moto, LocalBucket, pys3local, Swift's s3api.

Each lacks something. The gateway of Ceph is in `rgw`.
"""

import os
import secrets
import signal
from pathlib import Path
from typing import ClassVar

from tests.servers.place import HOST, environment, free_port, new_directory
from tests.servers.process import Process, answers
from tests.servers.swift import Swift

ENVIRONMENT = ".venv-s3"


class S3Server:
    """`url` is its address, `access` and `secret` are the keys of a user without limits."""

    NAME: ClassVar[str]

    def __init__(self) -> None:
        self.port = free_port()
        self.access, self.secret = f"AK{secrets.token_hex(8)}", secrets.token_hex(16)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self, directory: Path) -> list[str | Path]:
        """What starts it, with its data in `directory`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, empty."""
        directory = new_directory(type(self).__name__.lower())
        (directory / "data").mkdir()
        self._process = Process(
            self.NAME,
            self.command(directory / "data"),
            log=directory / "log",
            directory=directory,
            environment={"MOTO_CALL_RESET_API": "false", "HOME": str(directory)},
        )
        self._process.wait_for(lambda: answers(self.url), 60)

    def close(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process = None

    def freeze(self) -> None:
        """Make it stand still (SIGSTOP): connections stay open, nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        if self._process.exit_code is None:
            os.killpg(self._process.pid, signal.SIGCONT)


class Rclone(S3Server):
    NAME = "rclone serve s3"

    def command(self, directory: Path) -> list[str | Path]:
        keys = f"{self.access},{self.secret}"
        rclone = environment(ENVIRONMENT, "rclone")
        return [rclone, "serve", "s3", "--auth-key", keys, "--addr", f"{HOST}:{self.port}", directory]


class Moto(S3Server):
    NAME = "moto"

    def command(self, directory: Path) -> list[str | Path]:
        return [environment(ENVIRONMENT, "moto_server"), "-H", HOST, "-p", str(self.port)]


class LocalBucket(S3Server):
    NAME = "LocalBucket"

    def command(self, directory: Path) -> list[str | Path]:
        return [environment(ENVIRONMENT, "localbucket"), "--host", HOST, "--port", str(self.port), directory]


class Pys3local(S3Server):
    NAME = "pys3local"

    def command(self, directory: Path) -> list[str | Path]:
        keys = ("--access-key-id", self.access, "--secret-access-key", self.secret)
        where = ("--path", directory, "--listen", f"{HOST}:{self.port}", "--allow-bucket-creation")
        return [environment(ENVIRONMENT, "pys3local"), "serve", *where, *keys]


class SwiftS3(Swift):
    """A Swift of its own that speaks S3 (s3api) and has its users in its own configuration (tempauth)."""

    NAME: ClassVar[str] = "Swift's s3api"

    def __init__(self) -> None:
        super().__init__(None)
        self.access, self.secret = "service:glance", "servicepass"
