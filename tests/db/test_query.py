"""Lists against a plain model of them: who sees what, every filter, every order, and pages that miss nothing.

The model is the table of the API reference written down in Python; the data are few values that collide often, so that
equal times, unknown values and every kind of neighbour meet.
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.db.conftest import wipe
from xloud_image.db import images, listing, sql, tables
from xloud_image.db.engine import Database
from xloud_image.db.query import SORT_KEYS, Query
from xloud_image.errors import BadRequest, Forbidden
from xloud_image.model import Image

PROJECTS = ("p1", "p2", "p3")
TIMES = tuple(dt.datetime(2026, 1, day, 12, 30, 15) for day in (1, 2, 3))
VISIBILITIES = ("public", "private", "shared", "community")


@dataclasses.dataclass(frozen=True)
class Row:
    """An image of the model: its columns, tags, properties, and members with their status."""

    columns: Mapping[str, Any]
    tags: frozenset[str]
    properties: Mapping[str, str | None]
    members: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]


few = st.sampled_from
columns = st.fixed_dictionaries(
    {
        "id": st.builds(
            lambda: "",
        ),
        "name": few((None, "a", "b", "c")),
        "owner": few((None, *PROJECTS)),
        "visibility": few(VISIBILITIES),
        "status": few(("active", "active", "queued", "killed", "deactivated")),
        "deleted": few((False, False, False, True)),
        "os_hidden": few((False, False, True)),
        "protected": st.booleans(),
        "disk_format": few((None, "raw", "qcow2")),
        "container_format": few((None, "bare")),
        "size": few((None, 0, 1, 2**40)),
        "min_disk": few((0, 1)),
        "min_ram": st.just(0),
        "checksum": few((None, "c1", "c2")),
        "created_at": few(TIMES),
        "updated_at": few(TIMES),
    }
)
rows = st.builds(
    Row,
    columns,
    st.frozensets(few(("x", "y", "z"))),
    st.dictionaries(few(("k", "l")), few((None, "", "1", "2", "v" * 90, "v" * 90 + "w")), max_size=2),
    st.dictionaries(few(PROJECTS), few(("pending", "accepted", "rejected"))),
)


def some(strategy: st.SearchStrategy[Any], none: Any) -> st.SearchStrategy[Any]:
    """Mostly none: one filter or two at once, not ten."""
    return st.one_of(st.just(none), st.just(none), st.just(none), strategy)


queries = st.builds(
    Query,
    project=few((None, *PROJECTS)),
    is_admin=st.booleans(),
    visibility=few((None, None, "all", *VISIBILITIES)),
    member_status=few(("accepted", "accepted", "pending", "rejected", "all")),
    os_hidden=few((False, False, False, True)),
    equals=some(
        st.one_of(
            st.fixed_dictionaries({"name": few(("a", "b"))}),
            st.fixed_dictionaries({"owner": few(PROJECTS)}),
            st.fixed_dictionaries({"protected": st.booleans()}),
            st.fixed_dictionaries({"status": few(("active", "queued")), "checksum": few(("c1", "c2"))}),
            st.fixed_dictionaries({"min_disk": few((0, 1)), "disk_format": few(("raw", "qcow2"))}),
        ),
        {},
    ),
    one_of=some(
        st.one_of(
            st.fixed_dictionaries({"name": few((("a",), ("a", "c"), ("nobody",)))}),
            st.fixed_dictionaries({"status": st.just(("active", "deactivated"))}),
            st.fixed_dictionaries({"disk_format": few((("raw",), ("raw", "qcow2")))}),
        ),
        {},
    ),
    times=some(
        st.lists(
            st.tuples(few(("created_at", "updated_at")), few(tuple(listing.COMPARE)), few(TIMES)),
            min_size=1,
            max_size=2,
        ).map(tuple),
        (),
    ),
    at_least=some(st.fixed_dictionaries({"size": few((0, 1, 2))}), {}),
    at_most=some(st.fixed_dictionaries({"size": few((0, 1, 2**40))}), {}),
    tags=some(st.lists(few(("x", "y", "z")), min_size=1, max_size=2, unique=True).map(tuple), ()),
    properties=some(st.dictionaries(few(("k", "l")), few(("", "1", "2", "v" * 90, "v" * 90 + "w")), min_size=1), {}),
    sort=st.lists(st.tuples(few(SORT_KEYS), few(("asc", "desc"))), max_size=3, unique_by=lambda one: one[0]).map(tuple),
    limit=st.integers(1, 5),
)


def sees(row: Row, asked: Query) -> bool:
    """The table "Who sees what in a list" of the reference."""
    visibility = row["visibility"]
    if asked.visibility not in (None, "all", visibility):
        return False
    own = asked.project is not None and row["owner"] == asked.project
    if visibility == "community" and not own and asked.visibility is None:
        return False
    if asked.is_admin or own or visibility in ("public", "community"):
        return True
    status = row.members.get(asked.project or "")
    return visibility == "shared" and status is not None and asked.member_status in ("all", status)


COMPARE = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
}


def passes(row: Row, asked: Query) -> bool:
    return (
        not row["deleted"]
        and row["status"] != "killed"
        and row["os_hidden"] == asked.os_hidden
        and all(row[column] == value for column, value in asked.equals.items())
        and all(row[column] in values for column, values in asked.one_of.items())
        and all(COMPARE[sign](row[column], moment) for column, sign, moment in asked.times)
        and all(row[column] is not None and row[column] >= n for column, n in asked.at_least.items())
        and all(row[column] is not None and row[column] <= n for column, n in asked.at_most.items())
        and all(tag in row.tags for tag in asked.tags)
        and all(name in row.properties and (row.properties[name] or "") == v for name, v in asked.properties.items())
    )


def expected(data: list[Row], asked: Query) -> list[str]:
    found = [row for row in data if passes(row, asked) and sees(row, asked)]
    directions = {direction for _, direction in asked.sort}
    rest = directions.pop() if len(directions) == 1 else "desc"
    keys = [*asked.sort, *((key, rest) for key in ("created_at", "id") if key not in dict(asked.sort))]
    for key, direction in reversed(keys):
        # unknown values count as the smallest; equal ones keep the order of the keys after this one
        found.sort(
            key=lambda row: (row[key] is not None, 0 if row[key] is None else row[key]), reverse=direction == "desc"
        )
    return [row["id"] for row in found]


async def fill(db: Database, data: list[Row]) -> None:
    await wipe(db)
    now = TIMES[0]
    stamp = {"created_at": now, "deleted": False}

    async def work(conn: AsyncConnection) -> None:
        def of(row: Row, **values: Any) -> dict[str, Any]:
            return {"image_id": row["id"], **stamp, **values}

        for table, found in (
            (tables.images, [dict(row.columns) for row in data]),
            (tables.image_tags, [of(row, value=tag) for row in data for tag in row.tags]),
            (
                tables.image_properties,
                [of(row, name=name, value=value) for row in data for name, value in row.properties.items()],
            ),
            (
                tables.image_members,
                [of(row, member=m, status=s, can_share=False) for row in data for m, s in row.members.items()],
            ),
            # rows that were removed must never show
            (
                tables.image_tags,
                [of(row, value="x") | {"deleted": True} for row in data if "x" not in row.tags],
            ),
            (
                tables.image_properties,
                [of(row, name="k", value="1") | {"deleted": True} for row in data if "k" not in row.properties],
            ),
            (
                tables.image_members,
                [
                    of(row, member="p1", status="accepted", can_share=False) | {"deleted": True, "deleted_at": now}
                    for row in data
                    if "p1" not in row.members
                ],
            ),
        ):
            if found:
                await conn.execute(table.insert(), found)

    await db.write(work)


async def pages(db: Database, asked: Query) -> list[str]:
    """All pages, one after the other, as a client walks them."""
    found: list[str] = []
    while True:
        page = await db.read(lambda conn: listing.find(conn, asked))
        found += [image.id for image in page]
        if len(page) < asked.limit:
            return found
        asked = dataclasses.replace(asked, marker=page[-1].id)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    data=st.lists(rows, max_size=14),
    asked=st.lists(queries, min_size=8, max_size=8),
    few_candidates=few((0, 2, 1000)),
    few_memberships=few((0, 5000)),
)
async def test_lists_are_those_of_the_model(
    db: Database, data: list[Row], asked: list[Query], few_candidates: int, few_memberships: int
) -> None:
    data = [dataclasses.replace(row, columns={**row.columns, "id": str(uuid.uuid4())}) for row in data]
    await fill(db, data)
    with pytest.MonkeyPatch.context() as patch:
        # every way to find a page, also with few rows
        patch.setattr(listing, "FEW", few_candidates)
        patch.setattr(listing, "MEMBERSHIPS", few_memberships)
        for one in asked:
            assert await pages(db, one) == expected(data, one), one


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", SORT_KEYS)
async def test_every_order_is_complete_with_equal_and_unknown_values(db: Database, key: str, direction: Any) -> None:
    data = [
        Row(
            {
                "id": str(uuid.uuid4()),
                "name": (None, "a", "b")[n % 3],
                "owner": "p1",
                "visibility": VISIBILITIES[n % 4],
                "status": ("active", "queued")[n % 2],
                "deleted": False,
                "os_hidden": False,
                "protected": False,
                "disk_format": (None, "raw")[n % 2],
                "container_format": (None, "bare")[n // 2 % 2],
                "size": (None, 1, 2)[n // 3 % 3],
                "min_disk": 0,
                "min_ram": 0,
                "created_at": TIMES[n // 20],
                "updated_at": TIMES[n % 3],
            },
            frozenset(),
            {},
            {},
        )
        for n in range(40)
    ]
    await fill(db, data)
    for limit in (1, 7, 40):
        asked = Query(project="p1", sort=((key, direction),), limit=limit)
        assert await pages(db, asked) == expected(data, asked)


async def test_details_and_membership_come_along(db: Database) -> None:
    made = [
        Image(
            id=str(uuid.uuid4()),
            owner="p1",
            visibility="public",
            properties={"n": str(n)},
            tags=(f"t{n}", "all"),
            created_at=TIMES[0] + dt.timedelta(minutes=n),
        )
        for n in range(4)
    ]
    stored = [await db.write(lambda conn, image=image: images.create(conn, image)) for image in made]  # type: ignore[misc]
    asked = []
    real = sql.fetch

    async def counting(conn: AsyncConnection, text: str, values: Any = ()) -> sql.Rows:
        asked.append(text)
        return await real(conn, text, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql, "fetch", counting)
        found = await db.read(lambda conn: listing.find(conn, Query(project="p1", is_admin=True)))
        assert found == stored[::-1]
        assert len(asked) == 2
        asked.clear()
        await db.read(lambda conn: listing.find(conn, Query(project="p1", marker=found[0].id, limit=2)))
        assert len(asked) == 3


async def test_markers(db: Database) -> None:
    secret = await db.write(
        lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), owner="p2", visibility="private"))
    )
    mine = await db.write(
        lambda conn: images.create(conn, Image(id=str(uuid.uuid4()), owner="p1", visibility="private"))
    )

    async def find(marker: str, **who: Any) -> list[Image]:
        return await db.read(lambda conn: listing.find(conn, Query(marker=marker, **who)))

    with pytest.raises(BadRequest):
        await find(str(uuid.uuid4()), project="p1")
    with pytest.raises(Forbidden):
        await find(secret.id, project="p1")
    with pytest.raises(Forbidden):
        await find(mine.id)
    await find(secret.id, project="p1", is_admin=True)
    await find(mine.id, project="p1")
    # a client may go on from an image that is deleted meanwhile
    await db.write(lambda conn: images.hide(conn, mine.id))
    await find(mine.id, project="p1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"sort": (("owner", "asc"),)},
        {"sort": (("name", "asc"), ("name", "desc"))},
        {"equals": {"deleted": False}},
        {"equals": {"id = id OR id": "x"}},
        {"one_of": {"owner": ("p1",)}},
        {"times": (("deleted_at", "gt", TIMES[0]),)},
        {"times": (("created_at", "like", TIMES[0]),)},
        {"at_least": {"name": 1}},
        {"visibility": "secret"},
    ],
    ids=str,
)
async def test_what_cannot_be_asked(db: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await db.read(lambda conn: listing.find(conn, Query(project="p1", **wrong)))


@pytest.mark.parametrize("text", ["'", "\\", "%", "%s", "a' OR '1'='1", "?", "$1", ":x", "😀", '"', ";--"])
async def test_values_are_only_values(db: Database, engine: str, text: str) -> None:
    image = Image(id=str(uuid.uuid4()), owner="p1", properties={"k": "v"}, tags=("t",), name="n")
    await db.write(lambda conn: images.create(conn, image))
    for asked in (
        {"equals": {"name": text}},
        {"one_of": {"name": (text, "other")}},
        {"tags": (text,)},
        {"properties": {text: "v"}},
        {"properties": {"k": text}},
        {"project": text},
    ):
        one = Query(**({"project": "p1"} | asked))  # type: ignore[arg-type]
        if text == "😀" and engine == "mariadb":  # its columns hold three bytes a character, as Glance made them
            with pytest.raises(BadRequest):
                await pages(db, one)
        else:
            assert await pages(db, one) == []
