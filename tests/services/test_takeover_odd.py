"""Databases and configurations that nobody should have, on the way from Glance to this service and back."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.db.test_schema import described
from tests.servers import glance
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Stuck
from tests.services.former import AT, Former, sentences
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import connect, schema, tables

# one of our indexes is on an expression, which SQLAlchemy does not describe on SQLite
pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")

RELAXED = {
    "sqlite": ["PRAGMA foreign_keys = OFF"],
    "postgresql": ["SET session_replication_role = replica"],
    "mariadb": ["SET SESSION sql_mode = ''", "SET SESSION foreign_key_checks = 0"],
}
NO_TIME = {"sqlite": "'no time'", "postgresql": "'infinity'", "mariadb": "'0000-00-00 00:00:00'"}
LATE_TIME = {"sqlite": "'9'", "postgresql": "'20000-01-01'", "mariadb": "'2020-00-00 00:00:00'"}
NO_VISIBILITY = {"sqlite": "'odd'", "postgresql": "'odd'", "mariadb": "''"}
NAMES = {
    "sqlite": ["char(97, 0, 98)", "'" + "x" * 10_000 + "'", "'\U0001f600'"],
    "postgresql": ["'" + "x" * 255 + "'", "'\U0001f600'"],
    "mariadb": ["concat('a', char(0 using utf8mb4), 'b')", "'" + "x" * 255 + "'"],
}


def insert(table: str, **values: Any) -> str:
    """A row of Glance's; texts as SQL."""
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(str(one) for one in values.values())})"


class Rows:
    """Statements that make odd rows, and the ids of the images by the kind of oddity."""

    def __init__(self, former: Former) -> None:
        self.no = "false" if former.engine == "postgresql" else "0"
        self.ids: dict[str, str] = {}
        self.statements = list(RELAXED[former.engine])

    def image(self, kind: str, **values: Any) -> str:
        image = self.ids[kind] = str(uuid.uuid4())
        usual = {
            "id": f"'{image}'", "name": f"'{kind}'", "size": 3, "status": "'queued'", "created_at": AT,
            "updated_at": AT, "deleted": self.no, "disk_format": "'raw'", "container_format": "'bare'", "owner": "'p'",
            "min_disk": 0, "min_ram": 0, "protected": self.no, "visibility": "'shared'", "os_hidden": self.no,
        }  # fmt: skip
        self.statements.append(insert("images", **(usual | values)))
        return image

    def detail(self, table: str, image: str, **values: Any) -> None:
        usual = {"image_id": f"'{image}'", "created_at": AT, "updated_at": AT, "deleted": self.no}
        self.statements.append(insert(table, **(usual | values)))


def odd(former: Former) -> dict[str, str]:
    """Fill the tables with what no image service writes."""
    rows = Rows(former)
    if former.engine == "postgresql":
        rows.statements.append("ALTER TYPE image_visibility ADD VALUE 'odd'")
    engine = former.engine
    rows.image("usual", status="'active'")
    rows.image("status", status="''")
    rows.image("visibility", visibility=NO_VISIBILITY[engine])
    rows.image("time", created_at=NO_TIME[engine], updated_at=NO_TIME[engine])
    rows.image("late", created_at=LATE_TIME[engine], updated_at="NULL")
    rows.image("blank", owner="''")
    rows.image("ownerless", owner="NULL")
    rows.image("largest", size=2**63 - 1, virtual_size=2**63 - 1, min_disk=2**31 - 1, min_ram=2**31 - 1)
    rows.image("negative", size=-1, min_disk=-1, min_ram=-(2**31))
    for number, name in enumerate(NAMES[engine]):
        rows.image(f"name {number}", name=name)
    null = rows.image("null property")
    rows.detail("image_properties", null, name="'nothing'", value="NULL")
    for kind, urls, metadata in (
        ("twice", ["file:///nowhere/1", "file:///nowhere/1"], '{"store": "files"}'),
        ("no url", ["not a url", ""], "{}"),
        ("broken metadata", ["file:///nowhere/2"], '{"store": '),
        ("list metadata", ["file:///nowhere/3"], "[1]"),
    ):
        image = rows.image(kind, status="'active'")
        for url in urls:
            rows.detail("image_locations", image, value=f"'{url}'", meta_data=f"'{metadata}'", status="'active'")
    nobody = str(uuid.uuid4())
    rows.detail("image_members", nobody, member="'m'", can_share=rows.no, status="'accepted'")
    rows.detail("image_members", rows.ids["usual"], member="'m'", can_share=rows.no, status="'odd'",
                created_at=NO_TIME[engine])  # fmt: skip
    rows.detail("image_tags", nobody, value="'t'")
    rows.detail("image_properties", nobody, name="'n'", value="'v'")
    rows.detail("image_locations", nobody, value="'file:///nowhere/4'", meta_data="'{}'", status="'active'")
    task = str(uuid.uuid4())
    rows.statements += [
        insert("tasks", id=f"'{task}'", type="'import'", status="'success'", owner="'p'", created_at=NO_TIME[engine],
               updated_at=NO_TIME[engine], deleted=rows.no),
        insert("task_info", task_id=f"'{task}'", input="'{'", result="'[1]'"),
        insert("metadef_namespaces", namespace="'odd'", owner="'p'", visibility="'public'", protected=rows.no,
               created_at=NO_TIME[engine]),
        "INSERT INTO metadef_objects (namespace_id, name, json_schema, created_at)"
        f" SELECT id, 'o', '{{', {NO_TIME[engine]} FROM metadef_namespaces",
        *["INSERT INTO metadef_tags (namespace_id, name, created_at)"
          f" SELECT id, '{name}', {made} FROM metadef_namespaces"
          for name, made in (("t", NO_TIME[engine]), ("u", AT))],
    ]  # fmt: skip
    former.sql(*rows.statements)
    return rows.ids


def test_rows_that_break_every_rule_are_served_and_named(former: Former) -> None:
    ids = odd(former)
    report = former.check()
    told = "\n".join(f"{one['severity']}: {one['sentence']}. {one['cure']}" for one in report["findings"])
    for words in (
        "error: 1 images have the status '', which is none. UPDATE images SET status",
        "warning: 1 images have a visibility that is none of the four",
        "UPDATE images SET visibility = 'private' WHERE visibility NOT IN ('public', 'private', 'shared', 'community')",
        f"UPDATE image_locations SET meta_data = '{{}}' WHERE image_id = '{ids['broken metadata']}'",
        "warning: 2 images have a time that is none",
        "warning: 1 images have a size or a minimum that no image can have",
        "note: 1 images have an owner without a letter",
        "warning: 2 locations are no URL",
        "warning: 2 locations have metadata that is no JSON object",
        "note: 1 memberships have a status that is none",
        *(f"note: 1 rows of image_{one} belong to no image" for one in ("members", "tags", "properties", "locations")),
        "1 active images have no location",
    ):
        assert words in told, words
    if former.engine != "postgresql":  # it takes neither
        assert f"note: {2 if former.engine == 'sqlite' else 1} images have names of more than 255" in told
    assert not report["possible"]

    service = former.service
    service.run("db", "upgrade")
    try:
        service.start()
        for query in (
            "limit=100", "visibility=all", "visibility=shared&member_status=all", "status=active", "name=twice",
            "owner=p", "owner=", "size_min=1", "size_max=5", "min_disk=0", "tag=t", "nothing=", "os_hidden=true",
            "created_at=gte:2020-01-01T00:00:00Z", "updated_at=lt:2030-01-01T00:00:00Z", "protected=false",
            *(f"sort={key}:{way}" for key in ("created_at", "updated_at", "name", "size", "status")
              for way in ("asc", "desc")),
        ):  # fmt: skip
            assert service.request("GET", f"/v2/images?{query}").status == 200, query
        for order in ("created_at:asc", "created_at:desc", "updated_at:asc", "size:desc"):
            seen: list[str] = []
            path = f"/v2/images?limit=1&sort={order}"
            while path:
                answer = service.request("GET", path)
                assert answer.status == 200, (order, path, answer.body)
                seen += [one["id"] for one in answer.json()["images"]]
                path = answer.json().get("next", "")
                assert len(seen) <= len(ids), order
            assert sorted(seen) == sorted(set(ids.values()) - {ids["visibility"]}), order
        for kind, image in ids.items():
            found = service.request("GET", f"/v2/images/{image}")
            assert found.status == 200, (kind, found.body)
            for path in ("/file", "/members", "/tasks", "/members/m"):
                assert service.request("GET", f"/v2/images/{image}{path}").status < 500, (kind, path)
            patch = [{"op": "add", "path": "/note", "value": "x"}]
            headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
            changed = service.request("PATCH", f"/v2/images/{image}", json=patch, headers=headers)
            assert changed.status < 500, (kind, changed.body)
            again = service.request("POST", f"/v2/images/{image}/actions/deactivate")
            assert again.status < 500, (kind, again.body)
        assert service.request("GET", f"/v2/images/{ids['visibility']}").json()["visibility"] == "private"
        assert (
            service.request("GET", f"/v2/images/{ids['usual']}/members/m").json()["created_at"]
            == "1970-01-01T00:00:00Z"
        )
        for path in ("/v2/tasks", "/v2/tasks?sort_key=created_at&sort_dir=asc&limit=1", "/v2/metadefs/namespaces",
                     "/v2/metadefs/namespaces/odd", "/v2/metadefs/namespaces/odd/objects", "/metrics"):  # fmt: skip
            answer = service.request("GET", path)
            assert answer.status < 500, (path, answer.body)
        for kind in ("time", "negative", "status", "no url", "largest"):
            gone = service.request("DELETE", f"/v2/images/{ids[kind]}")
            assert gone.status < 500, (kind, gone.body)
        assert "Traceback" not in service.log
        assert service.stop() == 0
    finally:
        service.kill()


def test_a_database_of_another_service_is_named(former: Former) -> None:
    former.sql("CREATE TABLE project (id VARCHAR(64))", "CREATE TABLE user_option (id VARCHAR(64))",
               *[f"DROP TABLE {one}" for one in sorted(former.tables(), key=_late) if one != "alembic_version"],
               "UPDATE alembic_version SET version_num = '29e87d24a316'",
               "INSERT INTO alembic_version VALUES ('e25ffa003242')")  # fmt: skip
    told = sentences(former.check(), "error")
    assert told == "the database is of something else: it has no table images, but project, user_option"
    for words in (("takeover", "run"), ("db", "upgrade"), ("takeover", "undo")):
        if words[1] == "undo":
            assert "Nothing of us" in former.service.run(*words)
            continue
        with pytest.raises(Stuck, match="the database is of something else") as caught:
            former.service.run(*words)
        assert "Traceback" not in str(caught.value)
    assert former.tables() == {"project", "user_option", "alembic_version"}
    former.sql("DROP TABLE project", "DROP TABLE user_option", "DROP TABLE alembic_version")
    assert sentences(former.check(), "error") == "the database has no tables of Glance"


def _late(table: str) -> int:
    """Those that others refer to last."""
    return {"images": 3, "tasks": 2, "node_reference": 2, "metadef_namespaces": 3, "metadef_resource_types": 3}.get(
        table, 0
    )


def test_missing_tables_and_columns_are_named(former: Former) -> None:
    former.sql("DROP TABLE image_tags", "ALTER TABLE images DROP COLUMN virtual_size")
    told = sentences(former.check(), "error")
    assert told == "Column images.virtual_size is missing\nTable image_tags is missing"
    for words in (("takeover", "run"), ("db", "upgrade")):
        with pytest.raises(Stuck, match="Table image_tags is missing") as caught:
            former.service.run(*words)
        assert "Traceback" not in str(caught.value)
    assert not any(name.startswith("xloud_") for name in former.tables())


def ask(former: Former, work: Callable[[sa.Connection], Any]) -> Any:
    async def run() -> Any:
        engine = connect.engine(former.settings, poolclass=sa.NullPool)
        async with engine.connect() as conn:
            found = await conn.run_sync(work)
        await engine.dispose()
        return found

    return asyncio.run(run())


def downgrade_and_die(settings: DatabaseSettings, before: int) -> bool:
    """Run the way back in a process that is killed before its DROP of this number; whether it came to its end."""
    with warnings.catch_warnings():  # of a library that other tests of the same run have brought in
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        count = 0

        def look(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            nonlocal count
            if statement.lstrip().startswith(("DROP", "COMMIT")):
                count += 1
                if count == before:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sa.event.listen(sa.Engine, "before_cursor_execute", look)
            asyncio.run(schema.downgrade(settings))
            os._exit(0)
        finally:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def test_a_way_back_that_is_killed_between_any_two_statements_goes_on(former: Former) -> None:
    image = former.image()
    before, shape = former.tables(), ask(former, described)
    asyncio.run(schema.upgrade(former.settings))
    if former.engine == "sqlite":  # all of it is one transaction
        whole = former.tables()
        for number in (1, 2, 9, 30):
            downgrade_and_die(former.settings, number)
            assert former.tables() in (whole, before)
    else:
        rounds = 0
        while not downgrade_and_die(former.settings, 2 if rounds else 1):
            rounds += 1
            assert rounds < 60, "each round comes one statement further"
            if rounds % 6 == 1:
                assert not asyncio.run(schema.version(former.settings)).current, "nothing of ours starts"
        assert rounds > len(tables.own.sorted_tables)
    asyncio.run(schema.downgrade(former.settings))
    assert former.tables() == before

    # one that died on the way can become ours again, or end
    for number in (4, 12):
        asyncio.run(schema.upgrade(former.settings))
        downgrade_and_die(former.settings, number)
    asyncio.run(schema.upgrade(former.settings))
    assert asyncio.run(schema.check(former.settings)) == []
    downgrade_and_die(former.settings, 8)
    assert "gone" in former.service.run("db", "downgrade")
    assert "Nothing of us" in former.service.run("db", "downgrade")
    assert asyncio.run(schema.remains(former.settings)) == set()
    assert ask(former, described) == shape
    assert former.status(image) == "active"
    if former.engine == "postgresql":  # of which it only says the version
        assert glance.manage(former.service.configuration, "db", "version").split()[-1] == "2024_1_contract01"
    else:
        assert "Database is up to date" in glance.manage(former.service.configuration, "db", "check")


def test_the_tables_of_2023_1_become_those_of_2024_1(former: Former) -> None:
    whole = ask(former, described)
    former.sql("DROP TABLE cached_images", "DROP TABLE node_reference", "DELETE FROM alembic_version")
    for name in sorted(former.tables(), key=_late):
        former.sql(f"DROP TABLE {name}")
    if former.engine == "postgresql":
        former.sql("DROP TYPE image_visibility")
    # as its own migrations make it
    glance.manage(former.service.configuration, "db_upgrade", "2023_1_contract01")
    assert former.sql("SELECT version_num FROM alembic_version")[0][0] == "2023_1_contract01"
    image = former.image()
    told = former.check()
    assert told["possible"]
    assert "the tables are those of an older Glance" in sentences(told, "warning")
    assert "cached_images" not in former.tables()
    former.service.run("takeover", "run")
    assert former.sql("SELECT version_num FROM alembic_version") == former.sql("SELECT '2024_1_contract01'")
    assert ask(former, described) == whole
    assert former.status(image) == "active"

    # between the migrations of its next release, or with none of them finished
    for heads in (("2023_1_contract01", "2024_1_expand01"), ("zed_contract01", "2023_1_expand01"),
                  ("zed_contract01", "2024_1_expand01"), ("2024_1_contract01", "2024_1_expand01")):  # fmt: skip
        former.sql("DELETE FROM alembic_version", *[f"INSERT INTO alembic_version VALUES ('{one}')" for one in heads])
        if "2023_1_expand01" in heads:
            former.sql("DROP TABLE cached_images")
        asyncio.run(schema.upgrade(former.settings))
        assert ask(former, described) == whole, heads
        assert former.sql("SELECT version_num FROM alembic_version") == former.sql("SELECT '2024_1_contract01'")
    for heads, words in (
        (("zed_contract01",), "older than those of Glance 2023.1"),
        (("ocata_expand01", "liberty"), "older than those of Glance 2023.1"),
        (("2024_1_contract01", "2026_1_expand01"), "a migration of Glance is not finished"),
        (("2026_1_expand01",), "a migration of Glance is not finished"),
    ):
        former.sql("DELETE FROM alembic_version", *[f"INSERT INTO alembic_version VALUES ('{one}')" for one in heads])
        found = asyncio.run(schema.of_glance(former.settings))
        assert words in found.obstacles[0].sentence
        assert "db sync" in found.obstacles[0].cure


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_an_account_that_may_only_read(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    name = f"reader_{uuid.uuid4().hex[:8]}"
    if engine == "postgresql":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        url = postgresql.create_database()
        former = Former(engine, url, tmp_path)
        database = url.rpartition("/")[2]
        may = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"
        postgresql.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'reading'; {may}", database)
        lacks = "permission denied for schema public"
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        url = mariadb.create_database(charset="utf8")
        former = Former(engine, url, tmp_path)
        database = url.rpartition("/")[2].partition("?")[0]
        mariadb.sql(f"CREATE USER {name} IDENTIFIED BY 'reading'; GRANT SELECT ON {database}.* TO {name}")
        lacks = "CREATE command denied to user"
    former.image()
    scheme, _, rest = url.partition("://")
    former.service.configure({"database": {"connection": f"{scheme}://{name}:reading@{rest.partition('@')[2]}"}})
    report = former.check()
    assert report["possible"]
    assert report["statuses"] == {"active": 1}
    for words in (("takeover", "run"), ("db", "upgrade")):
        with pytest.raises(Stuck, match=lacks) as caught:
            former.service.run(*words)
        assert f"the account '{name}' may not change the tables" in str(caught.value)
        assert "Traceback" not in str(caught.value)
        assert "reading" not in str(caught.value), "its password"
    assert not any(table.startswith("xloud_") for table in former.tables())


def test_a_database_that_somebody_writes_to_at_that_moment(former: Former) -> None:
    ended = threading.Event()
    made: list[str] = []

    def write() -> None:
        while not ended.is_set():
            made.append(former.image(data=False, size=None))
            former.sql(f"DELETE FROM images WHERE id = '{made.pop(0)}'" if len(made) > 5 else "SELECT 1")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        report = former.check()
        assert report["possible"]
        assert "images changed within the last minute" in sentences(report, "note") or report["statuses"]
        former.service.run("takeover", "run")
        former.service.run("takeover", "run", "--glance-is-stopped")
        former.service.run("takeover", "undo")
    finally:
        ended.set()
        writer.join()
    assert former.check()["statuses"] == {"active": len(made)}
    assert asyncio.run(schema.remains(former.settings)) == set()


def test_a_directory_of_broken_files(tmp_path: Path) -> None:
    former = Former("sqlite", f"sqlite:///{tmp_path / 'glance.sqlite'}", tmp_path)
    former.image()
    place = tmp_path / "glance"
    place.mkdir()
    (place / "glance-api.conf").write_text(former.service.configuration.read_text())
    former.service.configuration = place
    for number in range(50):
        (place / f"unknown-{number}{('.ini', '.yaml', '.json', '', '.bak')[number % 5]}").write_bytes(
            bytes(range(256)) * (1 + number)
        )
    (place / "dangling.ini").symlink_to(tmp_path / "nowhere")
    (place / "a-directory.json").mkdir()
    (place / "glance-api-paste.ini").write_bytes(b"[pipeline:\xff\n= = =")
    report = former.check(directory=True)
    assert report["possible"], report["findings"]
    drop_ins = place / "glance-api.conf.d"
    drop_ins.mkdir()
    for name, text, words in (
        ("broken.conf", b"no section\n[", "broken.conf"),
        ("binary.conf", bytes(range(256)), "binary.conf"),
        ("long.conf", b"[DEFAULT]\nworkers = " + b"9" * 100_000, "workers"),
    ):
        (drop_ins / name).write_bytes(text)
        for words_of in (("takeover", "check"), ("takeover", "run")):
            with pytest.raises(Stuck) as caught:
                former.run_in_directory(*words_of)
            said = str(caught.value)
            assert words in said, said
            assert "Traceback" not in said, said
            assert len(said) < 5000, "a line, not the file"
        (drop_ins / name).unlink()


def test_no_number_of_statuses_or_stores_is_held(tmp_path: Path) -> None:
    former = Former("sqlite", f"sqlite:///{tmp_path / 'glance.sqlite'}", tmp_path)
    rows = Rows(former)
    for number in range(130):
        image = rows.image(f"{number}", status=f"'odd {number}\x1b[2J'")
        rows.detail("image_locations", image, value=f"'x{number}://there'", meta_data="'{}'", status="'active'")
    former.sql(*rows.statements)
    told = sentences(former.check(), "error")
    assert "110 images have further statuses that are none" in told
    assert told.count("which is none") == 20
    assert "\x1b" not in told, "what rows hold reaches no terminal"
    assert told.count("which is not configured here") == 101
    assert "30 locations are in store '…'" in told
