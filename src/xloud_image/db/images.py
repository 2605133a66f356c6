"""Images in the database: read one, create, change, hide, finish. Lists are in `listing.py`; rights are elsewhere.

Promises: `get` is one statement, so that row and details are of one moment. `change` and `hide` lock the row first,
so that concurrent changes come one after the other and none is lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.db import ciphers, image_children, sql
from xloud_image.db.dialect_errors import Meaning, meaning
from xloud_image.db.engine import tell
from xloud_image.db.image_children import Details
from xloud_image.db.tables import images
from xloud_image.errors import BadRequest, Duplicate, NoSuchImage, NotFound
from xloud_image.model import VISIBILITIES, Image, utcnow

# the columns that `change` may write
_COLUMNS: Final = (
    "status", "name", "owner", "visibility", "protected", "os_hidden", "container_format", "disk_format", "min_disk",
    "min_ram", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value",
)  # fmt: skip
# what a row of an image starts with, in every read: the fields of model.Image in their order
ROW: Final = ("id", *_COLUMNS, "created_at", "updated_at")
_NUMBERS: Final = {"size": 2**63 - 1, "virtual_size": 2**63 - 1, "min_disk": 2**31 - 1, "min_ram": 2**31 - 1}
# where `_load` finds a detail, counting the kind before ROW
_KEY, _NUMBER, _VALUE = 1 + ROW.index("name"), 1 + ROW.index("size"), 1 + len(ROW)


def image_of(row: Sequence[Any], found: Details) -> Image:
    """The image of a row that starts with ROW."""
    created = sql.made(row[16])
    # what is none of the four is nobody's but the owner's
    visibility = row[4] if row[4] in VISIBILITIES else "private"
    return Image(
        row[0], row[1], row[2], row[3], visibility, bool(row[5]), bool(row[6]), row[7], row[8], row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], created, sql.instant(row[17]) or created, found.properties,
        tuple(found.tags), tuple(found.locations), found.membership,
    )  # fmt: skip


async def get(
    conn: AsyncConnection, image_id: str, *, project: str | None = None, hidden: bool = False
) -> Image | None:
    """The image with its details, None when there is none; one statement.

    `project`: whose membership to fill in. `hidden`: also a deleted one, with the details that are not deleted yet.
    """
    found = await _load(conn, image_id, project, hidden)
    return None if found is None else found[0]


async def _load(
    conn: AsyncConnection, image_id: str, project: str | None, hidden: bool
) -> tuple[Image, Details] | None:
    values = [image_id] * (1 + len(image_children.SOURCES))
    if project is not None:
        values += [image_id, project]
    rows = await sql.fetch(conn, _one(sql.engine_of(conn), project is not None, hidden), values)
    found = Details()
    row = None
    for line in rows:
        if line[0] == 0:
            row = line[1:]
        else:
            found.add(line[0], line[_KEY], line[_VALUE], line[_VALUE + 1], line[_NUMBER])
    if row is None:
        return None
    found.arrange(ciphers.of(conn))
    return image_of(row, found), found


@functools.cache
def _one(engine: sql.Engine, member: bool, hidden: bool) -> str:
    """One row of the image, and rows of its details in the same columns: `name` is the key, `size` the row's number."""
    text = sql.Text(engine)

    def select(kind: int, table: str, key: str, value: str, extra: str, number: str) -> str:
        columns = {"id": "image_id", "name": key, "size": number}
        words = ", ".join([columns.get(name, "NULL") for name in ROW])
        return (
            f"SELECT {kind}, {words}, {value}, {extra} FROM {table}"  # noqa: S608 - constants
            f" WHERE image_id = {text.bind(None)} AND NOT deleted"
        )

    columns = ", ".join(ROW)
    image = f"SELECT 0, {columns}, NULL, NULL FROM images WHERE id = {text.bind(None)}"  # noqa: S608 - constants
    selects = [image if hidden else f"{image} AND NOT deleted", *[select(*source) for source in image_children.SOURCES]]
    if member:
        one = select(image_children.MEMBER, "image_members", "status", "NULL", "NULL", "id")
        selects.append(f"{one} AND member = {text.bind(None)}")
    return " UNION ALL ".join(selects)


def _require_numbers(values: Mapping[str, Any]) -> None:
    """BadRequest for a number that its column cannot hold on any engine."""
    for name, most in _NUMBERS.items():
        number = values.get(name)
        if number is not None and not 0 <= number <= most:
            raise BadRequest(f"'{name}' is {str(number)[:40]}; the database holds whole numbers from 0 to {most}.")


async def create(conn: AsyncConnection, image: Image) -> Image:
    """Store a new image with its details; the image as stored. Duplicate when the id is, or ever was, in use."""
    now = image_children.kept(conn, image.created_at)
    image = image.replace(created_at=now, updated_at=now, tags=tuple(sorted(set(image.tags))))
    values = {name: getattr(image, name) for name in ROW}
    _require_numbers(values)
    try:
        await sql.insert(conn, "images", [values | {"deleted": False}])
    except Exception as error:
        if meaning(error) is not Meaning.TAKEN:
            raise
        raise Duplicate(f"Image ID {image.id} already exists!") from error
    await image_children.write(conn, image.id, Details(), image, now)
    if image.locations:
        found = await _load(conn, image.id, None, hidden=False)  # they have numbers now
        assert found is not None
        image = found[0]
    tell(conn, "image.create", events.of_image, image)
    return image


async def change(
    conn: AsyncConnection, image_id: str, step: Callable[[Image], Image], *, project: str | None = None
) -> Image:
    """Lock and load the image, call `step`, store what differs; the image as stored. NotFound when there is none.

    `step` has no effect of its own and may raise to leave all as it is. What it changes of columns, properties, tags
    and locations is stored, and updated_at moves; when nothing differs, nothing is stored. A location without a number
    is new, one that is left out is removed.
    """
    old, found = await _locked(conn, image_id, project)
    new = step(old)
    columns = {name: getattr(new, name) for name in _COLUMNS if getattr(new, name) != getattr(old, name)}
    _require_numbers(columns)
    now = image_children.kept(conn, utcnow())
    differs = await image_children.write(conn, image_id, found, new, now)
    if not columns and not differs:
        return old
    await sql.update(conn, "images", {"updated_at": now, **columns}, id=image_id)
    if new.locations != old.locations:  # new ones have numbers now
        again = await _load(conn, image_id, project, hidden=False)
        assert again is not None
        stored = again[0]
    else:
        stored = old.replace(updated_at=now, properties=new.properties, tags=tuple(sorted(set(new.tags))), **columns)
    tell(conn, "image.update", events.of_image, stored)
    return stored


async def hide(
    conn: AsyncConnection,
    image_id: str,
    step: Callable[[Image], object] | None = None,
    *,
    project: str | None = None,
) -> Image:
    """Delete the image for all readers, but keep its details for `finish_delete`; the image as it was, with locations.

    `step` may raise to refuse. NotFound when there is none.
    """
    old, _ = await _locked(conn, image_id, project)
    if step is not None:
        step(old)
    now = image_children.kept(conn, utcnow())
    gone = {"status": "deleted", "deleted": True, "deleted_at": now, "updated_at": now}
    await sql.update(conn, "images", gone, id=image_id)
    return old


async def revive(conn: AsyncConnection, image_id: str, status: str) -> None:
    """Undo `hide` with this status. NotFound when the image is not hidden."""
    now = image_children.kept(conn, utcnow())
    done = await conn.execute(
        images.update()
        .where(images.c.id == image_id, images.c.deleted == sa.true())
        .values(status=status, deleted=False, deleted_at=None, updated_at=now)
    )
    if done.rowcount != 1:
        raise NotFound(f"No deleted image with ID {image_id}")


async def finish_delete(conn: AsyncConnection, image_id: str, *, known: Image | None = None) -> None:
    """Soft-delete what belongs to a hidden image: properties, tags, locations, members. May be repeated.

    `known`: the image as `hide` gave it in this very transaction; what it has not need not be looked for.
    """
    await image_children.remove_all(conn, image_id, image_children.kept(conn, utcnow()), known=known)


async def locked(conn: AsyncConnection, image_id: str, *, project: str | None = None) -> Image:
    """The image with its details, locked until the transaction ends. NotFound when there is none."""
    return (await _locked(conn, image_id, project))[0]


async def _locked(conn: AsyncConnection, image_id: str, project: str | None) -> tuple[Image, Details]:
    if conn.dialect.name != "sqlite":  # there the transaction holds the lock of the whole database
        text = sql.Text(sql.engine_of(conn))
        await sql.fetch(conn, f"SELECT 1 FROM images WHERE id = {text.bind(image_id)} FOR UPDATE", text.values)  # noqa: S608
    found = await _load(conn, image_id, project, hidden=False)
    if found is None:
        raise NoSuchImage(image_id)
    return found
