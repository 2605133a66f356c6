"""What belongs to an image: properties, tags, locations. Read in one statement for many images, written as differences.

Nothing is ever removed from these tables: rows are marked deleted, as Glance does, and a property that comes back
takes its old row again (its key is unique over deleted rows too).
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import ciphers, sql
from xloud_image.db.tables import image_locations, image_properties, image_tags
from xloud_image.errors import Conflict
from xloud_image.model import Image, Location

PAGE: Final = 8 << 20  # bytes of details after which a page of a list ends
LONG: Final = 256  # characters; a longer text is read only when the page has room for it
# What is looked at in one statement, for all short texts of it are held: a whole page of at most so many rows, else so
# many images at first and so many at the most.
_ROWS: Final = 20_000
_STEP, _MOST = 50, 200
_ROW_BYTES: Final = 1024  # what an image takes in an answer besides its details
PROPERTY, TAG, LOCATION, MEMBER = 1, 2, 3, 4
# statuses of a location that Glance writes before its data: what it names is not there, or not whole
WITHOUT_DATA: Final = ("pending", "uploading")
# kind, table, key, value, extra, number
SOURCES: Final = (
    (PROPERTY, "image_properties", "name", "value", "NULL", "id"),
    (TAG, "image_tags", "value", "NULL", "NULL", "id"),
    (LOCATION, "image_locations", "status", "value", "meta_data", "id"),
)
# a property overwrites the row of its name, also a deleted one
_CONFLICT: Final = (
    "ON CONFLICT (image_id, name) DO UPDATE SET"
    " value = excluded.value, updated_at = excluded.updated_at, deleted = false, deleted_at = NULL"
)
_TAKEN: Final[Mapping[sql.Engine, str]] = {
    "sqlite": _CONFLICT,
    "postgresql": _CONFLICT,
    "mysql": "ON DUPLICATE KEY UPDATE name = VALUES(name), value = VALUES(value), updated_at = VALUES(updated_at),"
    " deleted = false, deleted_at = NULL",
}


class Details:
    """The details of one image as rows came: with the rows' numbers, to write only what differs."""

    __slots__ = (
        "characters", "locations", "long", "long_bytes", "membership", "properties", "property_rows", "tag_rows", "tags"
    )  # fmt: skip

    def __init__(self) -> None:
        self.properties: dict[str, str | None] = {}
        self.property_rows: dict[str, int] = {}
        self.tags: list[str] = []
        self.tag_rows: list[tuple[str, int]] = []
        self.locations: list[Location] = []
        self.membership: str | None = None
        self.long: list[tuple[int, int]] = []  # kind and number of rows whose texts are not here yet
        self.long_bytes = 0  # of these texts
        self.characters = 0  # of all other texts, keys included

    def add(self, kind: int, key: str, value: str | None, extra: str | None, number: int) -> None:
        """Take one row."""
        if kind == PROPERTY:
            self.properties[key] = value
            self.property_rows[key] = number
        elif kind == TAG:
            self.tags.append(key)
            self.tag_rows.append((key, number))
        elif kind == LOCATION:
            if key not in WITHOUT_DATA:
                self.locations.append(Location(value or "", metadata(extra), key, number))
        else:
            self.membership = key

    @property
    def most(self) -> int:
        """Bytes of JSON that it makes at the most: six for a character that needs an escape."""
        return _ROW_BYTES + 6 * (self.characters + self.long_bytes)

    @property
    def size(self) -> int:
        """Bytes of its texts, about."""
        texts = [*self.properties, *self.properties.values(), *self.tags, *[one.url for one in self.locations]]
        short = sum(len(text.encode(errors="replace")) for text in texts if text is not None and len(text) <= LONG)
        return _ROW_BYTES + self.long_bytes + max(short, self.characters)

    def put(self, kind: int, key: str, value: str, extra: str | None, number: int) -> None:
        """Take the texts of a row in `long`."""
        if kind == LOCATION:
            self.locations = [one for one in self.locations if one.id != number]
        self.add(kind, key, value, extra, number)

    def arrange(self, urls: ciphers.Urls | None) -> None:
        """Call after the last row: rows come in any order. `urls`: the key of the database."""
        if urls is not None:
            self.locations = [ciphers.opened(urls, one) for one in self.locations]
        if len(self.tags) > 1:
            self.tags = sorted(set(self.tags))
        if len(self.locations) > 1:
            self.locations.sort(key=lambda location: location.id or 0)


def metadata(text: str | None) -> Mapping[str, Any]:
    """The metadata of a location as its row has it; {} where that is no mapping."""
    if not text or text == "{}":
        return {}
    try:
        found = orjson.loads(text)
    except ValueError:  # one row that somebody broke must not take the list from everybody
        return {}
    return found if isinstance(found, dict) else {}


async def load(conn: AsyncConnection, ids: Sequence[str], project: str | None) -> dict[str, Details]:
    """The details of these images in their order, as many of the first ones (one at least) as PAGE bytes hold.

    `project`: whose membership to fill in.

    One statement for a usual page. Of long texts only the beginning is looked at, and the whole is read when it is
    known that they fit: nobody makes the service hold what it will not send.
    """
    found: dict[str, Details] = {}
    whole = await _look(conn, ids, project, most=_ROWS) if len(ids) > _STEP else None
    room, at, step = PAGE, 0, len(ids) if whole else _STEP
    while at < len(ids) and (room > 0 or not found):
        some = ids[at : at + step]
        looked = whole or await _look(conn, some, project)
        fit: list[str] = []
        if len(some) == len(ids) and sum([one.most for one in looked.values()]) <= PAGE:
            fit = list(some)
        else:
            for image_id in some:
                room -= looked[image_id].size
                if room < 0 and (found or fit):
                    break
                fit.append(image_id)
        await _read_long(conn, [looked[image_id] for image_id in fit])
        for image_id in fit:
            found[image_id] = looked[image_id]
            found[image_id].arrange(ciphers.of(conn))
        if len(fit) < len(some):
            break
        at, step = at + step, min(2 * step, _MOST)
    return found


async def _look(
    conn: AsyncConnection, ids: Sequence[str], project: str | None, *, most: int = sys.maxsize
) -> dict[str, Details]:
    """The details of all these images but for texts of more than LONG characters: of these the row's number is noted.
    Nothing when there are more rows than `most`.
    """
    text = sql.Text(sql.engine_of(conn))
    mysql = text.engine == "mysql"
    parts = [
        f"SELECT {kind}, image_id, {key}, {_begin(value)}, {_begin(extra)}, {number}"  # noqa: S608 - constants
        f" FROM {table}{f' FORCE INDEX (ix_{table}_image_id)' if mysql else ''}"
        f" WHERE {text.any_of('image_id', ids)} AND NOT deleted"
        for kind, table, key, value, extra, number in SOURCES
    ]
    if project is not None:
        # by the images, not by the project's memberships, of which there may be very many
        force = " FORCE INDEX (ix_image_members_image_id_member)" if mysql else ""
        ours = text.any_of("image_id", ids)
        mine = f"member = {text.bind(project)}"
        mine = {"sqlite": f"+{mine}", "postgresql": f"({mine}) IS TRUE"}.get(text.engine, mine)
        parts.append(
            f"SELECT {MEMBER}, image_id, status, NULL, NULL, id FROM image_members{force}"  # noqa: S608 - constants
            f" WHERE {ours} AND {mine} AND NOT deleted"
        )
    found: dict[str, Details] = {image_id: Details() for image_id in ids}
    end = f" LIMIT {most + 1}" if most < sys.maxsize else ""
    rows = await sql.fetch(conn, " UNION ALL ".join(parts) + end, text.values)
    if len(rows) > most:
        return {}
    long = False
    for kind, image_id, key, value, extra, number in rows:
        one = found[image_id]
        characters = len(key)
        if value is not None:
            characters += len(value)
        if extra is not None:
            characters += len(extra)
        if characters > LONG and (len(value or "") > LONG or len(extra or "") > LONG):
            one.long.append((kind, number))
            value, extra, characters, long = None, None, len(key), True  # noqa: PLW2901 - read later
        one.characters += characters
        one.add(kind, key, value, extra, number)
    if long:
        await _measure(conn, list(found.values()))
    return found


def _begin(column: str) -> str:
    """Enough of a text to tell whether it is long, and all of it when it is not."""
    return column if column == "NULL" else f"substr({column}, 1, {LONG + 1})"


async def _measure(conn: AsyncConnection, several: Sequence[Details]) -> None:
    """Ask how many bytes the long texts of these images have."""
    count = "length(CAST({} AS BLOB))" if sql.engine_of(conn) == "sqlite" else "octet_length({})"
    for _, table, _, value, extra, owners in _long(several):
        size = " + ".join([f"COALESCE({count.format(one)}, 0)" for one in (value, extra) if one != "NULL"])
        words = f"SELECT id, {size} FROM {table} WHERE id IN ({_numbers(owners)})"  # noqa: S608 - numbers
        for number, length in await sql.fetch(conn, words):
            owners[number].long_bytes += length


async def _read_long(conn: AsyncConnection, several: Sequence[Details]) -> None:
    """Read the long texts of these images."""
    for kind, table, key, value, extra, owners in _long(several):
        words = f"SELECT id, {key}, {value}, {extra} FROM {table} WHERE id IN ({_numbers(owners)})"  # noqa: S608 - numbers
        for number, name, long, more in await sql.fetch(conn, words):
            owners[number].put(kind, name, long, more, number)


def _long(several: Sequence[Details]) -> Iterator[tuple[int, str, str, str, str, dict[int, Details]]]:
    """Of each table that has long texts of these images: its source, and the rows' owners by their numbers."""
    if any(one.long for one in several):
        for wanted, table, key, value, extra, _ in SOURCES:
            owners = {number: one for one in several for kind, number in one.long if kind == wanted}
            if owners:
                yield wanted, table, key, value, extra, owners


def _numbers(owners: Iterable[int]) -> str:
    return ", ".join([str(int(number)) for number in owners])


def kept(conn: AsyncConnection, moment: dt.datetime) -> dt.datetime:
    """A time as the columns of Glance keep it: MySQL's have no fraction, and would round."""
    return moment.replace(microsecond=0) if sql.engine_of(conn) == "mysql" else moment


async def write(conn: AsyncConnection, image_id: str, old: Details, new: Image, now: dt.datetime) -> bool:
    """Store the difference of properties, tags and locations; whether there was one."""
    done = [
        await _write_properties(conn, image_id, old, new.properties, now),
        await _write_tags(conn, image_id, old, set(new.tags), now),
        await _write_locations(conn, image_id, old.locations, new.locations, now),
    ]
    return any(done)


async def _write_properties(
    conn: AsyncConnection, image_id: str, old: Details, new: Mapping[str, str | None], now: dt.datetime
) -> bool:
    gone = [number for name, number in old.property_rows.items() if name not in new]
    put = {name: value for name, value in new.items() if name not in old.properties or old.properties[name] != value}
    # first the removals: on MySQL a name that differs only in case takes the removed one's row
    if gone:
        await _remove(conn, image_properties, image_properties.c.id.in_(gone), now)
    if put:
        rows = [{"image_id": image_id, "name": name, "value": value, **_new(now)} for name, value in put.items()]
        await sql.insert(conn, "image_properties", rows, _TAKEN[sql.engine_of(conn)])
        if conn.dialect.name in ("mysql", "mariadb") and any(name not in old.properties for name in put):
            text = sql.Text("mysql")
            found = await sql.fetch(
                conn,
                f"SELECT count(*) FROM image_properties WHERE image_id = {text.bind(image_id)} AND NOT deleted",  # noqa: S608
                text.values,
            )
            if found[0][0] != len(new):
                raise Conflict("The database in use does not tell apart property names that differ only in case.")
    return bool(gone or put)


async def _write_tags(conn: AsyncConnection, image_id: str, old: Details, new: set[str], now: dt.datetime) -> bool:
    gone = [number for tag, number in old.tag_rows if tag not in new]
    put = sorted(new.difference(old.tags))
    if gone:
        await _remove(conn, image_tags, image_tags.c.id.in_(gone), now)
    if put:
        await sql.insert(conn, "image_tags", [{"image_id": image_id, "value": tag, **_new(now)} for tag in put])
    return bool(gone or put)


async def _write_locations(
    conn: AsyncConnection, image_id: str, old: Sequence[Location], new: Sequence[Location], now: dt.datetime
) -> bool:
    urls = ciphers.of(conn)
    kept_numbers = {location.id for location in new}
    before = {location.id: location for location in old}
    gone = [location.id for location in old if location.id not in kept_numbers]
    put = [location for location in new if location.id not in before]
    other = [location for location in new if location.id in before and before[location.id] != location]
    if gone:
        await _remove(conn, image_locations, image_locations.c.id.in_(gone), now)
    for location in other:
        await sql.update(conn, "image_locations", {**_columns(urls, location), "updated_at": now}, id=location.id)
    if put:
        rows = [{"image_id": image_id, **_columns(urls, location), **_new(now)} for location in put]
        await sql.insert(conn, "image_locations", rows)
    return bool(gone or put or other)


def _columns(urls: ciphers.Urls | None, location: Location) -> dict[str, Any]:
    metadata = orjson.dumps(dict(location.metadata)).decode()
    url = location.url if urls is None else urls.sealed(location.url)
    return {"value": url, "meta_data": metadata, "status": location.status}


def _new(now: dt.datetime) -> dict[str, Any]:
    """What every new row of a detail has."""
    return {"created_at": now, "updated_at": now, "deleted": False}


async def _remove(conn: AsyncConnection, table: sa.Table, which: sa.ColumnElement[bool], now: dt.datetime) -> None:
    await conn.execute(table.update().where(which).values(deleted=True, deleted_at=now, updated_at=now))


async def remove_all(conn: AsyncConnection, image_id: str, now: dt.datetime, *, known: Image | None = None) -> None:
    """Soft-delete all rows of an image in the four tables; `known`, as just locked, tells which have none."""
    for table, there in (
        ("image_members", True),
        ("image_properties", known is None or known.properties),
        ("image_tags", known is None or known.tags),
        ("image_locations", known is None or known.locations),
    ):
        if there:
            gone = {"deleted": True, "deleted_at": now, "updated_at": now}
            await sql.update(conn, table, gone, image_id=image_id, deleted=False)
