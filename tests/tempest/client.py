"""Tempest itself: its workspace and configuration, and one run of it."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.servers.keystone import REGION, USERS, Keystone
from tests.servers.place import environment

ENVIRONMENT: Final = ".venv-tempest"
_LINE: Final = re.compile(
    r"^\{\d+\} (?P<name>.+?) (?:\[(?P<seconds>[\d.]+)s\] )?\.\.\. (?P<state>ok|FAILED|SKIPPED)(?:: (?P<reason>.*))?$"
)


class Result(NamedTuple):
    """Of one test. `state`: ok, FAILED or SKIPPED. `reason`: why it was skipped."""

    state: str
    reason: str = ""
    seconds: float = 0.0


class Workspace:
    """A folder that Tempest takes as its own; `web`: the URL of the server with images."""

    def __init__(self, folder: Path, keystone: Keystone, web: str) -> None:
        self.folder = folder / "workspace"
        self._home = folder
        self._tempest = environment(ENVIRONMENT, "tempest")
        self._run("init", self.folder, directory=folder)
        self._configure(keystone, web)

    def _configure(self, keystone: Keystone, web: str) -> None:
        admin = USERS["admin"]
        sections: dict[str, dict[str, Any]] = {
            "DEFAULT": {"log_file": "tempest.log"},
            "auth": {
                "use_dynamic_credentials": True,
                "create_isolated_networks": False,
                "admin_username": admin.name,
                "admin_password": admin.password,
                "admin_project_name": admin.project,
                "admin_domain_name": "Default",
            },
            "identity": {"uri_v3": keystone.url, "auth_version": "v3", "region": REGION, "v3_endpoint_type": "public"},
            "service_available": {
                "glance": True, "nova": False, "cinder": False, "neutron": False, "swift": False, "horizon": False
            },
            "image": {
                "http_image": f"{web}/image.raw",
                "http_qcow2_image": f"{web}/image.qcow2",
                "disk_formats": "qcow2,raw,ami,ari,aki,vhd,vmdk,vdi,iso,vhdx",
                "build_interval": 1,
                "image_caching_enabled": True,
            },
            "image-feature-enabled": {
                "import_image": True, "manage_locations": True, "http_store_enabled": True,
                "store_weight_enabled": True, "image_format_enforcement": False,
            },
            "enforce_scope": {"glance": True},
            "oslo_concurrency": {"lock_path": self._home / "lock"},
        }  # fmt: skip
        parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
        for name, options in sections.items():
            parser[name] = {key: str(value) for key, value in options.items()}
        (self.folder / "etc").mkdir(exist_ok=True)
        with (self.folder / "etc" / "tempest.conf").open("w") as file:
            parser.write(file)

    def _run(self, *words: str | Path, directory: Path, check: bool = True) -> str:
        """`tempest <words>`; all that it prints."""
        quiet = {"PYTHONWARNINGS": "ignore", "PATH": f"{self._tempest.parent}:{os.environ['PATH']}"}
        surroundings = {**os.environ, **quiet, "HOME": str(self._home)}
        done = subprocess.run(
            [self._tempest, *words], cwd=directory, env=surroundings, capture_output=True, text=True, check=check
        )
        return done.stdout + done.stderr

    def run(self, what: str, *, without: str | None = None) -> tuple[dict[str, Result], str]:
        """Every test's result by name, of those that match `what` and not `without`; all that was printed."""
        words = ["--regex", what, *(["--exclude-regex", without] if without else []), "--concurrency", "2"]
        text = self._run("run", *words, directory=self.folder, check=False)
        found = {}
        for line in text.splitlines():
            if match := _LINE.match(line):
                found[match["name"]] = Result(match["state"], match["reason"] or "", float(match["seconds"] or 0))
        return found, text
