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
from collections.abc import Collection
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import events, jobs, schema, statistics, uploads
from xloud_image.db import images as rows
from xloud_image.db import takeover as left
from xloud_image.db.engine import Tx
from xloud_image.errors import Conflict, ImageServiceError, NotFound
from xloud_image.model import Image
from xloud_image.services import reaper
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
        """Keep one finding."""
        self.findings.append(Finding(severity, sentence, cure))

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
    found = await runtime.db.read(left.count)
    report.statuses = found.statuses
    _tell_rows(found, report, encrypted=runtime.settings.database.metadata_encryption_key is not None)
    owned, lost = await locations_of(runtime)
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
    version = await schema.version(runtime.settings.database)
    if version.glance is None:
        report.add("error", "the database has no tables of Glance", "look at [database] connection")
        return False
    heads = version.glance.split(",")
    if len(heads) > 1 or not heads[0].endswith(("contract01", "contract02")):
        cure = "glance-manage db sync, with the release that wrote it"
        report.add("error", f"a migration of Glance is not finished (the database is at {version.glance})", cure)
        return False
    if not await schema.has_all_of_glance(runtime.settings.database):
        cure = "pass through Glance 2024.1 (28) or newer: its own glance-manage db sync"
        report.add("error", f"the tables are older than those of Glance 2024.1 (they are at {version.glance})", cure)
        return False
    for sentence in await schema.check(runtime.settings.database):
        if not sentence.startswith(("Our part", "Table xloud_", "Index xloud_")):
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

    for status in found.unknown:
        report.add(
            "error", f"{found.statuses[status]} images have the status '{status}', which is none", "mend the rows"
        )
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
    now = await runtime.db.read(left.count)
    if now.without_data:
        await runtime.db.write(left.remove_without_data)
        done.append(f"{now.without_data} locations without data are removed")
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
    version = await schema.version(runtime.settings.database)
    if version.ours is None:
        await schema.downgrade(runtime.settings.database)
        return []
    until = time.monotonic() + patience
    there = await schema.own_tables(runtime.settings.database)  # a way back may have been cut off
    while reason := await runtime.db.read(lambda conn: _what_is_left(conn, there)):
        if time.monotonic() >= until:
            raise Conflict(reason)
        try:
            await reaper.once(runtime)
        except ImageServiceError as error:
            raise Conflict(f"{reason}: {error.message}") from error
        await asyncio.sleep(_PAUSE)
    await schema.downgrade(runtime.settings.database)
    return ["our tables and indexes are gone"]


async def _what_is_left(conn: AsyncConnection, there: Collection[str]) -> str:
    """Why these tables are still needed; "" when they are not."""
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
    for box in (events.CHANGES, events.AUDIT):
        if box.table in there:
            number, _ = await box.waiting(conn)
            held[f"{box.what} have not been sent: let xloud-image worker send them"] += number
    said += [f"{number} {what}" for what, number in held.items() if number]
    return "; ".join(said)
