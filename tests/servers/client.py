"""The `openstack` command, from an environment of its own, against one or several clouds."""

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.load import quiet
from tests.servers.place import ROOT, environment, new_directory, program
from tests.servers.programs import Programs

# by release: the environment and its programs
_PROGRAMS = {
    release: (venv, Programs(programs, functools.partial(environment, venv, "python"), "-W", "ignore"))
    for release, venv, programs in (
        ("newest", ".venv-client", "clients"),
        ("2022", ".venv-client-2022", "clients-2022"),
    )
}


def command(name: str, release: str = "newest") -> list[str]:
    """The words that begin a command of `openstack` or `glance`; only `glance` is there of 2022."""
    venv, programs = _PROGRAMS[release]
    environment(venv, name)
    return programs.command(name)


class Failed(Exception):
    """The command ended with another code than 0; its words are in the message."""


def call(program: str, *words: str, release: str = "newest", asked: Any) -> Any:
    """What a program of ours in the clients' environment answers, JSON in and out; raises `Failed`."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        [*_PROGRAMS[release][1].command(program), *words],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=quiet(120),
        env={**surroundings, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1,localhost"},
        check=False,
    )
    if done.returncode:
        raise Failed(f"{program} {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


class OpenStack:
    """`clouds`: the entries of clouds.yaml by name; more can be added at any time."""

    def __init__(self, clouds: dict[str, Any] | None = None) -> None:
        self._command = command("openstack")
        self._directory = new_directory("client")
        self.clouds: dict[str, Any] = dict(clouds or {})

    def add_without_login(self, name: str, url: str) -> None:
        """A cloud of one image service that asks nobody who he is."""
        self.clouds[name] = {
            "auth_type": "none",
            "auth": {"endpoint": url},
            "image_endpoint_override": url,
            "image_api_version": "2",
        }

    def add_basic(self, name: str, url: str, user: str, password: str) -> None:
        """A cloud of one image service with HTTP basic authentication."""
        self.clouds[name] = {
            "auth_type": "http_basic",
            "auth": {"endpoint": url, "username": user, "password": password},
            "image_endpoint_override": url,
            "image_api_version": "2",
        }

    @property
    def configuration(self) -> Path:
        """The path of a clouds.yaml with all clouds."""
        path = self._directory / "clouds.yaml"
        # JSON is YAML
        path.write_text(json.dumps({"clouds": self.clouds}, indent=1))
        return path

    def try_run(self, *words: str | Path, cloud: str, stdin: bytes | None = None, seconds: float = 120) -> Result:
        """Run `openstack <words>` against a cloud, whatever comes of it."""
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        done = subprocess.run(
            [
                *(program("setpriv", "util-linux"), "--pdeathsig", "KILL", "--"),
                *self._command,
                *map(str, words),
            ],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=seconds,
            cwd=self._directory,
            env={
                **surroundings,
                "HOME": str(self._directory),
                "OS_CLIENT_CONFIG_FILE": str(self.configuration),
                "OS_CLOUD": cloud,
                "no_proxy": "127.0.0.1,localhost",
            },
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def run(self, *words: str | Path, cloud: str, stdin: bytes | None = None, seconds: float = 120) -> str:
        """Run `openstack <words>` and return what it printed; raises `Failed`."""
        result = self.try_run(*words, cloud=cloud, stdin=stdin, seconds=seconds)
        if result.code:
            command = " ".join(map(str, words))
            raise Failed(f"openstack {command}: exit {result.code}\n{result.stdout}{result.stderr}")
        return result.stdout

    def json(self, *words: str | Path, cloud: str, stdin: bytes | None = None, seconds: float = 120) -> Any:
        """The same with `-f json`, decoded."""
        return json.loads(self.run(*words, "-f", "json", cloud=cloud, stdin=stdin, seconds=seconds))
