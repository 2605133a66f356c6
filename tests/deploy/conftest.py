"""Globals written for one test and rendered by the real renderer, which reads its result with the real loader."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from xavs import extra_vars
from xavs import render as rendering
from xloud_image.config.findings import Findings
from xloud_image.errors import ConfigError

PASSWORDS = """\
glance_database_password: d4tabase
glance_keystone_password: k3ystone
memcache_secret_key: m3mcache
"""
ADDRESS = "kolla_internal_vip_address: 10.0.1.71\n"


class Desk:
    """A directory like /etc/xavs. `render` makes the files of a node from what stands in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overrides = path / "config"
        self.globals = path / "globals.yml"
        self.write("passwords.yml", PASSWORDS)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def inputs(self, host: str = "", more: tuple[str, ...] = ()) -> rendering.Inputs:
        findings = Findings()
        values = extra_vars.read(more, findings)
        findings.stop()
        return rendering.Inputs(self.globals, hostname=host, more=values)

    def render(self, globals_: str | None = None, *more: str, host: str = "") -> rendering.Rendered:
        if globals_ is not None:
            self.globals.write_text(ADDRESS + textwrap.dedent(globals_))
        return rendering.render(self.inputs(host, more))

    def refused(self, globals_: str | None = None, *more: str, host: str = "") -> list[str]:
        """The errors, one text each."""
        with pytest.raises(ConfigError) as caught:
            self.render(globals_, *more, host=host)
        return [line.strip().replace(f"{self.path}/", "") for line in caught.value.message.split("\n")[1:]]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def values(rendered: rendering.Rendered, file: str = rendering.MAIN) -> dict[str, list[str]]:
    """ "[section] option" → its values."""
    found: dict[str, list[str]] = {}
    for line in rendered.lines[file]:
        found.setdefault(f"[{line.section}] {line.name}", []).append(line.value)
    return found


def told(rendered: rendering.Rendered, severity: str) -> str:
    """Every sentence of a severity."""
    return "\n".join(str(finding) for finding in rendered.findings.all if finding.severity == severity)


Values = Mapping[str, str]
Check = Callable[[Desk], None]
