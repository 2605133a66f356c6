"""docs/swap.md, typed block by block as it stands by an operator on a Friday: look, switch, watch, go back.

A real Glance with Keystone and MariaDB, on a directory that names no store, as Debian's package leaves it: Glance then
has `file`, and `http` for what lies on web servers. Only addresses and the place of /etc/glance are changed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.guide.blocks import Block, sections
from tests.servers.client import command as client
from tests.servers.glance import lay_out, manage, place, serving
from tests.servers.http import Answer, request
from tests.servers.keystone import REGION, USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.place import HOST, ROOT, free_port, private_address
from tests.servers.process import Process, answers
from tests.servers.service import command, installed

pytestmark = pytest.mark.timeout(600)

PAGE: Final = ROOT / "docs" / "swap.md"
DATA: Final = {"Content-Type": "application/octet-stream"}
PATCH: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
SERVE: Final = "xloud-image serve"
# what years have left in a file, with which Glance starts and serves, and so does this service
LEFT: Final = """
[DEFAULT]
admin_role = cloud_admin
owner_is_tenant = false
allow_additional_image_properties = false
cert_file = /etc/glance/gone.pem
key_file = /etc/glance/gone.key
public_endpoint =
[ssl]
ca_file = /etc/glance/gone.pem
[key_manager]
backend = vault
[healthcheck]
allowed_source_ranges = 127.0.0.0/8
[keystone_authtoken]
enforce_token_bind = strict
[oslo_policy]
policy_default_rule = nobody
remote_ssl_verify_server_crt = true
"""
RULE: Final = '"publicize_image": "role:admin or nonsense"\n'  # Glance reads it as role:admin


def blocks() -> list[Block]:
    return [block for found in sections(PAGE).values() for block in found]


def test_every_block_of_the_page_is_typed_by_a_test() -> None:
    """Those that are not typed here name the test that does, which begins with what they make."""
    found = blocks()
    assert len(found) == 6
    assert {block.language for block in found} == {"sh"}
    (elsewhere,) = (block for block in found if block.not_run)
    assert "make image TARGET=kolla" in elsewhere.text
    (named,) = re.findall(r"tests/\S+\.py", elsewhere.not_run)
    assert 'podman.image("kolla")' in (ROOT / named).read_text()
    indented = re.findall(r"^    \S.*", PAGE.read_text(), flags=re.MULTILINE)
    assert not indented, "a block is fenced, so that it is found"


class Site:
    """A node with /etc/glance, whoever serves there. `web`: the port of the server from which images may come."""

    def __init__(self, root: Path, connection: str, keystone: Keystone, web: int) -> None:
        self.root, self.port, self.keystone = root, free_port(), keystone
        self.etc, self.images = root / "etc" / "glance", root / "images"
        for folder in (self.etc, self.images, root / "home"):
            folder.mkdir(parents=True)
        lay_out(self.etc, self.port, workers=1)
        shipped = (place() / "etc" / "glance" / "glance-api-paste.ini").read_text()
        (self.etc / "glance-api-paste.ini").write_text(shipped)
        own = "".join(f"{name} = {value}\n" for name, value in keystone.authtoken().items())
        (self.etc / "glance-api.conf").write_text(
            f"[DEFAULT]\nbind_host = {HOST}\nbind_port = {self.port}\nworkers = 1\nshow_multiple_locations = true\n"
            f"transport_url = fake://\n[database]\nconnection = {connection}\n"
            f"[glance_store]\nfilesystem_store_datadir = {self.images}\n"
            f"[oslo_concurrency]\nlock_path = {self.etc}/lock\n[import_filtering_opts]\nallowed_ports = [{web}]\n"
            f"[paste_deploy]\nflavor = keystone\n[keystone_authtoken]\n{own}{LEFT}"
        )
        (self.etc / "policy.yaml").write_text(RULE)
        self._commands()
        self._running: Process | None = None
        self._log = root / "log"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start_glance(self) -> None:
        words, given = serving(self.etc)
        self._running = Process("glance", words, log=self._log, directory=self.root, environment=given)
        self._running.wait_for(lambda: answers(f"{self.url}/versions"), 60)

    def stop(self) -> None:
        assert self._running is not None
        self._running.stop()
        self._running = None

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def type(self, block: Block) -> str:
        """A block as it stands; what it says. One that serves goes on beside."""
        text = block.text.replace("/etc/glance", str(self.etc)).replace("127.0.0.1:9292", f"{HOST}:{self.port}")
        if SERVE in text:
            words = shlex.split(text.replace(SERVE, shlex.join([*installed(), "serve"])))
            self._running = Process("ours", words, log=self._log, directory=self.root)
            self._running.wait_for(lambda: answers(f"{self.url}/healthcheck"), 60)
            return ""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", text], cwd=self.root / "home", env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"line {block.line} ends with {done.returncode}:\n{text}\n{done.stdout[-4000:]}"
        return done.stdout

    def call(self, method: str, path: str, user: str = "demo", **how: Any) -> Answer:
        headers = how.pop("headers", {}) | {"X-Auth-Token": self.keystone.token(user)}
        answer = request(method, self.url + path, headers=headers, **how)
        assert answer.status < 300, (method, path, answer.status, answer.body[:500], self._log.read_text()[-3000:])
        return answer

    def upload(self, name: str, data: bytes) -> str:
        fields = {"name": name, "disk_format": "raw", "container_format": "bare"}
        image: str = self.call("POST", "/v2/images", json=fields).json()["id"]
        self.call("PUT", f"/v2/images/{image}/file", body=data, headers=DATA)
        return image

    def register(self, name: str, url: str) -> str:
        """An administrator's image of a file on a web server."""
        fields = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public"}
        image: str = self.call("POST", "/v2/images", "admin", json=fields).json()["id"]
        change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
        self.call("PATCH", f"/v2/images/{image}", "admin", json=change, headers=PATCH)
        return image

    def data(self, image: str) -> bytes:
        return self.call("GET", f"/v2/images/{image}/file").body

    def _commands(self) -> None:
        folder = self.root / "bin"
        folder.mkdir()
        for name, words in (("xloud-image", command()), ("openstack", client("openstack"))):
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (folder / name).chmod(0o755)

    @property
    def _environment(self) -> dict[str, str]:
        admin = USERS["admin"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        return kept | {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "HOME": str(self.root / "home"),
            "OS_AUTH_URL": self.keystone.url, "OS_USERNAME": admin.name, "OS_PASSWORD": admin.password,
            "OS_PROJECT_NAME": admin.project, "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": REGION, "OS_IDENTITY_API_VERSION": "3", "no_proxy": "127.0.0.1,localhost",
        }  # fmt: skip


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "web.raw").write_bytes(b"\x05" * 70_000)
    server = Nginx(files=pages, host=private_address())  # nobody registers what is on loopback
    server.start()
    yield server
    server.close()


@pytest.fixture
def site(tmp_path: Path, mariadb: MariaDB, keystone: Keystone, web: Nginx) -> Iterator[Site]:
    before = keystone.image_url
    one = Site(tmp_path, mariadb.create_database(), keystone, web.port)
    keystone.set_image_url(one.url)
    yield one
    one.kill()
    keystone.set_image_url(before)


@pytest.mark.slow
def test_the_page_typed_from_its_first_block_to_its_last(site: Site, web: Nginx) -> None:
    look, switch, serve, watch, back = (block for block in blocks() if not block.not_run)
    assert SERVE in serve.text
    manage(site.etc / "glance-api.conf", "db_sync")
    site.start_glance()
    before = site.upload("before", b"\x01" * 90_000)
    afar = site.register("on the web", f"http://{web.host}:{web.port}/web.raw")
    assert site.data(afar) == b"\x05" * 70_000

    said = site.type(look)
    assert said.rstrip().endswith("Nothing is in the way."), said
    assert all(name in said for name in ("admin_role", "cert_file", "[ssl]", "policy_default_rule", "nonsense")), said
    assert site.data(before) == b"\x01" * 90_000, "Glance runs on"
    site.stop()
    site.type(switch)
    site.type(serve)
    said = site.type(watch)
    assert said.startswith("OK")
    assert all(word in said for word in (before, afar, "http")), said
    assert site.data(before) == b"\x01" * 90_000
    assert site.data(afar) == b"\x05" * 70_000
    during = site.upload("during", b"\x02" * 80_000)
    site.call("DELETE", f"/v2/images/{before}")

    site.stop()
    assert "gone" in site.type(back)
    site.start_glance()
    assert site.data(during) == b"\x02" * 80_000
    assert site.data(afar) == b"\x05" * 70_000
    listed = site.call("GET", "/v2/images").json()["images"]
    assert {one["id"] for one in listed} == {during, afar}
