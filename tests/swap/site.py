"""One place where a Glance runs, or this service on the very same files and tables, and those who call it. Nothing of
what they ask stands here."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import bcrypt

from tests.servers.glance import Glance, lay_out, place
from tests.servers.http import Answer, request
from tests.servers.mariadb import MariaDB
from tests.servers.place import ROOT
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Process, answers, run
from tests.servers.service import command, installed

PAGE: Final = (ROOT / "docs" / "swap.md").read_text()
KEY: Final = "0123456789abcdef0123456789abcdef"  # of encrypted locations


class Caller(NamedTuple):
    project: str
    roles: str


ADMIN, OWNER, FRIEND, READER = CALLERS = ("admin", "owner", "friend", "reader")
WHO: Final = {
    ADMIN: Caller("0" * 31 + "1", "admin,manager,member,reader"),
    OWNER: Caller("a" * 32, "member,reader"),  # of the project that has the images
    FRIEND: Caller("b" * 32, "member,reader"),  # with whose project images are shared
    READER: Caller("c" * 32, "reader"),  # of a project that has none
}
PROTECTION: Final = """\
[^secret_]
create = admin
read = admin
update = admin
delete = admin
[^licence$]
create = admin
read = @
update = admin
delete = !
[.*]
create = @
read = @
update = @
delete = @
"""
# who calls, by HTTP Basic as our own service has it: Glance is told what Keystone's middleware would tell it
_CALLERS: Final = """\
import base64

WHO = {who!r}


def factory(global_conf, **local):
    def filtered(app):
        def call(environ, start_response):
            login = environ.get("HTTP_AUTHORIZATION", "Basic ").split()[-1]
            user = base64.b64decode(login).decode().partition(":")[0] or "admin"
            project, roles = WHO[user]
            environ.update({{
                "HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_ROLES": roles, "HTTP_X_USER_ID": user,
                "HTTP_X_PROJECT_ID": project, "HTTP_X_TENANT_ID": project,
            }})
            return app(environ, start_response)

        return call

    return filtered
"""


class Site(Glance):
    """One directory of configuration that both read, and whichever of them runs. `web`: the URL of a file that
    images may be; `encrypted`: with locations as `metadata_encryption_key` has them."""

    def __init__(
        self, directory: Path, server: MariaDB | PostgreSQL, connection: str, web: str, *, encrypted: bool = False
    ) -> None:
        self.web, self.encrypted = web, encrypted
        self._server, self._database = server, urlsplit(connection).path.strip("/")
        self._ours: Process | None = None
        super().__init__(directory, connection)

    def _write(self) -> None:
        super()._write()
        (self.directory / "property-protections.conf").write_text(PROTECTION)
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        (self.directory / "users").write_text("".join(f"{name}:{hashed}\n" for name in WHO))
        (self.directory / "projects").write_text(
            "".join(f"{name}:{one.project}:{one.roles}\n" for name, one in WHO.items())
        )
        more = [
            "[DEFAULT]", "show_multiple_locations = true", "show_image_direct_url = true",
            f"property_protection_file = {self.directory / 'property-protections.conf'}",
            *([f"metadata_encryption_key = {KEY}"] if self.encrypted else []),
        ]  # fmt: skip
        login = [
            "auth = http_basic", f"http_basic_user_file = {self.directory / 'users'}",
            f"http_basic_projects_file = {self.directory / 'projects'}",
        ]  # fmt: skip
        lay_out(self.directory, self.port, workers=1)
        (self.directory / "everybody.py").write_text(
            _CALLERS.format(who={name: tuple(one) for name, one in WHO.items()})
        )
        text, port = self.configuration.read_text(), urlsplit(self.web).port
        for old, new in (("[DEFAULT]", "\n".join(more)), ("slow:file", "slow:file,web:http"),
                         ("workers = 2", "workers = 1"), ("auth = none", "\n".join(login))):  # fmt: skip
            assert text.count(old) == 1
            text = text.replace(old, new)
        self.configuration.write_text(
            text
            + "\n".join(
                [
                    "[web]",
                    "https_insecure = false",
                    "[import_filtering_opts]",
                    "allowed_hosts = [127.0.0.1]",
                    f"allowed_ports = [{port}]",
                    "",
                ]
            )
        )

    @property
    def postgresql(self) -> bool:
        return isinstance(self._server, PostgreSQL)

    def sql(self, *statements: str) -> str:
        """What the last of the statements says, by the database's own client."""
        text = ""
        for one in statements:
            if len(text) + len(one) > 60_000:
                self._server.sql(text, self._database)
                text = ""
            text += one + ";\n"
        return self._server.sql(text, self._database)

    def sealed(self, urls: list[str]) -> list[str]:
        """URLs as Glance keeps them in its table."""
        if not self.encrypted:
            return urls
        words = "import sys; from glance.common.crypt import urlsafe_encrypt as seal\n" \
                "for url in sys.stdin.read().split(): print(seal(sys.argv[1], url, 64))"  # fmt: skip
        python = place() / "bin" / "python"
        said = run([python, "-c", words, KEY], stdin="\n".join(urls), environment={"PYTHONWARNINGS": "ignore"})
        return said.split()

    def word(self, word: str, *, leave: str = "") -> str:
        """The line of docs/swap.md with `xloud-image takeover <word>`, for this configuration; `leave`: a word less."""
        (line,) = re.findall(rf"^xloud-image (takeover {word}.*) --config-dir /etc/glance$", PAGE, flags=re.MULTILINE)
        words = [one for one in line.split() if one != leave]
        return run([*command(), *words, "--config-file", self.configuration], seconds=120)

    def serve(self) -> None:
        """Ours."""
        words = [*installed(), "serve", "--config-file", str(self.configuration)]
        self._ours = Process("ours", words, log=self.directory / "ours", directory=self.directory)
        self._ours.wait_for(lambda: answers(f"{self.url}/healthcheck"), 60)

    def end(self) -> None:
        """Ours, in good order."""
        assert self._ours is not None
        assert self._ours.stop() == 0
        assert "Traceback" not in self._ours.output()

    def kill(self) -> None:
        super().kill()
        if self._ours is not None:
            self._ours.kill()

    def call(self, method: str, path: str, who: str = ADMIN, **how: Any) -> Answer:
        login = base64.b64encode(f"{who}:secret".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Accept": "application/json", **how.pop("headers", {})}
        return request(method, self.url + path, headers=headers, **how)

    def done(self, method: str, path: str, who: str = ADMIN, **how: Any) -> Any:
        """One call that must go well; its JSON."""
        answer = self.call(method, path, who, **how)
        assert answer.status < 300, (method, path, answer.status, answer.body[:500])
        return answer.json() if answer.body else None

    def has(self, store: str, image: str, other: str) -> None:
        """The data of an image as those of another one, in the same store of files."""
        os.link(self.store(store) / image, self.store(store) / other)
