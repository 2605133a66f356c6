"""Does what the guide says, on a deployment of this machine: an operator who copies each block and changes nothing but
the names, addresses and passwords of `Servers.swaps`."""

import hashlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

import yaml

from tests.deploy.site import Site
from tests.guide.blocks import Block
from tests.guide.servers import Servers
from tests.servers.client import command
from tests.servers.http import Answer, request
from tests.servers.keystone import REGION, USERS
from tests.servers.place import ROOT, environment, new_directory, program

# what a line of ours may be while it is compared: name = value
_OPTION: Final = re.compile(r"(\w+) *= *(.*)")
# long enough for a deployment on a machine that does much else
SECONDS: Final = 600


class Follower:
    """`home`: where the operator types. `output`: of the last bash block."""

    def __init__(self, site: Site, servers: Servers) -> None:
        self.site, self.servers = site, servers
        self.home = new_directory("operator")
        self.output = ""
        self._commands = new_directory("commands")
        self._make_commands()
        for name, file in servers.files.items():
            (self.home / name).symlink_to(file)

    def follow(self, block: Block) -> None:
        """One block; AssertionError says where in the guide it did not do what it says."""
        if block.not_run:
            return
        text = self.swapped(block.text)
        if block.language == "bash":
            self._type(block, text)
        elif block.language == "text":
            self._was_printed(block, text)
        elif block.path.startswith("/etc/glance/"):
            self._is_read(block, text)
        else:
            path = Path(self.swapped(block.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if block.language == "yaml":
                assert yaml.safe_load(text), f"line {block.line} holds nothing"

    def swapped(self, text: str) -> str:
        for theirs, ours in self.servers.swaps.items():
            text = text.replace(theirs, str(ours))
        return text

    def image(self, name: str) -> str:
        """The id of an image that the guide made."""
        found = self._ask(f"/v2/images?name={name}").json()["images"]
        assert len(found) == 1, f"{len(found)} images are called {name}"
        identity: str = found[0]["id"]
        return identity

    def download(self, identity: str) -> str:
        """The SHA-256 of what a client gets."""
        answer = self._ask(f"/v2/images/{identity}/file")
        assert answer.status == 200, answer.body
        return hashlib.sha256(answer.body).hexdigest()

    # how

    def _ask(self, path: str) -> Answer:
        token = self.site.keystone.token("admin")
        return request("GET", self.site.url + path, headers={"X-Auth-Token": token}, seconds=120)

    def _type(self, block: Block, text: str) -> None:
        # a terminal, as an operator has one: clients take any other input for an image's data
        ours, theirs = os.openpty()
        try:
            done = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", text],
                cwd=self.home,
                env=self._environment,
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        finally:
            os.close(ours)
            os.close(theirs)
        self.output = done.stdout
        assert done.returncode == 0, (
            f"line {block.line} of the guide ends with {done.returncode}:\n{text}\n{self.output[-8000:]}"
        )

    def _was_printed(self, block: Block, text: str) -> None:
        """Its lines, in their order; spaces count as one."""
        printed = [" ".join(line.split()) for line in self.output.splitlines()]
        place = 0
        for line in filter(None, (" ".join(line.split()) for line in text.splitlines())):
            wanted = re.compile(".*".join(re.escape(part) for part in line.split("…")))
            where = next((n for n, there in enumerate(printed[place:], place) if wanted.search(there)), None)
            assert where is not None, f"line {block.line} of the guide: '{line}' was not printed:\n{self.output}"
            place = where + 1

    def _is_read(self, block: Block, text: str) -> None:
        """Each line stands in that file of the container, in its section."""
        file = self.site.node / "glance-api" / block.path.removeprefix("/etc/glance/")
        there, wanted = _options(file.read_text()), _options(text)
        assert wanted, f"line {block.line} of the guide names no option"
        missing = wanted - there
        assert not missing, f"line {block.line} of the guide: {missing} is not in {block.path}:\n{file.read_text()}"

    @property
    def _environment(self) -> dict[str, str]:
        """Logged in as an administrator of the cloud and of each server."""
        admin = USERS["admin"]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("OS_")},
            **self.site.environment,
            "PATH": f"{self._commands}:{self.site.environment['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "OS_AUTH_URL": self.site.keystone.url,
            "OS_USERNAME": admin.name,
            "OS_PASSWORD": admin.password,
            "OS_PROJECT_NAME": admin.project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": REGION,
            "OS_IDENTITY_API_VERSION": "3",
            "PYTHONWARNINGS": "ignore",
            "no_proxy": "127.0.0.1,localhost",
        }

    def _make_commands(self) -> None:
        """The commands that an operator has: of this project's environments, and Ceph's, as its administrator."""
        xavs = environment(".venv-deploy", "xavs-ansible")
        self._command("xavs-ansible", f'{xavs} "$@" --configdir {self.site.path}')
        self._command("xloud-image", f'{xavs.with_name("xloud-image")} "$@"')
        for name in ("openstack", "glance"):
            self._command(name, f'{shlex.join(command(name))} "$@"')
        ceph = self.servers.ceph
        for name in ("ceph", "rbd"):
            tool = shlex.join([program(name, "ceph-common"), "-c", str(ceph.conf), "-n", "client.admin"])
            self._command(name, f'env PATH=/usr/bin:/bin CEPH_ARGS= {tool} "$@"')
        (self.home / ".my.cnf").write_text(
            f"[client]\nprotocol = tcp\nhost = 127.0.0.1\nport = {self.site.database.port}\nuser = root\n"
        )
        # paths that the guide takes from the sources
        (self.home / "deploy").symlink_to(ROOT / "deploy")

    def _command(self, name: str, words: str) -> None:
        path = self._commands / name
        path.write_text(f"#!/bin/sh\nexec {words}\n")
        path.chmod(0o755)


def _options(text: str) -> set[tuple[str, str, str]]:
    """(section, option, value) of each line; a list of several lines is several."""
    found, section = set(), ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[] ")
        elif option := _OPTION.fullmatch(line.strip()):
            found.add((section, option[1], option[2].strip()))
    return found
