"""Horizon's pages for images as a browser asks for them: run in Horizon's environment with `horizon_settings`, where
nothing else of the tests is. JSON on standard input (see test_horizon), what came of it on standard output.

The pages that the server makes (forms), and the API below the newer pages, which are a program in the browser.
"""

import json
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any
from wsgiref import simple_server

import django
import requests
from django.core.wsgi import get_wsgi_application

django.setup()


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class Quiet(simple_server.WSGIRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


class Browser:
    """One user's, who has logged in."""

    def __init__(self, asked: Any, url: str, user: str) -> None:
        self._url, self._seconds = url, asked["seconds"]
        self._session = requests.Session()
        self._session.trust_env = False
        self.page("/auth/login/")
        self.form("/auth/login/", username=user, password=asked["passwords"][user], region="default",
                  auth_type="credentials")  # fmt: skip

    def page(self, path: str) -> str:
        answer = self._session.get(f"{self._url}{path}", timeout=self._seconds)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-2000:])
        return answer.text

    def form(self, path: str, files: Any = None, **fields: Any) -> None:
        """Sent and taken: it leads elsewhere. What came of it is looked at afterwards."""
        sent = {**fields, "csrfmiddlewaretoken": self._session.cookies["csrftoken"]}
        answer = self._session.post(
            f"{self._url}{path}", data=sent, files=files, allow_redirects=False, timeout=self._seconds
        )
        assert answer.status_code == 302, (path, answer.status_code, answer.text[-6000:])

    def api(self, method: str, path: str, status: int, body: Any = None, files: Any = None, **query: Any) -> Any:
        headers = {"X-Requested-With": "XMLHttpRequest", "X-CSRFToken": self._session.cookies["csrftoken"]}
        sent = {"data": body, "files": files} if files else {"json": body}
        url = f"{self._url}/api/glance/{path}"
        answer = self._session.request(method, url, params=query, headers=headers, timeout=self._seconds, **sent)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text[-2000:])
        return answer.json() if answer.content else None

    def upload(self, content: bytes, **fields: Any) -> Any:
        files = {"data": ("disk.raw", content)}
        return self.api("POST", "images/", 201, {"$$originalJSON": json.dumps(fields)}, files)

    def page_size(self, number: int) -> None:
        self._session.cookies["horizon_pagesize"] = str(number)

    def named(self, name: str) -> Any:
        """The image of this name, once it is active: uploads go on in a thread of Horizon."""
        end = time.monotonic() + self._seconds
        while True:
            found = self.api("GET", "images/", 200, name=name)["items"]
            if found and found[0]["status"] == "active":
                return found[0]
            assert time.monotonic() < end, found
            time.sleep(0.2)


def main() -> None:
    asked = json.load(sys.stdin)
    with simple_server.make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        json.dump(visit(asked, f"http://127.0.0.1:{server.server_port}"), sys.stdout)
        server.shutdown()


def visit(asked: Any, horizon: str) -> list[str]:
    """The images that were there."""
    name, url, content = asked["name"], asked["url"], Path(asked["file"]).read_bytes()
    demo = Browser(asked, horizon, "demo")
    create = "/project/images/create/"

    # by the form: a file, an address
    fields = {
        "disk_format": "raw",
        "min_disk": "1",
        "min_ram": "64",
        "architecture": "x86_64",
        "description": "by hand",
    }
    demo.form(create, {"image_file": ("disk.raw", content)}, name=f"{name}-file", source_type="file", **fields)
    by_file = demo.named(f"{name}-file")
    assert (by_file["size"], by_file["min_disk"], by_file["visibility"]) == (len(content), 1, "private"), by_file
    demo.form(create, name=f"{name}-url", source_type="url", image_url=url, **fields)
    by_url = demo.named(f"{name}-url")
    # the list, one image, editing
    text = demo.page("/project/images/")
    assert f"{name}-file" in text
    assert f"{name}-url" in text
    text = demo.page(f"/project/images/{by_file['id']}/")
    assert by_file["checksum"] in text
    assert "by hand" in text
    changes = {**fields, "name": f"{name}-edited", "min_disk": "2", "min_ram": "0", "protected": "on"}
    demo.form(f"/project/images/{by_file['id']}/update/", image_id=by_file["id"], **changes)
    edited = demo.api("GET", f"images/{by_file['id']}/", 200)
    assert (edited["name"], edited["min_disk"], edited["protected"]) == (f"{name}-edited", 2, True), edited

    # what the newer pages ask
    assert demo.api("GET", "version/", 200) == {"version": "2"}
    path = f"images/{by_file['id']}"
    demo.api("PATCH", f"{path}/properties/", 204, {"updated": {"hw_disk_bus": "scsi", "os_hidden": "false"},
                                                     "removed": ["architecture"]})  # fmt: skip
    properties = demo.api("GET", f"{path}/properties/", 200)
    assert properties["hw_disk_bus"] == "scsi"
    assert "architecture" not in properties
    changed = {"name": f"{name}-again", "disk_format": "raw", "protected": False, "visibility": "shared", "min_disk": 0}
    demo.api("PATCH", f"{path}/", 204, changed)
    assert demo.api("GET", f"{path}/", 200)["visibility"] == "shared"
    demo.api("POST", f"{path}/actions/deactivate", 200)
    assert demo.api("GET", f"{path}/", 200)["status"] == "deactivated"
    demo.api("POST", f"{path}/actions/reactivate", 200)
    posted = demo.upload(
        content, name=f"{name}-posted", disk_format="raw", container_format="bare", visibility="private"
    )
    assert demo.named(f"{name}-posted")["id"] == posted["id"]
    # past Horizon: the browser sends the data to us
    external = {"name": f"{name}-direct", "disk_format": "raw", "source_type": "file-direct", "data": "disk.raw",
                "visibility": "private"}  # fmt: skip
    made = demo.api("PUT", "images/", 201, external)
    headers = {"X-Auth-Token": made["token_id"], "Content-Type": "application/octet-stream"}
    assert requests.put(made["upload_url"], data=content, headers=headers, timeout=asked["seconds"]).status_code == 204
    assert demo.named(f"{name}-direct")["id"] == made["id"]
    # pages of two, to the end
    demo.page_size(2)
    seen: list[str] = []
    more = True
    while more:
        marker = {"marker": seen[-1]} if seen else {}
        found = demo.api("GET", "images/", 200, paginate="true", sort_key="name", sort_dir="asc", **marker)
        seen += [image["id"] for image in found["items"]]
        more = found["has_more_data"]
    mine = {by_file["id"], by_url["id"], posted["id"], made["id"]}
    assert mine <= set(seen)
    assert len(seen) == len(set(seen))

    # sets of definitions, as an administrator
    admin = Browser(asked, horizon, "admin")
    sets = admin.api("GET", "metadefs/namespaces/", 200, resource_type="OS::Glance::Image")["items"]
    assert asked["namespace"] in [one["namespace"] for one in sets], sets
    assert asked["namespace"] in admin.page("/admin/metadata_defs/")
    assert f"{name}-direct" in admin.page("/admin/images/")

    # deleting: in the table, and below it
    demo.form("/project/images/", action=f"images__delete__{by_url['id']}")
    for image in mine - {by_url["id"]}:
        demo.api("DELETE", f"images/{image}/", 204)
    assert demo.api("GET", "images/", 200, name=f"{name}-url")["items"] == []
    demo.api("GET", f"{path}/", 404)
    return sorted(mine)


if __name__ == "__main__":
    main()
