"""One service with several projects, users and stores, and callers who say who they are. Starts nothing by itself."""

import base64
import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt

from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.service import Service

OCTETS = "application/octet-stream"
V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"


class User(NamedTuple):
    project: str
    roles: str


USERS = {
    "admin": User("operators", "admin"),
    "ann": User("alpha", "member"),
    "rita": User("alpha", "reader"),
    "bob": User("beta", "member"),
    "carl": User("gamma", "member"),
    "nova": User("services", "service,member"),
    "cinder": User("services", "service"),
}


class Caller:
    """One user of a service (None: without a login). Each method is one request, or the few that its name says."""

    def __init__(self, service: Service, user: str | None, password: str = "") -> None:
        self.service = service
        self.project = USERS[user].project if user else None
        self.password = password
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {login}"} if user else {}

    def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        return self.service.request(method, path, headers={**self.headers, **(headers or {})}, **how)

    def create(self, /, **fields: Any) -> Answer:
        return self.ask("POST", "/v2/images", json=fields)

    def new(self, data: bytes | None = None, *, store: str | None = None, **fields: Any) -> str:
        """The id of a new image, with data if given."""
        answer = self.create(**{"disk_format": "raw", "container_format": "bare", **fields})
        assert answer.status == 201, answer.body
        image_id: str = answer.json()["id"]
        if data is not None:
            answer = self.upload(image_id, data, store=store)
            assert answer.status == 204, answer.body
        return image_id

    def upload(self, image_id: str, data: Any, *, store: str | None = None, **headers: str) -> Answer:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        if store:
            more["X-Image-Meta-Store"] = store
        return self.ask("PUT", f"/v2/images/{image_id}/file", body=data, headers={"Content-Type": OCTETS, **more})

    def download(self, image_id: str, query: str = "", **headers: str) -> Answer:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("GET", f"/v2/images/{image_id}/file{query}", headers=more)

    def show(self, image_id: str) -> Any:
        answer = self.ask("GET", f"/v2/images/{image_id}")
        assert answer.status == 200, answer.body
        return answer.json()

    def patch(self, image_id: str, *operations: dict[str, Any], dialect: str = V21) -> Answer:
        return self.ask("PATCH", f"/v2/images/{image_id}", json=list(operations), headers={"Content-Type": dialect})

    def delete(self, image_id: str) -> Answer:
        return self.ask("DELETE", f"/v2/images/{image_id}")

    def listed(self, query: str) -> list[dict[str, Any]]:
        answer = self.ask("GET", f"/v2/images?{query}")
        assert answer.status == 200, answer.body
        images: list[dict[str, Any]] = answer.json()["images"]
        return images


class Cloud:
    """Users by name as attributes; stores `fast` (default), `slow` (heavier when read) and `mem`, in that order."""

    def __init__(self, folder: Path, *, options: dict[str, Any] | None = None, **sections: dict[str, Any]) -> None:
        users, projects = folder / "users", folder / "projects"
        secret = uuid.uuid4().hex
        password = bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode()
        users.write_text("".join(f"{name}:{password}\n" for name in USERS))
        projects.write_text("".join(f"{name}:{user.project}:{user.roles}\n" for name, user in USERS.items()))
        self.service = Service(
            {
                "DEFAULT": {
                    "enabled_backends": "fast:file,slow:file,mem:memory",
                    "show_multiple_locations": True,
                    **(options or {}),
                },
                "glance_store": {"default_backend": "fast"},
                "fast": {"filesystem_store_datadir": folder / "fast", "store_description": "quick one"},
                "slow": {"filesystem_store_datadir": folder / "slow", "weight": 50},
                "mem": {"weight": 10},
                "files": {"filesystem_store_datadir": None},
                "xloud": {"auth": "http_basic", "http_basic_user_file": users, "http_basic_projects_file": projects},
                **{name: options for name, options in sections.items() if name != "xloud"},
            }
        )
        self.service.configure({"xloud": sections.get("xloud", {})})
        self.folder = folder
        self.admin, self.ann, self.rita, self.bob, self.carl, self.nova, self.cinder = (
            Caller(self.service, name, secret) for name in USERS
        )
        self.nobody = Caller(self.service, None)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """It runs, imports can be begun, and it ends well."""
        try:
            self.service.start()
            begun = time.monotonic()
            while not self.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"]:
                assert time.monotonic() - begun < quiet(20)
                time.sleep(0.2)
            yield
            assert self.service.stop() == 0
            assert "Traceback" not in self.service.log
        finally:
            self.service.kill()

    def files(self, store: str) -> set[str]:
        return {path.name for path in (self.folder / store).iterdir()}
