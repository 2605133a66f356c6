"""The work of an import: the source is read once, and its bytes go through the stages into all stores at once.

A kind of job (`services.jobs`). Bytes under way have claims as those of an upload have; the transaction that ends the
job adds the locations, so a job that was taken over has an effect once or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import events
from xloud_image.conversion.source import File
from xloud_image.db import claims, images, jobs, tasks
from xloud_image.db.engine import Tx
from xloud_image.errors import (
    AlreadyExists,
    BlobChanged,
    Conflict,
    DatabaseUnavailable,
    ImageServiceError,
    NotFound,
    StoreUnavailable,
)
from xloud_image.failpoints import reach
from xloud_image.fetching.checksums import Expected
from xloud_image.fetching.resource import Resource
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Job, Location, utcnow
from xloud_image.policy import images as rights
from xloud_image.services import (
    acls,
    certificates,
    converting,
    data,
    deletions,
    downloads,
    external,
    fetching,
    hints,
    quotas,
    regions,
    staging,
)
from xloud_image.services.imports import FAILED, LOCK, TO_STORES
from xloud_image.services.ingest import Target, ingest
from xloud_image.services.jobs import Kind, Progress, Unwanted
from xloud_image.services.runtime import Runtime
from xloud_image.services.unpacking import Unpacking
from xloud_image.stores.base import Blob, Caller, Store
from xloud_image.streams.decoders import HEAD
from xloud_image.streams.digest import Checked, Digest
from xloud_image.streams.stages import Limit, Stage, through

log = structlog.get_logger(__name__)

_GONE: Final = (
    "The data that was to be left there is not there any more, or not compared yet; the image stays where it is."
)
_ENDING: Final = 3600.0  # seconds that readers of data which was moved have before it is removed


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Data to be imported, opened: `size` in bytes, None unknown; `expected`: digests that it must have; `ranges`: its
    parts, where it gives any; `properties`: those that the image gets, as the `formats`."""

    chunks: AsyncIterator[bytes]
    size: int | None
    expected: Sequence[Expected] = ()
    ranges: converting.Ranges | None = None
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    formats: Mapping[str, str] = dataclasses.field(default_factory=dict)


async def run(runtime: Runtime, job: Job, progress: Progress) -> None:
    """Import the data of a job that is ours. `Unwanted` when the image is gone or is not waiting for it any more."""
    copying = job.request["method"] == "copy-image"
    image = await _image(runtime, job, copying)
    await runtime.db.write(lambda tx: _begun(runtime, tx, job, None if copying else image))
    mine: list[Claim] = []
    targets: list[Target] = []
    async with contextlib.AsyncExitStack() as held:
        source = None if copying else await held.enter_async_context(_source(runtime, job, image))
        formats = {} if source is None else source.formats
        image = image.replace(**formats)
        try:
            seal = None if source is None else await _seal(runtime, job, image)
            plain = source is None or seal is not None
            room = await quotas.room(runtime, image, "size", _expected(runtime, job, image, source, plain))
            failures = await _claims(runtime, job, image, room, mine, targets, held)
            blobs: dict[str, Blob] = {}
            there: Location | None = None
            if not job.request["stores"]:
                summary, there = await _there_already(runtime, job, image, progress)
            elif source is None:
                summary, blobs = await _copied(runtime, image, room, targets, progress)
            else:
                progress.begin(f"writing to {', '.join(claim.store for claim in mine)}", source.size)
                summary, blobs = await _written(runtime, job, image, source, room, targets, progress, seal)
                summary = dataclasses.replace(summary, properties={**summary.properties, **source.properties})
            await reach("job.written")
            failures |= {target.store.name: target.error for target in targets if target.error is not None}
            stored = await _stored(runtime, job, mine, blobs, summary, failures, copying, plain, formats, there)
        except BaseException:
            # nothing may interrupt putting things back
            await asyncio.shield(runtime.spawn(_discarded(runtime, job, mine, targets), "put back an import"))
            raise
        progress.end()
    await reach("job.done")
    await acls.follow(runtime, Context(project=job.owner, is_admin=True), stored.image)
    hints.log_for(runtime, stored.image)
    lost = [claim for claim in mine if claim.store not in blobs]
    if lost:
        await _discarded(runtime, job, lost, targets)
    await deletions.settle(runtime, stored.staged)


async def _claims(
    runtime: Runtime,
    job: Job,
    image: Image,
    room: quotas.Room,
    mine: list[Claim],
    targets: list[Target],
    held: contextlib.AsyncExitStack,
) -> dict[str, Exception]:
    """Claim the bytes that go to each store, and hold the claims. Where not all must succeed, a store that cannot be
    written to now is left out: its error, by its id."""
    failures: dict[str, Exception] = {}
    must_all = bool(job.request["must_all"])
    for store_id in job.request["stores"]:
        try:
            claim = await _claim(runtime, job, image, room, store_id)
        except ImageServiceError as error:
            if must_all or isinstance(error, DatabaseUnavailable):
                raise
            failures[store_id] = error
            continue
        held.enter_context(runtime.holding(claim))
        mine.append(claim)
        targets.append(Target(runtime.stores[store_id], claim.key, _caller(job), required=must_all))
    if failures and not targets:
        raise next(iter(failures.values()))
    return failures


async def fail(runtime: Runtime, job: Job, reason: str) -> None:
    """End a job that is ours without effect: the image is as it was before, but that staged data is gone."""
    copying = job.request["method"] == "copy-image"

    def queued(current: Image) -> Image:
        properties = {name: value for name, value in current.properties.items() if name != LOCK}
        properties |= {TO_STORES: "", FAILED: ",".join(job.request["stores"])}
        if copying or current.status != "importing":
            return current.replace(properties=properties)
        return current.replace(status="queued", size=None, virtual_size=None, properties=properties)

    async def finish(conn: Tx) -> list[Claim]:
        if not await jobs.end(conn, job):
            return []
        kept_for = runtime.settings.imports.task_time_to_live * 3600.0
        await tasks.change(conn, job.id, "failure", message=reason[:1000], kept_for=kept_for)
        with contextlib.suppress(NotFound):  # deleted meanwhile
            left = await images.change(conn, job.image_id, queued)
            if job.request.get("new") and left.status == "queued":
                await _removed(conn, job.image_id)
        return await deletions.begin_unstaging(runtime, conn, job.image_id) if not copying else []

    log.warning("an import failed", image=job.image_id, job=job.id, reason=reason)
    await deletions.settle(runtime, await runtime.db.write(finish))


async def _removed(tx: Tx, image_id: str) -> None:
    """An image that was made for its import, which failed."""
    gone = await images.hide(tx, image_id)
    await deletions.finish_delete(tx, image_id, known=gone)
    tx.tell("image.delete", events.of_image, gone, deleted_at=utcnow())


KIND: Final = Kind(run, fail)


def _caller(job: Job) -> Caller:
    # nobody's token is at hand, but whose account it is may matter to the store
    return Caller(user=job.request.get("user"), project=job.request.get("project"), trusted=job.request["trusted"])


async def _image(runtime: Runtime, job: Job, copying: bool) -> Image:
    image = await runtime.db.read(lambda conn: images.get(conn, job.image_id))
    if image is None or image.status != ("active" if copying else "importing"):
        raise Unwanted
    return image


async def _begun(runtime: Runtime, tx: Tx, job: Job, image: Image | None) -> None:
    """`image`: that gets data now."""
    if await jobs.renew(tx, job, lease=runtime.settings.lease_time) is None:
        raise Unwanted
    await tasks.change(tx, job.id, "processing")
    if image is not None:
        tx.tell("image.prepare", events.of_image, image)


@asynccontextmanager
async def _source(runtime: Runtime, job: Job, image: Image) -> AsyncIterator[Source]:
    method = job.request["method"]
    if method == "glance-direct":
        found = await staging.found(runtime, image.id)
        if found is None:
            raise Conflict("The staged data is not there any more.")
        async with contextlib.aclosing(found.chunks()) as chunks:
            yield Source(chunks, found.size, ranges=converting.Ranges(found.size, found.read))
    elif method == "web-download":
        details, trusted = job.request["details"], job.request["trusted"]
        async with fetching.fetcher(runtime) as way:
            expected = await fetching.expected(runtime, way, details, trusted=trusted)
            # what changed while it was read in parts, as mirrors behind one name do, is read by one request then
            async with (
                way.open(details["uri"], trusted=trusted, plain=job.attempts > 1) as resource,
                contextlib.aclosing(resource.chunks()) as chunks,
            ):
                yield Source(chunks, resource.size, expected, _ranges(resource))
    elif method == "glance-download":
        async with regions.opened(runtime, job) as remote:
            resource = remote.resource
            ranges = _ranges(resource)
            async with contextlib.aclosing(resource.chunks()) as chunks:
                yield Source(chunks, resource.size, remote.expected, ranges, remote.properties, remote.formats)
    else:
        raise Conflict(f"The method {method} is not possible here.")


def _ranges(resource: Resource) -> converting.Ranges | None:
    if not resource.ranges or resource.size is None:
        return None
    return converting.Ranges(resource.size, resource.read)


async def _claim(runtime: Runtime, job: Job, image: Image, room: quotas.Room, store_id: str) -> Claim:
    """A claim for the bytes that go to this store; what an earlier attempt left there goes first."""
    store = runtime.stores.get(store_id)
    if store is None:
        raise StoreUnavailable(f"the store '{store_id}' is not configured now")
    await _clear(runtime, job, store)
    claim = deletions.new_claim(runtime, "write", image.id, store_id)
    claim = dataclasses.replace(claim, url=data.own_key(claim))

    async def begin(conn: AsyncConnection) -> None:
        await room.admit(conn)
        if await jobs.renew(conn, job, lease=runtime.settings.lease_time) is None:
            raise Unwanted
        await claims.begin(conn, claim, lease=runtime.settings.lease_time)
        await room.take(conn, claim)

    await runtime.db.write(begin)
    room.holds(claim)
    return claim


async def _clear(runtime: Runtime, job: Job, store: Store) -> None:
    """What an earlier attempt left in this store goes; while the reaper is at it, it is waited for."""
    end = time.monotonic() + runtime.settings.lease_time + runtime.settings.store_timeout
    while True:
        try:
            await data.clear_leftover(runtime, job.image_id, store, _caller(job))
        except Conflict as error:
            if time.monotonic() > end:
                raise StoreUnavailable(error.message) from None
            await asyncio.sleep(0.5)
        else:
            return


async def _copied(
    runtime: Runtime, image: Image, room: quotas.Room, targets: Sequence[Target], progress: Progress
) -> tuple[data.Summary, dict[str, Blob]]:
    """The data of an image that has some, as it is, in further stores: by the stores themselves where they can, else
    read once, and compared with the digest that somebody has found by reading."""
    known = external.true_digest(image)
    summary = data.Summary(image.size or 0, dict([known] if known else []), image.virtual_size)
    blobs: dict[str, Blob] = {}
    for target in targets:
        progress.begin(f"copying into {target.store.name}")
        try:
            blob = await _copied_by_store(runtime, image, target)
            if blob is not None and known and not target.store.SUMS:
                progress.begin(f"reading what is in {target.store.name}", image.size)
                await _proved(runtime, target, blob, known, progress)
        except ImageServiceError as error:
            target.error = target.error or error
            if target.required:
                raise
            continue
        if blob is not None:
            blobs[target.store.name] = blob
    rest = [target for target in targets if target.store.name not in blobs and target.error is None]
    if not rest:
        if not blobs:
            raise next(target.error for target in targets if target.error is not None)
        return summary, blobs
    try:
        read, found = await _read_once(runtime, image, room, rest, progress, known)
    except ImageServiceError as error:
        if not blobs or any(target.required for target in rest):
            raise
        for target in rest:
            target.error = target.error or error
        return summary, blobs
    return dataclasses.replace(summary, digests=found), blobs | read


async def _read_once(
    runtime: Runtime,
    image: Image,
    room: quotas.Room,
    rest: Sequence[Target],
    progress: Progress,
    known: tuple[str, str] | None,
) -> tuple[dict[str, Blob], dict[str, str]]:
    """The data of an image into further stores, through this process; the blobs and the digests. `BlobChanged`."""
    async with downloads.download(runtime, Context(is_admin=True), image) as opened:
        progress.begin(f"writing to {', '.join(target.store.name for target in rest)}", opened.size)
        limit = Limit(image.size, runtime.settings.limits.image_size_cap)
        digest = Digest([known[0] if known else runtime.settings.hashing_algorithm], runtime.digest_pool)
        stages: list[Stage] = [limit, *room.stages, digest]
        blobs = await ingest(_counted(opened.reader.chunks, progress), rest, stages, size=opened.size)
    found = await digest.hexes()
    if known and found[known[0]] != known[1]:
        raise BlobChanged("The data that was read is not the data of the image.")
    return blobs, found


async def _there_already(runtime: Runtime, job: Job, image: Image, progress: Progress) -> tuple[data.Summary, Location]:
    """The data that a move finds where it was to go, and its location: read, and compared with the image's digest, or
    with what is in the store that it leaves where nobody knows one. `BlobChanged`; `Conflict`: there is nothing."""
    there = _right(runtime, image, job.request["to"])
    if there is None:
        raise Conflict(_GONE)
    known = external.true_digest(image)
    if known is None:
        leaves = _right(runtime, image, job.request["leave"])
        if leaves is None:
            raise Conflict(_GONE)
        algorithm = runtime.settings.hashing_algorithm
        known = algorithm, await _hex(runtime, job, image, leaves, algorithm, progress)
    if await _hex(runtime, job, image, there, known[0], progress) != known[1]:
        raise BlobChanged("The data that lies there is not the data of the image.")
    return data.Summary(image.size or 0, dict([known]), image.virtual_size), there


def _right(runtime: Runtime, image: Image, name: str) -> Location | None:
    """The location of an image in this store that readers get, if there is one."""
    return next((item for item in image.locations if _is_in(runtime, item, name) and _is_given(item)), None)


async def _hex(runtime: Runtime, job: Job, image: Image, location: Location, algorithm: str, progress: Progress) -> str:
    """The digest of an image's data at a location, all of it read, as a download would be."""
    store = runtime.stores.of(location)
    assert store is not None
    progress.begin(f"reading what is in {store.name}")
    digest = Digest([algorithm], runtime.digest_pool)
    limit = Limit(image.size, runtime.settings.limits.image_size_cap)
    who = external.caller(Context(user=job.request.get("user"), project=job.request.get("project")), location)
    async with store.open(location.url, caller=who) as reader:
        external.require_unchanged(store, location, reader, image.size)
        async for _ in through(_counted(reader.chunks, progress), [limit, digest]):
            pass
    return (await digest.hexes())[algorithm]


async def _copied_by_store(runtime: Runtime, image: Image, target: Target) -> Blob | None:
    """Between two stores of one backend, without reading the data. None where it has to be read."""
    for store, location in downloads.in_order(runtime, image):
        if store.TYPE is not target.store.TYPE or image.size is None or external.is_wrong(location):
            continue
        try:
            blob = await target.store.copy(target.key, store, location.url, size=image.size, caller=target.caller)
        except AlreadyExists as error:
            target.error = error
            raise
        except ImageServiceError as error:
            log.warning(
                "a store could not copy by itself",
                image=image.id,
                store=target.store.name,
                origin=store.name,
                reason=error.message,
            )
            continue
        if blob is not None:
            log.info("a store copied by itself", image=image.id, store=target.store.name, origin=store.name)
            return blob
    return None


async def _proved(runtime: Runtime, target: Target, blob: Blob, known: tuple[str, str], progress: Progress) -> None:
    """`BlobChanged` when the copy has another digest than the image."""
    digest = Digest([known[0]], runtime.digest_pool)
    async with target.store.open(blob.url, caller=target.caller) as reader:
        async for _ in through(_counted(reader.chunks, progress), [digest]):
            pass
    if (await digest.hexes())[known[0]] != known[1]:
        raise BlobChanged("The data that was copied is not the data of the image.")


async def _written(
    runtime: Runtime,
    job: Job,
    image: Image,
    source: Source,
    room: quotas.Room,
    targets: Sequence[Target],
    progress: Progress,
    seal: certificates.Seal | None,
) -> tuple[data.Summary, dict[str, Blob]]:
    way = Unpacking(runtime, image, trusted=job.request["ovf"])
    unpacking: list[Stage] = []
    if seal is None:  # what was signed stays as it is
        image = way.becomes(image)
        wanted = converting.target(runtime, image, job.request["stores"])
        if wanted is not None:
            return await _converted(runtime, image, source, room, targets, progress, wanted, way)
        unpacking = way.stages(source.size)
    came = Digest([one.algorithm for one in source.expected], runtime.digest_pool)
    before: list[Stage] = [came] if source.expected else []
    size = None if unpacking else source.size
    limit, inspect, digest = data.stages_of(runtime, image, size, seal)
    last: list[Stage] = [*data.verify(digest, seal), Checked(came, source.expected)]
    every: list[Stage] = [*before, *unpacking, limit, *room.stages, inspect, digest, *last]
    blobs = await ingest(_counted(source.chunks, progress), targets, every, size=size)
    found = way.properties if seal is None else {}
    return data.Summary(limit.size, await digest.hexes(), inspect.virtual_size, found), blobs


async def _converted(
    runtime: Runtime,
    image: Image,
    source: Source,
    room: quotas.Room,
    targets: Sequence[Target],
    progress: Progress,
    wanted: str,
    way: Unpacking,
) -> tuple[data.Summary, dict[str, Blob]]:
    """As `_written`, in another format."""
    cap = runtime.settings.limits.image_size_cap
    async with contextlib.AsyncExitStack() as stack:
        disk: converting.Ranges | File | None = source.ranges
        packed = disk is not None and way.is_packed(await disk.read(0, min(HEAD, disk.size)))
        if disk is None or packed or source.expected:
            progress.begin("fetching", source.size)
            came = Digest([one.algorithm for one in source.expected], runtime.digest_pool)
            unpacking = way.stages(source.size) or [Limit(source.size, cap)]
            stages: list[Stage] = [came, *unpacking, Limit(None, cap), Checked(came, source.expected)]
            whole = through(_counted(source.chunks, progress), stages)
            disk = await stack.enter_async_context(converting.spooled(runtime, whole))
        made = await stack.enter_async_context(converting.converted(runtime, image, disk, wanted))
        progress.begin(f"converting to {wanted}", made.size)
        limit = Limit(made.size, cap)
        digest = data.new_digest(runtime)
        blobs = await ingest(_counted(made.chunks, progress), targets, [limit, *room.stages, digest], size=made.size)
        return data.Summary(limit.size, await digest.hexes(), made.virtual_size, way.properties), blobs


async def _seal(runtime: Runtime, job: Job, image: Image) -> certificates.Seal | None:
    # nobody's token is at hand: the certificate was read when the import began
    return await certificates.signed(runtime, Context(), image, kept=job.request.get("certificate"))


def _expected(runtime: Runtime, job: Job, image: Image, source: Source | None, plain: bool) -> int | None:
    """Bytes that will be written to each store, where that can be told before. source: None for a copy; `plain`: they
    are the source's."""
    if source is None:
        return image.size
    if not plain:
        way = Unpacking(runtime, image, trusted=False)
        wanted = converting.target(runtime, way.becomes(image), job.request["stores"])
        if wanted is not None or way.stages(source.size):
            return None
    return source.size


async def _counted(source: AsyncIterator[bytes], progress: Progress) -> AsyncIterator[bytes]:
    half = (progress.total or 0) // 2
    async for chunk in source:
        if progress.done <= half < progress.done + len(chunk):
            await reach("job.half")
        progress.done += len(chunk)
        yield chunk


@dataclasses.dataclass(frozen=True, slots=True)
class _Stored:
    image: Image
    staged: list[Claim]


async def _stored(
    runtime: Runtime,
    job: Job,
    mine: Sequence[Claim],
    blobs: dict[str, Blob],
    summary: data.Summary,
    failures: Mapping[str, Exception],
    copying: bool,
    plain: bool,
    formats: Mapping[str, str],
    there: Location | None = None,
) -> _Stored:
    """One transaction: the job and its claims end, the image has its data. `Unwanted` when the job is not ours.
    `there`: where a move found the data."""
    locations = [data.location_of(runtime, blobs[claim.store], claim.store) for claim in mine if claim.store in blobs]
    failed = [store for store in job.request["stores"] if store not in blobs]
    left: list[Location] = []

    def imported(current: Image) -> Image:
        properties = {name: value for name, value in current.properties.items() if name != LOCK}
        properties |= {TO_STORES: "", FAILED: ",".join(failed)}
        if copying:
            if current.status != "active":
                raise Unwanted
            known = external.true_digest(current)
            if known not in (None, *summary.digests.items()):
                raise StoreUnavailable("the image's digest became known meanwhile; the copy is compared with it")
            same = (item for item in current.locations if there and (item.id, item.url) == (there.id, there.url))
            if there is not None and not any(map(_is_given, same)):
                raise Conflict(_GONE)
            leave = job.request.get("leave")
            left.extend(item for item in current.locations if leave and _is_in(runtime, item, leave))
            known = known or next(iter(summary.digests.items()), None)
            kept = [
                _noted(current, item, known) if there is not None and item.id == there.id else item
                for item in current.locations
                if item not in left
            ]
            new = [_noted(current, location, known) for location in locations]
            return current.replace(properties=properties, locations=(*kept, *new))
        if current.status != "importing":
            raise Unwanted
        current = current.replace(**formats)
        if job.request["inject"] and "inject_image_metadata" in runtime.settings.imports.image_import_plugins:
            properties |= runtime.settings.imports.inject
        now = current if plain else Unpacking(runtime, current, trusted=False).becomes(current)
        now = now.replace(properties={**properties, **_brought(runtime, job, current, summary)})
        if not plain and (wanted := converting.target(runtime, now, job.request["stores"])) is not None:
            now = now.replace(disk_format=wanted, container_format="bare")
        return data.arrived(runtime, now, summary, locations)

    async def finish(tx: Tx) -> _Stored:
        if not await jobs.end(tx, job):
            raise Unwanted
        for claim in mine:
            if claim.store in blobs and not await claims.end(tx, claim.id, holder=runtime.holder):
                raise StoreUnavailable("the bytes were taken for left over; they are written again")
        left.clear()
        image = await images.change(tx, job.image_id, imported)
        if not copying:
            data.tell_arrived(tx, image)
        for gone in await deletions.begin_deletes(runtime, tx, image, left, scope="location"):
            why = "the image was moved; who reads it here may end first"
            await claims.postpone(tx, gone.id, runtime.holder, seconds=_ENDING, error=why, failed=False)
        staged = [] if copying else await deletions.begin_unstaging(runtime, tx, job.image_id)
        message = _said(summary.size, locations, failures)
        message += "".join(f" It is not in {item.store or job.request['leave']} any more." for item in left)
        kept_for = runtime.settings.imports.task_time_to_live * 3600.0
        result = {"image_id": job.image_id}
        await tasks.change(tx, job.id, "success", message=message, result=result, kept_for=kept_for)
        return _Stored(image, staged)

    try:
        return await runtime.db.write(finish)
    except NotFound:
        raise Unwanted from None


def _brought(runtime: Runtime, job: Job, image: Image, summary: data.Summary) -> dict[str, str]:
    """The properties that came with the data, of those that whoever asked for the import may set."""
    who = Context(project=job.request.get("project"), roles=frozenset(job.request.get("roles") or ()))
    may = rights.may_do(runtime.policy, who)
    return {
        name: text
        for name, text in summary.properties.items()
        if may("update" if name in image.properties else "create", name)
    }


def _noted(image: Image, location: Location, known: tuple[str, str] | None) -> Location:
    """A copy's location, which knows what the image's others know of the data."""
    if external.is_announced(image):
        location = external.announced(location)
    elif external.digest_of(image) is not None:
        return location
    return location if known is None else external.digested(location, *known)


def _is_given(location: Location) -> bool:
    """Whether readers get data from a location."""
    return external.counts(location) and not external.is_wrong(location)


def _is_in(runtime: Runtime, location: Location, name: str | None) -> bool:
    """Whether a location is one of the store with this name."""
    store = runtime.stores.of(location)
    return store is not None and store.name == name


def _said(size: int, locations: Sequence[Location], failures: Mapping[str, Exception]) -> str:
    where = ", ".join(location.store or "the store" for location in locations)
    said = f"Copied {size / (1 << 20):.0f} MiB to {where}." if where else "It was there already."
    for store, error in failures.items():
        why = error.message if isinstance(error, ImageServiceError) else "it failed; see the log"
        said += f" Not to {store}: {why.rstrip('.')}."
    return said[:1000]


async def _discarded(runtime: Runtime, job: Job, mine: Sequence[Claim], targets: Sequence[Target]) -> None:
    """What was written goes, as far as its claims are still ours; what cannot be done now is left to the reaper."""
    errors: dict[str, Any] = {target.store.name: target.error for target in targets}
    lease = runtime.settings.lease_time
    with runtime.holding(*mine):
        for claim in mine:
            try:
                if not await runtime.db.write(
                    lambda conn, claim=claim: claims.renew(conn, claim.id, runtime.holder, lease=lease)  # type: ignore[misc]
                ):
                    continue
                # bytes that were there before us are not ours to remove
                if not isinstance(errors.get(claim.store), AlreadyExists):
                    await runtime.stores[claim.store].discard(claim.key, caller=_caller(job))
                await runtime.db.write(
                    lambda conn, claim=claim: claims.end(conn, claim.id, holder=runtime.holder)  # type: ignore[misc]
                )
            except Exception as error:  # noqa: BLE001 - whatever it was, the reaper will try again
                await deletions.postpone(runtime, claim, error)
