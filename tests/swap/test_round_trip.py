"""There and back beside a real Glance: it fills a database, we serve it and change it, it serves what we made of it.

Four callers ask both the same questions on the same rows and files. What may differ is a list (`differences`), each
line with its reason; every other difference is a fault, and so is a line that nothing needs.

Of those questions of which there are many each database is asked one half, by the callers in turn.
`XLOUD_IMAGE_SWAP=all` has each asked by each caller on both, which takes five times as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Stuck
from tests.swap import day, past
from tests.swap.differences import Database, Used, found, idle, unexplained
from tests.swap.questions import Answer, Question, asked, every_byte, questions, several
from tests.swap.site import OWNER, Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT: Final = 500
NEEDED: Final[dict[Database, set[str]]] = {}  # the rules that were
EVERYBODY: Final = os.environ.get("XLOUD_IMAGE_SWAP") == "all"


@pytest.fixture(params=("mariadb", "postgresql"))
def site(request: pytest.FixtureRequest, tmp_path: Path, nginx: Callable[..., Nginx]) -> Iterator[Site]:
    """On PostgreSQL the locations are encrypted."""
    (files := tmp_path / "web").mkdir()
    (files / "disk.raw").write_bytes(past.WEB)
    web = nginx(files=files)
    if request.param == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        connection = mariadb.create_database(charset="utf8mb3").replace("charset=utf8mb3", "charset=utf8mb4")
        server: MariaDB | PostgreSQL = mariadb
    else:
        server = request.getfixturevalue("postgresql")
        connection = server.create_database()
    encrypted = request.param == "postgresql"
    one = Site(tmp_path / "etc", server, connection, f"http://{web.host}:{web.port}/disk.raw", encrypted=encrypted)
    yield one
    one.kill()


def compared(site: Site, used: Used, theirs: Mapping[Question, Answer], ours: Mapping[Question, Answer]) -> None:
    """Fail with what differs and may not."""
    rows = [line.split("\t") for line in site.sql("SELECT id, owner, visibility FROM images").splitlines()]
    images: dict[str, dict[str, Any]] = {
        one[0]: {"owner": None if one[1] in ("", "NULL") else one[1], "visibility": one[2]} for one in rows
    }
    differences = list(found(theirs, ours, images))
    used(differences)
    wrong = unexplained(differences)
    shown = "\n".join(
        f"{one.question} | {one.place} | Glance {one.theirs!r:.200} | ours {one.ours!r:.200}" for one in wrong[:40]
    )
    print(f"{len(theirs)} questions, {several(theirs.values())}, {len(differences)} differences with a reason")
    assert not wrong, f"{len(wrong)} differences without a reason:\n{shown}"


def test_there_and_back(site: Site) -> None:
    used = Used("postgresql" if site.postgresql else "mariadb")
    site.start()
    left = past.fill(site, COUNT)
    half = int(site.postgresql)
    first = questions(left, share=1 if EVERYBODY else 2, first=half, everybody=EVERYBODY)
    theirs = asked(site, first)
    assert "Nothing is in the way" in site.word("check"), "while it runs"
    site.stop()
    site.word("run", leave="--glance-is-stopped")

    site.serve()
    ours = asked(site, first)
    compared(site, used, theirs, ours)
    site.word("run")
    left = day.spent(site, left)
    thinned = questions(left, share=1 if EVERYBODY else 8, first=half, everybody=EVERYBODY)
    second = list(dict.fromkeys([*every_byte(left), *thinned]))
    ours = asked(site, second)
    with pytest.raises(Stuck, match="cannot listen"):
        site.word("undo")
    site.end()
    assert "gone" in site.word("undo")

    if not site.postgresql:  # where it says that it does not look
        site.manage("db", "check")
    site.start()
    theirs = asked(site, second)
    compared(site, used, theirs, ours)
    again = past.image(site, "again", b"by Glance")
    assert site.call("GET", f"/v2/images/{again}/file", OWNER).body == b"by Glance"
    NEEDED[used.on] = used.rules
    if len(NEEDED) == 2:
        assert not idle(NEEDED), "rules that nothing needs"
