"""Databases whose texts are kept and compared otherwise than in those that Glance makes: older defaults, a server's own
default, tables that were converted by hand.

What a column cannot hold is refused; what it takes comes back as it was sent, by each way of asking; each image stands
on one page; and nothing of us stays after the way back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

from tests.crash.points import wait_until
from tests.servers import glance
from tests.servers.mariadb import MariaDB
from tests.services.former import Former
from xloud_image.db import schema

NAMES: Final = ("a", "A", "ä", "Ä", "á", "b", "B", "ß", "ss", "€", "a ", "\U0001f600", "\U0001f601", "日本", "")
OCTETS: Final = {"Content-Type": "application/octet-stream"}
COLLATIONS: Final = ("utf8mb3_bin", "utf8mb4_bin", "utf8mb4_unicode_520_nopad_ci", "latin1_swedish_ci")


@pytest.fixture(params=COLLATIONS)
def former(request: pytest.FixtureRequest, mariadb: MariaDB, tmp_path: Path) -> Iterator[Former]:
    charset = request.param.partition("_")[0]
    url = mariadb.create_database(charset=charset).replace(f"charset={charset}", "charset=utf8mb4")
    former = Former("mariadb", url, tmp_path, request.param)
    yield former
    former.service.kill()


def holds(former: Former, text: str) -> bool:
    kept = former.sql("SHOW FULL COLUMNS FROM images LIKE 'name'")[0][2]
    if kept.startswith("latin1"):
        return all(one == "€" or ord(one) < 0x100 for one in text)
    return kept.startswith("utf8mb4") or all(ord(one) < 0x10000 for one in text)


def ask(former: Former, method: str, path: str, **how: Any) -> Any:
    answer = former.service.request(method, path, **how)
    assert answer.status < 500, (method, path, how, answer.body, former.service.log[-3000:])
    return answer


def listed(former: Former, **query: str) -> list[dict[str, Any]]:
    """All pages of two."""
    found: list[dict[str, Any]] = []
    path = f"/v2/images?{urlencode({'limit': 2, **query})}"
    while path:
        page = ask(former, "GET", path).json()
        found += page["images"]
        path = page.get("next")
    return found


def shapes(name: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Images that hold a text, and the query that finds each."""
    return [
        ({"name": name}, {"name": name}),
        ({"name": "p", "text": name}, {"text": name}),
        ({"name": "k", f"own_{name}": "x"}, {f"own_{name}": "x"}),
        ({"name": "t", "tags": [name]}, {"tag": name}),
    ]


def test_texts_of_any_collation(former: Former) -> None:
    former.image()
    before = former.tables()
    assert former.check()["possible"]
    former.service.run("takeover", "run", "--glance-is-stopped")
    assert "cannot be compared" not in former.service.run("db", "check")
    staging = {"filesystem_store_datadir": str(former.service.directory / "staging")}
    former.service.configure({"xloud": {"auth": "none", "job_workers": 1}, "os_glance_staging_store": staging})
    former.service.start()
    made: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    for name in NAMES:
        for body, query in shapes(name):
            answer = ask(former, "POST", "/v2/images", json=body)
            assert answer.status == (201 if holds(former, name) else 400), (body, answer.body)
            if answer.status == 201:
                made[answer.json()["id"]] = body, query
            else:
                assert ask(former, "GET", f"/v2/images?{urlencode(query)}").status == 400
    shown = {one["id"]: one for one in listed(former)}
    for image, (body, query) in made.items():
        assert body.items() <= shown[image].items()
        assert ask(former, "GET", f"/v2/images/{image}").json() == shown[image]
        if "" not in query.values():
            assert image in {one["id"] for one in listed(former, **query)}, query
    for key in ("name", "status"):
        for direction in ("asc", "desc"):
            order = [one["id"] for one in listed(former, sort_key=key, sort_dir=direction)]
            assert sorted(order) == sorted(shown), (key, direction)
    work(former, next(iter(made)))
    former.service.stop()
    assert "gone" in former.service.run("takeover", "undo")
    assert former.tables() == before
    assert "Database is up to date" in glance.manage(former.service.configuration, "db", "check")


def work(former: Former, image: str) -> None:
    """What is asked of our tables and Glance's together: data, imports, members, tasks, definitions, deletions."""
    path = f"/v2/images/{image}"
    formats = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in
               (("disk_format", "raw"), ("container_format", "bare"), ("visibility", "shared"))]  # fmt: skip
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    assert ask(former, "PATCH", path, body=json.dumps(formats).encode(), headers=patch).status == 200
    assert wait_until(lambda: "glance-direct" in ask(former, "GET", "/v2/info/import").body.decode())
    assert ask(former, "PUT", f"{path}/stage", body=b"data", headers=OCTETS).status == 204
    assert ask(former, "POST", f"{path}/import", json={"method": {"name": "glance-direct"}}).status == 202
    assert wait_until(lambda: ask(former, "GET", path).json()["status"] == "active"), former.service.log[-3000:]
    assert [one["status"] for one in ask(former, "GET", f"{path}/tasks").json()["tasks"]] == ["success"]
    assert ask(former, "GET", f"{path}/file").body == b"data"
    assert ask(former, "POST", f"{path}/members", json={"member": "friend"}).status == 200
    assert ask(former, "GET", f"{path}/members").json()["members"][0]["member_id"] == "friend"
    for tag in ("one", "One", "öne"):
        assert ask(former, "PUT", f"{path}/tags/{quote(tag)}").status == 204
    space = {"namespace": "OS::Öne", "properties": {"ä": {"type": "string", "title": "ß"}}}
    assert ask(former, "POST", "/v2/metadefs/namespaces", json=space).status == 201
    assert ask(former, "GET", f"/v2/metadefs/namespaces/{quote('OS::Öne')}").json()["properties"] == space["properties"]
    assert ask(former, "DELETE", path).status == 204
    assert wait_until(lambda: not former.sql("SELECT id FROM xloud_claims"))
    assert not list(former.service.images.glob(f"{image}*"))


def test_tables_that_were_made_before_theirs_were_converted(mariadb: MariaDB, tmp_path: Path) -> None:
    former = Former("mariadb", mariadb.create_database(charset="utf8mb4"), tmp_path, "utf8mb4_swedish_ci")
    asyncio.run(schema.upgrade(former.settings))
    former.sql("ALTER TABLE xloud_claims CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    (said,) = asyncio.run(schema.check(former.settings))
    assert said.startswith("Texts of table xloud_claims cannot be compared")
    asyncio.run(schema.upgrade(former.settings))
    assert asyncio.run(schema.check(former.settings)) == []
    other = "VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
    former.sql("DROP TABLE task_info", f"ALTER TABLE tasks MODIFY id {other}")
    assert "Table tasks has the collation utf8mb4_bin, images utf8mb4_swedish_ci" in "".join(
        asyncio.run(schema.check(former.settings))
    )
