"""The service of these tests: three stores, imports, a cache, everything shown; callers come from a real Keystone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.keystone import Keystone
from tests.servers.nginx import Nginx
from tests.servers.service import Service


class Place:
    def __init__(self, folder: Path, keystone: Keystone, web: Nginx) -> None:
        self.folder, self.keystone, self.web = folder, keystone, web
        self.service = Service(
            {
                "DEFAULT": {
                    "enabled_backends": "files:file,more:file,web:http",
                    "show_multiple_locations": True,
                    "show_image_direct_url": True,
                    "image_cache_dir": folder / "cache",
                    "worker_self_reference_url": "http://node1:9292",
                },
                "more": {"filesystem_store_datadir": folder / "more"},
                "os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"},
                "import_filtering_opts": {"allowed_ports": web.port},
                "xloud": {"job_workers": 1, "location_networks": f"{web.host}/32"},
                **keystone.sections(),
                "paste_deploy": {"flavor": "keystone+cachemanagement"},
            }
        )
        self._tokens: dict[str, str] = {}

    def start(self) -> None:
        self.service.start(60)
        self.wait(lambda: self.ask("demo", "GET", "/v2/info/import").json()["import-methods"]["value"])

    def be_in_the_catalogue(self) -> None:
        if self.keystone.image_url != self.service.url:
            self.keystone.set_image_url(self.service.url)

    def token(self, user: str) -> str:
        if user not in self._tokens:
            self._tokens[user] = self.keystone.token(user)
        return self._tokens[user]

    def ask(self, user: str, method: str, path: str, **how: Any) -> Answer:
        """A plain request of one of Keystone's users: what a test sees of the service beside its client."""
        headers = {"X-Auth-Token": self.token(user), **how.pop("headers", {})}
        return self.service.request(method, path, headers=headers, **how)

    def show(self, image: str, user: str = "admin") -> dict[str, Any]:
        answer = self.ask(user, "GET", f"/v2/images/{image}")
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.json()
        return shown

    def read(self, image: str, user: str = "admin") -> bytes:
        answer = self.ask(user, "GET", f"/v2/images/{image}/file")
        assert answer.status == 200, answer
        return answer.body

    def wait(self, done: Callable[[], object], seconds: float = 30) -> None:
        begun = time.monotonic()
        while not done():
            assert time.monotonic() - begun < quiet(seconds), self.service.log[-3000:]
            time.sleep(0.1)
