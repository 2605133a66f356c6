"""Pages of a list while the rule `get_image` says what no statement can: it is asked for each image that was read."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.db import image_children
from xloud_image.db import images as rows
from xloud_image.db.engine import Database
from xloud_image.db.query import Query
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.policy import Policy
from xloud_image.services import images

ANN = Context(user="ann", project="alpha", roles=frozenset({"member", "reader"}))


@pytest.fixture
def service(db: Database, tmp_path: Path) -> Any:
    """What a list needs of a service; a property says who reads an image."""
    file = tmp_path / "policy.yaml"
    file.write_text('"get_image": "\'open\':%(shelf)s"\n')
    return types.SimpleNamespace(db=db, policy=Policy(PolicySettings(policy_file=str(file))))


async def store(db: Database, count: int, **properties: str) -> list[str]:
    several = [Image(f"{n:08}-{len(properties):04}-0000-0000-000000000000", owner="alpha", properties=properties)
               for n in range(count)]  # fmt: skip

    async def write(conn: Any) -> None:
        for image in several:
            await rows.create(conn, image)

    await db.write(write)
    return [image.id for image in several]


def query(limit: int, **more: Any) -> Query:
    return Query(project="alpha", limit=limit, sort=[("id", "asc")], **more)


async def test_the_only_one_is_found_behind_very_many(service: Any, db: Database, monkeypatch: Any) -> None:
    """A page without images ends the list for most clients, so one is not given before very many were looked at."""
    monkeypatch.setattr(images, "_LOOK", 5)
    monkeypatch.setattr(images, "_MOST_LOOKED", 5)
    await store(db, 5 * images.LOOKS + 17)
    seen = await rows_after(service, query(1))
    assert seen == []
    last = Image("ffffffff-0000-0000-0000-000000000000", owner="alpha", properties={"shelf": "open"})
    await db.write(lambda conn: rows.create(conn, last))
    found = await images.find(service, ANN, query(1))
    assert [image.id for image in found] == [last.id]


async def test_the_search_for_the_first_one_ends(service: Any, db: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr(images, "_LOOK", 2)
    monkeypatch.setattr(images, "_MOST_LOOKED", 2)
    monkeypatch.setattr(images, "_EMPTY_LOOKS", 3)
    ids = await store(db, 20)
    found = await images.find(service, ANN, query(1))
    assert (list(found), found.more, found.end) == ([], True, ids[5])


async def test_a_page_ends_by_its_bytes(service: Any, db: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr(images, "PAGE", 60_000)
    monkeypatch.setattr(image_children, "PAGE", 60_000)
    ids = await store(db, 12, shelf="open", text="x" * 20_000)
    found = await images.find(service, ANN, query(1000))
    assert ([image.id for image in found], found.more, found.end) == (ids[:2], True, ids[1])
    assert await rows_after(service, query(1000)) == ids
    big = await store(db, 1, shelf="open", text="x" * 65_000, more="")  # larger than a page: alone
    assert await rows_after(service, query(1000, equals={"id": big[0]})) == big


async def rows_after(service: Any, asked: Query) -> list[str]:
    """The ids of all pages, one after the other."""
    ids: list[str] = []
    while True:
        found = await images.find(service, ANN, asked)
        ids += [image.id for image in found]
        if not found.more:
            return ids
        asked = dataclasses.replace(asked, marker=found.end)
