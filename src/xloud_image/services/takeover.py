"""From Glance to this service on the same database, and back: what would be served, what is in the way, and what is to
be settled on either side. Rows of images, members, tasks and definitions are the same for both and stay as they are.

Source of what Glance leaves: its tables and the Image API reference, sections "Status" and "Import".
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import events, jobs, locations, schema, statistics, uploads
from xloud_image.db import images as rows
from xloud_image.db import takeover as left
from xloud_image.db.engine import Tx
from xloud_image.db.image_children import WITHOUT_DATA
from xloud_image.errors import Conflict, DatabaseUnavailable, ImageServiceError, NotFound
from xloud_image.model import Image
from xloud_image.services import reaper, relay
from xloud_image.services.runtime import Runtime
from xloud_image.services.usage import locations_of

ENDED: Final = "The service that worked on this was stopped; begin anew."
_PAGE: Final = 200  # images that are settled between two looks
_PAUSE: Final = 0.5  # seconds between two looks at what is still pending

Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and what to type or to do about it ("" for nothing)."""

    severity: Severity
    sentence: str
    cure: str = ""


@dataclasses.dataclass(slots=True)
class Report:
    """What was looked at. `statuses`: status → images; `stores`: store → locations that it owns."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    stores: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, severity: Severity, sentence: str, cure: str = "") -> None:
        """Keep one finding. What rows hold of control characters does not reach a terminal."""
        self.findings.append(Finding(severity, _printable(sentence), _printable(cure)))

    @property
    def possible(self) -> bool:
        """Whether nothing is in the way."""
        return not any(one.severity == "error" for one in self.findings)


async def check(runtime: Runtime) -> Report:
    """Look at the database and the stores, and change nothing. Memory is bounded, whatever there is.

    `DatabaseUnavailable`.
    """
    report = Report()
    if not await _look_at_schema(runtime, report):
        return report
    try:
        found = await left.count(runtime.db)
        owned, lost = await locations_of(runtime, lambda row: _look_at_location(row, found))
    except DatabaseUnavailable as error:
        report.add("error", f"the rows cannot be counted: {error.message}", "xloud-image takeover check, again")
        return report
    report.statuses = dict(found.statuses) | {str(one): number for one, number in found.unknown.items()}
    _tell_rows(found, report, encrypted=runtime.settings.database.metadata_encryption_key is not None)
    _tell_odd(found, report)
    report.stores = dict(owned)
    for name, number in lost.items():
        cure = "name it in enabled_backends, with the options that Glance has for it"
        report.add("error", f"{number} locations are in store '{name}', which is not configured here", cure)
    for name, reason in (await runtime.stores.sick()).items():
        severity: Severity = "error" if owned[name] else "warning"
        report.add(severity, reason, f"xloud-image stores check {name}")
    return report


async def _look_at_schema(runtime: Runtime, report: Report) -> bool:
    """Whether there are image tables that can be asked."""
    found = await schema.of_glance(runtime.settings.database)
    for obstacle in found.obstacles:
        report.add("error", obstacle.sentence, obstacle.cure)
    if not found.heads and not found.obstacles:
        report.add("error", "the database has no tables of Glance", "look at [database] connection")
    if not report.possible:
        return False
    if found.step:
        cure = "xloud-image takeover run does it; an older Glance serves with that, too"
        report.add("warning", f"the tables are those of an older Glance: {found.step}", cure)
    for sentence in found.differences:
        report.add("warning", sentence)
    if await runtime.db.read(left.is_read_only):
        report.add(
            "error", "the database server takes no changes", "name the server that does in [database] connection"
        )
    return True


def _tell_rows(found: left.Rows, report: Report, *, encrypted: bool) -> None:
    some = found.examples

    def tell(severity: Severity, number: int, what: str, key: str, cure: str) -> None:
        if number:
            report.add(severity, f"{number} {what}{_such_as(some.get(key, []))}", cure)

    for status, images in found.unknown.items():
        which = "IS NULL" if status is None else f"= {_quoted(status)}"
        # to be read, not run
        cure = f"UPDATE images SET status = 'deactivated' WHERE status {which}; or 'queued', where they have no data"  # noqa: S608
        report.add("error", f"{images} images have the status '{status}', which is none", cure)
    if rest := found.found["statuses"] - found.unknown.total():
        report.add("error", f"{rest} images have further statuses that are none", "mend those first, and look again")
    for status in ("saving", "importing", "uploading"):
        if number := found.statuses.get(status):
            cure = "wait until they end, or stop Glance and settle them: xloud-image takeover run --glance-is-stopped"
            report.add("warning", f"{number} images are {status}: Glance works on them, or died", cure)
    settled = "xloud-image takeover run --glance-is-stopped settles them"
    tell("warning", found.without_data, "locations have no data yet, or a dead process left them; they are not served",
         "without_data", settled)  # fmt: skip
    tell("warning", found.locked, "images are marked as being imported", "locked", settled)
    tell("warning", found.tasks, "tasks have not ended", "tasks", settled)
    tell("warning", found.empty, "active images have no location: nobody can read them, in Glance neither", "empty", "")
    tell("note", found.ownerless, "images have no owner: administrators alone can change them, and read private ones",
         "ownerless", "")  # fmt: skip
    plain = 0 if encrypted else found.plain
    tell("warning", plain, "locations are no URL: encrypted with another key, or broken", "plain",
         "[DEFAULT] metadata_encryption_key must be Glance's")  # fmt: skip
    tell("note", found.recent, "images changed within the last minute: somebody works on this database", "recent", "")


# class of rows → how grave, what it is, what to type; {id} is an image's, as SQL
_ODD: Final[Mapping[str, tuple[Severity, str, str]]] = {
    "visibilities": (
        "warning", "images have a visibility that is none of the four: no list has them, and only the owner reads them",
        "UPDATE images SET visibility = 'private' WHERE visibility NOT IN ('public', 'private', 'shared', 'community')",
    ),
    "timeless": (
        "warning", "images have a time that is none, and are shown as if they were made in 1970",
        "UPDATE images SET created_at = '1970-01-01 00:00:00', updated_at = NULL WHERE id = {id}",
    ),
    "numbers": (
        "warning", "images have a size or a minimum that no image can have",
        "UPDATE images SET size = NULL, virtual_size = NULL, min_disk = 0, min_ram = 0 WHERE id = {id}",
    ),
    "names": (
        "note", "images have names of more than 255 characters, or with a NUL in them",
        "openstack image set --name NAME, with the id {id}",
    ),
    "blank": (
        "note", "images have an owner without a letter: administrators alone see those that are not public",
        "UPDATE images SET owner = NULL WHERE trim(owner) = ''",
    ),
    "metadata": (
        "warning", "locations have metadata that is no JSON object: it is taken for empty, as if they named no store",
        "UPDATE image_locations SET meta_data = '{{}}' WHERE image_id = {id}",
    ),
    "answers": (
        "note", "memberships have a status that is none: who has them does not see the image in lists",
        "UPDATE image_members SET status = 'pending' WHERE status NOT IN ('pending', 'accepted', 'rejected')",
    ),
}  # fmt: skip
_ORPHANS: Final = ("image_properties", "image_tags", "image_members", "image_locations")


def _tell_odd(found: left.Rows, report: Report) -> None:
    """Rows that no image service writes."""
    for kind, (severity, what, cure) in _ODD.items():
        if number := found.found[kind]:
            some = found.examples.get(kind, [])
            typed = cure.format(id=_quoted(some[0] if some else ""))
            report.add(severity, f"{number} {what}{_such_as(some)}", typed)
    for table in _ORPHANS:
        if number := found.found[table]:
            what = f"{number} rows of {table} belong to no image: nobody sees them{_such_as(found.examples[table])}"
            cure = f"DELETE FROM {table} WHERE image_id NOT IN (SELECT id FROM images)"  # noqa: S608 - to be read
            report.add("note", what, cure)


def _look_at_location(row: locations.Row, found: left.Rows) -> None:
    """Count one row of the only walk along the locations."""
    if row.missing:
        found.add("image_locations", 1, [row.image_id])
    if row.location is None:
        return
    if row.location.status in WITHOUT_DATA:
        found.add("without_data", 1, [row.image_id])
    elif "://" not in row.location.url:
        found.add("plain", 1, [row.image_id])
    if row.broken:
        found.add("metadata", 1, [row.image_id])


def _printable(text: str) -> str:
    return "".join([char if char.isprintable() else "\ufffd" for char in text])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _such_as(ids: list[str]) -> str:
    return f" ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})" if ids else ""


async def begin(runtime: Runtime, *, glance_is_stopped: bool) -> list[str]:
    """Bring the database to the state that this service needs. With `glance_is_stopped`, what waits for a process of
    Glance is settled as well: images that were being filled are queued again, those being copied are as they were,
    tasks fail. What was done, in sentences. May be repeated. `Conflict`: see `check`."""
    report = await check(runtime)
    if not report.possible:
        raise Conflict("; ".join(one.sentence for one in report.findings if one.severity == "error"))
    before = await schema.version(runtime.settings.database)
    after = await schema.upgrade(runtime.settings.database)
    done = []
    if before.ours != after.ours:
        done.append(f"our tables and indexes stand beside Glance's ({after.ours})")
    if not glance_is_stopped:
        return done
    settled = 0
    while ids := await runtime.db.read(lambda conn: left.stuck(conn, limit=_PAGE)):
        for image_id in ids:
            settled += await runtime.db.write(lambda tx, image_id=image_id: _settle(tx, image_id))  # type: ignore[misc]
    if settled:
        done.append(f"{settled} images that a dead process worked on are settled")
    if removed := await left.remove_without_data(runtime.db):
        done.append(f"{removed} locations without data are removed")
    if failed := await runtime.db.write(lambda conn: left.fail_tasks(conn, ENDED)):
        done.append(f"{failed} tasks that nobody works on have failed")
    return done


async def _settle(tx: Tx, image_id: str) -> bool:
    with contextlib.suppress(NotFound):  # deleted meanwhile
        await rows.locked(tx, image_id)
        if await left.stuck(tx, image_id=image_id):  # it may be ours by now
            await rows.change(tx, image_id, _settled)
            return True
    return False


def _settled(image: Image) -> Image:
    kept = {name: value for name, value in image.properties.items() if name not in left.IN_FLIGHT}
    status = "queued" if image.status in left.UNFINISHED else image.status
    gone: dict[str, None] = {"size": None, "virtual_size": None} if status != image.status else {}
    return image.replace(status=status, properties=kept, **gone)


async def end(runtime: Runtime, *, patience: float = 0.0) -> list[str]:
    """Give the database back: finish what is pending for at most `patience` seconds, then take our tables and indexes
    out. What was done, in sentences. `Conflict`, naming what is left, when that cannot be: nothing is lost then."""
    there = await schema.remains(runtime.settings.database)  # a way back may have been cut off
    if not there:
        return []
    until = time.monotonic() + patience
    while reason := await runtime.db.read(lambda conn: _what_is_left(conn, there, relay.told(runtime.settings))):
        if time.monotonic() >= until:
            raise Conflict(reason)
        try:
            await reaper.once(runtime)
            await reaper.late(runtime)
        except ImageServiceError as error:
            raise Conflict(f"{reason}: {error.message}") from error
        await asyncio.sleep(_PAUSE)
    await schema.downgrade(runtime.settings.database)
    return ["our tables and indexes are gone"]


async def _what_is_left(conn: AsyncConnection, there: Collection[str], wanted: Collection[events.Outbox]) -> str:
    """Why these tables are still needed; "" when they are not. `wanted`: what is to be sent."""
    said = []
    workers = [one for one in await jobs.list_workers(conn) if one.alive] if "xloud_workers" in there else []
    if workers:
        said.append(f"{len(workers)} processes of this service run: stop them first")
    words = {
        "write": "uploads have not ended", "part": "uploads have not ended",
        "delete": "deletions are pending (xloud-image stores pending)",
        "stage": "images are staged for an import: import or delete them", "hash": "images wait for their digests",
    }  # fmt: skip
    held: Counter[str] = Counter()
    for kind, _, number, _ in await statistics.claimed(conn) if "xloud_claims" in there else ():
        held[words.get(kind, f"claims of kind {kind}")] += number
    if "xloud_uploads" in there:
        held["uploads in several requests have not ended, or wait for an import"] += await uploads.unfinished(conn)
    if "xloud_jobs" in there:
        number = sum(row[2] for row in await statistics.working(conn))
        held["jobs have not ended: let xloud-image worker finish them (xloud-image jobs list)"] += number
    for box in wanted:  # what nobody has sent any more keeps nobody
        if box.table in there:
            number, _ = await box.waiting(conn)
            held[f"{box.what} have not been sent: let xloud-image worker send them"] += number
    said += [f"{number} {what}" for what, number in held.items() if number]
    return "; ".join(said)
